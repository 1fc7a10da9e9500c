"""Logarithmic axes lying down, and axes for numbers of both signs that span many powers of ten."""

import math

import numpy as np
from bokeh.models import FixedTicker, LogScale, LogTicker, LogTickFormatter, NoOverlap
from bokeh.plotting import figure

_TICKS = 9  # at most, on an axis of both signs


def log_x(plot: figure) -> None:
    """Make the x axis logarithmic; its ends must be above zero."""
    plot.x_scale = LogScale()
    plot.xaxis[0].ticker = plot.xgrid[0].ticker = LogTicker(desired_num_ticks=6)
    plot.xaxis[0].formatter = LogTickFormatter(min_exponent=4)
    plot.xaxis[0].major_label_policy = NoOverlap()


def signed_log(values: np.ndarray) -> np.ndarray:
    """Return where values stand on an axis that is linear from -1 to 1 and logarithmic beyond, one unit a power of ten.

    Example:
        >>> signed_log(np.array([-1000.0, 0.5, 10.0])).tolist()
        [-4.0, 0.5, 2.0]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.sign(values) * (1 + np.log10(np.abs(values)))
    return np.where(np.abs(values) <= 1, values, beyond)


def signed_ticks(plot: figure, low: float, high: float) -> None:
    """Label a y axis on which values stand as by `signed_log`, from `low` to `high` on that axis, with the values."""
    first, last = math.ceil(low), math.floor(high)
    step = max(1, math.ceil((last - first) / (_TICKS - 1)))
    places = [place for place in range(first, last + 1) if place % step == 0]
    plot.yaxis[0].ticker = plot.ygrid[0].ticker = FixedTicker(ticks=places)
    plot.yaxis[0].major_label_overrides = {
        place: "0" if place == 0 else f"{'-' if place < 0 else ''}{_power(abs(place) - 1)}" for place in places
    }


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent < 6 else f"1e{exponent}"
