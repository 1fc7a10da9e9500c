"""The section on who makes a massive activation and who takes it away: the massive layer's FFN, then every block."""

import numpy as np
import polars as pl
from bokeh.models import NumeralTickFormatter, Span
from bokeh.plotting import figure

from monadnock.findings.summary_explain import finite, massive_features, ways
from monadnock.report import text
from monadnock.report.ladders import Mark, ladder
from monadnock.report.lines import layer_range
from monadnock.report.logs import signed_log, signed_ticks
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import extent, hover, peak, source
from monadnock.report.source import finite as numbers
from monadnock.report.theme import BLUE, GREY, LAYER_LABEL, VERMILION, blank, whole_numbers

_STEPS = ("gate", "up", "activation", "intermediate", "output")
_STEP_NAMES = {"intermediate": "x_down", "output": "FFN out"}
_BLOCKS = {"attention": "attention", "mlp": "the FFN"}
_FEATURES, _ROWS = 2, 12


def life(findings: Findings) -> list[Block]:
    """Draw how the massive layer's FFN makes it, and what attention and FFN add to the largest features (signed)."""
    table = findings["contributions"]
    found, massive = ways(table), massive_features(findings["lifecycles"])
    blocks = _emergence(findings)
    chosen = found.filter(pl.col("feature").is_in(massive.implode())).head(_FEATURES)
    for way in (chosen if chosen.height else found.head(1)).iter_rows(named=True):
        rows = finite(table, "layer", "before", "attention", "mlp", "after").filter(pl.col("feature") == way["feature"])
        blocks += _feature(rows.sort("layer"), way)
    if found.height:
        blocks.append(_ways(found))
    return blocks


def _emergence(findings: Findings) -> list[Block]:
    """Compare the start token with other tokens, state by state, for the first features of each state."""
    table = findings["emergence"].drop_nulls(["layer", "state", "feature"]).filter(pl.col("state").is_in(_STEPS))
    table = table.unique(["state", "feature"], keep="first", maintain_order=True)
    first = pl.int_range(pl.len()).over("state")
    table = table.filter(first < _FEATURES).sort(
        pl.col("state").replace_strict({s: i for i, s in enumerate(_STEPS)}, default=9), maintain_order=True
    )
    if not table.height:
        return []
    name = pl.format("{}, feature {}", pl.col("state").replace(_STEP_NAMES), "feature")
    table = table.with_columns(rung=name, size=pl.col("start").abs())
    layer, expert = table["layer"][0], table["expert"][0]
    place = f"layer {layer}" + ("" if expert is None else f", expert {expert}")
    marks = (Mark("others", "other tokens, mean", GREY), Mark("size", "start token", VERMILION))
    shown = {"state": "state", "feature": "feature", "signed value": "start", "times the others": "ratio"}
    state = pl.col("state").replace("intermediate", "x_down")
    listed = table.select(state, "feature", pl.col("start").alias("start token"), "others", "ratio")
    notes = (*meaning("emergence", "state", "start", "others", "ratio"), "Source: an2025, figure 7.")
    what = "the massive activation" if findings["massive_weights"]["massive"].any() else "its largest activation"
    says = f"How the FFN of {place} makes {what}: |value| of the start token against other tokens."
    return [
        Block(
            "Emergence in the FFN",
            says,
            notes,
            ladder(table, "rung", marks, shown, x_label="|value| (log)", group="state"),
            tuple(mark.key for mark in reversed(marks)),
            f"Marks on {table.height} rungs. {peak(table, 'ratio', 'ratio to other tokens', 'state', 'feature')}",
        ),
        Block("Emergence in numbers", f"The same for {place}; the largest features only.", notes, listed),
    ]


def _feature(rows: pl.DataFrame, way: dict) -> list[Block]:
    """Draw what the blocks add to a feature, as amounts and on an axis for both signs."""
    feature = way["feature"]
    notes = (*meaning("contributions", "attention", "mlp", "after"), "Source: an2025, figure 9.")
    keys = (Key("attention adds", BLUE), Key("FFN adds", VERMILION), Key("h behind the layer", GREY, "solid"))
    gone = "it never shrinks" if way["gone_layer"] is None else (
        f"in layer {way['gone_layer']} {_BLOCKS[way['gone_by']]} adds {text.number(way['gone'])}"
    )  # fmt: skip
    says = (
        f"In layer {way['made_layer']} {_BLOCKS[way['made_by']]} adds {text.number(way['made'])}; {gone}; "
        f"{text.number(way['left'])} is left behind the last layer."
    )
    alt = f"Bars over layers. {says}"
    return [
        Block(f"What is added to feature {feature}", says, notes, _bars(rows, signed=False), keys, alt),
        Block(
            f"Feature {feature} again, small steps visible",
            "The same on an axis that is linear from -1 to 1 and logarithmic beyond: heights are no amounts here.",
            notes,
            _bars(rows, signed=True),
            keys,
            alt,
        ),
    ]


def _bars(rows: pl.DataFrame, *, signed: bool) -> figure:
    data = source(rows.select("layer", "before", "attention", "mlp", "after"))
    drawn = {name: numbers(rows[name]) for name in ("attention", "mlp", "after")}
    if signed:
        drawn = {name: signed_log(values) for name, values in drawn.items()}
    low, high = extent(np.concatenate([*drawn.values(), np.zeros(1)]))
    plot = blank(layer_range(rows), (low, high), x_label=LAYER_LABEL, y_label="value of the feature", height=300)
    whole_numbers(plot.xaxis[0])
    if signed:
        signed_ticks(plot, low, high)
    elif high - low > 1000:
        plot.yaxis[0].formatter = NumeralTickFormatter(format="0,0")
    plot.add_layout(Span(location=0, dimension="width", line_color=GREY, line_width=1))
    for name, shift in (("_attention", -0.2), ("_mlp", 0.2), ("_left", -0.5), ("_right", 0.5)):
        data.data[name] = numbers(rows["layer"]) + shift
    for name, values in drawn.items():
        data.data[name] = values
    plot.line("layer", "after", source=data, color=GREY, line_width=2)
    plot.scatter("layer", "after", source=data, color=GREY, size=4)
    for name, colour in (("attention", BLUE), ("mlp", VERMILION)):
        if signed:
            plot.segment(f"_{name}", 0, f"_{name}", name, source=data, color=colour, line_alpha=0.6)
            plot.scatter(f"_{name}", name, source=data, color=colour, size=5)
        else:
            plot.vbar(f"_{name}", top=name, bottom=0, width=0.36, source=data, fill_color=colour, line_color=None)
    strip = plot.vstrip(
        "_left", "_right", source=data, fill_alpha=0, line_alpha=0, hover_fill_color=GREY, hover_fill_alpha=0.15
    )
    labels = {
        "layer": "layer",
        "h before": "before",
        "attention adds": "attention",
        "FFN adds": "mlp",
        "h after": "after",
    }
    hover(plot, strip, labels)
    return plot


def _ways(found: pl.DataFrame) -> Block:
    heads = {
        "feature": "feature",
        "made_layer": "grows in layer",
        "made_by": "by",
        "made": "adds",
        "peak": "peak",
        "gone_layer": "shrinks in layer",
        "gone_by": "by ",
        "gone": "adds ",
        "left": "left",
    }
    listed = found.head(_ROWS).with_columns(pl.col("made_by", "gone_by").replace({"mlp": "FFN"}))
    says = "For each feature that lives somewhere: in which layers |h| grows and shrinks most, and what most adds there"
    says += f"; the {_ROWS} largest of {found.height}." if found.height > _ROWS else "."
    return Block(
        "Who makes it and who takes it away",
        says,
        meaning("contributions", "before", "attention", "mlp", "after"),
        listed.select(pl.col(name).alias(head) for name, head in heads.items()),
        wide=True,
    )


SECTIONS = (
    Section(
        "life",
        "Emergence and disappearance",
        "How the FFN makes the massive activation, and what attention and FFN add to it in every layer.",
        ("emergence", "contributions"),
        "No feature of the start token lives in any layer, so there is nothing to make or to take away.",
        life,
    ),
)
