"""What every statistic can do: take states as they stream by, merge with another part, and be saved."""

from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

Rule = Literal["sum", "max", "window"]


class Statistic:
    """A summary of all states at one site, built window by window.

    States are never kept: what is kept of a window is a few numbers, at most one for each of its positions.

    A subclass names its tensors in `rules` with how two parts are merged: `sum`, `max`, or `window` (row w belongs
    to window w, and each part has seen other windows). Merging the parts of a text equals one pass over it.

    Attributes:
        seen: which windows went in, [num_windows].
    """

    rules: ClassVar[dict[str, Rule]] = {}

    def __init__(self, num_windows: int):
        self.seen = torch.zeros(num_windows, dtype=torch.bool)

    def update(self, batch: Any, window: int) -> None:
        """Take in the `States` of one window, or an `AttentionBlock` of it, and mark the whole window as seen."""
        raise TypeError(f"{type(self).__name__} does not say how it is updated")

    def _accumulate(self, new: dict[str, Tensor]) -> None:
        """Add what one window gives to the tensors whose rule is `sum` or `max`."""
        for name, value in new.items():
            old = getattr(self, name, None)
            if old is not None:
                value = old + value if self.rules[name] == "sum" else torch.maximum(old, value)
            setattr(self, name, value)

    def merge(self, other: Self) -> None:
        """Take in what another part has seen; the parts must have seen different windows.

        Raises:
            ValueError: if a window was seen by both, or the shapes differ.
        """
        if bool((self.seen & other.seen).any()):
            raise ValueError("both parts have seen the same window")
        for name, rule in self.rules.items():
            mine, theirs = getattr(self, name, None), getattr(other, name, None)
            if theirs is None:
                continue
            if mine is None:
                merged = theirs.clone()
            elif mine.shape != theirs.shape:
                raise ValueError(f"{name} has shape {tuple(mine.shape)} here and {tuple(theirs.shape)} there")
            elif rule == "sum":
                merged = mine + theirs
            elif rule == "max":
                merged = torch.maximum(mine, theirs)
            else:
                seen = other.seen.to(mine.device).view(-1, *[1] * (mine.dim() - 1))
                merged = torch.where(seen, theirs, mine)
            setattr(self, name, merged)
        self.seen = self.seen | other.seen

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that make up the statistic."""
        names = ["seen", *(name for name in self.rules if getattr(self, name, None) is not None)]
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the tensors of a `state_dict`."""
        for name, value in state.items():
            if name != "seen" and name not in self.rules:
                raise ValueError(f"{type(self).__name__} holds no {name}")
            setattr(self, name, value)
