"""Tiny models of every family with a tokenizer, and what a plain pass of transformers says of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monadnock.models import Adapter, Source
from tests.models.conftest import CASES, without_gradients  # noqa: F401 (a fixture)
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words

LAYER = 1


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny matrices: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(case: str, **changes: Any) -> Adapter:
    """Return the adapter of a tiny random model, with a word for each of its 128 embeddings."""
    model_type, own = CASES[case]
    return Adapter(tiny_model(model_type, **own | changes), word_tokenizer(num_words=125), Source(case, "object"))


@pytest.fixture(scope="module", params=list(CASES))
def adapter(request):
    return make(request.param)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, 100, (9,), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(300))


def plain(adapter: Adapter, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the states [seq, d_model] before the first layer and behind each, and the logits, by plain hooks."""
    states: list[Tensor] = []

    def first(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        states.append((args[0] if args else kwargs["hidden_states"])[0].clone())

    def later(_module: nn.Module, _args: tuple, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output)[-1 if ids.dim() > 1 else 0].clone())

    handles = [adapter.layers[0].register_forward_pre_hook(first, with_kwargs=True)]
    handles += [layer.register_forward_hook(later) for layer in adapter.layers]
    try:
        with torch.no_grad():
            logits = adapter.model(ids[None], use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return [each.reshape(len(ids), -1) for each in states], logits


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosines of vectors in the last dimension."""
    return nn.functional.cosine_similarity(one.double(), other.double(), dim=-1)
