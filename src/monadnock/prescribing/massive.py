"""Whether the massive rows are worth keeping, and what was measured about it."""

import math
import re
from dataclasses import dataclass

import polars as pl

from monadnock.prescribing.bounds import ROWS_GAIN
from monadnock.prescribing.prescription import Findings, Prescription, place
from monadnock.thresholds import SUN2024_MAGNITUDE

KEPT = re.compile(r"(?P<base>.+), massive rows kept")
MAGNITUDE, CONTRIBUTION, MEASURED = "massive_weights.magnitude", "super_weights.contribution", "effects.value"


@dataclass(frozen=True)
class Pair:
    """Perplexities of one compressor: of the clean model, with all rows compressed, with the massive rows kept."""

    method: str
    clean: float
    without: float
    kept: float
    error: float

    @property
    def gain(self) -> float:
        """Share of what compressing costs that keeping the rows takes back; 0 if it costs nothing that can be seen."""
        lost = self.without - self.clean
        if math.isinf(lost) and math.isfinite(self.kept):
            return 1.0
        return (self.without - self.kept) / lost if math.isfinite(lost) and lost > self.error else 0.0


def massive_rows(found: Findings) -> list[Prescription]:
    """Say whether keeping the massive rows in 16 bits helps, as far as it was measured.

    Rows are kept if that takes back `ROWS_GAIN` of what compressing costs in perplexity. Where nothing was measured,
    the rows are named, and the command that measures: rows matter to the model (oh2024, yu2024), which does not yet say
    that rounding hurts them.
    """
    weights = found.get("massive_weights")
    pairs = measured(found)
    if weights is None and not pairs:
        told = f"Massive weights were not looked for; {found.command('scan')} finds them."
        return [Prescription("not_judged", told)]
    massive = None if weights is None else weights.filter(pl.col("massive").fill_null(False))
    if massive is not None and weights is not None and not massive.height:
        largest = weights["magnitude"].max()
        value = float(largest) if isinstance(largest, float) else None
        told = "No row of W_up and W_gate is massive (sun2024): there is none to keep."
        return [Prescription("no_rows", told, MAGNITUDE, value, SUN2024_MAGNITUDE)]
    if pairs or massive is None:
        return [_told(pair, massive) for pair in pairs]
    return _unmeasured(found, massive)


def measured(found: Findings) -> list[Pair]:
    """Return every compressor that was measured with and without the massive rows, the one that is asked first."""
    effects = found.get("effects")
    if effects is None:
        return []
    kinds = (pl.col("mode") == "compress") & (pl.col("metric") == "perplexity")
    rows = effects.filter(kinds, pl.col("method").is_not_null(), pl.col("value").is_not_null()).to_dicts()
    whole = {(row["method"], row["data"]): row for row in rows}
    pairs = []
    for (method, data), row in whole.items():
        split = KEPT.fullmatch(method)
        base = whole.get((split["base"], data)) if split else None
        if base is not None and row["baseline"] is not None:
            pairs.append(Pair(base["method"], row["baseline"], base["value"], row["value"], base["error"] or 0.0))
    asked = f"{found.bits} bits {found.strategy}"
    return sorted(pairs, key=lambda pair: (asked not in pair.method, pair.method))


def _told(pair: Pair, massive: pl.DataFrame | None) -> Prescription:
    """Say what one measurement means."""
    helps = pair.gain >= ROWS_GAIN
    told = (
        f"Measured with {pair.method}: perplexity {pair.without:.5g} with all rows compressed, {pair.kept:.5g} with the "
        f"massive rows kept, {pair.clean:.5g} of the clean model"
    )
    told += f": this takes back {pair.gain:.0%} of the loss." if helps else ": keeping them buys nothing."
    action = "keep_rows" if helps else "no_rows"
    if massive is None:
        return Prescription(action, told, MEASURED, pair.kept, pair.without)
    layer, rows = _whole(massive["layer"][0]), _listed(massive["feature"])
    count = float(massive.height)
    return Prescription(action, told, MEASURED, pair.kept, pair.without, amount=count, layer=layer, rows=rows)


def _unmeasured(found: Findings, massive: pl.DataFrame) -> list[Prescription]:
    """Name the rows, and what would measure them."""
    modules = ["up", "gate"] if _gated(found) else ["up"]
    told = []
    for (layer, expert), part in massive.group_by("layer", "expert", maintain_order=True):
        size = max(float(each) for each in part["magnitude"])
        for module in modules:
            where = Prescription("measure_rows", "", layer=_whole(layer), module=module, expert=_whole(expert))
            why = f"make massive activations ({size:,.0f})"
            told.append(_measure(found, where, why, part["feature"], MAGNITUDE, size))
    supers = found.get("super_weights")
    if supers is None:
        return told
    for (layer, expert), part in supers.group_by("layer", "expert", maintain_order=True):
        largest = max(part.to_dicts(), key=lambda row: abs(row["contribution"] or 0.0))
        where = Prescription("measure_rows", "", layer=_whole(layer), module="down", expert=_whole(expert))
        why = f"hold super weights (yu2024), in columns {_listed(part['column'])}"
        told.append(_measure(found, where, why, part["row"], CONTRIBUTION, abs(largest["contribution"] or 0.0)))
    return told


def _measure(
    found: Findings, where: Prescription, why: str, rows: pl.Series, evidence: str, value: float
) -> Prescription:
    """Fill in what rows a matrix has, and what would measure them."""
    named = place(where.layer or 0, where.module or "", where.expert)
    told = (
        f"Rows of {named} {why}. Whether rounding them costs anything is not measured; {found.command('compress')} "
        "with the massive rows kept and without tells."
    )
    count, listed = float(rows.n_unique()), _listed(rows)
    at = where.layer, where.module, where.expert
    return Prescription("measure_rows", told, evidence, value, SUN2024_MAGNITUDE, count, *at, rows=listed)


def _gated(found: Findings) -> bool:
    counted = found.get("parameters")
    return counted is None or bool((counted["component"] == "gate").any())


def _listed(indices: pl.Series) -> str:
    return " ".join(str(each) for each in indices.unique(maintain_order=True))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
