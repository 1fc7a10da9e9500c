"""Horizontal bars, stacked by group, and spans over the layers."""

from collections.abc import Mapping
from types import MappingProxyType

import polars as pl
from bokeh.models import BasicTicker, FactorRange
from bokeh.plotting import figure

from monadnock.report.lines import layer_range
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import GREY, LAYER_LABEL, blank, whole_numbers

_BAR = 26  # pixels


def bars(
    frame: pl.DataFrame,
    label: str,
    value: str,
    shown: Mapping[str, str],
    *,
    x_label: str,
    group: str,
    colours: Mapping[str, str] = MappingProxyType({}),
    colour: str = GREY,
) -> figure:
    """Draw a bar per label in the frame's order, pieces of one label stacked, x in value's unit.

    A piece has the colour of its group in `colours`, or else `colour`.
    """
    clean = frame.with_columns(pl.Series(value, finite(frame[value])).fill_nan(0))
    end = pl.col(value).cum_sum().over(label)
    stacked = frame.with_columns(clean.select(_right=end, _left=end - pl.col(value)))
    labels = stacked[label].unique(maintain_order=True).to_list()
    plot = blank(
        extent(finite(stacked["_right"]), zero=True),
        FactorRange(factors=labels[::-1]),
        x_label=x_label,
        y_label="",
        height=len(labels) * _BAR + 60,
    )
    plot.ygrid.visible = False
    plot.xaxis[0].ticker = BasicTicker(desired_num_ticks=5)
    data = source(stacked)
    data.data["_colour"] = [colours.get(name, colour) for name in frame[group].cast(pl.String)]
    pieces = plot.hbar(
        label, left="_left", right="_right", height=0.75, source=data, fill_color="_colour", line_color=None
    )
    hover(plot, pieces, shown)
    return plot


def spans(
    frame: pl.DataFrame,
    label: str,
    peak: str,
    shown: Mapping[str, str],
    *,
    num_layers: int,
    group: str,
    colours: Mapping[str, str],
) -> figure:
    """Draw each row as a span from `_from` to `_to` (layers, both included), with a diamond at the layer `peak`.

    A span has the colour of its group in `colours`.
    """
    labels = frame[label].unique(maintain_order=True).to_list()
    whole = pl.DataFrame({"layer": [0, max(num_layers - 1, 0)]})
    plot = blank(
        layer_range(whole),
        FactorRange(factors=labels[::-1]),
        x_label=LAYER_LABEL,
        y_label="",
        height=len(labels) * _BAR + 60,
    )
    whole_numbers(plot.xaxis[0])
    data = source(frame.with_columns(_left=pl.col("_from") - 0.5, _right=pl.col("_to") + 0.5))
    data.data["_colour"] = [colours.get(name, GREY) for name in frame[group].cast(pl.String)]
    pieces = plot.hbar(
        label,
        left="_left",
        right="_right",
        height=0.6,
        source=data,
        fill_color="_colour",
        fill_alpha=0.75,
        line_color=None,
    )
    plot.scatter(
        peak, label, source=data, marker="diamond", size=11, fill_color="white", line_color="black", line_width=1
    )
    hover(plot, pieces, shown)
    return plot
