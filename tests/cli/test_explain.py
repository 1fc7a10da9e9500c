"""`monadnock explain`: what it writes and says, how it goes on after Ctrl-C, and bad input."""

import os
import signal
import subprocess
import sys
import time

import pytest

from monadnock.findings import Run
from monadnock.findings.summary_chain import paragraph
from tests.cli.conftest import save
from tests.explaining.conftest import planted

QUICK = ("--length", "24", "--tokens", "48", "--controls", "1")


@pytest.fixture(scope="module")
def chained(text, tmp_path_factory):
    """Return a folder with a tiny llama in which every link is planted, and its tokenizer."""
    return save(tmp_path_factory.mktemp("models") / "chained", planted("llama", text, predicts=True).model)


def test_explain_writes_the_chain_and_tells_it(cli, chained, text):
    ended = cli("explain", chained, "--text", text, *QUICK, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    run = Run.open("run")
    chain = run.table("chain")
    lines = ended.out.splitlines()
    assert lines[0] == chain["data"][0]
    assert lines[2].split() == ["link,", "cut", "by", "metric", "before", "after", "at", "random"]
    assert lines[3].rstrip() == "super weights -> massive activation"
    assert lines[4].split()[:4] == ["super", "2", "start_h", "9,000"]
    assert max(map(len, lines[2 : lines.index("", 2)])) <= 80
    assert paragraph(chain) in " ".join(ended.out.split())
    assert lines[-2:] == ["Report: run/report.html", "Next:   monadnock show run chain"]
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "The causal chain" in page and "What massive weights do" in page
    shown = cli("show", "run", "chain", "--csv")
    assert shown.code == 0 and len(shown.out.splitlines()) == chain.height + 1
    assert "Chain" in cli("show", "run").out


def test_explain_adds_to_a_scan(scanned, cli, model, text):
    tables = set(Run.open("run").heights())
    ended = cli("explain", model, "--text", text, "--length", "16", "--tokens", "32", "--controls", "1", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert set(Run.open("run").heights()) == tables | {"chain", "effects"}
    assert "not tested" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--text", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--length", "9999"], "sees at most"),
        (["--length", "4"], "the chain needs 16 at least"),
        (["--device", "abacus"], "abacus"),
        (["--controls", "0"], "greater than or equal to 1"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(scanned, cli, model, options, told):
    before = sorted(os.walk("run"))
    ended = cli("explain", model, "--length", "16", "--tokens", "32", *options, "--out", "run")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert sorted(os.walk("run")) == before


def test_a_run_of_another_model(scanned, cli, chained, text):
    ended = cli("explain", chained, "--text", text, *QUICK, "--out", "run")
    assert ended.code == 2
    assert "is a run of" in ended.err and len(ended.err.splitlines()) == 1


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(chained, text, work):
    slow = (
        "import time, sys; from monadnock.findings import Run; add = Run.add\n"
        "def later(self, *a):\n    add(self, *a); print('added', a[0], file=sys.stderr, flush=True); time.sleep(0.3)\n"
        "Run.add = later\nfrom monadnock.cli import main; main()"
    )
    args = ["explain", chained, "--text", text, *QUICK, "--out", "run"]
    child = subprocess.Popen(
        [sys.executable, "-c", slow, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("added chain"):  # the first cut is done
            break
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.splitlines()[-1].endswith("the same command with --out run goes on.")
    parts = sorted((work / "run" / "tables").glob("[ce]*/*.parquet"))
    assert 0 < len(parts) < 32
    stamps = {part: part.stat().st_mtime_ns for part in parts}
    code = "from monadnock.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(part.stat().st_mtime_ns == stamp for part, stamp in stamps.items())
    assert len(list((work / "run" / "tables").glob("[ce]*/*.parquet"))) == 2 + 6 * 2 * 2 + 6
