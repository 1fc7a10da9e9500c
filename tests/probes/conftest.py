"""Tiny models scanned in full, and the same numbers by hand: from transformers' own outputs and plain hooks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monadnock import Run, scan
from monadnock.data import Windows, token_windows
from monadnock.models import Adapter, Source
from monadnock.probes import Evidence
from monadnock.stats import Statistic
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words

LENGTH, NUM_WINDOWS = 44, 3
TOKENIZER = word_tokenizer()
CHANGES: dict[str, dict[str, Any]] = {"llama": {"intermediate_size": 80}, "mixtral": {"num_local_experts": 6}}


@dataclass
class Scanned:
    """A tiny model, its windows [window, seq], and the run of a scan."""

    model: Any
    ids: Tensor
    run: Run
    text: Path
    _seen: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def adapter(self) -> Adapter:
        return Adapter(self.model, TOKENIZER, Source("tiny", "object"))

    @cached_property
    def plain(self) -> Any:
        """What transformers returns with eager attention: hidden_states and attentions of all windows."""
        own = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        with torch.no_grad():
            output = self.model(self.ids, output_hidden_states=True, output_attentions=True, use_cache=False)
        self.model.set_attn_implementation(own)
        return output

    def input_of(self, path: str) -> Tensor:
        """Return what a submodule is given, [window, seq, width]."""
        return self._hooked(path, "register_forward_pre_hook")

    def output_of(self, path: str) -> Tensor:
        """Return what a submodule gives, [window, seq, width]."""
        return self._hooked(path, "register_forward_hook")

    def _hooked(self, path: str, how: str) -> Tensor:
        key = f"{path} {how}"
        if key not in self._seen:

            def keep(_module: Any, *values: Any) -> None:
                value = values[-1]
                self._seen[key] = (value[0] if isinstance(value, tuple) else value).clone()

            handle = getattr(self.model.get_submodule(path), how)(keep)
            with torch.no_grad():
                self.model(self.ids, use_cache=False)
            handle.remove()
        return self._seen[key]


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Scanned]:
    """Return a function that scans a family's tiny model with all probes, once."""
    known: dict[str, Scanned] = {}

    def get(family: str) -> Scanned:
        if family not in known:
            folder = tmp_path_factory.mktemp(family)
            text = write_words(folder, random_words(1000))
            model = tiny_model(family, **CHANGES.get(family, {}))
            run = scan(model, TOKENIZER, out=folder / "run", text=text, length=LENGTH, tokens=NUM_WINDOWS * LENGTH)
            ids = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=NUM_WINDOWS * LENGTH).ids
            known[family] = Scanned(model, ids, run, text)
        return known[family]

    return get


@pytest.fixture(scope="session")
def tiny_adapter() -> Adapter:
    return Adapter(tiny_model("llama", num_hidden_layers=2), TOKENIZER, Source("tiny", "object"))


def evidence_of(adapter: Adapter, observed: dict[Any, Statistic], length: int = 8) -> Evidence:
    """Return evidence of two windows of <s> w0 w1 ..., as if the statistics had been observed there."""
    ids = torch.tensor([1, *range(3, 2 + length)]).repeat(2, 1)
    return Evidence(adapter, Windows(ids, True, "hand-made", 0), 1, observed)
