"""Grids of evenly spaced levels: what a few bits can say, fitted to each row of a matrix."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

_LEAST = 1e-9  # scale by which is divided at least
_LEAST_HALF = 2.0**-24  # the smallest float16 above 0


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
    def fit(cls, values: Tensor, bits: int, *, flat: bool = True) -> Self:
        """Return the grids that reach from the smallest to the largest value of each row [row, entry].

        Args:
            values: [row, entry].
            bits: how many levels, as a power of 2.
            flat: a row of equal values has its value as the lowest level, exactly; if not, the levels from -1 to 1, as
                the authors of SpQR have it.

        Example:
            >>> Grid.fit(torch.tensor([[0.0, 3.0]]), 2).round(torch.tensor([[1.4, 9.0]]))
            tensor([[1., 3.]])
        """
        low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
        equal = low == high
        if flat:
            scale = torch.where(equal, 1.0, (high - low) / (2**bits - 1))
        else:
            low, high = torch.where(equal, -1.0, low), torch.where(equal, 1.0, high)
            scale = (high - low) / (2**bits - 1)
        return cls(scale, -low / scale, bits)

    def codes(self, values: Tensor) -> Tensor:
        """Return the number of the level nearest to each value, 0 to 2^bits - 1, [row, entry]."""
        steps = torch.round(values / self.scale.clamp(min=_LEAST) + self.zero)
        return steps.clamp(0, 2**self.bits - 1)

    def values(self, codes: Tensor) -> Tensor:
        """Return the levels with these numbers, [row, entry]."""
        return self.scale * (codes - self.zero)

    def round(self, values: Tensor) -> Tensor:
        """Return the level nearest to each value, [row, entry]."""
        return self.values(self.codes(values))

    def in_half(self) -> tuple[Self, Tensor]:
        """Return these grids with scale and lowest level as float16 can hold them, and that lowest level, [row, 1]."""
        scale = self.scale.half().float().clamp(min=_LEAST_HALF)
        low = (-self.zero * self.scale).half().float()
        return self._replace(scale=scale, zero=-low / scale), low


class Statistic(NamedTuple):
    """One number for each row, itself rounded in groups of consecutive rows.

    Attributes:
        codes: number of the level of each row, [row].
        scale: distance of two levels, of each group, [part].
        low: lowest level, of each group, [part].
        values: what the codes stand for, [row, 1].
    """

    codes: Tensor
    scale: Tensor
    low: Tensor
    values: Tensor

    @classmethod
    def rounded(cls, column: Tensor, bits: int, group: int, *, half: bool) -> Self:
        """Round a column [row, 1]; what is left over at the end makes a group of its own.

        Args:
            column: the numbers.
            bits: of a code.
            group: rows of a group.
            half: hold scale and lowest level in float16.
        """
        whole = len(column) // group * group
        found: list[tuple[Tensor, Grid, Tensor]] = []
        for part in (column[:whole].view(-1, group), column[whole:].view(1, -1)):
            if part.numel():
                grid = Grid.fit(part, bits)
                grid, low = grid.in_half() if half else (grid, -grid.zero * grid.scale)
                found.append((grid.codes(part), grid, low))
        values = torch.cat([grid.values(codes).view(-1, 1) for codes, grid, _ in found])
        codes, scale = torch.cat([codes.flatten() for codes, _, _ in found]), torch.cat([g.scale for _, g, _ in found])
        return cls(codes, scale.flatten(), torch.cat([low for _, _, low in found]).flatten(), values)

    @classmethod
    def read(cls, codes: Tensor, scale: Tensor, low: Tensor, group: int) -> Self:
        """Return the statistic that was stored, bit for bit as it was rounded in half precision."""
        part = torch.arange(len(codes), device=codes.device) // group
        step, least = scale.float()[part, None], low.float()[part, None]
        return cls(codes, scale, low, step * (codes.float()[:, None] - -least / step))
