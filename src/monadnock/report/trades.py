"""Trades: perplexity against the bits of a weight, a labelled point for each compressor, the clean model as a line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from bokeh.models import FixedTicker, NoOverlap, Span
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.matrix_maps import log_labels
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import AMBER, BLUE, FONT, GREEN, GREY, PURPLE, VERMILION, blank

_COLOURS = {"absmax": BLUE, "magnitude": AMBER, "rtn": GREEN, "gptq": PURPLE, "spqr": VERMILION}
_SHAPES = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star")
_HEIGHT, _FRAME, _LINE, _POINT = 340, 280, 14, 4  # pixels: of the chart, about of its frame, of a label, of a point
_SHIFTS = (0, 7, -7, 14, -14, 21, -21, 28, -28, 35, 42, 49, 56, 63, 70)
_WIDTH, _NEAR = 0.2, 0.02  # of the axis: a label's width, and a point's
_LONGEST = 22  # characters of a label


@dataclass(frozen=True)
class Look:
    """How the point of a compressor looks: the colour tells its kind, the shape the others of that kind apart."""

    colour: str
    shape: str


def look(method: str, among: Sequence[str]) -> Look:
    """Return how a compressor is drawn `among` the others of a chart."""
    kind = method.partition(" ")[0]
    alike = [other for other in among if other.partition(" ")[0] == kind]
    return Look(_COLOURS.get(kind, GREY), _SHAPES[alike.index(method) % len(_SHAPES)])


def trade(points: pl.DataFrame, clean: float | None) -> figure:
    """Draw a point for each compressor, perplexity on a logarithmic axis.

    Args:
        points: method, bits and perplexity, all finite, perplexities above 0.
        clean: the perplexity of the model as it is, a dashed line.
    """
    bits, values = finite(points["bits"]), finite(points["perplexity"])
    line = clean if clean is not None and np.isfinite(clean) and clean > 0 else None
    ends = extent(np.append(values, [] if line is None else [line]), log=True)
    sides = extent(bits)
    plot = blank(sides, ends, x_label="bits of a weight", y_label="perplexity", height=_HEIGHT, log_y=True)
    for axis in plot.axis:
        axis.major_label_policy = NoOverlap()
    labels = log_labels(ends)
    plot.yaxis[0].ticker = plot.ygrid[0].ticker = FixedTicker(ticks=list(labels))
    plot.yaxis[0].major_label_overrides = {**labels}
    if line is not None:
        plot.add_layout(Span(location=line, dimension="width", line_color=GREY, line_dash="dashed", line_width=2))
    methods = points["method"].to_list()
    looks = [look(method, methods) for method in methods]
    data = source(points.select("bits", "perplexity"))
    data.data["_colour"] = [one.colour for one in looks]
    data.data["_shape"] = [one.shape for one in looks]
    data.data["method_text"] = [text.line(text.printable(method), 90) for method in methods]
    data.data["_label"] = [text.line(text.printable(method.replace(" bits ", " ")), _LONGEST) for method in methods]
    right = bits > sum(sides) / 2  # labels of the right half stand to the left of their points
    across = (bits - sides[0]) / (sides[1] - sides[0])
    up = lambda numbers: _FRAME * np.log(numbers / ends[0]) / np.log(ends[1] / ends[0])  # noqa: E731
    heights = up(values)
    put = label_heights(across, heights, right, None if line is None else float(up(line)))
    data.data["_up"] = heights - put  # pixels go down
    data.data["_across"] = np.where(right, -9.0, 9.0)
    data.data["_align"] = ["right" if there else "left" for there in right]
    plot.text(
        "bits", "perplexity", text="_label", x_offset="_across", y_offset="_up", text_align={"field": "_align"},
        source=data, text_color="_colour", text_font={"value": FONT}, text_font_size="12px", text_baseline="middle",
    )  # fmt: skip
    marks = plot.scatter("bits", "perplexity", source=data, color="_colour", marker={"field": "_shape"}, size=10)
    hover(plot, marks, {"compressor": "method", "bits of a weight": "bits", "perplexity": "perplexity"})
    return plot


def label_heights(across: np.ndarray, heights: np.ndarray, left: np.ndarray, line: float | None) -> np.ndarray:
    """Return at which heights labels lie on no other label, no point and not on the line, near to their own points.

    Where there is no such place nearby, a label stays beside its point.

    Args:
        across: of the points, in shares of the axis.
        heights: of the points above the lower edge, in pixels.
        left: whether a label stands to the left of its point.
        line: height of a line, in pixels.

    Example:
        >>> label_heights(np.array([0.2, 0.2]), np.array([100.0, 106.0]), np.array([False, False]), None).tolist()
        [93.0, 113.0]
    """
    starts, ends = np.where(left, across - _WIDTH, across - _NEAR), np.where(left, across + _NEAR, across + _WIDTH)
    put = heights.copy()
    done: list[int] = []
    for place in np.argsort(heights, kind="stable").tolist():
        for shift in _SHIFTS:
            here = heights[place] + shift
            apart = (ends[done] < starts[place]) | (starts[done] > ends[place]) | (np.abs(put[done] - here) >= _LINE)
            hit = (across >= starts[place]) & (across <= ends[place]) & (np.abs(heights - here) < _LINE / 2 + _POINT)
            hit[place] = False
            on_line = line is not None and abs(here - line) < _LINE / 2 + 1
            if apart.all() and not hit.any() and not on_line and _LINE / 2 <= here <= _FRAME - _LINE / 2:
                put[place] = here
                break
        done.append(place)
    return put
