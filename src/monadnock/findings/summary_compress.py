"""Sensitivity, its patterns and what compression costs, in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.findings.words import listed, number

Tables = Mapping[str, pl.DataFrame]

_KEY = ("layer", "module", "expert")
_SETTING = ("bits", "group", "damping", "data")
_NAMES = {"row": "row", "column": "column", "partial_row": "partial row", "attention_head": "head"}


@dataclass(frozen=True)
class Told:
    """A matrix in words.

    Attributes:
        matrix: layer, module and expert.
        compensated, plain: loss of rounding, relative to the loss without the matrix.
        top: share of the most sensitive 0.1 % of the weights in the loss without compensation.
        patterns: what was found in it.
    """

    matrix: str
    compensated: str
    plain: str
    top: str
    patterns: str


def matrix_name(row: Mapping) -> str:
    """Return a matrix in words.

    Example:
        >>> matrix_name({"layer": 11, "module": "down", "expert": None})
        'down of layer 11'
    """
    expert = "" if row["expert"] is None else f", expert {row['expert']}"
    return f"{row['module']} of layer {row['layer']}{expert}"


def matrices_told(tables: Tables) -> list[Told]:
    """Return every matrix and setting in words, the largest loss alone first."""
    table = tables["sensitivity"].sort("layer", maintain_order=True)
    patterns = tables.get("patterns")
    several = table.select(_SETTING).n_unique() > 1
    told: list[tuple[float, Told]] = []
    for matrix in table.partition_by(*_KEY, *_SETTING, maintain_order=True):
        first = matrix.row(0, named=True)
        kinds = {row["kind"]: row for row in matrix.iter_rows(named=True)}
        here = pl.DataFrame() if patterns is None else _same(patterns, first)
        compensated, plain = (_percent(kinds.get(kind, {}).get("relative")) for kind in ("compensated", "plain"))
        largest = kinds.get("plain", first)
        words = in_words(here.to_dicts()) if first["num_tokens"] else "no token came here"
        name = f"{first['layer']} {first['module']}" + ("" if first["expert"] is None else f" {first['expert']}")
        if several:
            name += f" ({first['bits']} bits, {setting_name(first)})"
        top = _percent(largest["top_1e3"])
        told.append((largest["relative"] or 0.0, Told(name, compensated, plain, top, words)))
    return [each for _, each in sorted(told, key=lambda pair: -pair[0])]


def setting_name(row: Mapping) -> str:
    """Return what a matrix was rounded by, beside its bits, in words.

    Example:
        >>> setting_name({"group": 16, "damping": 0.01, "data": "32 x 1024 tokens of a text"})
        'group 16, damping 0.01, 32 x 1024 tokens of a text'
    """
    shared = "row" if row["group"] is None else f"group {row['group']}"
    return f"{shared}, damping {row['damping']:g}, {row['data']}"


def _same(table: pl.DataFrame, row: Mapping) -> pl.DataFrame:
    """Return the patterns of a matrix and setting: of one kind, of sensitivities with compensation if it has them."""
    here = table.filter(*(pl.col(name).eq_missing(row[name]) for name in (*_KEY, *_SETTING)))
    return here.filter(pl.col("kind") == pl.col("kind").min())  # compensated is the first by name, too


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}" if share < 0.1 else f"{share:.0%}"


def in_words(rows: list[dict]) -> str:
    """Return what patterns a matrix shows, from its rows of the table `patterns`.

    Example:
        >>> in_words([])
        ''
    """
    if not rows:
        return ""
    parts = []
    for pattern, name in _NAMES.items():
        found = [row for row in rows if row["pattern"] == pattern and row["found"]]
        if found:
            parts.append(_lines(pattern, name, found))
    rotary = next((row for row in rows if row["pattern"] == "rotary" and row["found"]), None)
    if rotary:
        parts.append(f"rotary pairs alike (r = {rotary['score']:.2f})")
    left = next((row for row in rows if row["pattern"] == "unstructured"), None)
    tail = "" if left is None else f"{left['score']:.0%} unstructured"
    return "; ".join([*parts, *([tail] if tail else [])]) if parts else f"none; {tail}".rstrip("; ")


def _lines(pattern: str, name: str, found: list[dict]) -> str:
    found = sorted(found, key=lambda row: -row["score"])
    first = found[0]
    if pattern == "attention_head":
        places = [str(row["head"]) for row in found if row["head"] is not None]
        if not places:
            places = [f"{row['axis']}s {row[row['axis'] + '_start']}-{row[row['axis'] + '_end'] - 1}" for row in found]
            name = "block of"
    elif pattern == "partial_row":
        places = [f"{row['row_start']} at {row['column_start']}-{row['column_end'] - 1}" for row in found]
    else:
        places = [str(row[f"{pattern}_start"]) for row in found]
    plural = "s" if len(places) > 1 and name != "block of" else ""
    return f"{name}{plural} {listed(places, 3)} ({number(first['score'])}x)"


def sensitivity(_manifest: Manifest, tables: Tables) -> str:
    """Say which matrices cost most to round, and how few weights carry it."""
    table = tables["sensitivity"].filter(pl.col("kind") == "plain", pl.col("relative").is_not_null())
    if not table.height:
        return ""
    worst = table.sort("relative", descending=True).head(3)
    names = [f"{matrix_name(row)} ({row['relative']:.1%})" for row in worst.iter_rows(named=True)]
    bits = sorted(set(table["bits"].to_list()))
    few = table.sort("top_1e3", descending=True, nulls_last=True).row(0, named=True)
    if few["top_1e3"] is None:
        return ""
    return (
        f"rounding to {listed([str(each) for each in bits])} bits loses most of the output, without compensation, in "
        f"{listed(names)}; it is most concentrated in {matrix_name(few)}: {few['top_1e3']:.0%} of the loss in 0.1 % "
        f"of its weights ({table.height} matrices)."
    )


def patterns(_manifest: Manifest, tables: Tables) -> str:
    """Say in how many matrices of each module each pattern was found."""
    table = tables["patterns"].filter(pl.col("pattern") != "unstructured")
    if not table.height:
        return ""
    matrices = table.group_by(*_KEY, *_SETTING, "pattern").agg(pl.col("found").any())
    parts = []
    for pattern in ("attention_head", "rotary", "row", "partial_row", "column"):
        here = matrices.filter(pl.col("pattern") == pattern)
        found = here.filter("found")
        if here.height:
            counts = [f"{m} {found.filter(module=m).height}" for m in found["module"].unique().sort()]
            share = f" ({', '.join(counts)})" if counts else ""
            parts.append(f"{pattern.replace('_', ' ')} in {found.height} of {here.height}{share}")
    return f"matrices with each pattern: {'; '.join(parts)}."


def compression(_manifest: Manifest, tables: Tables) -> str:
    """Say what each compressor does to the perplexity."""
    table = tables["effects"].filter(pl.col("method").is_not_null(), pl.col("metric") == "perplexity")
    if not table.height:
        return ""
    told = []
    for text in table.drop_nulls(["value", "baseline"]).sort("value").partition_by("data", maintain_order=True):
        words = [f"{row['method']} {number(row['value'])}" for row in text.iter_rows(named=True)]
        told.append(f"perplexity {number(text['baseline'][0])} as it is; {listed(words, 8)}")
    return f"{'. On another text: '.join(told)}." if told else ""
