"""The page of an atlas: numbers of many models in one table, and drawn over their size."""

from pathlib import Path

import polars as pl
from bokeh.models import NumeralTickFormatter

from monadnock.findings.pages import check_replaceable, write_file
from monadnock.relations.atlas import Atlas, column
from monadnock.relations.compare_numbers import NUMBERS, Number
from monadnock.report import text
from monadnock.report.page import fill
from monadnock.report.parts import Block, Cell, Key, Listing
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import GREY, SERIES, blank

_VERB = "atlas"
_HEIGHT = 300
_MOST = 500  # rows of the page's table
_LONGEST = 40  # characters of a name
_PRINTED = {
    "depth": "depth",
    "massive_rows": "rows",
    "heads_with_a_sink": "sinks",
    "8_bit_error_worst_matrix": "8 bits",
}
_LISTED = ("massive_layer", "massive_rows", "largest_h_median", "heads_with_a_sink", "offsets_of_half_a_turn_at_most",
           "8_bit_error_median_matrix", "8_bit_error_worst_matrix")  # fmt: skip
_DRAWN = {"depth": False, "massive_rows": False, "largest_h_median": True, "heads_with_a_sink": False,
          "offsets_of_half_a_turn_at_most": False, "8_bit_error_worst_matrix": True}  # fmt: skip
_DEPTH = "relative depth of the massive layer: 0 for the first layer, 1 for the last"


class _Chapter:
    def __init__(self, key: str, title: str, says: str):
        self.key, self.title, self.says, self.empty = key, title, says, ""


def write_atlas(found: Atlas, path: str | Path = "atlas.html") -> Path:
    """Write the page of an atlas and return its path; an older page of an atlas there is replaced.

    Raises:
        MonadnockError: if the path holds anything else, or cannot be written.
    """
    check_replaceable(Path(path), what="page", verb=_VERB)
    return write_file(Path(path), [render(found).encode()], what="page", verb=_VERB)


def render(found: Atlas) -> str:
    """Return the page of an atlas as HTML."""
    table = found.table
    charts = [block for name, log in _DRAWN.items() if (block := _chart(table, name, log))]
    families = text.count(table["family"].n_unique(), "family", "families")
    return fill(
        [
            (_Chapter("models", "Models", "The head numbers of every run."), [_listing(table)]),
            *([(_Chapter("size", "Over the size of models", "What larger models do."), charts)] if charts else []),
        ],
        found.first,
        verb=_VERB,
        title=f"{table.height:,} runs",
        facts={
            "Folder": str(found.folder),
            "Models": f"{table['model'].n_unique():,}, of {families}",
        },
        provenance={"Texts": ", ".join(sorted(map(text.printable, table["source"].unique().drop_nulls())))[:300]},
        alarm="Not every run is here",
        so="These could not be read:",
        warnings=[f"{name}: {reason}" for name, reason in list(found.skipped.items())[:20]],
        sentences=[],
        missing=[],
    )


def _about(name: str) -> Number | None:
    return next((about for about in NUMBERS if column(about) == name), None)


def _label(name: str) -> str:
    about = _about(name)
    return "relative depth" if about is None else about.what


def _cell(name: str, value: float | None) -> str:
    about = _about(name)
    if value is None:
        return ""
    return f"{value:.1%}" if about is not None and about.how == "share" else text.number(value)


def _name(told: str) -> str:
    """Cut a long name in its middle: runs of one sweep differ at their ends."""
    told = " ".join(text.printable(told).split())
    return told if len(told) <= _LONGEST else f"{told[:16]}…{told[17 - _LONGEST :]}"


def worded(table: pl.DataFrame) -> pl.DataFrame:
    """Return the columns that are printed, as people read them, narrow; what a run has not is empty."""
    rows = [
        {
            "run": _name(row["run"]),
            "model": _name(row["model"]),
            "tokens": f"{row['tokens']:,} in {row['length']:,}{', BOS' if row['bos'] else ''}",
        }
        | {head: _cell(name, row[name]) for name, head in _PRINTED.items()}
        for row in table.iter_rows(named=True)
    ]
    return pl.DataFrame(rows)


def _listing(table: pl.DataFrame) -> Block:
    rows = []
    for row in table.head(_MOST).iter_rows(named=True):
        layer = row["massive_layer"]
        place = "" if layer is None else f"{layer:.0f} of {row['num_layers']} ({row['depth']:.2f})"
        cells = [Cell(_name(row["run"])), Cell(_name(row["model"]))]
        seen = f"{row['tokens']:,} in {row['length']:,}{', BOS' if row['bos'] else ''}"
        cells += [Cell(f"{row['num_parameters']:,}"), Cell(seen), Cell(place)]
        rows.append((*cells, *(Cell(_cell(name, row[name])) for name in _LISTED[1:])))
    heads = ("run", "model", "parameters", "tokens", "massive layer (depth)", *map(_label, _LISTED[1:]))
    notes = tuple(f"{about.what}: {about.doc}." for name in _LISTED if (about := _about(name)))
    more = f" {table.height - _MOST} more are in the table that --csv writes." if table.height > _MOST else ""
    body = Listing(heads, tuple(rows), (False,) * len(heads), words=2)
    return Block("Head numbers", f"A row for each run.{more}", notes, body, wide=True)


def _chart(table: pl.DataFrame, name: str, log: bool) -> Block | None:
    """Draw a number over the number of parameters, a dot for each run, coloured by family."""
    shown = table.filter(pl.col(name).is_finite(), pl.col("num_parameters") > 0)
    shown = shown.filter(pl.col(name) > 0) if log else shown
    if not shown.height:
        return None
    families = shown["family"].value_counts(sort=True)["family"].to_list()
    limits = (-0.03, 1.03) if name == "depth" else extent(finite(shown[name]), log=log, zero=True)
    sizes = extent(finite(shown["num_parameters"]), log=True)
    plot = blank(
        sizes, limits, x_label="parameters (k, m, b)", y_label=_label(name), height=_HEIGHT, log_x=True, log_y=log
    )
    plot.xaxis[0].formatter = NumeralTickFormatter(format="0.[0]a")  # 1.5m, 7b
    keys = []
    for place, family in enumerate(families):
        colour = SERIES[place] if place < len(SERIES) - 1 else GREY
        data = source(shown.filter(family=family).select(name, "run", "model", "num_parameters"))
        marks = plot.scatter("num_parameters", name, source=data, color=colour, size=7, fill_alpha=0.6)
        hover(plot, marks, {"run": "run", "model": "model", "parameters": "num_parameters", _label(name): name})
        if place < len(SERIES) - 1:
            keys.append(Key(text.line(text.printable(family), 30), colour, "dot"))
    if len(families) > len(keys):
        keys.append(Key("other families", GREY, "dot"))
    about = _about(name)
    note = _DEPTH if about is None else f"{about.what}: {about.doc}"
    ends = f"from {text.number(shown[name].min())} to {text.number(shown[name].max())}"  # pyrefly: ignore
    title = f"{_label(name)[:1].upper()}{_label(name)[1:]}"
    return Block(title, f"{shown.height:,} runs.", (f"{note}.",), plot, tuple(keys), f"{title}, {ends}.")
