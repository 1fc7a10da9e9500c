"""Run the cells of a recipe, each model loaded once, and go on where one fails."""

import hashlib
import itertools
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monadnock import processes
from monadnock.errors import MonadnockError, nearest
from monadnock.findings import Run
from monadnock.findings.run import check_free, put
from monadnock.models import Adapter
from monadnock.preparing import model_slug, open_model
from monadnock.sameness import check_same
from monadnock.sweeping.engines import ENGINES, Cell, run_local, run_on_ray, told
from monadnock.sweeping.recipe import LOADING, SweepRecipe, read_recipe

OUT = Path("monadnock-runs")
SETTINGS = "sweep.json"  # of a scan, in its folder
_LONGEST = 64  # characters of a folder's name that say which cell it is: file systems take 255 bytes


class SweepError(MonadnockError):
    """Some cells of a sweep could not be run.

    Attributes:
        runs: what the others gave.
    """

    def __init__(self, told: str, runs: list[Run]):
        super().__init__(told)
        self.runs = runs


def sweep(
    recipe: str | Path, *, changes: Mapping[str, Any] | None = None, engine: str = "local", progress: bool = True
) -> list[Run]:
    """Run every cell of a recipe; cells of one model add to one run.

    Every verb skips what its run has, so that a sweep that was stopped goes on when it is started again. A cell that
    cannot be run is told at once, and the others are run all the same.

    Args:
        recipe: a YAML file, see `read_recipe`.
        changes: settings in place of the recipe's.
        engine: `local` runs one cell after another; `ray` makes each a task of a Ray cluster, see
            `monadnock.sweeping.engines`.
        progress: say which cell it is, and show each one's progress, when the output is a terminal.

    Returns:
        The runs, one for each model, and of scans one for each cell. They are in the folder `out` of the recipe, or in
        folders named after the models where there are several; by default in `monadnock-runs/NAME-OF-THE-RECIPE/MODEL`.

    Raises:
        MonadnockError: on a recipe that is none, or after all cells a `SweepError` if some could not be run.

    Example:
        >>> (run,) = sweep("recipes/macdrop_scope.yaml", changes={"model": "smollm2"})  # doctest: +SKIP
        >>> run.table("robustness")  # doctest: +SKIP
    """
    if engine not in ENGINES:
        raise MonadnockError(f"There is no engine {engine!r}: {nearest(engine, ENGINES)}")
    read = read_recipe(recipe, changes)
    cells = [
        Cell(*each) for each in zip(itertools.count(1), read.told(), folders(recipe, read), read.grid(), strict=False)
    ]
    shown = progress and sys.stderr.isatty()
    if engine == "local":
        done = run_local(cells, _Work(read, _Opened(progress), len(cells) if shown else None))
    else:
        done = run_on_ray(cells, _Work(read), dict(read.resources))
    outs: dict[Path, None] = {}
    failed: list[str] = []
    for cell, reason in done:
        if reason is None:
            outs[cell.out] = None
        else:
            failed.append(f"cell {cell.number} ({cell.told}): {reason}")
            if len(cells) > 1:
                print(f"monadnock: {failed[-1]}", file=sys.stderr)
        if shown and engine != "local":
            print(f"[{cell.number}/{len(cells)}] {read.verb} {cell.told}: ended", file=sys.stderr)
    runs = [Run.open(cell) for cell in dict.fromkeys(cell.out for cell in cells) if cell in outs]
    if failed:
        first = "; see above" if len(cells) > 1 else f": {failed[0].rstrip('.')}"
        kept = "what the others gave is kept, and " if runs else ""
        raise SweepError(
            f"{len(failed)} of {len(cells)} cells could not be run{first}. When that is mended, {kept}the same command "
            "goes on.",
            runs,
        )
    return runs


def folders(recipe: str | Path, read: SweepRecipe) -> list[Path]:
    """Return the folder of every cell's run; two cells of a scan share one only if they are the same.

    Args:
        recipe: the file, whose name is that of a folder where `out` is not set.
        read: what it says.

    Raises:
        MonadnockError: if two models would be in one folder.
    """
    grid = read.grid()
    if not read.has_model:
        return [Path(cell.get("out") or OUT / Path(recipe).stem) for cell in grid]
    names = _names(grid)
    outs = [Path(cell.get("out") or OUT / Path(recipe).stem) for cell in grid]
    outs = [
        out / names[str(cell["model"])] if len(names) > 1 or not cell.get("out") else out
        for cell, out in zip(grid, outs, strict=True)
    ]
    if read.verb != "scan" or len(grid) == len(names):
        return outs
    own = read.own()
    found = [out / _slug(cell) for cell, out in zip(own, outs, strict=True)]
    first = dict(zip(reversed(found), reversed(own), strict=True))
    shared = {folder for folder, cell in zip(found, own, strict=True) if cell != first[folder]}
    return [
        folder.with_name(f"{folder.name}-{_digest(cell)}") if folder in shared else folder
        for cell, folder in zip(own, found, strict=True)
    ]


def _names(grid: list[dict[str, Any]]) -> dict[str, str]:
    """Return the folder's name of every model."""
    found: dict[str, str] = {}
    for model in dict.fromkeys(str(cell["model"]) for cell in grid):
        slug = model_slug(model)
        if other := next((one for one, name in found.items() if name == slug), None):
            raise MonadnockError(f"{other} and {model} would both be in a folder {slug}; sweep one after the other.")
        found[model] = slug
    return found


class _Work:
    """Runs a cell, here or in a worker; a model is loaded once for all cells in a row that have it."""

    def __init__(self, read: SweepRecipe, opened: "_Opened | None" = None, count: int | None = None):
        self.read, self.opened, self.count = read, opened, count

    def __call__(self, cell: Cell) -> None:
        if self.count is not None:
            print(f"[{cell.number}/{self.count}] {self.read.verb} {cell.told}", file=sys.stderr)
        opened = _in_worker if self.opened is None else self.opened
        _run(self.read, cell.settings, cell.out, opened, opened.progress)


def _run(read: SweepRecipe, cell: dict[str, Any], out: Path, opened: "_Opened", progress: bool) -> Run:
    function = read.function
    if not read.has_model:
        return function(**{name: value for name, value in cell.items() if name != "out"}, out=out, progress=progress)
    loading = {name: cell[name] for name in cell.keys() & LOADING}
    settings = {name: cell[name] for name in cell.keys() - LOADING - {"model", "out"}}
    adapter = opened.adapter(cell["model"], loading)
    if read.verb != "scan":
        return function(adapter, out=out, progress=progress, **settings)
    asked = json.dumps(settings, sort_keys=True, default=str)
    if not (out / "manifest.json").is_file():
        _scan(out, asked, lambda place: function(adapter, out=place, progress=progress, **settings))
    run = Run.open(out)
    check_same(run, adapter, [])
    note = out / SETTINGS
    if not note.is_file() or note.read_text(encoding="utf-8") != asked:
        raise MonadnockError(
            f"{out} holds a scan with other settings; sweep into another folder, with --set out=FOLDER."
        )
    return run


def _scan(out: Path, asked: str, run: Callable[[Path], Any]) -> None:
    """Scan beside the place of a run, and move run and note of its settings there together.

    A run without its note would never be gone on with.
    """
    out = out.resolve()
    check_free(out, force=False)
    if processes.count() > 1:  # the others open the run where the first one wrote it
        run(out)
        (out / SETTINGS).write_text(asked, encoding="utf-8")
        return
    draft = out.parent / f".{out.name[:64]}.{uuid.uuid4().hex[:8]}"
    try:
        run(draft)
        (draft / SETTINGS).write_text(asked, encoding="utf-8")
        put(draft, out, force=False)
    except OSError as error:
        raise MonadnockError(f"The run could not be written to {out}: {error.strerror}.") from error
    except MonadnockError:
        if not (out / SETTINGS).is_file():  # otherwise another process was faster, and its run is looked at
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _slug(own: Mapping[str, Any]) -> str:
    """Return a folder's name for a cell: its own settings, and a digest where they are cut or not all in it."""
    words = {name: _plain(str(value)) for name, value in own.items()}
    slug = "--".join(f"{name}-{value}" for name, value in words.items())
    if len(slug) > _LONGEST or any(words[name] != str(value) for name, value in own.items()):
        return f"{slug[:_LONGEST]}-{_digest(own)}"
    return slug or "scan"


def _plain(text: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)


def _digest(own: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:8]


class _Opened:
    """The model that was used last."""

    def __init__(self, progress: bool):
        self.progress = progress
        self.asked: object = None
        self.found: Adapter | MonadnockError | None = None

    def adapter(self, model: str, loading: dict[str, Any]) -> Adapter:
        """Return a model, loaded once for all cells in a row that have it."""
        if self.asked != (model, loading) or self.found is None:
            self.asked, self.found = (model, loading), None  # the one before is let go first
            try:
                self.found = open_model(model, progress=self.progress, **loading)
            except Exception as error:  # memory that is not enough, for one; without what its traceback holds
                self.found = MonadnockError(told(error))
        if isinstance(self.found, MonadnockError):
            raise self.found
        assert self.found is not None
        return self.found


_in_worker = _Opened(False)  # what a worker of Ray keeps from one cell to the next
