"""Which modules stay in 16 bits: those of which rounding costs far more than of others, within a budget."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from monadnock.prescribing.bounds import KEEP_RATIO, KEEP_SHARE
from monadnock.prescribing.noise import KEY, Noise, noise
from monadnock.prescribing.prescription import Findings, Prescription, place

# Matrices that servers hold as one (vLLM does, and refuses a checkpoint that keeps a part of one only).
FUSED = {"q": "q, k and v", "k": "q, k and v", "v": "q, k and v", "gate": "gate and up", "up": "gate and up"}
EXPERTS = "all experts"
OUTPUT = ("o", "down")


@dataclass(frozen=True)
class Unit:
    """Matrices that are kept together: layer, what they are, and their rows, the noisiest first."""

    layer: int
    kind: str
    rows: tuple[dict, ...]

    @property
    def worst(self) -> dict:
        """The row of its noisiest matrix."""
        return self.rows[0]

    def share(self, counts: Mapping[tuple[int, str], int]) -> float:
        """Return its share of the weights of all blocks."""
        modules = {row["module"] for row in self.rows}
        return sum(counts.get((self.layer, module), 0) for module in modules) / max(sum(counts.values()), 1)


def keep_modules(found: Findings) -> list[Prescription]:
    """Say which modules stay in 16 bits.

    A matrix stands out if its noise (see `monadnock.prescribing.noise.noise`) is over `KEEP_RATIO` times that of the
    median matrix. The noisiest are kept first, together with those that servers hold in one matrix with them, as long
    as all that is kept has at most `KEEP_SHARE` of the weights of the blocks.
    """
    judged = noise(found)
    if judged is None:
        told = f"What rounding costs was not measured; {found.command('sensitivity')} does it for every matrix."
        return [Prescription("not_judged", told)]
    told = judged.table.filter(pl.col("noise").is_finite()).sort("noise", descending=True)
    if told.is_empty():
        return [Prescription("not_judged", "What rounding costs is not a number in any matrix.")]
    median = told["noise"].median()
    bound = KEEP_RATIO * (float(median) if isinstance(median, float) else 0.0)
    units = _units(told)
    beyond = [unit for unit in units if unit.worst["noise"] > bound]
    if not beyond:
        return [_none(judged, told.row(0, named=True), bound, told.height)]
    counts = _counts(found, units)
    kept: list[Unit] = []
    for unit in beyond:
        if sum(each.share(counts) for each in kept) + unit.share(counts) <= KEEP_SHARE:
            kept.append(unit)
    rest = [unit for unit in beyond if unit not in kept]
    rows = [row for unit in kept for row in _kept(judged, unit, bound)]
    return rows + (_no_room(rest, bound, counts) if rest else [])


def _units(told: pl.DataFrame) -> list[Unit]:
    """Return what can be kept apart, the noisiest first."""
    found: dict[tuple[int, str], list[dict]] = {}
    for row in told.to_dicts():
        kind = FUSED.get(row["module"], row["module"]) if row["expert"] is None else EXPERTS
        found.setdefault((row["layer"], kind), []).append(row)
    return [Unit(layer, kind, tuple(rows)) for (layer, kind), rows in found.items()]


def _counts(found: Findings, units: list[Unit]) -> dict[tuple[int, str], int]:
    """Return the weights of each matrix; without the table `parameters` each counts as one."""
    counted = found.get("parameters")
    modules = {row["module"] for unit in units for row in unit.rows}
    if counted is None:
        return {(unit.layer, row["module"]): 1 for unit in units for row in unit.rows}
    rows = counted.filter(pl.col("component").is_in(["q", "k", "v", "o", "gate", "up", "down", *modules]))
    return {(row["layer"], row["component"]): row["count"] for row in rows.to_dicts() if row["layer"] is not None}


def _kept(judged: Noise, unit: Unit, bound: float) -> list[Prescription]:
    """Say why a unit is kept, one row for each of its matrices; for experts one row for all."""
    worst = unit.worst
    where = place(worst["layer"], worst["module"], worst["expert"])
    told = []
    for row in unit.rows[:1] if unit.kind == EXPERTS else unit.rows:
        reason = _why(judged, row, bound) if row["noise"] > bound else f"Kept with {where}:"
        if len(unit.rows) > 1:
            end = "all experts of a layer share a scheme" if unit.kind == EXPERTS else f"{unit.kind} are one matrix"
            reason += f" In servers such as vLLM {end}."
        told.append(
            Prescription(
                "keep_module",
                reason.replace(": In", ": in"),
                row["evidence"],
                row["noise"],
                bound,
                amount=16.0,
                layer=row["layer"],
                module=row["module"],
                expert=row["expert"],
                name=row["name"],
            )
        )
    return told


def _why(judged: Noise, row: dict, bound: float) -> str:
    of = "its own output's power"
    if row["evidence"] == "weights.w8_error":
        of = "its weights' power"
    elif row["evidence"] == "sensitivity.total":
        of = "an ordinary residual's power"
    where = place(row["layer"], row["module"], row["expert"])
    told = f"Rounding {where} makes noise of {row['noise']:.3g} of {of}, over {KEEP_RATIO:g} times the median matrix "
    told += f"(bound {bound:.3g}; {judged.how})."
    if row["evidence"] == "weights.w8_error":
        told += " What its inputs make of that is not known."
    return told


def _none(judged: Noise, worst: dict, bound: float, count: int) -> Prescription:
    where = place(worst["layer"], worst["module"], worst["expert"])
    told = (
        f"No module stands out: of {count} matrices {where} makes the most noise, {worst['noise']:.3g}, below "
        f"{KEEP_RATIO:g} times the median ({judged.how})."
    )
    if worst["evidence"] == "weights.w8_error":
        told += " Inputs are not weighed here; `monadnock sensitivity` weighs them."
    at = {key: worst[key] for key in KEY}
    return Prescription("no_module", told, worst["evidence"], worst["noise"], bound, name=worst["name"], **at)


def _no_room(rest: list[Unit], bound: float, counts: Mapping[tuple[int, str], int]) -> list[Prescription]:
    worst = rest[0].worst
    named = [f"{unit.kind} of layer {unit.layer}" for unit in rest[:6]]
    more = f" and {len(rest) - 6} more" if len(rest) > 6 else ""
    share = sum(unit.share(counts) for unit in rest)
    told = (
        f"Over the bound too, but with these more than {KEEP_SHARE:.0%} of the weights would stay in 16 bits "
        f"({share:.1%} more): {'; '.join(named)}{more}."
    )
    at = {key: worst[key] for key in KEY}
    return [Prescription("no_room", told, worst["evidence"], worst["noise"], bound, name=worst["name"], **at)]
