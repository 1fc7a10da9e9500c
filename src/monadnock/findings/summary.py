"""A run's findings in sentences that a person understands."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.findings.summary_attacks import attacks
from monadnock.findings.summary_chain import chain
from monadnock.findings.summary_compress import compression, patterns, sensitivity
from monadnock.findings.summary_explain import consistency, emergence, implicit_scaling, rotary_offsets
from monadnock.findings.summary_read import dictionaries, first_sentence, in_words, states_alike
from monadnock.findings.summary_studies import bos_matters, length_matters
from monadnock.findings.summary_train import finetuning, robustness, training
from monadnock.findings.words import listed, number

LISTED_ENTRIES = 32  # see table `activations`

Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Summary:
    """Findings as (topic, sentence) pairs, most important first.

    Example:
        >>> print(Summary((("Model", "m, llama family."),)))
        Model: m, llama family.
    """

    items: tuple[tuple[str, str], ...]

    @property
    def sentences(self) -> list[str]:
        """The sentences without their topics."""
        return [sentence for _, sentence in self.items]

    def __str__(self) -> str:
        return "\n".join(f"{topic}: {sentence}" for topic, sentence in self.items)

    def html(self) -> str:
        """Return an HTML table of the findings, everything escaped."""
        rows = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(topic)}</th>"
            f"<td style='text-align:left'>{html.escape(sentence)}</td></tr>"
            for topic, sentence in self.items
        )
        return f"<table>{rows}</table>"


def summarise(manifest: Manifest, tables: Tables) -> Summary:
    """Say what a run found, one sentence per topic; topics whose tables are missing are left out."""
    parts: list[tuple[str, Callable[[Manifest, Tables], str], tuple[str, ...]]] = [
        ("Model", _model, ()),
        ("Broken values", _nonfinite, ("nonfinite",)),
        ("Massive layer", _massive_layer, ("massive_weights",)),
        ("Features", _features, ("lifecycles",)),
        ("Emergence", emergence, ("trace", "contributions")),
        ("Tokens", _tokens, ("activations",)),
        ("Attention sinks", _sinks, ("heads",)),
        ("Implicit scaling", implicit_scaling, ("scaling",)),
        ("Rotary offsets", rotary_offsets, ("rotary",)),
        ("Consistency", consistency, ("consistency",)),
        ("Super weights", _super_weights, ("super_weights",)),
        ("Attacks", attacks, ("effects",)),
        ("Chain", chain, ("chain",)),
        ("BOS", bos_matters, ("inputs",)),
        ("Length", length_matters, ("inputs",)),
        ("Dictionaries", dictionaries, ("dictionaries",)),
        ("States alike", states_alike, ("state_similarity",)),
        ("First sentence", first_sentence, ("first_sentence",)),
        ("In words", in_words, ("readings", "lifecycles")),
        ("Norm gains", _norm_gains, ("norm_gains",)),
        ("8-bit weights", _eight_bit, ("weights",)),
        ("Sensitivity", sensitivity, ("sensitivity",)),
        ("Patterns", patterns, ("patterns",)),
        ("Compression", compression, ("effects",)),
        ("Fine-tuning", finetuning, ("finetunings",)),
        ("Robustness", robustness, ("robustness",)),
        ("Training", training, ("training_outliers",)),
        ("Router", _router, ("router", "massive_weights")),
    ]
    items = []
    for topic, tell, needed in parts:
        if all(name in tables for name in needed) and (sentence := tell(manifest, tables)):
            items.append((topic, sentence))
    return Summary(tuple(items))


def _shown(token: str) -> str:
    return repr(token) if token.strip() else f"{token!r} (blank)"


def _model(manifest: Manifest, _tables: Tables) -> str:
    model, text = manifest.model, manifest.text
    origin = " (from quantised weights of a GGUF file)" if model.source in ("gguf", "packaged") else ""
    front = f"BOS {text.start_token!r} in front" if text.bos else "no BOS in front"
    return (
        f"{model.id}, {model.family} family, {model.num_layers} layers, {model.num_heads} heads, "
        f"{model.num_parameters:,} parameters, {model.dtype}{origin}; "
        f"{text.num_windows} x {text.length} tokens of {text.source}, {front}."
    )


def _nonfinite(_manifest: Manifest, tables: Tables) -> str:
    table = tables["nonfinite"]
    if not table.height:
        return ""
    first = table.row(0, named=True)
    layer = "" if first["layer"] is None else f" of layer {first['layer']}"
    return (
        f"NaN or infinity in {table.height} places, first in {first['where']} {first['name']}{layer} "
        f"({first['count']:,} entries); other numbers count these entries as zero and mean little."
    )


def _massive_layer(manifest: Manifest, tables: Tables) -> str:
    table = tables["massive_weights"]
    if not table.height:
        return ""
    massive = table.filter(pl.col("massive"))
    first = (massive if massive.height else table).row(0, named=True)
    expert = "" if first["expert"] is None else f", expert {first['expert']}"
    if not massive.height:
        return (
            f"none: no entry of x_down is massive when {manifest.text.start_token!r} is fed alone; the largest is "
            f"{number(first['magnitude'])} in row {first['feature']} of layer {first['layer']}{expert}."
        )
    rows = [f"{row['feature']} (|x_down| {number(row['magnitude'])})" for row in massive.iter_rows(named=True)]
    rest = table.filter(~pl.col("massive"))
    largest_rest = f"; the next row has {number(rest['magnitude'][0])}" if rest.height else ""
    noun = "row" if len(rows) == 1 else "rows"
    gated = "weights" not in tables or "gate" in tables["weights"]["module"]
    matrices = "W_up and W_gate" if gated else "W_up"
    return f"layer {first['layer']}{expert}, {noun} {listed(rows)} of {matrices}{largest_rest}{_runner_up(tables)}."


def _runner_up(tables: Tables) -> str:
    """Name the layer with the second largest |x_down| up to the peak of |h|, as the massive layer was chosen."""
    if "start_states" not in tables:
        return ""
    first = tables["start_states"].filter(pl.col("rank") == 1).with_columns(pl.col("value").abs())
    residual = first.filter(pl.col("stream") == "residual").sort("value", descending=True)
    if not residual.height:
        return ""
    inner = first.filter((pl.col("stream") == "down_proj_input") & (pl.col("layer") <= residual["layer"][0]))
    if inner.height < 2:
        return ""
    second = inner.sort("value", descending=True).row(1, named=True)
    return f"; the next layer is {second['layer']}, with {number(second['value'])}"


def _features(_manifest: Manifest, tables: Tables) -> str:
    table = tables["lifecycles"]
    features = table.filter(pl.col("massive"))["feature"].unique(maintain_order=True).to_list()
    if not features:
        return "no residual feature of the start token is massive in any layer."
    lives = []
    for feature in features:
        stages = []
        for row in table.filter(pl.col("feature") == feature).sort("birth").iter_rows(named=True):
            below = "" if row["massive"] else ", below the bound"
            stages.append(f"{_span(row['birth'], row['death'])}, up to {number(abs(row['peak_value']))}{below}")
        lives.append(f"{feature} ({'; '.join(stages)})")
    return f"massive in the residual of the start token: {listed(lives)}."


def _span(birth: int, death: int | None) -> str:
    if death is None:
        return f"from layer {birth} on"
    return f"layer {birth}" if death == birth + 1 else f"layers {birth} to {death - 1}"


def _tokens(_manifest: Manifest, tables: Tables) -> str:
    entries = tables["activations"].filter(pl.col("stream") == "residual")
    table = entries.filter(pl.col("criterion").is_not_null())
    if not entries.height:
        return ""
    if not table.height:
        return "no token carries a massive activation in the residual."
    places = table.select("sequence", "position", "token", "token_class").unique()
    counts = places.group_by("token", "token_class").len().sort("len", "token", descending=[True, False])
    full = table.group_by("layer", "sequence").len().filter(pl.col("len") >= LISTED_ENTRIES).height
    least = "at least " if full else ""  # the table lists so many entries of a layer and window at most
    named = [
        f"{_shown(row['token'])} ({row['token_class']}) {least}{row['len']}x" for row in counts.iter_rows(named=True)
    ]
    over = table.filter(pl.col("overflows_float16")).height
    warning = " Some are beyond 65504 and overflow float16." if over else ""
    return f"massive activations in the residual sit on {listed(named)}.{warning}"


def _sinks(manifest: Manifest, tables: Tables) -> str:
    table = tables["heads"]
    sinks = table.filter(pl.col("sink"))
    if not table.height:
        return ""
    if not sinks.height:
        return f"none of {table.height} heads has a sink."
    bound = manifest.thresholds.get("gu2025.sink_mass", 0.3)
    share = f"{sinks.height} of {table.height} heads ({sinks.height / table.height:.0%}) have a sink"
    first = sinks.filter(pl.col("sink_position") == 0)
    count = "all" if first.height == sinks.height else f"{first.height} of them"
    where = f"{count} on position 0" if first.height else "none on position 0"
    later = sinks.filter(pl.col("sink_position").ne_missing(0))
    late = ""
    if later.height:
        classes = later["sink_token_class"].fill_null("unknown").mode().sort()[0]
        late = f"; {later.height} on a later token (mostly {classes}), in layers {_ranges(later['layer'].to_list())}"
    on_first = f" in layers {_ranges(first['layer'].to_list())}" if first.height else ""
    meaning = f"a key that gets over {bound:.0%} of the attention of the queries that see it"
    return f"{share} ({meaning}): {where}{on_first}{late}."


def _ranges(layers: list[int]) -> str:
    """Write layers as ranges: `3 to 10, 12`."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)


def _super_weights(_manifest: Manifest, tables: Tables) -> str:
    table = tables["super_weights"]
    if not table.height:
        return ""
    row = table.row(0, named=True)
    return (
        f"W_down[{row['row']}, {row['column']}] of layer {row['layer']} is {row['weight']:.3g} and puts "
        f"{number(row['contribution'])} into feature {row['row']}."
    )


def _norm_gains(_manifest: Manifest, tables: Tables) -> str:
    table = tables["norm_gains"].filter(
        pl.col("massive_feature") & pl.col("norm").is_in(["attn_output", "mlp_output"]) & (pl.col("ratio") > 10)
    )
    if not table.height:
        return ""
    row = table.sort("ratio", descending=True).row(0, named=True)
    return (
        f"gains after attention and FFN are massive weights themselves: at feature {row['feature']}, {row['norm']} of "
        f"layer {row['layer']} has {number(row['gain'])}, {number(row['ratio'])} times its median."
    )


def _eight_bit(_manifest: Manifest, tables: Tables) -> str:
    table = tables["weights"].filter((pl.col("axis") == "tensor") & pl.col("w8_error").is_finite())
    if not table.height:
        return ""
    worst = table.sort("w8_error", descending=True).head(3)
    names = [
        f"{row['module']} of layer {row['layer']}"
        + ("" if row["expert"] is None else f" expert {row['expert']}")
        + f" ({row['w8_error']:.1%})"
        for row in worst.iter_rows(named=True)
    ]
    return f"one absmax scale per tensor rounds worst in {listed(names)}; the median module loses " + (
        f"{table['w8_error'].median():.1%}."
    )


def _router(_manifest: Manifest, tables: Tables) -> str:
    if not tables["massive_weights"].height:
        return ""
    layer = tables["massive_weights"]["layer"][0]
    table = tables["router"].filter((pl.col("layer") == layer) & (pl.col("input") == "start"))
    if not table.height:
        return ""
    row = table.sort("probability", descending=True).row(0, named=True)
    return f"in layer {layer} the start token goes to expert {row['expert']} with probability {row['probability']:.2f}."
