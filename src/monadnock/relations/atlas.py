"""Many runs in a folder read as one table: the head numbers of each, one row a run."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from monadnock.errors import MonadnockError
from monadnock.findings.manifest import Manifest
from monadnock.findings.run import Run
from monadnock.relations.compare_join import Side
from monadnock.relations.compare_numbers import NUMBERS, Number, depth, found

KEPT = ".monadnock-atlas.parquet"  # in the folder: what was read of runs that have not changed since
_FACTS = {
    "run": pl.String,
    "stamp": pl.String,
    "model": pl.String,
    "family": pl.String,
    "num_layers": pl.Int64,
    "num_heads": pl.Int64,
    "num_parameters": pl.Int64,
    "dtype": pl.String,
    "tokens": pl.Int64,
    "length": pl.Int64,
    "bos": pl.Boolean,
    "source": pl.String,
    "depth": pl.Float64,
}


def column(about: Number) -> str:
    """Return a head number's name as a column.

    Example:
        >>> column(NUMBERS[0])
        'massive_layer'
    """
    return re.sub(r"\W+", "_", about.what.lower()).strip("_")


SCHEMA = _FACTS | {column(about): pl.Float64 for about in NUMBERS}


@dataclass(frozen=True)
class Atlas:
    """What the runs in a folder say.

    Attributes:
        folder: where they are.
        table: a row for each run: its path in the folder, facts of the model and the text, the relative depth of the
            massive layer (0 first, 1 last), and every head number of `monadnock compare`; null where a run has none.
        skipped: folders of runs that cannot be read, with the reason.
        first: the manifest of the first run.
    """

    folder: Path
    table: pl.DataFrame
    skipped: dict[str, str]
    first: Manifest


def atlas(folder: str | Path, *, step: Callable[[], None] = lambda: None) -> Atlas:
    """Read all runs in a folder and the folders in it, each table when a number first asks for it.

    What was read is kept in the folder, if that can be written to: a second time only runs that changed are read.

    Args:
        folder: what holds the runs.
        step: called after each run.

    Raises:
        MonadnockError: if there is no such folder, or no run in it that can be read.

    Example:
        >>> atlas("monadnock-runs").table.select("model", "depth", "massive_rows")  # doctest: +SKIP
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MonadnockError(f"{folder} is no folder; give one that holds runs.")
    known = _kept(folder)
    rows, skipped, first = [], {}, None
    for path in find_runs(folder):
        name = str(path.relative_to(folder))
        try:
            stamp = _stamp(path)
            if first is None:
                first = Run.open(path).manifest
            rows.append(known[name] if known.get(name, {}).get("stamp") == stamp else _row(path, name, stamp))
        except (MonadnockError, OSError) as error:
            skipped[name] = str(error)
        step()
    if first is None or not rows:
        reason = f"; the first of {len(skipped)} is damaged: {next(iter(skipped.values()))}" if skipped else ""
        raise MonadnockError(f"{folder} holds no run that can be read{reason or ', in no folder of it either'}.")
    table = pl.DataFrame(rows, SCHEMA)
    if rows != list(known.values()):
        with contextlib.suppress(OSError):
            draft = folder / f"{KEPT}.draft"
            table.write_parquet(draft)
            draft.replace(folder / KEPT)
    return Atlas(folder, table.drop("stamp"), skipped, first)


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder, itself too, in the order of their names; hidden ones are left out."""
    runs = []
    for place, inner, files in os.walk(folder):
        if "manifest.json" in files and "tables" in inner:
            runs.append(Path(place))
            inner.clear()
        inner[:] = sorted(name for name in inner if not name.startswith("."))
    return runs


class _Tables(Mapping[str, pl.DataFrame]):
    """The tables of a run, each read when it is first asked for."""

    def __init__(self, run: Run):
        self._run, self._names, self._read = run, run.names(), {}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> pl.DataFrame:
        if name not in self._read:
            self._read[name] = self._run.table(name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _row(path: Path, name: str, stamp: str) -> dict:
    run = Run.open(path)
    model, text = run.manifest.model, run.manifest.text
    row = dict.fromkeys(SCHEMA) | {"run": name, "stamp": stamp, "model": model.id, "family": model.family}
    row |= {"num_layers": model.num_layers, "num_heads": model.num_heads, "num_parameters": model.num_parameters}
    row |= {"dtype": model.dtype, "tokens": text.num_windows * text.length, "length": text.length, "bos": text.bos}
    row |= {"source": text.source}
    for about, values in found([Side(name, path, run.manifest, _Tables(run))]):
        one = values[name]
        row[column(about)] = None if one is None else float(one.value)
    if not row["massive_rows"]:
        row["massive_layer"] = None  # the layer that comes nearest is none
    layer = row["massive_layer"]
    return row | {"depth": None if layer is None else depth(int(layer), model.num_layers)}


def _stamp(path: Path) -> str:
    """Return what changes when a run does: the times of its manifest and of the tables that grow."""
    times = [(path / "manifest.json").stat().st_mtime_ns]
    times += [entry.stat().st_mtime_ns for entry in sorted((path / "tables").iterdir()) if entry.is_dir()]
    return " ".join(map(str, times))


def _kept(folder: Path) -> dict[str, dict]:
    """Return what an earlier start read, by run; nothing if it was another version or is damaged."""
    with contextlib.suppress(OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        frame = pl.read_parquet(folder / KEPT)
        if dict(frame.schema) == SCHEMA:
            return {row["run"]: row for row in frame.iter_rows(named=True)}
    return {}
