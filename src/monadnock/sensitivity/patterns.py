"""Patterns of a matrix's sensitivities: rows, parts of rows, columns, heads, rotary pairs; each held against chance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monadnock.sensitivity.nulls import Chance, permuted_chance, rolled_chances, spread_sample
from monadnock.sensitivity.shape import Heads

P_VALUE = 0.01  # found: chance makes the like at most this often ...
LEAST_RATIO = {"row": 2.0, "partial_row": 2.0, "column": 2.0, "attention_head": 1.5}  # ... and it is this strong
LEAST_CORRELATION = 0.1  # the same for rotary
MOST = 16  # places told of a pattern
FLOOR = 0.01  # added to every s, in parts of the median: below it all are alike
LINE_PERMUTATIONS = 999  # of whole lines, which cost little
BLOCK = 64  # columns of a part of a row, where no heads say
LEAST_SAMPLED = 8  # columns of a part that are looked at
ENTRIES = 2**22

Redraw = Callable[[Tensor, Tensor], Tensor]


def find_patterns(
    weight: Tensor,
    values: Tensor,
    heads: Heads | None,
    redraw: Redraw | None,
    *,
    permutations: int = 99,
    seed: int = 0,
    control_width: int | None = None,
    entries: int = ENTRIES,
) -> list[dict[str, Any]]:
    """Return the patterns of seed 000 (spqr, figure 2) in one matrix, as rows of the table `patterns`.

    All scores are of L = log10(s + 1 % of the median of the s > 0), so that a mean is a geometric mean of s, which one
    huge weight hardly moves. The p-value of a score holds it against the largest score of each permutation. Found is
    what chance makes at most in P_VALUE of the cases and what is at least LEAST_RATIO (LEAST_CORRELATION).

    row: mean of a row over the median of all rows. The null rolls the weights of each column by an offset of its own
    and asks for their s again: rows that only have the ranges that chance gives them are no pattern.
    partial_row: mean of a row in a block of columns, over what row and block let expect; the same null. Blocks are the
    heads of W_o, elsewhere about 64 columns wide.
    column: mean of a column over the median of all columns. The null rolls the s of each row.
    attention_head: mean of a head's lines over that of all others. The null lets the lines change places.
    rotary: correlation of the means of two lines that rotary turns together, less the mean of their head. The null
    lets lines change places within their head.
    unstructured: share of the variance of L that rows, columns, and rows in blocks leave, per degree of freedom.

    A pattern that cannot be looked for (one row, one head, fewer than two blocks, all s equal) is left out.

    Args:
        weight: [out, in].
        values: its s_ij >= 0 of one kind, [out, in].
        heads: of its rows or columns; None for the FFN.
        redraw: gives s_ij of other weights [out, n] in the columns [n] of the matrix; None: values are rolled as they
            are (sequential), and the ranges of rows are no part of the null.
        permutations: of entries; lines have LINE_PERMUTATIONS.
        seed: of all permutations.
        control_width: without heads, look for stripes of this width in rows and columns, which should not be there.
        entries: how many entries take part in a permutation at most, about. Of a larger matrix, rows are looked at in
            a random sample of its columns (rounded by themselves, that is, redrawn) and columns in one of its rows.

    Returns:
        Rows with pattern, axis, score, null_score, p_value, found, head, aligned, row_start, row_end, column_start and
        column_end. Of each pattern (and axis) every place that is found, the strongest first and 16 at most; or the
        strongest alone, not found.

    Example:
        >>> values = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
        >>> values[:, 5] *= 100
        >>> [(row["axis"], row["column_start"]) for row in find_patterns(values, values, None, None) if row["found"]]
        [('column', 5)]
    """
    generator = torch.Generator().manual_seed(seed)
    weight, values = weight.detach().float(), values.detach().float()
    if not (bool((values > 0).any()) and bool((values != values[0, 0]).any())):
        return []
    block_of = _blocks(values.shape, heads, entries).to(values.device)
    floor = max(FLOOR * float(values[values > 0].median()), 1e-36)
    levels = _levels(values, floor)
    rows = _rows(weight, values, floor, block_of, heads, redraw, permutations, entries, generator)
    rows += _columns(levels, permutations, entries, generator)
    if heads is not None:
        rows += _heads(levels, heads.axis, heads.count, heads.width, generator, named=True)
        rows += _rotary(levels, heads, generator)
    elif control_width is not None:
        for axis, size in zip(("row", "column"), values.shape, strict=True):
            rows += _heads(levels, axis, size // control_width, control_width, generator, named=False)
    return rows + _unstructured(levels, block_of)


def _levels(values: Tensor, floor: float) -> Tensor:
    """Return log10(s + floor) - log10(floor)."""
    return (values / floor).add_(1).log10_()


def _rows(
    weight: Tensor,
    values: Tensor,
    floor: float,
    block_of: Tensor,
    heads: Heads | None,
    redraw: Redraw | None,
    permutations: int,
    entries: int,
    generator: torch.Generator,
) -> list[dict[str, Any]]:
    height, width = values.shape
    count = int(block_of[-1]) + 1
    if height < 2:
        return []
    columns = spread_sample(width, max(entries // height, LEAST_SAMPLED * count), generator).to(values.device)
    blocks = block_of[columns]
    if redraw is None:
        levels = source = _levels(values[:, columns], floor)
        again: Callable[[Tensor], Tensor] = lambda rolled: rolled
    else:
        source = weight[:, columns]
        again = lambda rolled: _levels(redraw(rolled, columns), floor)
        levels = again(source) if len(columns) < width else _levels(values, floor)
    scores = [_line_scores] if count < 2 else [_line_scores, lambda each: _part_scores(each, blocks)]
    chances = rolled_chances(source, again, scores, permutations, generator)
    rows = _told("row", "row", scores[0](levels), chances[0], lambda row: _place((row, row + 1), (0, width)))
    if count < 2:
        return rows
    found = scores[1](levels)
    edges = torch.searchsorted(block_of, torch.arange(count + 1, device=block_of.device)).tolist()
    of_heads = _has_heads(values.shape, heads)
    shifted = _part_scores(levels, (columns + edges[1] // 2) // edges[1]) if of_heads else None

    def tell(index: int) -> dict[str, Any]:
        row, block = divmod(index, count)
        place = _place((row, row + 1), (edges[block], edges[block + 1]))
        if shifted is None:
            return place
        beside = shifted[row, max(block, 1) : min(block + 2, count)]  # whole blocks that reach into the head
        return place | {"head": block, "aligned": bool(found[row, block] > beside.max())}

    return rows + _told("partial_row", "row", found.flatten(), chances[1], tell)


def _columns(levels: Tensor, permutations: int, entries: int, generator: torch.Generator) -> list[dict[str, Any]]:
    height, width = levels.shape
    if width < 2:
        return []
    sample = spread_sample(height, max(entries // width, LEAST_SAMPLED), generator).to(levels.device)
    turned = levels[sample].t()
    (chance,) = rolled_chances(turned, lambda rolled: rolled, [_line_scores], permutations, generator)
    scores = _line_scores(turned)
    return _told("column", "column", scores, chance, lambda column: _place((0, height), (column, column + 1)))


def _heads(
    levels: Tensor, axis: str, count: int, width: int, generator: torch.Generator, *, named: bool
) -> list[dict[str, Any]]:
    lines = levels.mean(1 if axis == "row" else 0)
    if count < 2 or count * width > len(lines):
        return []
    lines = lines[: count * width]

    def score(permuted: Tensor) -> Tensor:
        means = permuted.view(*permuted.shape[:-1], count, width).mean(-1)
        return (means - means.mean(-1, keepdim=True)) * (count / (count - 1))

    def tell(head: int) -> dict[str, Any]:
        stripe, (height, length) = (head * width, (head + 1) * width), levels.shape
        place = _place(stripe, (0, length)) if axis == "row" else _place((0, height), stripe)
        return place | ({"head": head} if named else {})

    chance = permuted_chance(lines[None], lambda each: score(each).amax((1, 2)), LINE_PERMUTATIONS, generator)
    return _told("attention_head", axis, score(lines), chance, tell)


def _rotary(levels: Tensor, heads: Heads, generator: torch.Generator) -> list[dict[str, Any]]:
    lines = levels.mean(1 if heads.axis == "row" else 0)
    if heads.pairs is None or len(lines) != heads.count * heads.width:
        return []
    features = heads.pairs.shape[1]
    turned = lines.view(heads.count, heads.width)[:, heads.pairs.to(lines.device).flatten()]
    turned = turned - turned.mean(1, keepdim=True)
    if heads.count * features < 3 or not bool((turned.abs() > 1e-5).any()):
        return []

    def score(permuted: Tensor) -> Tensor:
        pair = permuted.unflatten(-1, (2, features)).movedim(-2, 0).flatten(-2)  # [2, ..., head and feature]
        first, second = pair - pair.mean(-1, keepdim=True)
        both = (first.square().sum(-1) * second.square().sum(-1)).sqrt()
        return torch.where(both > 0, (first * second).sum(-1) / both.clamp(min=1e-30), 0.0)

    chance = permuted_chance(turned, score, LINE_PERMUTATIONS, generator)
    place = _place((0, levels.shape[0]), (0, levels.shape[1]))
    found, p_value = float(score(turned)), chance.p_value(float(score(turned)))
    told = {"score": found, "null_score": chance.median, "p_value": p_value}
    told["found"] = p_value <= P_VALUE and found >= LEAST_CORRELATION
    return [_EMPTY | {"pattern": "rotary", "axis": heads.axis} | told | place]


def _unstructured(levels: Tensor, block_of: Tensor) -> list[dict[str, Any]]:
    (height, width), count = levels.shape, int(block_of[-1]) + 1
    if height < 2 or width <= count:
        return []
    centred = levels - levels.mean()
    total = float(centred.square().sum(dtype=torch.float64)) / (height * width - 1)
    parts, means = centred @ _means(block_of), centred.mean(0)
    within = means - (means @ _means(block_of))[block_of]  # of columns, less the mean of their block
    in_rows = float((parts.double().square() * block_of.bincount()).sum())
    in_columns = height * float(within.double().square().sum())
    left = total * (height * width - 1) - in_rows - in_columns
    if total < 1e-10:
        return []
    share = left / ((height - 1) * (width - count)) / total
    return [_EMPTY | {"pattern": "unstructured", "score": min(max(share, 0.0), 1.0)}]


def _line_scores(levels: Tensor) -> Tensor:
    """Return the mean of each row over the median of all rows, [row]."""
    means = levels.mean(1)
    return means - means.median()


def _part_scores(levels: Tensor, blocks: Tensor) -> Tensor:
    """Return the mean of each row in each block, less what its row and its block let expect, [row, block]."""
    parts = levels @ _means(blocks)
    return parts - levels.mean(1, keepdim=True) - parts.mean(0) + levels.mean()


def _means(blocks: Tensor) -> Tensor:
    """Return the matrix [column, block] that takes means over blocks."""
    chosen = torch.nn.functional.one_hot(blocks).float()
    return chosen / chosen.sum(0)


def _has_heads(shape: torch.Size, heads: Heads | None) -> bool:
    return heads is not None and heads.axis == "column" and heads.count * heads.width == shape[1]


def _blocks(shape: torch.Size, heads: Heads | None, entries: int) -> Tensor:
    """Return the block of each column, [in]; all 0 where there are too few columns for two."""
    height, width = shape
    columns = torch.arange(width)
    if heads is not None and _has_heads(shape, heads):
        return columns // heads.width
    most = min(width, max(entries // height, 2 * LEAST_SAMPLED)) // LEAST_SAMPLED
    return columns * max(1, min(max(2, round(width / BLOCK)), most)) // width


_EMPTY: dict[str, Any] = dict.fromkeys(
    ("pattern", "axis", "score", "null_score", "p_value", "found", "head", "aligned")
    + ("row_start", "row_end", "column_start", "column_end")
)


def _place(rows: tuple[int, int], columns: tuple[int, int]) -> dict[str, Any]:
    return {"row_start": rows[0], "row_end": rows[1], "column_start": columns[0], "column_end": columns[1]}


def _told(
    pattern: str, axis: str, scores: Tensor, chance: Chance, tell: Callable[[int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a row for each place that is found, or one for the strongest that is not; scores are log10 ratios."""
    rows: list[dict[str, Any]] = []
    best = scores.topk(min(MOST, len(scores)))
    for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        p_value = chance.p_value(score)
        found = p_value <= P_VALUE and 10**score >= LEAST_RATIO[pattern]
        if found or not rows:
            told = {"score": 10**score, "null_score": 10**chance.median, "p_value": p_value, "found": found}
            rows.append(_EMPTY | {"pattern": pattern, "axis": axis} | told | tell(index))
        if not found:
            break
    return rows
