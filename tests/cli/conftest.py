"""A tiny model in a folder, and the command line run in this process."""

import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from monadnock.cli import main
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words


@dataclass
class Ended:
    code: int
    out: str
    err: str


def save(folder, model=None, **tokenizer):
    (tiny_model("llama") if model is None else model).save_pretrained(folder)
    word_tokenizer(**tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return a folder with a tiny llama and its tokenizer; tests do not change it."""
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(600))


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Work in an empty folder, without a network."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "work"


@pytest.fixture(scope="session")
def one_scan(model, text, tmp_path_factory):
    """Return a folder in which a scan of the tiny model was written to `run`, and what the scan said."""
    folder = tmp_path_factory.mktemp("scanned")
    code = "from monadnock.cli import main; main()"
    args = ["scan", model, "--text", text, "--length", "16", "--tokens", "48", "--out", "run"]
    ended = subprocess.run([sys.executable, "-c", code, *args], cwd=folder, capture_output=True, text=True)
    return folder, Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def scanned(one_scan, work):
    """Return what a scan said; a copy of its run is in `run`."""
    folder, ended = one_scan
    shutil.copytree(folder, work, dirs_exist_ok=True)
    return ended


@pytest.fixture
def cli(monkeypatch, capfd):
    """Return a function that runs the command line as `monadnock` does."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["monadnock", *map(str, args)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        said = capfd.readouterr()
        return Ended(code, said.out, said.err)

    return run
