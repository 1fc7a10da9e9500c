"""Curves against k, one for each attack mode, with the clean model as a level line."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from bokeh.models import FactorRange, NoOverlap, Span
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.attacks import Mode
from monadnock.report.source import hover, source
from monadnock.report.theme import GREY, blank

_LONGEST = 90  # characters of what was changed, while hovering


def k_curves(
    table: pl.DataFrame,
    modes: Mapping[str, Mode],
    seeds: pl.DataFrame,
    *,
    y_label: str,
    log: bool,
    clean: float | None,
    limits: tuple[float, float],
    num_k: list[int],
) -> figure:
    """Draw the value of every mode against k; the values of k stand at equal distances.

    Args:
        table: one row per mode and k: mode, k, value, baseline, error, seeds, targets.
        modes: how the modes look, in the order in which they are drawn.
        seeds: mode, k, seed and value of single seeds, drawn as dots.
        y_label: the metric with its unit.
        log: whether the y axis is logarithmic.
        clean: the clean model's value, a dashed line.
        limits: ends of the y axis.
        num_k: all values of k on the x axis.
    """
    plot = blank(
        FactorRange(factors=[str(k) for k in num_k]), limits, x_label="k", y_label=y_label, height=300, log_y=log
    )
    for axis in plot.axis:
        axis.major_label_policy = NoOverlap()
    if clean is not None and np.isfinite(clean):
        plot.add_layout(Span(location=clean, dimension="width", line_color=GREY, line_dash="dashed", line_width=2))
    for name, look in modes.items():
        dots = plot.scatter(
            "k_text", "value", source=source(seeds.filter(pl.col("mode") == name)), size=5, color=look.colour,
            fill_alpha=0.3, line_alpha=0.6,
        )  # fmt: skip
        hover(plot, dots, {"attack": "mode", "k": "k", "seed": "seed", y_label: "value"})
    for name, look in modes.items():
        rows = table.filter(pl.col("mode") == name).sort("k")
        data = source(rows)
        data.data["targets_text"] = [_cut(text.printable(what)) for what in rows["targets"]]
        plot.line("k_text", "value", source=data, color=look.colour, line_dash=look.dash, line_width=2)
        marks = plot.scatter("k_text", "value", source=data, color=look.colour, marker=look.shape, size=8)
        shown = {"attack": "mode", "k": "k", y_label: "value", "clean": "baseline"}
        if rows["error"].drop_nulls().len():
            shown["standard error"] = "error"
        if (rows["seeds"] > 1).any():
            shown["seeds averaged"] = "seeds"
        else:
            shown["changed" if name != "retain" else "kept"] = "targets"
        hover(plot, marks, shown)
        _mark_endless(plot, rows, look, limits[1])
    return plot


def _mark_endless(plot: figure, rows: pl.DataFrame, look: Mode, top: float) -> None:
    """Write ∞ or NaN at the upper edge for values that have no place on the axis."""
    endless = rows.filter(~pl.col("value").is_finite())
    if endless.height:
        data = source(endless)
        data.data["top"] = [top] * endless.height
        plot.text(
            "k_text", "top", text="value_text", source=data, text_color=look.colour, text_font_size="16px",
            text_font_style="bold", text_align="center", text_baseline="top",
        )  # fmt: skip


def _cut(what: str) -> str:
    return what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…"
