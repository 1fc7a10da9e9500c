"""A run: the folder that a scan writes and everything else reads."""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from monadnock.errors import MonadnockError, nearest
from monadnock.findings import schema
from monadnock.findings.manifest import SCHEMA_VERSION, AttackFacts, Manifest
from monadnock.findings.summary import Summary, summarise


class Run:
    """What was found out about a model: `manifest.json` and `tables/` in one folder.

    A table that a scan wrote is one file, `tables/NAME.parquet`. One that grows by and by is a folder of parts,
    `tables/NAME/*.parquet`, each of which appears whole or not at all. Arrays are in `tensors/*.safetensors`.

    Attributes:
        path: the folder.
        manifest: the validated `Manifest`.

    Example:
        >>> run = Run.open("demo")  # doctest: +SKIP
        >>> run.table("heads").filter(pl.col("sink")).height  # doctest: +SKIP
        139
    """

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run folder.

        Raises:
            MonadnockError: if it is missing, not a run, damaged, or of a newer schema version.
        """
        path = Path(path)
        file = path / "manifest.json"
        try:
            found = file.is_file()
        except OSError as error:
            raise MonadnockError(f"{str(path)[:80]} cannot be looked into: {error.strerror}.") from error
        if not found:
            raise MonadnockError(f"{path} is not a run: it holds no manifest.json; make one with `monadnock scan`.")
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            version = raw.get("schema_version")
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise MonadnockError(
                    f"{path} has schema version {version}, this monadnock reads up to {SCHEMA_VERSION}: update it."
                )
            return cls(path, Manifest.model_validate(raw))
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            raise MonadnockError(f"{file} is damaged ({str(error).splitlines()[0]}); scan the model again.") from error

    @classmethod
    def write(
        cls, path: str | Path, manifest: Manifest, tables: Mapping[str, pl.DataFrame], *, force: bool = False
    ) -> "Run":
        """Write a run in one step: into a folder beside `path`, which then takes its name.

        Raises:
            MonadnockError: if `path` holds a run and `force` is off, holds other files, or cannot be written.
        """
        path = Path(path).resolve()  # through a link: the folder itself is replaced
        check_free(path, force=force)
        manifest = manifest.model_copy(update={"tables": {name: frame.height for name, frame in tables.items()}})
        draft = path.parent / f".{path.name[:64]}.{uuid.uuid4().hex[:8]}"
        new_parents = [parent for parent in path.parents if not parent.exists()]
        try:
            (draft / "tables").mkdir(parents=True)
            for name, frame in tables.items():
                schema.table(name).frame(frame).write_parquet(draft / "tables" / f"{name}.parquet")
            (draft / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
            put(draft, path, force=force)
        except (OSError, pl.exceptions.PolarsError) as error:
            kept = "What was there stays." if (path / "manifest.json").exists() else "Nothing was left there."
            raise MonadnockError(f"The run could not be written to {path}: {_reason(error)}. {kept}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            with contextlib.suppress(OSError):  # parents that hold something, the run first of all, stay
                for parent in new_parents:
                    parent.rmdir()
        return cls(path, manifest)

    def names(self) -> set[str]:
        """Return the names of the tables there are, without reading any."""
        return {*self.manifest.tables, *(name for name in schema.TABLES if self._parts(name))}

    def heights(self) -> dict[str, int]:
        """Return the number of rows of every table there is."""
        grown = {name: self.table(name).height for name in schema.TABLES if self._parts(name)}
        return self.manifest.tables | grown

    def _parts(self, name: str) -> list[Path]:
        return sorted((self.path / "tables" / name).glob("[!.]*.parquet"))

    def table(self, name: str) -> pl.DataFrame:
        """Return a table as a polars frame.

        Raises:
            MonadnockError: if there is no such table in this run, with the nearest names.
        """
        schema.table(name)
        parts = self._parts(name)
        if name not in self.manifest.tables and not parts:
            raise MonadnockError(f"This run has no table {name!r}: {nearest(name, self.heights())}")
        return _read(name, parts or [self.path / "tables" / f"{name}.parquet"])

    def has(self, name: str, part: str) -> bool:
        """Say whether a growing table has this part."""
        return (self.path / "tables" / name / f"{part}.parquet").is_file()

    def part(self, name: str, part: str) -> pl.DataFrame:
        """Return one part of a growing table.

        Raises:
            MonadnockError: if it is damaged or missing.
        """
        return _read(name, [self.path / "tables" / name / f"{part}.parquet"])

    def add(self, name: str, part: str, rows: list[dict]) -> None:
        """Write one part of a growing table, at once and whole.

        Raises:
            MonadnockError: if it cannot be written.
        """
        folder = self.path / "tables" / name
        draft = folder / f".{uuid.uuid4().hex[:12]}.parquet"
        try:
            folder.mkdir(exist_ok=True)
            schema.table(name).frame(rows).write_parquet(draft)
            draft.replace(folder / f"{part}.parquet")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise MonadnockError(f"{self.path} cannot be added to: {_reason(error)}. What is there stays.") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def add_tensors(self, name: str, tensors: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
        """Write arrays and what they are to `tensors/NAME.safetensors`, at once and whole.

        Raises:
            MonadnockError: if they cannot be written.
        """
        folder = self.path / "tensors"
        draft = folder / f".{uuid.uuid4().hex[:12]}.safetensors"
        try:
            folder.mkdir(exist_ok=True)
            save_file(dict(tensors), draft, dict(facts))
            draft.replace(folder / f"{name}.safetensors")
        except (OSError, SafetensorError) as error:
            raise MonadnockError(f"{self.path} cannot be added to: {_reason(error)}. What is there stays.") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def tensors(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return the arrays of `tensors/NAME.safetensors` and what they are.

        Raises:
            MonadnockError: if they are damaged or missing, with the names that there are.
        """
        file = self.path / "tensors" / f"{name}.safetensors"
        if name not in self.tensor_names():
            raise MonadnockError(f"This run has no tensors {name!r}: {nearest(name, self.tensor_names())}")
        try:
            with safe_open(file, framework="np") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise MonadnockError(f"{file} is damaged ({error}); remove the file and measure again.") from error

    def tensor_facts(self, name: str) -> dict[str, str]:
        """Return what the arrays of `tensors/NAME.safetensors` are, without reading them; nothing if it is damaged."""
        try:
            with safe_open(self.path / "tensors" / f"{name}.safetensors", framework="np") as opened:
                return opened.metadata() or {}
        except (OSError, SafetensorError):
            return {}

    def tensor_names(self) -> list[str]:
        """Return the names of all tensor files, sorted."""
        return sorted(file.stem for file in (self.path / "tensors").glob("[!.]*.safetensors"))

    def note(self, attack: AttackFacts) -> None:
        """Add what a series of attacks depends on to the manifest, unless it stands there already."""
        if Run.open(self.path).manifest.has(attack):
            return
        draft = self.path / f".manifest.{uuid.uuid4().hex[:12]}.json"
        try:
            with FileLock(self.path / ".manifest.lock"):  # another process may be adding to it
                manifest = Run.open(self.path).manifest
                if not manifest.has(attack):  # that process may have noted this very one
                    changes = {"attacks": [*manifest.attacks, attack], "schema_version": SCHEMA_VERSION}
                    manifest = manifest.model_copy(update=changes)
                    draft.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
                    draft.replace(self.path / "manifest.json")
        except OSError as error:
            raise MonadnockError(f"{self.path} cannot be added to: {error.strerror}. What is there stays.") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        self.manifest = manifest

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return every table of the run by name."""
        return {name: self.table(name) for name in self.heights()}

    def summary(self) -> Summary:
        """Return the findings in sentences."""
        return summarise(self.manifest, self.tables())

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report page, by default `report.html` in the run folder, and return its path."""
        view: Any = entry_points(group="monadnock.views")["report"].load()
        return view(self, path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, model={self.manifest.model.id!r})\n{self.summary()}"

    def _repr_html_(self) -> str:
        return self.summary().html()


def _read(name: str, files: list[Path]) -> pl.DataFrame:
    """Read the parts of a table."""
    frames = []
    for file in files:
        try:
            frames.append(schema.table(name).frame(pl.read_parquet(file)))
        except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = str(error).partition("\n")[0]
            raise MonadnockError(
                f"Table {name!r} is damaged: {file} cannot be read ({reason}); remove the file and measure again."
            ) from error
    return pl.concat(frames)


def check_free(path: Path, *, force: bool) -> None:
    """Raise a `MonadnockError` unless a run may be written at `path`."""
    try:
        if not path.exists():
            ground = next(parent for parent in path.absolute().parents if parent.exists())
            if not ground.is_dir() or not os.access(ground, os.W_OK | os.X_OK):
                raise MonadnockError(f"{path} cannot be made: {ground} is not a folder that may be written to.")
            return
    except OSError as error:
        raise MonadnockError(f"{str(path)[:80]} cannot be a folder for the run: {error.strerror}.") from error
    if not path.is_dir():
        raise MonadnockError(f"{path} is a file; give a folder for the run.")
    if (path / "manifest.json").is_file() and (path / "tables").is_dir():
        if not force:
            raise MonadnockError(f"{path} already holds a run; give another folder, or --force to replace it.")
        place = path.resolve()  # through a link: the folder itself is replaced
        if os.path.ismount(place) or not os.access(place.parent, os.W_OK | os.X_OK):
            raise MonadnockError(
                f"The run in {path} cannot be replaced: {place.parent} may not be written to, or {path} is a mounted "
                "disk; give another folder."
            )
    elif path.resolve() == Path.cwd() or os.path.ismount(path) or not os.access(path.absolute().parent, os.W_OK):
        raise MonadnockError(f"{path} cannot be replaced by a run in one step; give a new folder inside it.")
    elif any(path.iterdir()):
        raise MonadnockError(f"{path} holds files that are not a run; give an empty or a new folder.")


def _reason(error: Exception) -> str:
    """Return why something could not be written, without what Python puts around it."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(".")


def put(draft: Path, path: Path, *, force: bool) -> None:
    """Move the folder `draft` to `path` in one step; what was there before survives until the new one stands.

    Raises:
        MonadnockError: if `force` is off and another process was faster.
        OSError: if it cannot be moved.
    """
    old = None
    if not force:
        try:
            draft.rename(path)  # over nothing, or an empty folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise MonadnockError(
                f"{path} was free and holds a run now, of another process; give another folder, or --force to replace "
                "it."
            ) from error
        return
    if path.exists():
        old = path.parent / f".{path.name[:64]}.old.{uuid.uuid4().hex[:8]}"
        path.rename(old)
    try:
        draft.rename(path)
    except BaseException:  # KeyboardInterrupt too
        if old:
            old.rename(path)
        raise
    if old:
        shutil.rmtree(old, ignore_errors=True)
