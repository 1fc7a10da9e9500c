"""Charts of a comparison: activations, sinks, weights and norm gains of several runs over the layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from monadnock.relations.compare import Comparison
from monadnock.relations.compare_join import Side, joined, spec_of, together
from monadnock.relations.compare_words import number
from monadnock.report import text
from monadnock.report.compare_lines import keys, run_lines
from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Key, meaning
from monadnock.report.theme import BLUE, GREEN, VERMILION

_QUIET = "#c3c8cf"  # cells that nobody has to look at
_SINKS = {"lost": VERMILION, "gained": GREEN, "in both": BLUE, "in neither": _QUIET}
_MAPS = 6  # runs whose sinks are mapped


@dataclass(frozen=True)
class Curve:
    """A number of every layer that is drawn for all runs.

    Attributes:
        title: heading of the chart.
        says: what it shows.
        table: the table that it is read from.
        read: makes one row per layer of that table, with columns layer and value.
        notes: columns whose definitions belong to it.
        unit: what stands at the y axis.
        log: whether that axis is logarithmic.
        share: whether it goes from 0 to 1.
    """

    title: str
    says: str
    table: str
    read: Callable[[pl.DataFrame], pl.DataFrame]
    notes: tuple[str, ...]
    unit: str
    log: bool = True
    share: bool = False


def by_layer(value: pl.Expr, *where: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return a function that reduces the rows of each layer that meet all conditions to one value."""
    known = (pl.col("layer").is_not_null(), *where)
    return lambda frame: frame.filter(*known).group_by("layer").agg(value=value).sort("layer")


def _finite(column: str) -> pl.Expr:
    return pl.col(column).filter(pl.col(column).is_finite())


_H, _X_DOWN = pl.col("stream") == "residual", pl.col("stream") == "down_proj_input"
ACTIVATIONS = (
    Curve(
        "Largest |h|",
        "The largest |value| of the residual stream behind each layer.",
        "layers",
        by_layer(pl.col("top1").first(), _H),
        ("top1",),
        "|h|",
    ),
    Curve(
        "Largest |x_down|",
        "The largest |value| of the input of the down projection.",
        "layers",
        by_layer(pl.col("top1").first(), _X_DOWN),
        ("top1",),
        "|x_down|",
    ),
    Curve(
        "Largest |h| / median",
        "How far the largest |value| of the residual stream stands above the ordinary one.",
        "layers",
        by_layer((pl.col("top1") / pl.col("median")).first(), _H),
        ("top1", "median"),
        "largest / median",
    ),
    Curve(
        "Largest |x_down| of the start token",
        "The start token fed alone, which depends on no text.",
        "start_states",
        by_layer(_finite("value").abs().max(), _X_DOWN),
        ("value",),
        "|x_down|",
    ),
)
SINKS = (
    Curve(
        "Heads with a sink",
        "The share of the heads of each layer that have a sink.",
        "heads",
        by_layer(pl.col("sink").mean()),
        ("sink", "sink_mass"),
        "share of heads",
        log=False,
        share=True,
    ),
    Curve(
        "First-key mass",
        "The attention that goes to the first key, mean over the heads of each layer.",
        "heads",
        by_layer(_finite("first_key_mass").mean()),
        ("first_key_mass",),
        "share of attention",
        log=False,
        share=True,
    ),
    Curve(
        "Implicit scaling",
        "What scales the reading of other tokens, mean over the heads of each layer.",
        "scaling",
        by_layer(_finite("mean").mean()),
        ("mean",),
        "S",
        log=False,
        share=True,
    ),
    Curve(
        "Update at sinks / at other tokens",
        "How much attention adds to h at tokens that are sinks, against others.",
        "zero_update",
        by_layer(_finite("ratio").mean()),
        ("ratio", "sinks", "others"),
        "ratio",
    ),
)
ROTARY = (
    Curve(
        "Rotary offset features",
        "How many rotary features of a head are offset features, mean over the heads of each layer.",
        "rotary",
        by_layer(pl.col("offset").sum() / pl.col("head").n_unique()),
        ("offset",),
        "features of a head",
        log=False,
    ),
)
WEIGHTS = (
    Curve(
        "Extremal ratio",
        "The largest extremal ratio of a column over the matrices of each layer.",
        "weights",
        by_layer(_finite("extremal_ratio").max(), pl.col("axis") == "column"),
        ("extremal_ratio",),
        "max|w| / mean|w|",
    ),
    Curve(
        "Extremal ratio of W_down",
        "The largest extremal ratio of a column of W_down, where massive rows are read.",
        "weights",
        by_layer(_finite("extremal_ratio").max(), pl.col("axis") == "column", pl.col("module") == "down"),
        ("extremal_ratio",),
        "max|w| / mean|w|",
    ),
    Curve(
        "Worst 8-bit error",
        "What the worst matrix of each layer loses when it is rounded to 8 bits with one scale.",
        "weights",
        by_layer(100 * _finite("w8_error").max(), pl.col("axis") == "tensor"),
        ("w8_error",),
        "relative error in %",
        log=False,
    ),
    Curve(
        "Largest norm gain / median",
        "The largest |gain| over the median |gain|, over the norms of each layer.",
        "norm_gains",
        by_layer(_finite("ratio").max()),
        ("ratio",),
        "ratio",
    ),
)


def curves(comparison: Comparison, wanted: Sequence[Curve]) -> list[Block]:
    """Draw those curves for which any run has the table."""
    return [block for curve in wanted if (block := _curve(comparison, curve))]


def _curve(comparison: Comparison, curve: Curve) -> Block | None:
    read = {side.name: _read(side, curve) for side in comparison.sides}
    if all(frame is None for frame in read.values()):
        return None
    layers = {side.name: side.manifest.model.num_layers for side in comparison.sides}
    plot = run_lines(read, layers, curve.unit, log=curve.log, limits=(-0.03, 1.03) if curve.share else None)
    shown = [key for key in keys(comparison.names) if read[key.label] is not None]
    without = [name for name, frame in read.items() if frame is None]
    says = curve.says + (f" Not measured in {', '.join(without)}." if without else "")
    return Block(curve.title, says, meaning(curve.table, *curve.notes), plot, tuple(shown), _spoken(read))


def _read(side: Side, curve: Curve) -> pl.DataFrame | None:
    frame = curve.read(side.tables[curve.table]) if curve.table in side.tables else None
    return frame if frame is not None and frame["value"].cast(pl.Float64).is_finite().any() else None


def _spoken(read: dict[str, pl.DataFrame | None]) -> str:
    """Return a sentence naming each run's largest value, for those who cannot see the chart."""
    told = []
    for name, frame in read.items():
        if frame is not None:
            top = (
                frame.filter(pl.col("value").cast(pl.Float64).is_finite())
                .sort("value", descending=True)
                .row(0, named=True)
            )
            told.append(f"{name} {number(float(top['value']))} at layer {top['layer']}")
    return f"Lines over the layers. Largest values: {'; '.join(told)}."


def sink_maps(comparison: Comparison) -> list[Block]:
    """Draw for every run of the first one's shape which heads gained, lost or kept their sink."""
    blocks = []
    first, *others = together(comparison.sides, spec_of("heads")) or comparison.sides[:1]
    for side in others[:_MAPS]:
        pair, name = (first, side), side.name
        frame = joined(pair, "heads", "sink_mass").join(
            joined(pair, "heads", "sink"), ["layer", "head"], suffix=" sink"
        )
        had, has = (pl.col(f"{each.name} sink").fill_null(False) for each in pair)
        frame = frame.with_columns(
            change=pl.when(had & has)
            .then(pl.lit("in both"))
            .when(had)
            .then(pl.lit("lost"))
            .when(has)
            .then(pl.lit("gained"))
            .otherwise(pl.lit("in neither")),
            _dot=had != has,
        )
        if not frame.height:
            continue
        count = {kind: frame.filter(change=kind).height for kind in _SINKS}
        shown = {"layer": "layer", "head": "head", "sink": "change"}
        shown |= {f"sink mass, {each.name}": each.name for each in pair}
        blocks.append(
            Block(
                f"Sinks of {name} against {first.name}",
                f"{text.count(count['lost'], 'head')} lost their sink, {count['gained']} gained one, "
                f"{count['in both']} kept theirs.",
                meaning("heads", "sink", "sink_mass"),
                layer_map(frame, "head", "head", "change", shown, colours=_SINKS, dots="_dot"),
                (*(Key(kind, colour) for kind, colour in _SINKS.items()), Key("changed", _QUIET, "flag")),
                "Map of layers and heads, coloured by what became of their sinks.",
            )
        )
    return blocks
