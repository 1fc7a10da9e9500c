"""`monadnock attack`: what it writes and says, how it goes on after Ctrl-C, and bad input."""

import os
import signal
import subprocess
import sys
import time

import pytest

from monadnock.findings import Run

QUICK = ("--length", "16", "--tokens", "32", "--k", "1,2", "--metric", "perplexity,kl")


def test_attack_writes_effects_and_says_what_is_next(cli, model, text):
    ended = cli("attack", model, "--text", text, *QUICK, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    said = [line.split("  ")[0].strip() for line in lines]
    assert [s for s in said if s.startswith(("clean", "zero", "retain", "random"))] == [
        "clean model", "zero 1", "zero 2", "retain 1", "retain 2", "random 1", "random 2",
    ]  # fmt: skip
    assert lines[-2:] == ["Report: run/report.html", "Next:   monadnock show run effects"]
    run = Run.open("run")
    assert run.table("effects").height == 7 * 3
    assert "What massive weights do" in (run.path / "report.html").read_text(encoding="utf-8")
    shown = cli("show", "run", "effects", "--csv")
    assert shown.code == 0 and len(shown.out.splitlines()) == 22


def test_attack_adds_to_a_scan(scanned, cli, model, text):
    ended = cli("attack", model, "--text", text, *QUICK, "--mode", "zero", "--out", "run", "--layer", "0,1")
    assert (ended.code, ended.err) == (0, "")
    effects = Run.open("run").table("effects").filter(mode="zero")
    assert effects["layer"].null_count() == effects.height > 0
    assert "effects" in cli("show", "run").out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--k", "one"], "'one' was given as k; give whole numbers"),
        (["--k", ""], "No k was asked for"),
        (["--mode", "zeroo"], "There is no mode 'zeroo': did you mean zero"),
        (["--metric", "speed"], "There is no metric 'speed'"),
        (["--layer", "7"], "Layer 7 was asked"),
        (["--layer", "a"], "'a' was given as layer"),
        (["--expert", "1"], "is dense and has no experts"),
        (["--rows", "999"], "Row 999 was asked"),
        (["--metric", "tasks:no_such_task"], "no_such_task"),
        (["--text", "nowhere.txt"], "nowhere.txt cannot be read"),
    ],
)
def test_bad_input_is_told_in_one_sentence(scanned, cli, model, options, told):
    before = sorted(os.walk("run"))
    ended = cli("attack", model, "--length", "16", "--tokens", "32", *options, "--out", "run")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sorted(os.walk("run")) == before


def test_a_run_of_another_model(scanned, cli, model, tmp_path):
    from tests.cli.conftest import save
    from tests.tiny import tiny_model

    other = save(tmp_path / "other", tiny_model("llama", seed=3))
    ended = cli("attack", other, *QUICK, "--out", "run")
    assert ended.code == 2
    assert "is a run of" in ended.err and "give a run of this model" in ended.err


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(model, text, work):
    slow = (
        "import time, sys; from monadnock.findings import Run; add = Run.add\n"
        "def later(self, *a):\n    add(self, *a); print('added', file=sys.stderr, flush=True); time.sleep(0.5)\n"
        "Run.add = later\nfrom monadnock.cli import main; main()"
    )
    args = ["attack", model, "--text", text, *QUICK, "--out", "run"]
    child = subprocess.Popen(
        [sys.executable, "-c", slow, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("added"):
            break
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.splitlines()[-1].endswith("the same command with --out run goes on.")
    parts = sorted((work / "run" / "tables" / "effects").iterdir())
    assert 0 < len(parts) < 14
    stamps = {part: part.stat().st_mtime_ns for part in parts}
    code = "from monadnock.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(part.stat().st_mtime_ns == stamp for part, stamp in stamps.items())
    assert len(list((work / "run" / "tables" / "effects").iterdir())) == 14


def test_other_rows_and_other_layers_are_told_apart_and_only_draws_are_averaged(cli, model, text):
    quick = (
        "attack",
        model,
        "--text",
        text,
        "--length",
        "16",
        "--tokens",
        "32",
        "--metric",
        "perplexity",
        "--out",
        "run",
    )
    for more in (["--rows", "3"], ["--rows", "4"], ["--layer", "0,1"], ["--mode", "random", "--seeds", "3"]):
        ended = cli(*quick, "--k", "1", *(["--mode", "zero"] if "--mode" not in more else []), *more)
        assert ended.code == 0
    effects = Run.open("run").table("effects")
    values = {row["targets"]: row["value"] for row in effects.filter(mode="zero").to_dicts()}
    lines = [line for line in ended.out.splitlines() if line.startswith(("zero", "random"))]
    assert len(lines) == len(values) + 1 == 4
    for targets, value in values.items():
        place = targets if ";" not in targets else "layer 0; layer 1"
        (line,) = [line for line in lines if line.startswith(f"zero 1, {place} ")]
        assert line.split()[-1] == f"{value:,.4g}"
    mean = effects.filter(mode="random")["value"].mean()
    assert next(line for line in lines if line.startswith("random")).split()[-1] == f"{mean:,.4g}"
