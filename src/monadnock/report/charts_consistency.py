"""Sections on outliers of W_down, and on whether outliers of one kind are where those of another are."""

import polars as pl

from monadnock.findings.summary_explain import finite
from monadnock.report import text
from monadnock.report.lines import Line, layer_lines, points
from monadnock.report.parts import Block, Cell, Findings, Key, Listing, Section, meaning
from monadnock.report.source import extent, peak
from monadnock.report.source import finite as numbers
from monadnock.report.theme import AMBER, BLUE, PURPLE, VERMILION

_ROWS = 10
_NAMES = {
    "weight outliers in W_down": "W_down",
    "activation outliers in x_down": "x_down",
    "activation outliers in h": "h",
    "attention outliers in A": "A",
}
_CRITERIA = {
    "an2025": "an2025: weights above 1000 times their row's mean, activations above 1000 times the mean, keys with c_j "
    "above 1000 times its mean.",
    "column_ratio+sun2024+gu2025": "column_ratio+sun2024+gu2025: weights above 100 times their column's mean, "
    "activations by sun2024, keys with alpha_j above 0.3 (gu2025).",
}


def weight_outliers(findings: Findings) -> list[Block]:
    """Draw how far the listed entries of W_down stand out of column and row, by layer (log), and list the largest."""
    table = findings["weight_outliers"].drop_nulls(["layer", "row", "column"])
    shown = {"layer": "layer", "row": "row", "column": "column", "weight": "weight"}
    if table["expert"].null_count() < table.height:
        shown["expert"] = "expert"
    shown |= {"times its column's mean": "column_ratio", "times its row's mean": "row_ratio"}
    drawn = finite(table, "column_ratio").filter(pl.col("column_ratio") > 0)
    if not drawn.height:
        return []
    frame = drawn.group_by("layer").agg(pl.col("column_ratio", "row_ratio").fill_nan(None).max()).sort("layer")
    lines = [
        Line("column_ratio", "largest, by column", VERMILION, dots=False),
        Line("row_ratio", "largest, by row", BLUE, "dashed", dots=False),
    ]
    for name, label, colour in (
        ("monadnock.column_ratio", "outlier by column (ours)", AMBER),
        ("an2025.weight_ratio", "outlier by row (an2025)", PURPLE),
    ):
        if (bound := findings.manifest.thresholds.get(name)) is not None:
            frame = frame.with_columns(pl.lit(bound).alias(name))
            lines.append(Line(name, label, colour, "dotted", dots=False))
    ends = pl.concat([frame[line.column].cast(pl.Float64) for line in lines] + [drawn["column_ratio"]])
    plot = layer_lines(frame, lines, "|w| / mean |w|", limits=extent(numbers(ends), log=True))
    points(plot, drawn, "column_ratio", VERMILION, shown)
    first = drawn.sort("column_ratio", descending=True)
    top = first.row(0, named=True)
    says = (
        f"How many times its column's mean each listed entry is: W_down[{top['row']}, {top['column']}] of layer "
        f"{top['layer']} stands out most, with {text.number(top['column_ratio'])}."
    )
    notes = meaning("weight_outliers", "row", "column", "column_ratio", "row_ratio", "outlier")
    keys = (Key("entry, by column", VERMILION, "dot"), *(line.key for line in lines))
    alt = f"Dots over layers. {peak(drawn, 'column_ratio', 'ratio', 'layer', 'row', 'column')}"
    columns = ("layer", "expert", "row", "column", "weight", "column_ratio", "row_ratio")
    listed = first.head(_ROWS).select(name for name in columns if name != "expert" or "expert" in shown)
    says_listed = f"The {listed.height} of {drawn.height} listed entries that stand out most from their column."
    return [
        Block("Entries of W_down by layer", says, notes, plot, keys, alt),
        Block("Largest entries of W_down", says_listed, notes, listed),
    ]


def consistency(findings: Findings) -> list[Block]:
    """List the share of outliers of one kind that are outliers of another, beside the published one, by criterion."""
    table = findings["consistency"].drop_nulls(["outlier_1", "outlier_2"])
    blocks = []
    for criterion in table["criterion"].unique(maintain_order=True):
        rows = table.filter(pl.col("criterion").eq_missing(criterion))
        cells = tuple(_row(row) for row in rows.iter_rows(named=True))
        heads = ("outliers of", "are outliers of", "%", "Llama-2-7B", "outliers", "groups")
        body = Listing(heads, cells, (False,) * len(heads), words=2)
        notes = meaning(
            "consistency", "dimension", "layers", "consistency", "num_outliers", "num_groups", "num_capped", "published"
        )
        notes += tuple(told for name, told in _CRITERIA.items() if name == criterion)
        found = finite(rows, "consistency").height
        says = (
            f"The share of the first kind of outliers that are outliers of the second; {found} of {rows.height} pairs "
            f"have outliers to look up.{_window(findings, criterion)}"
        )
        if capped := max(rows["num_capped"].drop_nulls(), default=0):
            says += f" In {text.count(capped, 'sample')} the list of activations is full, so that some may be missing."
        title = f"Criterion {criterion}" if criterion else "No criterion named"
        blocks.append(Block(title, says, notes, body, wide=True))
    return blocks


def _window(findings: Findings, criterion: str | None) -> str:
    """Say how far a key's score can be above the mean, which in short windows is less than an outlier needs."""
    bound = findings.manifest.thresholds.get("an2025.attention_ratio")
    length = findings.manifest.text.length
    if criterion != "an2025" or bound is None or length > 2 * bound:
        return ""
    if length <= bound:
        return f" In windows of {length:,} tokens no c_j is above {bound:,.0f} times its mean, so A has no outliers."
    return (
        f" In windows of {length:,} tokens a key needs {bound / length:.0%} of all attention to be an outlier of A, "
        "since the mean of c_j is 1."
    )


def _row(row: dict) -> tuple[Cell, ...]:
    first, second = (_NAMES.get(row[name], row[name]) for name in ("outlier_1", "outlier_2"))
    behind = " of the next layer" if row["layers"] == "next" else ""
    where = {"feature": ", same feature", "sequence": ", same position"}.get(row["dimension"], "")
    share = "none found" if not row["num_outliers"] else _percent(row["consistency"])
    counts = (text.cell(row[name]) for name in ("num_outliers", "num_groups"))
    return tuple(
        Cell(value) for value in (first, f"{second}{behind}{where}", share, _percent(row["published"]), *counts)
    )


def _percent(value: float | None) -> str:
    return text.number(None if value is None else round(value, 1))


SECTIONS = (
    Section(
        "weight_outliers",
        "Weight outliers of W_down",
        "Which entries of the down projections stand out, and in which layers.",
        ("weight_outliers",),
        "The table has no rows: no down projection was read.",
        weight_outliers,
    ),
    Section(
        "consistency",
        "Consistency of outliers",
        "Whether outliers of weights, activations and attention are in the same places (an2025, table 1).",
        ("consistency",),
        "The table has no rows: weights, activations and attention were not measured together.",
        consistency,
    ),
)
