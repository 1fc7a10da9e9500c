"""Where the cells of a sweep run: one after another in this process, or as tasks of a Ray cluster."""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monadnock.errors import MonadnockError, first_line

ENGINES = ("local", "ray")
RETRIES = 3  # how often a cell begins anew whose worker died
LOOK = 1.0  # seconds after which folders are looked at again, for runs that other cells wait for
ANSWER = 5.0  # seconds in which a cluster has to answer; Ray itself tries for minutes
_ADDRESS = re.compile(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d+)")  # of RAY_ADDRESS; what else it may be, Ray finds out


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep.

    Attributes:
        number: from 1, in the order of the recipe.
        told: what sets it apart from the others, in words.
        out: folder of its run.
        settings: all of its settings.
    """

    number: int
    told: str
    out: Path
    settings: dict[str, Any]


Run = Callable[[Cell], None]


def run_local(cells: Sequence[Cell], run: Run) -> Iterator[tuple[Cell, str | None]]:
    """Run cells one after another; yield each with the reason why it could not be run, or None."""
    for cell in cells:
        yield cell, _reason(run, cell)


def run_on_ray(cells: Sequence[Cell], run: Run, resources: Mapping[Any, float]) -> Iterator[tuple[Cell, str | None]]:
    """Run cells as tasks of the cluster at RAY_ADDRESS, or of one of this machine; yield each as soon as it is done.

    The first cell of each folder begins its run; the others of that folder start behind it. A cell whose worker dies is
    run again, up to `RETRIES` times, and goes on where the run stands. All machines have to see the same folders.

    Args:
        cells: what is run.
        run: runs a cell; it is sent to the workers, which keep what it loads.
        resources: of each cell, `cpus` and `gpus`.

    Raises:
        MonadnockError: if Ray is not installed, no cluster answers, or it has not what a cell needs.
    """
    try:
        import ray
    except ImportError as error:
        raise MonadnockError("The engine ray needs an extra: pip install -e '.[ray]' in the clone.") from error
    mine = not ray.is_initialized()
    if mine:
        check_answers(os.environ.get("RAY_ADDRESS", ""))
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # of many kinds, none of which Ray documents
            raise MonadnockError(
                f"Ray could not be begun ({first_line(error)}); see to RAY_ADDRESS, or sweep with --engine local."
            ) from error
    try:
        there = ray.cluster_resources()
        needed = {"CPU": resources.get("cpus", 1), "GPU": resources.get("gpus", 1 if there.get("GPU") else 0)}
        for name, amount in needed.items():
            if amount > there.get(name, 0):
                raise MonadnockError(
                    f"A cell needs {amount:g} {name}, the Ray cluster has {there.get(name, 0):g}; change resources in "
                    "the recipe."
                )
        if needed["GPU"] > 1 and needed["GPU"] % 1:
            raise MonadnockError(
                f"A cell asks for {needed['GPU']:g} GPU, and Ray shares only single ones; give a part of one or whole "
                "numbers in resources."
            )
        how = {"num_cpus": needed["CPU"], "num_gpus": needed["GPU"], "max_retries": RETRIES}
        task = ray.remote(**how)(_task)
        waiting = list(cells)
        running: dict[Any, Cell] = {}
        while waiting or running:
            for cell in _ready(waiting, {cell.out for cell in running.values()}):
                waiting.remove(cell)
                running[task.remote(run, cell, str(Path.cwd()))] = cell
            ended, _ = ray.wait(list(running), num_returns=1, timeout=LOOK if waiting else None)
            for done in ended:
                cell = running.pop(done)
                try:
                    yield cell, ray.get(done)
                except ray.exceptions.RayTaskError as error:  # before or behind the cell: a worker without monadnock
                    yield cell, f"a worker could not run it ({first_line(error.cause)})"
                except ray.exceptions.RayError as error:
                    yield cell, f"its worker died {RETRIES + 1} times ({first_line(error)})"
    finally:
        if mine:
            ray.shutdown()


def check_answers(address: str) -> None:
    """Raise a `MonadnockError` if nothing answers at an address HOST:PORT or ray://HOST:PORT of a cluster."""
    found = _ADDRESS.fullmatch(address)
    if not found:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise MonadnockError(
            f"RAY_ADDRESS is {address}, where no Ray cluster answers ({reason}); give the address of one that runs, or "
            "unset it for a cluster on this machine."
        ) from error


def _ready(waiting: Sequence[Cell], busy: set[Path]) -> list[Cell]:
    """Return the cells whose run is there, and of each folder without one the first, unless that is under way."""
    first = {cell.out: cell for cell in reversed(waiting) if cell.out not in busy}
    return [cell for cell in waiting if (cell.out / "manifest.json").is_file() or first.get(cell.out) is cell]


def _task(run: Run, cell: Cell, folder: str) -> str | None:
    os.chdir(folder)
    return _reason(run, cell)


def _reason(run: Run, cell: Cell) -> str | None:
    try:
        run(cell)
    except Exception as error:  # memory that is not enough, for one
        return told(error)
    return None


def told(error: Exception) -> str:
    """Return an error of any kind as a sentence."""
    return str(error) if isinstance(error, MonadnockError) else f"{type(error).__name__}: {first_line(error)}"
