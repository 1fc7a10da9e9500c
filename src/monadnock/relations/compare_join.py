"""Tables of several runs joined on their keys: one column per run, and what each differs by from the first run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from monadnock.errors import MonadnockError, nearest
from monadnock.findings.manifest import Manifest
from monadnock.findings.run import Run
from monadnock.findings.schema import TABLES
from monadnock.findings.summary_attacks import averaged, place
from monadnock.relations.compare_tables import BY_NAME, COMPARED, Compared, Value

OWN_LAYER = "massive layer"  # where an attack was, if that is the massive layer of its run
MISSING = "does not have it"
_OWN = ("sensitivity_lines", "patterns", "prescriptions")
_SHAPES = {
    "num_layers": "layers",
    "num_heads": "heads",
    "hidden_size": "features",
    "intermediate_size": "rows of W_up",
    "num_experts": "experts",
}


@dataclass(frozen=True)
class Side:
    """One run of a comparison: its name there, its folder, its manifest, and those of its tables that are compared."""

    name: str
    path: Path
    manifest: Manifest
    tables: Mapping[str, pl.DataFrame]

    @classmethod
    def read(cls, name: str, run: Run) -> "Side":
        """Read a run's tables.

        Raises:
            MonadnockError: if one is damaged.
        """
        here = run.heights()
        tables = {spec.table: run.table(spec.table) for spec in COMPARED if spec.table in here}
        return cls(name, run.path, run.manifest, tables)

    def rows(self, spec: Compared) -> pl.DataFrame:
        """Return the rows of a table that it has, each key once."""
        frame = self.tables[spec.table]
        if spec.table == "effects":
            frame = self._attacks(frame)
        return frame.unique(list(spec.keys), keep="first", maintain_order=True)

    def _attacks(self, effects: pl.DataFrame) -> pl.DataFrame:
        """Return attacks, seeds averaged, with `where`: the run's own massive layer is the same place in every run."""
        frame = averaged(effects).with_columns(where="place")
        rows = self.tables["massive_weights"] if "massive_weights" in self.tables else pl.DataFrame()
        if not rows.height:
            return frame
        own = place(rows["layer"][0], rows["expert"][0], None)
        return frame.with_columns(where=pl.when(pl.col("place") == own).then(pl.lit(OWN_LAYER)).otherwise("place"))


def spec_of(table: str) -> Compared:
    """Return how a table is compared; a `MonadnockError` for one that is not, with the nearest that are."""
    if table not in BY_NAME:
        why = "lists tokens of its own text" if table in TABLES else "does not exist"
        why = "lists what stands out in its own run" if table in _OWN else why
        raise MonadnockError(f"Table {table!r} cannot be compared, as it {why}: {nearest(table, BY_NAME)}")
    return BY_NAME[table]


def apart(first: Side, other: Side, spec: Compared) -> str:
    """Return why a table of `other` cannot be joined with that of the first run; nothing if it can."""
    for side in (first, other):
        if spec.table not in side.tables:
            return f"{side.name} {MISSING}"
    for fact in spec.shape:
        mine, yours = getattr(first.manifest.model, fact), getattr(other.manifest.model, fact)
        if mine != yours:
            return f"{first.name} has {mine or 'no'} {_SHAPES[fact]}, {other.name} has {yours or 'no'}"
    return ""


def together(sides: Sequence[Side], spec: Compared) -> list[Side]:
    """Return the runs whose table can be joined with that of the first run, which is among them; or none."""
    others = [side for side in sides[1:] if not apart(sides[0], side, spec)]
    return [sides[0], *others] if others else []


def joined(sides: Sequence[Side], table: str, column: str) -> pl.DataFrame:
    """Join one column of a table of several runs.

    Args:
        sides: the runs, the first of which the others are compared with.
        table: name of a table.
        column: one of its columns that are compared.

    Returns:
        The key columns; one column per run with its name, null where the run has no such row; for every other run and
        numbers, `B - A` and `B / A` (B and A being the names of this run and the first).

    Raises:
        MonadnockError: if the table or column is none that is compared, or no run's can be joined with the first's.
    """
    spec = spec_of(table)
    columns = [value.column for value in spec.values]
    if column not in columns:
        raise MonadnockError(f"Column {column!r} of {table} is not compared: {nearest(column, columns)}")
    runs = together(sides, spec)
    if not runs:
        reasons = "; ".join(dict.fromkeys(apart(sides[0], side, spec) for side in sides[1:]))
        raise MonadnockError(f"Table {table!r} cannot be joined: {reasons}.")
    return join(runs, spec, column)


def join(runs: Sequence[Side], spec: Compared, column: str) -> pl.DataFrame:
    """Join one column of runs that can be joined, as `joined` returns it."""
    keys = list(spec.keys)
    first, *others = runs
    whole = first.rows(spec).select(*keys, pl.col(column).alias(first.name))
    for side in others:
        part = side.rows(spec).select(*keys, pl.col(column).alias(side.name))
        whole = whole.join(part, keys, how="full", coalesce=True, nulls_equal=True)
    if whole.schema[first.name].is_numeric():
        base = pl.col(first.name).cast(pl.Float64)
        for side in others:
            mine = pl.col(side.name).cast(pl.Float64)
            whole = whole.with_columns(
                (mine - base).alias(difference(side.name, first.name)),
                (mine / base).alias(ratio(side.name, first.name)),
            )
    return whole.sort(keys, nulls_last=True)


def difference(name: str, first: str) -> str:
    """Return the name of the column that holds the difference of a run from the first."""
    return f"{name} - {first}"


def ratio(name: str, first: str) -> str:
    """Return the name of the column that holds the ratio of a run to the first."""
    return f"{name} / {first}"


def left_out(sides: Sequence[Side]) -> pl.DataFrame:
    """Return the tables that some run has and that are not joined: columns table, run and why."""
    rows = [
        {"table": spec.table, "run": side.name, "why": why}
        for spec in COMPARED
        if any(spec.table in side.tables for side in sides)
        for side in sides[1:]
        if (why := apart(sides[0], side, spec))
    ]
    return pl.DataFrame(rows, {"table": pl.String, "run": pl.String, "why": pl.String})


def overview(sides: Sequence[Side]) -> pl.DataFrame:
    """Count for every joined table and run the rows in both, in one alone, and those in both that differ anywhere.

    Returns:
        Columns run, table, both, only_first, only_here and different.
    """
    rows = []
    for spec in COMPARED:
        for side in together(sides, spec)[1:]:
            keys = list(spec.keys)
            mine, yours = (each.rows(spec).select(*keys, *_columns(spec.values)) for each in (sides[0], side))
            both = mine.join(yours, keys, how="inner", nulls_equal=True, suffix=" there")
            unlike = [pl.col(name).ne_missing(pl.col(f"{name} there")) for name in _columns(spec.values)]
            rows.append(
                {
                    "run": side.name,
                    "table": spec.table,
                    "both": both.height,
                    "only_first": mine.height - both.height,
                    "only_here": yours.height - both.height,
                    "different": both.filter(pl.any_horizontal(unlike)).height,
                }
            )
    counts = ("both", "only_first", "only_here", "different")
    return pl.DataFrame(rows, {"run": pl.String, "table": pl.String} | dict.fromkeys(counts, pl.Int64))


def _columns(values: Sequence[Value]) -> list[str]:
    return [value.column for value in values]
