"""A sweep on a real Ray cluster of this machine gives what one process gives, also when a worker is killed in it."""

import contextlib
import os
import signal
import socket
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
from monadnock.sweeping.engines import Cell, check_answers, run_on_ray
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


def test_the_others_of_a_folder_begin_as_soon_as_its_run_is_there(tmp_path, cluster):
    """Not only when a cell ends: attacks of hours would wait for each other."""

    def run(cell):
        cell.out.mkdir(exist_ok=True)
        (cell.out / "manifest.json").write_text("{}")
        (cell.out / f"began{cell.number}").write_text(repr(time.time()))
        time.sleep(6 if cell.number == 1 else 0)
        (cell.out / f"ended{cell.number}").write_text(repr(time.time()))

    cells = [Cell(number, "", tmp_path / "run", {}) for number in (1, 2)]
    assert [reason for _, reason in run_on_ray(cells, run, {"cpus": 1})] == [None, None]
    told = {name: float((tmp_path / "run" / name).read_text()) for name in ("began1", "began2", "ended1")}
    assert told["began1"] < told["began2"] < told["ended1"]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "ray://[::1]:{}", "no host:{}"])
def test_an_address_where_nothing_answers_is_told_soon(form, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setenv("RAY_ADDRESS", form.format(taken.getsockname()[1]))
        began = time.monotonic()
        with pytest.raises(MonadnockError, match=r"where no Ray cluster answers \(.+\); give the address"):
            list(run_on_ray([], print, {}))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("address", ["", "auto", "local", "anyscale://some"])
def test_what_names_no_place_is_left_to_ray(address):
    check_answers(address)


def test_an_address_that_answers_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_answers(f"127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(MonadnockError, match="no Ray cluster answers"):
        check_answers("127.0.0.1:99999")


def test_what_ray_says_at_its_start_is_told(monkeypatch):
    def fail(**_):
        raise ConnectionError("version mismatch\nand more")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(MonadnockError, match=r"Ray could not be begun \(version mismatch\); see to RAY_ADDRESS"):
        list(run_on_ray([], print, {}))
