"""A run is written as a whole or not at all, and reads back what was written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from monadnock.errors import MonadnockError
from monadnock.findings import TABLES, Run
from monadnock.findings import run as run_module
from monadnock.findings.manifest import AttackFacts
from monadnock.findings.run import check_free
from monadnock.preparing import known_run
from tests.findings.conftest import frames, listing
from tests.report.conftest import manifest


def break_parquet(monkeypatch, error, after=3):
    """Let writing the table after the first `after` fail with an error, half-written."""
    whole, written = pl.DataFrame.write_parquet, []

    def write(frame, file, **options):
        if len(written) == after:
            Path(file).write_bytes(b"PAR1 half")
            raise error
        written.append(file)
        whole(frame, file, **options)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", write)


def test_what_is_written_reads_back(tmp_path):
    expected, facts = frames(), manifest(source="file.txt")
    written = Run.write(tmp_path / "deep" / "er" / "run", facts, expected)
    opened = Run.open(written.path)
    assert written.path == tmp_path / "deep" / "er" / "run"
    assert opened.manifest == written.manifest
    assert opened.manifest.model_copy(update={"tables": {}}) == facts
    assert opened.manifest.tables == {name: frame.height for name, frame in expected.items()}
    found = opened.tables()
    assert list(found) == list(expected) == list(TABLES)
    for name, frame in expected.items():
        assert_frame_equal(found[name], frame)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]
    assert sorted(p.name for p in opened.path.iterdir()) == ["manifest.json", "tables"]


ERRORS = {
    "disk full": OSError(errno.ENOSPC, "No space left on device"),
    "polars": pl.exceptions.ComputeError("no\nspace"),
    "bug": RuntimeError("a bug"),
    "Ctrl-C": KeyboardInterrupt(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
@pytest.mark.parametrize("out", ["run", "deep/er/run"])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, error, out):
    break_parquet(monkeypatch, error)
    told = isinstance(error, (OSError, pl.exceptions.PolarsError))
    with pytest.raises(MonadnockError if told else type(error)) as caught:
        Run.write(tmp_path / out, manifest(), frames())
    if told:
        assert "could not be written" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
def test_a_failed_write_leaves_the_older_run(run, tmp_path, monkeypatch, error):
    before = listing(tmp_path)
    break_parquet(monkeypatch, error)
    with pytest.raises((MonadnockError, type(error))):
        Run.write(run.path, manifest(source="other"), frames(), force=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()], ids=["OSError", "Ctrl-C"])
def test_the_older_run_comes_back_when_the_new_one_cannot_take_its_name(run, tmp_path, monkeypatch, error):
    before, rename = listing(tmp_path), Path.rename

    def refuse(self, target):
        if Path(target) == run.path and ".old." not in self.name:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises((MonadnockError, KeyboardInterrupt)):
        Run.write(run.path, manifest(source="other"), frames(), force=True)
    assert listing(tmp_path) == before


def test_a_killed_write_leaves_no_half_run(run, tmp_path):
    before = listing(run.path)
    code = """
import os, signal, sys, polars as pl
from monadnock.findings import Run
whole, written = pl.DataFrame.write_parquet, []
def write(frame, file, **options):
    written.append(whole(frame, file, **options))
    if len(written) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
pl.DataFrame.write_parquet = write
run = Run.open(sys.argv[1])
Run.write(sys.argv[2], run.manifest, run.tables(), force=True)
"""
    for out in (run.path, tmp_path / "new"):
        ended = subprocess.run([sys.executable, "-c", code, run.path, out], capture_output=True, text=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "new").exists()
    assert listing(run.path) == before


def test_an_existing_run_is_replaced_only_when_forced(run):
    before = listing(run.path)
    with pytest.raises(MonadnockError, match=r"already holds a run.*--force"):
        Run.write(run.path, manifest(), frames())
    assert listing(run.path) == before
    Run.write(run.path, manifest(source="other"), {"heads": frames()["heads"]}, force=True)
    assert Run.open(run.path).manifest.text.source == "other"
    assert [p.name for p in (run.path / "tables").iterdir()] == ["heads.parquet"]
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


def test_a_run_behind_a_link_is_replaced_where_it_is(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(run.path)
    Run.write(link, manifest(source="other"), frames(), force=True)
    assert link.is_symlink()
    assert Run.open(run.path).manifest.text.source == "other"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "run"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_a_folder_of_other_files_is_refused_even_when_forced(tmp_path, force, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    before = listing(tmp_path)
    with pytest.raises(MonadnockError, match="holds files that are not a run"):
        Run.write(tmp_path / "mine", manifest(), frames(), force=force)
    assert listing(tmp_path) == before


def test_an_empty_folder_is_taken_and_a_file_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    assert Run.open(Run.write(tmp_path / "empty", manifest(), frames()).path)
    with pytest.raises(MonadnockError, match="is a file"):
        Run.write(tmp_path / "file", manifest(), frames(), force=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("out", ["file/run", "x" * 300])
def test_an_impossible_folder_is_told(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(MonadnockError, match=r"could not be written|cannot be a folder|cannot be made") as caught:
        Run.write(tmp_path / out, manifest(), frames())
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before


def test_an_unwritable_folder_is_told(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(MonadnockError, match="could not be written"):
        Run.write(tmp_path / "locked" / "run", manifest(), frames())
    assert listing(tmp_path / "locked") == {}


def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch):
    """A run takes its place by renaming, which would pull the working folder from under the shell."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MonadnockError, match="new folder inside it"):
        Run.write(Path(), manifest(), frames())
    assert list(tmp_path.iterdir()) == []


def series():
    versions, thresholds = {"python": "3"}, {"attack.x": 1.0}
    return AttackFacts(
        monadnock="0", text=manifest().text, stride=1, attention="sdpa", device="cpu", metrics=["perplexity"],
        weight_sums=[1.0], thresholds=thresholds, versions=versions,
    )  # fmt: skip


def test_two_processes_note_the_same_attacks_once(run, monkeypatch):
    """Both look before either has noted; the one that waits for the lock looks again."""

    class Late(run_module.FileLock):
        def __enter__(self):
            if not taken:
                taken.append(True)
                Run.open(run.path).note(series())
            return super().__enter__()

    taken = []
    monkeypatch.setattr(run_module, "FileLock", Late)
    run.note(series())
    assert taken and len(Run.open(run.path).manifest.attacks) == len(run.manifest.attacks) == 1
    assert not list(run.path.glob(".manifest.*.json"))


def locked(monkeypatch, *places):
    """Let these folders be such as may not be written to, for root too."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in places and real(path, mode))


def test_a_run_that_cannot_be_replaced_is_told_before_anything_is_measured(run, tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link"
    link.symlink_to(run.path)
    check_free(run.path, force=True)
    with monkeypatch.context() as mounted:
        mounted.setattr(os.path, "ismount", lambda path: Path(path) == run.path)
        with pytest.raises(MonadnockError, match="is a mounted disk"):
            check_free(run.path, force=True)
    locked(monkeypatch, tmp_path)
    for path in (run.path, link):
        with pytest.raises(MonadnockError, match=r"cannot be replaced: .* may not be written to"):
            check_free(path, force=True)


def test_a_run_that_cannot_be_added_to_is_told_before_anything_is_measured(run, monkeypatch):
    assert known_run("m", run.path)[1].path == run.path
    for place in (run.path, run.path / "tables"):
        with monkeypatch.context() as read_only:
            locked(read_only, place)
            with pytest.raises(MonadnockError, match=f"cannot be added to: {place} may not be written to"):
                known_run("m", run.path)


def test_what_stays_is_said_as_it_is(run, tmp_path, monkeypatch):
    break_parquet(monkeypatch, OSError(errno.ENOSPC, "No space left on device"), after=0)
    with pytest.raises(MonadnockError, match=r"No space left on device\. What was there stays\.$"):
        Run.write(run.path, manifest(), frames(), force=True)
    with pytest.raises(MonadnockError, match=r"No space left on device\. Nothing was left there\.$"):
        Run.write(tmp_path / "new", manifest(), frames())
    with pytest.raises(MonadnockError, match=r"cannot be added to: No space left on device\. What is there stays\.$"):
        run.add("effects", "x", [])


def test_a_report_without_room_says_where_the_run_is_and_how_to_write_the_page(tmp_path, monkeypatch):
    run, real = Run.write(tmp_path / "run", manifest(), {}), Path.replace

    def full(self, target):
        if Path(target).name == "report.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    told = f"No space left on device; the run itself is there, and `monadnock report {run.path} --out FILE` writes"
    with pytest.raises(MonadnockError, match=told):
        run.report()
    (run.path / "report.html").write_text("mine")
    with pytest.raises(MonadnockError, match="is no report of `monadnock report`"):
        run.report()
