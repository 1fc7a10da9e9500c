"""The table of attacks as table 1 of oh2024 has it: a row per attack, the clean model first, metrics as columns."""

import polars as pl

from monadnock.catalogue import published_attacks
from monadnock.report import attacks
from monadnock.report.attacks import CLEAN
from monadnock.report.parts import Cell, Listing

# Columns of the printed table: perplexities on texts, and accuracies in per cent.
_TEXTS = {"wikitext_ppl": "wikitext", "c4_ppl": "c4", "pg19_ppl": "pg19"}
_TASKS = ("arc_easy", "arc_challenge", "boolq", "piqa", "winogrande")


def published(model: str) -> tuple[str, pl.DataFrame]:
    """Return what oh2024 calls a model, and its attacks on it as rows like our own; no rows if it is not there."""
    printed = published_attacks(model)
    columns = [("perplexity", name, data, 1.0) for name, data in _TEXTS.items()]
    columns += [("acc", name, name, 0.01) for name in _TASKS]
    rows = [
        {"place": "", "mode": row["attack"], "k": row["k"], "metric": metric, "data": data, "value": row[name] * scale}
        for metric, name, data, scale in columns
        for row in printed.to_dicts()
    ]
    if not rows:
        return "", pl.DataFrame()
    clean = pl.col("value").filter(pl.col("mode") == CLEAN).first().over("metric", "data")
    table = pl.DataFrame(rows).with_columns(
        baseline=clean, error=pl.lit(None, pl.Float64), seeds=pl.lit(1), targets=pl.lit("")
    )
    return printed["model"][0], table


def listing(table: pl.DataFrame, columns: list[tuple[str, str]]) -> Listing:
    """Lay attacks out as rows, in the order of places, modes and k; a column `where` only if there are several layers.

    Args:
        table: one row per place, mode, k, metric and data, as from `findings.summary_attacks.averaged`.
        columns: which metrics on which data.
    """
    values = {(r["place"], r["mode"], r["k"], r["metric"], r["data"]): r for r in table.to_dicts()}
    values = {key: row for key, row in values.items() if key[3:] in columns}
    for name, data in columns:  # a clean model that has no row of its own is known from the attacks
        known = [row["baseline"] for key, row in values.items() if key[3:] == (name, data)]
        clean = next((value for value in known if value is not None), None)
        values.setdefault(("", CLEAN, 0, name, data), {"value": clean, "baseline": None})
    order = _ordered(list(dict.fromkeys(key[:3] for key in values)))
    several = len(attacks.layers(place for place, _, _ in order)) > 1
    rows = []
    for place, mode, k in order:
        cells = [Cell(attacks.label(mode, k)), *[Cell(place)] * several]
        cells += [_cell(values.get((place, mode, k, *column), {}), column[0], mode) for column in columns]
        rows.append(tuple(cells))
    datas = {name: [data for other, data in columns if other == name] for name, _ in columns}
    return Listing(
        heads=(
            "attack",
            *["where"] * several,
            *(attacks.heading(name, data, datas[name]) for name, data in columns),
        ),
        rows=tuple(rows),
        changes=(False, *[False] * several, *(attacks.metric(name).changes for name, _ in columns)),
        starts=frozenset(i for i in range(1, len(order)) if order[i][:2] != order[i - 1][:2]),
        words=1 + several,
    )


def _ordered(keys: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Sort attacks (place, mode, k): the clean model, then by place, mode and k."""
    places = attacks.ordered_places(place for place, mode, _ in keys if mode != CLEAN)
    modes = attacks.ordered_modes(mode for _, mode, _ in keys)
    return sorted(
        keys,
        key=lambda key: (-1, 0, 0) if key[1] == CLEAN else (places.index(key[0]), modes.index(key[1]), key[2]),
    )


def _cell(row: dict, name: str, mode: str) -> Cell:
    shown = attacks.metric(name)
    change = "" if mode == CLEAN else attacks.change(row.get("value"), row.get("baseline"), shown)
    return Cell(attacks.number(row.get("value"), shown), change)
