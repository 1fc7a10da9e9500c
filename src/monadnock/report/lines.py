"""Lines over the layers, one per column of a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl
from bokeh.plotting import figure

from monadnock.report.parts import Key
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import GREY, LAYER_LABEL, blank, whole_numbers


@dataclass(frozen=True)
class Line:
    """A column drawn over the layers.

    Attributes:
        column: the column of y values.
        label: its name in the legend and while hovering.
        colour: its colour.
        dash: solid, dashed, dotted or dotdash.
        dots: whether each layer's value bears a dot.
    """

    column: str
    label: str
    colour: str
    dash: str = "solid"
    dots: bool = True

    @property
    def key(self) -> Key:
        """The line's entry in the legend."""
        return Key(self.label, self.colour, self.dash)


def layer_range(frame: pl.DataFrame) -> tuple[float, float]:
    """Return the x range that shows every layer of a frame in full, half a layer to each side."""
    layers = frame["layer"].drop_nulls().to_list()
    return (min(layers) - 0.5, max(layers) + 0.5) if layers else (-0.5, 0.5)


def layer_lines(
    frame: pl.DataFrame,
    lines: Sequence[Line],
    y_label: str,
    *,
    log: bool = True,
    limits: tuple[float, float] | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> figure:
    """Draw a line per column over the layers (frame: one row per layer), y in the columns' own unit.

    `limits` are the ends of the y axis, by default those of the values; `more` are further columns to hover, by label.
    """
    frame = frame.sort("layer").with_columns(_left=pl.col("layer") - 0.5, _right=pl.col("layer") + 0.5)
    values = np.concatenate([finite(frame[line.column]) for line in lines])
    plot = blank(
        layer_range(frame),
        limits or extent(values, log=log, zero=True),
        x_label=LAYER_LABEL,
        y_label=y_label,
        height=280,
        log_y=log,
    )
    whole_numbers(plot.xaxis[0])
    data = source(frame)
    for line in lines:
        heights = finite(frame[line.column])
        data.data[line.column] = np.where(heights > 0, heights, np.nan) if log else heights
        plot.line("layer", line.column, source=data, color=line.colour, line_dash=line.dash, line_width=2)
        if line.dots:
            plot.scatter("layer", line.column, source=data, color=line.colour, size=4)
    strip = plot.vstrip(
        "_left", "_right", source=data, fill_alpha=0, line_alpha=0, hover_fill_color=GREY, hover_fill_alpha=0.15
    )
    hover(plot, strip, {"layer": "layer"} | {line.label: line.column for line in lines} | dict(more))
    return plot


def ring(plot: figure, frame: pl.DataFrame, y: str, colour: str) -> None:
    """Put a ring around the point (layer, y) of every row of a frame."""
    plot.scatter("layer", y, source=source(frame), size=10, line_color=colour, line_width=2, fill_alpha=0)


def points(plot: figure, frame: pl.DataFrame, y: str, colour: str, shown: dict[str, str]) -> None:
    """Put a half-transparent dot at (layer, y) for every row of a frame, with columns to hover."""
    dots = plot.scatter(
        "layer", y, source=source(frame), size=7, color=colour, fill_alpha=0.3, line_alpha=0.6, level="underlay"
    )
    hover(plot, dots, shown)
