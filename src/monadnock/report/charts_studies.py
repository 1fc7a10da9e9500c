"""Sections on chosen inputs: figure 2 of oh2024 for any model, what length does, and whole maps of attention."""

import polars as pl

from monadnock.findings.summary_studies import LISTED_SHARE, by_token, next_layer, shown_layer
from monadnock.report import text
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import extent, finite, peak
from monadnock.report.theme import GREY, LAYER_LABEL
from monadnock.report.token_maps import LONG, Scale, token_rows, token_strips

_SHARE = Scale((0.0, 1.0))
_SHORT = 16  # tokens of an input whose strip has them written into it
_LEAST = 0.01  # attention of a pair of a long input, which has thousands of pairs, that is drawn
_PROMPT = 60  # characters of a prompt in a heading
_INPUT = ("study", "prompt", "input")
_SUBJECTS = {"bos": "BOS in four places", "length": "Texts of growing length", "attention": "One text"}
_MASSIVE = Key("massive (sun2024)", GREY, "flag")
_HALF = Key("sink (gu2025) of half the heads of the layer", GREY, "flag")
_TENTH = Key("sink (gu2025) of a tenth of all heads", GREY, "flag")
_ATTENTION = (
    *meaning("inputs", "attention", "uniform", "num_sink_heads"),
    "The last keys are seen by few queries, the last one by its own alone: their attention says little.",
)
_PLACE = {"token": "token", "position": "position"}
_STATE = _PLACE | {"layer": "layer", "largest |h|": "top1", "in feature": "feature", "times the median": "ratio"}
_KEY = _PLACE | {
    "layer": "layer", "attention": "attention", "if uniform": "uniform", "heads with their sink there": "num_sink_heads"
}  # fmt: skip


def inputs(findings: Findings) -> list[Block]:
    """Draw the state and the attention of every token, the inputs of a study below each other on one scale.

    Short inputs are drawn by layer; long ones, and texts of growing length, as strips behind the shown layer.
    """
    manifest = findings.manifest
    table = _named(findings["inputs"])
    table = table.with_columns(_half=pl.col("num_sink_heads") >= max(1, manifest.model.num_heads / 2))
    heads = manifest.model.num_layers * manifest.model.num_heads
    tokens = by_token(manifest, {**findings.tables, "inputs": table})
    tokens = tokens.with_columns(_tenth=pl.col("sinks") >= max(1, LISTED_SHARE * heads))
    layer = shown_layer(manifest, findings.tables)
    places = layer, next_layer(manifest, layer)
    blocks: list[Block] = []
    for study, rows in _by_study(table):
        if study == "length":
            blocks += _lengths(tokens.filter(study="length"), places)
            continue
        parts = rows.partition_by("prompt", maintain_order=True)
        for part in parts:
            subject = _subject(study, part["prompt"][0] if len(parts) > 1 else "")
            if finite(part["position"]).max() < LONG:
                blocks += _by_layer(subject, part)
            else:
                strips = tokens.filter(study=study, prompt=part["prompt"][0])
                blocks += _strips(subject, strips, _sizes(strips), places, words=False)
    return blocks


def maps(findings: Findings) -> list[Block]:
    """Draw attention from every query to every key, the inputs of a study below each other.

    Of texts of growing length only the short ones are drawn, and of long texts with BOS in four places only one layer;
    the table has the others.
    """
    table = _named(findings["maps"]).drop_nulls(["query", "key"])
    tokens = _named(findings["inputs"]).unique([*_INPUT, "position"], maintain_order=True)
    for side in ("query", "key"):
        named = tokens.select(*_INPUT, pl.col("position").alias(side), pl.col("token").alias(f"_{side}"))
        table = table.join(named, [*_INPUT, side], how="left", maintain_order="left")
    table = table.with_columns(pl.col("_query", "_key").fill_null(""), _dot=pl.lit(False))
    after = next_layer(findings.manifest, shown_layer(findings.manifest, findings.tables))
    blocks = []
    for study, rows in _by_study(table):
        parts = rows.partition_by("prompt", maintain_order=True)
        if study == "length":
            short = pl.col("query").max().over("input", "prompt") < _SHORT
            rows = rows.filter(short, pl.col("layer") == after)
            without = rows.filter(pl.col("input").str.ends_with("no BOS"))
            parts = [without if without.height else rows]
        for part in parts:
            if study == "bos" and finite(part["query"]).max() >= LONG:
                part = part.filter(pl.col("layer") == after)
            subject = _subject(study, part["prompt"][0] if len(parts) > 1 and part.height else "")
            places = part.select("layer", "head").unique().sort("layer", "head").rows()
            blocks += [
                _map(subject, layer, head, part.filter(pl.col("layer") == layer, pl.col("head").eq_missing(head)))
                for layer, head in places
            ]
    return blocks


def _by_study(table: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Part a table by kind of study, in the order in which the kinds are told."""
    parts = [(part["study"][0], part) for part in table.partition_by("study", maintain_order=True)]
    return sorted(parts, key=lambda pair: list(_SUBJECTS).index(pair[0]) if pair[0] in _SUBJECTS else len(_SUBJECTS))


def _subject(study: str, prompt: str) -> str:
    """Return what a study is about, for a heading; with its prompt if there are several."""
    prompt = text.line(prompt, _PROMPT)
    return _SUBJECTS.get(study, study or "unnamed study") + (f", “{prompt}”" if prompt else "")


def _named(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table without rows that have no place, every input with a name."""
    words = [name for name in ("study", "input", "prompt", "token") if name in table.columns]
    places = [name for name in ("layer", "position") if name in table.columns]
    return table.drop_nulls(places).with_columns(pl.col(words).fill_null(""))


def _panels(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    return [(part["input"][0] or "(unnamed)", part) for part in rows.partition_by("input", maintain_order=True)]


def _by_layer(subject: str, rows: pl.DataFrame) -> list[Block]:
    """Draw |h| and attention of every token by layer, beside each other."""
    panels = _panels(rows)
    sizes = _sizes(rows)
    return [
        Block(
            f"{subject}: largest |h|",
            "The largest |h| of each token behind each layer.",
            meaning("inputs", "top1", "ratio", "massive"),
            token_rows(panels, "layer", "top1", _STATE, sizes, x_label=LAYER_LABEL, dots="massive"),
            (_MASSIVE,),
            f"Map of tokens and layers. {_peak(rows, 'top1', '|h|', 'token', 'layer')}",
        ),
        Block(
            f"{subject}: attention",
            "The attention that each token gets, mean over heads.",
            _ATTENTION,
            token_rows(panels, "layer", "attention", _KEY, _SHARE, x_label=LAYER_LABEL, dots="_half"),
            (_HALF,),
            f"Map of tokens and layers. {_peak(rows, 'attention', 'attention', 'token', 'layer')}",
        ),
    ]


def _sizes(rows: pl.DataFrame) -> Scale:
    return Scale(extent(finite(rows["top1"]), log=True), log=True)


def _lengths(tokens: pl.DataFrame, places: tuple[int, int]) -> list[Block]:
    """Draw texts of growing length: the short ones with their tokens written in, then the long ones, on one scale."""
    long = pl.col("position").max().over("input", "prompt") >= _SHORT
    short, longer = tokens.filter(~long), tokens.filter(long)
    sizes = _sizes(tokens)
    return (_strips("Short texts", short, sizes, places, words=True) if short.height else []) + (
        _strips("Longer texts", longer, sizes, places, words=False) if longer.height else []
    )


def _strips(subject: str, rows: pl.DataFrame, sizes: Scale, places: tuple[int, int], *, words: bool) -> list[Block]:
    """Draw each input as a strip of its tokens: |h| behind the first of two layers, attention in the second."""
    states = _PLACE | {"largest |h|": "top1", "times the median": "ratio"}
    keys = _PLACE | {"attention": "attention", "if uniform": "uniform", "heads with their sink there": "sinks"}
    return [
        Block(
            f"{subject}: largest |h|",
            f"The largest |h| of each token behind layer {places[0]}.",
            meaning("inputs", "top1", "ratio", "massive"),
            token_strips(_panels(rows), "top1", states, sizes, dots="massive", words=words),
            (_MASSIVE,),
            f"Strips of tokens. {_peak(rows, 'top1', '|h|', 'token', 'position')}",
            wide=True,
        ),
        Block(
            f"{subject}: attention",
            f"The attention that each token gets in layer {places[1]}, mean over heads.",
            _ATTENTION,
            token_strips(_panels(rows), "attention", keys, _SHARE, dots="_tenth", words=words),
            (_TENTH,),
            f"Strips of tokens. {_peak(rows, 'attention', 'attention', 'token', 'position')}",
            wide=True,
        ),
    ]


def _peak(rows: pl.DataFrame, value: str, unit: str, *by: str) -> str:
    """Return a sentence naming the largest value, where it is, and in which input."""
    top = rows.filter(pl.col(value).is_finite()).sort(value, descending=True).head(1)
    return peak(rows, value, unit, *by) + (f" The input is: {top['input'][0]}." if top.height else "")


def _map(subject: str, layer: int, head: int | None, rows: pl.DataFrame) -> Block:
    """Draw one layer's map of every input, queries from top to bottom, keys from left to right."""
    frame = rows.rename({"query": "position", "_query": "token"})
    cut = bool(finite(frame["position"]).max() >= LONG)
    frame = frame.filter(pl.col("mass") >= _LEAST) if cut else frame
    shown = {
        "query": "token",
        "position of the query": "position",
        "key": "_key",
        "position of the key": "key",
        "A": "mass",
    }
    return Block(
        f"Layer {layer}, {'mean over heads' if head is None else f'head {head}'}: {subject}",
        "Rows are queries; columns are keys, by their position." + f" Below {_LEAST:.0%} nothing is drawn." * cut,
        meaning("maps", "mass", "head"),
        token_rows(_panels(frame), "key", "mass", shown, _SHARE, x_label="position of the key (0-based)", dots="_dot"),
        (),
        f"Map of queries and keys. {_peak(rows, 'mass', 'attention', 'query', 'key')}",
    )


SECTIONS = (
    Section(
        "inputs",
        "Chosen inputs",
        "Which tokens are massive and which get the attention, where BOS stands elsewhere and as texts grow.",
        ("inputs",),
        "The table has no rows: no input was studied.",
        inputs,
    ),
    Section(
        "maps",
        "Attention maps",
        "From which token attention goes to which.",
        ("maps",),
        "The table has no rows: no map was kept.",
        maps,
    ),
)
