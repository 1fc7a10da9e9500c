"""From polars frames to what bokeh draws: finite numbers, readable texts, axis ends, hover tools, spoken peaks."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.plotting import figure

from monadnock.report import text

_LEAST = 1e-300  # an axis does not go below it, nor above its inverse


def source(frame: pl.DataFrame) -> ColumnDataSource:
    """Return a frame as chart data: numbers as floats, NaN for what is missing or not finite.

    Every column also comes as `<name>_text`, for hovering; strings are made visible (see `text.token`).
    """
    data: dict[str, Any] = {}
    for column in frame.get_columns():
        if column.dtype.is_numeric() or column.dtype == pl.Boolean:
            data[column.name] = finite(column)
        else:
            data[column.name] = column.to_list()
        data[f"{column.name}_text"] = [text.cell(value) for value in column]
    return ColumnDataSource(data)


def finite(column: pl.Series) -> np.ndarray:
    """Return numbers as float64 with NaN wherever a value is missing or infinite."""
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def extent(values: np.ndarray, *, log: bool = False, zero: bool = False) -> tuple[float, float]:
    """Return the ends of an axis that shows all finite values with a margin; `zero` makes a linear one start there."""
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not values.size:
        return (1.0, 10.0) if log else (0.0, 1.0)
    values = values.clip(_LEAST if log else -1 / _LEAST, 1 / _LEAST)
    bottom, top = float(values.min()), float(values.max())
    if log:
        return bottom / 1.6, top * 1.6
    if zero and bottom >= 0:
        return 0.0, top * 1.06 or 1.0
    margin = 0.06 * (top - bottom) or 0.5 * abs(top) or 1.0
    return bottom - margin, top + margin


def hover(plot: figure, glyph: Any, shown: Mapping[str, str]) -> None:
    """Show columns under their labels while the pointer is on a glyph; bokeh escapes the values (no `{safe}` here)."""
    rows = "".join(
        f'<div style="display: flex; justify-content: space-between; gap: 1em"><span>{_literal(label)}</span>'
        f"<b>@{{{column}_text}}</b></div>"
        for label, column in shown.items()
    )
    plot.add_tools(HoverTool(renderers=[glyph], tooltips=rows))


def _literal(label: str) -> str:
    """Escape a label for HTML, and the signs that would make a part of it a column's name for bokeh."""
    return html.escape(label).replace("@", "&commat;").replace("$", "&dollar;")


def peak(frame: pl.DataFrame, value: str, unit: str, *by: str) -> str:
    """Return a sentence naming the largest value of a column and where it is, for those who cannot see the chart."""
    found = frame.filter(pl.col(value).cast(pl.Float64).is_finite()).sort(value, descending=True).head(1).to_dicts()
    if not found:
        return "It has no finite value."
    where = ", ".join(f"{name.replace('_', ' ')} {text.cell(found[0][name])}" for name in by)
    return f"The largest {unit} is {text.number(found[0][value])}, at {where}."
