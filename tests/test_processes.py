"""Two processes of torchrun scan one model: the run is that of one process, and only the first speaks."""

import json
import subprocess
import sys
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from monadnock import observing, processes
from monadnock.findings import Run
from monadnock.sites import Site, Stream
from tests.cli.conftest import save
from tests.tiny import tiny_model
from tests.words import random_words, write_words


def torchrun(folder, count, *arguments, program=("-m", "monadnock")):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run(
        [*command, *program, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300
    )


def script(folder, *lines):
    """Write a program that scans the model in a folder, and what is done before it; what went wrong is written."""
    own = "\n".join(lines)
    (folder / "own.py").write_text(f"""
import json, os
from pathlib import Path
from monadnock import MonadnockError, load, scan
from monadnock.findings.run import Run
rank = os.environ["RANK"]
adapter, told = load("model", device="cpu"), {{}}
{own}
try:
    run = scan(adapter, text="words.txt", tokens=160, length=32, out="run", force=True, progress=False)
    told["run"] = run.manifest.model.id
except MonadnockError as error:
    told["error"] = str(error)
Path(f"told{{rank}}.json").write_text(json.dumps(told))
""")
    return ("own.py",)


def told_by(folder, count=2):
    return [json.loads((folder / f"told{rank}.json").read_text()) for rank in range(count)]


@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
def test_two_processes_write_the_run_of_one(tmp_path, model_type):
    save(tmp_path / "model", tiny_model(model_type))
    text = write_words(tmp_path, random_words(400))
    asked = ["scan", "model", "--text", text, "--tokens", 160, "--length", 32]
    one, two = (torchrun(tmp_path, count, *asked, "--out", f"run{count}") for count in (1, 2))
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout.count("Report:") == 1 == one.stdout.count("Report:")
    single, double = Run.open(tmp_path / "run1"), Run.open(tmp_path / "run2")
    assert single.manifest.text == double.manifest.text and single.manifest.tables == double.manifest.tables
    for name in single.manifest.tables:
        expected, found = single.table(name), double.table(name)
        assert_frame_equal(found, expected, rel_tol=1e-5, abs_tol=1e-7)
    assert single.manifest.self_check is not None and double.manifest.self_check is not None


def test_each_process_runs_its_own_windows_alone(tmp_path):
    """Equal results would not tell: the first one could do all."""
    save(tmp_path / "model")
    write_words(tmp_path, random_words(400)).rename(tmp_path / "words.txt")
    watch = (
        "told['windows'] = []",
        "def note(module, args, options):",
        "    ids = options['input_ids'] if 'input_ids' in options else args[0]",
        "    told['windows'] += [ids[0].tolist()] if ids.shape[1] == 32 else []",
        "adapter.model.register_forward_pre_hook(note, with_kwargs=True)",
    )
    ended = torchrun(tmp_path, 2, program=script(tmp_path, *watch))
    assert ended.returncode == 0, ended.stderr
    first, second = ({tuple(ids) for ids in told["windows"]} for told in told_by(tmp_path))
    assert (len(first), len(second), len(first | second)) == (3, 2, 5)
    assert Run.open(tmp_path / "run").manifest.text.num_windows == 5


@pytest.mark.parametrize(("rank", "windows"), [("0", [0, 2, 4, 6]), ("1", [1, 3, 5])])
def test_windows_are_shared_in_turn(monkeypatch, rank, windows):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    seen = {(over, Site(Stream.RESIDUAL, 0), object): object() for over in ("start", "text")}
    made = SimpleNamespace(windows=SimpleNamespace(ids=torch.zeros(7, 4)), start_token_id=1, observed=seen)
    start, text = observing._passes(made)  # pyrefly: ignore
    assert list(text.mine) == windows and list(start.mine) == [0]


def test_a_first_process_that_cannot_write_is_not_taken_for_one_that_did(tmp_path):
    """The others do not return the run that was there before."""
    save(tmp_path / "model")
    write_words(tmp_path, random_words(400)).rename(tmp_path / "words.txt")
    assert torchrun(tmp_path, 1, program=script(tmp_path)).returncode == 0
    assert Run.open(tmp_path / "run")
    fail = ("def full(*args, **options):", "    raise MonadnockError('The disk is full.')", "Run.write = full")
    ended = torchrun(tmp_path, 2, program=script(tmp_path, *fail))
    assert ended.returncode == 0, ended.stderr
    first, second = told_by(tmp_path)
    assert first == {"error": "The disk is full."}
    assert second == {
        "error": "Process 1 ends, as the first one failed in what the others wait for; see what that one says."
    }


def test_more_processes_than_windows_and_bad_input(tmp_path):
    save(tmp_path / "model")
    text = write_words(tmp_path, random_words(100))
    ended = torchrun(tmp_path, 2, "scan", "model", "--text", text, "--tokens", 32, "--length", 32, "--out", "run")
    assert ended.returncode == 0, ended.stderr
    assert Run.open(tmp_path / "run").table("heads").filter(pl.col("sink_mass").is_not_null()).height
    ended = torchrun(tmp_path, 2, "scan", "nowhere", "--out", "other")
    assert ended.returncode != 0 and "nowhere" in ended.stderr and not (tmp_path / "other").exists()


def test_without_torchrun_there_is_one_process():
    assert processes.count() == 1 and processes.is_first() and processes.own_device() is None
    assert processes.from_first(3) == 3
    with processes.first_alone():
        processes.merge_in_first({})
