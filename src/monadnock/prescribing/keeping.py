"""Which modules stay in 16 bits: those of which rounding costs far more than of others, within a budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from monadnock.prescribing.bounds import KEEP_RATIO, KEEP_SHARE
from monadnock.prescribing.noise import KEY, MIN_MATRICES, WEIGHTS, WRITER, Noise, noise
from monadnock.prescribing.prescription import Findings, Prescription, place

# Matrices that servers hold as one (vLLM does, and refuses a checkpoint that keeps a part of one only).
QKV, MLP, IN_EXPERTS = frozenset("qkv"), frozenset({"gate", "up"}), frozenset({"gate", "up", "down"})
FUSED = dict.fromkeys("qkv", QKV) | dict.fromkeys(("gate", "up"), MLP)
EXPERTS = "all experts"
BITS = 16.0


@dataclass(frozen=True)
class Unit:
    """Matrices that are kept together: their layer, what they are, all their roles, and rows, the noisiest first."""

    layer: int
    kind: str
    modules: frozenset[str]
    rows: tuple[dict, ...]

    @property
    def worst(self) -> dict:
        """The row of its noisiest matrix."""
        return self.rows[0]

    def share(self, counts: Mapping[tuple[int, str], int]) -> float:
        """Return its share of the weights of all blocks."""
        return sum(counts.get((self.layer, module), 0) for module in self.modules) / max(sum(counts.values()), 1)


def keep_modules(found: Findings) -> list[Prescription]:
    """Say which modules stay in 16 bits.

    A matrix stands out if its noise (see `monadnock.prescribing.noise.noise`) is over `KEEP_RATIO` times that of the
    median matrix. The noisiest are kept first, together with those that servers hold in one matrix with them, as long
    as all that is kept has at most `KEEP_SHARE` of the weights of the blocks.
    """
    judged = noise(found)
    if judged is None:
        measured = any(found.get(name) is not None for name in ("sensitivity", "compressions"))
        few = f"was measured in fewer than {MIN_MATRICES} matrices of one setting, too few for a median"
        told = f"What rounding costs {few if measured else 'was not measured'}; "
        told += f"{found.command('sensitivity')} measures every matrix."
        return [Prescription("not_judged", told)]
    told = judged.table.filter(pl.col("noise").is_finite()).sort("noise", *KEY, descending=[True, *[False] * len(KEY)])
    median = told["noise"].median()
    if not isinstance(median, float):
        return [Prescription("not_judged", "What rounding costs is not a number in any matrix.")]
    bound = KEEP_RATIO * median
    units = _units(found, told)
    beyond = [unit for unit in units if unit.worst["noise"] > bound]
    if not beyond:
        return [_none(found, judged, told.row(0, named=True), bound, told.height)]
    counts = _counts(found, units)
    kept: list[Unit] = []
    for unit in beyond:
        if sum(each.share(counts) for each in kept) + unit.share(counts) <= KEEP_SHARE:
            kept.append(unit)
    rest = [unit for unit in beyond if unit not in kept]
    rows = [row for unit in kept for row in _kept(judged, unit, bound)]
    return rows + ([_no_room(judged, rest, bound, counts)] if rest else [])


def _units(found: Findings, told: pl.DataFrame) -> list[Unit]:
    """Return what can be kept apart, the noisiest first."""
    counted = found.get("parameters")
    present = {*told["module"], *(() if counted is None else counted["component"])} & set(WRITER)
    parts: dict[tuple[int, frozenset[str]], list[dict]] = {}
    for row in told.to_dicts():
        together = IN_EXPERTS if row["expert"] is not None else FUSED.get(row["module"], frozenset())
        parts.setdefault((row["layer"], frozenset(together & present | {row["module"]})), []).append(row)
    return [
        Unit(layer, EXPERTS if rows[0]["expert"] is not None else listed(modules), modules, tuple(rows))
        for (layer, modules), rows in parts.items()
    ]


def listed(modules: frozenset[str]) -> str:
    """Name roles in their order.

    Example:
        >>> listed(frozenset({"k", "q", "v"}))
        'q, k and v'
    """
    *first, last = [role for role in WRITER if role in modules] or sorted(modules)
    return f"{', '.join(first)} and {last}" if first else last


def _counts(found: Findings, units: list[Unit]) -> dict[tuple[int, str], int]:
    """Return the weights of each matrix; without the table `parameters` each measured one counts as one."""
    counted = found.get("parameters")
    if counted is None:
        return {(unit.layer, row["module"]): 1 for unit in units for row in unit.rows}
    rows = counted.filter(pl.col("component").is_in(list(WRITER)), pl.col("layer").is_not_null())
    return {(row["layer"], row["component"]): row["count"] for row in rows.to_dicts()}


def _kept(judged: Noise, unit: Unit, bound: float) -> list[Prescription]:
    """Say why a unit is kept, one row for each of its matrices; for experts one row for all."""
    told = []
    for row in unit.rows[:1] if unit.kind == EXPERTS else unit.rows:
        loud = row["noise"] > bound
        reason = _why(judged, row, bound) if loud else f"Kept with {_place(unit.worst)}."
        if unit.kind == EXPERTS:
            reason += " Servers such as vLLM give all experts of a layer one scheme: all are kept."
        elif len(unit.modules) > 1:
            reason += f" Servers such as vLLM hold {unit.kind} as one matrix."
        told.append(_row("keep_module", judged, row, bound, reason, BITS))
    return told


def _row(action: str, judged: Noise, row: dict, bound: float, reason: str, amount: float | None = None) -> Prescription:
    """Fill in a prescription about one matrix; of weights alone, the number is that of the table."""
    value = row["noise"]
    if judged.evidence == WEIGHTS:
        value, bound = math.sqrt(value), math.sqrt(bound)
    at = {key: row[key] for key in (*KEY, "name")}
    return Prescription(action, reason, judged.evidence, value, bound, amount, **at)


def _why(judged: Noise, row: dict, bound: float) -> str:
    times = row["noise"] / bound * KEEP_RATIO if bound else math.inf
    told = f"Rounding {_place(row)} makes noise of {row['noise']:.2g} of {judged.of}, {times:,.0f} times that of the "
    return told + f"median matrix ({judged.how}).{_caution(judged)}"


def _caution(judged: Noise) -> str:
    """Say what the evidence leaves out."""
    if judged.evidence == WEIGHTS:
        return " What the inputs make of it is not known; `monadnock sensitivity` measures it."
    if "layers.median" not in judged.evidence:
        return " The sizes of the residual are not known, so that layers hardly compare; a scan has them."
    return ""


def _none(found: Findings, judged: Noise, worst: dict, bound: float, count: int) -> Prescription:
    told = (
        f"No module stands out: of {count} matrices {_place(worst)} makes the most noise, {worst['noise']:.2g} of "
        f"{judged.of}, at most {KEEP_RATIO:g} times the median ({judged.how})."
    )
    if judged.evidence == WEIGHTS:
        told += f" This says little, as inputs are not weighed; {found.command('sensitivity')} weighs them."
    return _row("no_module", judged, worst, bound, told)


def _no_room(judged: Noise, rest: list[Unit], bound: float, counts: Mapping[tuple[int, str], int]) -> Prescription:
    named = [f"{unit.kind} of layer {unit.layer}" for unit in rest[:6]]
    more = f"; and {len(rest) - 6} more" if len(rest) > 6 else ""
    share = sum(unit.share(counts) for unit in rest)
    told = (
        f"Over the bound as well, but with these more than {KEEP_SHARE:.0%} of the weights would stay in 16 bits "
        f"(they have {share:.1%}): {'; '.join(named)}{more}."
    )
    return _row("no_room", judged, rest[0].worst, bound, told)


def _place(row: dict) -> str:
    return place(row["layer"], row["module"], row["expert"])
