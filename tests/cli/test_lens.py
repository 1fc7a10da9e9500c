"""`monadnock lens`: the states of a prompt in words, layer by layer; how it goes on; bad input."""

import os
from pathlib import Path

import polars as pl
import pytest

from monadnock.findings import Run
from monadnock.reading import lens
from monadnock.report.text import token as visible
from tests.cli.conftest import save
from tests.tiny import tiny_model

PROMPT = "w1 w2 w3"


def layers(said):
    """Return the first column of what was printed, under its head, and the words of each line."""
    lines = said.splitlines()
    head = next(place for place, line in enumerate(lines) if line.split()[:1] == ["layer"])
    end = next(place for place, line in enumerate(lines) if line.startswith("Report:"))
    return {line.split()[0]: line.split()[1:] for line in lines[head + 1 : end] if line.strip()}


def best(run, dictionary, layer, position, **which):
    place = {"dictionary": dictionary, "layer": layer, "position": position, "rank": 1, **which}
    return run.table("lens").filter(**place).select("word", "amplitude").row(0)


def test_lens_tells_every_layer_of_the_last_position(scanned, cli, model):
    ended = cli("lens", model, PROMPT, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    found, run = layers(ended.out), Run.open("run")
    assert list(found) == ["in", "0", "1", "2"]
    for name, layer in (("in", -1), ("0", 0), ("1", 1), ("2", 2)):
        for dictionary in ("input", "output", "middle"):
            word, amplitude = best(run, dictionary, layer, 3)
            assert visible(word) in found[name] and f"{amplitude:.2f}" in found[name]
    assert found["in"][:2] == ["w3", "1.00"]  # the last token itself
    lines = ended.out.splitlines()
    assert lines[-2] == "Report: run/report.html" and lines[-1].startswith("Next:   monadnock ")
    for dictionary in ("input", "output", "middle"):
        assert dictionary in ended.out
    assert (run.path / "report.html").is_file()
    assert cli("show", "run", "lens").code == 0 and cli("show", "run", "first_token").code == 0


@pytest.mark.parametrize(("position", "token"), [("0", "<s>"), ("1", "w1"), ("-2", "w2"), ("-4", "<s>")])
def test_a_chosen_position(scanned, cli, model, position, token):
    ended = cli("lens", model, PROMPT, "--out", "run", "--position", position, "--dictionary", "input")
    assert (ended.code, ended.err) == (0, "")
    assert layers(ended.out)["in"][:2] == [token, "1.00"]


def test_only_what_was_asked_is_told(scanned, cli, model):
    for prompt, options in (("w7 w8", {}), (PROMPT, {"rows": "raw"}), (PROMPT, {})):
        lens(str(model), prompt, out="run", dictionaries=["output", "input"], progress=False, **options)
    ended = cli("lens", model, PROMPT, "--out", "run", "--dictionary", "output", "--k", "2", "--words", "prompt")
    assert (ended.code, ended.err) == (0, "")
    run = Run.open("run")
    words = {word for said in layers(ended.out).values() for word in said if not word[-1:].isdigit() or word[0] == "w"}
    assert words <= {"<s>", "w1", "w2", "w3"}
    for name, layer in (("in", -1), ("2", 2)):
        word, amplitude = best(run, "output", layer, 3, words="prompt", rows="normalised")
        assert layers(ended.out)[name][:2] == [word, f"{amplitude:.2f}"]
    assert "input" not in ended.out.partition("Report:")[0]


def test_the_same_prompt_with_and_without_bos(scanned, cli, model):
    """Both are in one run; what was asked is told."""
    asked = ["lens", model, PROMPT, "--out", "run", "--dictionary", "input", "--position", "0"]
    for front in (True, False):
        lens(str(model), PROMPT, out="run", dictionaries=["input"], bos=front, progress=False)
    for option, token in (("--no-bos", "w1"), ("--bos", "<s>")):
        ended = cli(*asked, option)
        assert (ended.code, ended.err) == (0, "")
        assert layers(ended.out)["in"][:2] == [token, "1.00"]
    assert layers(cli(*asked).out)["in"][:2] == ["<s>", "1.00"]
    ended = cli(*asked[:-1], "3", "--no-bos")  # which is position 3 with BOS
    assert ended.code == 2 and "has the positions 0 to 2" in ended.err


def test_words_with_markup_and_signs_are_told_as_they_are(cli, tmp_path, text):
    from tests.words import word_tokenizer

    folder = save(tmp_path / "marked", tiny_model("llama"))
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["[red]", "[/red]"])
    tokenizer.save_pretrained(folder)
    ended = cli("lens", folder, "w1 [red]", "--out", "run", "--dictionary", "input", "--k", "1")
    assert (ended.code, ended.err) == (0, "")
    assert layers(ended.out)["in"] == ["[red]", "1.00"]


def test_a_new_run_with_a_published_prompt(cli, model):
    ended = cli("lens", model, "--dictionary", "input", "--k", "1")
    assert (ended.code, ended.err) == (0, "")
    (folder,) = Path("monadnock-runs").iterdir()
    run = Run.open(folder)
    assert run.table("lens")["prompt"].unique().to_list()[0].startswith("I like the red ball")
    assert f"Report: {folder}/report.html" in ended.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--dictionary", "inputs"], "There is no dictionary 'inputs': did you mean input?"),
        (["--dictionary", ","], "No dictionary was asked for"),
        (["--k", "0"], "0 words of each state were asked; give 1 to 100"),
        (["--k", "101"], "101 words of each state were asked"),
        (["--rows", "row"], "rows was 'row'; give normalised or raw"),
        (["--words", "few"], "words was 'few'; give all or prompt"),
    ],
)
def test_bad_input_is_told_in_one_sentence(scanned, cli, model, args, told):
    before = sorted(os.walk("run"))
    ended = cli("lens", model, PROMPT, *args, "--out", "run")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err and len(ended.err.splitlines()) == 1
    assert sorted(os.walk("run")) == before


@pytest.mark.parametrize(
    ("prompt", "told"),
    [("", "The prompt is empty"), (" ", "The prompt is empty"), ("w1 " * 300, "The prompt has 301 tokens")],
)
def test_prompts_that_cannot_be_read(scanned, cli, model, prompt, told):
    before = sorted(os.walk("run"))
    ended = cli("lens", model, prompt, "--out", "run")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err and len(ended.err.splitlines()) == 1
    assert sorted(os.walk("run")) == before


@pytest.mark.parametrize("position", ["4", "-5", "1000"])
def test_a_position_that_the_prompt_does_not_have(scanned, cli, model, position):
    ended = cli("lens", model, PROMPT, "--out", "run", "--dictionary", "input", "--position", position)
    assert (ended.code, ended.out) == (2, "")
    assert f"Position {position} was asked, but the prompt has the positions 0 to 3" in ended.err
    assert len(ended.err.splitlines()) == 1
    Run.open("run").tables()  # what is there is whole


def test_a_run_of_another_model(scanned, cli, model, tmp_path):
    other = save(tmp_path / "other", tiny_model("llama", seed=1))
    ended = cli("lens", other, PROMPT, "--out", "run")
    assert (ended.code, ended.out) == (2, "") and "is a run of " in ended.err
    assert "lens" not in Run.open("run").heights()


def test_ctrl_c_says_how_to_go_on(scanned, cli, model, monkeypatch):
    added, add = [], Run.add

    def stops(self, *args):
        if len(added) == 1:
            raise KeyboardInterrupt
        added.append(args[1])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    ended = cli("lens", model, PROMPT, "--out", "run")
    assert ended.code == 130
    assert ended.err == "monadnock: Stopped; what was measured is in run: the same command with --out run goes on.\n"
    assert set(Run.open("run").table("lens")["dictionary"]) == {"input"}
    monkeypatch.setattr(Run, "add", add)
    assert cli("lens", model, PROMPT, "--out", "run").code == 0
    assert set(Run.open("run").table("lens")["dictionary"]) == {"input", "output", "middle"}
    assert Run.open("run").table("lens").filter(pl.col("rank") == 1).height == 3 * 4 * 4


def test_ctrl_c_before_there_is_a_run(cli, model, work, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("monadnock.preparing.load", stop)
    ended = cli("lens", model, PROMPT, "--out", "run")
    assert (ended.code, ended.err) == (130, "monadnock: Stopped; nothing was left half-written.\n")
    assert not (work / "run").exists()
