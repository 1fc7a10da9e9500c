"""Where attention goes: sums over queries, collected from blocks and folded window by window."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from monadnock.stats.base import Rule, Statistic
from monadnock.thresholds import AN2025_RATIO, GU2025_SINK_MASS

TOP = 8  # keys kept of every head and window
LOCAL = 8  # keys that count as local, the query's own included
SEEN_SHARE = 0.25  # of the queries that can see a key at most (all, or a sliding window): the last keys have few
TINY = 1e-30  # 0 log 0 is 0
ENTROPY_STRIDE = 8  # entropy is taken over every 8th query, the 5th first: the logarithm is the dear part

FIRST, SINK, SINK_POSITION, ENTROPY, DISTANCE, PREVIOUS, SELF, NEAR, TOTAL, GAP = range(10)


class _Block(Protocol):
    probs: Tensor
    first_query: int
    first_key: int
    num_queries: Tensor


class Attention(Statistic):
    """Sums of attention probabilities of one layer, per head, and for the mean over heads (the last row).

    Attributes:
        head: per window and head: first-key mass, sink mass, sink position, entropy, mean distance, previous-token,
            self, local and total mass (below 1 where a learned sink takes a part), and the gap between the largest
            logit and the mean of the others, [num_windows, head, 10] (float64).
        top_value: cumulative scores of the TOP keys, per head and for the mean, [num_windows, head + 1, TOP].
        top_position: positions of these, [num_windows, head + 1, TOP].
        top_queries: how many queries see these, [num_windows, head + 1, TOP].
        peak: cumulative score, position and number of queries of the key with the largest normalised score among
            those seen by a quarter of the queries (of the window's width, where it slides), [num_windows, head + 1, 3]
            (float64).
        outliers: number of keys with c_j > 1000 mean_j c_j, [num_windows, head + 1].
    """

    rules: ClassVar[dict[str, Rule]] = dict.fromkeys(
        ("head", "top_value", "top_position", "top_queries", "peak", "outliers"), "window"
    )
    head: Tensor
    top_value: Tensor
    top_position: Tensor
    top_queries: Tensor
    peak: Tensor
    outliers: Tensor

    def __init__(self, num_windows: int):
        super().__init__(num_windows)
        self._sums: Tensor | None = None  # of the window under way: [head, 2, seq], sum_i A_ij and sum_i i A_ij
        self._queries = 0  # seen so far of the window under way
        self._starts: set[int] = set()  # first queries of the blocks that came
        self._near: Tensor | None = None  # [head, 5]: entropy, previous, self, local, gap

    def update(self, batch: _Block, window: int) -> None:
        """Take in a block of queries, in any order; the last one to come folds the window."""
        probs, start, first = batch.probs.float(), batch.first_query, batch.first_key
        heads, queries, keys = probs.shape
        size = len(batch.num_queries)
        if self._sums is None or start in self._starts:  # a new window, or one that had broken off
            self._starts, self._queries = set(), 0
            self._sums = torch.zeros(heads, 2, size, device=probs.device)
            self._near = torch.zeros(heads, 5, dtype=torch.float64, device=probs.device)
        assert self._near is not None
        index = torch.arange(start, start + queries, device=probs.device, dtype=probs.dtype)
        weights = torch.stack([torch.ones_like(index), index]).expand(heads, -1, -1)
        sums = weights @ probs
        self._sums[:, :, first : first + keys] += sums
        sample = probs[:, (entropy_queries(size).start - start) % ENTROPY_STRIDE :: ENTROPY_STRIDE]
        logs = sample.clamp(min=TINY).log()
        self._near[:, 0] -= (sample * logs).sum((1, 2))
        self._near[:, 1:4] += _band(probs, start - first)
        self._near[:, 4] += _gaps(sample, logs)
        self._see(probs, sums[:, 0], start, first)
        self._starts.add(start)
        self._queries += queries
        if self._queries == size:
            self._fold(batch.num_queries, window)

    def _see(self, probs: Tensor, sums: Tensor, start: int, first: int) -> None:
        """Take in more of a block: probabilities [head, query, key] and their sums over queries, [head, key]."""

    def _fold(self, num_queries: Tensor, window: int) -> None:
        assert self._sums is not None and self._near is not None
        sums, near = self._sums, self._near
        heads, _, size = sums.shape
        if not hasattr(self, "head"):
            self._allocate(heads)
        cumulative = torch.cat([sums[:, 0], sums[:, 0].mean(0, keepdim=True)])  # [head + 1, seq]
        visible = num_queries.clamp(min=1)
        normalized = cumulative / visible
        normalized = torch.where(num_queries >= SEEN_SHARE * num_queries.max(), normalized, -1.0)
        sink, position = normalized.max(1)
        top = cumulative.topk(min(TOP, size), dim=1)
        count = top.values.shape[1]
        key_index = torch.arange(size, device=sums.device, dtype=torch.float64)
        distance = (sums[:, 1].double().sum(1) - sums[:, 0].double() @ key_index) / size
        total = sums[:, 0].double().sum(1) / size
        facts = torch.stack([cumulative[:-1, 0] / size, sink[:-1], position[:-1], distance, total], dim=1).double()
        near[:, 0] /= len(entropy_queries(size))
        near[:, 1:4] /= size
        near[:, 4] /= sum(query > 0 for query in entropy_queries(size)) or float("nan")  # one key has no gap
        self.head[window][:, [FIRST, SINK, SINK_POSITION, DISTANCE, TOTAL]] = facts.cpu()
        self.head[window][:, [ENTROPY, PREVIOUS, SELF, NEAR, GAP]] = near.cpu()
        self.top_value[window, :, :count] = top.values.cpu()
        self.top_position[window, :, :count] = top.indices.cpu()
        self.top_queries[window, :, :count] = num_queries[top.indices].cpu()
        peak = torch.stack([cumulative.gather(1, position[:, None])[:, 0], position, num_queries[position]], dim=1)
        self.peak[window] = peak.double().cpu()
        self.outliers[window] = (cumulative > AN2025_RATIO * cumulative.mean(1, keepdim=True)).sum(1).cpu()
        self.seen[window] = True
        self._sums = self._near = None

    def has_sink(self) -> Tensor:
        """Return which heads have a sink: its mass, averaged over windows, is above 0.3 (gu2025), [head]."""
        return self.head[self.seen][:, :, SINK].mean(0) > GU2025_SINK_MASS

    def _allocate(self, heads: int) -> None:
        windows = len(self.seen)
        self.head = torch.zeros(windows, heads, 10, dtype=torch.float64)
        self.top_value = torch.zeros(windows, heads + 1, TOP)
        self.top_position = torch.full((windows, heads + 1, TOP), -1, dtype=torch.int64)
        self.top_queries = torch.zeros(windows, heads + 1, TOP, dtype=torch.int64)
        self.peak = torch.zeros(windows, heads + 1, 3, dtype=torch.float64)
        self.outliers = torch.zeros(windows, heads + 1, dtype=torch.int64)


def entropy_queries(size: int) -> range:
    """Return the queries of a window whose entropy is taken: the middle of every stretch of ENTROPY_STRIDE."""
    first = ENTROPY_STRIDE // 2
    return range(first if size > first else 0, size, ENTROPY_STRIDE)


def _gaps(sample: Tensor, logs: Tensor) -> Tensor:
    """Sum over queries the largest log probability minus the mean of the others, [head] (float64).

    Log probabilities of one query differ from its logits by one number only, so that the gap is that of the logits,
    with soft caps and biases in them. Keys whose probability is 0 in the model's dtype count as not seen: in float16
    those below 6e-8, so that the gap is a little too small there. A query that sees one key has no gap.

    Args:
        sample: [head, query, key].
        logs: of these, where they are not 0.
    """
    if not sample.shape[1]:
        return torch.zeros(len(sample), dtype=torch.float64, device=sample.device)
    seen = sample > TINY
    others = seen.sum(-1) - 1
    largest = logs.amax(-1)
    rest = torch.where(seen, logs, 0.0).sum(-1) - largest
    gaps = torch.where(others > 0, largest - rest / others.clamp(min=1), 0.0)
    return gaps.sum(1, dtype=torch.float64)


def _band(probs: Tensor, offset: int) -> Tensor:
    """Sum A[i, i-1], A[i, i] and A[i, i-LOCAL+1 .. i] over the queries of a block, [head, 3] (float64).

    Args:
        probs: [head, query, key].
        offset: column of the first query's own key.
    """
    heads, queries, keys = probs.shape
    if offset >= LOCAL - 1:  # the band lies within the block: one strided view, one sum
        probs = probs.contiguous()
        place = probs.storage_offset() + offset - LOCAL + 1
        band = probs.as_strided((heads, queries, LOCAL), (queries * keys, keys + 1, 1), place)
        sums = band.sum(1, dtype=torch.float64).flip(1)  # [head, distance]
    else:
        sums = probs.new_zeros(heads, LOCAL, dtype=torch.float64)
        for back in range(min(LOCAL, queries + offset)):
            sums[:, back] = probs.diagonal(offset - back, dim1=1, dim2=2).sum(1, dtype=torch.float64)
    return torch.stack([sums[:, 1], sums[:, 0], sums.sum(1)], dim=1)
