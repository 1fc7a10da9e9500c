"""What changed most between a run and the first one: what was gained, what was lost, and where numbers moved."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from monadnock.findings.words import listed
from monadnock.relations.compare_join import Side, difference, join, overview, ratio, together
from monadnock.relations.compare_tables import COMPARED, Compared, Value
from monadnock.relations.compare_words import number, signed, times, where

_FEW = 4  # what was gained or lost is named in a sentence up to this number, and else only counted
_COLUMNS = {
    **dict.fromkeys(("run", "table", "what", "how", "where", "before", "after"), pl.String),
    **dict.fromkeys(("difference", "ratio"), pl.Float64),
}


@dataclass(frozen=True)
class _Told:
    """The changes of one column of a run against the first, the largest first.

    For flags, `same` are the places that have it in both, and `had` counts those of the first; else `had` counts the
    rows that both have.
    """

    run: str
    spec: Compared
    value: Value
    rows: list[dict[str, Any]]
    same: list[str]
    had: int

    def count(self, how: str) -> int:
        return sum(row["how"] == how for row in self.rows)


def changes(sides: Sequence[Side], most: int = 5) -> pl.DataFrame:
    """List for every run what was gained, lost or changed most against the first run.

    Args:
        sides: the runs.
        most: how many rows are listed of a kind at most.

    Returns:
        Columns run, table, what, how (gained, lost or changed), where, before and after (as text), difference and
        ratio (null for what is no number); within a kind the largest change comes first.
    """
    rows = []
    for told in _told(sides):
        for how in ("lost", "gained", "changed"):
            mine = [row for row in told.rows if row["how"] == how][:most]
            rows += [{"run": told.run, "table": told.spec.table, "what": told.value.told} | row for row in mine]
    return pl.DataFrame(rows, _COLUMNS)


def sentences(sides: Sequence[Side]) -> dict[str, list[tuple[str, str]]]:
    """Say for every run but the first what changed, as pairs of a topic and a sentence."""
    lines: dict[str, list[tuple[str, str]]] = {side.name: [] for side in sides[1:]}
    tables = overview(sides).with_columns(unlike=pl.col("only_first") + pl.col("only_here") + pl.col("different"))
    alike = [name for name in lines if tables.filter(run=name).height and not tables.filter(run=name)["unlike"].sum()]
    for name in alike:
        lines[name].append(
            ("Nothing", f"no row differs from {sides[0].name} in {tables.filter(run=name).height} tables.")
        )
    same: dict[str, list[str]] = {}
    for told in _told(sides):
        if not told.value.topic or told.run in alike or not (told.had or told.rows or told.value.change == "flag"):
            continue
        if told.rows or told.value.change == "flag":
            lines[told.run].append((told.value.topic, f"{_say(told)}."))
        else:
            topic = told.value.topic
            same.setdefault(told.run, []).append(topic[:1].lower() + topic[1:])
    for run, topics in same.items():
        lines[run].append(("No change", f"{listed(topics, len(topics))}."))
    return lines


def _told(sides: Sequence[Side]) -> list[_Told]:
    """Return the changes of all columns whose changes are told, for each run against the first."""
    kinds = {"flag": _flags, "name": _names}
    return [
        kinds.get(value.change, _numbers)(sides[0], side, spec, value)
        for spec in COMPARED
        for side in together(sides, spec)[1:]
        for value in spec.values
        if value.told
    ]


def _flags(first: Side, side: Side, spec: Compared, value: Value) -> _Told:
    keys = list(value.per or spec.keys)
    sizes, has = [], []
    for each in (first, side):
        rows = each.rows(spec).with_columns(_size=pl.col(value.size).abs())
        sizes.append(dict(_by_key(rows, keys)))
        has.append(dict(_by_key(rows.filter(pl.col(value.column)), keys)))
    place = lambda key: where(spec, dict(zip(keys, key, strict=True)), keys)  # noqa: E731
    rows = []
    for how, here, there in (("lost", has[0], has[1]), ("gained", has[1], has[0])):
        for key in sorted(here.keys() - there.keys(), key=lambda key: (-(here[key] or 0), str(key))):
            before, after = (known.get(key) for known in sizes)
            rows.append(_row(how, place(key), before, after))
    same = [place(key) for key in has[0] if key in has[1]]
    return _Told(side.name, spec, value, rows, same, len(has[0]))


def _by_key(rows: pl.DataFrame, keys: list[str]) -> list[tuple[tuple, float | None]]:
    found = rows.group_by(keys, maintain_order=True).agg(pl.col("_size").max())
    return [(row[:-1], row[-1]) for row in found.iter_rows()]


def _names(first: Side, side: Side, spec: Compared, value: Value) -> _Told:
    frame = join([first, side], spec, value.column).drop_nulls([first.name, side.name])
    unlike = frame.filter(pl.col(first.name) != pl.col(side.name))
    rows = [
        {"how": "changed", "where": where(spec, row, spec.keys), "before": row[first.name], "after": row[side.name]}
        for row in unlike.to_dicts()
    ]
    return _Told(side.name, spec, value, rows, [], frame.height)


def _numbers(first: Side, side: Side, spec: Compared, value: Value) -> _Told:
    frame = join([first, side], spec, value.column)
    for key, only in value.only.items():
        frame = frame.filter(pl.col(key) == only)
    frame = frame.drop_nulls([first.name, side.name])
    before, after = pl.col(first.name), pl.col(side.name)
    size = (after - before).abs()
    if value.change == "ratio":
        size = size / pl.min_horizontal(before.abs(), after.abs())
    size = pl.when(size.is_finite()).then(size).otherwise(math.inf)  # from or to zero, infinity or NaN
    unlike = frame.filter(before.ne_missing(after)).sort(size, descending=True, maintain_order=True)
    keys = [key for key in spec.keys if key not in value.only]
    rows = [
        _row("changed", where(spec, row, keys), row[first.name], row[side.name])
        | {
            "difference": row[difference(side.name, first.name)],
            "ratio": row[ratio(side.name, first.name)],
        }
        for row in unlike.to_dicts()
    ]
    return _Told(side.name, spec, value, rows, [], frame.height)


def _row(how: str, place: str, before: float | None, after: float | None) -> dict[str, Any]:
    texts = ["not listed" if value is None else number(value) for value in (before, after)]
    return {"how": how, "where": place, "before": texts[0], "after": texts[1]}


def _say(told: _Told) -> str:
    """Return a sentence on the changes of one column, without its full stop."""
    if told.value.change == "flag":
        return _say_flags(told)
    if told.value.change == "name":
        turns = Counter(f"from {row['before']} to {row['after']}" for row in told.rows).most_common()
        turned = listed([f"{count} {turn}" for turn, count in turns], _FEW)
        return f"{len(told.rows)} of {told.had} changed: {turned}"
    parts = [f"{row['where']}: {row['before']} to {row['after']}{_by(told.value, row)}" for row in told.rows]
    return ("most in " if told.value.named == 1 else "") + "; ".join(parts[: told.value.named])


def _say_flags(told: _Told) -> str:
    if not told.rows:
        return f"the same {len(told.same)} in both{_few(told.same)}" if told.same else "none in either"
    parts = []
    for how, of in (("lost", f" of {told.had}"), ("gained", "")):
        places = [row["where"] for row in told.rows if row["how"] == how]
        parts.append(f"{len(places) or 'none'}{of if places else ''} {how}{_few(places)}")
    return f"{', '.join(parts)}; {len(told.same) + told.count('gained')} now"


def _few(places: list[str]) -> str:
    return f" ({'; '.join(places)})" if 0 < len(places) <= _FEW else ""


def _by(value: Value, row: dict[str, Any]) -> str:
    by = signed(row["difference"]) if value.change == "difference" else times(row["ratio"])
    return f" ({by})"
