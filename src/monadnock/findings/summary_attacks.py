"""Attacks as people tell them: seeds averaged, the place that was attacked named, and the sentence of the summary."""

import math
import re
from collections.abc import Mapping

import polars as pl

from monadnock.findings import words
from monadnock.findings.manifest import Manifest

_CLEAN = "none"
_MOST_OF_IT = 0.8  # of the largest damage: the smallest k that does so much is told
_LITTLE = 0.1  # damage below which the largest k is told: about 10 % of the perplexity


def place(layer: int | None, expert: int | None, targets: str | None) -> str:
    """Return where an attack was in words; nothing where it was in no layer.

    Example:
        >>> place(11, None, "layer 11: 1229 1487"), place(None, None, "layer 2: 5; layer 11: 1229")
        ('layer 11', 'layers 2 and 11')
    """
    targets = targets or ""
    layers = sorted({int(found) for found in re.findall(r"\blayer (\d+)", targets)}) if layer is None else [layer]
    if not layers:
        return "all layers" if targets.startswith("all layers") else ""
    *most, last = layers
    name = f"layers {', '.join(map(str, most))} and {last}" if most else f"layer {last}"
    name = name if len(layers) <= 3 else f"{len(layers)} layers from {layers[0]} to {last}"
    experts = set(re.findall(r"\bexpert (\d+)", targets)) if expert is None else {expert}
    return f"{name}, expert {experts.pop()}" if len(experts) == 1 and not most else name


def placed(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table of attacks, each attack once, with its `place`; no mode, k, metric, data or prompt is missing.

    With growing k an attack keeps its first targets. Where some do not go on like that, they are another attack with
    the same mode, called `zero (2)`.
    """
    if "method" in table.columns:
        table = table.filter(pl.col("method").is_null()).drop("method")  # compressors are no attacks
    words = [name for name in ("metric", "data", "prompt") if name in table.columns]
    table = table.with_columns(pl.col("targets", *words).fill_null(""), pl.col("k").fill_null(0))
    named = [name for name in ("mode", "metric") if name in table.columns]
    table = table.with_columns(pl.col(named).replace("", None).fill_null("unnamed"))
    clean = pl.col("mode") == _CLEAN
    found = table.select("mode", "layer", "expert", "k", "seed", "targets").unique(maintain_order=True)
    where = pl.Series([place(*row) for row in found.select("layer", "expert", "targets").iter_rows()], dtype=pl.String)
    found = found.with_columns(place=where).with_columns(place=pl.when(clean).then(pl.lit("")).otherwise("place"))
    found = found.with_columns(name=pl.Series(_names(found.to_dicts()), dtype=pl.String))
    keys = ["mode", "layer", "expert", "k", "seed", "targets"]
    table = table.join(found, keys, how="left", nulls_equal=True, maintain_order="left")
    table = table.with_columns(mode="name").drop("name")
    return table.unique(["mode", "place", "k", "seed", "targets", *words], keep="last", maintain_order=True)


def _names(rows: list[dict]) -> list[str]:
    """Return the mode of every attack; those of one mode in one place that are not of its longest series bear a number.

    In a series each attack goes on from the targets of the one before.
    """
    found: dict[tuple[str, str], list[list[int]]] = {}
    names = [row["mode"] for row in rows]
    for number, row in sorted(enumerate(rows), key=lambda pair: pair[1]["k"]):
        if row["seed"] is not None or row["mode"] == _CLEAN:
            continue
        every = found.setdefault((row["mode"], row["place"]), [])
        mine = next((one for one in every if _continues(row["targets"], rows[one[-1]]["targets"])), None)
        if mine is None:
            every.append([number])
        else:
            mine.append(number)
    for every in found.values():
        for index, series in enumerate(sorted(every, key=len, reverse=True)[1:], 2):
            for number in series:
                names[number] += f" ({index})"
    return names


def _continues(longer: str, shorter: str) -> bool:
    parts, starts = longer.split("; "), shorter.split("; ")
    return len(parts) == len(starts) and all(
        f"{part} ".startswith(f"{start.rstrip()} ") for part, start in zip(parts, starts, strict=True)
    )


def averaged(effects: pl.DataFrame) -> pl.DataFrame:
    """Return one row per attack, metric and data, its seeds averaged.

    Returns:
        Columns place, mode, k, metric, data, value (the mean over seeds), baseline, error (null where several seeds
        were averaged), seeds (how many rows that was) and targets (of the first).
    """
    return (
        placed(effects)
        .group_by("place", "mode", "k", "metric", "data", maintain_order=True)
        .agg(
            pl.col("value").mean(),
            pl.col("baseline").drop_nulls().first(),
            pl.when(pl.len() == 1).then(pl.col("error").first()).alias("error"),
            seeds=pl.len(),
            targets=pl.col("targets").first(),
        )
    )


def attacks(_manifest: Manifest, tables: Mapping[str, pl.DataFrame]) -> str:
    """Say what zeroing the largest rows does, or else what the attack does that changes most; nothing if none was."""
    table = averaged(tables["effects"]).filter(pl.col("value").is_not_null())
    done = table.filter(pl.col("mode") != _CLEAN)
    if not done.height:
        return ""
    metric, data = _told(done)
    rows = [row | {"damage": _damage(row)} for row in done.filter(metric=metric, data=data).to_dicts()]
    named = metric != "perplexity" or done.filter(metric=metric)["data"].n_unique() > 1
    name = metric.replace("_", " ") + (f" of {data.partition(', ')[0]}" if named and data else "")
    zeroed = [row for row in rows if row["mode"] == "zero"]
    if not zeroed:
        worst = max(rows, key=lambda row: row["damage"])
        where = f" in {worst['place']}" if worst["place"] else ""
        return f"{worst['mode']} with k = {worst['k']}{where} takes {name} {_from_to(worst)}."
    chosen = [_strongest([row for row in zeroed if row["place"] == where]) for where in _unique(zeroed, "place")]
    chosen.sort(key=lambda row: -row["damage"])
    first = chosen[0]
    here = [row for row in rows if row["place"] == first["place"]]
    parts = [f"zeroing {_rows(first['k'])} of {first['place'] or 'the model'} takes {name} {_from_to(first)}"]
    parts += _kept(here, first["k"]) + _control(here) + _chain(done, first)
    parts += [
        f"in {row['place'] or 'no one layer'}, zeroing {_rows(row['k'])} takes {name} {_from_to(row)}"
        for row in chosen[1:3]
    ]
    return "; ".join(parts) + "."


def _told(table: pl.DataFrame) -> tuple[str, str]:
    """Choose the metric and data to tell: perplexity, else the first one of a row that was zeroed, else the first."""
    first = table.sort(pl.col("metric") != "perplexity", pl.col("mode") != "zero", maintain_order=True)
    return first["metric"][0], first["data"][0]


def _unique(rows: list[dict], name: str) -> list:
    return list(dict.fromkeys(row[name] for row in rows))


def _damage(row: dict) -> float:
    """Return how far a value is from the clean one: |ln ratio| of perplexities, else the difference."""
    value, clean = row["value"], row["baseline"]
    if not math.isfinite(value):
        return math.inf
    if clean is None or not math.isfinite(clean):
        return 0.0
    if row["metric"] == "perplexity" and value > 0 and clean > 0:
        return abs(math.log(value) - math.log(clean))
    return abs(value - clean)


def _strongest(rows: list[dict]) -> dict:
    """Return the row with the smallest k that does most of the damage; the largest k where none does any."""
    rows = sorted(rows, key=lambda row: row["k"])
    most = max(row["damage"] for row in rows)
    if most < _LITTLE:
        return rows[-1]
    return next(row for row in rows if row["damage"] >= _MOST_OF_IT * most)


def _kept(rows: list[dict], k: int) -> list[str]:
    kept = sorted((row for row in rows if row["mode"] == "retain"), key=lambda row: (row["k"] < k, row["k"]))
    if not kept:
        return []
    what = _rows(kept[0]["k"]) if kept[0]["k"] != k else "it" if k == 1 else "them"
    return [f"keeping only {what} gives {_number(kept[0]['value'], kept[0]['metric'])}"]


def _control(rows: list[dict]) -> list[str]:
    drawn = [row for row in rows if row["mode"] == "random"]
    if not drawn:
        return []
    most = max(drawn, key=lambda row: row["k"])
    noun = "random row" if most["k"] == 1 else "random rows"
    return [f"zeroing {most['k']} {noun} gives {_number(most['value'], most['metric'])}"]


def _chain(table: pl.DataFrame, attack: dict) -> list[str]:
    """Say what becomes of the massive activation and of the sinks under one attack."""
    same = table.filter(*(pl.col(name) == attack[name] for name in ("place", "mode", "k")))
    found = {row["metric"]: row for row in same.reverse().to_dicts()}
    names = {"top1_h": "the largest |h|", "sink_share": "the share of heads with a sink"}
    return [f"{name} goes {_from_to(found[metric])}" for metric, name in names.items() if metric in found]


def _rows(k: int) -> str:
    return "the largest row" if k == 1 else f"the {k} largest rows"


def _from_to(row: dict) -> str:
    clean = "" if row["baseline"] is None else f"from {_number(row['baseline'], row['metric'])} "
    return f"{clean}to {_number(row['value'], row['metric'])}"


def _number(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    if (metric.startswith("acc") or metric in ("sink_share", "top1_agreement")) and 0 <= value <= 1:
        return f"{value:.0%}"
    return words.number(value)
