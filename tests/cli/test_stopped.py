"""A scan that is stopped leaves no half run: by Ctrl-C, by a kill, by a full disk."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from monadnock.findings import Run
from tests.findings.conftest import frames, listing
from tests.findings.test_run import break_parquet
from tests.report.conftest import manifest

SMALL = ["--length", "16", "--tokens", "48", "--out"]


@pytest.mark.parametrize("where", ["loading", "observing", "writing"])
@pytest.mark.parametrize("out", ["run", "deep/run"])
def test_ctrl_c(cli, model, text, work, monkeypatch, where, out):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    if where == "writing":
        break_parquet(monkeypatch, KeyboardInterrupt())
    else:
        place = "preparing.load" if where == "loading" else "scanning.observe_text"
        monkeypatch.setattr(f"monadnock.{place}", stop)
    ended = cli("scan", model, "--text", text, *SMALL, out)
    assert ended.code == 130
    assert ended.out == ""
    assert ended.err == "monadnock: Stopped; nothing was left half-written.\n"
    assert listing(work) == {}


def test_a_full_disk(cli, model, text, work, monkeypatch):
    Run.write(work / "old", manifest(), frames())
    before = listing(work)
    break_parquet(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    for out in (["run"], ["deep/run"], ["old", "--force"]):
        ended = cli("scan", model, "--text", text, *SMALL, *out)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("monadnock: The run could not be written")
        assert "No space left on device" in ended.err
        assert ended.err.count("\n") == 1
        assert listing(work) == before


def test_a_kill_while_writing_leaves_the_old_run(model, text, work):
    code = """
import os, signal, sys, polars as pl
from monadnock.cli import main
whole, written = pl.DataFrame.write_parquet, []
def write(frame, file, **options):
    written.append(whole(frame, file, **options))
    if len(written) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
pl.DataFrame.write_parquet = write
main()
"""
    old = Run.write(work / "old", manifest(), frames()).path
    before = listing(old)
    args = [sys.executable, "-c", code, "scan", model, "--text", text, *SMALL]
    ended = subprocess.run([*args, "old", "--force"], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert listing(old) == before


def test_ctrl_c_from_outside(model, text, work):
    """Ctrl-C reaches a running process in the middle of its work."""
    code = """
import os, signal
import monadnock.scanning as scanning
from monadnock.cli import main
forward, calls = scanning.Adapter.forward, []
def slow(self, *args, **kwargs):
    calls.append(0)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return forward(self, *args, **kwargs)
scanning.Adapter.forward = slow
main()
"""
    args = [sys.executable, "-c", code, "scan", str(model), "--text", str(text), *SMALL, "run"]
    ended = subprocess.run(args, capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "monadnock: Stopped; nothing was left half-written.\n"
    assert listing(work) == {}


def test_a_page_that_cannot_be_written_leaves_the_run(cli, model, text, work, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    ended = cli("scan", model, "--text", text, *SMALL, "run")
    assert ended.code == 2
    assert ended.err.startswith("monadnock: The report could not be written")
    assert sorted(p.name for p in (work / "run").iterdir()) == ["manifest.json", "tables"]
    assert Run.open("run").tables()
