"""Whether outliers of one kind are where those of another are (an2025, table 1 and appendix B.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from monadnock.catalogue import published_consistency
from monadnock.findings.summary import LISTED_ENTRIES
from monadnock.thresholds import COLUMN_RATIO, GU2025_SINK_MASS

W, X, H, A = (
    "weight outliers in W_down",
    "activation outliers in x_down",
    "activation outliers in h",
    "attention outliers in A",
)
NEEDED = ("weight_outliers", "activations", "attention")


@dataclass(frozen=True)
class Criterion:
    """What counts as an outlier of each kind: an expression for its table, and the name of the whole."""

    name: str
    weight: pl.Expr
    activation: pl.Expr
    attention: pl.Expr


CRITERIA = (
    Criterion("an2025", pl.col("outlier"), pl.col("criterion").str.contains("an2025"), pl.col("outlier")),
    Criterion(
        "column_ratio+sun2024+gu2025",
        pl.col("column_ratio") > COLUMN_RATIO,
        pl.col("criterion").str.contains("sun2024"),
        pl.col("normalized") > GU2025_SINK_MASS,
    ),
)


def consistency(tables: Mapping[str, pl.DataFrame]) -> list[dict]:
    """Return the rows of table `consistency` from the tables of a scan; none if one that is needed is missing.

    For each matrix, or each sample (and head): |O_1 and O_2| / |O_1|, where O are features or positions; then the mean
    over those that have an outlier of the first kind. The paper looks at activations and attention of one layer; but
    the attention of a layer reads what the layer before gives, so that both are told.

    Args:
        tables: `weight_outliers`, `activations` and `attention` of a run.

    Example:
        >>> consistency({})
        []
    """
    if any(name not in tables for name in NEEDED):
        return []
    published = published_consistency()
    return [
        {
            "outlier_1": first,
            "outlier_2": second,
            "dimension": "feature" if first == W else "sequence",
            "criterion": criterion.name,
            "layers": layers,
            **shares,
            "published": published[first, second],
        }
        for criterion in CRITERIA
        for first, second, layers, shares in _pairs(criterion, tables)
    ]


def _pairs(criterion: Criterion, tables: Mapping[str, pl.DataFrame]) -> list[tuple[str, str, str, dict]]:
    weights = tables["weight_outliers"].filter(criterion.weight)
    entries = tables["activations"].filter(criterion.activation.fill_null(False))
    inner = entries.filter(pl.col("stream") == "down_proj_input")
    residual = entries.filter(pl.col("stream") == "residual")
    attention = tables["attention"].filter(pl.col("head").is_not_null())
    keys = attention.filter(criterion.attention.fill_null(False))
    sequences = tables["activations"].select("sequence").unique()  # every sample is a group, also one without outliers
    heads = attention.select("layer", "sequence", "head").unique()
    columns = weights.join(sequences, how="cross")
    matrix = ["layer", "expert", "sequence"]
    full = {name: _full(tables["activations"], name, criterion) for name in ("down_proj_input", "residual")}
    pairs = [
        (W, X, "same", _shared(columns, inner, "column", "feature", matrix)),
        (W, H, "same", _shared(columns, residual, "row", "feature", ["layer", "sequence"])),
        (X, H, "same", _shared(inner, residual, "position", "position", ["layer", "sequence"])),
        (H, A, "same", _of_heads(residual, keys, heads)),
        (H, A, "next", _of_heads(residual.with_columns(pl.col("layer") + 1), keys, heads)),
    ]
    capped = {W: 0, X: full["down_proj_input"], H: full["residual"], A: 0}
    return [(*pair[:3], pair[3] | {"num_capped": max(capped[pair[0]], capped[pair[1]])}) for pair in pairs]


def _full(activations: pl.DataFrame, stream: str, criterion: Criterion) -> int:
    """Count the samples (layer and window) whose list of entries ends with an outlier, so that more may follow."""
    last = activations.filter(pl.col("stream") == stream, pl.col("rank") == LISTED_ENTRIES)
    return last.filter(criterion.activation.fill_null(False)).height


def _of_heads(residual: pl.DataFrame, keys: pl.DataFrame, heads: pl.DataFrame) -> dict:
    by_head = residual.select("layer", "sequence", "position").unique().join(heads, on=["layer", "sequence"])
    return _shared(by_head, keys, "position", "position", ["layer", "sequence", "head"])


def _shared(first: pl.DataFrame, second: pl.DataFrame, one: str, other: str, group: list[str]) -> dict:
    """Return the mean over groups of the share of the first's distinct `one` that are among the second's `other`."""
    found = first.select(*group, place=pl.col(one)).unique()
    if not found.height:
        return {"consistency": None, "num_outliers": 0, "num_groups": 0}
    known = second.select(*group, place=pl.col(other)).unique().with_columns(hit=pl.lit(1.0))
    joined = found.join(known, on=[*group, "place"], how="left", nulls_equal=True)
    shares = joined.group_by(group).agg(pl.col("hit").fill_null(0).mean())["hit"].to_list()
    return {
        "consistency": 100 * sum(shares) / len(shares),
        "num_outliers": found.height,
        "num_groups": len(shares),
    }
