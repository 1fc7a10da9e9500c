"""The section on rotary offset features: their radius, angle and number, against the bounds for offsets."""

import math

import numpy as np
import polars as pl
from bokeh.models import FixedTicker, Span

from monadnock.findings.summary_explain import finite, selecting
from monadnock.report import text
from monadnock.report.lines import layer_range
from monadnock.report.logs import log_x
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import extent, hover, peak, source
from monadnock.report.source import finite as numbers
from monadnock.report.theme import AMBER, BLUE, GREEN, GREY, LAYER_LABEL, PURPLE, VERMILION, blank, whole_numbers

DERIVED = "Bounds and settings: derived in docs/rotary.md, not taken from the paper (jonasson2025)."

_POINTS = 1500  # single features drawn, the largest ones
_ROWS = 16
_PLACES = 40  # on the axis of cycles, for features drawn as a spread
_DOTS = {"layer": "layer", "head": "head", "feature": "feature", "cycles": "cycles"}


def offsets(findings: Findings) -> list[Block]:
    """Draw which rotary features are offsets against the bounds, by cycles, angle and layer, and list the features."""
    table = findings["rotary"].drop_nulls(["layer", "head", "feature"])
    blocks = []
    if finite(table, "cycles", "q_relative", "k_relative").height:
        blocks.append(_radius(findings, table))
    found = table.filter(pl.col("offset"))
    if finite(found, "cycles", "angle").height:
        blocks.append(_angle(found))
    if found.height:
        blocks += [_by_layer(found, findings.manifest.model.num_layers), _shares(table)]
    elif table.height:
        blocks.append(_none(table))
    return [*blocks, *_features(table)]


def _radius(findings: Findings, table: pl.DataFrame) -> Block:
    """Draw the smaller of the two relative radii against cycles: single offset features, and all others as a spread."""
    smaller = pl.min_horizontal("q_relative", "k_relative")
    table = finite(table.with_columns(radius=smaller), "cycles", "radius").filter(
        pl.col("cycles") > 0, pl.col("radius") > 0
    )
    offset = table.filter(pl.col("offset")).sort("radius", descending=True)
    bound = findings.manifest.thresholds.get("monadnock.offset_radius")
    other = table.filter(~pl.col("offset").fill_null(False))
    loose = other.filter(pl.col("radius") >= bound) if bound is not None else other.clear()
    spread = _spread(other)
    plot = blank(
        extent(np.append(numbers(table["cycles"]), 0.5), log=True), extent(numbers(table["radius"]), log=True),
        x_label="cycles within the training context (log)", y_label="relative radius (log)", height=330, log_y=True,
    )  # fmt: skip
    log_x(plot)
    data = source(spread)
    plot.segment("cycles", "low", "cycles", "high", source=data, color=GREY, line_width=4, line_alpha=0.5)
    middle = plot.scatter("cycles", "middle", source=data, color=GREY, size=6)
    hover(
        plot,
        middle,
        {"cycles": "cycles", "median": "middle", "5 %": "low", "95 %": "high", "features of heads": "features"},
    )
    keys = [Key("other features: 5 % to 95 %, median", GREY, "dot")]
    for frame, label, colour in (
        (loose, "as large, not in one direction", AMBER),
        (offset, "offset feature", VERMILION),
    ):
        if frame.height:
            keys.insert(0, Key(label, colour, "dot"))
            dots = plot.scatter(
                "cycles",
                "radius",
                source=source(frame.select(*_DOTS, "radius").head(_POINTS)),
                color=colour,
                size=7,
                fill_alpha=0.3,
                line_alpha=0.6,
            )
            hover(plot, dots, _DOTS | {"relative radius": "radius"})
    plot.add_layout(Span(location=0.5, dimension="height", line_color=PURPLE, line_dash="dashed", line_width=2))
    keys.append(Key("theta P = pi: half a cycle", PURPLE, "dashed"))
    if bound is not None:
        plot.add_layout(Span(location=bound, dimension="width", line_color=GREY, line_dash="dotted", line_width=2))
        keys.append(Key(f"radius {text.number(bound)}, from which offsets count", GREY, "dotted"))
    slow = offset.filter(pl.col("cycles") <= 0.5).height
    says = (
        f"{slow} of {text.count(offset.height, 'offset feature')} turn by half a cycle or less within the training "
        "context; the radius is the smaller of those of queries and keys, relative to the head's mean."
    )
    if offset.height > _POINTS:
        says += f" The {_POINTS:,} largest are drawn."
    notes = (*meaning("rotary", "cycles", "q_relative", "k_relative", "offset", "bound_frequency"), DERIVED)
    alt = f"Dots. {peak(offset, 'radius', 'relative radius of an offset feature', 'layer', 'head', 'feature')}"
    return Block("Radius against cycles", says, notes, plot, tuple(keys), alt)


def _spread(table: pl.DataFrame) -> pl.DataFrame:
    """Return how radius is spread at every number of cycles, or at neighbouring ones together where there are many."""
    place = pl.col("cycles").round_sig_figs(4)
    if table.select(place).n_unique() > _PLACES:
        log = pl.col("cycles").log()
        width = pl.max_horizontal((log.max() - log.min()) / _PLACES, 1e-9)
        place = ((log - log.min()) / width).floor()
    radius = pl.col("radius")
    return (
        table.group_by(_place=place)
        .agg(
            cycles=pl.col("cycles").log().mean().exp(),
            low=radius.quantile(0.05),
            middle=radius.median(),
            high=radius.quantile(0.95),
            features=pl.len(),
        )
        .sort("cycles")
    )


def _angle(found: pl.DataFrame) -> Block:
    """Draw the angle of every offset feature against cycles, in the region that the bound allows."""
    turned = pl.col("angle") - 2 * math.pi * (pl.col("angle") / (2 * math.pi)).floor()
    frame = finite(found.with_columns(turned=turned), "cycles", "turned").filter(pl.col("cycles") > 0)
    cycles = numbers(frame["cycles"])
    ends = extent(np.append(cycles, 0.5), log=True)
    plot = blank(
        ends, (0.0, 2 * math.pi), x_label="cycles within the training context (log)", y_label="phi", height=330
    )
    log_x(plot)
    quarters = [place * math.pi / 2 for place in range(5)]
    plot.yaxis[0].ticker = plot.ygrid[0].ticker = FixedTicker(ticks=quarters)
    plot.yaxis[0].major_label_overrides = dict(zip(quarters, ("0", "π/2", "π", "3π/2", "2π"), strict=True))
    edge = np.geomspace(ends[0], 0.5, 40)
    region = {"x": [*edge, ends[0]], "y": [*(1.5 * math.pi - 2 * math.pi * edge), math.pi / 2]}
    plot.patch(
        region["x"], region["y"], fill_color=GREEN, fill_alpha=0.15, line_color=GREEN, line_dash="dashed", line_width=2
    )
    drawn = frame.sort(pl.min_horizontal("q_relative", "k_relative"), descending=True).head(_POINTS)
    dots = plot.scatter(
        "cycles",
        "turned",
        source=source(drawn.select(*_DOTS, "turned", "angle", "bound_angle")),
        color=VERMILION,
        size=7,
        fill_alpha=0.3,
        line_alpha=0.6,
    )
    hover(plot, dots, _DOTS | {"phi": "angle", "within the bound": "bound_angle"})
    inside = frame.filter(pl.col("bound_angle")).height
    says = (
        f"{inside} of {text.count(frame.height, 'offset feature')} lie in the region where the pair lowers the logit "
        "at every distance: phi from π/2 on, and phi + theta P up to 3π/2."
    )
    keys = (Key("offset feature", VERMILION, "dot"), Key("negative over the whole context", GREEN, "dashed"))
    notes = (*meaning("rotary", "angle", "bound_angle", "offset"), DERIVED)
    alt = f"Dots. {says} {peak(frame, 'turned', 'angle', 'layer', 'head', 'feature')}"
    return Block("Angle between query and key", says, notes, plot, keys, alt)


def _none(table: pl.DataFrame) -> Block:
    says = f"There is no offset feature among {text.count(table.height, 'rotary feature')} of heads."
    return Block("No offset features", says, (*meaning("rotary", "offset"), DERIVED))


def _by_layer(found: pl.DataFrame, num_layers: int) -> Block:
    """Count offset features by layer and by the bounds that they satisfy (stacked bars)."""
    both, slow = pl.col("bound_angle").fill_null(False), pl.col("bound_frequency").fill_null(False)
    parts = {
        "negative over the whole context": (both, BLUE),
        "half a turn at most: theta P <= pi": (slow & ~both, AMBER),
        "neither bound": (~slow & ~both, VERMILION),
    }
    counted = found.group_by("layer").agg(
        chosen.sum().alias(f"_{place}") for place, (chosen, _) in enumerate(parts.values())
    )
    frame = pl.DataFrame({"layer": range(num_layers)}).join(counted, "layer", how="left").fill_null(0)
    frame = frame.with_columns(
        _all=pl.sum_horizontal("_0", "_1", "_2"), _left=pl.col("layer") - 0.5, _right=pl.col("layer") + 0.5
    )
    plot = blank(
        layer_range(frame),
        extent(numbers(frame["_all"]), zero=True),
        x_label=LAYER_LABEL,
        y_label="offset features of heads",
        height=280,
    )
    whole_numbers(plot.xaxis[0])
    data = source(frame)
    plot.vbar_stack(
        ["_0", "_1", "_2"],
        x="layer",
        width=0.8,
        source=data,
        color=[colour for _, colour in parts.values()],
        line_color=None,
    )
    strip = plot.vstrip(
        "_left", "_right", source=data, fill_alpha=0, line_alpha=0, hover_fill_color=GREY, hover_fill_alpha=0.15
    )
    hover(
        plot,
        strip,
        {"layer": "layer", "offset features": "_all"} | {name: f"_{place}" for place, name in enumerate(parts)},
    )
    keys = tuple(
        Key(name, colour) for place, (name, (_, colour)) in enumerate(parts.items()) if frame[f"_{place}"].sum()
    )
    notes = (*meaning("rotary", "offset", "bound_frequency", "bound_angle"), DERIVED)
    says = "How many features of its heads are offset features, and which bounds they satisfy."
    return Block(
        "Offset features by layer",
        says,
        notes,
        plot,
        keys,
        f"Bars over layers. {peak(frame, '_all', 'number', 'layer')}",
    )


def _shares(table: pl.DataFrame) -> Block:
    """List the share of offset features that satisfies each bound, beside those of slow and of all features."""
    groups = {
        "offset": table.filter(pl.col("offset")),
        "slow": table.filter(pl.col("bound_frequency")),
        "all": table,
    }
    bounds = {"theta P <= pi": "bound_frequency", "negative": "bound_angle"}
    rows = [
        {"features": name, "number": frame.height} | {head: _percent(frame[bound]) for head, bound in bounds.items()}
        for name, frame in groups.items()
    ]
    says = (
        "The share of offset features that satisfies each bound, in per cent; for comparison that of all slow "
        "features (theta P <= pi), and of all features."
    )
    notes = (*meaning("rotary", "offset", "bound_frequency", "bound_angle"), DERIVED)
    return Block("Bounds in numbers", says, notes, pl.DataFrame(rows, infer_schema_length=None))


def _percent(flags: pl.Series) -> float | None:
    share = flags.mean()
    return round(100 * share, 1) if isinstance(share, float) else None


def _features(table: pl.DataFrame) -> list[Block]:
    """List the rotary features that are offsets or select a sink somewhere."""
    chosen = selecting(table).group_by("feature").agg(selects=pl.len())
    within = pl.col("offset") & pl.col("bound_angle")
    rows = table.group_by("feature").agg(
        dimensions=pl.format("{}+{}", pl.col("dimension").first(), pl.col("other_dimension").first()),
        cycles=pl.col("cycles").fill_nan(None).median(),
        offset=pl.col("offset").sum(),
        negative=within.sum(),
    )
    rows = rows.join(chosen, "feature", how="left").with_columns(pl.col("selects").fill_null(0))
    rows = rows.sort(pl.col("offset") + pl.col("selects"), "feature", descending=[True, False])
    rows = rows.filter((pl.col("offset") > 0) | (pl.col("selects") > 0))
    if not rows.height:
        return []
    says = "The features that are offsets in some head, or select its sink: in how many heads"
    says += f"; {_ROWS} of {rows.height}." if rows.height > _ROWS else "."
    notes = (*meaning("rotary", "feature", "cycles", "offset", "bound_angle"), DERIVED)
    heads = {"offset": "offset in", "negative": "negative in", "selects": "selects the sink in"}
    listed = rows.head(_ROWS).sort("feature").rename(heads)
    return [Block("Features that matter", says, notes, listed)]


SECTIONS = (
    Section(
        "rotary",
        "Rotary offset features",
        "Which rotary features act as offsets, and whether they satisfy the bounds.",
        ("rotary",),
        "The model turns no queries and keys by rotary embeddings.",
        offsets,
    ),
)
