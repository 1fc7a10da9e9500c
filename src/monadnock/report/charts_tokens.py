"""The section on token dictionaries: how their rows lie, which words are near, whether they suggest the next one."""

from collections.abc import Mapping

import polars as pl
from bokeh.plotting import figure

from monadnock.findings.summary_explain import finite
from monadnock.findings.summary_read import by_text, continuation, dictionary_names
from monadnock.report import text
from monadnock.report.logs import log_x
from monadnock.report.parts import Block, Cell, Findings, Key, Listing, Section, meaning
from monadnock.report.source import extent, hover, peak, source
from monadnock.report.source import finite as numbers
from monadnock.report.theme import SERIES, blank
from monadnock.report.word_maps import WRITTEN, word_map

_TIED = "Input and output dictionary are one matrix."
_NEAR = 5  # words in a cell
_ASKED = 40  # words that are listed
_DENSE = 64  # first singular values that are all drawn; of the others one in so many that about 256 are left
_FACTS = {
    "num_tokens": "tokens",
    "width": "entries of a row, D",
    "mean_norm": "mean norm of a row",
    "positive_share": "pairs with a positive product",
    "mean_similarity": "mean similarity of pairs",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "own_correlation": "correlation with the input rows",
    "noise_floor": "noise floor F",
    "capacity": "words in a state, 1 / F^2",
    "noise_largest": "largest amplitude of a random state",
}
_RELATIONS = {"input": "nearest in input", "output": "nearest in output", "continuation": "continuation"}


def tokens(findings: Findings) -> list[Block]:
    """Draw what was read of the dictionaries: their facts, spectra, similar and near words, and what comes next."""
    known = findings["dictionaries"]
    return [
        *_facts(known),
        *_spectra(findings["singular_values"], known),
        *_similarity(findings["word_similarity"], known),
        *_nearest(findings["nearest_words"], known),
        *_continuations(findings["continuations"]),
    ]


def _named(table: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return the rows of the dictionaries that are shown, and what to call each."""
    names = dictionary_names(known, table["dictionary"].drop_nulls().unique(maintain_order=True))
    return table.filter(pl.col("dictionary").is_in(list(names))), names


def _facts(known: pl.DataFrame) -> list[Block]:
    table, names = _named(known.unique("dictionary", keep="first", maintain_order=True), known)
    if table.is_empty():
        return []
    columns = {name: label for name, label in _FACTS.items() if name != "own_correlation" or "output" in names}
    rows = table.to_dicts()
    body = Listing(
        ("", *(text.printable(names[row["dictionary"]]) for row in rows)),
        tuple((Cell(label), *(Cell(_fact(row, name)) for row in rows)) for name, label in columns.items()),
        (False,) * (1 + len(rows)),
    )
    says = f"How the rows of the dictionaries lie. {_TIED}" if _tied(names) else "How the rows of each dictionary lie."
    return [Block("Dictionaries", says, meaning("dictionaries", "tied", *columns), body)]


def _fact(row: Mapping[str, float | None], name: str) -> str:
    value = row[name]
    if name == "positive_share" and value is not None:
        error = row["positive_error"]
        return f"{100 * value:.1f}%" + ("" if error is None else f" ± {100 * error:.1f}%")
    return text.number(None if value is None else float(value))


def _tied(names: Mapping[str, str]) -> bool:
    return names.get("input", "input") != "input"


def _spectra(table: pl.DataFrame, known: pl.DataFrame) -> list[Block]:
    table, names = _named(finite(table, "rank", "value").filter(pl.col("rank") > 0, pl.col("value") > 0), known)
    if table.is_empty():
        return []
    step = 1 + int(numbers(table["rank"]).max()) // 256
    drawn = table.filter((pl.col("rank") <= _DENSE) | (pl.col("rank") % step == 0)).sort("rank")
    colours = dict(zip(names, SERIES, strict=False))
    return [
        Block(
            "Singular values",
            "The singular values of the raw rows, largest first.",
            meaning("singular_values", "value") + meaning("dictionaries", "effective_rank", "stable_rank"),
            _spectrum(drawn, colours),
            tuple(Key(text.printable(names[name]), colour, "solid") for name, colour in colours.items()),
            f"Lines over ranks, both axes logarithmic. {peak(table, 'value', 'value', 'dictionary', 'rank')}",
        )
    ]


def _spectrum(table: pl.DataFrame, colours: Mapping[str, str]) -> figure:
    ends = (extent(numbers(table[column]), log=True) for column in ("rank", "value"))
    plot = blank(*ends, x_label="rank", y_label="singular value", height=300, log_y=True)
    log_x(plot)
    for name, colour in colours.items():
        data = source(table.filter(dictionary=name))
        plot.line("rank", "value", source=data, color=colour, line_width=2)
        dots = plot.scatter("rank", "value", source=data, color=colour, size=4)
        hover(plot, dots, {"dictionary": "dictionary", "rank": "rank", "singular value": "value"})
    return plot


def _similarity(table: pl.DataFrame, known: pl.DataFrame) -> list[Block]:
    pair = ["dictionary", "word_a", "word_b"]
    table, names = _named(table.drop_nulls(pair).unique(pair, keep="first", maintain_order=True), known)
    blocks = []
    for name, shown in names.items():
        rows = table.filter(dictionary=name)
        others = rows.filter(pl.col("word_a") != pl.col("word_b"))
        blocks.append(
            Block(
                f"Similarity of words: {text.printable(shown)}",
                "The similarity of the words that were asked for.",
                meaning("word_similarity", "similarity"),
                word_map(rows, "word_a", "word_b", "similarity"),
                alt=f"Map of words. {peak(others, 'similarity', 'similarity of two words', 'word_a', 'word_b')}",
                wide=rows["word_a"].n_unique() > WRITTEN,
            )
        )
    return blocks


def _nearest(table: pl.DataFrame, known: pl.DataFrame) -> list[Block]:
    table = table.drop_nulls(["relation", "asked", "rank", "word"]).sort("rank", maintain_order=True)
    present = table["relation"].unique(maintain_order=True).to_list()
    tied = _tied(dictionary_names(known, present))
    relations = [name for name in (*_RELATIONS, *present) if name in present and not (tied and name == "output")]
    relations = list(dict.fromkeys(relations))
    asked = table["asked"].unique(maintain_order=True).to_list()
    if not asked:
        return []
    heads = ["word", *(_RELATIONS.get(name, text.token(name)) for name in relations)]
    if tied:
        heads[1] = "nearest"
    rows = []
    for word in asked[:_ASKED]:
        near = [_words(table.filter(asked=word, relation=name)) for name in relations]
        same = [here if not here or here != near[0] or place == 0 else "the same" for place, here in enumerate(near)]
        rows.append((Cell(text.token(word)), *map(Cell, same)))
    says = f"The {_NEAR} tokens nearest to each word that was asked for, nearest first." + f" {_TIED}" * tied
    if len(asked) > _ASKED:
        says += f" Of {len(asked)} words the first {_ASKED} are listed."
    body = Listing(tuple(heads), tuple(rows), (False,) * len(heads), words=len(heads))
    return [Block("Nearest words", says, meaning("nearest_words", "relation", "similarity"), body, wide=True)]


def _words(rows: pl.DataFrame) -> str:
    return " · ".join(text.token(word) for word in rows["word"].unique(maintain_order=True).head(_NEAR))


def _continuations(table: pl.DataFrame) -> list[Block]:
    told = [(name, sentence) for name, rows in by_text(table) if (sentence := continuation(rows.to_dicts()[0]))]
    notes = meaning("continuations", "pairs", "rank", "control_rank", "better_share")
    title = "Do embeddings suggest what comes next?"
    return [Block(title, f"{sentence} The text is {text.printable(name)}.", notes) for name, sentence in told]


SECTIONS = (
    Section(
        "dictionaries",
        "Token dictionaries",
        "How the vectors of tokens lie to each other, with which states and weights are read.",
        ("dictionaries", "singular_values", "word_similarity", "nearest_words", "continuations"),
        "The tables have no rows: no dictionary was read.",
        tokens,
    ),
)
