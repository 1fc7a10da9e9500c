"""Take windows through a model one layer at a time, so that each layer's weights are needed once for all of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from monadnock.models.adapter import Adapter
from monadnock.models.components import modules_at
from monadnock.models.hooks import States, Watcher
from monadnock.models.offload import held
from monadnock.models.replay import copied, replay
from monadnock.models.start import Enough, run_layers
from monadnock.sites import Site, Stream


def run_layer(adapter: Adapter, ids: Tensor, layer: int, state: Any, watchers: Mapping[Site, Watcher]) -> Any:
    """Run one layer on what the one before gave for a window, and return what it gives.

    Args:
        adapter: the model.
        ids: token ids of the window, [seq].
        layer: 0-based decoder layer.
        state: what this function returned for the layer before, and `embed` for layer 0.
        watchers: what is shown the states at this layer's sites, as for `observe`.

    Returns:
        What the layer gave, on the CPU, for the next call; None if a watcher raised `Enough` before the layer's end.
    """
    kept: list[Any] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        states = (output[0], *[None] * (len(output) - 1)) if isinstance(output, tuple) else output
        kept.append(copied(states))  # what else a tuple holds are probabilities, of T x T

    handle = adapter.layers[layer].register_forward_hook(keep)
    try:
        with replay(adapter, layer - 1, state):
            run_layers(adapter, ids, watchers, lambda done: done == layer)
    finally:
        handle.remove()
    return kept[0] if kept else None


def embed(adapter: Adapter, ids: Tensor) -> Tensor:
    """Return what enters the first layer for a window, [1, seq, d_model], on the CPU: the state before layer 0."""
    kept: list[Tensor] = []

    def keep(states: States) -> None:
        kept.append(copied(states.values[None]))
        raise Enough

    run_layers(adapter, ids, {Site(Stream.RESIDUAL, -1): keep})
    return kept[0]


def logits_of(adapter: Adapter, ids: Tensor, state: Any, keep: int | Tensor) -> Tensor:
    """Return the logits [kept, vocab] of a window from what the last layer gave for it."""
    with replay(adapter, adapter.num_layers - 1, state):
        return adapter.forward(ids, keep=keep)


@contextmanager
def holding(adapter: Adapter, layer: int) -> Iterator[None]:
    """Keep in memory what a step of the walk needs, where weights are kept elsewhere; at the end it is let go.

    Args:
        adapter: the model.
        layer: 0-based decoder layer, -1 for what stands before the first; `num_layers` for what stands behind the last.
    """
    with held(*modules_at(adapter, layer)):
        yield


@contextmanager
def walking(adapter: Adapter) -> Iterator[None]:
    """Keep the small parts in memory that every step of a walk runs anew: all before the layers but the embedding."""
    embedding = adapter.model.get_input_embeddings()
    with held(*(module for module in modules_at(adapter, -1) if module is not embedding)):
        yield
