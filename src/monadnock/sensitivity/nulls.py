"""What chance makes of sensitivities: entries or lines of a matrix change places, and the largest score is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SAME = 1e-5  # scores that differ by less are equal: sums in another order
WIDE = 2.0  # ours: a part of a row is wide if its median |w| is so many times that of the same part of other rows
LEAST_PART = 8  # columns
CHUNK = 2**20  # permuted entries in memory at a time

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chance:
    """The largest score of each permutation, [permutation].

    Example:
        >>> chance = Chance(torch.tensor([1.0, 2.0, 4.0]))
        >>> chance.median, chance.p_value(3.0), chance.p_value(5.0)
        (2.0, 0.5, 0.25)
    """

    maxima: Tensor

    @property
    def median(self) -> float:
        """Median over the permutations."""
        return float(self.maxima.median())

    def p_value(self, score: float) -> float:
        """Return (1 + permutations with a score as large) / (1 + permutations)."""
        return (1 + int((self.maxima >= score - SAME).sum())) / (1 + len(self.maxima))


class Rolls:
    """Copies of a matrix in which each column is rolled by an offset of its own.

    Every column keeps its entries, and no row keeps more than chance gives it. The offsets are a group, so that a
    p-value is exact wherever the columns are independent and each has entries of one distribution.

    Args:
        matrix: [row, column].
    """

    def __init__(self, matrix: Tensor):
        self.rows = len(matrix)
        self.columns = torch.arange(matrix.shape[1], device=matrix.device)
        twice = torch.cat([matrix, matrix]).t().contiguous()
        self.windows = twice.unfold(1, self.rows, 1)  # [column, offset, row], a view

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return one copy, [row, column].

        Example:
            >>> rolled = Rolls(torch.arange(6).view(3, 2)).draw(torch.Generator().manual_seed(0))
            >>> rolled.sort(0).values.tolist()
            [[0, 1], [2, 3], [4, 5]]
        """
        offsets = torch.randint(self.rows, self.columns.shape, generator=generator)
        return self.windows[self.columns, offsets.to(self.columns.device)].t().contiguous()


def without_wide_parts(weight: Tensor, blocks: Tensor) -> Tensor:
    """Return the weights with wide parts of rows scaled down to the width that the part has in the median row.

    A row that is wide as a whole would hide itself: rolled, each of its weights would widen the grid of another row. A
    single huge weight makes no part wide, and stays as it is. Parts are halves of blocks, so that they need not keep
    to the borders of heads.

    Args:
        weight: [row, column].
        blocks: of each column, [column], in order.

    Example:
        >>> weight = torch.tensor([[1.0, -1.0, 9.0], [1.0, 1.0, 1.0], [4.0, 5.0, 6.0]])
        >>> without_wide_parts(weight, torch.tensor([0, 0, 0]))[:, 2].tolist()
        [9.0, 1.0, 1.2000000476837158]
    """
    sizes = [size for count in blocks.bincount().tolist() for size in _halves(count)]
    parts = weight.abs().split(sizes, dim=1)
    width = torch.stack([part.median(1).values for part in parts], dim=1)  # [row, block]
    ordinary = width.median(0).values
    wide = (width > WIDE * ordinary) & (ordinary > 0)
    narrower = torch.where(wide, ordinary / width, 1.0)
    return weight * narrower.repeat_interleave(torch.tensor(sizes, device=weight.device), dim=1)


def _halves(count: int) -> list[int]:
    return [count] if count < 2 * LEAST_PART else [count // 2, count - count // 2]


def rolled_chances(
    matrix: Tensor, levels: Score, scores: Sequence[Score], permutations: int, generator: torch.Generator
) -> list[Chance]:
    """Return the chance of each score when the columns of a matrix are rolled.

    Args:
        matrix: [row, column].
        levels: what is scored of a rolled matrix, [row, column] again.
        scores: each gives scores of any shape, of which the largest counts.
        permutations: how many.
        generator: on the CPU.
    """
    rolls = Rolls(matrix)
    maxima = torch.empty(permutations, len(scores), dtype=torch.float64)
    for each in maxima:
        drawn = levels(rolls.draw(generator))
        each.copy_(torch.stack([score(drawn).max() for score in scores]))
    return [Chance(column) for column in maxima.unbind(1)]


def permuted_chance(lines: Tensor, score: Score, permutations: int, generator: torch.Generator) -> Chance:
    """Return the chance of a score when lines change places within their block.

    Args:
        lines: one number of each line, [block, line].
        score: of [permutation, block, line], one for each permutation.
        permutations: how many.
        generator: on the CPU.
    """
    drawn = [score(each) for each in _permuted(lines, permutations, generator)]
    return Chance(torch.cat(drawn).double())


def _permuted(lines: Tensor, permutations: int, generator: torch.Generator) -> Iterator[Tensor]:
    size = max(1, CHUNK // lines.numel())
    for count in torch.ones(permutations, dtype=torch.int64).split(size):
        if len(lines) == 1:  # many times faster than sorting, for long lines
            order = torch.stack([torch.randperm(lines.shape[1], generator=generator) for _ in count])[:, None]
        else:
            order = torch.rand(len(count), *lines.shape, generator=generator).argsort(-1)
        yield lines.expand(len(count), -1, -1).gather(2, order.to(lines.device))


def spread_sample(size: int, most: int, generator: torch.Generator) -> Tensor:
    """Return at most so many of the numbers 0 to size - 1, one at random of each stretch of equal length.

    Example:
        >>> spread_sample(4, 9, torch.Generator()).tolist()
        [0, 1, 2, 3]
        >>> len(spread_sample(100, 10, torch.Generator()))
        10
    """
    step = -(-size // most)
    starts = torch.arange(0, size, step)
    lengths = (size - starts).clamp(max=step)
    return starts + (torch.rand(len(starts), generator=generator) * lengths).long()
