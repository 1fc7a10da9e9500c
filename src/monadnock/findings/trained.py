"""What trainings ended with: the last look at the outliers of each, over its layers."""

from typing import Any

import polars as pl

_WORST = ("ratio", "start_ratio", "kurtosis", "largest_sink", "gated_sink", "x_down")


def last_looks(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Return of each training its last look, the worst layer of each kind of outlier.

    Args:
        table: `training_outliers`.

    Returns:
        Rows with name, step, ratio (largest |h| over median |h|), start_ratio (the same of position 0), kurtosis, sinks
        and heads (of all layers), largest_sink, gated_sink and x_down.

    Example:
        >>> last_looks(run.table("training_outliers"))[0]["ratio"]  # doctest: +SKIP
        35.2
    """
    last = table.filter(pl.col("step") == pl.col("step").max().over("name"))
    return (
        with_ratios(last)
        .group_by("name", maintain_order=True)
        .agg(pl.col("step", *_WORST).max(), pl.col("sinks", "heads").sum())
        .to_dicts()
    )


def with_ratios(table: pl.DataFrame) -> pl.DataFrame:
    """Return looks with ratio and start_ratio: the largest |h|, of all and of position 0, over the median."""
    median = pl.when(pl.col("median") > 0).then(pl.col("median"))
    return table.with_columns(ratio=pl.col("top_1") / median, start_ratio=pl.col("start") / median)
