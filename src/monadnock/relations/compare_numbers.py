"""The head numbers of a run: those by which two models of any shape can be told apart at a glance."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from monadnock.relations.compare_join import OWN_LAYER, Side, difference, ratio
from monadnock.relations.compare_tables import BY_NAME
from monadnock.relations.compare_words import named, number, signed, times

NEARLY = "≈"


@dataclass(frozen=True)
class Found:
    """A number of one run, and where in the model it was met."""

    value: float
    where: str = ""


@dataclass(frozen=True)
class Number:
    """What a head number is.

    Attributes:
        what: what it is called.
        doc: its definition, with the table and column that it is read from.
        needs: the tables that it is read from.
        find: reads it; None where the tables do not tell.
        how: how it is written: count, index, size (any real number) or share (of 1, in per cent).
    """

    what: str
    doc: str
    needs: tuple[str, ...]
    find: Callable[[Side], Found | None]
    how: str = "size"


def depth(layer: int, num_layers: int) -> float:
    """Return the relative depth of a layer: 0 for the first, 1 for the last.

    Example:
        >>> depth(11, 30)
        0.3793103448275862
    """
    return layer / (num_layers - 1) if num_layers > 1 else 0.0


def numbers(sides: Sequence[Side]) -> pl.DataFrame:
    """Return the head numbers that any of the runs has.

    Returns:
        Column `what`; one column per run with its name, null where it has none; for every other run `B - A` and
        `B / A` (B and A being the names of this run and the first).
    """
    first, *others = [side.name for side in sides]
    rows = [
        {"what": about.what} | {name: None if one is None else one.value for name, one in row.items()}
        for about, row in found(sides)
    ]
    frame = pl.DataFrame(rows, {"what": pl.String} | dict.fromkeys([first, *others], pl.Float64))
    for name in others:
        frame = frame.with_columns(
            (pl.col(name) - pl.col(first)).alias(difference(name, first)),
            (pl.col(name) / pl.col(first)).alias(ratio(name, first)),
        )
    return frame


def lines(sides: Sequence[Side]) -> list[tuple[Number, list[tuple[str, str, str]]]]:
    """Return the head numbers as texts: for every run the value, where it was met, and the change from the first."""
    told = []
    for about, row in found(sides):
        first = row[sides[0].name]
        cells = [
            (_text(one, about.how), one.where if one else "", _change(one, first, about.how)) for one in row.values()
        ]
        told.append((about, cells))
    return told


def found(sides: Sequence[Side]) -> list[tuple[Number, dict[str, Found | None]]]:
    """Return the head numbers that any of the runs has, with what each run has by name."""
    table = [(about, {side.name: _find(about, side) for side in sides}) for about in NUMBERS]
    return [(about, row) for about, row in table if any(row.values())]


def _text(one: Found | None, how: str) -> str:
    if one is None:
        return ""
    if how == "share":
        return f"{one.value:.1%}"
    return number(one.value if how == "size" else int(one.value))


def _change(one: Found | None, first: Found | None, how: str) -> str:
    """Return how a number differs from that of the first run: `=` if not at all, `≈` if less than one can read."""
    if one is None or first is None or one is first:
        return ""
    if how == "index":
        return "=" if one == first else "moved"
    if one.value == first.value:
        return "=" if how != "count" or one.where == first.where else "others"
    difference = one.value - first.value
    if how == "size" and first.value > 0 and one.value > 0:
        return NEARLY if abs(difference / first.value) < 0.0005 else times(one.value / first.value)
    if how == "share":
        return NEARLY if abs(difference) < 0.0005 else signed(round(100 * difference, 1))
    return signed(difference)


def _find(about: Number, side: Side) -> Found | None:
    if any(name not in side.tables for name in about.needs):
        return None
    one = about.find(side)
    return None if one is None or one.value is None or math.isnan(one.value) else one


def _rows(side: Side, table: str, *where: pl.Expr) -> pl.DataFrame:
    return side.tables[table].filter(*where) if where else side.tables[table]


def _largest(frame: pl.DataFrame, column: str, *keys: str) -> Found | None:
    """Return the largest finite value of a column, and its keys in words."""
    top = frame.filter(pl.col(column).is_finite()).sort(column, descending=True).head(1).to_dicts()
    if not top:
        return None
    return Found(float(top[0][column]), ", ".join(named(key, top[0][key]) for key in keys if top[0][key] is not None))


def _listed(values: Sequence[object], most: int = 4) -> str:
    words = [str(value) for value in values]
    return " ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _massive_layer(side: Side) -> Found | None:
    rows = _rows(side, "massive_weights", pl.col("massive"))  # the layer that comes nearest is none
    if not rows.height or rows["layer"][0] is None:
        return None
    layer, of = rows["layer"][0], side.manifest.model.num_layers
    return Found(layer, f"depth {depth(layer, of):.2f}")


def _massive_rows(side: Side) -> Found:
    rows = _rows(side, "massive_weights", pl.col("massive"))
    return Found(rows.height, _listed(rows["feature"].to_list()))


def _features(side: Side) -> Found:
    rows = _rows(side, "lifecycles", pl.col("massive")).sort(pl.col("peak_value").abs(), descending=True)
    features = rows["feature"].unique(maintain_order=True).to_list()
    return Found(len(features), _listed(features))


def _super(side: Side) -> Found | None:
    place = pl.format("[{}, {}]", "row", "column")
    rows = side.tables["super_weights"].with_columns(pl.col("contribution").abs(), place=place)
    return _largest(rows, "contribution", "place")


def _peak(stream: str, column: str = "top1") -> Callable[[Side], Found | None]:
    def find(side: Side) -> Found | None:
        frame = _rows(side, "layers", pl.col("stream") == stream)
        return _largest(frame.with_columns(spread=pl.col("top1") / pl.col("median")), column, "layer")

    return find


def _share(table: str, column: str, *where: pl.Expr) -> Callable[[Side], Found | None]:
    def find(side: Side) -> Found | None:
        frame = _rows(side, table, *where).drop_nulls(column)
        if not frame.height:
            return None
        flagged = int(frame[column].sum())
        return Found(flagged / frame.height, f"{flagged} of {frame.height}")

    return find


def _mean(table: str, column: str, statistic: str = "mean") -> Callable[[Side], Found | None]:
    def find(side: Side) -> Found | None:
        values = side.tables[table][column].cast(pl.Float64)
        values = values.filter(values.is_finite())
        return Found(float(getattr(values, statistic)())) if values.len() else None

    return find


def _sinks_at_start(side: Side) -> Found | None:
    heads = side.tables["heads"]
    first = heads.filter(pl.col("sink"), pl.col("sink_position") == 0)
    return Found(first.height / heads.height, f"{first.height} of {heads.height}") if heads.height else None


def _first_sinks(side: Side) -> Found | None:
    layers = _rows(side, "heads", pl.col("sink"), pl.col("sink_position") == 0)["layer"].drop_nulls()
    if not layers.len():
        return None
    first = layers.sort()[0]
    return Found(first, f"depth {depth(first, side.manifest.model.num_layers):.2f}")


def _matrices(axis: str, column: str, statistic: str) -> Callable[[Side], Found | None]:
    def find(side: Side) -> Found | None:
        rows = _rows(side, "weights", pl.col("axis") == axis, pl.col(column).is_finite())
        if statistic == "max":
            return _largest(rows, column, "module", "layer", "expert")
        middle = rows[column].median()
        return Found(middle) if isinstance(middle, float) else None

    return find


def _perplexity(side: Side) -> Found | None:
    values = _attacks(side)["baseline"].drop_nulls()
    return Found(values[0]) if values.len() else None


def _zeroed(side: Side) -> Found | None:
    """Return what zeroing does, with as many rows as are massive if that was tried, or else with the most."""
    rows = _attacks(side).filter(pl.col("mode") == "zero", pl.col("value").is_not_null())
    massive = side.tables["massive_weights"]["massive"].sum() if "massive_weights" in side.tables else 0
    order = [pl.col("where") == OWN_LAYER, pl.col("k") == massive, pl.col("k")]
    done = rows.sort(order, descending=True).head(1).to_dicts()
    if not done:
        return None
    elsewhere = "" if done[0]["where"] == OWN_LAYER else f", {done[0]['where']}"
    return Found(done[0]["value"], f"k = {done[0]['k']}{elsewhere}")


def _attacks(side: Side) -> pl.DataFrame:
    return side.rows(BY_NAME["effects"]).filter(metric="perplexity")


NUMBERS: tuple[Number, ...] = (
    Number(
        "massive layer",
        "layer with the largest |x_down| of the start token up to the peak of |h| (oh2024); its relative depth: 0 for "
        "the first layer, 1 for the last",
        ("massive_weights",),
        _massive_layer,
        "index",
    ),
    Number("massive rows", "rows of W_up and W_gate there (sun2024)", ("massive_weights",), _massive_rows, "count"),
    Number(
        "largest |x_down|, start token",
        "of the start token fed alone, in the massive layer: massive_weights.magnitude",
        ("massive_weights",),
        lambda s: _largest(s.tables["massive_weights"], "magnitude", "layer"),
    ),
    Number(
        "massive features",
        "residual features of the start token that are massive in some layer: lifecycles.massive (sun2024)",
        ("lifecycles",),
        _features,
        "count",
    ),
    Number("largest |h|", "largest over layers of layers.top1 of h", ("layers",), _peak("residual")),
    Number(
        "largest |h| / median",
        "largest over layers of layers.top1 / layers.median of h",
        ("layers",),
        _peak("residual", "spread"),
    ),
    Number("largest |x_down|", "largest over layers of layers.top1 of x_down", ("layers",), _peak("down_proj_input")),
    Number("heads with a sink", "heads.sink (gu2025)", ("heads",), _share("heads", "sink"), "share"),
    Number(
        "heads with sink at position 0",
        "share of all heads whose sink is the first key: heads.sink_position",
        ("heads",),
        _sinks_at_start,
        "share",
    ),
    Number(
        "first layer with such a sink",
        "first layer with a sink at position 0, and its relative depth",
        ("heads",),
        _first_sinks,
        "index",
    ),
    Number(
        "mean first-key mass",
        "mean over heads of heads.first_key_mass",
        ("heads",),
        _mean("heads", "first_key_mass"),
        "share",
    ),
    Number("implicit scaling", "mean over heads of scaling.mean (an2025)", ("scaling",), _mean("scaling", "mean")),
    Number(
        "update at sinks / others",
        "median over layers of zero_update.ratio (an2025)",
        ("zero_update",),
        _mean("zero_update", "ratio", "median"),
    ),
    Number("largest super weight", "largest |super_weights.contribution| (yu2024)", ("super_weights",), _super),
    Number(
        "largest extremal ratio",
        "largest weights.extremal_ratio of columns (an2025)",
        ("weights",),
        _matrices("column", "extremal_ratio", "max"),
    ),
    Number(
        "8-bit error, median matrix",
        "weights.w8_error, one scale for each tensor",
        ("weights",),
        _matrices("tensor", "w8_error", "median"),
        "share",
    ),
    Number("8-bit error, worst matrix", "the same", ("weights",), _matrices("tensor", "w8_error", "max"), "share"),
    Number(
        "largest norm gain / median",
        "largest norm_gains.ratio",
        ("norm_gains",),
        lambda s: _largest(s.tables["norm_gains"], "ratio", "norm", "layer"),
    ),
    Number(
        "rotary offset features",
        "share of rotary.offset over all heads and rotary features (jonasson2025)",
        ("rotary",),
        _share("rotary", "offset"),
        "share",
    ),
    Number(
        "offsets of half a turn at most",
        "share of the rotary offset features with theta P <= pi: rotary.bound_frequency",
        ("rotary",),
        _share("rotary", "bound_frequency", pl.col("offset")),
        "share",
    ),
    Number(
        "offsets that stay negative",
        "share of the rotary offset features within rotary.bound_angle",
        ("rotary",),
        _share("rotary", "bound_angle", pl.col("offset")),
        "share",
    ),
    Number("perplexity", "effects: the clean model, on the text of the attacks", ("effects",), _perplexity),
    Number(
        "perplexity, rows zeroed",
        "effects: the largest k rows of W_up and W_gate of the massive layer (or of the layer that is named) set to 0 "
        "(oh2024)",
        ("effects",),
        _zeroed,
    ),
)
