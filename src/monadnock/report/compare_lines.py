"""Curves of several runs in one chart, over the layers or over the relative depth, and numbers over the runs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from bokeh.models import FactorRange, NoOverlap
from bokeh.plotting import figure

from monadnock.relations.compare_numbers import depth
from monadnock.report.lines import layer_range
from monadnock.report.parts import Key
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import AMBER, BLUE, GREEN, GREY, LAYER_LABEL, PURPLE, VERMILION, blank, whole_numbers

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, AMBER, GREY)
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_SHAPES = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star")
_HEIGHT = 280  # pixels


@dataclass(frozen=True)
class Look:
    """How the line of a run looks: no two of the first 84 runs have colour, dash and shape in common."""

    colour: str
    dash: str
    shape: str


def look(place: int) -> Look:
    """Return the look of the run at a place of the comparison."""
    return Look(*(looks[place % len(looks)] for looks in (_COLOURS, _DASHES, _SHAPES)))


def keys(names: list[str]) -> tuple[Key, ...]:
    """Return the legend of all runs."""
    looks = [look(place) for place in range(len(names))]
    return tuple(Key(name, one.colour, one.dash, one.shape) for name, one in zip(names, looks, strict=True))


def run_lines(
    curves: Mapping[str, pl.DataFrame | None],
    layers: Mapping[str, int],
    y_label: str,
    *,
    log: bool = True,
    limits: tuple[float, float] | None = None,
) -> figure:
    """Draw one curve per run over the layers, or over the relative depth (0 to 1) where numbers of layers differ.

    Args:
        curves: for every run by name, one row per layer with columns layer and value; or nothing.
        layers: how many layers each run has.
        y_label: the unit of the values.
        log: whether the y axis is logarithmic; values that are not positive are left out then.
        limits: the ends of the y axis, by default those of the values.

    Where curves lie on each other, the marks of the earlier runs are larger and look out.
    """
    same = len(set(layers.values())) == 1
    drawn = {name: _curve(frame, layers[name], log=log) for name, frame in curves.items() if frame is not None}
    values = np.concatenate([finite(frame["value"]) for frame in drawn.values()])
    whole = pl.DataFrame({"layer": [0, max(layers.values()) - 1]})
    plot = blank(
        layer_range(whole) if same else (-0.03, 1.03),
        limits or extent(values, log=log, zero=True),
        x_label=LAYER_LABEL if same else "relative depth (0: first layer, 1: last)",
        y_label=y_label,
        height=_HEIGHT,
        log_y=log,
    )
    plot.yaxis[0].major_label_policy = NoOverlap()
    if same:
        whole_numbers(plot.xaxis[0])
    for place, name in enumerate(curves):
        if name not in drawn:
            continue
        one, data = look(place), source(drawn[name].with_columns(run=pl.lit(name)))
        x = "layer" if same else "depth"
        plot.line(x, "value", source=data, color=one.colour, line_dash=one.dash, line_width=2)
        marks = plot.scatter(x, "value", source=data, color=one.colour, marker=one.shape, size=max(9 - 2 * place, 5))
        if not same:
            hover(plot, marks, {"run": "run", "layer": "layer", "relative depth": "depth", y_label: "value"})
    if same:
        _strips(plot, drawn)
    return plot


def _curve(frame: pl.DataFrame, num_layers: int, *, log: bool) -> pl.DataFrame:
    """Return a curve with its depths; on a logarithmic axis, values that have no place there are missing."""
    frame = frame.drop_nulls("layer").sort("layer").with_columns(pl.col("value").cast(pl.Float64))
    if log:
        frame = frame.with_columns(pl.when(pl.col("value") > 0).then("value"))
    depths = [depth(layer, num_layers) for layer in frame["layer"]]
    return frame.with_columns(depth=pl.Series(depths, dtype=pl.Float64))


def _strips(plot: figure, drawn: Mapping[str, pl.DataFrame]) -> None:
    """Show the values of all runs at the layer under the pointer."""
    wide = pl.concat([frame.select("layer") for frame in drawn.values()]).unique().sort("layer")
    shown = {"layer": "layer"}
    for place, (name, frame) in enumerate(drawn.items()):
        wide = wide.join(frame.select("layer", pl.col("value").alias(f"run{place}")), "layer", how="left")
        shown[name] = f"run{place}"
    wide = wide.with_columns(_left=pl.col("layer") - 0.5, _right=pl.col("layer") + 0.5)
    strip = plot.vstrip(
        "_left", "_right", source=source(wide), fill_alpha=0, line_alpha=0, hover_fill_color=GREY, hover_fill_alpha=0.15
    )
    hover(plot, strip, shown)


def over_runs(values: Mapping[str, float | None], y_label: str, *, log: bool) -> figure:
    """Draw a number of every run over the runs, in the order in which they were given."""
    frame = pl.DataFrame({"run": list(values), "value": pl.Series(list(values.values()), dtype=pl.Float64)})
    if log:
        frame = frame.with_columns(pl.when(pl.col("value") > 0).then("value"))
    ends = extent(finite(frame["value"]), log=log, zero=True)
    plot = blank(FactorRange(factors=list(values)), ends, x_label="", y_label=y_label, height=220, log_y=log)
    plot.yaxis[0].major_label_policy = NoOverlap()
    plot.xaxis[0].major_label_orientation = 0.6 if len(values) > 6 else "horizontal"
    data = source(frame)
    plot.line("run", "value", source=data, color=BLUE, line_width=2)
    hover(plot, plot.scatter("run", "value", source=data, color=BLUE, size=8), {"run": "run", y_label: "value"})
    return plot
