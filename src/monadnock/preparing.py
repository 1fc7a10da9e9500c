"""From what a user gives to what a verb needs: the model, the windows of the text, and the facts for the manifest."""

import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monadnock.data import Windows, token_windows
from monadnock.errors import MonadnockError
from monadnock.findings import Run
from monadnock.findings.manifest import ModelFacts, TextFacts
from monadnock.findings.run import check_free
from monadnock.models import Adapter, Source, load
from monadnock.models.components import each_parameter

DEFAULT_LENGTH = 1024
DEFAULT_TOKENS = 4096


def open_model(model: Any, tokenizer: Any = None, *, progress: bool = False, **options: Any) -> Adapter:
    """Return the adapter of a model that is named, held as an object, or an adapter already.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        progress: say on a terminal that it is loading.
        **options: passed to `load`.

    Raises:
        MonadnockError: as `load`, or if a model object comes without its tokenizer.
    """
    if not isinstance(model, (str, Path)):
        return _adapt(model, tokenizer)
    console = Console(file=sys.stderr)
    with console.status(f"loading {model}") if progress and console.is_terminal else nullcontext():
        return load(model, **options)


def _adapt(model: Any, tokenizer: Any) -> Adapter:
    if isinstance(model, Adapter):
        if model.tokenizer is None:
            raise MonadnockError(f"{model.source.id} was given without its tokenizer; make the Adapter with one.")
        return model
    if not hasattr(model, "get_decoder") or not hasattr(model, "config"):
        raise MonadnockError(
            f"A {type(model).__name__} was given; give a model's name or path, or a transformers causal language model."
        )
    if tokenizer is None:
        raise MonadnockError("A model object was given without its tokenizer; call scan(model, tokenizer).")
    name = getattr(model, "name_or_path", "") or type(model).__name__
    return Adapter(model, tokenizer, Source(name, "object"))


def text_windows(
    adapter: Adapter, *, tokens: int | None, length: int | None, bos: bool | None, **source: Any
) -> Windows:
    """Cut the text into windows that fit the model, with the defaults that every verb has."""
    limit = adapter.context_length
    if length is not None and limit is not None and length > limit:
        raise MonadnockError(f"Windows of {length} tokens were asked, but {adapter.source.id} sees at most {limit}.")
    tokens = DEFAULT_TOKENS if tokens is None else tokens
    length = min(DEFAULT_LENGTH, limit or DEFAULT_LENGTH, tokens) if length is None else length
    windows = token_windows(adapter.tokenizer, length=length, tokens=max(tokens, length), bos=bos, **source)
    rows = adapter.model.get_input_embeddings().weight.shape[0]
    largest = max(int(windows.ids.max()), adapter.tokenizer.bos_token_id or 0)  # BOS is fed alone in any case
    if largest >= rows:
        raise MonadnockError(
            f"The tokenizer gives id {largest}, but the model has {rows} embeddings; "
            "give the tokenizer that belongs to the model."
        )
    return windows


def fresh_path(model: Any) -> Path:
    """Return a new folder for a run, named after the model and the time."""
    return Path("monadnock-runs") / f"{model_slug(model)}-{time.strftime('%Y%m%d-%H%M%S')}"


def model_slug(model: Any) -> str:
    """Return a model's name as a folder may have it."""
    name = str(model) if isinstance(model, (str, Path)) else getattr(model, "name_or_path", "") or "model"
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in Path(name).name) or "model"


def known_run(model: Any, out: str | Path | None) -> tuple[Path, Run | None]:
    """Return the folder that a verb adds to, and the run that is in it; by default a new folder.

    Raises:
        MonadnockError: if something else is in it, or a run that cannot be read or added to.
    """
    path = Path(out) if out is not None else fresh_path(model)
    if (path / "manifest.json").is_file():
        run = Run.open(path)
        for place in (path, path / "tables"):  # told now, not when hours of measuring are to be kept
            if place.exists() and not os.access(place, os.W_OK | os.X_OK):
                raise MonadnockError(
                    f"{path} cannot be added to: {place} may not be written to; change that, or give another folder."
                )
        return path, run
    check_free(path.absolute(), force=False)
    return path, None


def model_facts(adapter: Adapter) -> ModelFacts:
    """Return which model it is, and its shape."""
    return ModelFacts(
        id=adapter.source.id,
        revision=adapter.source.revision,
        source=adapter.source.kind,
        family=adapter.family.model_type,
        dtype=str(adapter.dtype).removeprefix("torch."),
        device=str(adapter.device),
        num_layers=adapter.num_layers,
        num_heads=adapter.num_heads,
        num_kv_heads=adapter.num_kv_heads,
        hidden_size=adapter.hidden_size,
        intermediate_size=adapter.intermediate_size,
        num_experts=adapter.num_experts,
        vocab_size=adapter.model.get_input_embeddings().weight.shape[0],
        num_parameters=sum(parameter.numel() for _, parameter in each_parameter(adapter)),
        context_length=adapter.context_length,
        ignored_config=adapter.ignored_config,
    )


def text_facts(adapter: Adapter, windows: Windows, start: int) -> TextFacts:
    """Return which tokens are seen; `start` is the token that is fed alone."""
    return TextFacts(
        source=windows.source,
        num_windows=len(windows.ids),
        length=windows.ids.shape[1],
        bos=windows.bos,
        start_token_id=start,
        start_token=str(start) if adapter.tokenizer is None else adapter.tokenizer.decode([start]),
        token_hash=windows.token_hash,
        seed=windows.seed,
    )


def start_token(adapter: Adapter, windows: Windows) -> int:
    """Return the token that is fed alone: BOS, or the first of the text where there is none."""
    start = adapter.tokenizer.bos_token_id
    return int(windows.ids[0, 0]) if start is None else start


def versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    found = {name: version(name) for name in ("torch", "transformers", "polars")}
    return found | {"python": platform.python_version()}


@contextmanager
def bar(what: str, total: int, show: bool) -> Iterator[Callable[[], None]]:
    """Show progress on a terminal, nothing elsewhere; the function that it gives is called after each step."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as shown:
        task = shown.add_task(what, total=total)
        yield lambda: shown.advance(task)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Hold the model in evaluation mode, and give every module back in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the random state of Python, numpy and torch back, which transformers' `set_seed` moves."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
