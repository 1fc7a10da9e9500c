"""Many runs in a folder read as one table: the head numbers of each, one row a run."""

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
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
        skipped: folders that cannot be looked into and runs that cannot be read, with the reason.
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
    known, ours = _kept(folder), version("monadnock")
    rows, first = [], None
    runs, left = _look(folder)
    skipped = {str(path.relative_to(folder)): reason for path, reason in left.items()}
    for path in runs:
        name = str(path.relative_to(folder))
        try:
            stamp = _stamp(path, ours)
            if first is None:
                first = Run.open(path).manifest
            rows.append(known[name] if known.get(name, {}).get("stamp") == stamp else _row(path, name, stamp))
        except MonadnockError as error:
            skipped[name] = str(error)
        except OSError as error:
            skipped[name] = f"it cannot be read: {error.strerror}."
        step()
    if first is None or not rows:
        reason = ", in no folder of it either"
        if skipped:
            name, told = next(iter(skipped.items()))
            reason = f"; the first of {len(skipped)} that are left out is {name}: {told.rstrip('.')}"
        raise MonadnockError(f"{folder} holds no run that can be read{reason}.")
    table = pl.DataFrame(rows, SCHEMA)
    if rows != list(known.values()):
        _keep(table, folder)
    return Atlas(folder, table.drop("stamp"), skipped, first)


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder, itself too, in the order of their names.

    Hidden folders are left out. A link to a run stands for it, unless the run itself is there; no other link is
    followed.
    """
    return _look(folder)[0]


def _look(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Return the folders of runs, and what else may be one, with the reason why it is none."""
    runs: list[Path] = []
    links: list[Path] = []
    left: dict[Path, str] = {}

    def refuse(error: OSError) -> None:
        left[Path(error.filename)] = f"it cannot be looked into: {error.strerror}."

    for place, inner, files in os.walk(folder, onerror=refuse):
        if "manifest.json" in files and "tables" in inner:
            runs.append(Path(place))
            inner.clear()
        elif "manifest.json" in files and _ours(Path(place, "manifest.json")):
            left[Path(place)] = "its folder tables is missing; scan the model again."
            inner.clear()
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        links += [path for name in inner if (path := Path(place, name)).is_symlink() and _is_run(path)]
    there = {path.resolve() for path in runs} if links else set()
    for link in links:
        if (target := link.resolve()) not in there:
            there.add(target)
            runs.append(link)
    return sorted(runs), left


def _is_run(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return (path / "manifest.json").is_file() and (path / "tables").is_dir()
    return False


def _ours(file: Path) -> bool:
    """Say whether a manifest is one of monadnock; other programs have files of this name."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        raw = json.loads(file.read_text(encoding="utf-8"))
        return isinstance(raw, dict) and "schema_version" in raw
    return False


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
    layer = row["massive_layer"]
    return row | {"depth": None if layer is None else depth(int(layer), model.num_layers)}


def _stamp(path: Path, ours: str) -> str:
    """Return what changes when a run does, or monadnock (`ours` is its version): sizes and times of all its files."""
    told = [f"{ours} {(path / 'manifest.json').stat().st_mtime_ns}"]
    base = str(path)
    folders = [str(path / "tables")]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                about = entry.stat()
                told.append(f"{entry.path[len(base) :]} {about.st_mtime_ns} {about.st_size}")
                if entry.is_dir():  # a table that grows
                    folders.append(entry.path)
    return hashlib.sha256("\n".join(sorted(told)).encode(errors="surrogateescape")).hexdigest()[:32]


def _keep(table: pl.DataFrame, folder: Path) -> None:
    """Keep what was read for the next time, where there is room and a right to write."""
    draft = folder / f"{KEPT}.{uuid.uuid4().hex[:8]}"
    try:
        with contextlib.suppress(OSError, pl.exceptions.PolarsError):
            table.write_parquet(draft)
            draft.replace(folder / KEPT)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _kept(folder: Path) -> dict[str, dict]:
    """Return what an earlier start read, by run; nothing if it was another version or is damaged."""
    with contextlib.suppress(OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        frame = pl.read_parquet(folder / KEPT)
        if dict(frame.schema) == SCHEMA:
            return {row["run"]: row for row in frame.iter_rows(named=True)}
    return {}
