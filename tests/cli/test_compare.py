"""`monadnock compare`: what it prints, the page that it writes, and what it refuses."""

import shutil
import subprocess
import sys

import pytest

from monadnock.findings import Run
from tests.cli.test_bad_input import refused
from tests.findings.conftest import listing
from tests.relations.runs import frames, write
from tests.report.conftest import manifest
from tests.report.test_compare import changed


@pytest.fixture
def runs(work):
    tables = frames()
    write(work / "base", tables, id="smollm2")
    write(work / "tuned", changed(tables), id="smollm2-tuned", bos=False, token_hash="f" * 64)
    return ["base", "tuned"]


def test_it_prints_numbers_and_changes_and_writes_the_page(cli, work, runs):
    ended = cli("compare", *runs)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[-1] == "Page:   compare.html"
    assert "monadnock compare" in (work / "compare.html").read_text(encoding="utf-8")
    for part in ("smollm2 (base), llama family", "smollm2-tuned (tuned)", "tuned against base", "Massive rows", "NaN"):
        assert part in ended.out
    (numbers,) = [line for line in lines if line.startswith("largest |x_down|, start token")]
    assert numbers.split()[-3:] == ["900", "1,800", "\N{MULTIPLICATION SIGN}2"]
    told = " ".join(ended.out.split())
    assert "BOS in front; tuned: no BOS in front" in told
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in ended.out


def test_names_and_tokens_cannot_write_to_the_terminal(cli, work):
    tables = frames(["heads"])
    hostile = {"id": "[red]\x1b[31mx\u202e", "source": "[bold]notes\x07", "start_token": "\x1b]0;owned\x07"}
    write(work / "x", tables, **hostile)
    write(work / "y", tables)
    out = cli("compare", "x", "y").out
    assert "[red]\\x1b[31mx\\u202e" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_many_runs_stay_within_100_columns(cli, work, count, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of tests set it
    tables = frames()
    names = [f"checkpoint-{i}" for i in range(count)]
    for name in names:
        write(work / name, tables)
    lines = cli("compare", *names).out.splitlines()
    assert max(map(len, lines)) <= 100
    heads = [line.split() for line in lines if line.split()[:2] and set(line.split()) <= set(names)]
    assert heads and all(line[0] == names[0] for line in heads)
    assert [name for line in heads for name in line[1:]] == names[1:]
    places = [i for i, line in enumerate(lines) if line.startswith("massive layer")]
    assert all(lines[i + 1].startswith("massive rows") for i in places)  # no cell is broken


def test_the_width_of_pipes_can_be_set(cli, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    assert 100 < max(map(len, cli("compare", *runs).out.splitlines())) <= 140


def test_out_and_pages_again(cli, work, runs):
    for _ in range(2):
        assert cli("compare", *runs, "--out", "page.html").out.endswith("Page:   page.html\n")
    assert sorted(path.name for path in work.iterdir()) == ["base", "page.html", "tuned"]


def test_a_run_is_not_changed(cli, work, runs):
    before = listing(work)
    assert cli("compare", *runs).code == 0
    (work / "compare.html").unlink()
    assert listing(work) == before


def test_the_same_run_twice(cli, runs):
    ended = cli("compare", "base", "base/../base")
    assert ended.code == 0
    told = " ".join(ended.out.split())
    assert "B is the same folder as A." in told
    assert "Nothing no row differs from A" in told


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["base"], "1 run was given; give two or more to compare"),
        (["base", "nothing"], "nothing is not a run"),
        (["nothing", "base"], "nothing is not a run"),
        (["base", "damaged"], "Table 'heads' is damaged"),
        (["base", "broken"], "manifest.json is damaged"),
        (["base", "tuned", "--out", "notes.txt"], "notes.txt is there and is no page of `monadnock compare`"),
        (["base", "tuned", "--out", "base"], "base is a folder"),
        (["base", "tuned", "--out", "nowhere/page.html"], "could not be written to nowhere/page.html"),
        (["base", "tuned", "--out", "x" * 300], "cannot be written to x"),
    ],
)
def test_bad_input(cli, work, runs, args, said):
    (work / "notes.txt").write_text("mine")
    shutil.copytree(work / "base", work / "damaged")
    (work / "damaged" / "tables" / "heads.parquet").write_bytes(b"PAR1")
    Run.write(work / "broken", manifest(), {})
    (work / "broken" / "manifest.json").write_text("{")
    before = listing(work)
    refused(cli("compare", *args), said)
    assert listing(work) == before


def test_without_runs_it_says_how_it_is_used(cli, work):
    ended = cli("compare")
    assert ended.code == 2
    assert "Usage: " in ended.out + ended.err
    assert not list(work.iterdir())


def test_it_needs_no_torch(work, runs):
    code = (
        "import sys; from monadnock.cli import app; app(standalone_mode=False); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code, "compare", *runs], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_an_atlas_prints_a_row_for_each_run_and_writes_a_page_or_csv(cli, work, runs):
    (work / "damaged" / "tables").mkdir(parents=True)
    (work / "damaged" / "manifest.json").write_text("{")
    ended = cli("atlas", ".")
    assert ended.code == 0 and "2 runs of 2 models." in ended.out and "Page:   atlas.html" in ended.out
    assert "damaged is left out" in ended.err and "smollm2-tuned" in ended.out
    rows = cli("atlas", ".", "--csv").out.splitlines()
    assert rows[0].startswith("run,model,family") and len(rows) == 3
    refused(cli("atlas", ".", "--csv", "--out", "x.html"), "leave one of the two out")
    refused(cli("atlas", "nowhere"), "give one that holds runs")
