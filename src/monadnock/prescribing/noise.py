"""How much noise rounding each matrix puts into the residual, which can be compared across layers."""

import re
from dataclasses import dataclass

import polars as pl

from monadnock.prescribing.prescription import Findings

KEY = ["layer", "module", "expert"]
# The matrix behind which what a matrix does reaches the residual, and the norm that some families have there.
WRITER = {"q": "o", "k": "o", "v": "o", "o": "o", "gate": "down", "up": "down", "down": "down"}
BEHIND = {"o": "attn_output", "down": "mlp_output"}
NORMAL_MEDIAN = 0.6745  # median |x| of a Gaussian with standard deviation 1
MIN_MATRICES = 8  # a median over fewer says nothing
ROUNDERS = ("absmax", "rtn", "gptq")  # compressors whose output errors are taken, the nearest to a recipe's first
WEIGHTS = "weights.w8_error"


@dataclass(frozen=True)
class Noise:
    """What rounding each matrix costs.

    Attributes:
        table: layer, module, expert, name, noise: one row for each matrix.
        evidence: tables and columns that it is taken from.
        of: what the noise is a share of, in words.
        how: what was measured, in words.
    """

    table: pl.DataFrame
    evidence: str
    of: str
    how: str


def noise(found: Findings) -> Noise | None:
    """Return the noise of every matrix from the best evidence that a run has; None if it has none.

    The table `sensitivity` tells noise against the power of a layer's own output. That does not compare across layers,
    and a massive token hides it: most of the output's power is that token's. So noise is told against the power of
    the residual of an ordinary token behind the layer, hidden_size * (median|h| / 0.6745)^2:

    - o and down add their noise to the residual: total / that power.
    - q, k, v reach it through o, and gate, up through down: relative * (power of what these two give / that power),
      where the ratio is at most 1, as ordinary tokens get no more than they have.
    - Where a norm stands behind attention and MLP, it sets the size of what is added: relative * (median gain /
      (median|h| / 0.6745))^2 for all matrices, the ratio at most 1.

    Output errors of a compressor with these bits and scales take the place of `relative` where there are any. With one
    scale for the tensor, noise grows by the square of w8_error of the tensor over that of its rows.
    """
    return _weighed(found) or _outputs_alone(found) or _weights_alone(found)


def _weighed(found: Findings) -> Noise | None:
    """Sensitivity without compensation, with measured output errors in its place where there are any."""
    table = found.get("sensitivity")
    if table is None:
        return None
    plain = table.filter(
        pl.col("kind") == "plain",
        pl.col("bits").is_not_null(),
        pl.col("relative") > 0,
        pl.col("relative").is_finite(),
        pl.col("total").is_finite(),
    )
    chosen = _setting(found, plain)
    if chosen is None:
        return None
    rows, how = chosen
    rows = rows.with_columns(output=pl.col("total") / pl.col("relative"), noise="relative")
    evidence = "sensitivity.relative"
    outputs = _outputs(found)
    if outputs is not None:
        errors, method = outputs
        rows = rows.join(errors, on=KEY, how="left", nulls_equal=True)
        rows = rows.with_columns(noise=pl.col("output_error").fill_null(pl.col("relative")))
        evidence, how = f"compressions.output_error, {evidence}", f"measured with {method}"
    elif found.strategy == "tensor":
        rows = rows.with_columns(noise=pl.col("noise") * _by_tensor(found, rows))
        evidence, how = f"{evidence}, {WEIGHTS}", f"{how}, carried over to one scale per tensor"
    shares = _shares(found, rows)
    if shares is None:
        return Noise(rows.select(*KEY, "name", "noise"), evidence, "its own output's power", how)
    told = rows.with_columns(noise=pl.col("noise") * shares).select(*KEY, "name", "noise")
    return Noise(told, f"{evidence}, layers.median", "the residual's power in an ordinary token", how)


def _setting(found: Findings, plain: pl.DataFrame) -> tuple[pl.DataFrame, str] | None:
    """Return the rows of the setting nearest to what is asked, and what it was."""
    setting = ["bits", "group", "data"]
    parts = [(part.unique(KEY, keep="first"), values) for values, part in plain.group_by(setting, maintain_order=True)]
    parts = [(part, values) for part, values in parts if part.height >= MIN_MATRICES]
    if not parts:
        return None

    def far(each: tuple[pl.DataFrame, tuple]) -> tuple:
        part, (bits, group, data) = each
        return group != found.group, group is not None, abs(bits - found.bits), -part.height, str(data)

    rows, (bits, group, _) = min(parts, key=far)
    per = "row" if group is None else f"{group} columns of a row"
    return rows, f"measured at {bits} bits, one scale per {per}"


def _outputs(found: Findings) -> tuple[pl.DataFrame, str] | None:
    """Return the output errors of a compressor with the bits and scales that are asked, and its name."""
    table = found.get("compressions")
    if table is None:
        return None
    shared = rf"group {found.group}" if found.strategy == "group" else found.strategy
    known = table.filter(pl.col("output_error").is_finite(), pl.col("kept_rows").fill_null(0) == 0)
    for name in ROUNDERS:
        pattern = rf"{name} {found.bits} bits {shared}( damping [^ ,]+)?( calibration \d+)?(, without .*)?"
        for method in sorted(each for each in known["method"].unique() if each and re.fullmatch(pattern, each)):
            rows = known.filter(pl.col("method") == method).unique(KEY, keep="first")
            if rows.height >= MIN_MATRICES:
                return rows.select(*KEY, "output_error"), method
    return None


def _by_tensor(found: Findings, rows: pl.DataFrame) -> pl.Series:
    """Return how much more noise one scale for the tensor makes than one per row; 1 where that is not known."""
    weights = found.get("weights")
    if weights is None:
        return pl.Series([1.0] * rows.height)
    errors = {
        axis: rows.join(weights.filter(pl.col("axis") == axis), on=KEY, how="left", nulls_equal=True)["w8_error"]
        for axis in ("tensor", "row")
    }
    ratio = (errors["tensor"] / errors["row"]) ** 2
    return ratio.set(~ratio.is_finite().fill_null(False), 1.0)


def _shares(found: Findings, rows: pl.DataFrame) -> pl.Series | None:
    """Return the power of what each matrix has a part in over that of an ordinary residual; None if that is not known.

    Args:
        found: all tables.
        rows: layer, module, expert, output: the power of the matrix's own output.
    """
    layers = found.get("layers")
    if layers is None:
        return None
    medians = layers.filter(pl.col("stream") == "residual", pl.col("median") > 0)
    size = {row["layer"]: row["median"] / NORMAL_MEDIAN for row in medians.to_dicts()}
    outputs = {(row["layer"], row["module"], row["expert"]): row["output"] for row in rows.to_dicts()}
    norms = found.get("norms")
    known = [] if norms is None else norms.filter(pl.col("norm").is_in(list(BEHIND.values()))).to_dicts()
    gains = {(row["layer"], row["norm"]): row["median"] for row in known}

    def share(layer: int, module: str, expert: int | None) -> float:
        writer = WRITER.get(module, module)
        gain = gains.get((layer, BEHIND.get(writer)))
        if layer not in size:
            return 1.0
        if gain is not None:
            return min(1.0, (gain / size[layer]) ** 2)
        output = outputs.get((layer, writer, expert))
        if output is None:
            return 1.0
        ratio = output / (found.manifest.model.hidden_size * size[layer] ** 2)
        return ratio if writer == module else min(1.0, ratio)

    return pl.Series([share(*row) for row in rows.select(KEY).rows()], dtype=pl.Float64) if size else None


def _outputs_alone(found: Findings) -> Noise | None:
    """Output errors of a compressor, where no sensitivity says how large the outputs are."""
    outputs = _outputs(found)
    if outputs is None:
        return None
    rows, method = outputs
    named = found.tables["compressions"].select(*KEY, "name").unique(KEY, keep="first")
    told = rows.join(named, on=KEY, how="left", nulls_equal=True).select(*KEY, "name", noise="output_error")
    return Noise(told, "compressions.output_error", "its own output's power", f"measured with {method}")


def _weights_alone(found: Findings) -> Noise | None:
    """What 8 bits leave of the weights, squared: the inputs are not weighed."""
    weights = found.get("weights")
    if weights is None:
        return None
    axis = "tensor" if found.strategy == "tensor" else "row"
    rows = weights.filter(pl.col("axis") == axis, pl.col("w8_error").is_finite(), pl.col("module") != "router")
    if rows.height < MIN_MATRICES:
        return None
    told = rows.select(*KEY, pl.lit(None, dtype=pl.String).alias("name"), noise=pl.col("w8_error") ** 2)
    return Noise(told, WEIGHTS, "its own power", f"at 8 bits, one scale per {axis}")
