"""Sections on the activations of the text: their size over the layers, the tokens and features that carry them."""

from collections.abc import Mapping

import polars as pl

from monadnock.report import text
from monadnock.report.bars import bars
from monadnock.report.lines import Line, layer_lines, ring
from monadnock.report.parts import Block, Findings, Key, Section, by_stream, legend, meaning
from monadnock.report.source import peak
from monadnock.report.theme import AMBER, BLUE, GREEN, GREY, PURPLE, SERIES, TOKEN_CLASSES, VERMILION

_TOP = 12
_SIZES = (
    Line("top1", "largest", VERMILION),
    Line("top2", "second", BLUE, "dashed"),
    Line("top3", "third", GREEN, "dotted"),
    Line("median", "median", GREY),
)


def layer_curves(findings: Findings) -> list[Block]:
    """Draw the largest three and the median |value| of every stream over the layers (log, unit of the activations)."""
    blocks = []
    for name, frame in by_stream(findings["layers"].drop_nulls("layer")):
        lines = list(_SIZES)
        if bound := _massive_bound(findings):
            frame = frame.with_columns(bound=pl.max_horizontal(bound[0], bound[1] * pl.col("median")))
            lines.append(Line("bound", "massive above (sun2024)", PURPLE, "dotted", dots=False))
        plot = layer_lines(frame, lines, "|value|", more={"entries beyond an2025": "num_outliers"})
        hit = frame.filter(pl.col("num_outliers") > 0)
        ring(plot, hit.filter(pl.col("top1") > 0), "top1", AMBER)
        keys = [line.key for line in lines] + [Key("layer with outliers (an2025)", AMBER, "ring")] * bool(hit.height)
        blocks.append(
            Block(
                text.stream(name).capitalize(),
                f"The three largest and the median |value|; {hit.height} of {frame.height} layers hold outliers.",
                (*meaning("layers", "top1", "median", "num_outliers"), *meaning("activations", "criterion")),
                plot,
                tuple(keys),
                f"Lines over {frame.height} layers. {peak(frame, 'top1', 'value', 'layer')}",
            )
        )
    return blocks


def _massive_bound(findings: Findings) -> tuple[float, float] | None:
    """Return the magnitude and the multiple of the median above which this run calls an activation massive."""
    bound = [findings.manifest.thresholds.get(f"sun2024.{name}") for name in ("magnitude", "median_ratio")]
    return None if bound[0] is None or bound[1] is None else (bound[0], bound[1])


def carriers(findings: Findings) -> list[Block]:
    """Count the activations that meet a criterion by token class, token and feature (bars, entries)."""
    hits = findings["activations"].drop_nulls("criterion")
    if not hits.height:
        return []
    split = [(name, frame, colour) for (name, frame), colour in zip(by_stream(hits), SERIES, strict=False)]
    streams = {name: colour for name, _, colour in split}
    blocks = [_tally(hits, "Token classes", "token_class", "stream", streams)]
    for name, frame, _ in split:
        blocks.append(_tally(frame, f"Tokens: {text.stream(name)}", "token", "token_class", TOKEN_CLASSES))
    for name, frame, colour in split:
        blocks.append(_tally(_named(frame, name), f"Features: {text.stream(name)}", "name", "stream", {name: colour}))
    return blocks


def features(findings: Findings) -> list[Block]:
    """Draw the largest |value| of the leading features: lines over the layers for h, bars for the other streams."""
    blocks = []
    notes = meaning("features", "feature", "max_abs", "mean_abs")
    for name, frame in by_stream(findings["features"].drop_nulls(["layer", "feature"])):
        if name == "residual":
            says = "Largest |value| by layer of the features that reach highest; gaps are layers where others lead."
            body, keys = _feature_lines(frame)
        else:
            says = "The features with the largest |value| over all layers and tokens."
            keys = ()
            leading = _named(frame, name).sort("max_abs", descending=True, nulls_last=True)
            leading = leading.unique("name", keep="first", maintain_order=True).head(_TOP)
            shown = {"layer": "layer", "feature": "feature", "largest |value|": "max_abs", "mean |value|": "mean_abs"}
            body = bars(leading, "name", "max_abs", shown, x_label="largest |value|", group="stream", colour=BLUE)
        alt = f"Features. {peak(frame, 'max_abs', 'value', 'layer', 'feature')}"
        blocks.append(Block(text.stream(name).capitalize(), says, notes, body, keys, alt))
    return blocks


def _feature_lines(frame: pl.DataFrame):
    top = (
        frame.group_by("feature", maintain_order=True)
        .agg(pl.col("max_abs").max())
        .sort("max_abs", descending=True, nulls_last=True)
    )
    chosen = top["feature"].head(5).cast(pl.String).to_list()
    wide = frame.with_columns(pl.col("feature").cast(pl.String)).filter(pl.col("feature").is_in(chosen))
    wide = wide.pivot("feature", index="layer", values="max_abs", aggregate_function="max")
    layers = frame.select(pl.col("layer").unique())
    dashes = ("solid", "dashed", "dotted", "dotdash", "solid")
    lines = [Line(f, f"feature {f}", c, d) for f, c, d in zip(chosen, SERIES, dashes, strict=False)]
    return layer_lines(layers.join(wide, "layer", how="left"), lines, "largest |value|"), tuple(x.key for x in lines)


def _tally(frame: pl.DataFrame, title: str, by: str, group: str, colours: Mapping[str, str]) -> Block:
    """Count the rows of the most frequent values of `by`, split by group."""
    frame = frame.with_columns(pl.col(by, group).fill_null(text.NONE))
    if by == "token":
        frame = frame.with_columns(pl.col(by).map_elements(text.token, pl.String))
    order = frame[by].value_counts().sort("count", by, descending=[True, False]).head(_TOP).select(by).with_row_index()
    counted = frame.group_by(by, group, maintain_order=True).agg(entries=pl.len(), largest=pl.col("value").abs().max())
    ranks = {name: rank for rank, name in enumerate(colours)}
    counted = counted.join(order, by).with_columns(_rank=pl.col(group).replace_strict(ranks, default=len(ranks)))
    counted = counted.sort("index", "_rank", group).drop("index", "_rank")
    what = {"name": "feature"}.get(by, by.replace("_", " "))
    shown = {what: by, group.replace("_", " "): group, "entries": "entries", "largest |value|": "largest"}
    plot = bars(counted, by, "entries", shown, x_label="entries", group=group, colours=colours)
    keys = () if len(colours) == 1 else legend(counted[group], colours)
    if group == "stream":
        keys = tuple(Key(text.stream(key.label), key.colour) for key in keys)
    return Block(
        title,
        f"Entries that meet a criterion, by {what}; at most the 32 largest of a layer and window are counted.",
        meaning("activations", "criterion", *(["token_class"] if "token" in by else ["feature"])),
        plot,
        keys,
        f"Bars. {peak(counted, 'entries', 'number of entries', by)}",
    )


def _named(frame: pl.DataFrame, stream: str) -> pl.DataFrame:
    """Add a `name` for each feature; only the residual's features are the same ones in every layer."""
    feature = pl.format("feature {}", pl.col("feature").cast(pl.String).fill_null(text.NONE))
    layer = pl.format("layer {}, ", pl.col("layer"))
    return frame.with_columns(
        name=feature if stream == "residual" else pl.concat_str(layer, feature, ignore_nulls=True)
    )


SECTIONS = (
    Section(
        "layers",
        "Activations over the layers",
        "How far the largest values of each stream stand above the ordinary ones, layer by layer.",
        ("layers",),
        "The table has no rows: no layer was observed.",
        layer_curves,
    ),
    Section(
        "carriers",
        "Tokens and features that carry massive activations",
        "Which tokens and which features the entries that meet a criterion belong to.",
        ("activations",),
        "No activation of the text meets a criterion (an2025 or sun2024).",
        carriers,
    ),
    Section(
        "features",
        "Leading features",
        "Which features reach the largest values, and in which layers.",
        ("features",),
        "The table has no rows: no feature was kept.",
        features,
    ),
)
