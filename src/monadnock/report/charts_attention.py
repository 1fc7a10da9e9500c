"""Sections on attention: cumulative scores, sink heads and their positions, kinds of heads."""

import polars as pl

from monadnock.report import text
from monadnock.report.bars import bars
from monadnock.report.lines import Line, layer_lines, points
from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Findings, Key, Section, legend, meaning
from monadnock.report.source import peak
from monadnock.report.theme import AMBER, BLUE, GREY, HEAD_KINDS, PURPLE, TOKEN_CLASSES, VERMILION

_SHARE = (0.0, 1.0)
_SINK = Key("sink (gu2025)", GREY, "flag")


def cumulative(findings: Findings) -> list[Block]:
    """Draw the two largest cumulative scores of the head mean over the layers (log, in queries)."""
    means = findings["attention"].filter(pl.col("head").is_null(), pl.col("cumulative").is_finite())
    means = means.drop_nulls("layer")
    if not means.height:
        return []
    rank = pl.col("cumulative").rank("ordinal", descending=True).over("layer", "sequence")
    means = means.with_columns(_rank=rank).filter(pl.col("_rank") <= 2)
    top = pl.col("cumulative").filter(pl.col("_rank") == 1)
    frame = means.group_by("layer", maintain_order=True).agg(
        first=top.mean(),
        second=pl.col("cumulative").filter(pl.col("_rank") == 2).mean(),
        token=pl.col("token").filter(pl.col("_rank") == 1).drop_nulls().mode().sort().first(),
        position=pl.col("position").filter(pl.col("_rank") == 1).mode().sort().first(),
    )
    lines = [Line("first", "largest", VERMILION), Line("second", "second", BLUE, "dashed")]
    more = {"commonest position of the largest": "position", "its token": "token"}
    return [
        Block(
            "Two largest cumulative scores",
            "The two largest cumulative scores of the mean over heads, by layer, averaged over windows.",
            meaning("attention", "cumulative", "outlier"),
            layer_lines(frame, lines, "c_j (queries)", more=more),
            tuple(line.key for line in lines),
            f"Lines over layers. {peak(frame, 'first', 'score', 'layer')}",
            wide=True,
        )
    ]


def sinks(findings: Findings) -> list[Block]:
    """Draw maps of first-key and sink mass by layer and head, their spread, and where the sinks are."""
    heads = findings["heads"].drop_nulls(["layer", "head"])
    if not heads.height:
        return []
    flagged = heads.filter(pl.col("sink").fill_null(False))
    shown = {
        name.replace("_", " "): name for name in ("layer", "head", "sink_mass", "first_key_mass", "kind", "entropy")
    }
    shown |= {"sink position": "sink_position", "its class": "sink_token_class"}
    maps = [
        Block(
            title,
            says,
            meaning("heads", column, "sink"),
            layer_map(heads.with_columns(_dot=dot), "head", "head", column, shown, limits=_SHARE, dots="_dot"),
            (_SINK,),
            f"Map of layers and heads. {peak(heads, column, 'mass', 'layer', 'head')}",
        )
        for column, dot, title, says in (
            (
                "sink_mass",
                pl.col("sink"),
                "Sink mass of every head",
                "The attention that the strongest key of each head receives.",
            ),
            (
                "first_key_mass",
                pl.col("sink") & pl.col("sink_position").eq_missing(0),
                "First-key mass of every head",
                "The attention that each head gives to the first key.",
            ),
        )
    ]
    return [*maps, _spread(findings, heads, shown), _positions(flagged)]


def kinds(findings: Findings) -> list[Block]:
    """Draw a map of the kinds of heads by layer and head."""
    heads = findings["heads"].drop_nulls(["layer", "head"])
    tally = dict(heads["kind"].drop_nulls().value_counts(sort=True).rows())
    columns = ("layer", "head", "kind", "sink_mass", "previous_mass", "self_mass", "local_mass", "mean_distance")
    known = [*HEAD_KINDS, *(name for name in tally if name not in HEAD_KINDS)]
    return [
        Block(
            "Kind of every head",
            "What each head mostly looks at: "
            + ", ".join(f"{tally[name]} {name}" for name in known if name in tally)
            + ".",
            meaning("heads", "kind", "previous_mass", "self_mass", "local_mass"),
            layer_map(heads, "head", "head", "kind", {c.replace("_", " "): c for c in columns}, colours=HEAD_KINDS),
            legend(heads["kind"], HEAD_KINDS),
            "Map of layers and heads, coloured by kind.",
            wide=True,
        )
    ]


def _spread(findings: Findings, heads: pl.DataFrame, shown: dict[str, str]) -> Block:
    frame = heads.group_by("layer", maintain_order=True).agg(
        middle=pl.col("sink_mass").fill_nan(None).median(), rate=pl.col("sink").fill_null(False).mean()
    )
    lines = [
        Line("middle", "median head", BLUE),
        Line("rate", "share of heads with a sink (sink rate)", AMBER, "dashed"),
    ]
    if (bound := findings.manifest.thresholds.get("gu2025.sink_mass")) is not None:
        frame = frame.with_columns(bound=pl.lit(bound))
        lines.append(Line("bound", "threshold (gu2025)", PURPLE, "dotted", dots=False))
    plot = layer_lines(frame, lines, "sink mass", log=False, limits=(-0.03, 1.03))
    points(plot, heads, "sink_mass", VERMILION, shown)
    keys = (Key("head", VERMILION, "dot"), *(line.key for line in lines))
    alt = f"Scatter over layers. {peak(frame, 'middle', 'median', 'layer')} {peak(frame, 'rate', 'sink rate', 'layer')}"
    says = "The sink mass of every head, their median, and the share of heads with a sink, by layer."
    return Block("Spread over heads", says, meaning("heads", "sink_mass", "sink"), plot, keys, alt)


def _positions(flagged: pl.DataFrame) -> Block:
    title, notes = "Sink positions", meaning("heads", "sink_position", "sink_token_class", "sink")
    if not flagged.height:
        return Block(title, "No head has a sink (gu2025).", notes)
    by = pl.format("position {}", pl.col("sink_position")).fill_null("varies").alias("position")
    counted = flagged.group_by(by, pl.col("sink_token_class").fill_null("varies"), maintain_order=True).agg(
        count=pl.len()
    )
    order = (
        counted.group_by("position", maintain_order=True)
        .agg(_all=pl.col("count").sum())
        .sort("_all", "position", descending=[True, False])
    )
    counted = counted.join(order.head(12), "position").sort(
        "_all", "position", "sink_token_class", descending=[True, False, False]
    )
    shown = {"position": "position", "token class": "sink_token_class", "heads": "count"}
    return Block(
        title,
        f"Where the {text.count(flagged.height, 'head')} with a sink put it; position 0 is the first key.",
        notes,
        bars(
            counted,
            "position",
            "count",
            shown,
            x_label="heads",
            group="sink_token_class",
            colours=TOKEN_CLASSES,
        ),
        legend(counted["sink_token_class"], TOKEN_CLASSES),
        f"Bars. {peak(counted, 'count', 'number of heads', 'position')}",
    )


SECTIONS = (
    Section(
        "attention",
        "Cumulative attention",
        "How much of all queries' attention the strongest keys collect.",
        ("attention",),
        "The table has no rows: no attention was observed.",
        cumulative,
    ),
    Section(
        "sinks",
        "Attention sinks",
        "Which heads park their attention on one key, and where that key is.",
        ("heads",),
        "The table has no rows: no head was observed.",
        sinks,
    ),
    Section(
        "kinds",
        "Kinds of heads",
        "What the heads are for, as far as their attention tells.",
        ("heads",),
        "The table has no rows: no head was observed.",
        kinds,
    ),
)
