"""Sections on the weights: extremal ratios, 8-bit errors, norm gains, parameter counts."""

import polars as pl

from monadnock.report import text
from monadnock.report.bars import bars
from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Findings, Section, meaning
from monadnock.report.source import peak
from monadnock.report.theme import BLUE

_MODULES = ("q", "k", "v", "o", "gate", "up", "down", "router")
_MOST = 10
_NORMS = ("attn_input", "query", "key", "attn_output", "mlp_input", "mlp_output", "final")


def weights(findings: Findings) -> list[Block]:
    """Draw the extremal ratio of columns by layer and module (map, log) and the worst 8-bit errors (bars, per cent)."""
    blocks = []
    table = findings["weights"].drop_nulls(["layer", "module"])
    ratios = table.filter(pl.col("axis") == "column", pl.col("extremal_ratio").is_finite())
    ratios = ratios.sort("extremal_ratio", descending=True).unique(["layer", "module"], keep="first")
    if ratios.height:
        columns = ["layer", "module", "expert", "extremal_ratio", "index"]
        shown = {"layer": "layer", "module": "module", "largest over columns": "extremal_ratio", "column": "index"}
        if ratios["expert"].null_count() < ratios.height:
            shown["expert"] = "expert"
        order = _ordered(ratios["module"], _MODULES)
        blocks.append(
            Block(
                "Extremal ratio of columns",
                "The largest max|w| / mean|w| over the columns of each matrix, by layer and module (the worst expert).",
                meaning("weights", "axis", "extremal_ratio", "index"),
                layer_map(ratios.select(columns), "module", "module", "extremal_ratio", shown, log=True, factors=order),
                alt=f"Map of layers and modules. {peak(ratios, 'extremal_ratio', 'ratio', 'layer', 'module')}",
                wide=True,
            )
        )
    worst = table.filter(pl.col("axis") == "tensor", pl.col("w8_error").is_finite())
    worst = worst.sort("w8_error", descending=True).head(12)
    if worst.height:
        parts = (pl.format("layer {}, {}", "layer", "module"), pl.format(", expert {}", "expert"))
        named = worst.with_columns(name=pl.concat_str(*parts, ignore_nulls=True), percent=100 * pl.col("w8_error"))
        shown = {"matrix": "name", "error in %": "percent", "kurtosis": "kurtosis", "max / mean": "extremal_ratio"}
        blocks.append(
            Block(
                "Worst matrices for 8-bit weights",
                "The twelve matrices that lose most when rounded to 8 bits with one scale per tensor.",
                meaning("weights", "axis", "w8_error"),
                bars(named, "name", "percent", shown, x_label="relative error in %", group="module", colour=BLUE),
                alt=f"Bars. {peak(named, 'percent', 'error in per cent', 'name')}",
            )
        )
    return blocks


def norms(findings: Findings) -> list[Block]:
    """Draw the largest gain of every norm (map, log) and list the gains at massive features."""
    blocks = []
    table = findings["norms"].drop_nulls(["layer", "norm"]).unique(["layer", "norm"], keep="first")
    if table.height:
        shown = {name: name for name in ("layer", "norm", "max", "median", "mean", "min", "num_negative")}
        order = _ordered(table["norm"], _NORMS)
        blocks.append(
            Block(
                "Largest gain of every norm",
                "The largest gain of each norm, by layer.",
                meaning("norms", "norm", "max", "median", "num_negative"),
                layer_map(table, "norm", "norm", "max", shown, log=True, factors=order),
                alt=f"Map of layers and norms. {peak(table, 'max', 'gain', 'layer', 'norm')}",
            )
        )
    gains = findings["norm_gains"]
    massive = gains.filter(pl.col("massive_feature").fill_null(False))
    says = "Gains at the features that are massive in the residual of the start token, the largest ratios first."
    if massive.height > _MOST:
        says = f"{says[:-1]}; {_MOST} of {massive.height}."
    if massive.height:
        top = massive.sort("ratio", descending=True, nulls_last=True).head(_MOST).drop("massive_feature")
        blocks.append(Block("Gains at massive features", says, meaning("norm_gains", "norm", "gain", "ratio"), top))
    elif gains.height:
        says = "No norm gain belongs to a feature that is massive in the residual of the start token."
        blocks.append(Block("Gains at massive features", says))
    return blocks


def parameters(findings: Findings) -> list[Block]:
    """List the number of parameters by component, with the total."""
    table = findings["parameters"]
    tally = table.group_by("component", maintain_order=True).agg(
        pl.col("count").sum(), layers=pl.col("layer").drop_nulls().n_unique()
    )
    total = int(tally["count"].sum())
    tally = tally.with_columns(share=pl.col("count") / max(total, 1) * 100).sort("count", descending=True)
    rows = tally.select(
        "component",
        pl.when(pl.col("layers") > 0).then("layers").alias("in layers"),
        pl.col("count").cast(pl.Float64).alias("parameters"),
        pl.col("share").round(2).alias("share in %"),
    )
    end = {"component": "total", "in layers": None, "parameters": float(total), "share in %": 100.0}
    rows = pl.concat([rows, pl.DataFrame([end], schema=rows.schema)])
    says = f"{text.count(total, 'parameter')} by component."
    return [Block("Parameters by component", says, meaning("parameters", "component", "count"), rows)]


def _ordered(names: pl.Series, order: tuple[str, ...]) -> list[str]:
    """Return the names that occur, the known ones in their order and then the others."""
    present = names.unique(maintain_order=True).to_list()
    return [name for name in order if name in present] + [name for name in present if name not in order]


SECTIONS = (
    Section(
        "weights",
        "Weights",
        "Which matrices hold weights far above their neighbours, and what that costs in 8 bits.",
        ("weights",),
        "The table has no rows: no weight matrix was read.",
        weights,
    ),
    Section(
        "norms",
        "Norm gains",
        "Whether a norm's gain singles out a feature.",
        ("norms", "norm_gains"),
        "The model has no norm with a gain.",
        norms,
    ),
    Section(
        "parameters",
        "Parameters",
        "Where the model keeps its parameters.",
        ("parameters",),
        "The table has no rows: no parameter was counted.",
        parameters,
    ),
)
