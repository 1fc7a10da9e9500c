"""Maps of the layers: a cell for every layer and head, expert or module."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from bokeh.models import BasicTicker, ColorBar, FactorRange, LinearColorMapper, LogColorMapper, LogTicker
from bokeh.palettes import viridis
from bokeh.plotting import figure

from monadnock.report.lines import layer_range
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import FONT, GREY, LAYER_LABEL, blank, whole_numbers

_PALETTE = viridis(64)
_CELL, _SHORTEST, _TALLEST = 22, 110, 620  # pixels


def layer_map(
    frame: pl.DataFrame,
    y: str,
    y_label: str,
    value: str,
    shown: Mapping[str, str],
    *,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    factors: Sequence[str] = (),
    colours: Mapping[str, str] | None = None,
    dots: str | None = None,
) -> figure:
    """Draw a cell per layer and y, coloured by the value on a scale, or by its name where `colours` are given.

    Args:
        frame: one row per cell.
        y: column of indices, or of the names in `factors` (drawn from top to bottom).
        y_label: what y is.
        value: column that gives the colour.
        shown: columns to hover, by label.
        log: whether the scale is logarithmic.
        limits: ends of the scale; by default those of the values.
        factors: names on the y axis in order.
        colours: colour of each name in `value`.
        dots: flag column; where true, the cell bears a white dot.
    """
    rows = frame[y].drop_nulls().to_list() or [0]
    span: Any = FactorRange(factors=list(reversed(factors))) if factors else (max(rows) + 0.5, min(rows) - 0.5)
    height = min(max(len(set(rows)) * _CELL, _SHORTEST), _TALLEST) + (50 if colours else 90)
    plot = blank(layer_range(frame), span, x_label=LAYER_LABEL, y_label=y_label, height=height)
    plot.grid.visible = False
    for axis in plot.xaxis if factors else plot.axis:
        whole_numbers(axis)
    data = source(frame)
    if colours is None:
        mapper = colour_mapper(limits or extent(finite(frame[value]), log=log), log=log)
        fill: Any = {"field": value, "transform": mapper}
        plot.add_layout(colour_scale(mapper, log=log), "below")
    else:
        data.data["_colour"] = [colours.get(name, GREY) for name in frame[value]]
        fill = "_colour"
    cells = plot.rect("layer", y, width=0.94, height=0.9, source=data, fill_color=fill, line_color=None)
    if dots:
        marked = source(frame.filter(pl.col(dots).fill_null(False)))
        plot.scatter("layer", y, source=marked, size=5, fill_color="white", line_color="black", line_width=1)
    hover(plot, cells, shown)
    return plot


def colour_mapper(limits: tuple[float, float], *, log: bool) -> LinearColorMapper | LogColorMapper:
    """Return the mapping of values within the limits to colours; grey for what is missing."""
    return (LogColorMapper if log else LinearColorMapper)(
        palette=_PALETTE, low=limits[0], high=limits[1], nan_color=GREY
    )


def colour_scale(mapper: LinearColorMapper | LogColorMapper, *, log: bool) -> ColorBar:
    """Return the bar that tells what the colours mean."""
    return ColorBar(
        color_mapper=mapper,
        ticker=LogTicker(desired_num_ticks=5) if log else BasicTicker(desired_num_ticks=5),
        height=10,
        padding=4,
        background_fill_alpha=0,
        bar_line_color=None,
        major_tick_line_color=None,
        major_label_text_color=GREY,
        major_label_text_font=FONT,
        major_label_text_font_size="12px",
    )
