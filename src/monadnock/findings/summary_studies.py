"""Studies as people tell them: which tokens of each input stand out, and where BOS and length matter."""

from collections.abc import Mapping

import polars as pl

from monadnock.findings import words
from monadnock.findings.manifest import Manifest

LISTED_SHARE = 0.1  # of all heads: a token that is not massive is told if so many have it as a sink
_KEYS = ("study", "prompt", "input")


def shown_layer(manifest: Manifest, tables: Mapping[str, pl.DataFrame]) -> int:
    """Return the layer behind which states are told: the middle one, as in oh2024, or the massive one if that is later.

    Attention is told of the next layer (`next_layer`). In models that make their massive activations step by step the
    massive layer is a first one, behind which there is little to see.
    """
    middle = max(manifest.model.num_layers // 2 - 1, 0)
    weights = tables.get("massive_weights")
    if weights is None or weights.is_empty():
        return middle
    return max(middle, weights.sort("rank")["layer"][0])


def next_layer(manifest: Manifest, layer: int) -> int:
    """Return the layer behind this one, or this one if it is the last."""
    return min(layer + 1, manifest.model.num_layers - 1)


def by_token(manifest: Manifest, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row per input and position: its state behind the shown layer, attention in the next, sinks in all.

    Returns:
        Columns study, prompt, input, position, token, token_class, inserted, top1, ratio, massive (behind the shown
        layer), attention, uniform (in the next), sinks (heads of all layers that have their sink there). The order is
        that of the table.
    """
    inputs = tables["inputs"].with_columns(pl.col(*_KEYS).fill_null("")).drop_nulls(["layer", "position"])
    layer = shown_layer(manifest, tables)
    here, there = pl.col("layer") == layer, pl.col("layer") == next_layer(manifest, layer)
    return inputs.group_by(*_KEYS, "position", maintain_order=True).agg(
        pl.col("token", "token_class").drop_nulls().first(),
        pl.col("inserted").fill_null(False).any(),
        *(pl.col(name).filter(here).first() for name in ("top1", "ratio")),
        pl.col("massive").filter(here).first().fill_null(False),
        *(pl.col(name).filter(there).first() for name in ("attention", "uniform")),
        sinks=pl.col("num_sink_heads").sum(),
    )


def listed(manifest: Manifest, tokens: pl.DataFrame) -> pl.DataFrame:
    """Return the tokens that are told: massive ones, those that were put in, and sinks of a tenth of all heads."""
    heads = manifest.model.num_layers * manifest.model.num_heads
    return tokens.filter(pl.col("massive") | pl.col("inserted") | (pl.col("sinks") >= max(1, LISTED_SHARE * heads)))


def bos_matters(manifest: Manifest, tables: Mapping[str, pl.DataFrame]) -> str:
    """Say which tokens are massive with BOS nowhere, at the start, in the middle and at the end.

    Of several prompts the first is told; nothing if it was not studied.
    """
    tokens = by_token(manifest, tables).filter(study="bos")
    tokens = tokens.filter(pl.col("prompt") == pl.col("prompt").first())
    if tokens.is_empty():
        return ""
    found = {part["input"][0]: part for part in tokens.partition_by("input", maintain_order=True)}
    parts = [f"{name}, {_massive(rows)}" for name, rows in found.items()]
    return f"massive behind layer {shown_layer(manifest, tables)}: {'; '.join(parts)}.{_verdict(found)}"


def length_matters(manifest: Manifest, tables: Mapping[str, pl.DataFrame]) -> str:
    """Say whether the strongest sink and massive tokens move as a text grows; nothing if that was not studied."""
    tokens = by_token(manifest, tables).filter(study="length")
    least = max(1, LISTED_SHARE * manifest.model.num_layers * manifest.model.num_heads)
    without = pl.col("input").str.ends_with("no BOS")
    said: list[str] = []
    for front, rows in (("Without BOS", tokens.filter(without)), ("With BOS in front", tokens.filter(~without))):
        inputs = sorted(rows.partition_by("input", maintain_order=True), key=lambda part: part.height)
        if not inputs:
            continue
        sinks = {part.height: part.sort("sinks", descending=True, maintain_order=True).to_dicts()[0] for part in inputs}
        has = {height: row for height, row in sinks.items() if row["sinks"] >= least}
        told = ["no token is a sink of a tenth of the heads"]
        if has:
            places = {row["position"] for row in has.values()}
            told = [f"the strongest sink is at {_positions(places)} ({_counts(has)})"]
            if none := [str(height) for height in sinks if height not in has]:
                told.append(f"at {words.listed(none, 4)} tokens there is none")
        massive = {place for part in inputs for place in part.filter(pl.col("massive"))["position"]}
        told.append(f"massive behind layer {shown_layer(manifest, tables)}: {_positions(massive)}")
        front = front if said else f"w{front[1:]}"  # what follows a topic is small
        said.append(f"{front}, from {inputs[0].height} to {inputs[-1].height} tokens, {'; '.join(told)}.")
    return " ".join(said)


def _counts(sinks: Mapping[int, dict]) -> str:
    first, last = min(sinks), max(sinks)
    ends = [f"{sinks[height]['sinks']} heads at {height} tokens" for height in dict.fromkeys((first, last))]
    return ", ".join(ends)


def _positions(places: set[int]) -> str:
    told = [str(place) for place in sorted(places)]
    return "none" if not told else f"position{'s' * (len(told) > 1)} {words.listed(told, 4)}"


def _massive(rows: pl.DataFrame) -> str:
    found = rows.filter(pl.col("massive")).sort("top1", descending=True).to_dicts()
    return words.listed([f"{row['token']!r} (|h| {number(row['top1'])})" for row in found], 4) if found else "none"


def _verdict(found: Mapping[str, pl.DataFrame]) -> str:
    """Say whether it is the token that matters, or its place."""
    put = {name: rows.filter(pl.col("inserted")) for name, rows in found.items()}
    put = {name: rows for name, rows in put.items() if rows.height}
    if not put:
        return ""
    where = [name for name, rows in put.items() if rows["massive"].any()]
    mark, _, _ = next(iter(put)).partition(" at ")
    if not where:
        said = "nowhere"
    elif len(where) == len(put):
        said = "wherever it stands"
    else:
        said = f"only {words.listed([name.removeprefix(mark).strip() for name in where], 4)}"
    first = all(rows.filter(pl.col("position") == 0)["massive"].any() for rows in found.values())
    return f" {mark} is massive {said}." + " The first token is massive whichever it is." * first


def kept(maps: pl.DataFrame) -> str:
    """Say of which layers and heads there are maps."""
    mean = sorted(maps.filter(pl.col("head").is_null())["layer"].drop_nulls().unique())
    single = maps.drop_nulls(["layer", "head"]).select("layer", "head").unique().sort("layer", "head").rows()
    said = [f"layers {words.listed([str(layer) for layer in mean], 9)}, mean over heads"] if mean else []
    said += [f"head {head} of layer {layer}" for layer, head in single[:9]]
    return "; ".join(said + [f"{len(single) - 9} more"] * (len(single) > 9)) or "none"


def share(value: float | None) -> str:
    """Return a share of attention as tables tell it."""
    return "" if value is None else f"{value:.2f}"


def number(value: float | None) -> str:
    """Return a magnitude as sentences tell it."""
    if value is None:
        return "unknown"
    return words.number(value)
