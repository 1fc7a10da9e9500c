"""Faults are told in a sentence, and what was there stays: no room, no right to write, two at once, an end."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from monadnock.findings import Run
from tests.cli.conftest import save
from tests.findings.conftest import listing
from tests.tiny import tiny_model

SIZES = ["--length", "16", "--tokens", "48"]
CAPABILITY_DROP, WRITES_ANYWHERE = 24, 1  # of Linux: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def begin(*arguments, **options):
    command = [sys.executable, "-m", "monadnock", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def without_rights():
    """Take from a process that root starts the right to write where no one may."""
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(CAPABILITY_DROP, WRITES_ANYWHERE, 0, 0, 0):
        raise OSError("capabilities cannot be given up here")


@pytest.fixture
def fused(work, text, monkeypatch):
    """Return how a model with fused experts is scanned from disk; what is written for it goes to `aside`."""
    (work / "aside").mkdir()
    monkeypatch.setenv("TMPDIR", str(work / "aside"))
    model = save(work / "mixtral", tiny_model("mixtral"))
    return ["scan", model, *SIZES, "--text", text, "--device", "disk", "--out", "run"]


def test_a_disk_that_is_full_while_experts_are_written(fused, work):
    """A limit on the size of files stands for it: the first matrix of experts is larger."""
    ended = begin(*fused, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
    _, error = ended.communicate(timeout=120)
    assert ended.returncode == 2 and error.count("\n") == 1
    assert f"could not be written to {work / 'aside'}" in error and "set TMPDIR to a folder with as much room" in error
    assert not (work / "run").exists() and not [*(work / "aside").iterdir()]


def test_a_scan_that_is_terminated_takes_its_copies_with_it(fused, work):
    ended = begin(*fused)
    while ended.poll() is None and not [*(work / "aside").glob("monadnock-*/*")]:
        time.sleep(0.005)
    ended.send_signal(signal.SIGTERM)
    _, error = ended.communicate(timeout=120)
    assert (ended.returncode, error) == (143, "")
    assert not (work / "run").exists() and not [*(work / "aside").iterdir()]


@pytest.mark.parametrize(
    "verb", [["attack", "--k", "1", "--mode", "zero"], ["sensitivity", "--module", "down"], ["scan", "--force"]]
)
def test_a_run_on_a_disk_that_cannot_be_written(verb, scanned, model, text, work):
    folder, before = work / "run", listing(work / "run")
    places = [work, folder, *(place for place in folder.rglob("*") if place.is_dir())]
    for place in places:
        place.chmod(0o555)
    asked = [*verb, model, *SIZES, "--text", text, "--out", "run"]
    ended = begin(*asked, preexec_fn=without_rights)
    _, error = ended.communicate(timeout=300)
    for place in places:
        place.chmod(0o755)
    assert ended.returncode == 2 and error.count("\n") == 1, error
    assert "may not be written to" in error and "Traceback" not in error
    assert listing(folder) == before


def test_two_scans_into_one_folder_at_once(model, text, work):
    """One is written; the other is refused, and takes nothing from it."""
    both = [
        begin("scan", model, "--length", "16", "--text", text, "--out", "run", "--tokens", tokens)
        for tokens in (32, 48)
    ]
    errors = [each.communicate(timeout=120)[1] for each in both]
    assert sorted(each.returncode for each in both) == [0, 2], errors
    refused = errors[0] + errors[1]
    assert refused.count("\n") == 1 and "run" in refused
    run = Run.open("run")
    assert run.manifest.text.num_windows == (2, 3)[[each.returncode for each in both].index(0)]
    assert run.tables() and [place.name for place in work.iterdir()] == ["run"]
