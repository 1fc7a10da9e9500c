"""Whether the massive rows are worth keeping, and what was measured about it."""

import math
import re
from dataclasses import dataclass, replace

import polars as pl

from monadnock.prescribing.bounds import GAIN, LOSS_SEEN
from monadnock.prescribing.prescription import Findings, Prescription, place
from monadnock.thresholds import SUN2024_MAGNITUDE

ROWS_KEPT = ", massive rows kept"
WITHOUT = re.compile(r"(?P<base>[^,]+(, massive rows kept)?), without (?P<left>.+)")
WORTH_TELLING = 0.01  # of the loss
MAGNITUDE, CONTRIBUTION, MEASURED = "massive_weights.magnitude", "super_weights.contribution", "effects.value"


@dataclass(frozen=True)
class Pair:
    """Perplexities of one compressor: of the clean model, with everything compressed, with something kept.

    Attributes:
        method: the compressor.
        kept: what is kept, in words.
    """

    method: str
    kept: str
    clean: float
    without: float
    having: float
    error: float

    @property
    def gain(self) -> float:
        """Share of the loss that keeping it takes back; 0 where the loss is too small to be worth it."""
        lost = self.without - self.clean
        if math.isinf(lost) and math.isfinite(self.having):
            return 1.0
        seen = math.isfinite(lost) and lost > max(self.error, LOSS_SEEN * self.clean)
        return (self.without - self.having) / lost if seen else 0.0

    def told(self, action: str, otherwise: str) -> Prescription:
        """Say what was measured, with one action if it helps and another if not."""
        helps, some = self.gain >= GAIN, self.gain >= WORTH_TELLING
        only = "" if helps else "only "
        told = (
            f"Measured with {self.method}: perplexity {self.without:.5g} with everything rounded, {self.having:.5g} "
            f"with {self.kept} kept, {self.clean:.5g} of the clean model: "
        )
        told += f"this takes back {only}{self.gain:.0%} of the loss." if some else "keeping this buys nothing."
        return Prescription(action if helps else otherwise, told, MEASURED, self.having, self.without)


def measured_modules(found: Findings) -> list[Prescription]:
    """Say what keeping modules has bought, where a compressor was measured with and without it."""
    whole = _perplexities(found)
    pairs = []
    for (method, data), row in whole.items():
        split = WITHOUT.fullmatch(method)
        if split:
            pairs += _pair(whole.get((split["base"], data)), row, split["left"])
    return [pair.told("modules_helped", "modules_idle") for pair in _ordered(found, pairs)]


def massive_rows(found: Findings) -> list[Prescription]:
    """Say whether keeping the massive rows in 16 bits helps, as far as it was measured.

    Rows are kept if that takes back `GAIN` of what compressing costs in perplexity. Where nothing was measured,
    the rows are named, and the command that measures: rows matter to the model (oh2024, yu2024), which does not yet say
    that rounding hurts them.
    """
    weights = found.get("massive_weights")
    whole = _perplexities(found)
    pairs = []
    for (method, data), row in whole.items():
        if ROWS_KEPT in method:
            pairs += _pair(whole.get((method.replace(ROWS_KEPT, ""), data)), row, "the massive rows")
    told = [pair.told("keep_rows", "no_rows") for pair in _ordered(found, pairs)]
    if weights is None:
        asked = f"Massive weights were not looked for; {found.command('scan')} finds them."
        return told or [Prescription("not_judged", asked)]
    massive = weights.filter(pl.col("massive").fill_null(False))
    if not massive.height:
        largest = weights["magnitude"].max()
        value = float(largest) if isinstance(largest, float) else None
        none = "No row of W_up and W_gate is massive (sun2024): there is none to keep."
        return [*told, Prescription("no_rows", none, MAGNITUDE, value, SUN2024_MAGNITUDE)]
    if told:
        layer, rows, count = _whole(massive["layer"][0]), _listed(massive["feature"]), float(massive.height)
        return [replace(each, layer=layer, rows=rows, amount=count) for each in told]
    return [*_unmeasured(found, massive), *_super_weights(found)]


def _perplexities(found: Findings) -> dict[tuple[str, str], dict]:
    """Return what was measured of each compressor on each text."""
    effects = found.get("effects")
    if effects is None:
        return {}
    kinds = (pl.col("mode") == "compress") & (pl.col("metric") == "perplexity")
    rows = effects.filter(kinds, pl.col("method").is_not_null(), pl.col("value").is_not_null())
    return {(row["method"], row["data"]): row for row in rows.to_dicts()}


def _pair(base: dict | None, row: dict, kept: str) -> list[Pair]:
    if base is None or row["baseline"] is None:
        return []
    return [Pair(base["method"], kept, row["baseline"], base["value"], row["value"], base["error"] or 0.0)]


def _ordered(found: Findings, pairs: list[Pair]) -> list[Pair]:
    """Sort by what is asked first."""
    asked = f"{found.bits} bits {found.strategy}"
    return sorted(pairs, key=lambda pair: (asked not in pair.method, pair.method))


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
    return told


def _super_weights(found: Findings) -> list[Prescription]:
    """Name the rows of W_down that hold super weights."""
    supers = found.get("super_weights")
    told = []
    for (layer, expert), part in () if supers is None else supers.group_by("layer", "expert", maintain_order=True):
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
    keep = "with --skip and the name of this module" if where.module == "down" else "with --keep-massive"
    how = f"--method absmax --bits {found.bits} --granularity {found.strategy} "
    compress = found.command("compress", how + (f"--group {found.group} " if found.group else ""))
    told = f"Rows of {named} {why}. Whether rounding them costs anything is not measured; {compress} tells, {keep} and "
    told += "without."
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
