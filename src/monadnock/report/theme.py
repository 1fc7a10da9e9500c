"""How charts look: colours that hold on light and dark paper and for colour-blind readers, and the bare figure."""

from typing import Any

from bokeh.models import BasicTicker, Range1d
from bokeh.plotting import figure

# Okabe-Ito, darkened where needed so that every colour stands out by 3:1 from white and from near-black.
BLUE, VERMILION, GREEN, AMBER, PURPLE, GREY = "#2b7fc0", "#d55e00", "#009e73", "#b8860b", "#b0579b", "#808790"
SERIES = (VERMILION, BLUE, GREEN, PURPLE, AMBER, GREY)

TOKEN_CLASSES = {"start": VERMILION, "delimiter": BLUE, "weak": GREEN, "other": GREY}
HEAD_KINDS = {"sink": VERMILION, "previous": BLUE, "self": GREEN, "local": PURPLE, "broad": GREY}

LAYER_LABEL = "layer (0-based)"
FONT = "system-ui, sans-serif"


def blank(
    x: Any, y: Any, *, x_label: str, y_label: str, height: int, log_x: bool = False, log_y: bool = False
) -> figure:
    """Return an empty figure, `height` pixels tall and as wide as its box; the page's script sets the text colours.

    `x` and `y` are the ends of an axis, or a bokeh range.
    """
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        x_range=Range1d(start=x[0], end=x[1]) if isinstance(x, tuple) else x,
        y_range=Range1d(start=y[0], end=y[1]) if isinstance(y, tuple) else y,
        x_axis_type="log" if log_x else "auto",
        y_axis_type="log" if log_y else "auto",
        x_axis_label=x_label,
        y_axis_label=y_label,
        tools="",
        toolbar_location=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border_right=12,
    )
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.minor_tick_line_color = None
        axis.axis_label_text_color = axis.major_label_text_color = GREY
        axis.axis_line_color = axis.major_tick_line_color = GREY
    for grid in plot.grid:
        grid.grid_line_color = GREY
        grid.grid_line_alpha = 0.25
    return plot


def whole_numbers(axis: Any) -> None:
    """Put the ticks of an axis at whole numbers only."""
    axis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0, desired_num_ticks=8)
