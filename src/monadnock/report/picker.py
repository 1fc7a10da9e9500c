"""Tables of words that a reader picks from: what there is to choose, and the JSON from which the page draws it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from monadnock.report import text

_LARGEST = 1e9  # amplitudes are cut there


class Word(NamedTuple):
    """A token's text as the model has it, its amplitude, and whether it is the very token that stands there."""

    text: str | None
    amplitude: float | None
    own: bool = False


@dataclass(frozen=True)
class WordTable:
    """Rows of words, or only a sentence.

    Attributes:
        says: the sentence above the rows.
        heads: the columns' heads; the first column names the row.
        rows: the row's name, then the words of each column.
        spread: whether each word of the only column has a cell of its own, so that words stand below each other.
        floor: the amplitude below which words are fainter.
        full: the amplitude that has the full shade.
    """

    says: str = ""
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[tuple[Word, ...], ...]], ...] = ()
    spread: bool = False
    floor: float = 0.0
    full: float = 1.0


@dataclass(frozen=True)
class Option:
    """Something to choose.

    Attributes:
        label: what stands on its button or in its list.
        then: what there is to choose next, or the tables that are shown.
        name: what it is called in full; the label by default.
        default: whether it is chosen at first; by default the first option is.
        faint: whether its button is paler than others.
    """

    label: str
    then: "tuple[Option, ...] | tuple[WordTable, ...]"
    name: str = ""
    default: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Picker:
    """What a reader chooses, level by level, until there are tables.

    Attributes:
        table: the run's table that holds the same words, for readers without JavaScript.
        levels: the name of each level, and how it is shown: list or buttons.
        options: those of the first level.
    """

    table: str
    levels: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]


def as_json(picker: Picker) -> dict[str, Any]:
    """Return a picker as the page's script takes it.

    Every text comes once, in `texts`. The words of a cell are its texts' numbers and amplitudes in turn, the latter in
    hundred-thousandths or null; the number of the token that stands there is inverted (`~`).

    Example:
        >>> table = WordTable("", ("layer", "words"), (("0", ((Word(" the", 0.5), Word("a", 0.25, own=True)),)),))
        >>> tree = as_json(Picker("lens", (("Position", "buttons"),), (Option("0", (table,)),)))
        >>> tree["texts"], tree["tree"]["options"][0]["then"][0]["rows"]
        (['␣the', 'a'], [['0', [0, 50000, -2, 25000]]])
    """
    numbers: dict[str, int] = {}
    tree = _level(picker.options, numbers)
    return {"levels": [list(level) for level in picker.levels], "texts": list(numbers), "tree": tree}


def _level(options: Sequence[Option], numbers: dict[str, int]) -> dict[str, Any]:
    default = next((place for place, option in enumerate(options) if option.default), 0)
    return {"default": default, "options": [_option(option, numbers) for option in options]}


def _option(option: Option, numbers: dict[str, int]) -> dict[str, Any]:
    tables = [each for each in option.then if isinstance(each, WordTable)]
    further = [each for each in option.then if isinstance(each, Option)]
    then = _level(further, numbers) if further else [_table(table, numbers) for table in tables]
    told: dict[str, Any] = {"label": text.printable(option.label), "then": then}
    if option.name:
        told["name"] = text.printable(option.name)
    return told | ({"faint": True} if option.faint else {})


def _table(table: WordTable, numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "says": text.printable(table.says),
        "heads": list(table.heads),
        "rows": [
            [label, *([part for word in words for part in _word(word, numbers)] for words in cells)]
            for label, cells in table.rows
        ],
        "spread": table.spread,
        "floor": _whole(table.floor),
        "full": _whole(table.full),
    }


def _word(word: Word, numbers: dict[str, int]) -> tuple[int, int | None]:
    number = numbers.setdefault(text.token(word.text or ""), len(numbers))
    return ~number if word.own else number, _whole(word.amplitude)


def _whole(value: float | None) -> int | None:
    if value is None or not math.isfinite(value):
        return None
    return round(100_000 * max(-_LARGEST, min(value, _LARGEST)))


def words_that_fit(most: int, cells: int, longest: int) -> int:
    """Return how many words of each cell are drawn so that a page has about `most`, three at least.

    Example:
        >>> words_that_fit(60_000, 6480, 8), words_that_fit(60_000, 100_000, 8)
        (8, 3)
    """
    return min(longest, max(3, most // max(cells, 1)))
