"""What was read of a model as people tell it: its dictionaries, how alike states are, first sentences, words."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.findings.summary_explain import finite, massive_features
from monadnock.findings.words import listed, number

Tables = Mapping[str, pl.DataFrame]

TOPICS = ("Dictionaries", "States alike", "First sentence", "In words")  # of the summary of a run
ERRORS = 2  # standard errors that an effect has to stand off from chance
_WORDS = 4  # of each side of a feature
_CHANGES = 3  # layers that change a state most


def dictionary_names(dictionaries: pl.DataFrame, present: Iterable[str]) -> dict[str, str]:
    """Return what to call each dictionary present; the output dictionary is left out where it is the input's matrix."""
    names = {name: name for name in present}
    if dictionaries["tied"].fill_null(False).any() and {"input", "output"} <= set(names):
        del names["output"]
        names["input"] = "input and output"
    return names


def by_text(table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Part a table by the text that was read: the text's name, and its rows."""
    named = table.with_columns(pl.col("data").fill_null("unnamed text"))
    return [(part["data"][0], part) for part in named.partition_by("data", maintain_order=True)]


def dictionaries(_manifest: Manifest, tables: Tables) -> str:
    """Say how the dictionaries lie, what can be told apart in a state, and whether embeddings suggest what comes next.

    Nothing if no dictionary was read.
    """
    table = tables["dictionaries"].drop_nulls("dictionary")
    rows = {row["dictionary"]: row for row in reversed(table.to_dicts())}
    names = dictionary_names(table, table["dictionary"].unique(maintain_order=True))
    said = [told for name, shown in names.items() if (told := _dictionary(shown, rows[name]))]
    if not said:
        return ""
    apart = finite(table.filter(dictionary="output"), "own_correlation")["own_correlation"].to_list()
    said += [f"the two rows of one token correlate by {number(mean)}" for mean in apart[:1] if "output" in names]
    told = [f"{'; '.join(said)}."]
    noise = finite(table, "noise_floor", "capacity").select("noise_floor", "capacity").rows()
    told += [
        f"Amplitudes below F = {number(f)} are noise; 1 / F^2 = {number(n)} words fit into a state."
        for f, n in noise[:1]
    ]
    tests = (
        [row for row in tables["continuations"].to_dicts() if continuation(row)] if "continuations" in tables else []
    )
    return " ".join(told + [continuation(row) for row in tests[:1]])


def _dictionary(name: str, row: Mapping[str, Any]) -> str:
    """Say how large one dictionary is and how its rows lie."""
    if not _there(row["num_tokens"], row["width"]):
        return ""
    both = "one matrix" if " and " in name else "a matrix"
    told = f"{name}: {both} of {row['num_tokens']:,} tokens with {row['width']:,} entries each"
    if _there(row["effective_rank"]):
        told += f", effective rank {number(row['effective_rank'])}"
    if _there(row["positive_share"]):
        told += f", {row['positive_share']:.1%} of the pairs of rows with a positive product (random directions: half)"
    return told


def continuation(row: Mapping[str, Any]) -> str:
    """Say whether raw input embeddings, read by the output dictionary, suggest what comes next, beside the control."""
    needed = ("pairs", "rank", "control_rank", "top_share", "control_share", "better_share")
    if not _there(*(row[name] for name in needed)) or row["pairs"] < 1:
        return ""
    better = row["better_share"] > 0.5 + ERRORS * 0.5 / math.sqrt(row["pairs"])
    return (
        "Raw input embeddings, read by the output dictionary, rank the next token of a text at "
        f"{number(row['rank'])} in the median (next tokens dealt out anew: {number(row['control_rank'])}), "
        f"{row['top_share']:.1%} of them among the first 10 ({row['control_share']:.1%}); it comes before the one "
        f"dealt out in {row['better_share']:.1%} of {row['pairs']:,} pairs (chance: 50%), so that they "
        f"{'suggest' if better else 'do not suggest'} what comes next."
    )


def states_alike(_manifest: Manifest, tables: Tables) -> str:
    """Say how alike a token's states are from layer to layer, who changes them most, and how alike tokens are.

    Nothing if it was not measured; of several texts the first is told.
    """
    texts = by_text(tables["state_similarity"])
    table = finite(texts[0][1], "mean").drop_nulls("layer") if texts else tables["state_similarity"]
    steps = table.filter(relation="later", gap=1).unique("layer", keep="first").sort("layer")
    said = []
    middle = steps.filter(pl.col("layer") >= 1, pl.col("layer") < pl.col("layer").max())
    if middle.height:
        first, last = middle["layer"][0] + 1, middle["layer"][-1] + 1
        said.append(
            f"what goes into a layer and what comes out of it have a similarity of {number(_mean(middle))} "
            f"on average (layers {first} to {last})"
        )
    if steps.height:
        least = steps.sort("mean").head(_CHANGES).select("layer", "mean").rows()
        said.append(f"most is changed by {listed([f'layer {layer + 1} ({number(mean)})' for layer, mean in least])}")
    near = [
        f"{name} {number(_mean(rows))}"
        for name in ("neighbours", "next neighbours", "all pairs")
        if (rows := table.filter(pl.col("relation") == name, pl.col("layer") >= 0)).height
    ]
    if near:
        said.append(f"different tokens of one layer, mean over layers: {listed(near)}")
    return _of_text("; ".join(said), texts)


def sentence_effect(row: Mapping[str, Any]) -> str:
    """Say how attention to the first token falls where a sentence ends, beside its control; a row of the table."""
    if not _there(row["fall"], row["control_fall"], row["effect"], row["sentence"]):
        return ""
    heads = f"{row['num_heads'] or 0:,} heads, {row['num_texts'] or 0:,} texts"
    return (
        f"attention to the first token {_moves(row['fall'])} where sentence {row['sentence']} ends ({heads}), and "
        f"{_moves(row['control_fall'])} at the same positions of texts where none ends: the effect {_verdict(row)}"
    )


def _moves(fall: float) -> str:
    return f"{'falls' if fall >= 0 else 'rises'} by {abs(fall):.2g}"


def _verdict(row: Mapping[str, Any]) -> str:
    effect, error = row["effect"], row["effect_error"]
    if not _there(error):
        return f"({effect:.2g}) has no error to go by"
    word = "holds" if effect > ERRORS * error else "is reversed" if effect < -ERRORS * error else "is not seen"
    return f"{word} ({effect:.2g} ± {error:.2g})"


def first_sentence(_manifest: Manifest, tables: Tables) -> str:
    """Say whether attention to the first token falls where the first sentence ends, and where the next ones do.

    Nothing if it was not measured; of several texts the first is told.
    """
    texts = by_text(tables["first_sentence"])
    if not texts:
        return ""
    whole = texts[0][1].filter(pl.col("layer").is_null()).unique("sentence", keep="first").sort("sentence")
    rows = [row for row in whole.to_dicts() if sentence_effect(row)]
    if not rows:
        return ""
    later = [f"where sentence {row['sentence']} ends it {_verdict(row)}" for row in rows[1:]]
    return _of_text("; ".join([sentence_effect(rows[0]), *later]), texts)


def in_words(_manifest: Manifest, tables: Tables) -> str:
    """Say which tokens each massive feature pushes up and down through the output dictionary; nothing if not read."""
    table = finite(tables["readings"], "amplitude").drop_nulls(["index", "sign", "rank", "word"])
    table = table.filter(kind="feature", side="writes", dictionary="output")
    table = table.filter(pl.col("index").is_in(massive_features(tables["lifecycles"]).implode()))
    noise = tables["dictionaries"].filter(dictionary="output") if "dictionaries" in tables else None
    floors = [] if noise is None else finite(noise, "noise_largest")["noise_largest"].to_list()
    floor = floors[0] if floors else 0.0
    told = []
    for feature in table["index"].unique(maintain_order=True):
        rows = table.filter(index=feature).sort("rank", maintain_order=True)
        sides = [_side(rows.filter(sign=sign), name, floor) for sign, name in ((1, "up"), (-1, "down"))]
        if any(sides):
            told.append(f"feature {feature} pushes {', and '.join(side for side in sides if side)}")
    return f"read by the output dictionary, {'; '.join(told)}." if told else ""


def _side(rows: pl.DataFrame, name: str, floor: float) -> str:
    """Name the tokens that are pushed up or down, if any amplitude is above that of random states."""
    if rows.is_empty():
        return ""
    if rows.filter(pl.col("amplitude").abs() > floor).is_empty():
        return f"no token {name} by more than a random state does"
    return f"{name} {listed([repr(word) for word in rows['word'].unique(maintain_order=True).head(_WORDS)])}"


def _there(*values: float | None) -> bool:
    """Say whether all these numbers are there and finite."""
    return all(value is not None and math.isfinite(value) for value in values)


def _mean(rows: pl.DataFrame) -> float:
    return float(rows["mean"].to_numpy().mean())


def _of_text(said: str, texts: list[tuple[str, pl.DataFrame]]) -> str:
    """End a sentence, and name the text that it tells of if there are others."""
    if not said:
        return ""
    return f"{said}." + (f" This is of {texts[0][0]}, the first of {len(texts)} texts." if len(texts) > 1 else "")
