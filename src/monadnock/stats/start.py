"""States of very short inputs kept whole, first states and sizes of longer ones, mean probabilities of routers."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from monadnock.stats.base import Rule, Statistic

FIRST = 64  # positions of the first window whose states are kept


class _Rows(Protocol):
    values: Tensor
    expert: Tensor | None


class Snapshot(Statistic):
    """The states of one short window, kept as they are.

    Attributes:
        values: [rows, width] (float32).
        expert: expert of each row, [rows]; absent in dense layers.
    """

    rules: ClassVar[dict[str, Rule]] = {"values": "sum", "expert": "sum"}
    values: Tensor
    expert: Tensor

    def update(self, batch: _Rows, window: int) -> None:
        """Keep the states; a snapshot is of one window."""
        self.values = batch.values.float().cpu().clone()
        if batch.expert is not None:
            self.expert = batch.expert.cpu()
        self.seen[window] = True


class Beginning(Statistic):
    """The states of the first positions of the first window, kept as they are.

    Attributes:
        values: [FIRST, width], or fewer in a shorter window (float32).
    """

    rules: ClassVar[dict[str, Rule]] = {"values": "sum"}
    values: Tensor

    def update(self, batch: _Rows, window: int) -> None:
        """Keep the first states of the first window; of the others only that they were seen."""
        if window == 0:
            self.values = batch.values[:FIRST].float().cpu().clone()
        self.seen[window] = True


class Norms(Statistic):
    """The length of the state at every position.

    Attributes:
        values: |state|, [num_windows, seq] (float32).
    """

    rules: ClassVar[dict[str, Rule]] = {"values": "window"}
    values: Tensor

    def update(self, batch: _Rows, window: int) -> None:
        """Keep the lengths of one window."""
        norms = batch.values.float().norm(dim=-1).cpu()
        if not hasattr(self, "values"):
            self.values = torch.zeros(len(self.seen), len(norms))
        self.values[window] = norms
        self.seen[window] = True


class RouterMean(Statistic):
    """Mean over tokens of the softmax over all experts of a router's logits.

    Attributes:
        total: sum of probabilities, [expert] (float64).
        count: number of tokens, [1].
    """

    rules: ClassVar[dict[str, Rule]] = {"total": "sum", "count": "sum"}
    total: Tensor
    count: Tensor

    def update(self, batch: _Rows, window: int) -> None:
        """Add the logits [rows, expert] of one window."""
        probs = batch.values.float().softmax(-1).double().sum(0).cpu()
        if not hasattr(self, "total"):
            self.total, self.count = torch.zeros_like(probs), torch.zeros(1, dtype=torch.int64)
        self.total += probs
        self.count += len(batch.values)
        self.seen[window] = True


@dataclass(frozen=True)
class Preferred:
    """A state of one token, [width], and the expert that it is of (None in dense layers)."""

    values: Tensor
    expert: int | None


def preferred(state: Snapshot, router: RouterMean | None) -> Preferred:
    """Return the state of a single token, in a mixture that of the expert which the router prefers; NaN becomes 0.

    Args:
        state: the token's states, one row per expert that ran.
        router: the router's probabilities for that token; None in dense layers.
    """
    if router is None:
        return Preferred(state.values[0].nan_to_num(), None)
    row = int(router.total[state.expert].nan_to_num().argmax())  # among those that ran: a NaN router prefers none
    return Preferred(state.values[row].nan_to_num(), int(state.expert[row]))
