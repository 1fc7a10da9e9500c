"""Explanations as people tell them: who makes the massive activation, what sinks scale, which rotary offsets act."""

from collections.abc import Mapping

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.findings.words import listed, number

Tables = Mapping[str, pl.DataFrame]

VARIES = 0.1  # a head's S varies if a tenth of its queries have this much less than another tenth
FOLLOWS = 0.8  # it follows the context if at least this share of its variance is between windows at one position
IGNORES = 0.2  # and goes by the position if no more than this share is
_LOSS = 0.1  # of the peak: a layer that takes so much away is told
_BLOCKS = {"attention": "attention", "mlp": "the FFN"}
_KINDS = {"key": "a sink", "learned": "a sink logit", "gate": "a gate"}
_SHORT = {"weight": "W_down", "x_down": "x_down", " h": "h", " A": "A"}


def finite(table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return the rows in which all these numbers are there and finite."""
    return table.filter(
        pl.all_horizontal(pl.col(name).cast(pl.Float64).is_finite().fill_null(False) for name in columns)
    )


def median(column: pl.Series) -> float | None:
    """Return the median of the finite numbers of a column; None if there is none."""
    found = column.cast(pl.Float64)
    middle = found.filter(found.is_finite().fill_null(False)).median()
    return middle if isinstance(middle, float) else None


def massive_layer(trace: pl.DataFrame) -> int | None:
    """Return the massive layer as `massive_weights` has it: the largest |x_down| up to the peak of the largest |h|."""
    states = finite(trace, "top1").drop_nulls("layer")
    residual = states.filter(pl.col("state") == "residual").sort("top1", descending=True, maintain_order=True)
    inner = states.filter(pl.col("state") == "down_proj_input").sort("top1", descending=True, maintain_order=True)
    if residual.height:
        early = inner.filter(pl.col("layer") <= residual["layer"][0])
        inner = early if early.height else inner
    return inner["layer"][0] if inner.height else None


def massive_features(lifecycles: pl.DataFrame) -> pl.Series:
    """Return the features that are massive in some layer."""
    return lifecycles.filter(pl.col("massive").fill_null(False))["feature"].drop_nulls().unique().sort()


def ways(contributions: pl.DataFrame) -> pl.DataFrame:
    """Return who makes each feature of the start token and who takes most of it away, one row per feature.

    Returns:
        Columns feature, peak (signed, of the largest |h| behind a layer) with peak_layer, made_layer, made_by
        (attention or mlp) and made (what it adds there), and gone_layer, gone_by and gone, null where |h| never falls;
        then left, the value behind the last layer. The largest peak comes first.
    """
    table = finite(contributions, "feature", "layer", "before", "attention", "mlp", "after").sort("layer")
    growth = pl.col("after").abs() - pl.col("before").abs()
    upwards = pl.when(pl.col("after").abs() >= pl.col("before").abs()).then("after").otherwise("before").sign()
    more = pl.col("attention") * upwards >= pl.col("mlp") * upwards  # attention moves |h| further up than the FFN
    table = table.with_columns(
        _growth=growth,
        _up=pl.when(more).then(pl.lit("attention")).otherwise(pl.lit("mlp")),
        _down=pl.when(more).then(pl.lit("mlp")).otherwise(pl.lit("attention")),
    )
    added = pl.when(pl.col("_up") == "attention").then("attention").otherwise("mlp")
    taken = pl.when(pl.col("_down") == "attention").then("attention").otherwise("mlp")
    table = table.with_columns(_added=added, _taken=taken)
    most, least = pl.col("_growth").arg_max(), pl.col("_growth").arg_min()
    falls, top = pl.col("_growth").min() < 0, pl.col("after").abs().arg_max()
    found = table.group_by("feature", maintain_order=True).agg(
        peak=pl.col("after").get(top),
        peak_layer=pl.col("layer").get(top),
        made_layer=pl.col("layer").get(most),
        made_by=pl.col("_up").get(most),
        made=pl.col("_added").get(most),
        gone_layer=pl.when(falls).then(pl.col("layer").get(least)),
        gone_by=pl.when(falls).then(pl.col("_down").get(least)),
        gone=pl.when(falls).then(pl.col("_taken").get(least)),
        left=pl.col("after").last(),
    )
    return found.sort(pl.col("peak").abs(), "feature", descending=[True, False])


def selecting(rotary: pl.DataFrame) -> pl.DataFrame:
    """Return the rotary feature that selects each head's sink: the largest sink_contribution - mean_contribution.

    Returns:
        The rows of `rotary` of these features, one per head with a sink, with `gain` (that difference, in logit units)
        and `kept` (sink_k_radius / k_radius).
    """
    table = finite(rotary, "layer", "head", "feature", "sink_contribution", "mean_contribution")
    kept = pl.when(pl.col("k_radius") > 0).then(pl.col("sink_k_radius") / pl.col("k_radius"))
    table = table.with_columns(gain=pl.col("sink_contribution") - pl.col("mean_contribution"), kept=kept)
    return table.sort("layer", "head", "gain", descending=[False, False, True]).unique(
        ["layer", "head"], keep="first", maintain_order=True
    )


def scaled(scaling: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return the heads that something scales, and whether S is a constant or follows the context, in words.

    The words are empty where nothing scales.
    """
    heads = finite(scaling.filter(pl.col("kind").fill_null("none") != "none"), "mean")
    if not heads.height:
        return heads, ""
    varying = finite(heads, "p10", "p90").filter(pl.col("p90") - pl.col("p10") > VARIES)
    share = median(varying["context_share"])
    count = f"in {varying.height} of {heads.height} such heads S varies by more than {VARIES:g} between queries"
    if 2 * varying.height < heads.height:
        return heads, f"it is close to a constant: only {count}"
    if share is None:
        return heads, f"it is no constant: {count}; one window cannot tell whether it follows the context"
    how = "follows the context" if share >= FOLLOWS else "depends on both position and context"
    how = "goes by the position" if share <= IGNORES else how
    return heads, (
        f"it is no constant and {how}: {count}, and {share:.0%} of the variance (median) is between windows at the "
        "same position"
    )


def emergence(_manifest: Manifest, tables: Tables) -> str:
    """Say which block makes the largest feature of the start token, from which state, and which takes it away."""
    found = ways(tables["contributions"]).head(1).to_dicts()
    if not found or found[0]["peak"] == 0:
        return ""
    way = found[0]
    block, layer = _BLOCKS[way["made_by"]], way["made_layer"]
    said = f"{block} of layer {layer} adds most to feature {way['feature']} of the start token: {number(way['made'])}"
    said += _source(tables["trace"], way)
    if way["peak_layer"] != layer:
        said += f"; it grows to {number(way['peak'])} behind layer {way['peak_layer']}"
    losses = _losses(tables["contributions"], way)
    taken = f"{listed(losses, 4)} take{'s' * (len(losses) == 1)} it away" if losses else "no later block takes it away"
    return f"{said}; {taken}; {number(way['left'])} is left behind the last layer."


def _source(trace: pl.DataFrame, way: dict) -> str:
    """Say from which state the block that makes a feature makes it: a norm behind the block, or else x_down."""
    states = finite(trace, "top1", "feature").filter(pl.col("layer") == way["made_layer"])
    found = {row["state"]: row for row in states.iter_rows(named=True)}
    prefix = "attn" if way["made_by"] == "attention" else "mlp"
    given, update = found.get(f"{prefix}_output"), found.get(f"{prefix}_update")
    if given and update:
        return f", once the norm behind it has raised its largest |value| from {number(given['top1'])}"
    if way["made_by"] == "mlp" and (inner := found.get("down_proj_input")):
        return f", from an x_down of {number(inner['top1'])} (row {inner['feature']})"
    return ""


def _losses(contributions: pl.DataFrame, way: dict) -> list[str]:
    """Name the blocks behind the peak that take a tenth of it at least, with what they add."""
    steps = finite(contributions, "feature", "layer", "attention", "mlp").sort("layer")
    steps = steps.filter(pl.col("feature") == way["feature"], pl.col("layer") > way["peak_layer"])
    sign = -1 if way["peak"] > 0 else 1
    return [
        f"{_BLOCKS[name]} of layer {row['layer']} ({number(row[name])})"
        for row in steps.iter_rows(named=True)
        for name in _BLOCKS
        if sign * row[name] >= _LOSS * abs(way["peak"])
    ]


def scaled_by(kind: str) -> str:
    """Return in words what scales a head.

    Example:
        >>> scaled_by("key+gate")
        'a sink and a gate'
    """
    return " and ".join(_KINDS.get(part, part) for part in kind.split("+"))


def implicit_scaling(_manifest: Manifest, tables: Tables) -> str:
    """Say how many heads are scaled by what, by how much, and whether the scale is a constant."""
    heads, verdict = scaled(tables["scaling"])
    if not tables["scaling"].height:
        return ""
    if not heads.height:
        return "no head has a sink, a sink logit or a gate that scales what it reads."
    counts = heads["kind"].value_counts(sort=True).sort("count", "kind", descending=[True, False])
    kinds = [f"{n} by {scaled_by(kind)}" for kind, n in counts.rows()] if counts.height > 1 else []
    by = f", {listed(kinds)}" if kinds else f" by {scaled_by(counts['kind'][0])}"
    middle = [heads[name].fill_nan(None).median() for name in ("mean", "p10", "p90")]
    spread = "" if None in middle else f" (a tenth of the queries below {middle[1]:.2f}, a tenth above {middle[2]:.2f})"
    return (
        f"{heads.height} of {tables['scaling'].height} heads scale what they read of other tokens{by}; the "
        f"scale S is {middle[0]:.2f} on average in the median head{spread}, and {verdict}."
    )


def rotary_offsets(_manifest: Manifest, tables: Tables) -> str:
    """Say how many rotary features of heads are offsets, how many satisfy the bounds, and which select the sinks."""
    table = tables["rotary"]
    if not table.height:
        return ""
    offsets = table.filter(pl.col("offset"))
    if offsets.height:
        counts = offsets["feature"].drop_nulls().value_counts().sort("count", "feature", descending=[True, False])
        said = f"{offsets.height:,} of {table.height:,} rotary features of heads are offset features"
        said += f", most often feature {listed([str(f) for f in counts['feature'].head(3)])}" if counts.height else ""
        slow = table.filter(pl.col("bound_frequency"))
        shares = [part["bound_frequency"].mean() for part in (offsets, table)]
        shares += [part["bound_angle"].mean() for part in (offsets, slow)]
        if all(share is not None for share in shares):
            of = [f"{share:.0%}" for share in shares]
            said += (
                f"; {of[0]} of them satisfy theta P <= pi ({of[1]} of all features do), and {of[2]} are negative over "
                f"the whole context ({of[3]} of all with theta P <= pi)"
            )
    else:
        said = f"none of {table.height:,} rotary features of heads is an offset feature"
    chosen = selecting(table)
    if chosen.height:
        counts = chosen["feature"].value_counts().sort("count", "feature", descending=[True, False]).head(3)
        heads = [f"{feature} ({count})" for feature, count in counts.rows()]
        said += f"; in {_heads(chosen.height)} with a sink, the sink stands out most often by feature {listed(heads)}"
    return f"{said}."


def consistency(_manifest: Manifest, tables: Tables) -> str:
    """Say which share of outliers of each kind are outliers of the next, beside the published shares."""
    table = tables["consistency"].drop_nulls(["outlier_1", "outlier_2", "criterion"])
    told = finite(table, "consistency")
    if not told.height:
        return "no outlier of one kind to look up among those of another." if table.height else ""
    counts = told.group_by("criterion", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    criterion = counts["criterion"][0]
    parts = []
    for row in told.filter(pl.col("criterion") == criterion).iter_rows(named=True):
        first, second = (_short(row[name]) for name in ("outlier_1", "outlier_2"))
        behind = " of the next layer" if row["layers"] == "next" else ""
        published = "" if row["published"] is None else f" ({row['published']:.0f}%)"
        parts.append(f"{first} in {second}{behind} {row['consistency']:.0f}%{published}")
    own = table.filter(
        pl.col("criterion") == "an2025", pl.col("num_outliers") == 0, pl.col("outlier_1").str.contains("weight")
    )
    none = "; an2025's own rule finds no weight outlier" if own.height and criterion != "an2025" else ""
    return (
        f"share of outliers of one kind that are outliers of another, by {criterion} (in brackets Llama-2-7B in "
        f"an2025): {listed(parts)}{none}."
    )


def _short(name: str) -> str:
    return next((short for part, short in _SHORT.items() if part in name), name)


def _heads(number: int) -> str:
    return f"{number:,} head{'s' * (number != 1)}"
