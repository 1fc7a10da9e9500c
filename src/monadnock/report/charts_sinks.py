"""The section on what sinks do: how they scale what heads read, and how little attention adds at them."""

import polars as pl
from bokeh.models import Span
from bokeh.plotting import figure

from monadnock.findings.summary_explain import finite, median, scaled
from monadnock.report import text
from monadnock.report.lines import Line, layer_lines, points
from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import extent, peak
from monadnock.report.source import finite as numbers
from monadnock.report.theme import AMBER, BLUE, GREY, VERMILION

_SHARE = (0.0, 1.0)
_NOTHING = Key("nothing scales this head", GREY)
_FIRST = "Where the sink is the first token this says little more than its value: that token sees only itself."
_CONTEXT = "Context is all but the position: what stands in the window, the query's own token included."


def scaling(findings: Findings) -> list[Block]:
    """Draw how heads scale what they read, by layer and head, and what attention adds at sinks (ratios)."""
    table = findings["scaling"].drop_nulls(["layer", "head"])
    heads, verdict = scaled(table)
    blocks = [_verdict(findings, table, heads, verdict)] if table.height else []
    if heads.height:
        num_layers = findings.manifest.model.num_layers
        blocks += [*_maps(table), _spread(heads, num_layers), *_values(heads, num_layers)]
    return [*blocks, *_zero_update(findings["zero_update"]), *_gap(findings["heads"], findings["scaling"])]


def _verdict(findings: Findings, table: pl.DataFrame, heads: pl.DataFrame, verdict: str) -> Block:
    title, notes = (
        "Is the scale a constant?",
        (*meaning("scaling", "kind", "mean", "p10", "p90", "context_share"), _CONTEXT),
    )
    if not heads.height:
        says = f"Nothing scales any of {text.count(table.height, 'head')}: no sink, no learned sink logit, no gate."
        return Block(title, says, notes)
    middle = [pl.col(name).fill_nan(None).median().round(3) for name in ("mean", "p10", "p90", "std", "context_share")]
    listed = heads.group_by("kind", maintain_order=True).agg(pl.len().alias("heads"), *middle)
    listed = listed.rename({"kind": "scaled by"})
    says = f"{heads.height} of {table.height} heads scale what they read: {verdict}"
    says += f" ({text.count(findings.manifest.text.num_windows, 'window')}). Medians over heads stand below."
    return Block(title, says, notes, listed, wide=True)


def _maps(table: pl.DataFrame) -> list[Block]:
    """Draw the mean of S and the share of its variance that is of the context, grey where nothing scales."""
    is_scaled = pl.col("kind").fill_null("none") != "none"
    labels = {"layer": "layer", "head": "head", "scaled by": "kind", "mean S": "mean", "std": "std"}
    labels |= {"a tenth below": "p10", "a tenth above": "p90", "of the context": "context_share"}
    blocks = []
    for column, title, says in (
        (
            "mean",
            "Mean scale of every head",
            "The mean over queries of S, the part of a head's attention that is not its sink's.",
        ),
        (
            "context_share",
            "What moves the scale",
            "The share of the variance of S that the context makes; the rest goes by the position.",
        ),
    ):
        frame = table.with_columns(pl.when(is_scaled).then(column).alias("_shown"))
        if not finite(frame, "_shown").height:
            continue
        plot = layer_map(frame, "head", "head", "_shown", labels, limits=_SHARE)
        alt = f"Map of layers and heads. {peak(frame, '_shown', column.replace('_', ' '), 'layer', 'head')}"
        notes = (*meaning("scaling", column, "kind"), _CONTEXT)
        blocks.append(Block(title, says, notes, plot, (_NOTHING,), alt))
    return blocks


def _spread(heads: pl.DataFrame, num_layers: int) -> Block:
    frame = (
        heads.group_by("layer")
        .agg(pl.col(name).fill_nan(None).median() for name in ("p10", "mean", "p90"))
        .sort("layer")
    )
    frame = _whole(frame, num_layers)
    lines = [
        Line("p90", "a tenth of the queries above", AMBER, "dashed"),
        Line("mean", "mean", VERMILION),
        Line("p10", "a tenth of the queries below", BLUE, "dashed"),
    ]
    says = "How far S goes up and down between queries: medians over the heads of a layer that something scales."
    alt = f"Lines over layers. {peak(frame, 'p90', 'upper tenth', 'layer')} {peak(frame, 'mean', 'mean', 'layer')}"
    plot = layer_lines(frame, lines, "S", log=False, limits=(-0.03, 1.03))
    return Block(
        "Spread of the scale", says, meaning("scaling", "mean", "p10", "p90"), plot, tuple(x.key for x in lines), alt
    )


def _values(heads: pl.DataFrame, num_layers: int) -> list[Block]:
    """Draw how small the value of the sink is, as a ratio, for heads that have one."""
    sinks = finite(heads.filter(pl.col("kind").str.contains("key")), "value_ratio")
    if not sinks.height:
        return []
    frame = _whole(sinks.group_by("layer").agg(middle=pl.col("value_ratio").median()), num_layers)
    lines = [Line("middle", "median", BLUE)]
    values = numbers(sinks["value_ratio"])
    plot = layer_lines(frame, lines, "|v of the sink| / mean |v|", log=False, limits=(0, max(1.1, extent(values)[1])))
    points(plot, sinks, "value_ratio", VERMILION, {"layer": "layer", "head": "head", "|v| / mean |v|": "value_ratio"})
    _level(plot, 1)
    small = (sinks["value_ratio"] < 1).sum()
    keys = (
        Key("head with a sink", VERMILION, "dot"),
        *(line.key for line in lines),
        Key("as large as others", GREY, "dotted"),
    )
    says = (
        f"In {small} of {text.count(sinks.height, 'head')} with a sink, the sink's value is smaller than the mean: "
        f"{text.number(median(sinks['value_ratio']))} of it in the median head."
    )
    alt = f"Dots over layers. {peak(sinks, 'value_ratio', 'ratio', 'layer', 'head')}"
    return [Block("Value of the sink", says, meaning("scaling", "value_ratio"), plot, keys, alt)]


def _zero_update(table: pl.DataFrame) -> list[Block]:
    table = table.drop_nulls("layer")
    known = finite(table, "ratio")
    if not known.height:
        return []
    frame = table.with_columns(ratio=pl.Series(numbers(table["ratio"])))
    lines = [Line("ratio", "sinks / others", VERMILION)]
    more = {"at sinks": "sinks", "elsewhere": "others", "sinks in a window": "num_sinks"}
    top = max(1.1, extent(numbers(known["ratio"]))[1])
    plot = layer_lines(frame, lines, "added at sinks / elsewhere", log=False, limits=(0, top), more=more)
    _level(plot, 1)
    below = (known["ratio"] < 1).sum()
    says = (
        f"Attention adds less to h at sinks than elsewhere in {below} of {text.count(known.height, 'layer')} with a "
        f"sink: {text.number(median(known['ratio']))} of it in the median layer. Layers without a sink have no dot."
    )
    keys = (lines[0].key, Key("as much as elsewhere", GREY, "dotted"))
    alt = f"Line over layers. {peak(frame, 'ratio', 'ratio', 'layer')}"
    return [
        Block(
            "What attention adds at sinks",
            says,
            (*meaning("zero_update", "sinks", "others", "num_sinks"), _FIRST),
            plot,
            keys,
            alt,
        )
    ]


def _gap(heads: pl.DataFrame, scaling: pl.DataFrame) -> list[Block]:
    """Draw how far the largest attention logit is above the others, with and without a sink."""
    heads = finite(heads.drop_nulls(["layer", "head"]), "logit_gap")
    if not heads.height:
        return []
    is_sink = pl.col("sink").fill_null(False)
    parts = [("with a sink", is_sink, VERMILION, "solid"), ("without a sink", ~is_sink, BLUE, "dashed")]
    parts = [part for part in parts if heads.filter(part[1]).height]
    frame = heads.group_by("layer").agg(
        pl.col("logit_gap").filter(chosen).median().alias(name) for name, chosen, _, _ in parts
    ).sort("layer")  # fmt: skip
    lines = [Line(name, f"median head {name}", colour, dash) for name, _, colour, dash in parts]
    plot = layer_lines(
        frame, lines, "gap between logits", log=False, limits=extent(numbers(heads["logit_gap"]), zero=True)
    )
    shown = {"layer": "layer", "head": "head", "gap": "logit_gap", "sink mass": "sink_mass"}
    for _, chosen, colour, _ in parts:
        points(plot, heads.filter(chosen), "logit_gap", colour, shown)
    says = "How far the largest attention logit stands above the mean of the others, by layer."
    alt = f"Dots over layers. {peak(heads, 'logit_gap', 'gap', 'layer', 'head')}"
    notes = meaning("heads", "logit_gap", "sink")
    return [Block("Range of attention logits", says, notes, plot, tuple(line.key for line in lines), alt)]


def _whole(frame: pl.DataFrame, num_layers: int) -> pl.DataFrame:
    """Return a row for every layer, without values where there was none, so that lines do not cross it."""
    return pl.DataFrame({"layer": range(num_layers)}).join(frame, "layer", how="left")


def _level(plot: figure, height: float) -> None:
    plot.add_layout(Span(location=height, dimension="width", line_color=GREY, line_dash="dotted", line_width=2))


SECTIONS = (
    Section(
        "scaling",
        "What sinks do",
        "How sinks, sink logits and gates scale what a head reads, and how little attention adds at sinks.",
        ("scaling", "zero_update"),
        "The tables have no rows: no head was observed.",
        scaling,
    ),
)
