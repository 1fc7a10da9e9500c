"""`monadnock finetune`, `judge` and `sweep` on a tiny model: what they print, and what they refuse at once."""

import json

import pytest
import yaml

from monadnock.findings import Run
from tests.cli.test_bad_input import refused
from tests.evaluation.judge_server import serving
from tests.words import random_words

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = random_words(60, num_words=8)
HOW = ("--epochs", 1, "--batch", 3, "--accumulation", 1, "--rank", 2)


@pytest.fixture
def data(work):
    rows = [{"instruction": " ".join(WORDS[n : n + 3]), "output": WORDS[n]} for n in range(0, 30, 3)]
    (work / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "data.jsonl"


@pytest.fixture
def questions(work):
    (work / "asked.json").write_text(json.dumps([{"question_id": 1, "category": "qa", "turns": [" ".join(WORDS[:5])]}]))
    return "asked.json"


def test_finetune_and_judge_print_what_came_out_and_where_it_is(cli, scanned, model, data, questions):
    ended = cli("finetune", model, "--data", data, "--macdrop", "--evaluate", "--zeroed", "1", "--out", "run", *HOW)
    assert ended.code == 0, ended.err
    (row,) = Run.open("run").table("finetunings").to_dicts()
    assert f"Adapter:  run/{row['adapter']}" in ended.out
    assert f"{row['before']:.3f}" in ended.out and f"{row['after']:.3f}" in ended.out
    assert "1, in the base" in ended.out and "no adapter" in ended.out
    shown = cli("show", "run").out
    assert "Fine-tuning" in shown and "Robustness" in shown
    with serving() as (address, _):
        ended = cli(
            "judge",
            model,
            "--questions",
            questions,
            "--by",
            address,
            "--judge-model",
            "m",
            "--out",
            "run",
            "--tokens",
            4,
        )
    assert ended.code == 0 and "judged by m at http://127.0.0.1" in ended.out and row["name"].split(",")[0] in ended.out


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--p0", 0.5], "--p0 was given, but does nothing without --macdrop"),
        (["--scope", "all"], "--scope was given"),
        (["--zeroed", "2"], "--zeroed was given, but does nothing without --evaluate"),
        (["--evaluate", "--limit", 2], "--limit was given, but does nothing without --tasks"),
        (["--length", 4], "Examples of 4 tokens"),
        (["--method", "dora", "--macdrop", "--p0", 1, "--schedule", "constant"], "DoRA divides"),
        (["--evaluate", "--tasks", "arc_eazy"], "no task arc_eazy"),
        (["--seed", -1], "Seed -1"),
    ],
)
def test_finetune_refuses_before_anything_is_written(cli, work, model, data, asked, told):
    refused(cli("finetune", model, "--data", data, "--out", "run", *asked), told)
    assert not (work / "run").exists()


@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("", "No judge was named"),
        ("127.0.0.1:8000", "begins with http://"),
        ("http://127.0.0.1:1/v1", "did not answer"),
    ],
)
def test_judge_refuses_before_anything_is_written(cli, work, model, questions, by, told):
    refused(cli("judge", model, "--questions", questions, "--by", by, "--judge-model", "m", "--out", "run"), told)
    assert not (work / "run").exists()


def test_sweep_says_what_it_will_do_does_it_and_keeps_what_was_done_where_a_cell_fails(cli, work, model, data):
    settings = {
        "model": str(model),
        "data": data,
        "epochs": 1,
        "batch": 3,
        "accumulation": 1,
        "rank": 2,
        "rate": "1e-3",
    }
    cells = [{"macdrop": [True, False]}, {"rank": 10**9}]
    (work / "small.yaml").write_text(yaml.safe_dump({"verb": "finetune", "settings": settings, "cells": cells}))
    dry = cli("sweep", "small.yaml", "--dry")
    assert dry.code == 0 and "   2  rank 2, macdrop False" in dry.out and "Into:   monadnock-runs/small/" in dry.out
    assert not (work / "monadnock-runs").exists()
    ended = cli("sweep", "small.yaml")
    assert (
        ended.code == 2 and ended.err.count("cell 3") == 1 and "1 of 3 cells could not be run; see above" in ended.err
    )
    assert "loss before" in ended.out and "Report: monadnock-runs/small/" in ended.out
    refused(cli("sweep", "small.yaml", "--set", "epochs=many"), "epochs is 'many', but takes a number")
