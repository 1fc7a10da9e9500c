"""Grids of evenly spaced levels: what a few bits can say, fitted to each row of a matrix."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

_LEAST = 1e-9  # scale by which is divided at least


class Grid(NamedTuple):
    """The levels scale * (0 - zero), scale * (1 - zero), ..., for each row.

    Attributes:
        scale: distance of two levels, [row, 1].
        zero: where 0 lies among the levels, not rounded, [row, 1].
        bits: how many levels, as a power of 2.
    """

    scale: Tensor
    zero: Tensor
    bits: int

    @classmethod
    def fit(cls, values: Tensor, bits: int) -> Self:
        """Return the grids that reach from the smallest to the largest value of each row [row, entry].

        A row of equal values gets the levels from -1 to 1.

        Example:
            >>> Grid.fit(torch.tensor([[0.0, 3.0]]), 2).round(torch.tensor([[1.4, 9.0]]))
            tensor([[1., 3.]])
        """
        low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
        flat = low == high
        low, high = torch.where(flat, -1.0, low), torch.where(flat, 1.0, high)
        scale = (high - low) / (2**bits - 1)
        return cls(scale, -low / scale, bits)

    def round(self, values: Tensor) -> Tensor:
        """Return the level nearest to each value, [row, entry]."""
        steps = torch.round(values / self.scale.clamp(min=_LEAST) + self.zero)
        return self.scale * (steps.clamp(0, 2**self.bits - 1) - self.zero)

    def rounded(self, bits: int, group: int) -> Self:
        """Return these grids with scales and zeros that are themselves rounded, in groups of consecutive rows.

        Args:
            bits: of a scale, and of a zero.
            group: rows of a group; what is left over at the end makes a group of its own.
        """
        return self._replace(scale=_rounded(self.scale, bits, group), zero=_rounded(self.zero, bits, group))


def _rounded(column: Tensor, bits: int, group: int) -> Tensor:
    whole = len(column) // group * group
    parts = [column[:whole].view(-1, group), column[whole:].view(1, -1)]
    return torch.cat([Grid.fit(part, bits).round(part).view(-1, 1) for part in parts if part.numel()])
