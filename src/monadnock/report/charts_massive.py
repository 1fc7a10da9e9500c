"""Sections on what makes massive activations: the start token alone, massive and super weights, lifecycles."""

import polars as pl

from monadnock.report import text
from monadnock.report.bars import bars, spans
from monadnock.report.lines import Line, layer_lines, ring
from monadnock.report.parts import Block, Findings, Key, Section, by_stream, meaning
from monadnock.report.source import peak
from monadnock.report.theme import AMBER, BLUE, GREY, SERIES, VERMILION

_MOST = 20
_MASSIVE_LAYER = (
    "massive layer (oh2024): where the largest |x_down| of the start token is greatest, among the layers up to the "
    "peak of its largest |h|."
)


def start_token(findings: Findings) -> list[Block]:
    """Draw the largest |value| of the start token alone over the layers (log), the massive layer ringed."""
    states = findings["start_states"].filter(pl.col("rank") == 1).drop_nulls(["stream", "layer"])
    states = states.group_by("stream", "layer", maintain_order=True).agg(pl.col("value").abs().max())
    if not states.height:
        return []
    streams = [name for name, _ in by_stream(states)]
    frame = states.pivot("stream", index="layer", values="value")
    dashes = ("solid", "dashed", "dotted", "dotdash")
    lines = [Line(s, text.stream(s), c, d) for s, c, d in zip(streams, SERIES, dashes, strict=False)]
    plot = layer_lines(frame, lines, "largest |value|")
    keys = [line.key for line in lines]
    says = "The largest |value| by layer when the start token is fed alone"
    layers = sorted(findings["massive_weights"]["layer"].drop_nulls().unique())
    if layers:
        ring(plot, frame.filter(pl.col("layer").is_in(layers)), streams[-1], AMBER)
        keys.append(Key("massive layer (oh2024)", AMBER, "ring"))
        says += f"; the massive layer is {' and '.join(map(str, layers))}"
    alt = " ".join(f"{text.stream(s)}: {peak(frame, s, 'value', 'layer')}" for s in streams)
    notes = (*meaning("start_states", "rank", "value"), _MASSIVE_LAYER)
    return [Block("Start token alone", f"{says}.", notes, plot, tuple(keys), f"Lines over layers. {alt}", wide=True)]


def massive_weights(findings: Findings) -> list[Block]:
    """Draw |x_down| of the ten largest features of the massive layer (bars), and list them with the super weights."""
    blocks = []
    massive = findings["massive_weights"].drop_nulls(["rank", "feature"]).sort("rank").head(10)
    if massive.height:
        named = massive.with_columns(name=pl.format("feature {}", "feature"))
        named = named.unique("name", keep="first", maintain_order=True)
        place = _place(massive.row(0, named=True))
        notes = (*meaning("massive_weights", "magnitude", "massive"), _MASSIVE_LAYER)
        shown = {"rank": "rank", "feature": "feature", "layer": "layer", "|x_down|": "magnitude", "massive": "massive"}
        colours = {"true": VERMILION, "false": GREY}
        plot = bars(named, "name", "magnitude", shown, x_label="|x_down|", group="massive", colours=colours)
        keys = (Key("massive (sun2024)", VERMILION), Key("not massive", GREY))
        alt = f"Bars. {peak(named, 'magnitude', 'magnitude', 'name')}"
        says = f"The {massive.height} largest features of x_down at the massive layer ({place}), start token alone."
        blocks.append(Block("Massive features of x_down", says, notes, plot, keys, alt))
        says = f"The same {massive.height}: feature i stands for row i of W_up and W_gate."
        blocks.append(Block("Massive weights", says, notes, _listing(massive)))
    weights = findings["super_weights"].sort("rank").head(10)
    if weights.height:
        says = (
            "The entries of W_down that carry the largest contributions from a massive feature to a massive residual."
        )
        notes = meaning("super_weights", "row", "column", "weight", "contribution")
        blocks.append(Block("Super weights", says, notes, _listing(weights)))
    return blocks


def lifecycles(findings: Findings) -> list[Block]:
    """Draw the stretches of layers over which residual features of the start token live (spans), massive ones first."""
    num_layers = findings.manifest.model.num_layers
    every = findings["lifecycles"].drop_nulls(["feature", "birth"]).with_columns(pl.col("massive").fill_null(False))
    if not every.height:
        return []
    order = every.group_by("feature", maintain_order=True).agg(
        _massive=pl.col("massive").any(), _peak=pl.col("peak_value").abs().max()
    )
    order = order.sort("_massive", "_peak", "feature", descending=[True, True, False], nulls_last=True).head(_MOST)
    frame = every.join(order.with_row_index("_order"), "feature").sort("_order", "birth")
    last = pl.coalesce(pl.col("death") - 1, pl.lit(num_layers - 1))
    frame = frame.with_columns(name=pl.format("feature {}", "feature"), _from=pl.col("birth"), _to=last)
    columns = ("birth", "death", "rise_layer", "fall_layer", "peak_layer", "peak_value", "massive")
    shown = {column.replace("_", " "): column for column in ("feature", *columns)}
    colours = {"true": VERMILION, "false": BLUE}
    plot = spans(frame, "name", "peak_layer", shown, num_layers=num_layers, group="massive", colours=colours)
    drawn = text.count(frame.height, "stretch", "stretches")
    says = f"{drawn} of {text.count(order.height, 'feature')}, massive features first, then by peak"
    says += (
        f"; {every['feature'].n_unique() - order.height} smaller features left out."
        if frame.height < every.height
        else "."
    )
    keys = (Key("massive (sun2024)", VERMILION), Key("alive", BLUE), Key("peak", GREY, "diamond"))
    alt = "; ".join(f"{row['name']}: layers {row['_from']} to {row['_to']}" for row in frame.head(10).to_dicts())
    return [Block("Births and deaths", says, meaning("lifecycles", *columns), plot, keys, f"Spans. {alt}.", wide=True)]


def _place(row: dict) -> str:
    return f"layer {row['layer']}" + ("" if row["expert"] is None else f", expert {row['expert']}")


def _listing(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop columns without any value, such as the expert of a dense layer."""
    return frame.select(column for column in frame.get_columns() if column.null_count() < frame.height)


SECTIONS = (
    Section(
        "start",
        "The start token and the massive layer",
        "Where the massive activation is made, seen on the start token alone, without any text.",
        ("start_states",),
        "The table has no rows: no state of the start token was kept.",
        start_token,
    ),
    Section(
        "massive",
        "Massive and super weights",
        "Which weights write the massive activation.",
        ("massive_weights", "super_weights"),
        "No massive layer was found, and so no massive or super weight.",
        massive_weights,
    ),
    Section(
        "lifecycles",
        "Lifecycles of features",
        "In which layer each large feature of the start token is born and in which it dies.",
        ("lifecycles",),
        "No residual feature of the start token grows large in any layer.",
        lifecycles,
    ),
)
