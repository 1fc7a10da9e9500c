"""Section on the causal chain: the paragraph, every link with its numbers, and each metric clean, cut and at random."""

import math

import polars as pl
from bokeh.models import LogTickFormatter, Span

from monadnock.findings.chain_links import GONE, LINKS, TOUCHED, Link
from monadnock.findings.summary_chain import Cut, find_cuts, parts, texts
from monadnock.report import attacks, text
from monadnock.report.attacks import Metric
from monadnock.report.ladders import Mark, ladder
from monadnock.report.parts import Block, Cell, Findings, Key, Listing, Passage, Section, meaning
from monadnock.report.theme import GREEN, GREY, VERMILION

_START = Metric(
    "Largest |h| of the start token",
    "|h| of the start token",
    "largest |h| of the start token fed alone, median over the layers in which a massive feature of it lives in the "
    "clean model",
    ratio=True,
    decimals=0,
)
_DRAWN = ("start_h", "sink_share", "perplexity")
_RANK = {mode: rank for rank, mode in enumerate(dict.fromkeys(mode for link in LINKS for mode in link.modes))}
_HEADS = {
    "start_h": "start |h|",
    "top1_h": "largest |h|",
    "sink_share": "sinks in %",
    "implicit_scaling": "implicit scaling",
}
_MARKS = (
    Mark("before", "clean model", GREY),
    Mark("control_min", "at random, smallest", GREEN),
    Mark("control_max", "at random, largest", GREEN),
    Mark("after", "cut", VERMILION),
)
_RULE = (
    f"verdict: a link holds if cutting it takes {GONE:.0%} of its effect away (perplexity: adds as much) and no random "
    f"draw does; in part from {TOUCHED:.0%} on, if more than with any draw, or where ways to cut it disagree; it stays "
    "open where the cause was not away after the cut. The thresholds are ours.",
)


def chain(findings: Findings) -> list[Block]:
    """Tell, list and draw the chain over every text over which it was tested."""
    table = findings["chain"].sort("step", nulls_last=True, maintain_order=True)
    blocks = []
    for data in texts(table):
        rows = table.filter(pl.col("data") == data)
        several = f": {data}" if len(texts(table)) > 1 else ""
        draws = max(rows["num_controls"].drop_nulls(), default=0)
        where = f"On {data}; at random: {text.count(draws, 'draw')} of each."
        first, *rest = parts(rows)
        passages = tuple(Passage(_arrow(part.name), part.verdict, "", part.text) for part in rest)
        blocks.append(Block(f"In words{several}", first.text, _RULE, passages, wide=True))
        blocks.append(Block(f"In numbers{several}", where, _notes(rows), _listing(rows), wide=True))
        for metric in _DRAWN:
            blocks += _chart(rows.filter(metric=metric), metric, several)
    return blocks


def _metric(name: str) -> Metric:
    return _START if name == "start_h" else attacks.metric(name)


def _notes(rows: pl.DataFrame) -> tuple[str, ...]:
    metrics, modes = (rows[name].drop_nulls().unique(maintain_order=True) for name in ("metric", "mode"))
    told = {_metric(name).head: _metric(name).doc for name in metrics}
    does = {mode: attacks.MODES[mode].does for mode in modes if mode in attacks.MODES}
    lines = tuple(f"{name}: {doc}." for name, doc in (told | does).items() if doc)
    return (*_RULE, *lines, *meaning("chain", "k", "control"))


def _listing(rows: pl.DataFrame) -> Listing | None:
    """Lay out a row for every link, way to cut it and metric, with the verdict where the metric decides."""
    cells: list[tuple[Cell, ...]] = []
    starts = set()
    for link in LINKS:
        begun = len(cells)
        for cut in find_cuts(rows, link):
            if cut.verdict:
                cells += [_cells(link, cut, row) for row in cut.rows if row["metric"]]
        if len(cells) > begun:
            starts.add(begun)
    heads = ("link", "cut by", "metric", "verdict", "clean", "cut", "at random")
    changes = (False, False, False, False, False, True, False)
    return Listing(heads, tuple(cells), changes, frozenset(starts - {0}), words=4) if cells else None


def _cells(link: Link, cut: Cut, row: dict) -> tuple[Cell, ...]:
    shown = _metric(row["metric"])
    decides = row["metric"] == link.metrics[0] and cut.verdict
    before, after, control = (attacks.number(row[name], shown) for name in ("before", "after", "control"))
    return (
        Cell(_arrow(link.name)),
        Cell(f"{row['mode']} {row['k']}"),
        Cell(_HEADS.get(row["metric"], shown.head)),
        Cell(cut.verdict.word if decides and cut.verdict else ""),
        Cell(before),
        Cell(after, attacks.change(row["after"], row["before"], shown)),
        Cell(control),
    )


def _arrow(name: str) -> str:
    return name.replace("->", "\N{RIGHTWARDS ARROW}")


def _chart(rows: pl.DataFrame, metric: str, several: str) -> list[Block]:
    """Draw a metric for every way to cut a link: clean, cut, and at random, on one logarithmic axis."""
    shown = _metric(metric)
    columns = [mark.column for mark in _MARKS]
    frame = rows.drop_nulls(["mode", "k"]).with_columns(
        pl.col(*columns, "control") * (100 if shown.share else 1), rung=pl.format("{} {}", "mode", "k")
    )
    frame = frame.with_columns(rank=pl.col("mode").replace_strict(_RANK, default=len(_RANK))).sort("step", "rank")
    frame = frame.unique("rung", keep="first", maintain_order=True)
    values = pl.concat([frame[name] for name in columns])
    if not ((values > 0) & values.is_finite()).any():
        return []
    label = f"{shown.head}{' in %' if shown.share else ''} (log)"
    hovered = {"cut by": "rung", "draws": "num_controls"}
    shape = frame.select("rung", "link", "num_controls", *columns)
    plot = ladder(shape, "rung", _MARKS, hovered, x_label=label, group="link")
    plot.xaxis[0].formatter = LogTickFormatter(min_exponent=4)
    clean = frame["before"].drop_nulls()
    if clean.len() and math.isfinite(clean[0]) and clean[0] > 0:
        plot.add_layout(Span(location=clean[0], dimension="height", line_color=GREY, line_dash="dashed", line_width=2))
    keys = (
        Key("cut", VERMILION, "dot"),
        Key("at random, smallest and largest", GREEN, "dot"),
        Key(f"clean model: {text.number(clean[0] if clean.len() else None)}", GREY, "dashed"),
    )
    title = f"{shown.title}{several}"
    return [Block(title, _says(frame, shown), _notes(rows), plot, keys, _spoken(frame, shown))]


def _says(frame: pl.DataFrame, shown: Metric) -> str:
    off = [
        f"{text.number(row['after'])} under {row['rung']}"
        for row in frame.to_dicts()
        if row["after"] is not None and not (math.isfinite(row["after"]) and row["after"] > 0)
    ]
    away = f" Without a place on the axis: {', '.join(off)}." if off else ""
    return f"{shown.title} under every mode and k that cuts a link, beside the clean model and random draws.{away}"


def _spoken(frame: pl.DataFrame, shown: Metric) -> str:
    parts = [
        f"{row['rung']}: {text.number(row['before'])} clean, {text.number(row['after'])} cut, "
        f"{text.number(row['control'])} at random"
        for row in frame.to_dicts()
    ]
    return f"Marks of {shown.head}. {'; '.join(parts)}."


SECTIONS = (
    Section(
        "chain",
        "The causal chain",
        "Whether massive weights make the massive activation, this the sinks, and these the predictions: each cause is "
        "taken away, and the same number at random.",
        ("chain",),
        "The table has no rows: no link was tested.",
        chain,
    ),
)
