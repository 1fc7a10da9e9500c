"""Ladders: rungs from top to bottom, each with its values as marks on one logarithmic axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from bokeh.models import FactorRange
from bokeh.plotting import figure

from monadnock.report.logs import log_x
from monadnock.report.parts import Key
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import GREY, blank

_RUNG = 20  # pixels


@dataclass(frozen=True)
class Mark:
    """A column drawn on every rung.

    Attributes:
        column: the column of values, of which those above zero have a place.
        label: its name in the legend and while hovering.
        colour: its colour.
    """

    column: str
    label: str
    colour: str

    @property
    def key(self) -> Key:
        """The mark's entry in the legend."""
        return Key(self.label, self.colour, "dot")


def ladder(
    frame: pl.DataFrame,
    rung: str,
    marks: Sequence[Mark],
    shown: Mapping[str, str],
    *,
    x_label: str,
    group: str,
) -> figure:
    """Draw a rung per row in the frame's order with a mark for each column, joined by a line from least to largest.

    Args:
        frame: one row per rung.
        rung: column that names the rungs, each name once.
        marks: the columns, drawn in this order; the first ones lie below.
        shown: columns to hover, by label, besides those of the marks.
        x_label: what is measured, with its unit.
        group: column; a line parts rungs where it changes.
    """
    names = frame[rung].to_list()
    values = np.stack([finite(frame[mark.column]) for mark in marks])
    values = np.where(values > 0, values, np.nan)
    ends = extent(values, log=True)
    plot = blank(ends, FactorRange(factors=names[::-1]), x_label=x_label, y_label="", height=len(names) * _RUNG + 60)
    log_x(plot)
    plot.ygrid.visible = False
    data = source(frame)
    for mark, row in zip(marks, values, strict=True):
        data.data[mark.column] = row
    there = np.isfinite(values)
    least, most = np.where(there, values, np.inf).min(0), np.where(there, values, -np.inf).max(0)
    data.data["_least"] = np.where(there.any(0), least, np.nan)
    data.data["_most"] = np.where(there.any(0), most, np.nan)
    plot.segment("_least", rung, "_most", rung, source=data, color=GREY, line_alpha=0.5)
    for mark in marks:
        plot.scatter(mark.column, rung, source=data, size=8, color=mark.colour)
    groups = frame[group].to_list()
    edges = [len(names) - place for place in range(1, len(names)) if groups[place] != groups[place - 1]]
    if edges:
        plot.segment(ends[0], edges, ends[1], edges, color=GREY, line_alpha=0.6, line_dash="dotted")
    data.data["_left"], data.data["_right"] = [ends[0]] * len(names), [ends[1]] * len(names)
    strip = plot.hbar(
        rung, left="_left", right="_right", height=1, source=data, fill_alpha=0, line_alpha=0, hover_fill_color=GREY,
        hover_fill_alpha=0.15,
    )  # fmt: skip
    hover(plot, strip, dict(shown) | {mark.label: mark.column for mark in marks})
    return plot
