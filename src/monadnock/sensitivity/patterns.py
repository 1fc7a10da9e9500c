"""Patterns of a matrix's sensitivities: rows, parts of rows, columns, heads, rotary pairs; each held against chance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.sensitivity import scores as of
from monadnock.sensitivity.nulls import (
    CHUNK,
    Chance,
    permuted_chance,
    rolled_chances,
    spread_sample,
    without_wide_parts,
)
from monadnock.sensitivity.shape import Heads

P_VALUE = 0.01  # found: chance makes the like at most this often ...
LEAST_RATIO = {"row": 2.0, "partial_row": 2.0, "column": 2.0, "attention_head": 1.5}  # ours: ... and it is this strong
LEAST_CORRELATION = 0.2  # ours: the same for rotary
MOST = 16  # places told of a pattern
LINE_PERMUTATIONS = 999  # of whole lines, which cost little
ENTRIES = 2**22

Redraw = Callable[[Tensor, Tensor], Tensor]

_EMPTY: dict[str, Any] = dict.fromkeys(
    (
        *("pattern", "axis", "score", "null_score", "p_value", "found", "head", "aligned"),
        *("row_start", "row_end", "column_start", "column_end"),
    )
)


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

    All scores are of log10(s + 1 % of the median of the s > 0), so that the mean of a line is a geometric mean of s. A
    p-value holds a score against the largest score of each permutation. Found is what has a p-value of P_VALUE at
    most and a score of LEAST_RATIO (LEAST_CORRELATION) at least.

    row: mean of a row over the median of all rows. The null rolls the weights of each column by an offset of its own
    and asks for their s again, after wide parts of rows were scaled down (`without_wide_parts`). So the ranges that
    rows have by chance are part of it, and a row that only owes its wide grid to one huge weight is no pattern: chance
    puts that weight in some row too.
    partial_row: mean of a row in a block of columns, over what row and block let expect; the same null. Blocks are the
    heads of W_o, elsewhere about 64 columns wide. Aligned: the largest score is larger than with all borders shifted by
    half a head (half of the matrices without a pattern are; and all may be if grids end with the heads).
    column: mean of a column over the median of all columns. The null rolls the s of each row.
    attention_head: mean of a head's lines over that of all others. In the null heads exchange pieces of eight lines
    (four rotary pairs) at the same place: lines next to each other are alike without any head (in W_q their means
    correlate by 0.6), and single lines that change places would take that for one. Found only where it is aligned:
    neighbouring heads differ more than with all borders shifted by a quarter, a half or three quarters of a head.
    rotary: correlation of the means of two lines that rotary turns together, less the mean of their head. The null
    lets lines change places within their head.
    unstructured: share of the variance that columns, and rows block by block, leave, per degree of freedom.

    A pattern that cannot be looked for (one row, one head, fewer than two blocks, all s equal) is left out.

    Args:
        weight: [out, in].
        values: its s_ij >= 0 of one kind, [out, in].
        heads: of its rows or columns; None for the FFN.
        redraw: gives s_ij of other weights [out, n] in the columns [n] of the matrix, row by row. None: values are
            rolled as they are (sequential), and the ranges of rows are no part of the null.
        permutations: of entries; lines have LINE_PERMUTATIONS.
        seed: of all permutations.
        control_width: without heads, look for stripes of this width in rows and columns, which should not be there.
        entries: about how many entries a permutation has at most. Of a larger matrix, rows are looked at in a random
            sample of the columns (with redraw: rounded as if there were no others), and columns in one of the rows.

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
    weight, values = weight.detach().float(), values.detach().float()
    floor = of.floor_of(values)
    if floor is None:
        return []
    blocks = of.column_blocks(values.shape, heads, entries).to(values.device)
    levels = of.levels_of(values, floor)
    looked = _Looked(levels, floor, blocks, heads, permutations, entries, torch.Generator().manual_seed(seed))
    rows = looked.rows(weight, redraw) + looked.columns()
    if heads is not None:
        rows += looked.stripes(heads.axis, heads.width, heads.count) + looked.rotary(heads)
    elif control_width is not None:
        for axis, size in zip(("row", "column"), values.shape, strict=True):
            rows += looked.stripes(axis, control_width, size // control_width)
    share = of.unstructured_share(levels, blocks)
    return rows if share is None else [*rows, _EMPTY | {"pattern": "unstructured", "score": share}]


@dataclass(frozen=True)
class _Looked:
    """A matrix that is looked at: its levels [out, in] above the floor, the block of each column [in], and how."""

    levels: Tensor
    floor: float
    blocks: Tensor
    heads: Heads | None
    permutations: int
    entries: int
    generator: torch.Generator

    def rows(self, weight: Tensor, redraw: Redraw | None) -> list[dict[str, Any]]:
        """Return whole rows and parts of rows."""
        (height, width), count = self.levels.shape, int(self.blocks.max()) + 1
        if height < 2:
            return []
        most = max(self.entries // height, of.LEAST_SAMPLED * count)
        columns = spread_sample(width, most, self.generator).to(weight.device)
        blocks = self.blocks[columns]

        def parts(levels: Tensor) -> Tensor:
            return of.part_scores(levels, blocks)

        def redrawn(rolled: Tensor) -> Tensor:
            if redraw is None:
                return rolled
            some = rolled.split(max(1, CHUNK // len(columns)))  # small enough for fast memory
            return torch.cat([of.levels_of(redraw(each, columns), self.floor) for each in some])

        levels = self.levels[:, columns]
        source = levels
        if redraw is not None:
            source = without_wide_parts(weight[:, columns], blocks)
            levels = levels if len(columns) == width else redrawn(weight[:, columns])
        wanted = [of.line_scores, parts] if count > 1 else [of.line_scores]
        chances = rolled_chances(source, redrawn, wanted, self.permutations, self.generator)
        found = _told("row", "row", of.line_scores(levels), chances[0], lambda row: _place((row, row + 1), (0, width)))
        if count > 1:
            scores = parts(levels)
            found += _told("partial_row", "row", scores.flatten(), chances[1], self._teller(levels, columns, scores))
        return found

    def _teller(self, levels: Tensor, columns: Tensor, scores: Tensor) -> Callable[[int], dict[str, Any]]:
        """Return what tells the place of one of the scores [row, block], counted row by row."""
        count = scores.shape[1]
        edges = torch.searchsorted(self.blocks, torch.arange(count + 1, device=columns.device)).tolist()
        aligned = None
        if self.heads is not None and of.has_column_heads(self.levels.shape[1], self.heads):
            shifted = of.part_scores(levels, (columns + self.heads.width // 2) // self.heads.width)
            aligned = bool(scores.max() > shifted[:, 1:count].max())  # without the halves at both ends

        def tell(index: int) -> dict[str, Any]:
            row, block = divmod(index, count)
            place = _place((row, row + 1), (edges[block], edges[block + 1]))
            return place | {"head": None if aligned is None else block, "aligned": aligned}

        return tell

    def columns(self) -> list[dict[str, Any]]:
        """Return whole columns."""
        height, width = self.levels.shape
        if width < 2:
            return []
        sample = spread_sample(height, max(self.entries // width, of.LEAST_SAMPLED), self.generator)
        turned = self.levels[sample.to(self.levels.device)].t()
        chances = rolled_chances(turned, lambda rolled: rolled, [of.line_scores], self.permutations, self.generator)
        scores = of.line_scores(turned)
        return _told("column", "column", scores, chances[0], lambda place: _place((0, height), (place, place + 1)))

    def stripes(self, axis: str, width: int, count: int) -> list[dict[str, Any]]:
        """Return stripes of lines: heads, or without heads the same as a control."""
        lines = self.levels.mean(1 if axis == "row" else 0)
        if count < 2 or count * width > len(lines):
            return []
        lines = lines[: count * width]
        aligned = of.borders_fit(lines, width)

        def tell(stripe: int) -> dict[str, Any]:
            lines, (height, length) = (stripe * width, (stripe + 1) * width), self.levels.shape
            place = _place(lines, (0, length)) if axis == "row" else _place((0, height), lines)
            return place | {"head": None if self.heads is None else stripe, "aligned": aligned}

        def strongest(permuted: Tensor) -> Tensor:
            return of.stripe_scores(permuted.sum(1) / width, 1).amax(1)

        pairs = None if self.heads is None else self.heads.pairs
        pieces = of.piece_sums(lines.view(count, width), pairs)
        chance = permuted_chance(pieces, strongest, LINE_PERMUTATIONS, self.generator)
        return _told("attention_head", axis, of.stripe_scores(lines, width), chance, tell, possible=aligned)

    def rotary(self, heads: Heads) -> list[dict[str, Any]]:
        """Return whether lines that rotary turns together are alike."""
        lines = self.levels.mean(1 if heads.axis == "row" else 0)
        if heads.pairs is None or heads.count * heads.pairs.shape[1] < 3 or len(lines) != heads.count * heads.width:
            return []
        turned = lines.view(heads.count, heads.width)[:, heads.pairs.to(lines.device).flatten()]
        turned = turned - turned.mean(1, keepdim=True)
        if float(turned.abs().max()) < 1e-5:
            return []
        chance = permuted_chance(turned, of.pair_score, LINE_PERMUTATIONS, self.generator)
        score = float(of.pair_score(turned))
        p_value = chance.p_value(score)
        told = {"score": score, "null_score": chance.median, "p_value": p_value}
        told["found"] = p_value <= P_VALUE and score >= LEAST_CORRELATION
        height, width = self.levels.shape
        return [_EMPTY | {"pattern": "rotary", "axis": heads.axis} | told | _place((0, height), (0, width))]


def _place(rows: tuple[int, int], columns: tuple[int, int]) -> dict[str, Any]:
    return {"row_start": rows[0], "row_end": rows[1], "column_start": columns[0], "column_end": columns[1]}


def _told(
    pattern: str,
    axis: str,
    scores: Tensor,
    chance: Chance,
    tell: Callable[[int], dict[str, Any]],
    *,
    possible: bool = True,
) -> list[dict[str, Any]]:
    """Return a row for each place that is found, or one for the strongest that is not; scores are log10 of ratios."""
    rows: list[dict[str, Any]] = []
    best = scores.topk(min(MOST, len(scores)))
    for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        p_value = chance.p_value(score)
        found = possible and p_value <= P_VALUE and 10**score >= LEAST_RATIO[pattern]
        if found or not rows:
            told = {"score": 10**score, "null_score": 10**chance.median, "p_value": p_value, "found": found}
            rows.append(_EMPTY | {"pattern": pattern, "axis": axis} | told | tell(index))
        if not found:
            break
    return rows
