"""Trainings in sentences: fine-tunings, what zeroed rows leave of them, and outliers of models in training."""

from collections.abc import Mapping

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.findings.trained import last_looks, stopped, with_kinds
from monadnock.findings.words import listed, number

Tables = Mapping[str, pl.DataFrame]


def finetuning(_manifest: Manifest, tables: Tables) -> str:
    """Say what training gave, seeds taken together."""
    table = with_kinds(tables["finetunings"])
    told = []
    for (kind,), rows in table.group_by("kind", maintain_order=True):
        before, after = (_mean(rows[name]) for name in ("before", "after"))
        seeds = f" (mean of {rows.height} seeds)" if rows.height > 1 else ""
        told.append(f"{kind} from {before} to {after}{seeds}")
    return f"the loss of answers that were held back goes with {listed(told)}." if told else ""


def robustness(_manifest: Manifest, tables: Tables) -> str:
    """Say what perplexity is left when most massive rows are set to zero, after merging."""
    table = tables["robustness"].filter(pl.col("metric") == "perplexity", pl.col("value").is_finite())
    table = with_kinds(table.filter(pl.col("order") == "merged"))
    if table.is_empty():
        return ""
    most = max(table["zeroed"].to_list())
    table = table.filter(pl.col("zeroed") == most)
    told = [f"{_mean(rows['value'])} with {kind}" for (kind,), rows in table.group_by("kind", maintain_order=True)]
    base = _mean(table["base"])
    return f"with {most} massive rows set to zero, perplexity is {base} without adapter, {listed(told)}."


def training(_manifest: Manifest, tables: Tables) -> str:
    """Say what outliers models in training ended with, seeds taken together."""
    looks = last_looks(tables["training_outliers"].filter(pl.col("name").is_not_null()))
    standing = stopped(tables["training_outliers"])
    table = with_kinds(pl.DataFrame(looks, infer_schema_length=None), standing) if looks else pl.DataFrame()
    told = []
    for (kind,), rows in table.group_by("kind", maintain_order=True) if looks else ():
        known = rows.filter(pl.col("ratio").is_finite(), pl.col("heads") > 0)
        if known.height:
            share = sum(known["sinks"].to_list()) / sum(known["heads"].to_list())
            told.append(f"{kind} {_mean(known['ratio'])} ({share:.0%} of the heads)")
    if not told:
        return ""
    return f"largest |h| over its median at the last look (and heads with a sink): {listed(told, 9)}."


def _mean(values: pl.Series) -> str:
    found = values.to_list()
    return number(sum(found) / len(found))
