"""What keeps the numbers of several runs from being comparable, said plainly, from what their manifests know."""

from collections.abc import Callable, Sequence

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.findings.words import listed
from monadnock.relations.compare_join import MISSING, Side, left_out
from monadnock.relations.compare_tables import COMPARED

_FEW = 6  # tables that are named
_DTYPES = "small changes are rounding, and a head near the bound may gain or lose its sink by it"
_TEXTS = "what was measured over them is not comparable number by number; what was read from the weights is"


def warnings(sides: Sequence[Side]) -> list[str]:
    """Say in sentences what differs between runs so that their numbers are not comparable."""
    told = [_texts(sides)]
    told.append(_differ(sides, "Families differ", lambda m: m.model.family, "an index names another head or feature"))
    told.append(_differ(sides, "Dtypes differ", lambda m: m.model.dtype, _DTYPES))
    told.append(_thresholds(sides))
    told.append(_attack_texts(sides))
    told += [
        f"NaN or infinity was met in {side.tables['nonfinite'].height} places of {side.name}: see its own report."
        for side in sides
        if "nonfinite" in side.tables and side.tables["nonfinite"].height
    ]
    return [sentence for sentence in told if sentence]


def remarks(sides: Sequence[Side]) -> list[str]:
    """Say in sentences what is left out of the comparison, or how it is made instead."""
    told = [
        _same_folder(sides),
        _differ(
            sides,
            "Shapes differ",
            lambda m: f"{m.model.num_layers} layers, {m.model.num_heads} heads, width {m.model.hidden_size}",
            "tables by layer and head are not joined, and curves are drawn over the relative depth",
        ),
        _differ(
            sides, "Written by different versions", lambda m: m.monadnock, "a measure may have changed between them"
        ),
    ]
    told += _missing(sides)
    unlike = left_out(sides).filter(~pl.col("why").str.ends_with(MISSING))
    told += [
        f"Not joined, as {why}: {listed(rows['table'].to_list(), _FEW)}."
        for (why,), rows in unlike.group_by("why", maintain_order=True)
    ]
    return [sentence for sentence in told if sentence]


def _missing(sides: Sequence[Side]) -> list[str]:
    """Say which tables are not in which runs."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for spec in COMPARED:
        without = tuple(side.name for side in sides if spec.table not in side.tables)
        if without and len(without) < len(sides):
            groups.setdefault(without, []).append(spec.table)
    return [f"Not measured in {listed(names, len(names))}: {', '.join(tables)}." for names, tables in groups.items()]


def _same_folder(sides: Sequence[Side]) -> str:
    for place, side in enumerate(sides):
        twins = [other.name for other in sides[:place] if other.path.resolve() == side.path.resolve()]
        if twins:
            return f"{side.name} is the same folder as {twins[0]}."
    return ""


def _texts(sides: Sequence[Side]) -> str:
    """Name what differs about the scanned tokens, and what that means."""
    if len({(m.text.token_hash, m.text.num_windows, m.text.length) for m in _manifests(sides)}) == 1:
        return ""
    parts: list[Callable[[Manifest], str]] = [
        lambda m: f"{m.text.num_windows} x {m.text.length} tokens",
        lambda m: m.text.source,
        lambda m: "BOS in front" if m.text.bos else "no BOS in front",
        lambda m: f"seed {m.text.seed}",
        lambda m: f"a vocabulary of {m.model.vocab_size:,}",
    ]
    unlike = [part for part in parts if len({part(m) for m in _manifests(sides)}) > 1]
    unlike = unlike or [lambda m: f"ids {m.text.token_hash[:8]}"]
    return _differ(sides, "The scanned tokens differ", lambda m: ", ".join(part(m) for part in unlike), _TEXTS)


def _attack_texts(sides: Sequence[Side]) -> str:
    """Say if attacks on one run were measured over none of the texts of another."""
    seen = [{series.text.token_hash for series in side.manifest.attacks} for side in sides]
    apart = [side.name for side, texts in zip(sides, seen, strict=True) if texts and seen[0] and not texts & seen[0]]
    if not apart:
        return ""
    whose = listed(apart, len(apart))
    return f"Attacks on {whose} saw other tokens than those on {sides[0].name}: do not compare perplexities."


def _thresholds(sides: Sequence[Side]) -> str:
    names = sorted({name for m in _manifests(sides) for name in m.thresholds})
    unlike = [
        name for name in names if len({m.thresholds[name] for m in _manifests(sides) if name in m.thresholds}) > 1
    ]
    if not unlike:
        return ""
    values = lambda m: ", ".join(f"{name} = {m.thresholds.get(name, 'none')}" for name in unlike)  # noqa: E731
    return _differ(sides, "Thresholds differ", values, "what was counted by them is not comparable")


def _differ(sides: Sequence[Side], what: str, fact: Callable[[Manifest], str], so: str) -> str:
    """Return `what (A: x; B and C: y): so.` if a fact is not the same in all runs."""
    groups: dict[str, list[str]] = {}
    for side in sides:
        groups.setdefault(fact(side.manifest), []).append(side.name)
    if len(groups) == 1:
        return ""
    return f"{what} ({'; '.join(f'{listed(names, len(names))}: {value}' for value, names in groups.items())}): {so}."


def _manifests(sides: Sequence[Side]) -> list[Manifest]:
    return [side.manifest for side in sides]
