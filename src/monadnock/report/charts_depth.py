"""Sections on depth: how weights are distributed, how large states are and what norms multiply, over the layers."""

import math

import polars as pl

from monadnock.findings.summary_explain import finite
from monadnock.report.lines import Line, layer_lines
from monadnock.report.parts import Block, Findings, Section, meaning
from monadnock.report.source import extent, peak
from monadnock.report.source import finite as numbers
from monadnock.report.theme import BLUE, GREEN, GREY, PURPLE, SERIES, VERMILION

_GAUSS = math.sqrt(math.pi / 2)  # sigma / mean|w| of a Gaussian around 0
_ALONG = {"q": "row", "k": "row", "v": "row", "o": "column"}  # which slices run along the model dimension
_COLOURS = {"q": VERMILION, "k": BLUE, "v": GREEN, "o": PURPLE}
_READ = {"attn_input": "gain in front of attention", "mlp_input": "gain in front of the FFN"}


def spread(findings: Findings) -> list[Block]:
    """Draw sigma / mean of the attention matrices over the layers, along the model dimension and across it."""
    table = finite(findings["weights"].drop_nulls(["layer", "module"]), "sigma_over_mean")
    table = table.filter(pl.col("module").is_in(list(_ALONG)))
    along = pl.col("axis") == pl.col("module").replace_strict(_ALONG, default="", return_dtype=pl.String)
    sides = {
        "along the model dimension": table.filter(along),
        "across the heads": table.filter(~along, pl.col("axis") != "tensor"),
    }
    blocks = []
    for side, rows in sides.items():
        frame, lines = rows.select("layer").unique().sort("layer"), []
        for module, colour in _COLOURS.items():
            here = rows.filter(module=module).unique("layer", keep="first")
            if here.height:
                frame = frame.join(here.select("layer", pl.col("sigma_over_mean").alias(module)), "layer", how="left")
                lines.append(Line(module, f"W_{module}", colour))
        if not lines:
            continue
        frame = frame.with_columns(_gauss=pl.lit(_GAUSS))
        lines.append(Line("_gauss", f"Gaussian, {_GAUSS:.2f}", GREY, "dotted", dots=False))
        ends = extent(numbers(pl.concat([frame[line.column].alias("") for line in lines])))
        blocks.append(
            Block(
                f"sigma / mean of the attention matrices {side}",
                "Mean over the slices of each matrix; above the dotted line tails are fatter than a Gaussian's.",
                meaning("weights", "axis", "sigma_over_mean"),
                layer_lines(frame, lines, "sigma / mean", log=False, limits=ends),
                tuple(line.key for line in lines),
                f"Lines over layers. {peak(rows, 'sigma_over_mean', 'ratio', 'layer', 'module')}",
            )
        )
    return blocks


def sizes(findings: Findings) -> list[Block]:
    """Draw the RMS of h over the layers beside the mean gains of the norms that read it."""
    states = finite(findings["layers"].drop_nulls("layer").filter(pl.col("stream") == "residual"), "rms", "median")
    blocks = []
    if states.height:
        lines = (Line("rms", "RMS", VERMILION), Line("median", "median", GREY, "dashed"))
        blocks.append(
            Block(
                "Size of states",
                "Root mean square of h behind each layer, and the median |h|, which a few huge values do not move.",
                meaning("layers", "rms", "median"),
                layer_lines(states.unique("layer", keep="first"), lines, "|h|"),
                tuple(line.key for line in lines),
                f"Lines over layers. {peak(states, 'rms', 'RMS', 'layer')}",
            )
        )
    gains = finite(findings["norms"].drop_nulls(["layer", "norm"]).filter(pl.col("norm").is_in(list(_READ))), "mean")
    if gains.height:
        frame, keys = gains.select("layer").unique().sort("layer"), []
        for (norm, label), colour in zip(_READ.items(), SERIES, strict=False):
            here = gains.filter(norm=norm).unique("layer", keep="first")
            if here.height:
                frame = frame.join(here.select("layer", pl.col("mean").alias(norm)), "layer", how="left")
                keys.append(Line(norm, label, colour))
        ends = extent(numbers(gains["mean"]), zero=True)
        blocks.append(
            Block(
                "Mean gains of the norms that read h",
                "By what a norm multiplies what it has normalised, mean over the features.",
                meaning("norms", "mean", "num_negative"),
                layer_lines(frame, keys, "mean gain", log=False, limits=ends),
                tuple(line.key for line in keys),
                f"Lines over layers. {peak(gains, 'mean', 'mean gain', 'layer', 'norm')}",
            )
        )
    return blocks


SECTIONS = (
    Section(
        "depth",
        "Depth: states and gains",
        "How large states are behind each layer, and by what the norms that read them multiply.",
        ("layers", "norms"),
        "",
        sizes,
    ),
    Section(
        "spread",
        "Depth: distribution of weights",
        "Whether the weights of deep layers are nearer to a Gaussian than those of the first ones.",
        ("weights",),
        "",
        spread,
    ),
)
