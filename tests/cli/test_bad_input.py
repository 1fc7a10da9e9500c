"""Bad input ends with exit code 2, one line on stderr, and nothing left behind."""

import os
import shutil

import pytest

from monadnock.findings import Run
from tests.cli.bad_models import BAD, MARK, make
from tests.cli.conftest import save
from tests.findings.conftest import frames, listing
from tests.report.conftest import manifest
from tests.words import write_words


def refused(ended, said):
    """Check the contract of bad input."""
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("monadnock: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    assert "Traceback" not in ended.err
    assert said in ended.err


@pytest.mark.parametrize("name", BAD)
def test_a_model_that_cannot_be_loaded(cli, model, tmp_path, work, name):
    given = make(name, model, tmp_path)
    before = listing(tmp_path)
    refused(cli("scan", given, "--out", "deep/run"), "")
    assert listing(tmp_path) == before
    assert not list(tmp_path.rglob(MARK))
    assert not list(work.iterdir())


OPTIONS = {
    "unknown probe": (["--probes", "activaitons"], "did you mean activations"),
    "unknown probe among others": (["--probes", "weights, hats"], "'hats'"),
    "beyond the context": (["--length", "257"], "sees at most 256"),
    "no window": (["--length", "1"], "at least 2 tokens"),
    "negative": (["--length", "-5"], "Windows of -5 tokens"),
    "unknown dtype": (["--dtype", "float31"], "did you mean float32"),
    "unknown device": (["--device", "toaster"], "'toaster' cannot be used here"),
    "missing text": (["--text", "nothing.txt"], "No such file"),
    "text and data set": (["--text", "nothing.txt", "--dataset", "a/b"], "Both a text file and a data set"),
    "out is a file": (["--out", "/dev/null"], "is a file"),
    "out lies in a file": (["--out", "/dev/null/run"], "/dev/null/run cannot be made"),
    "out cannot be made": (["--out", "/proc/run"], "could not be written to /proc/run"),
    "out is too long": (["--out", "x" * 300], "cannot be a folder for the run"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be_met(cli, model, work, name):
    options, said = OPTIONS[name]
    refused(cli("scan", model, "--length", "16", "--tokens", "16", *options), said)
    assert not list(work.iterdir())


@pytest.mark.parametrize("verb", ["--colour", "--length=long", "--tokens=1.5", "--force=maybe"])
def test_options_that_there_are_not(cli, model, work, verb):
    ended = cli("scan", model, verb)
    assert ended.code == 2
    assert ended.err
    assert "Traceback" not in ended.err
    assert not list(work.iterdir())


def test_a_text_that_is_too_short(cli, model, work, tmp_path):
    text = write_words(tmp_path, ["w1"] * 14)
    refused(cli("scan", model, "--text", text, "--length", "16"), "has 14 tokens, too short for one window of 16")
    assert not list(work.iterdir())


def test_bos_where_there_is_none(cli, tmp_path, text, work):
    without = save(tmp_path / "without", bos=False)
    refused(cli("scan", without, "--text", text, "--length", "16", "--bos"), "use --no-bos")
    assert not list(work.iterdir())


def test_a_tokenizer_of_another_model(cli, tmp_path, text, work):
    other = save(tmp_path / "other", num_words=200, first_id=60)
    refused(cli("scan", other, "--text", text, "--length", "16"), "the model has 128 embeddings")
    assert not list(work.iterdir())


def test_a_data_set_without_the_extra(cli, model, work, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    refused(cli("scan", model, "--dataset", "owner/name"), "pip install -e '.[data]'")
    assert not list(work.iterdir())


def test_a_place_that_is_taken(cli, model, work):
    Run.write(work / "run", manifest(), frames())
    (work / "mine").mkdir()
    (work / "mine" / "manifest.json").write_text("{}")
    before = listing(work)
    refused(cli("scan", model, "--out", "run"), "already holds a run; give another folder, or --force")
    for force in ([], ["--force"]):
        refused(cli("scan", model, "--out", "mine", *force), "holds files that are not a run")
    assert listing(work) == before


def test_a_place_that_is_taken_is_told_before_the_model_is_loaded(cli, model, work, monkeypatch):
    Run.write(work / "run", manifest(), frames())
    monkeypatch.setattr("monadnock.preparing.load", pytest.fail)
    refused(cli("scan", model, "--out", "run"), "already holds a run")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "run", "hats"], "There is no table 'hats': did you mean heads"),
        (["show", "run", "layers"], "This run has no table 'layers'"),
        (["show", "nothing"], "nothing is not a run"),
        (["show", "."], ". is not a run"),
        (["show", "x" * 300], "cannot be looked into"),
        (["report", "nothing"], "nothing is not a run"),
        (["report", "run", "--out", "nothing/page.html"], "The report could not be written to nothing/page.html"),
        (["report", "run", "--out", "run"], "run is a folder; give a file for the report"),
        (["report", "run", "--out", "/dev/null/page.html"], "The report could not be written"),
        (["ls", "hats"], "There is no list of 'hats'"),
        (["ls", "probe"], "did you mean probes"),
    ],
)
def test_readers(cli, work, args, said):
    Run.write(work / "run", manifest(), {"heads": frames()["heads"]})
    before = listing(work)
    refused(cli(*args), said)
    assert listing(work) == before


def test_a_damaged_run(cli, work):
    Run.write(work / "run", manifest(), frames())
    shutil.copytree(work / "run", work / "other")
    (work / "run" / "tables" / "heads.parquet").write_bytes(b"PAR1")
    for args in (["show", "run"], ["show", "run", "heads"], ["show", "run", "heads", "--csv"], ["report", "run"]):
        refused(cli(*args), "is damaged")
    assert not (work / "run" / "report.html").exists()
    (work / "other" / "manifest.json").write_text("{")
    for args in (["show", "other"], ["report", "other"]):
        refused(cli(*args), "manifest.json is damaged")


@pytest.mark.parametrize("args", ["", "scan", "show", "report", "ls", "climb", "show run --rows 0"])
def test_incomplete_commands_show_how_to_use_them(cli, work, args):
    ended = cli(*args.split())
    assert ended.code == 2
    assert "Usage: " in ended.out + ended.err
    assert "Traceback" not in ended.err
    assert not list(work.iterdir())


def test_an_unwritable_folder(cli, model, text, work):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; /proc stands in for it above")
    (work / "locked").mkdir(mode=0o500)
    refused(cli("scan", model, "--text", text, "--length", "16", "--out", "locked/run"), "could not be written")
    assert not list((work / "locked").iterdir())
