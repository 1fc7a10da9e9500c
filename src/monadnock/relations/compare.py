"""Compares runs: base and fine-tuned, before and after compression, checkpoints of a training, other families."""

import html
import re
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import polars as pl

from monadnock.errors import MonadnockError
from monadnock.findings.run import Run
from monadnock.relations import compare_changes, compare_join, compare_notes, compare_numbers
from monadnock.relations.compare_join import Side
from monadnock.relations.compare_tables import COMPARED
from monadnock.relations.compare_words import number

_SHORT = re.compile(r"[A-Za-z0-9][\w.+-]{0,11}", re.ASCII)
_TAKEN = {"what", "table", "run", *(name for spec in COMPARED for name in (*spec.keys, *spec.words.values()))}


class Comparison:
    """What differs between runs of monadnock, the first of which all others are compared with.

    Attributes:
        sides: the runs, each with its name in this comparison.

    Example:
        >>> found = compare("runs/base", "runs/tuned")  # doctest: +SKIP
        >>> found.changes().filter(pl.col("how") == "lost")  # doctest: +SKIP
    """

    def __init__(self, sides: Sequence[Side]):
        self.sides = tuple(sides)

    @property
    def names(self) -> list[str]:
        """What the runs are called: as their folders, if these are short and differ, or else A, B, C, ..."""
        return [side.name for side in self.sides]

    @cached_property
    def warnings(self) -> list[str]:
        """Sentences on what keeps numbers from being comparable: other texts, BOS, dtypes, thresholds."""
        return compare_notes.warnings(self.sides)

    @cached_property
    def remarks(self) -> list[str]:
        """Sentences on what is left out, and how runs of different shape are compared instead."""
        return compare_notes.remarks(self.sides)

    @cached_property
    def numbers(self) -> pl.DataFrame:
        """The head numbers: column `what`, one column per run, `B - A` and `B / A` for every other run B."""
        return compare_numbers.numbers(self.sides)

    @cached_property
    def sentences(self) -> dict[str, list[tuple[str, str]]]:
        """What changed, for every run but the first: pairs of a topic and a sentence."""
        return compare_changes.sentences(self.sides)

    def changes(self, most: int = 5) -> pl.DataFrame:
        """Return the largest changes of every kind, at most so many, as `compare_changes.changes` describes."""
        return compare_changes.changes(self.sides, most)

    def table(self, table: str, column: str) -> pl.DataFrame:
        """Return a column of a table, joined: the key columns, one column per run, `B - A` and `B / A` for numbers.

        Raises:
            MonadnockError: if the column is none that is compared, or no run's table can be joined with the first's.

        Example:
            >>> compare("runs/base", "runs/tuned").table("heads", "sink_mass")  # doctest: +SKIP
        """
        return compare_join.joined(self.sides, table, column)

    def tables(self) -> pl.DataFrame:
        """Count the rows of each table: in both, in one run alone, and those that differ."""
        return compare_join.overview(self.sides)

    def left_out(self) -> pl.DataFrame:
        """Return the tables that could not be joined: columns table, run and why."""
        return compare_join.left_out(self.sides)

    def report(self, path: str | Path = "compare.html") -> Path:
        """Write the page of this comparison and return its path.

        Raises:
            MonadnockError: if the path holds a file that is no such page, or cannot be written.
        """
        view: Any = entry_points(group="monadnock.views")["compare"].load()
        return view(self, path)

    def __repr__(self) -> str:
        lines = [f"{side.name}: {side.manifest.model.id}, {side.path}" for side in self.sides]
        lines += [f"Warning: {sentence}" for sentence in self.warnings]
        lines += [f"Note: {sentence}" for sentence in self.remarks]
        for name, told in self.sentences.items():
            lines += [f"{name} against {self.names[0]}:", *(f"  {topic}: {sentence}" for topic, sentence in told)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *self.names))
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(row['what'])}</th>"
            + "".join(f"<td>{html.escape(number(row[name]))}</td>" for name in self.names)
            + "</tr>"
            for row in self.numbers.to_dicts()
        )
        return f"<pre>{html.escape(repr(self))}</pre><table><tr>{heads}</tr>{rows}</table>"


def compare(*runs: Run | str | Path) -> Comparison:
    """Compare two or more runs with the first of them.

    Args:
        *runs: runs, or their folders.

    Raises:
        MonadnockError: if there are fewer than two, or one is missing or damaged.

    Example:
        >>> print(compare("runs/base", "runs/tuned"))  # doctest: +SKIP
    """
    if len(runs) < 2:
        raise MonadnockError(f"{len(runs) or 'No'} run was given; give two or more to compare.")
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    return Comparison([Side.read(name, run) for name, run in zip(_names(opened), opened, strict=True)])


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the folders' names if they are short, plain and different, or else letters."""
    names = [run.path.resolve().name for run in runs]
    plain = all(_SHORT.fullmatch(name) and name.lower() not in _TAKEN for name in names)
    if plain and len({name.lower() for name in names}) == len(names):
        return names
    return [ascii_uppercase[i % 26] * (i // 26 + 1) for i in range(len(runs))]
