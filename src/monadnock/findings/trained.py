"""What trainings ended with: the last look at the outliers of each, over its layers; which came to no end."""

from collections.abc import Mapping
from typing import Any

import polars as pl

_SEED = r",? ?seed \d+$"  # at the end of a training's name
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


def stopped(looks: pl.DataFrame) -> dict[str, str]:
    """Return where trainings stand that did not come to their end, in words, by their names.

    Args:
        looks: `training_outliers`.

    Example:
        >>> stopped(pl.DataFrame({"name": ["a", "b"], "step": [400, 9], "planned": [2000, 9]}))
        {'a': 'at step 400 of 2,000'}
    """
    last = looks.group_by("name", maintain_order=True).agg(pl.col("step", "planned").max())
    last = last.filter(pl.col("name").is_not_null(), pl.col("planned") > pl.col("step"))
    return {row["name"]: f"at step {row['step']:,} of {row['planned']:,}" for row in last.iter_rows(named=True)}


def with_kinds(table: pl.DataFrame, standing: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Return a table with the column kind: the training's name without its seed, so that seeds are taken together.

    Args:
        table: with names of trainings.
        standing: of `stopped`; such a training is a kind of its own, that says where it stands.

    Example:
        >>> with_kinds(pl.DataFrame({"name": ["gpt2 gate, seed 0"]}))["kind"].to_list()
        ['gpt2 gate']
    """
    name = pl.col("name").fill_null("")
    kind = name.str.replace(_SEED, "")
    for one, where in (standing or {}).items():
        kind = pl.when(name == one).then(pl.lit(f"{one} ({where})")).otherwise(kind)
    return table.with_columns(kind=kind)
