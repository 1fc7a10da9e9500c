"""Section on the lens: a reader picks a position of a prompt and a dictionary, and reads the layers like a table."""

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from monadnock.report import text
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.picker import Option, Picker, Word, WordTable, words_that_fit

_MOST = 150_000  # words in a page
_PROMPT = 60  # characters of a prompt in a list
_FULL = 0.75  # cosine that has the full shade: few are larger, but for a token and itself
_SETTING = ("prompt", "bos", "rows", "words")
_ORDER = {"input": 0, "output": 1, "middle": 2}
_APPROXIMATION = "The middle dictionary is an approximation: what the first layers make of each token after BOS."
SHADES = (
    Key("the larger the amplitude, the stronger the shade", "var(--shade)"),
    Key("no larger than noise", "var(--ink)", "faint"),
)


def lens(findings: Findings) -> list[Block]:
    """Let a reader pick prompt, position and dictionary; a row for each layer tells the words that stand out."""
    places = ["position", "layer", "dictionary"]
    table = findings["lens"].drop_nulls(places)
    if table.is_empty():
        return []
    table = table.with_columns(pl.col("prompt", "token", "rows", "words").fill_null(""))
    table = table.unique([*_SETTING, *places, "rank"], keep="first", maintain_order=True)
    table = table.sort("rank", nulls_last=True, maintain_order=True)
    cells = table.group_by([*_SETTING, *places]).len()
    count = words_that_fit(_MOST, cells.height, max(cells["len"]))
    settings = [
        _setting(key, rows, count)
        for key, rows in table.partition_by(_SETTING, as_dict=True, maintain_order=True).items()
    ]
    notes = (
        *meaning("lens", "amplitude", "layer", "dictionary", "rows", "words", "noise"),
        _APPROXIMATION,
    )
    says = (
        "Pick a token of the prompt and a dictionary. A row for each layer, the deepest last: "
        f"{text.count(count, 'word')} with the largest amplitudes, from left to right."
    )
    levels = (("Prompt", "list"), ("Token", "buttons"), ("Dictionary", "buttons"))
    keys = (*SHADES, Key("the token at this position", "var(--ink)", "own"))
    return [
        Block("Words behind every layer", says, notes, Picker("lens", levels, tuple(settings)), keys, wide=True),
    ]


def _setting(key: tuple[Any, ...], rows: pl.DataFrame, count: int) -> Option:
    """Return a prompt with its settings, its last token chosen."""
    prompt, bos, kind, only = key
    raw = kind == "raw"
    full = {
        name: largest(rows.filter(dictionary=name)["amplitude"]) if raw else _FULL
        for name in rows["dictionary"].unique()
    }
    parts = rows.sort("position", maintain_order=True).partition_by("position", as_dict=True, maintain_order=True)
    last = max(parts)
    tokens = []
    for place, part in parts.items():
        token = text.token(part["token"][0])
        dictionaries = _dictionaries(part, count, full)
        tokens.append(Option(token, dictionaries, f"position {place[0]}, “{token}”", default=place == last))
    told = ["" if bos is None else "BOS in front" if bos else "no BOS", "raw rows" * raw]
    told.append("only words of the prompt" * (only == "prompt"))
    return Option(", ".join([f"“{text.line(prompt, _PROMPT)}”", *filter(None, told)]), tuple(tokens))


def _dictionaries(part: pl.DataFrame, count: int, full: Mapping[str, float]) -> tuple[Option, ...]:
    names = sorted(part["dictionary"].unique().to_list(), key=lambda name: (_ORDER.get(name, len(_ORDER)), name))
    return tuple(
        Option(
            name or "(unnamed)",
            (_layers(part.filter(dictionary=name), count, full[name]),),
            f"{name} dictionary",
            default=name == "output",
        )
        for name in names
    )


def _layers(part: pl.DataFrame, count: int, full: float) -> WordTable:
    """Return a row for each layer, the first one for what enters the first layer."""
    middle = part["dictionary"][0].startswith("middle")
    own = part["token_id"][0]
    noise = [each for each in part["noise"].drop_nulls() if math.isfinite(each)]
    layers = part.group_by("layer").agg(pl.col("word_id", "word", "amplitude").head(count)).sort("layer")
    rows = [
        (
            "in" if layer < 0 else str(layer),
            (
                tuple(
                    Word(word, amplitude, own=each is not None and each == own)
                    for each, word, amplitude in zip(*words, strict=True)
                ),
            ),
        )
        for layer, *words in layers.rows()
    ]
    return WordTable(
        _APPROXIMATION * middle,
        ("layer", "words, the largest amplitude first"),
        tuple(rows),
        True,
        max(noise, default=0.0),
        full,
    )


def largest(amplitudes: pl.Series) -> float:
    """Return the largest finite amplitude, whatever its sign, for the full shade; 1 if there is none.

    Example:
        >>> largest(pl.Series([0.25, None, -0.5])), largest(pl.Series([], dtype=pl.Float64))
        (0.5, 1.0)
    """
    sizes = [abs(value) for value in amplitudes.drop_nulls() if math.isfinite(value)]
    return max(sizes, default=0.0) or 1.0


SECTIONS = (
    Section(
        "lens",
        "States in words",
        "Which tokens stand out in the state of each position behind each layer, when it is read by a dictionary.",
        ("lens",),
        "The table has no rows: no prompt was read.",
        lens,
    ),
)
