"""What the page says about the run itself: the facts of its manifest, its sources, and what was not finite."""

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.report import text
from monadnock.report.parts import Findings

SOURCES = {
    "an2025": "An et al. 2025, Systematic Outliers in Large Language Models",
    "sun2024": "Sun et al. 2024, Massive Activations in Large Language Models",
    "gu2025": "Gu et al. 2025, When Attention Sink Emerges in Language Models",
    "oh2024": "Oh et al. 2024, House of Cards: Massive Weights in LLMs",
    "yu2024": "Yu et al. 2024, The Super Weight in Large Language Models",
    "wray2023": "Wray 2023, Visualizing the inner world of a large language model (Llama 2 7B)",
    "roy2007": "Roy and Vetterli 2007, The Effective Rank: A Measure of Effective Dimensionality",
    "jonasson2025": "Jonasson 2025, Rotary Outliers and Rotary Offset Features in Large Language Models",
}


def facts(manifest: Manifest) -> dict[str, str]:
    """Return the facts that a reader needs before any chart, by label."""
    model, words, check = manifest.model, manifest.text, manifest.self_check
    tokens = text.count(words.num_windows * words.length, "token")
    windows = text.count(words.num_windows, "window")
    with_bos = f"yes, {text.token(words.start_token)} (id {words.start_token_id})"
    without = f"no; the text starts where it starts, the start token is {text.token(words.start_token)}"
    shape = f"{text.count(model.num_layers, 'layer')}, {text.count(model.num_heads, 'head')}, width {model.hidden_size}"
    return {
        "Model": model.id + (f" at {model.revision}" if model.revision else ""),
        "Family": f"{model.family}: {shape}" + (f", {model.num_experts} experts" if model.num_experts else ""),
        "Dtype": model.dtype,
        "Tokens": f"{tokens} in {windows} of {words.length:,} ({words.source})",
        "BOS in front": with_bos if words.bos else without,
        "Self-check": "not needed: no pass over the text"
        if check is None
        else f"logits differ by {text.number(check.relative_error)} of the largest logit "
        f"(at most {text.number(check.tolerance)}, {text.count(check.num_logit_positions, 'position')})",
        "Date": f"{manifest.created:%Y-%m-%d %H:%M} UTC, monadnock {manifest.monadnock}",
    }


def provenance(manifest: Manifest) -> dict[str, str]:
    """Return the remaining facts that the numbers depend on, by label."""
    model, words = manifest.model, manifest.text
    return {
        "Source of the model": model.source,
        "Parameters": f"{model.num_parameters:,}",
        "Context length": text.cell(model.context_length),
        "Vocabulary": f"{model.vocab_size:,}",
        "Config never read": ", ".join(model.ignored_config) or text.NONE,
        "Device": model.device,
        "Attention": manifest.attention,
        "Probes": ", ".join(manifest.probes) or text.NONE,
        "Thresholds": ", ".join(f"{name} = {text.number(value)}" for name, value in manifest.thresholds.items()),
        "Seed": str(words.seed),
        "Hash of the token ids": words.token_hash,
        "Versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        **({"Duration": f"{manifest.seconds:,.1f} s"} if manifest.seconds else {}),  # runs that no scan began have none
        **_attacks(manifest),
    }


def _attacks(manifest: Manifest) -> dict[str, str]:
    """Return what each series of attacks depends on, by label."""
    told = {}
    for place, series in enumerate(manifest.attacks, 1):
        words = series.text
        parts = (
            f"{text.count(words.num_windows, 'window')} of {text.count(words.length, 'token')} of {words.source}",
            f"{text.token(words.start_token)} in front" if words.bos else "no BOS in front",
            f"{text.count(series.stride, 'token')} of every window but the first scored",
            f"seed {words.seed}",
            f"hash of the token ids {words.token_hash}",
            f"metrics {', '.join(series.metrics) or text.NONE}",
            f"attention {series.attention}",
            f"on {series.device}",
            *[", ".join(f"{name} = {text.number(value)}" for name, value in series.thresholds.items())]
            * bool(series.thresholds),
            ", ".join(f"{name} {version}" for name, version in series.versions.items()),
            f"monadnock {series.monadnock}, {series.created:%Y-%m-%d %H:%M} UTC",
        )
        told["Attacks" + f" {place}" * (len(manifest.attacks) > 1)] = "; ".join(part for part in parts if part)
    return told


def cited(notes: tuple[str, ...], manifest: Manifest) -> list[str]:
    """Return a line for every source that the notes name, with the thresholds that this run took from it."""
    lines = []
    for source, work in SOURCES.items():
        if any(source in note for note in notes):
            mine = [f"{k} = {text.number(v)}" for k, v in manifest.thresholds.items() if k.startswith(f"{source}.")]
            lines.append(f"{source}: {work}" + (f"; in this run {', '.join(mine)}." if mine else "."))
    return lines


def warnings(findings: Findings) -> list[str]:
    """Return a sentence for every place where NaN or infinity was met, the first ten, and how many more there are."""
    table = findings["nonfinite"]
    lines = [
        f"{text.count(row['count'] or 0, 'entry', 'entries')} not finite in {row['where'] or 'an unnamed place'} "
        f"({'no layer' if row['layer'] is None else 'layer ' + str(row['layer'])}, {row['name'] or 'unnamed'})."
        for row in table.sort(pl.col("count"), descending=True, nulls_last=True).head(10).to_dicts()
    ]
    return lines + [f"And {table.height - 10} more places."] * (table.height > 10)
