"""Random states and random attention to feed the statistics with, drawn by hypothesis through a seed."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from monadnock.models.attention import AttentionBlock

steady = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 2**31)


@dataclass(frozen=True)
class Rows:
    """What a statistic of states is updated with."""

    values: Tensor
    position: Tensor | None = None
    expert: Tensor | None = None


def random_states(seed: int, rows: int, width: int, kind: str) -> Tensor:
    """Return states [rows, width] (float32) of a kind: normal, heavy, sparse, massive or zero."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=random)
    if kind == "heavy":
        values = values * torch.exp(2 * torch.randn(rows, width, generator=random))
    elif kind == "sparse":
        values = values * (torch.rand(rows, width, generator=random) < 0.3)
    elif kind == "massive":
        places = torch.randint(rows * width, (1 + rows * width // 1500,), generator=random)
        values.view(-1)[places] = 3e4 * torch.randn(len(places), generator=random).sign()
    elif kind == "zero":
        values = torch.zeros(rows, width)
    return values


states = st.builds(
    random_states,
    seeds,
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(["normal", "heavy", "sparse", "massive", "zero"]),
)


@dataclass(frozen=True)
class Causal:
    """Attention of one window: probabilities [head, query, key] (float64), and how far back a query sees."""

    probs: Tensor
    window: int | None

    @property
    def size(self) -> int:
        return self.probs.shape[1]

    @property
    def num_queries(self) -> Tensor:
        """How many queries see each key, [key]."""
        reach = self.window or self.size
        return torch.tensor([min(self.size, key + reach) - key for key in range(self.size)])

    def blocks(self, cuts: list[int]) -> list[AttentionBlock]:
        """Cut the queries at the given places, and the keys to those that any query of a block sees."""
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < self.size}), self.size]
        reach = self.window or self.size
        blocks = []
        for start, stop in pairwise(edges):
            first = max(0, start - reach + 1)
            part = self.probs[:, start:stop, first:stop].float()
            blocks.append(AttentionBlock(part, start, first, self.num_queries))
        return blocks


def random_attention(seed: int, heads: int, size: int, window: int | None, leak: bool) -> Causal:
    """Return random causal attention; with `leak` the rows sum to less than 1, as beside a learned sink."""
    random = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(heads, size, size, generator=random, dtype=torch.float64)
    back = torch.arange(size)[:, None] - torch.arange(size)
    hidden = (back < 0) | (back >= (window or size))
    probs = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    if leak:
        probs = probs * torch.rand(heads, size, 1, generator=random, dtype=torch.float64)
    return Causal(probs.float().double(), window)


def attention_of(size: st.SearchStrategy[int]) -> st.SearchStrategy[Causal]:
    """Draw random attention of windows of some size."""
    return st.builds(random_attention, seeds, st.integers(1, 3), size, st.none() | st.integers(1, 70), st.booleans())
