"""Maps with tokens beside them: a row or a strip for each input, below each other on one scale."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    FixedTicker,
    LinearColorMapper,
    LogColorMapper,
    NoOverlap,
    PlainText,
)
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.maps import colour_mapper, colour_scale
from monadnock.report.source import finite, hover, source
from monadnock.report.theme import FONT, GREY, blank, whole_numbers

LONG = 64  # rows are thinner in inputs of more tokens
_ROW, _THIN, _WORD, _TITLE = 20, 6, 66, 20  # pixels
_LABEL, _IN_CELL = 14, 9  # characters of a token


@dataclass(frozen=True)
class Scale:
    """Colours of a value: the ends of the scale, and whether it is logarithmic."""

    limits: tuple[float, float]
    log: bool = False

    def mapper(self) -> LinearColorMapper | LogColorMapper:
        """Return what gives a value its colour."""
        return colour_mapper(self.limits, log=self.log)

    def bar(self, mapper: LinearColorMapper | LogColorMapper) -> ColorBar:
        """Return the scale as it is drawn below a map; a short logarithmic one has ticks at 2 and 5 times 10^n too."""
        bar = colour_scale(mapper, log=self.log)
        low, high = self.limits
        if self.log and high < 1000 * low:
            powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))]
            ticks = [each * power for power in powers for each in (1, 2, 5) if low <= each * power <= high]
            bar.ticker = FixedTicker(ticks=ticks)
            bar.major_label_overrides = {tick: PlainText(text=text.number(tick)) for tick in ticks}
            bar.major_label_policy = NoOverlap()
        return bar

    def ink(self, values: np.ndarray) -> list[str]:
        """Return black or white, whichever is easier to read on a value's colour."""
        low, high = (math.log(end) if self.log else end for end in self.limits)
        with np.errstate(divide="ignore", invalid="ignore"):
            place = (np.log(values) if self.log else values) - low
        return ["#ffffff" if dark else "#000000" for dark in place < 0.6 * (high - low)]  # black on grey


def token_rows(
    panels: Sequence[tuple[str, pl.DataFrame]],
    x: str,
    value: str,
    shown: Mapping[str, str],
    scale: Scale,
    *,
    x_label: str,
    dots: str,
) -> figure:
    """Draw a row of cells for each token, one input below the other, all on one scale and one x axis.

    Args:
        panels: inputs by name; a row per cell with the columns position and token of the row, x, the value, and dots.
        x: column of the cells' places in a row, whole numbers.
        value: column that gives the colour.
        shown: columns to hover, by label.
        scale: the colours.
        x_label: what x is.
        dots: flag column; where true, the cell bears a white dot.
    """
    frames, titles, labels, top = [], {}, {}, 0
    for name, frame in panels:
        titles[float(top)] = name
        rows = dict(frame.select("position", "token").unique("position", maintain_order=True).rows())
        labels |= {top + 1 + position: _label(position, token) for position, token in sorted(rows.items())}
        frames.append(frame.with_columns(_y=top + 1 + pl.col("position")))
        top += 2 + max(rows)
    cells = pl.concat(frames)
    left, right = float(finite(cells[x]).min()) - 0.5, float(finite(cells[x]).max()) + 0.5
    size = _ROW if len(labels) <= LONG * len(titles) else _THIN
    plot = blank((left, right), (top - 0.5, -0.8), x_label=x_label, y_label="", height=top * size + 100)
    _draw(plot, cells, x, value, shown, scale, dots)
    _title(plot, titles, left)
    axis = plot.yaxis[0]
    axis.ticker = FixedTicker(ticks=list(labels))
    axis.major_label_overrides = {y: PlainText(text=label) for y, label in labels.items()}
    axis.major_label_policy = NoOverlap()
    axis.major_tick_line_color = axis.axis_line_color = None
    return plot


def token_strips(
    inputs: Sequence[tuple[str, pl.DataFrame]],
    value: str,
    shown: Mapping[str, str],
    scale: Scale,
    *,
    dots: str,
    words: bool,
) -> figure:
    """Draw each input as one strip of cells, a cell for each token; `words` writes the tokens into them.

    The arguments are those of `token_rows`.
    """
    cells = pl.concat([frame.with_columns(_y=pl.lit(float(y))) for y, (_, frame) in enumerate(inputs)])
    size, tall = (_WORD + _TITLE, _WORD / (_WORD + _TITLE)) if words else (2 * _TITLE, 0.45)  # of a strip and its name
    longest = float(finite(cells["position"]).max())
    margin = max(0.5, longest / 100)  # room for a dot at the first token
    ends = (len(inputs) - 1 + tall / 2 + 0.04, tall / 2 - 1)
    height = len(inputs) * size + 90
    plot = blank((-margin, longest + margin), ends, x_label="position (0-based)", y_label="", height=height)
    low = tall / 2 - 0.09 if words else 0.0  # a dot stands below the word
    _draw(plot, cells, "position", value, shown, scale, dots, tall=tall, low=low)
    if words:
        written: dict[str, Any] = {
            "x": finite(cells["position"]),
            "y": finite(cells["_y"]),
            "word": [_cut(text.token(token or ""), _IN_CELL) for token in cells["token"]],
            "ink": scale.ink(finite(cells[value])),
        }
        plot.text(
            "x", "y", text="word", text_color="ink", source=ColumnDataSource(written), angle=math.pi / 2,
            text_align="center", text_baseline="middle", text_font={"value": FONT}, text_font_size="11px",
        )  # fmt: skip
    _title(plot, {y - tall / 2 - 0.5 * (1 - tall): name for y, (name, _) in enumerate(inputs)}, -0.5)
    plot.yaxis.visible = False
    return plot


def _draw(
    plot: figure,
    cells: pl.DataFrame,
    x: str,
    value: str,
    shown: Mapping[str, str],
    scale: Scale,
    dots: str,
    *,
    tall: float = 0.9,
    low: float = 0.0,
) -> None:
    plot.grid.visible = False
    whole_numbers(plot.xaxis[0])
    mapper = scale.mapper()
    wide = 0.94 if finite(cells[x]).max() <= LONG else 1
    names = [x, "_y", value, *shown.values()]
    kept = source(cells.select(list(dict.fromkeys(names))))
    for name in cells.select(cs.string() & cs.by_name(*names)).columns:
        del kept.data[name]  # the text made visible is enough
    fill = {"field": value, "transform": mapper}
    rects = plot.rect(x, "_y", width=wide, height=tall, source=kept, fill_color=fill, line_color=None)
    marked = cells.filter(pl.col(dots).fill_null(False)).select(x, pl.col("_y") + low)
    plot.scatter(x, "_y", source=source(marked), size=5, fill_color="white", line_color="black", line_width=1)
    plot.add_layout(scale.bar(mapper), "below")
    hover(plot, rects, shown)


def _title(plot: figure, titles: Mapping[float, str], left: float) -> None:
    """Write the names of inputs above their cells."""
    names: dict[str, Any] = {
        "x": np.full(len(titles), left),
        "y": list(titles),
        "name": [*map(text.printable, titles.values())],
    }
    plot.text(
        "x", "y", text="name", source=ColumnDataSource(names), text_color=GREY, text_font={"value": FONT},
        text_font_size="12px", text_font_style="bold", text_baseline="middle",
    )  # fmt: skip


def _label(position: int, token: str | None) -> str:
    return f"{position} {_cut(text.token(token or ''), _LABEL)}"


def _cut(shown: str, longest: int) -> str:
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
