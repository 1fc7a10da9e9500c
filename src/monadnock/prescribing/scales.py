"""What a scale should be shared by, of weights and of activations, and whether a rotation is called for."""

import math
from functools import cache

import polars as pl

from monadnock.prescribing.bounds import GAUSSIAN_RATIO, PER_ROW_RATIO, ROTATE_SHARE
from monadnock.prescribing.prescription import Findings, Prescription, place

ROOT_12 = math.sqrt(12)  # step / root mean square of what rounding to that step leaves
WEIGHTS = "weights.w8_error"
FEATURES = "features.mean_abs"
POST_NORMS = ("attn_output", "mlp_output")
ACTIVATION_BITS = (8, 4)


def levels(bits: int) -> int:
    """Return the number of steps from 0 to the largest |value| of a symmetric grid.

    Example:
        >>> levels(8), levels(4)
        (127, 7)
    """
    return 2 ** (bits - 1) - 1


@cache
def gaussian_error(count: int, bits: int = 8) -> float:
    """Return what absmax rounding leaves of a Gaussian row, |w - rounded(w)| / |w|.

    The step is max|w| / (2^(bits - 1) - 1); rounding leaves step / sqrt(12); E max^2 of `count` values is integrated.

    Args:
        count: of values that share a scale.
        bits: of a value.

    Example:
        >>> round(gaussian_error(576), 4)
        0.0075
    """
    step = 0.01
    grid = [step * (i + 0.5) for i in range(1000)]  # up to 10 standard deviations
    square = sum(2 * x * (1 - math.erf(x / math.sqrt(2)) ** count) * step for x in grid)
    return math.sqrt(square) / levels(bits) / ROOT_12


def weight_scales(found: Findings) -> list[Prescription]:
    """Say whether weights need a scale for each row, and whether a rotation would do more than that.

    One scale for the tensor is as large as its largest weight asks for. If one per row has half of its error in some
    matrix, rows need scales of their own. A rotation makes weights Gaussian at best: it is called for if rows of the
    median matrix round twice as badly as Gaussian ones would.
    """
    weights = found.get("weights")
    if weights is None:
        told = f"The weights were not looked at; {found.command('scan')} says whether rows need scales of their own."
        return [Prescription("not_judged", told)]
    matrices = _by_axis(weights)
    if matrices.is_empty():
        return [Prescription("not_judged", "The weights could not be judged: w8_error is missing for rows or tensors.")]
    worst = matrices.sort("ratio", descending=True).row(0, named=True)
    beyond = matrices.filter(pl.col("ratio") > PER_ROW_RATIO).height
    per_row = worst["ratio"] > PER_ROW_RATIO
    times = levels(8) / levels(found.bits)
    told = (
        f"In {beyond} of {matrices.height} matrices one 8-bit scale for the tensor has over {PER_ROW_RATIO:g} times "
        f"the error of one per row: at most {worst['ratio']:.1f} times, in {_place(worst)} ({worst['tensor']:.2%} "
        f"against {worst['row']:.2%})."
    )
    if found.bits < 8:
        median = _median(matrices["row"]) * times
        told += f" With {found.bits} bits errors are {times:.0f} times as large: {median:.0%} in the median matrix."
    at = {"layer": worst["layer"], "module": worst["module"], "expert": worst["expert"]}
    action = "per_row" if per_row else "per_tensor"
    scaled = Prescription(action, told, WEIGHTS, worst["tensor"], PER_ROW_RATIO * worst["row"], **at)
    return [scaled, *_weight_rotation(found, matrices)]


def _by_axis(weights: pl.DataFrame) -> pl.DataFrame:
    """Return the errors of every matrix side by side: tensor, row, and their ratio."""
    key = ["layer", "module", "expert"]
    known = weights.filter(pl.col("w8_error").is_finite(), pl.col("module") != "router")
    tensor = known.filter(pl.col("axis") == "tensor").select(*key, tensor="w8_error")
    row = known.filter(pl.col("axis") == "row").select(*key, row="w8_error")
    joined = tensor.join(row, on=key, nulls_equal=True).filter(pl.col("row") > 0)
    return joined.with_columns(ratio=pl.col("tensor") / pl.col("row"))


def _weight_rotation(found: Findings, matrices: pl.DataFrame) -> list[Prescription]:
    """Compare rows with Gaussian ones of the same length, where the length is known."""
    widths = {"down": found.manifest.model.intermediate_size, "o": None}
    ratios = []
    for row in matrices.to_dicts():
        width = widths.get(row["module"], found.manifest.model.hidden_size)
        if width:
            ratios.append((row["row"] / gaussian_error(width), row))
    if not ratios:
        return []
    values = pl.Series([ratio for ratio, _ in ratios])
    largest, worst = max(ratios, key=lambda each: each[0])
    median = _median(values)
    called = median > GAUSSIAN_RATIO
    told = (
        f"rows of the median matrix round {median:.2f} times as badly as Gaussian ones of their length, those of "
        f"{_place(worst)} {largest:.2f} times: no random rotation gains more than this."
    )
    action = "rotate" if called else "no_rotation"
    return [Prescription(action, f"For weights: {told}", WEIGHTS, median, GAUSSIAN_RATIO, amount=float(found.bits))]


def activation_scales(found: Findings) -> list[Prescription]:
    """Say what rounding activations too would need: scales per token, or a rotation, for 8 bits and for 4.

    What matters is where a large value sits. In few tokens (massive activations): scales per token keep it there. In
    one feature of all tokens: it sets the scale of every token, and only a rotation (or a scaling of features) helps.
    A feature stands out if its mean |value| without listed entries of massive tokens, times the gain of the norm
    in front of the next attention where it is known, is so large that one step of a grid with scales per token is
    larger than the mean |value| of the layer. A rotation is called for if features stand out in a tenth of the places.
    """
    features, layers = found.get("features"), found.get("layers")
    if features is None or layers is None:
        told = f"Activations were not looked at; {found.command('scan')} says whether a rotation is called for."
        return [Prescription("not_judged", told)]
    places = outlying(found, features, layers)
    if places.is_empty():
        return [Prescription("not_judged", "No layer has both the tables layers and features: nothing to compare.")]
    return [*_per_token(found, layers), *(_rotation(found, places, bits) for bits in ACTIVATION_BITS)]


def outlying(found: Findings, features: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """Return the most outlying feature of every stream and layer: stream, layer, feature, ratio.

    Args:
        found: all tables.
        features: table `features`.
        layers: table `layers`.
    """
    key = ["stream", "layer"]
    means = layers.filter(pl.col("mean_abs") > 0).select(*key, mean="mean_abs")
    joined = _without_massive(found, features).join(means, on=key)
    gains = found.get("norm_gains")
    if gains is not None:  # what layer l + 1 reads of the residual behind layer l
        read = gains.filter(pl.col("norm") == "attn_input").select(
            pl.lit("residual").alias("stream"), pl.col("layer") - 1, "feature", gain="ratio"
        )
        joined = joined.join(read, on=[*key, "feature"], how="left")
    else:
        joined = joined.with_columns(gain=pl.lit(None, dtype=pl.Float64))
    ratio = pl.col("rest") * pl.col("gain").fill_null(1.0) / pl.col("mean")
    joined = joined.with_columns(ratio=ratio).filter(pl.col("ratio").is_finite())
    return joined.sort("ratio", descending=True).unique(key, keep="first", maintain_order=True)


def _without_massive(found: Findings, features: pl.DataFrame) -> pl.DataFrame:
    """Return mean |value| of each feature over the tokens that have no listed massive entry in it."""
    key = ["stream", "layer", "feature"]
    tokens = found.manifest.text.num_windows * found.manifest.text.length
    entries = found.get("activations")
    if entries is None:
        return features.with_columns(rest="mean_abs")
    massive = entries.filter(pl.col("criterion").is_not_null())
    listed = massive.group_by(key).agg(size=pl.col("value").abs().sum(), count=pl.len().cast(pl.Int64))
    joined = features.join(listed, on=key, how="left").with_columns(pl.col("size", "count").fill_null(0))
    rest = (pl.col("mean_abs") * tokens - pl.col("size")) / (tokens - pl.col("count")).clip(1)
    return joined.with_columns(rest=rest.clip(0))


def _per_token(found: Findings, layers: pl.DataFrame) -> list[Prescription]:
    """Say whether one fixed scale for all tokens would do, of the inputs that no norm evens out."""
    inner = layers.filter(pl.col("stream") == "down_proj_input", pl.col("mean_abs") > 0)
    inner = inner.with_columns(ratio=pl.col("top1") / pl.col("mean_abs")).filter(pl.col("ratio").is_finite())
    beyond = inner.filter(pl.col("ratio") > levels(8))
    if beyond.is_empty():
        return []
    worst = beyond.sort("ratio", descending=True).row(0, named=True)
    told = (
        f"If activations are rounded, give each token its own scale: in {beyond.height} of {inner.height} layers the "
        f"largest |x_down| is over {levels(8)} times the mean, so that one step of an 8-bit scale for all tokens is "
        f"larger than the mean (layer {worst['layer']}: {worst['ratio']:,.0f} times).{_massive_tokens(found)}"
    )
    at = {"layer": worst["layer"], "module": "down"}
    return [Prescription("per_token", told, "layers.top1", worst["ratio"], float(levels(8)), amount=8.0, **at)]


def _massive_tokens(found: Findings) -> str:
    entries = found.get("activations")
    if entries is None:
        return ""
    massive = entries.filter(pl.col("criterion").is_not_null()).select("sequence", "position").n_unique()
    tokens = found.manifest.text.num_windows * found.manifest.text.length
    return f" Massive entries are on {massive} of {tokens:,} tokens."


def _rotation(found: Findings, places: pl.DataFrame, bits: int) -> Prescription:
    """Say whether a rotation is called for if activations are rounded to so many bits."""
    beyond = places.filter(pl.col("ratio") > levels(bits))
    share = beyond.height / places.height
    worst = places.row(0, named=True)
    told = (
        f"If activations are rounded to {bits} bits: in {beyond.height} of {places.height} places (h and x_down of "
        f"each layer) a feature is over {levels(bits)} times the mean in ordinary tokens, at most {worst['ratio']:.0f} "
        f"times (feature {worst['feature']} of {worst['stream']}, layer {worst['layer']})"
    )
    if share > ROTATE_SHARE:
        told += (
            ": a rotation (QuaRot, SpinQuant) is called for, as scales per token do not reach this. What it buys is "
        )
        told += "not measured." + _unfolded(found)
        return Prescription("rotate", told, FEATURES, share, ROTATE_SHARE, amount=float(bits))
    told += ": no rotation is called for" + ("; keep the inputs of these in 16 bits." if beyond.height else ".")
    return Prescription("no_rotation", told, FEATURES, share, ROTATE_SHARE, amount=float(bits))


def _unfolded(found: Findings) -> str:
    """Say where a rotation of the residual cannot be folded into the weights."""
    norms = found.get("norms")
    if norms is None or not norms["norm"].is_in(POST_NORMS).any():
        return ""
    return (
        " Norms behind attention and MLP have gains that cannot be folded into the matrices in front of them: rotate "
        "the inputs of matrices as the model runs, not the residual."
    )


def _place(row: dict) -> str:
    return place(row["layer"], row["module"], row["expert"])


def _median(values: pl.Series) -> float:
    found = values.median()
    return float(found) if isinstance(found, (int, float)) else 0.0
