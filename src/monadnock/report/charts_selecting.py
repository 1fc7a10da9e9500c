"""The section on what selects the sink: dimensions, rotary features, and how large the sink's key is in them."""

import numpy as np
import polars as pl
from bokeh.models import Span

from monadnock.findings.summary_explain import finite, median, selecting
from monadnock.report import text
from monadnock.report.bars import bars
from monadnock.report.charts_rotary import DERIVED
from monadnock.report.lines import layer_range, points
from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Findings, Key, Section, legend, meaning
from monadnock.report.source import extent, peak
from monadnock.report.source import finite as numbers
from monadnock.report.theme import AMBER, BLUE, GREY, LAYER_LABEL, SERIES, VERMILION, blank, whole_numbers

_HALVES = {"first of its pair": BLUE, "second of its pair": AMBER, "not turned": GREY}
_DIMENSIONS = 12
_COLOURS = SERIES[:5]
_LABELS = {
    "sink's key / mean key": "kept",
    "adds to the sink": "sink_contribution",
    "adds to the mean key": "mean_contribution",
}


def spread(findings: Findings) -> list[Block]:
    """Count the heads by the dimensions that most align queries with the sink (bars), rotary pairs together."""
    table = findings["spread"].drop_nulls(["layer", "head", "dimension"])
    if not table.height:
        return []
    place = ["layer", "dimension"]
    bands = findings["bands"].drop_nulls(place).unique(place, keep="first", maintain_order=True)
    table = table.join(bands.select(*place, "feature", "half"), place, how="left", maintain_order="left")
    table = table.with_columns(
        pair=pl.format("rotary feature {}", "feature").fill_null(pl.format("dimension {}", "dimension")),
        half=pl.col("half").replace_strict({0: "first of its pair", 1: "second of its pair"}, default="not turned"),
        share=pl.col("share").fill_nan(None),
    )
    counted = table.group_by("pair", "dimension", "half").agg(
        heads=pl.len(), first=(pl.col("rank") == 1).sum(), share=pl.col("share").median()
    )
    order = counted.group_by("pair").agg(_all=pl.col("heads").sum(), _dims=pl.col("dimension").unique().sort())
    order = order.sort("_all", "pair", descending=[True, False])
    dims = pl.col("_dims").cast(pl.List(pl.String)).list.join(" and ")
    name = pl.format("{} ({})", dims, pl.col("pair").str.replace("rotary ", ""))
    order = order.with_columns(name=pl.when(pl.col("pair").str.starts_with("rotary")).then(name).otherwise("pair"))
    counted = counted.join(order.head(_DIMENSIONS), "pair")
    counted = counted.sort("_all", "pair", "half", "dimension", descending=[True, False, False, False])
    total = table.select("layer", "head").n_unique()
    says = (
        f"In how many of {text.count(total, 'head')} with a sink a dimension is among the four that most align queries "
        "with the sink."
    )
    if table["feature"].drop_nulls().len():
        says += " Both dimensions of a rotary pair stand in one bar."
    if order.height > _DIMENSIONS:
        says += f" {order.height - _DIMENSIONS} rarer bars are left out."
    notes = (*meaning("spread", "dimension", "sink_product", "mean_product", "share"), "Source: an2025, figure 8.")
    shown = {"dimension": "dimension", "heads": "heads", "of these, first": "first", "median share of the sum": "share"}
    label = "heads per dimension"
    plot = bars(counted, "name", "heads", shown, x_label=label, group="half", colours=_HALVES)
    keys = legend(counted["half"], _HALVES)
    alt = f"Bars. {peak(counted, 'heads', 'number of heads', 'dimension')}"
    return [Block("Dimensions that select the sink", says, notes, plot, keys, alt, wide=True)]


def sinks(findings: Findings) -> list[Block]:
    """Draw which rotary feature selects each head's sink (map), and how large the sink's key is in it (dots, log)."""
    table = findings["rotary"].drop_nulls(["layer", "head", "feature"])
    chosen = selecting(table)
    if not chosen.height:
        return []
    counts = chosen["feature"].value_counts().sort("count", "feature", descending=[True, False])
    colours = {f"feature {feature}": colour for feature, colour in zip(counts["feature"], _COLOURS, strict=False)}
    heads = table.select("layer", "head").unique(maintain_order=True)
    columns = ("layer", "head", "feature", "sink_contribution", "mean_contribution", "kept", "offset")
    heads = heads.join(chosen.select(columns), ["layer", "head"], how="left", maintain_order="left")
    heads = heads.with_columns(name=pl.format("feature {}", "feature").fill_null("no sink"))
    labels = {"layer": "layer", "head": "head", "selected by": "name"} | _LABELS | {"offset feature": "offset"}
    keys = [Key(name, colour) for name, colour in colours.items()]
    keys += [Key("another feature", GREY)] * (counts.height > len(colours))
    told = ", ".join(f"{feature} in {count}" for feature, count in counts.head(4).rows())
    says = (
        "The rotary feature that most lifts the sink's logit above that of the mean key: of "
        f"{text.count(chosen.height, 'head')} with a sink, feature {told}. Heads without a sink are empty."
    )
    lift = peak(chosen, "gain", "lift in logit units", "layer", "head", "feature")
    return [
        Block(
            "Feature that selects the sink",
            says,
            (*meaning("rotary", "sink_contribution", "mean_contribution"), DERIVED),
            layer_map(heads, "head", "head", "name", labels, colours=colours | {"no sink": "rgba(0, 0, 0, 0)"}),
            tuple(keys),
            f"Map of layers and heads, coloured by feature. {lift}",
        ),
        *_kept(chosen, findings.manifest.model.num_layers),
    ]


def _kept(chosen: pl.DataFrame, num_layers: int) -> list[Block]:
    """Draw the sink key's radius against that of the mean key, in offset features and in others."""
    frame = finite(chosen, "kept").filter(pl.col("kept") > 0).with_columns(pl.col("offset").fill_null(False))
    if not frame.height:
        return []
    plot = blank(
        layer_range(pl.DataFrame({"layer": [0, num_layers - 1]})),
        extent(np.append(numbers(frame["kept"]), 1), log=True),
        x_label=LAYER_LABEL,
        y_label="sink's key / mean key",
        height=280,
        log_y=True,
    )
    whole_numbers(plot.xaxis[0])
    plot.add_layout(Span(location=1, dimension="width", line_color=GREY, line_dash="dotted", line_width=2))
    keys, told = [], []
    for is_offset, name, colour in ((True, "an offset feature", VERMILION), (False, "another feature", BLUE)):
        part = frame.filter(pl.col("offset") == is_offset)
        if part.height:
            points(plot, part, "kept", colour, {"layer": "layer", "head": "head", "feature": "feature"} | _LABELS)
            keys.append(Key(f"selected by {name}", colour, "dot"))
            kept, sink, mean = (text.number(median(part[column])) for column in _LABELS.values())
            told.append(
                f"In {text.count(part.height, 'head')} {name} selects the sink: its key has {kept} of the mean key's "
                f"radius there, and its logit gets {sink}, that of the mean key {mean}."
            )
    names = ("sink_k_radius", "k_radius", "offset", "sink_contribution", "mean_contribution")
    return [
        Block(
            "Radius of the sink's key",
            f"{' '.join(told)} All are medians.",
            (*meaning("rotary", *names), DERIVED),
            plot,
            (*keys, Key("as large as the mean key", GREY, "dotted")),
            f"Dots over layers. {peak(frame, 'kept', 'ratio', 'layer', 'head', 'feature')}",
        )
    ]


SECTIONS = (
    Section(
        "selecting",
        "What selects the sink",
        "Which dimensions and rotary features align queries with the sink, and which only spare it.",
        ("spread", "rotary"),
        "No head has a sink, so nothing selects one.",
        lambda findings: [*spread(findings), *sinks(findings)],
    ),
)
