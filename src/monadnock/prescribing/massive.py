"""Whether the massive rows are worth keeping, and what was measured about it."""

import math
import re
from dataclasses import dataclass

import polars as pl

from monadnock.prescribing.bounds import ROWS_GAIN
from monadnock.prescribing.prescription import Findings, Prescription, place
from monadnock.thresholds import SUN2024_MAGNITUDE

KEPT = re.compile(r"(?P<base>.+), massive rows kept")
MEASURED = "effects.value"


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
    """Say for each matrix with massive rows whether keeping these in 16 bits helps, as far as it was measured.

    Rows are kept if that takes back a tenth of what compressing costs in perplexity. Where nothing was measured, the
    rows are named, and the command that measures: the rows matter to the model (oh2024, yu2024), which does not yet
    say that rounding hurts them.
    """
    weights = found.get("massive_weights")
    pairs = measured(found)
    if weights is None:
        if pairs:
            return [_told(pair, None) for pair in pairs]
        told = f"Massive weights were not looked for; {found.command('scan')} finds them."
        return [Prescription("not_judged", told)]
    massive = weights.filter(pl.col("massive").fill_null(False))
    if not massive.height:
        largest = weights["magnitude"].max()
        value = float(largest) if isinstance(largest, (int, float)) else None
        told = "No row of W_up and W_gate is massive by sun2024, so that there is none to keep."
        return [Prescription("no_rows", told, "massive_weights.magnitude", value, SUN2024_MAGNITUDE)]
    if pairs:
        return [_told(pair, massive) for pair in pairs]
    return _unmeasured(found, massive)


def measured(found: Findings) -> list[Pair]:
    """Return every compressor that was measured with and without the massive rows, the one that is asked first."""
    effects = found.get("effects")
    if effects is None:
        return []
    rows = effects.filter(
        pl.col("mode") == "compress",
        pl.col("metric") == "perplexity",
        pl.col("method").is_not_null(),
        pl.col("value").is_not_null(),
    )
    by_method = {(row["method"], row["data"], row["layer"], row["targets"]): row for row in rows.to_dicts()}
    pairs = []
    for row in by_method.values():
        split = KEPT.fullmatch(row["method"])
        base = [
            each
            for (method, data, _, _), each in by_method.items()
            if split and method == split["base"] and data == row["data"]
        ]
        if base and row["baseline"] is not None:
            error = base[0]["error"] or 0.0
            pairs.append(Pair(base[0]["method"], row["baseline"], base[0]["value"], row["value"], error))
    asked = f"absmax {found.bits} bits {found.strategy}"
    return sorted(pairs, key=lambda pair: (not pair.method.startswith(asked), pair.method))


def _told(pair: Pair, massive: pl.DataFrame | None) -> Prescription:
    """Say what one measurement means."""
    helps = pair.gain >= ROWS_GAIN
    count = "" if massive is None else f"{massive.height} massive rows of W_up and W_gate, "
    told = (
        f"Measured with {pair.method}: perplexity {pair.without:.5g} with everything compressed, {pair.kept:.5g} with the "
        f"massive rows kept ({count}clean {pair.clean:.5g})"
    )
    told += f", which takes back {pair.gain:.0%} of what it costs." if helps else ", so that keeping them buys nothing."
    where = {} if massive is None else {"layer": int(massive["layer"][0]), "rows": _listed(massive["feature"])}
    return Prescription(
        "keep_rows" if helps else "no_rows", told, MEASURED, pair.kept, pair.without, module=None, **where
    )


def _unmeasured(found: Findings, massive: pl.DataFrame) -> list[Prescription]:
    """Name the rows, and what would measure them."""
    command = (
        f"`monadnock compress {found.manifest.model.id} --out {found.where}`, with the massive rows kept and without,"
    )
    modules = ["up", "gate"] if _gated(found) else ["up"]
    told = []
    for (layer, expert), part in massive.group_by("layer", "expert", maintain_order=True):
        where = {"layer": _int(layer), "expert": _int(expert)}
        magnitude = float(part["magnitude"].max() or 0)  # type: ignore[arg-type]
        for module in modules:
            reason = (
                f"Rows of {place(int(layer), module, _int(expert))} make massive activations ({magnitude:,.0f}). Whether "
                f"rounding them costs anything is not measured; {command} tells."
            )
            told.append(
                Prescription(
                    "measure_rows",
                    reason,
                    "massive_weights.magnitude",
                    magnitude,
                    SUN2024_MAGNITUDE,
                    amount=float(part.height),
                    module=module,
                    rows=_listed(part["feature"]),
                    **where,
                )
            )
    return told + _down(found, command)


def _down(found: Findings, command: str) -> list[Prescription]:
    """Name the rows of W_down that hold super weights."""
    weights = found.get("super_weights")
    if weights is None:
        return []
    told = []
    for (layer, expert), part in weights.group_by("layer", "expert", maintain_order=True):
        largest = part.sort(pl.col("contribution").abs(), descending=True).row(0, named=True)
        reason = (
            f"Rows of {place(int(layer), 'down', _int(expert))} hold super weights (yu2024), in columns "
            f"{_listed(part['column'])}; the largest writes {largest['contribution']:,.0f} into feature {largest['row']}. "
            f"Whether rounding them costs anything is not measured; {command} tells."
        )
        told.append(
            Prescription(
                "measure_rows",
                reason,
                "super_weights.contribution",
                abs(largest["contribution"]),
                SUN2024_MAGNITUDE,
                amount=float(part["row"].n_unique()),
                layer=_int(layer),
                module="down",
                expert=_int(expert),
                rows=_listed(part["row"]),
            )
        )
    return told


def _gated(found: Findings) -> bool:
    counted = found.get("parameters")
    return counted is None or bool((counted["component"] == "gate").any())


def _listed(indices: pl.Series) -> str:
    return " ".join(str(each) for each in indices.unique(maintain_order=True))


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
