"""How much noise rounding each matrix would make, in numbers that can be compared across layers."""

import re
from dataclasses import dataclass

import polars as pl

from monadnock.prescribing.prescription import Findings

KEY = ["layer", "module", "expert"]
WRITERS = ("o", "down")  # they write to the residual; the others are read inside the layer
NORMAL_MEDIAN = 0.6745  # median |x| of a Gaussian with standard deviation 1
MIN_MATRICES = 8  # a median over fewer says nothing
ROUNDERS = ("absmax", "rtn", "gptq")  # compressors whose output errors are taken, the nearest to a recipe's first
BEHIND = ("attn_output", "mlp_output")


@dataclass(frozen=True)
class Noise:
    """What rounding each matrix costs.

    Attributes:
        table: layer, module, expert, name, noise, evidence: one row for each matrix.
        how: what was measured, as a clause.
    """

    table: pl.DataFrame
    how: str


def noise(found: Findings) -> Noise | None:
    """Return the noise of every matrix from the best evidence that a run has; None if it has none.

    Totals of the table `sensitivity` are in squares of each layer's own output and do not compare across layers.
    Matrices that are read inside a layer (q, k, v, gate, up) are told by noise over the power of their own output.
    Those that write to the residual (o, down) are told by noise over the power of the ordinary residual behind their
    layer, (median|h| / 0.6745)^2 for each feature: their own output is that of the massive token for the most part,
    which hides what the noise does. Not so where a norm stands behind attention and MLP, as it sets the size anew.

    Output errors of a compressor with these bits take the place of the sensitivity where there are any. With one scale
    for the tensor, noise grows by the square of w8_error of the tensor over that of its rows.
    """
    return _weighed(found) or _outputs_alone(found) or _weights_alone(found)


def _weighed(found: Findings) -> Noise | None:
    """Sensitivity without compensation, with measured output errors in its place where there are any."""
    table = found.get("sensitivity")
    if table is None:
        return None
    plain = table.filter(pl.col("kind") == "plain", pl.col("relative") > 0, pl.col("total").is_finite())
    chosen = _setting(found, plain)
    if chosen is None:
        return None
    rows, how = chosen
    noise = pl.col("relative")
    evidence = pl.lit("sensitivity.relative")
    outputs = _outputs(found)
    scale = pl.lit(1.0)
    if outputs is not None:
        errors, method = outputs
        rows = rows.join(errors, on=KEY, how="left", nulls_equal=True)
        scale = (pl.col("output_error") / pl.col("relative")).fill_null(1.0)
        evidence = (
            pl.when(pl.col("output_error").is_null()).then(evidence).otherwise(pl.lit("compressions.output_error"))
        )
        how = f"measured with {method}"
    elif found.strategy == "tensor":
        rows, scale = _by_tensor(found, rows)
    residual = _residual(found)
    if residual is not None:
        rows = rows.join(residual, on="layer", how="left")
        writes = pl.col("module").is_in(WRITERS) & (pl.col("power") > 0)
        noise = pl.when(writes).then(pl.col("total") / pl.col("power")).otherwise(noise)
        if outputs is None:
            evidence = pl.when(writes).then(pl.lit("sensitivity.total")).otherwise(evidence)
    return Noise(rows.select(*KEY, "name", noise=noise * scale, evidence=evidence), how)


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
    place = rf"group {found.group or ''}\d*" if found.strategy == "group" else found.strategy
    known = table.filter(pl.col("output_error").is_not_null(), pl.col("kept_rows").fill_null(0) == 0)
    for name in ROUNDERS:
        pattern = f"^{name} {found.bits} bits {place}$"
        for method in sorted(str(each) for each in known["method"].unique() if re.match(pattern, str(each))):
            rows = known.filter(pl.col("method") == method).unique(KEY, keep="first")
            if rows.height >= MIN_MATRICES:
                return rows.select(*KEY, "output_error"), method
    return None


def _by_tensor(found: Findings, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Expr]:
    """Add how much more noise one scale for the tensor makes than one per row."""
    weights = found.get("weights")
    if weights is None:
        return rows, pl.lit(1.0)
    tensor = weights.filter(pl.col("axis") == "tensor").select(*KEY, tensor="w8_error")
    row = weights.filter(pl.col("axis") == "row").select(*KEY, row="w8_error")
    joined = rows.join(tensor, on=KEY, how="left", nulls_equal=True).join(row, on=KEY, how="left", nulls_equal=True)
    return joined, ((pl.col("tensor") / pl.col("row")) ** 2).fill_null(1.0).fill_nan(1.0)


def _residual(found: Findings) -> pl.DataFrame | None:
    """Return the power of an ordinary token's residual behind each layer; None where it is no measure."""
    layers, norms = found.get("layers"), found.get("norms")
    if layers is None or (norms is not None and norms["norm"].is_in(BEHIND).any()):
        return None
    residual = layers.filter(pl.col("stream") == "residual", pl.col("median") > 0)
    power = found.manifest.model.hidden_size * (pl.col("median") / NORMAL_MEDIAN) ** 2
    return residual.select("layer", power=power) if residual.height else None


def _outputs_alone(found: Findings) -> Noise | None:
    """Output errors of a compressor, where no sensitivity says how large the outputs are."""
    outputs = _outputs(found)
    if outputs is None:
        return None
    rows, method = outputs
    named = found.tables["compressions"].select(*KEY, "name").unique(KEY, keep="first")
    rows = rows.join(named, on=KEY, how="left", nulls_equal=True)
    evidence = pl.lit("compressions.output_error")
    return Noise(rows.select(*KEY, "name", noise="output_error", evidence=evidence), f"measured with {method}")


def _weights_alone(found: Findings) -> Noise | None:
    """What 8 bits leave of the weights, squared: the inputs are not weighed."""
    weights = found.get("weights")
    if weights is None:
        return None
    axis = "tensor" if found.strategy == "tensor" else "row"
    rows = weights.filter(pl.col("axis") == axis, pl.col("w8_error").is_finite(), pl.col("module") != "router")
    if rows.height < MIN_MATRICES:
        return None
    square, name = pl.col("w8_error") ** 2, pl.lit(None, dtype=pl.String)
    told = rows.select(*KEY, name=name, noise=square, evidence=pl.lit("weights.w8_error"))
    return Noise(told, f"of the weights alone, at 8 bits, one scale per {axis}")
