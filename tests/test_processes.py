"""Two processes of torchrun scan one model: the run is that of one process, and only the first speaks."""

import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from monadnock import processes
from monadnock.findings import Run
from tests.cli.conftest import save
from tests.tiny import tiny_model
from tests.words import random_words, write_words


def torchrun(folder, count, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run(
        [*command, "-m", "monadnock", *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300
    )


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
