"""`monadnock read`: what it writes and says, how it goes on after Ctrl-C, and bad input."""

import os

import pytest

from monadnock.findings import Run
from tests.cli.conftest import save
from tests.tiny import tiny_model

SMALL = ["--length", "16", "--tokens", "48"]


def test_read_writes_every_table_and_says_where(scanned, cli, model, text):
    ended = cli("read", model, "--text", text, *SMALL, "--words", "w1,w2", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert "Report: run/report.html" in lines and lines[-1] == "Next:   monadnock show run nearest_words"
    assert max(map(len, lines)) <= 80
    run = Run.open("run")
    assert run.table("dictionaries").height == 2 and run.table("circuits").height == 3 * 4 * 2
    assert set(run.table("word_similarity")["word_a"]) == {"w1", "w2"}
    assert (run.path / "report.html").is_file()
    for name in ("dictionaries", "circuits", "readings", "nearest_words", "state_similarity"):
        assert cli("show", "run", name).code == 0


def test_only_what_was_asked_is_read(scanned, cli, model):
    ended = cli("read", model, *SMALL, "--what", "heads", "--layer", "1,2", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    run = Run.open("run")
    assert not {"dictionaries", "state_similarity"} & set(run.heights())
    rows = run.table("readings")
    assert set(rows.filter(kind="q_row")["layer"]) == {1, 2} == set(rows.filter(kind="k_row")["layer"])


def test_a_new_run_is_scanned_first(cli, model, text):
    ended = cli("read", model, "--text", text, *SMALL, "--what", "outliers,heads", "--out", "fresh")
    assert (ended.code, ended.err) == (0, "")
    assert {"massive_weights", "heads", "circuits", "readings"} <= set(Run.open("fresh").heights())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--what", "head"], "There is nothing to read named 'head': did you mean heads?"),
        (["--what", ","], "Nothing was asked to be read"),
        (["--words", "w1,w2 w3"], "'w2 w3' (2 tokens)"),
        (["--words", "girl"], "'girl'"),
        (["--layer", "3"], "Layer 3 was asked, but"),
        (["--layer", "one"], "'one' was given as layer"),
        (["--text", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--length", "500"], "Windows of 500 tokens were asked"),
    ],
)
def test_bad_input_is_told_in_one_sentence(scanned, cli, model, args, told):
    before = sorted(os.walk("run"))
    ended = cli("read", model, *args, "--out", "run")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err and len(ended.err.splitlines()) == 1
    assert sorted(os.walk("run")) == before


def test_a_run_of_another_model(scanned, cli, tmp_path):
    other = save(tmp_path / "other", tiny_model("llama", seed=1))
    before = sorted(os.walk("run"))
    ended = cli("read", other, *SMALL, "--out", "run")
    assert (ended.code, ended.out) == (2, "") and "is a run of " in ended.err
    assert sorted(os.walk("run")) == before


def test_ctrl_c_says_how_to_go_on(scanned, cli, model, monkeypatch):
    added, add = [], Run.add

    def stops(self, *args):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(args[:2])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    asked = ["read", model, *SMALL, "--words", "w1", "--out", "run"]
    ended = cli(*asked)
    assert ended.code == 130
    assert ended.err == "monadnock: Stopped; what was measured is in run: the same command with --out run goes on.\n"
    monkeypatch.setattr(Run, "add", lambda self, *args: added.append(args[:2]) or add(self, *args))
    assert cli(*asked).code == 0
    again = {part for part in added if added.count(part) > 1}
    assert len(again) <= 1  # a job of two tables that was stopped between them
    assert {"circuits", "state_similarity", "continuations"} <= set(Run.open("run").heights())


def test_ctrl_c_before_there_is_a_run(cli, model, work, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("monadnock.preparing.load", stop)
    ended = cli("read", model, "--out", "run")
    assert (ended.code, ended.err) == (130, "monadnock: Stopped; nothing was left half-written.\n")
    assert not (work / "run").exists()
