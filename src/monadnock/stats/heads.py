"""What sinks do to each head: how much of its attention they take from query to query, and what selects them."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from monadnock.stats import probabilities as at
from monadnock.stats.base import Rule
from monadnock.stats.rotary import RULES, rotary_sums
from monadnock.thresholds import GU2025_SINK_MASS

KEPT = 8  # keys whose probabilities are kept of each block: all that get more than 1/9 of its attention are among them
BINS = 100  # in 1 of the histogram of S
TOP = 2  # where it ends: what a gate of 2 sigmoid(...) gives at most


class AttentionStates(at.Attention):
    """Attention sums of one layer, with the queries, keys and values behind them.

    S_i = gate_i * (sum of A[i, j] over keys j that are no sink of the head in this window) is known for every query:
    of each block of queries the probabilities of the KEPT most attended keys are kept until the sinks are known. What
    a sink gets in blocks where it is not among these (at most 1/9 of their attention) is spread evenly over them.

    Attributes:
        scaled: sum over windows of S and S^2 at each position, [2, head, seq] (float64).
        scaled_bins: how many S fall into each hundredth, the last one with all above it, [head, TOP * BINS].
        facts: per window and head: number of sinks, mean gate, |v_sink| / mean|v| of the key with most attention,
            [num_windows, head, 3] (float64).
        sink_positions: which positions are a sink of some head, [num_windows, seq] (bool).
        rotary_*: see `rotary_sums`.
    """

    rules: ClassVar[dict[str, Rule]] = {
        **at.Attention.rules,
        "scaled": "sum",
        "scaled_bins": "sum",
        "facts": "window",
        "sink_positions": "window",
        **RULES,
    }
    scaled: Tensor
    scaled_bins: Tensor
    facts: Tensor
    sink_positions: Tensor
    rotary_theta: Tensor
    rotary_dims: Tensor
    rotary_q: Tensor
    rotary_k: Tensor
    rotary_sink: Tensor
    rotary_sink_products: Tensor
    rotary_mean_products: Tensor
    rotary_max: Tensor
    rotary_tokens: Tensor
    rotary_windows: Tensor

    def __init__(self, num_windows: int):
        super().__init__(num_windows)
        self._blocks: list[tuple[int, Tensor, Tensor, Tensor | None]] = []  # first query, keys, values, row sums
        self._found: tuple[Tensor, Tensor] | None = None  # of the window just folded: c_j and which keys are sinks

    def update(self, batch: Any, window: int) -> None:
        """Take in a block of queries, or at last the `HeadStates` of the window."""
        if hasattr(batch, "probs"):
            super().update(batch, window)
        else:
            self._explain(batch, window)

    def _see(self, probs: Tensor, sums: Tensor, start: int, first: int) -> None:
        if len(self._starts) == 0:
            self._blocks = []
        keys = sums.topk(min(KEPT, sums.shape[1]), dim=1).indices  # [head, KEPT]
        kept = probs.gather(2, keys[:, None].expand(-1, probs.shape[1], -1))
        whole = bool((sums.sum(1) > (1 - 1e-3) * probs.shape[1]).all())  # no learned sink takes a part
        self._blocks.append((start, keys + first, kept, None if whole else probs.sum(-1)))

    def _fold(self, num_queries: Tensor, window: int) -> None:
        assert self._sums is not None
        received = self._sums[:, 0]
        eligible = num_queries >= at.SEEN_SHARE * num_queries.max()
        sinks = (received / num_queries.clamp(min=1) > GU2025_SINK_MASS) & eligible
        super()._fold(num_queries, window)
        self._found = received, sinks

    def _explain(self, states: Any, window: int) -> None:
        assert self._found is not None
        (received, sinks), heads, size = self._found, len(self._found[0]), self._found[0].shape[1]
        if not hasattr(self, "facts"):
            self.facts = torch.zeros(len(self.seen), heads, 3, dtype=torch.float64)
            self.sink_positions = torch.zeros(len(self.seen), size, dtype=torch.bool)
        scaled = self._scaled(received, sinks)
        gate = torch.ones_like(scaled) if states.gate is None else states.gate.double()
        scaled = (scaled * gate).cpu()
        place = (scaled * BINS).nan_to_num().long().clamp(0, TOP * BINS - 1)
        bins = torch.zeros(heads, TOP * BINS, dtype=torch.int64).scatter_add_(1, place, torch.ones_like(place))
        peak = self.head[window, :, at.SINK_POSITION].long().to(received.device)
        self.facts[window] = torch.stack([sinks.sum(1), gate.mean(1), _value_ratio(states.value, peak)], dim=1).cpu()
        self.sink_positions[window] = sinks.any(0).cpu()
        self._accumulate({"scaled": torch.stack([scaled, scaled * scaled]), "scaled_bins": bins})
        self._accumulate(rotary_sums(states, peak))
        self._blocks, self._found = [], None

    def _scaled(self, received: Tensor, sinks: Tensor) -> Tensor:
        """Return the attention of each query on keys that are no sink, [head, query] (float64)."""
        scaled = torch.ones(received.shape, dtype=torch.float64, device=received.device)
        partial = torch.zeros_like(scaled, dtype=torch.bool)
        known = torch.zeros(len(received), dtype=torch.float64, device=received.device)
        for start, keys, values, whole in self._blocks:
            queries = slice(start, start + values.shape[1])
            hit = sinks.gather(1, keys)  # [head, KEPT]
            taken = (values * hit[:, None]).sum(-1).double()
            scaled[:, queries] = (1.0 if whole is None else whole.double()) - taken
            known += taken.sum(1)
            seen = sinks[:, : queries.stop].sum(1)
            partial[:, queries] = (hit.sum(1) < seen)[:, None]
        missed = (received.double() * sinks).sum(1) - known
        return scaled - torch.where(partial, (missed / partial.sum(1).clamp(min=1))[:, None], 0.0)


def _value_ratio(value: Tensor, position: Tensor) -> Tensor:
    """Return |v| at one position of each head over the mean of |v|, [head].

    Args:
        value: [kv_head, seq, d_head].
        position: [head].
    """
    norms = value.float().norm(dim=-1)  # [kv_head, seq]
    norms = norms.repeat_interleave(len(position) // len(norms), 0)
    return norms.gather(1, position[:, None])[:, 0] / norms.mean(1).clamp(min=1e-30)
