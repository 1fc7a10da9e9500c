"""The section on bands: which dimensions of queries and keys are large, and where rotary has them."""

import polars as pl
from bokeh.plotting import figure

from monadnock.findings.summary_explain import finite
from monadnock.report.charts_rotary import DERIVED
from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import finite as numbers
from monadnock.report.source import peak
from monadnock.report.theme import GREY, VERMILION


def bands(findings: Findings) -> list[Block]:
    """Draw the largest |q| and |k| of every dimension (maps, log), with halves and the first slow feature marked."""
    place = ["layer", "dimension"]
    table = findings["bands"].drop_nulls(place).unique(place, keep="first", maintain_order=True)
    marks = _marks(table, findings["rotary"])
    blocks = []
    for column, name in (("q_max", "query"), ("k_max", "key")):
        if not finite(table, column).height:
            continue
        frame = table.select("layer", "dimension", "feature", "half", column)
        labels = {
            "layer": "layer",
            "dimension": "dimension",
            "rotary feature": "feature",
            "half": "half",
            "largest": column,
        }
        plot = layer_map(frame, "dimension", "dimension", column, labels, log=True)
        keys = _draw(plot, marks)
        says = f"The largest |{name}| of every dimension of a head, by layer, over all heads and tokens."
        if not frame["feature"].drop_nulls().len():
            says += " This model turns no dimension by the position."
        alt = f"Map of layers and dimensions. {peak(frame, column, 'value', 'layer', 'dimension')}"
        notes = (*meaning("bands", column, "half"), *meaning("rotary", "bound_frequency"), DERIVED)
        blocks.append(Block(f"Largest {name} of every dimension", says, notes, plot, keys, alt))
    return blocks


def _marks(table: pl.DataFrame, rotary: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return at which dimension the second half begins, and the first slow feature in each half, by layer."""
    half = (
        table.drop_nulls("half")
        .group_by("layer", "half")
        .agg(first=pl.col("dimension").min(), last=pl.col("dimension").max())
    )
    first, second = (half.filter(pl.col("half") == which).drop("half") for which in (0, 1))
    apart = first.join(second, "layer", suffix="_second").filter(pl.col("last") < pl.col("first_second"))
    slow = rotary.filter(pl.col("bound_frequency")).drop_nulls(["layer", "feature"])
    slow = (
        slow.group_by("layer")
        .agg(pl.col("feature").min())
        .join(table, ["layer", "feature"])
        .filter(pl.col("layer").is_in(apart["layer"].implode()))
    )
    return {
        "halves": apart.select("layer", edge=pl.col("first_second") - 0.5),
        "slow": slow.select("layer", edge=pl.col("dimension") - 0.5),
    }


def _draw(plot: figure, marks: dict[str, pl.DataFrame]) -> tuple[Key, ...]:
    for name, colour, width in (("halves", "white", 3), ("halves", GREY, 1), ("slow", VERMILION, 2)):
        layers, edges = numbers(marks[name]["layer"]), numbers(marks[name]["edge"])
        if len(layers):
            dash = "dashed" if name == "slow" else "solid"
            plot.segment(layers - 0.5, edges, layers + 0.5, edges, color=colour, line_width=width, line_dash=dash)
    keys = (
        Key("second half of the pairs below", GREY, "solid"),
        Key("theta P <= pi below, in each half", VERMILION, "dashed"),
    )
    return tuple(key for key, frame in zip(keys, marks.values(), strict=True) if frame.height)


SECTIONS = (
    Section(
        "bands",
        "Bands of large queries and keys",
        "Which dimensions of queries and keys are large, and where they are in the rotary embedding.",
        ("bands",),
        "The table has no rows: no query or key was observed.",
        bands,
    ),
)
