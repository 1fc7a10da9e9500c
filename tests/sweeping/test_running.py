"""Sweeps on tiny models: every cell is run once, a model is loaded once, and a cell that fails stops no other."""

import errno
from pathlib import Path

import pytest
import yaml

from monadnock import MonadnockError
from monadnock.models.loading import load
from monadnock.sweeping import SweepError, SweepRecipe, folders, running, sweep
from tests.cli.conftest import save
from tests.tiny import tiny_model
from tests.words import random_words, write_words


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "one")
    save(tmp_path / "other", tiny_model("mistral"))
    write_words(tmp_path, random_words(600))
    return tmp_path


@pytest.fixture
def loads(monkeypatch):
    """Keep the names of the models that are loaded."""
    seen = []

    def counted(model, **options):
        seen.append(model)
        return load(model, **options)

    monkeypatch.setattr("monadnock.preparing.load", counted)
    return seen


def recipe(work, verb="attack", cells=(), **settings):
    text = str(next(work.glob("*.txt")))
    shared = {"model": "one", "text": text, "tokens": 32, "length": 16}
    content = {"verb": verb, "settings": shared | settings, "cells": list(cells)}
    (work / "small.yaml").write_text(yaml.safe_dump(content))
    return work / "small.yaml"


def test_all_cells_of_a_model_are_in_one_run_and_it_is_loaded_once(work, loads):
    path = recipe(work, cells=[{"ks": [[1], [2]]}], modes=["zero"], metrics=["perplexity"])
    (run,) = sweep(path, progress=False)
    assert run.path.resolve() == (work / "monadnock-runs" / "small" / "one").resolve()
    assert set(run.table("effects").filter(mode="zero")["k"]) == {1, 2}
    assert loads == ["one"]
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*.parquet")}
    sweep(path, progress=False)
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*.parquet")} == before


def test_models_have_runs_of_their_own_and_scans_are_not_repeated(work, loads):
    path = recipe(work, "scan", [{"model": ["one", "other"]}], probes=["start_token"], out="runs")
    runs = sweep(path, progress=False)
    assert [run.path.name for run in runs] == ["one", "other"] and loads == ["one", "other"]
    assert [run.manifest.model.family for run in runs] == ["llama", "mistral"]
    before = [(run.path / "manifest.json").read_bytes() for run in runs]
    again = sweep(path, progress=False)
    assert [(run.path / "manifest.json").read_bytes() for run in again] == before


def test_each_scan_of_a_model_has_a_folder_and_other_settings_or_another_model_there_are_refused(work, capsys):
    path = recipe(work, "scan", [{"seed": [0, 1]}], probes=["start_token"], out="runs")
    runs = sweep(path, progress=False)
    assert [run.path.name for run in runs] == ["seed-0", "seed-1"]
    assert [run.manifest.text.seed for run in runs] == [0, 1]
    for change, told in (({"tokens": 48}, "holds a scan with other settings"), ({"model": "other"}, "the model is")):
        capsys.readouterr()
        with pytest.raises(SweepError, match="2 of 2 cells could not be run; see above"):
            sweep(path, changes=change, progress=False)
        assert told in capsys.readouterr().err


def test_an_error_of_any_kind_fails_as_a_cell_and_what_was_before_is_kept(work, capsys):
    path = recipe(work, cells=[{"seeds": [-1, 1]}], modes=["random"], metrics=["perplexity"], ks=[1])
    with pytest.raises(SweepError, match="1 of 2 cells could not be run") as caught:
        sweep(path, progress=False)
    assert "Traceback" not in capsys.readouterr().err
    assert [run.path.name for run in caught.value.runs] == ["one"]
    assert (work / "monadnock-runs" / "small" / "one" / "tables" / "effects").is_dir()


def test_what_fails_is_told_and_the_others_are_run(work, capsys):
    path = recipe(work, "scan", [{"model": ["nowhere", "one"]}], probes=["start_token"])
    with pytest.raises(MonadnockError, match="1 of 2 cells could not be run; see above"):
        sweep(path, progress=False)
    assert "cell 1 (model nowhere): " in capsys.readouterr().err
    assert (work / "monadnock-runs" / "small" / "one" / "manifest.json").is_file()


def test_a_model_that_cannot_be_loaded_is_tried_once(work, monkeypatch):
    tried = []

    def fail(model, **_):
        tried.append(model)
        raise MonadnockError("no such model")

    monkeypatch.setattr(running, "open_model", fail)
    with pytest.raises(MonadnockError, match="2 of 2"):
        sweep(recipe(work, cells=[{"seed": [0, 1]}]), progress=False)
    assert tried == ["one"]


def test_models_of_one_name_in_different_folders_are_refused(work):
    save(work / "deep" / "one")
    path = recipe(work, "scan", [{"model": ["one", "deep/one"]}], probes=["start_token"])
    with pytest.raises(MonadnockError, match="one and deep/one would both"):
        sweep(path, progress=False)


def scans(*cells):
    """The folders of scans with these cells."""
    found = folders("r.yaml", SweepRecipe(verb="scan", settings={"model": "m", "out": "runs"}, cells=list(cells)))
    assert all(len(folder.name.encode()) <= 255 for folder in found)
    return [folder.name for folder in found]


def test_two_scans_share_a_folder_only_if_they_are_the_same():
    long = "x" * 90
    assert len({*scans({"text": [f"{long}1", f"{long}2"]})}) == 2, "cut at the end"
    assert len({*scans({"text": ["a b", "a-b", "a/b"]})}) == 3, "other characters in place of some"
    assert len({*scans({"text": "0--bos-True"}, {"text": "0", "bos": True})}) == 2
    assert len({*scans({"seed": [3, 3]}, {"seed": 4})}) == 2
    assert scans({"seed": [0, 1]}) == ["seed-0", "seed-1"], "names that say all have no digest"
    assert scans({"text": ["a b", "c"]})[:1] == scans({"text": "a b"}, {"text": "other"})[:1], (
        "it stays with more cells"
    )
    scans({"text": ["\U00020000" * 90, "\u4e00" * 90]})


def test_a_scan_that_is_killed_before_its_note_goes_on(work, monkeypatch):
    """Run and note of its settings appear together: never a run of which no one knows its settings."""
    path = recipe(work, "scan", probes=["start_token"], out="runs")
    with monkeypatch.context() as killed:
        killed.setattr(Path, "write_text", kill_at(running.SETTINGS, Path.write_text))
        with pytest.raises(KeyboardInterrupt):
            sweep(path, progress=False)
    assert not (work / "runs").exists() and not list(work.glob(".runs*")), "what was begun is taken away"
    (run,) = sweep(path, progress=False)
    assert (run.path / running.SETTINGS).is_file() and not list(work.glob(".runs*"))


def kill_at(name, real):
    def write(self, *arguments, **options):
        if self.name == name:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    return write


def test_a_scan_that_another_process_was_faster_with_is_taken(work, monkeypatch):
    path = recipe(work, "scan", probes=["start_token"], out="runs")
    real, seen = running.put, []

    def late(draft, out, **options):
        if not seen:
            seen.append(draft)
            sweep(path, progress=False)
        real(draft, out, **options)

    monkeypatch.setattr(running, "put", late)
    (run,) = sweep(path, progress=False)
    assert seen and run.path.name == "runs" and not list(work.glob(".runs*"))


def test_a_full_disk_is_told_of_the_place_that_was_asked_for(work, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(running, "put", full)
    with pytest.raises(SweepError, match=r"could not be written to [^.]*/runs: No space left on device"):
        sweep(recipe(work, "scan", probes=["start_token"], out="runs"), progress=False)
    assert not list(work.glob("*runs*"))


def test_where_no_run_may_be_is_told_before_anything_is_measured(work, loads):
    (work / "runs").write_text("mine")
    with pytest.raises(SweepError, match="runs is a file; give a folder"):
        sweep(recipe(work, "scan", probes=["start_token"], out="runs"), progress=False)


def test_memory_that_is_not_enough_for_a_model_is_told_by_all_its_cells(work, monkeypatch, capsys):
    tried = []

    def fail(model, **_):
        tried.append(model)
        raise MemoryError("too large")

    monkeypatch.setattr(running, "open_model", fail)
    with pytest.raises(SweepError, match="2 of 2"):
        sweep(recipe(work, cells=[{"seed": [0, 1]}]), progress=False)
    assert capsys.readouterr().err.count("MemoryError: too large") == 2 and tried == ["one"]


def test_a_model_whose_loading_was_stopped_is_loaded_again(work, monkeypatch):
    opened = running._Opened(False)
    with monkeypatch.context() as stopped:
        stopped.setattr(running, "open_model", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            opened.adapter("one", {})
    assert opened.adapter("one", {}).num_layers
