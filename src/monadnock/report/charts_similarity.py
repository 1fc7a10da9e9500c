"""Sections on states: how alike they are along the layers and within one, and what the end of a sentence does."""

import polars as pl
from bokeh.plotting import figure

from monadnock.findings.summary_explain import finite
from monadnock.findings.summary_read import by_text, sentence_effect
from monadnock.report.lines import Line, layer_lines
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import extent, peak, source
from monadnock.report.source import finite as numbers
from monadnock.report.text import printable
from monadnock.report.theme import BLUE, GREEN, GREY, SERIES, VERMILION

_ENTERS = "Layer -1 is what enters the first layer."
_WITHIN = {"neighbours": VERMILION, "next neighbours": GREEN, "all pairs": BLUE}


def alike(findings: Findings) -> list[Block]:
    """Draw the similarity of states with those of later layers, and of different tokens within a layer (lines)."""
    texts = by_text(findings["state_similarity"])
    blocks = []
    for name, rows in texts:
        rows = finite(rows, "mean").drop_nulls(["layer", "relation"])
        of = f", {printable(name)}" if len(texts) > 1 else ""
        blocks += _later(rows.filter(relation="later").drop_nulls("gap"), of)
        blocks += _within(rows.filter(pl.col("relation").is_in(list(_WITHIN))), of)
    return blocks


def _later(rows: pl.DataFrame, of: str) -> list[Block]:
    """Draw the mean and the prediction for each gap, and the spread of the smallest gap."""
    gaps = sorted(rows["gap"].unique())[: len(SERIES)]
    if not gaps:
        return []
    frame, lines = _layers(rows), []
    for gap, colour in zip(gaps, SERIES, strict=False):
        here = rows.filter(gap=gap).unique("layer", keep="first")
        names = {name: f"{name}_{gap}" for name in ("mean", "deviation", "predicted")}
        frame = frame.join(here.select("layer", *names).rename(names), "layer", how="left")
        lines.append(Line(names["mean"], f"n = {gap}", colour))
        if gap > 1:  # for one layer the prediction is the mean itself
            lines.append(Line(names["predicted"], f"n = {gap}, predicted", colour, "dashed", dots=False))
    middle, spread = f"mean_{gaps[0]}", f"deviation_{gaps[0]}"
    frame = frame.with_columns(_low=pl.col(middle) - pl.col(spread), _high=pl.col(middle) + pl.col(spread))
    shown = [line.column for line in lines] + ["_low", "_high"]
    more = {f"n = {gaps[0]}, standard deviation": spread}
    plot = layer_lines(frame, lines, "mean similarity", log=False, limits=_ends(frame, shown), more=more)
    keys = [line.key for line in lines]
    if _band(plot, frame, SERIES[0]):
        keys.append(Key(f"n = {gaps[0]}: one standard deviation to each side", SERIES[0]))
    many = " and ".join(filter(None, (", ".join(map(str, gaps[:-1])), str(gaps[-1]))))
    return [
        Block(
            f"Along the layers{of}",
            f"A token's state behind a layer and behind the layer n = {many} later. {_ENTERS}",
            meaning("state_similarity", "layer", "mean", "deviation", "predicted"),
            plot,
            tuple(keys),
            f"Lines over layers. {peak(rows, 'mean', 'similarity', 'layer', 'gap')}",
        )
    ]


def _within(rows: pl.DataFrame, of: str) -> list[Block]:
    if rows.is_empty():
        return []
    frame, lines = _layers(rows), []
    for place, (name, colour) in enumerate(_WITHIN.items()):
        here = rows.filter(relation=name).unique("layer", keep="first")
        if here.height:
            frame = frame.join(here.select("layer", pl.col("mean").alias(f"_{place}")), "layer", how="left")
            lines.append(Line(f"_{place}", name, colour))
    ends = _ends(frame, [line.column for line in lines])
    return [
        Block(
            f"Within a layer{of}",
            f"The states of different tokens behind one layer. {_ENTERS}",
            meaning("state_similarity", "relation", "mean"),
            layer_lines(frame, lines, "mean similarity", log=False, limits=ends),
            tuple(line.key for line in lines),
            f"Lines over layers. {peak(rows, 'mean', 'similarity', 'relation', 'layer')}",
        )
    ]


def sentences(findings: Findings) -> list[Block]:
    """Draw how attention to the first token falls at the end of each sentence, with its control (lines, one scale)."""
    texts = by_text(findings["first_sentence"])
    blocks = []
    for name, rows in texts:
        rows = rows.drop_nulls("sentence").with_columns(
            _low=pl.col("fall") - pl.col("effect_error"), _high=pl.col("fall") + pl.col("effect_error")
        )
        ends = _ends(rows.drop_nulls("layer"), ["fall", "control_fall", "_low", "_high"])
        of = f", {printable(name)}" if len(texts) > 1 else ""
        for number, part in sorted((part["sentence"][0], part) for part in rows.partition_by("sentence")):
            blocks += _end(number, part.unique("layer", keep="first", maintain_order=True), ends, of)
    return blocks


def _end(number: int, rows: pl.DataFrame, ends: tuple[float, float], of: str) -> list[Block]:
    """Draw one sentence's fall over the layers; the row of all layers gives the block's sentence."""
    whole, rows = rows.filter(pl.col("layer").is_null()), rows.drop_nulls("layer")
    told = sentence_effect(whole.to_dicts()[0]) if whole.height else ""
    if rows.is_empty():
        return []
    lines = (Line("fall", "where the sentence ends", VERMILION), Line("control_fall", "control", GREY, "dashed"))
    shown = {"effect": "effect", "its standard error": "effect_error", "texts": "num_texts"}
    plot = layer_lines(rows, lines, "fall of A[i, 0]", log=False, limits=ends, more=shown)
    band = (Key("one standard error of the effect to each side", VERMILION),) * _band(plot, rows, VERMILION)
    return [
        Block(
            f"End of sentence {number}{of}",
            f"Over all layers, {told}." if told else "How far attention to the first token falls there.",
            (*meaning("first_sentence", "before", "after", "fall", "control_fall", "effect", "effect_error"), _HOLDS),
            plot,
            (*(line.key for line in lines), *band),
            f"Lines over layers. {peak(rows, 'fall', 'fall', 'layer')}",
        )
    ]


_HOLDS = "It holds if the effect is more than two standard errors above 0, and is reversed if below."


def _layers(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("layer").unique().sort("layer")


def _ends(frame: pl.DataFrame, columns: list[str]) -> tuple[float, float]:
    """Return the ends of an axis for all these columns."""
    return extent(numbers(pl.concat([frame[name].cast(pl.Float64).alias("") for name in columns])), zero=True)


def _band(plot: figure, frame: pl.DataFrame, colour: str) -> bool:
    """Fill what is between `_low` and `_high`; say whether there is anything to fill."""
    rows = finite(frame, "_low", "_high").sort("layer")
    plot.varea("layer", "_low", "_high", source=source(rows), fill_color=colour, fill_alpha=0.2, level="underlay")
    return rows.height > 1


SECTIONS = (
    Section(
        "similarity",
        "How alike states are",
        "How far layers turn the state of a token, and how alike the states of different tokens are.",
        ("state_similarity",),
        "The table has no rows: the text was too short to compare states.",
        alike,
    ),
    Section(
        "first-sentence",
        "The first-sentence effect",
        "Whether attention to the first token falls where a sentence ends, more than at the same positions elsewhere.",
        ("first_sentence",),
        "The table has no rows: too few texts begin with a sentence that ends in time.",
        sentences,
    ),
)
