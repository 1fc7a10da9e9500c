"""Maps of words against words: a cell for each pair, on one scale from -1 to 1 whatever is drawn."""

import math
from typing import Any

import polars as pl
from bokeh.models import ColumnDataSource, FixedTicker, LinearColorMapper, NoOverlap, PlainText
from bokeh.palettes import interp_palette
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.maps import colour_scale
from monadnock.report.source import finite, hover, source
from monadnock.report.theme import BLUE, FONT, GREY, VERMILION, blank

WRITTEN = 14  # words: the values are written into the cells of as many at most
_PALETTE = interp_palette((BLUE, "#f4f4f4", VERMILION), 65)
_CELL, _LONGEST, _TALLEST = 28, 12, 620  # pixels, characters of a word on an axis, pixels


def word_map(pairs: pl.DataFrame, row: str, column: str, value: str) -> figure:
    """Draw a cell for each pair of words, blue at -1, pale at 0 and vermilion at 1.

    Args:
        pairs: one row per cell.
        row: column of the words from top to bottom.
        column: column of the words from left to right.
        value: column that gives the colour.
    """
    words = list(dict.fromkeys([*pairs[row], *pairs[column]]))
    places = {word: place for place, word in enumerate(words)}
    count = len(words)
    height = min(count * _CELL, _TALLEST) + 150
    plot = blank((-0.5, count - 0.5), (count - 0.5, -0.5), x_label="", y_label="", height=height)
    plot.grid.visible = False
    data = source(pairs.select(row, column, value))
    data.data["_x"], data.data["_y"] = ([places[word] for word in pairs[side]] for side in (column, row))
    mapper = LinearColorMapper(palette=_PALETTE, low=-1, high=1, nan_color=GREY)
    fill = {"field": value, "transform": mapper}
    cells = plot.rect("_x", "_y", width=0.95, height=0.93, source=data, fill_color=fill, line_color=None)
    for axis in plot.axis:
        axis.ticker = FixedTicker(ticks=list(range(count)))
        axis.major_label_overrides = {place: PlainText(text=_short(word)) for word, place in places.items()}
        axis.major_label_policy = NoOverlap()
        axis.major_tick_line_color = axis.axis_line_color = None
    plot.xaxis[0].major_label_orientation = math.pi / 2  # at a slant, fewer have room
    if count <= WRITTEN:
        numbers = finite(pairs[value])
        written: dict[str, Any] = {
            "x": data.data["_x"],
            "y": data.data["_y"],
            "value": [_written(number) for number in numbers.tolist()],
        }
        plot.text(
            "x", "y", text="value", source=ColumnDataSource(written), text_color="#000000", text_font={"value": FONT},
            text_font_size="11px", text_align="center", text_baseline="middle",
        )  # fmt: skip
    plot.add_layout(colour_scale(mapper, log=False), "below")
    hover(plot, cells, {"word": row, "with": column, value: value})
    return plot


def _short(word: str) -> str:
    shown = text.token(word)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _written(value: float) -> str:
    """Return a number with two digits behind the point and no zero in front, so that it fits into a cell on a phone."""
    if math.isnan(value):
        return ""
    sign, shown = "-" * (value < 0), f"{abs(value):.2f}"
    return {"0.00": "0", "1.00": f"{sign}1"}.get(shown, f"{sign}{shown.removeprefix('0')}")
