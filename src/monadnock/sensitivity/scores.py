"""How strong the patterns of one matrix are: rows, parts of rows, heads, rotary pairs, and the share none explains.

All scores are of levels, log10(s) above a floor: their means are geometric means of s, and a difference is a ratio.
"""

import torch
from torch import Tensor

from monadnock.sensitivity.shape import Heads

FLOOR = 0.01  # in parts of the median of the s > 0
BLOCK = 64  # columns of a part of a row, where no heads say
PIECE, LEAST_PIECES = 8, 8  # lines of a piece of a head, and pieces that a head has where it is wide enough
BORDERS = 1.2  # ours: borders of heads stand out by so much from shifted ones
LEAST_SAMPLED = 8  # columns of a part that are looked at, at least


def floor_of(values: Tensor) -> float | None:
    """Return the floor of s_ij [out, in], below which all are nearly alike; None where they are all equal."""
    if not values.numel() or bool((values == values[0, 0]).all()):
        return None
    return max(FLOOR * float(values[values > 0].median()), 1e-36)


def levels_of(values: Tensor, floor: float) -> Tensor:
    """Return log10(1 + s / floor), in the shape of the values.

    Example:
        >>> levels_of(torch.tensor([0.0, 9.0, 99.0]), 1.0).tolist()
        [0.0, 1.0, 2.0]
    """
    return (values / floor).add_(1).log10_()


def line_scores(levels: Tensor) -> Tensor:
    """Return the mean of each row [row, column] over the median of all rows, [row] (log10).

    Example:
        >>> line_scores(torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 4.0]])).tolist()
        [0.0, 0.0, 2.0]
    """
    means = levels.mean(1)
    return means - means.median()


def part_scores(levels: Tensor, blocks: Tensor) -> Tensor:
    """Return the mean of each row in each block, less what the row and the block let expect, [row, block] (log10).

    Args:
        levels: [row, column].
        blocks: of each column, [column]; each block from 0 on has columns.

    Example:
        >>> part_scores(torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0] * 4]), torch.tensor([0, 0, 1, 1])).tolist()
        [[-1.0, 1.0], [1.0, -1.0]]
    """
    parts = levels @ _averaging(blocks)
    return parts - levels.mean(1, keepdim=True) - parts.mean(0) + levels.mean()


def stripe_scores(lines: Tensor, width: int) -> Tensor:
    """Return the mean of each stripe of lines over that of all others, [..., stripe] (log10).

    Args:
        lines: mean of each line, [..., line]; whole stripes.
        width: lines of a stripe.

    Example:
        >>> stripe_scores(torch.tensor([0.0, 0.0, 3.0, 1.0]), 2).tolist()
        [-2.0, 2.0]
    """
    means = lines.unflatten(-1, (-1, width)).mean(-1)
    count = means.shape[-1]
    return (means - means.mean(-1, keepdim=True)) * (count / (count - 1))


def borders_fit(lines: Tensor, width: int) -> bool:
    """Say whether neighbouring stripes differ more than with all borders shifted by a quarter, half or three quarters.

    By BORDERS times in the sum of squared differences: where each stripe has a level of its own they do so about
    twice; where lines drift, or a stripe lies elsewhere, they do not.

    Args:
        lines: mean of each line, [line]; whole stripes. What a shift leaves at both ends are narrower stripes.
        width: lines of a stripe.

    Example:
        >>> borders_fit(torch.tensor([0.0, 0.0, 3.0, 3.0]), 2), borders_fit(torch.tensor([0.0, 3.0, 3.0, 0.0]), 2)
        (True, False)
    """

    def spread(shift: int) -> float:
        stripes = (torch.arange(len(lines), device=lines.device) + width - shift) // width
        counts = stripes.bincount()
        means = stripes.bincount(lines) / counts
        return float(means[counts > 0].diff().square().sum())

    return all(spread(0) > BORDERS * spread(width * part // 4) for part in (1, 2, 3) if width * part // 4)


def piece_sums(lines: Tensor, pairs: Tensor | None) -> Tensor:
    """Return the sum of each piece of each head, [piece, head]; lines of a piece are alike without any head.

    Pieces are neighbours, and pairs that rotary turns together: eight lines, or an eighth of a narrow head.

    Args:
        lines: mean of each line, [head, line].
        pairs: places in a head that rotary turns together, [2, pair].

    Example:
        >>> piece_sums(torch.arange(8.0).view(2, 4), torch.tensor([[0, 1], [2, 3]]))
        tensor([[ 2., 10.],
                [ 4., 12.]])
    """
    width = lines.shape[1]
    size = max(1, min(PIECE, width // LEAST_PIECES))
    turned = torch.tensor([], dtype=torch.int64) if pairs is None else pairs.t().flatten().cpu()  # pair by pair
    rest = torch.tensor([line for line in range(width) if line not in set(turned.tolist())], dtype=torch.int64)
    wide = max(2, size)
    pieces = [*(turned.split(wide) if len(turned) else ()), *(rest.split(size) if len(rest) else ())]
    return torch.stack([lines[:, piece.to(lines.device)].sum(1) for piece in pieces])


def pair_score(lines: Tensor) -> Tensor:
    """Return the correlation of the first half of each head's lines with the second, [...]; 0 where one is constant.

    Args:
        lines: the lines that rotary turns, less the mean of their head, [..., head, line]: first all first members of
            a pair, then all second ones.

    Example:
        >>> float(pair_score(torch.tensor([[-1.0, 1.0, -2.0, 2.0]])))
        1.0
    """
    first, second = (half.flatten(-2) for half in lines.chunk(2, dim=-1))
    first, second = first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True)
    both = (first.square().sum(-1) * second.square().sum(-1)).sqrt()
    return torch.where(both > 0, (first * second).sum(-1) / both.clamp(min=1e-30), 0.0)


def unstructured_share(levels: Tensor, blocks: Tensor) -> float | None:
    """Return the share of the variance that columns, and rows block by block, leave; None where it cannot be said.

    Variances are per degree of freedom: entries that are all independent give 1.

    Args:
        levels: [row, column].
        blocks: of each column, [column].

    Example:
        >>> round(unstructured_share(torch.tensor([[0.0, 1.0], [2.0, 3.0], [5.0, 6.0]]), torch.tensor([0, 0])), 6)
        0.0
    """
    (height, width), count = levels.shape, int(blocks.max()) + 1
    centred = levels - levels.mean()
    total = float(centred.square().sum(dtype=torch.float64))
    if height < 2 or width <= count or total / levels.numel() < 1e-10:
        return None
    averaging, columns = _averaging(blocks), centred.mean(0)
    of_parts = float(((centred @ averaging).double().square() * blocks.bincount()).sum())
    of_columns = height * float((columns - (columns @ averaging)[blocks]).double().square().sum())
    left = (total - of_parts - of_columns) / ((height - 1) * (width - count))
    return min(max(left / (total / (height * width - 1)), 0.0), 1.0)


def has_column_heads(width: int, heads: Heads | None) -> bool:
    """Say whether the columns of a matrix are heads."""
    return heads is not None and heads.axis == "column" and heads.count * heads.width == width


def column_blocks(shape: torch.Size, heads: Heads | None, entries: int) -> Tensor:
    """Return the block of each column, [in]: its head in W_o, elsewhere about BLOCK columns are one.

    Blocks are wider where so few entries of the matrix are looked at that they would have less than LEAST_SAMPLED
    columns among these. All columns are block 0 where there are not enough for two.

    Example:
        >>> column_blocks(torch.Size([9, 140]), None, 9999).bincount().tolist()
        [70, 70]
    """
    height, width = shape
    columns = torch.arange(width)
    if heads is not None and has_column_heads(width, heads):
        return columns // heads.width
    most = min(width, max(entries // height, 2 * LEAST_SAMPLED)) // LEAST_SAMPLED
    return columns * max(1, min(max(2, round(width / BLOCK)), most)) // width


def _averaging(blocks: Tensor) -> Tensor:
    """Return the matrix [column, block] that takes means over blocks."""
    chosen = torch.nn.functional.one_hot(blocks).float()
    return chosen / chosen.sum(0)
