"""`monadnock pretrain`, and a sweep of it: what they print, that they go on, and what they refuse at once."""

import pytest
import yaml

from monadnock.findings import Run
from tests.cli.test_bad_input import refused
from tests.pretraining.conftest import recipe  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_prints_what_came_out_and_where_it_is(cli, work, recipe):  # noqa: F811
    path = recipe()
    ended = cli("pretrain", "--recipe", path, "--variant", "sigmoid", "--out", "run")
    assert ended.code == 0, ended.err
    assert "gpt2 sigmoid, seed 0" in ended.out and "Model:    run/models/gpt2-sigmoid-seed-0" in ended.out
    (row,) = Run.open("run").table("pretrainings").to_dicts()
    assert f"{row['loss']:.4g}" in ended.out and "Report:   run/report.html" in ended.out
    again = cli("pretrain", "--recipe", path, "--arch", "gpt2", "--out", "run")
    assert again.code == 0 and "gpt2 default, seed 0" in again.out and "gpt2 sigmoid, seed 0" in again.out
    shown = cli("show", "run").out
    assert "Training" in shown and "training_outliers" in shown


def test_by_default_a_recipe_has_one_folder(cli, work, recipe):  # noqa: F811
    cli("pretrain", "--recipe", recipe(), "--steps", 2)
    assert (work / "monadnock-runs" / "tiny" / "manifest.json").is_file()


def test_a_sweep_puts_all_variants_and_seeds_into_one_run(cli, work, recipe):  # noqa: F811
    settings = {"recipe": str(recipe()), "steps": 3}
    content = {"verb": "pretrain", "settings": settings, "cells": [{"variant": ["default", "gate"], "seed": [0, 1]}]}
    (work / "all.yaml").write_text(yaml.safe_dump(content))
    dry = cli("sweep", "all.yaml", "--dry")
    assert "   4  seed 1, variant gate" in dry.out and "Into:   monadnock-runs/all" in dry.out
    ended = cli("sweep", "all.yaml")
    assert ended.code == 0, ended.err
    assert Run.open("monadnock-runs/all").table("pretrainings").height == 4
    assert ended.out.count("Report:") == 1 and "gpt2 gate, seed 1" in ended.out


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--variant", "sigmoit"], "did you mean sigmoid"),
        (["--arch", "bert"], "architecture"),
        (["--seed", -1], "Seed -1"),
        (["--data", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--device", "tpu"], "Device 'tpu'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(cli, work, recipe, asked, told):  # noqa: F811
    refused(cli("pretrain", "--recipe", recipe(), "--out", "run", *asked), told)
    assert not (work / "run").exists()


def test_a_recipe_that_is_none_is_refused(cli, work):
    refused(cli("pretrain", "--recipe", "none.yaml"), "none.yaml cannot be read")


def test_the_module_is_the_command_line():
    import subprocess
    import sys

    ended = subprocess.run([sys.executable, "-m", "monadnock", "ls", "variants"], capture_output=True, text=True)
    assert ended.returncode == 0 and "softmax_plus_one" in ended.stdout
