"""What a page is made of: sections of charts and small tables, each with its sentence and its definitions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl
from bokeh.plotting import figure

from monadnock.findings import schema
from monadnock.findings.manifest import Manifest
from monadnock.report.picker import Picker
from monadnock.report.theme import GREY


@dataclass(frozen=True)
class Findings:
    """A run as the charts see it: its manifest and the tables it has."""

    manifest: Manifest
    tables: Mapping[str, pl.DataFrame]

    def __getitem__(self, name: str) -> pl.DataFrame:
        """Return a table; one that the run does not have is empty."""
        return self.tables[name] if name in self.tables else schema.table(name).frame()


@dataclass(frozen=True)
class Key:
    """One entry of a chart's legend.

    Attributes:
        label: what the mark stands for.
        colour: its colour.
        mark: solid, dashed, dotted or dotdash (lines), dot, ring, area, diamond and flag (white with a black edge),
            faint and own (of words), or bare (a shape alone).
        shape: the marker on a line: circle, square, diamond, triangle, inverted_triangle, hex or star; or none.
    """

    label: str
    colour: str
    mark: str = "area"
    shape: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a `Listing`: a text, and in a small column beside it how far it is from what it is compared with."""

    text: str
    change: str = ""


@dataclass(frozen=True)
class Listing:
    """A table whose cells are texts already.

    Attributes:
        heads: the columns' heads; the first column names the row.
        rows: one cell for each head.
        changes: whether each column has a small one beside it, for the changes.
        starts: numbers of the rows that a line parts from those above.
        words: how many of the first columns hold words; the others hold numbers.
        wraps: whether long cells go on in a second line.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    changes: tuple[bool, ...]
    starts: frozenset[int] = frozenset()
    words: int = 1
    wraps: bool = False


@dataclass(frozen=True)
class Passage:
    """A text beside others: what it is, a note on it, the start that it shares with the first of them, and the rest."""

    label: str
    note: str
    same: str
    rest: str


@dataclass(frozen=True)
class Block:
    """A chart, a table, texts side by side, words to pick from, or only a sentence (no body), with its definitions.

    Attributes:
        title: the heading.
        says: one sentence on what is shown, or on why there is nothing to show.
        notes: definitions, most of them straight from the schema.
        body: a bokeh figure, a frame whose columns are the table's heads, a listing, passages, a picker, or nothing.
        keys: the legend, drawn beside the chart and never over it.
        alt: what a screen reader says instead of the chart.
        wide: whether the block takes the full width of the page.
    """

    title: str
    says: str
    notes: tuple[str, ...] = ()
    body: figure | pl.DataFrame | Listing | tuple[Passage, ...] | Picker | None = None
    keys: tuple[Key, ...] = ()
    alt: str = ""
    wide: bool = False

    @property
    def kind(self) -> str:
        """How the template shows the body: chart, table, listing, passages, picker or text."""
        if self.body is None:
            return "text"
        kinds = ((pl.DataFrame, "table"), (Listing, "listing"), (tuple, "passages"), (Picker, "picker"))
        return next((name for kind, name in kinds if isinstance(self.body, kind)), "chart")


def _always(_findings: Findings) -> bool:
    """Say that the tables always hold what a section is about."""
    return True


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    Attributes:
        key: anchor in the page.
        title: the heading.
        says: one sentence on the question that it answers.
        tables: the tables it is drawn from; without any of them it is left out.
        empty: the sentence that stands there when all of them have no rows; without one the section is left out then.
        draw: makes the blocks from the findings.
        when: says whether the tables hold what it is about, where they hold other things too; if not, it is left out.
    """

    key: str
    title: str
    says: str
    tables: tuple[str, ...]
    empty: str
    draw: Callable[[Findings], list[Block]]
    when: Callable[[Findings], bool] = _always


def meaning(table: str, *columns: str) -> tuple[str, ...]:
    """Return the schema's own definitions of columns, as notes."""
    docs = {name: doc for name, _, doc in schema.table(table).columns}
    return tuple(f"{column}: {docs[column]}." for column in columns)


def legend(present: pl.Series, colours: Mapping[str, str]) -> tuple[Key, ...]:
    """Return the legend of the names that occur: the known ones in their order, then the others in grey."""
    names = present.drop_nulls().unique(maintain_order=True).to_list()
    known = [Key(name, colour) for name, colour in colours.items() if name in names]
    return (*known, *(Key(name, GREY) for name in names if name not in colours))


def by_stream(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Split a table by stream: the residual first, then the intermediate state, then what else was observed."""
    names = frame["stream"].drop_nulls().unique(maintain_order=True).to_list()
    names.sort(key=lambda name: {"residual": 0, "down_proj_input": 1}.get(name, 2))
    return [(name, frame.filter(pl.col("stream") == name)) for name in names]
