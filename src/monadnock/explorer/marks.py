"""What is marked on a map: heads, the dimensions that rotary turns together, and the patterns that were found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from monadnock.findings.run import Run
from monadnock.findings.words import number

TITLES = {
    "row": "Rows",
    "partial_row": "Parts of rows",
    "column": "Columns",
    "attention_head": "Attention heads",
    "rotary": "Rotary",
    "unstructured": "No structure",
}
KINDS = {"compensated": "with compensation", "plain": "without compensation", "sequential": "as GPTQ rounds"}
_LINES = {"attention_head": "heads", "rotary": "halves"}
_TURNED = ("q", "k")  # what rotary turns are the outputs of these
_MANY = 8  # lines in a head, from which on only every pair's first dimension gets one


@dataclass(frozen=True)
class Pattern:
    """A pattern that was found in a matrix, as the page shows it.

    Attributes:
        title: of the list that it stands in.
        label: where it is, in words.
        detail: score, p-value and what of.
        kind: of sensitivity: compensated, plain or sequential.
        box: first row, row after the last, first column, column after the last; None where it has no place.
        lines: what shows it best over the map: heads, halves, or None.
    """

    title: str
    label: str
    detail: str
    kind: str
    box: list[int] | None
    lines: str | None


def heads(facts: Mapping[str, str]) -> dict[str, Any] | None:
    """Return which lines of a matrix belong to which head; None where there are none.

    Args:
        facts: of the map, as `monadnock sensitivity --map` writes them.

    Returns:
        axis (row or column), width and count, partners (of each dimension of a head the one that rotary turns it with,
        -1 for none) and borders (dimensions of a head before which a line parts what rotary takes as first and second
        of its pairs, and what it leaves alone).

    Example:
        >>> heads({"axis": "row", "d_head": "4", "num_heads": "2", "module": "q", "pairs": "0-2 1-3"})["borders"]
        [2]
    """
    if not facts.get("axis"):
        return None
    width, count = int(facts["d_head"]), int(facts["num_heads"])
    partners, part = [-1] * width, [0] * width
    pairs = facts.get("pairs", "") if facts.get("module") in _TURNED else ""
    for first, second in (map(int, pair.split("-")) for pair in pairs.split()):
        partners[first], partners[second] = second, first
        part[first], part[second] = 1, 2
    borders = [place for place in range(1, width) if part[place] != part[place - 1]]
    if len(borders) > _MANY:
        borders = [place for place in borders if part[place] != 2]
    return {"axis": facts["axis"], "width": width, "count": count, "partners": partners, "borders": borders}


def patterns(run: Run, facts: Mapping[str, str], shape: tuple[int, ...]) -> list[Pattern] | None:
    """Return the patterns found in a map's matrix, strongest first in each group; None if none was looked for.

    Args:
        run: with the table patterns.
        facts: of the map: matrix, bits, group, damping and text must be the same.
        shape: of the matrix.
    """
    if "patterns" not in run.heights():
        return None
    table = run.table("patterns")
    wanted = {"layer": int(facts["layer"]), "module": facts["module"], "data": facts.get("data", "")}
    wanted |= {"bits": int(facts["bits"]), "damping": float(facts["damping"])}
    wanted |= {name: int(facts[name]) if facts.get(name) else None for name in ("expert", "group")}
    looked = table.filter([pl.col(name).eq_missing(pl.lit(value)) for name, value in wanted.items()])
    if looked.is_empty():
        return None
    order = list(TITLES)
    rows = [row for row in looked.to_dicts() if row["found"] or row["pattern"] == "unstructured"]
    rank = lambda row: order.index(row["pattern"]) if row["pattern"] in order else len(order)  # noqa: E731
    rows.sort(key=lambda row: (rank(row), -(row["score"] or 0)))
    return [_pattern(row, shape) for row in rows]


def _pattern(row: Mapping[str, Any], shape: tuple[int, ...]) -> Pattern:
    box = None if row["pattern"] == "unstructured" else _box(row, shape)
    score = "" if row["score"] is None else f"score {number(row['score'])}"
    if row["pattern"] == "unstructured" and score:
        score = f"{row['score']:.0%} of the variance of log s"
    chance = "" if row["p_value"] is None else f"p {number(row['p_value'])}"
    aligned = "keeps to heads" if row["aligned"] else ""
    kind = KINDS.get(row["kind"], row["kind"])
    return Pattern(
        title=TITLES.get(row["pattern"], str(row["pattern"]).replace("_", " ")),
        label=_label(row, box, shape),
        detail=", ".join(part for part in (score, chance, aligned, kind) if part),
        kind=row["kind"],
        box=box,
        lines=_LINES.get(row["pattern"]),
    )


def _box(row: Mapping[str, Any], shape: tuple[int, ...]) -> list[int] | None:
    """Return the place of a pattern, kept inside the matrix; an axis that is not told is the whole of it."""
    if row["row_start"] is None and row["column_start"] is None:
        return None
    ends: list[int] = []
    for axis, length in zip(("row", "column"), shape, strict=True):
        start, end = row[f"{axis}_start"] or 0, row[f"{axis}_end"]
        start = min(max(start, 0), length - 1)
        ends += [start, min(max(length if end is None else end, start + 1), length)]
    return ends


def _label(row: Mapping[str, Any], box: list[int] | None, shape: tuple[int, ...]) -> str:
    if row["pattern"] == "unstructured":
        return "what rows, columns and blocks leave"
    parts = [] if row["head"] is None else [f"head {row['head']}"]
    if box is not None:
        for axis, start, end, length in zip(("row", "column"), box[::2], box[1::2], shape, strict=True):
            if end - start < length:
                parts.append(f"{axis} {start}" if end - start == 1 else f"{axis}s {start} to {end - 1}")
    return ", ".join(parts) or "the whole matrix"
