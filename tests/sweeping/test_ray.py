"""A sweep on a real Ray cluster of this machine gives what one process gives, also when a worker is killed in it."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray
import yaml
from polars.testing import assert_frame_equal

from monadnock import MonadnockError
from monadnock.findings import Run
from monadnock.sweeping import SweepError, sweep
from tests.cli.conftest import save
from tests.words import random_words, write_words

GRID = {"seed": [0, 1], "modes": [["zero"], ["retain"]]}


def write(folder, out, **content):
    write_words(folder, random_words(600))
    settings = {"model": "model", "text": "words.txt", "tokens": 64, "length": 32, "ks": [1, 2], "out": out}
    recipe = {"verb": "attack", "settings": settings, "resources": {"cpus": 1}, "cells": [GRID]}
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(recipe | content))
    return path


def workers():
    """The workers that run a cell now."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("ray::_task"):
                found.append(child)
    return found


@pytest.fixture(scope="module")
def cluster():
    """One cluster of two workers for several sweeps."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model")
    return tmp_path


def parts(run):
    return {file.relative_to(run.path): file.stat().st_mtime_ns for file in run.path.glob("tables/*/*.parquet")}


def test_what_no_cluster_has_is_refused(folder):
    """Without a cluster one is started, and stopped again."""
    recipe = write(folder, "ray", resources={"cpus": 999})
    with pytest.raises(MonadnockError, match=r"A cell needs 999 CPU, the Ray cluster has .*change resources"):
        sweep(recipe, engine="ray", progress=False)
    assert not ray.is_initialized() and not (folder / "ray").exists()
    with pytest.raises(MonadnockError, match="There is no engine 'rey'"):
        sweep(recipe, engine="rey", progress=False)
    with pytest.raises(MonadnockError, match="resources memory"):
        sweep(write(folder, "ray", resources={"memory": 1}), engine="ray", progress=False)


def test_a_killed_worker_loses_nothing_and_nothing_is_there_twice(folder, cluster):
    """Its cell is run again on another worker, and goes on; the tables are those of the local engine."""
    (local,) = sweep(write(folder, "local"), progress=False)
    killed = []

    def kill():
        while not killed:
            if (folder / "ray" / "manifest.json").is_file() and (found := workers()):
                os.kill(found[0].pid, signal.SIGKILL)
                killed.append(found[0].pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    (run,) = sweep(write(folder, "ray"), engine="ray", progress=False)
    thread.join(timeout=1)
    assert killed, "a worker was killed while it ran a cell"
    assert sorted(parts(run)) == sorted(parts(local))
    for name in local.names():
        assert_frame_equal(run.table(name), local.table(name), check_row_order=False, rel_tol=1e-5)
    assert len(run.manifest.attacks) == len(local.manifest.attacks) == len({repr(a.text) for a in run.manifest.attacks})
    before = parts(run)
    sweep(folder / "ray.yaml", engine="ray", progress=False)
    assert parts(Run.open(run.path)) == before, "started again, it measures nothing twice"


def test_a_cell_that_fails_is_told_and_the_others_are_kept(folder, cluster):
    recipe = write(folder, "ray", cells=[{"ks": [[1], [999]]}])
    with pytest.raises(SweepError, match="1 of 2 cells") as caught:
        sweep(recipe, engine="ray", progress=False)
    assert [run.path for run in caught.value.runs] == [Path("ray")]
