"""`monadnock study`: what it writes and says, how it goes on after Ctrl-C, and bad input."""

import os

import pytest

from monadnock.findings import Run
from tests.cli.conftest import save


def test_study_tells_every_input_and_what_is_next(cli, model, text):
    ended = cli("study", "bos", model, "--text", text, "--prompt", "w1 w2. w3 w4.", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    names = [line.split("  ")[0].strip() for line in lines[2:] if line.rstrip().endswith("tokens")]
    assert names == ["no BOS", "BOS at the start", "BOS in the middle", "BOS at the end"]
    rows = [line.split()[:2] for line in lines if "<s>" in line]
    assert rows == [["0", "<s>"], ["2", "<s>"], ["4", "<s>"]]  # what was put in is told, massive or not
    assert lines[-4] == "Heads:  12 in all; the last quarter of a text cannot be a sink."
    assert lines[-3] == "Maps:   layers 0 and 1, mean over heads"
    assert lines[-2:] == ["Report: run/report.html", "Next:   monadnock show run inputs"]
    assert max(map(len, lines)) <= 80
    run = Run.open("run")
    assert run.table("inputs").height == 3 * (4 + 3 * 5)
    assert "BOS in four places" in (run.path / "report.html").read_text(encoding="utf-8")
    assert cli("show", "run", "maps").code == 0


def test_only_the_asked_prompt_is_told_and_both_are_kept(cli, model, text):
    cli("study", "attention", model, "--text", text, "--prompt", "w1 w2", "--out", "run")
    ended = cli(
        "study", "attention", model, "--prompt", "w3 w4 w5", "--no-bos", "--layer", "1", "--head", "0,3", "--out", "run"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "no BOS " in ended.out and "3 tokens" in ended.out and "2 tokens" not in ended.out
    assert "head 0 of layer 1; head 3 of layer 1" in ended.out
    assert set(Run.open("run").table("inputs")["prompt"]) == {"w1 w2", "w3 w4 w5"}
    published = cli("study", "attention", model, "--out", "run")
    assert published.out.count(" tokens") == 2  # the head of the table, and the published sentences alone


def test_length_fits_the_terminal(cli, model, text):
    ended = cli("study", "length", model, "--text", text, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert "3 sentences, modified, no BOS" in ended.out and "32 sentences, BOS" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "…" not in ended.out


def test_prompts_with_markup_and_signs_are_told_as_they_are(cli, model, text):
    prompt = "[red]w1[/red] <b>w2</b> \u202e w3"
    ended = cli("study", "attention", model, "--text", text, "--prompt", prompt, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert set(Run.open("run").table("inputs")["prompt"]) == {prompt}


def test_a_tokenizer_without_bos_is_told(cli, text, tmp_path):
    folder = save(tmp_path / "nobos", bos=False)
    ended = cli("study", "bos", folder, "--text", text, "--prompt", "w1 w2", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert "start token at the start" in ended.out
    assert "Note:   the tokenizer has no BOS token; the run's start token stands in for it." in ended.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["boss"], "There is no study 'boss': did you mean bos?"),
        (["maps"], "There is no study 'maps': known are attention, bos, length"),
        (["bos", "--prompt", ""], "The prompt is empty"),
        (["bos", "--prompt", "w1 " * 300], "The input 'BOS at the start' has 301 tokens"),
        (["bos", "--no-bos"], "puts BOS in four places itself"),
        (["length", "--prompt", "w1"], "has its own sentences"),
        (["attention", "--head", "4"], "Head 4 was asked, but"),
        (["attention", "--layer", "3"], "Layer 3 was asked, but"),
        (["attention", "--layer", "one"], "'one' was given as layer"),
        (["attention", "--text", "nowhere.txt"], "nowhere.txt cannot be read"),
    ],
)
def test_bad_input_is_told_in_one_sentence(scanned, cli, model, args, told):
    before = sorted(os.walk("run"))
    kind, *options = args
    ended = cli("study", kind, model, *options, "--out", "run")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sorted(os.walk("run")) == before


def test_ctrl_c_says_how_to_go_on(scanned, cli, model, monkeypatch):
    added, add = [], Run.add

    def stops(self, *args):
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(args[1])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    ended = cli("study", "bos", model, "--out", "run")
    assert ended.code == 130
    assert ended.err == "monadnock: Stopped; what was measured is in run: the same command with --out run goes on.\n"
    monkeypatch.setattr(Run, "add", add)
    assert cli("study", "bos", model, "--out", "run").code == 0
    assert Run.open("run").table("inputs")["input"].n_unique() == 4


def test_ctrl_c_before_there_is_a_run(cli, model, work, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("monadnock.preparing.load", stop)
    ended = cli("study", "bos", model, "--out", "run")
    assert (ended.code, ended.err) == (130, "monadnock: Stopped; nothing was left half-written.\n")
    assert not (work / "run").exists()
