"""Sections on weights in words: what each head looks for and writes, and what rows and features of outliers say."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import polars as pl

from monadnock.findings.noise import told_floor
from monadnock.findings.words import number
from monadnock.report import text
from monadnock.report.charts_lens import SHADES, largest
from monadnock.report.parts import Block, Cell, Findings, Listing, Section, meaning
from monadnock.report.picker import Option, Picker, Word, WordTable, words_that_fit

_MOST = 40_000  # words of heads in a page
_ROWS = 4  # rows of W_q, and of W_k, that are told of a head: the strongest
_LISTED = 5  # words of each end in the listing
_CIRCUITS = {
    "qk": ("qk, what attends to what", "query side", "key side", ("query", "key")),
    "ov": ("ov, what is written for what is read", "reads", "writes", ("reads", "writes")),
}
_OUTLIERS = {
    "feature": "feature",
    "up_row": "row of W_up",
    "gate_row": "row of W_gate",
    "down_column": "column of W_down",
}
_VECTOR = ["kind", "layer", "head", "index", "side", "sign"]

Make = partial[WordTable]  # with the noise floor and the full shade of all
Vectors = dict[tuple[Any, ...], tuple[float | None, list[Word]]]  # strength and words by side, index and so on


def heads(findings: Findings) -> list[Block]:
    """Let a reader pick layer and head, and read what its pairs of directions look for, read and write."""
    readings = _ranked(findings["readings"].drop_nulls(["layer", "head"]).filter(pl.col("kind").is_in(_HEADS)))
    circuits = findings["circuits"].drop_nulls(["layer", "head"]).unique(["layer", "head", "circuit"], keep="first")
    places = pl.concat([each.select("layer", "head") for each in (readings, circuits)]).unique().sort("layer", "head")
    if places.is_empty():
        return []
    rows = readings["kind"].is_in(["q_row", "k_row"])
    strongest = _strongest(readings.filter(rows))
    vectors = pl.concat([readings.filter(~rows), strongest])
    sizes = vectors.group_by(_VECTOR).len()
    count = words_that_fit(_MOST, sizes.height, max(sizes["len"], default=1))
    floor = told_floor(findings["dictionaries"], findings.manifest.model.hidden_size)
    make = partial(WordTable, floor=floor, full=largest(vectors["amplitude"]))
    said = vectors.partition_by("layer", "head", as_dict=True)
    facts = {(row["layer"], row["head"], row["circuit"]): row for row in circuits.to_dicts()}
    options = []
    for (layer,), part in places.partition_by("layer", as_dict=True, maintain_order=True).items():
        heads_here = []
        for head in part["head"]:
            mine = _vectors(said.get((layer, head), vectors.clear()), count)
            tables = [_circuit(name, facts.get((layer, head, name), {}), mine, make) for name in _CIRCUITS]
            tables += _head_rows(mine, make)
            driven = any(facts.get((layer, head, name), {}).get("position_driven") for name in _CIRCUITS)
            name = f"head {head}" + ", driven by position" * driven
            heads_here.append(Option(str(head), tuple(table for table in tables if table), name, faint=driven))
        options.append(Option(str(layer), tuple(heads_here), f"layer {layer}"))
    notes = (
        *meaning("circuits", "circuit", "effective_rank", "position_driven"),
        *meaning("readings", "side", "strength", "sign", "amplitude"),
        "+ and -: the two ends of a pair. A query like the words of one end attends to keys like the words of the same "
        "end; what is read at one end writes what stands at the same end.",
    )
    says = (
        "Pick a layer and a head. Its strongest pairs of directions, each with the tokens that lie furthest towards "
        f"either end, {text.count(count, 'word')} of each; heads with paler numbers are driven by position."
    )
    picker = Picker("readings", (("Layer", "list"), ("Head", "buttons")), tuple(options))
    return [Block("Heads in words", says, notes, picker, SHADES, wide=True)]


_HEADS = (*_CIRCUITS, "q_row", "k_row")


def _ranked(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with the words of each vector in their order."""
    return table.sort("rank", nulls_last=True, maintain_order=True)


def _strongest(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the words of the rows of W_q and W_k with the largest norms, a few of each head."""
    where = ["kind", "layer", "head"]
    norms = rows.select(*where, "index", pl.col("strength").fill_nan(None)).unique([*where, "index"], keep="first")
    norms = norms.sort("strength", "index", descending=[True, False], nulls_last=True)
    chosen = norms.group_by(where, maintain_order=True).head(_ROWS).select(*where, "index")
    return rows.join(chosen, [*where, "index"], how="semi", nulls_equal=True, maintain_order="left")


def _vectors(part: pl.DataFrame, count: int) -> Vectors:
    """Return strength and words of each vector of a head by kind, index, side and sign."""
    columns = pl.col("strength").first(), pl.col("word", "amplitude").head(count)
    rows = part.group_by("kind", "index", "side", "sign").agg(*columns)
    return {
        (kind, index, side, sign): (strength, [*map(Word, words, amplitudes)])
        for kind, index, side, sign, strength, words, amplitudes in rows.rows()
    }


def _indices(vectors: Vectors, kind: str) -> list[int]:
    return sorted({index for name, index, _, _ in vectors if name == kind and index is not None})


def _circuit(kind: str, facts: dict[str, Any], vectors: Vectors, make: Make) -> WordTable | None:
    """Return the singular pairs of a head, a row for each end; of a head driven by position, only the sentence."""
    title, left, right, sides = _CIRCUITS[kind]
    driven = bool(facts.get("position_driven")) and kind == "qk"
    told = [_by_position(facts)] if driven else []
    if facts:
        value, rank = _size(facts["singular_value"]), _size(facts["effective_rank"])
        told.append(f"largest singular value {value}, effective rank {rank}")
    rows = []
    for index in [] if driven else _indices(vectors, kind):
        for sign, mark in ((1, "+"), (-1, "-")):
            ends = [vectors.get((kind, index, side, sign), (None, [])) for side in sides]
            if any(words for _, words in ends):
                strength = next((size for size, _ in ends if size is not None), None)
                label = f"{mark} pair {index}" + f" ({_size(strength)})" * (sign == 1)
                rows.append((label, tuple(tuple(words) for _, words in ends)))
    says = f"{title}: {'; '.join(told)}." if told else f"{title}."
    return make(says, ("", left, right) if rows else (), tuple(rows)) if told or rows else None


def _by_position(facts: dict[str, Any]) -> str:
    """Return what a head that is driven by position attends to, and the share of its mean attention over the text."""
    offset, mass = facts["offset"], facts["offset_mass"]
    if mass is None:
        return "driven by position"
    key = {0: "the query itself", 1: "the token before", None: "the last 8 keys"}.get(
        offset, f"the key {offset} tokens before"
    )
    return f"driven by position, {_size(100 * mass)} % of its attention goes to {key}"


def _head_rows(vectors: Vectors, make: Make) -> Iterable[WordTable]:
    """Return the strongest rows of W_q and W_k of a head, with the words at both of their ends."""
    rows = []
    for kind, name, side in (("q_row", "W_q", "query"), ("k_row", "W_k", "key")):
        strength = {
            index: vectors.get((kind, index, side, 1), (None, []))[0] or 0.0 for index in _indices(vectors, kind)
        }
        for index in sorted(strength, key=lambda index: -strength[index]):
            ends = [vectors.get((kind, index, side, sign), (None, []))[1] for sign in (1, -1)]
            rows.append((f"{name} row {index} ({_size(strength[index])})", tuple(map(tuple, ends))))
    if rows:
        says = "Single rows: the strongest of W_q and of W_k, with their norms."
        yield make(says, ("", "towards", "away from"), tuple(rows))


def outliers(findings: Findings) -> list[Block]:
    """List what massive features, and rows and columns around massive weights, say in words."""
    table = _ranked(findings["readings"].drop_nulls(["layer", "index"]).filter(pl.col("kind").is_in(_OUTLIERS)))
    if table.is_empty():
        return []
    floor = told_floor(findings["dictionaries"], findings.manifest.model.hidden_size)
    rows, starts, before = [], set(), None
    for key, part in table.partition_by("kind", "layer", "index", "side", as_dict=True, maintain_order=True).items():
        kind, layer, index, side = key
        what = f"{_OUTLIERS[kind]} {index}, layer {layer}"
        starts |= {len(rows)} if before not in (None, (layer, index)) else set()
        before = (layer, index)
        ends = [_end(part.filter(sign=sign)) for sign in (1, -1)]
        told = Cell(side or "", text.NONE if part["dictionary"][0] is None else part["dictionary"][0])
        rows.append((Cell(what, _size(part["strength"][0])), told, *ends))
    says = (
        "What a feature or a row reads, by the input dictionary, and what a feature or a column adds to predictions, "
        f"by the output dictionary; beside the words their furthest amplitude, noise below {number(floor)}."
    )
    notes = (
        *meaning("readings", "kind", "side", "strength", "sign", "amplitude"),
        "Beside a feature stands its peak, in whose direction it is read; beside a row or column its norm.",
    )
    columns = ("vector", "", "towards", "away from")
    body = Listing(columns, tuple(rows), (True,) * len(columns), frozenset(starts), words=4, wraps=True)
    return [Block("Outliers in words", says, notes, body, wide=True)]


def _end(part: pl.DataFrame) -> Cell:
    """Return the words of one end, and the amplitude of the first."""
    if part.is_empty():
        return Cell("")
    words = [text.token(word or "") for word in part["word"].head(_LISTED)]
    return Cell("\u2002 ".join(words), _size(part["amplitude"][0]))


def _size(value: float | None) -> str:
    """Return a number with three digits, if it is one."""
    return number(value) if value is not None and math.isfinite(value) else text.number(value)


SECTIONS = (
    Section(
        "head-words",
        "Heads in words",
        "What a head looks for, what it attends to, and what it writes, read from its weights by the dictionaries.",
        ("readings", "circuits"),
        "The tables have no rows of heads: no head was read.",
        heads,
    ),
    Section(
        "outlier-words",
        "Outliers in words",
        "What massive features, rows and columns read and write, by the dictionaries.",
        ("readings",),
        "The table has no rows of outliers: none was read.",
        outliers,
    ),
)
