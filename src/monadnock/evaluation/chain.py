"""The chain from massive activation to sinks: top-1 |h|, the share of heads with a sink, implicit scaling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.models import Adapter, observe
from monadnock.models.replay import replay
from monadnock.sites import Site, Stream
from monadnock.stats import Attention
from monadnock.stats import probabilities as at
from monadnock.thresholds import GU2025_SINK_MASS


@dataclass
class Chain:
    """What was seen in every layer over some windows.

    Attributes:
        top1: top-1 |h|, [window, layer].
        sink: per head the largest mean attention that a key gets from the queries that see it (among keys with a
            quarter of the queries that any key has), [window, layer, head].
        total: per head the mean over queries of the attention on all keys, [window, layer, head]: 1, or less where a
            learned sink takes a part.
    """

    top1: Tensor
    sink: Tensor
    total: Tensor

    @property
    def top1_h(self) -> float:
        """Largest over layers of top-1 |h|, averaged over windows (sun2024)."""
        return float(self.top1.mean(0).max())

    @property
    def sinks(self) -> Tensor:
        """Which heads have a sink, [layer, head]: mean over windows above 0.3 (gu2025)."""
        return self.sink.mean(0) > GU2025_SINK_MASS

    @property
    def sink_share(self) -> float:
        """Share of heads with a sink; NaN if attention is not finite somewhere."""
        return float(self.sinks.double().mean()) if bool(self.sink.isfinite().all()) else float("nan")

    @property
    def implicit_scaling(self) -> float:
        """Mean over heads of the attention that does not go to the head's sink, nor to a learned one (an2025).

        1 for a head without a sink: what attention reads is not scaled down there.
        """
        return float((self.total.mean(0) - self.sink.mean(0) * self.sinks).mean())


def follow_chain(
    adapter: Adapter,
    windows: Tensor,
    *,
    clean: Chain | None = None,
    start: Callable[[int], tuple[int, Any]] = lambda _window: (-1, None),
    step: Callable[[], None] = lambda: None,
) -> Chain:
    """Watch the chain over some windows.

    Args:
        adapter: the model, changed or not.
        windows: token ids, [window, seq].
        clean: the chain of the clean model, for the layers that are not run again.
        start: gives a layer and what it gave for a window, to go on from: see `replay`.
        step: called after each window.

    Example:
        >>> follow_chain(adapter, windows.ids).sink_share  # doctest: +SKIP
        0.556
    """
    layers, heads = adapter.num_layers, adapter.num_heads
    first = start(0)[0] + 1
    top1 = torch.zeros(len(windows), layers) if clean is None else clean.top1.clone()
    sink = torch.zeros(len(windows), layers, heads) if clean is None else clean.sink.clone()
    total = torch.ones_like(sink) if clean is None else clean.total.clone()
    attention = {layer: Attention(len(windows)) for layer in range(first, layers)}
    window = 0

    def size(layer: int) -> Callable[[Any], None]:
        def watch(states: Any) -> None:
            top1[window, layer] = states.values.abs().max().float().cpu()

        return watch

    def sums(layer: int) -> Callable[[Any], None]:
        return lambda block: attention[layer].update(block, window)

    watchers = {Site(Stream.ATTN_PROBS, layer): sums(layer) for layer in attention}
    watchers |= {Site(Stream.RESIDUAL, layer): size(layer) for layer in range(max(first - 1, 0), layers)}
    with observe(adapter, watchers):
        for window, ids in enumerate(windows):
            with replay(adapter, *start(window)):
                adapter.forward(ids)
            step()
    for layer, stat in attention.items():
        sink[:, layer], total[:, layer] = stat.head[:, :, at.SINK].float(), stat.head[:, :, at.TOTAL].float()
    return Chain(top1, sink, total)
