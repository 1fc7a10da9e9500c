"""Weight matrices on the page: maps with a cell for every layer and module, and the settings of a measurement."""

import math
from collections.abc import Mapping, Sequence

import polars as pl
from bokeh.models import ColorBar, FixedTicker
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.maps import layer_map
from monadnock.report.theme import LAYER_LABEL

KEY = ["layer", "module", "expert"]
SETTING = ["bits", "group", "damping", "data"]
_MODULES = ("q", "k", "v", "o", "gate", "up", "down")
_MOST_TICKS = 15
_STEPS = ((1, 2, 5), (1, 3), (1,))  # of a logarithmic axis, for ever more powers of ten


def known(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Return the rows that say which matrix, and what else is named, with modules as they can be shown."""
    frame = frame.drop_nulls(["layer", "module", *names])
    return frame.with_columns(pl.col("module").map_elements(text.token, pl.String))


def largest(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """Return rows with a value that is finite, the largest first."""
    return frame.filter(pl.col(value).is_finite()).sort(value, descending=True, maintain_order=True)


def worst_experts(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """Return one row per layer and module: that of the expert with the largest finite value, or without any, a row."""
    frame = frame.with_columns(_value=pl.when(pl.col(value).is_finite()).then(value))
    frame = frame.sort("_value", descending=True, nulls_last=True, maintain_order=True).drop("_value")
    return frame.unique(["layer", "module"], keep="first", maintain_order=True)


def ordered(names: pl.Series) -> list[str]:
    """Return the modules that occur, in the order of a layer, and then others."""
    present = names.unique(maintain_order=True).to_list()
    return [name for name in _MODULES if name in present] + [name for name in present if name not in _MODULES]


def matrix_map(
    frame: pl.DataFrame,
    value: str,
    shown: Mapping[str, str],
    *,
    log: bool,
    limits: tuple[float, float],
    modules: Sequence[str],
) -> figure:
    """Draw a cell per layer and module, the worst expert's where there are several; grey is what has no number.

    Layers that were not measured take no room.

    Args:
        frame: one row per matrix, as from `known`.
        value: column that gives the colour.
        shown: columns to hover, by label, besides what tells the matrix.
        log: whether the scale is logarithmic.
        limits: ends of the scale.
        modules: names on the y axis, from top to bottom.
    """
    cells = worst_experts(frame, value).with_columns(_layer="layer")
    about = {"layer": "_layer", "module": "module"}
    if frame["expert"].null_count() < frame.height:
        about["expert"] = "expert"
    layers = cells["layer"].unique().sort().to_list()
    gaps = len(layers) > 1 and layers[-1] - layers[0] >= len(layers)
    if gaps:
        places = {layer: place for place, layer in enumerate(layers)}
        cells = cells.with_columns(pl.col("layer").replace_strict(places, return_dtype=pl.Int64))
    hovered = about | dict(shown)
    plot = layer_map(cells, "module", "module", value, hovered, log=log, limits=limits, factors=modules)
    if gaps:
        ticks = list(range(0, len(layers), -(-len(layers) // _MOST_TICKS)))
        axis = plot.xaxis[0]
        axis.ticker = FixedTicker(ticks=ticks)
        axis.major_label_overrides = {place: str(layers[place]) for place in ticks}
        axis.axis_label = f"{LAYER_LABEL}, those measured"
    for bar in plot.below:
        if log and isinstance(bar, ColorBar):
            labels = log_labels(limits)
            bar.ticker = FixedTicker(ticks=list(labels))
            bar.major_label_overrides = {**labels}
    return plot


def by_setting(table: pl.DataFrame, *also: str) -> list[dict]:
    """Return the settings of a table, that of the most rows first."""
    parts = table.partition_by(*SETTING, *also, maintain_order=True)
    parts.sort(key=lambda part: -part.height)
    return [part.select(*SETTING, *also).row(0, named=True) for part in parts]


def with_setting(table: pl.DataFrame, setting: dict) -> pl.DataFrame:
    """Return the rows of one setting."""
    return table.filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in setting.items()))


def setting_words(setting: dict, names: list[str]) -> list[str]:
    """Return some columns of a setting in words."""
    group = "one grid for each row" if setting["group"] is None else f"groups of {setting['group']}"
    words = {"bits": f"{text.number(setting['bits'])} bits", "group": group, "data": setting["data"] or "unnamed data"}
    words["damping"] = "unknown damping" if setting["damping"] is None else f"damping {setting['damping']:g}"
    return [words[name] for name in names]


def log_labels(limits: tuple[float, float]) -> dict[float, str]:
    """Return where a logarithmic axis is marked, with what is written there: some four marks, if a step allows it.

    Example:
        >>> log_labels((8.0, 850.0))
        {10.0: '10', 30.0: '30', 100.0: '100', 300.0: '300'}
    """
    low, high = (math.log10(limit) for limit in limits)
    steps = _STEPS[min(int((high - low) / 1.6), 2)]
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, len(powers) // 6)
    marks = [float(f"{step}e{power}") for power in powers if power % every == 0 for step in steps]
    return {mark: f"{mark:g}" for mark in marks if limits[0] <= mark <= limits[1]}


def percent(share: float | None) -> str:
    """Return a share of 1 in per cent, with three digits; nothing for none.

    Example:
        >>> percent(0.8814), percent(0.00009), percent(1.0), percent(None)
        ('88.1%', '0.009%', '100%', '')
    """
    return "" if share is None else f"{100 * share:.3g}%"
