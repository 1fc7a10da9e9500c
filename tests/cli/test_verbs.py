"""The way through: scan a tiny model, show what was found, write its page, list what there is."""

import io
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from monadnock.attacking import MODES
from monadnock.catalogue import entries
from monadnock.findings import TABLES, Run
from monadnock.models.packaged import PACKAGED
from tests.cli.conftest import save
from tests.findings.conftest import listing
from tests.tiny import tiny_model

SCANNED = {name for name, table in TABLES.items() if table.verb == "scan"}
SMALL = ["--length", "16", "--tokens", "48"]


def test_scan_writes_a_run_and_its_page_and_says_what_is_next(scanned, model, work):
    assert (scanned.code, scanned.err) == (0, "")
    assert sorted(p.name for p in work.iterdir()) == ["run"]
    assert sorted(p.name for p in (work / "run").iterdir()) == ["manifest.json", "report.html", "tables"]
    run = Run.open("run")
    assert set(run.manifest.tables) == {p.stem for p in (work / "run" / "tables").iterdir()} == SCANNED
    assert run.manifest.tables == {name: frame.height for name, frame in run.tables().items()}
    facts = run.manifest.model
    assert (facts.id, facts.source, facts.family) == (str(model), "folder", "llama")
    text = run.manifest.text
    assert (text.source, text.num_windows, text.length, text.bos) == ("words.txt", 3, 16, True)
    *_, report, after = scanned.out.splitlines()
    page = Path(re.fullmatch(r"Report: (.*report\.html)", report)[1])
    assert page.samefile(work / "run" / "report.html")
    assert "<html" in page.read_text(encoding="utf-8")
    assert re.fullmatch(r"Next:   monadnock show \S*run massive_weights", after)
    topics = [topic for topic, _ in run.summary().items]
    assert all(topic in scanned.out for topic in topics)


def test_what_is_next_works(scanned, cli):
    _, after = scanned.out.rsplit("Next:", 1)
    program, *args = after.split()
    assert program == "monadnock"
    ended = cli(*args)
    assert (ended.code, ended.err) == (0, "")
    assert "magnitude" in ended.out


def test_scan_has_no_colours_or_bars_where_there_is_no_terminal(scanned):
    assert "\x1b" not in scanned.out
    assert "pass" not in scanned.out


def test_scan_is_reproducible(scanned, cli, model, text):
    assert cli("scan", model, "--text", text, *SMALL, "--out", "again").code == 0
    a, b = Run.open("run"), Run.open("again")
    assert a.manifest.text == b.manifest.text
    for name in SCANNED:
        assert_frame_equal(a.table(name), b.table(name), check_exact=True)


def test_scan_without_out_makes_a_new_folder(cli, model, text, work):
    assert cli("scan", model, "--text", text, *SMALL, "--probes", "parameters").code == 0
    (made,) = (work / "monadnock-runs").iterdir()
    assert re.fullmatch(r"tiny-\d{8}-\d{6}", made.name)
    assert list(Run.open(made).manifest.tables) == ["parameters"]


def test_scan_options(cli, model, text, work):
    options = ["--no-bos", "--dtype", "bfloat16", "--device", "cpu", "--probes", "start_token , weights"]
    ended = cli("scan", model, "--text", text, *SMALL, *options, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    facts = Run.open("run").manifest
    assert not facts.text.bos
    assert (facts.model.dtype, facts.model.device) == ("bfloat16", "cpu")
    assert sorted(facts.probes) == ["start_token", "weights"]
    assert "heads" not in facts.tables


def test_force_replaces_the_run(scanned, cli, model, text, work):
    ended = cli("scan", model, "--text", text, *SMALL, "--probes", "weights", "--out", "run", "--force")
    assert ended.code == 0
    assert Run.open("run").manifest.probes == ["weights"]
    assert sorted(p.name for p in work.iterdir()) == ["run"]


def test_show(scanned, cli):
    ended = cli("show", "run")
    assert (ended.code, ended.err) == (0, "")
    for name, height in Run.open("run").manifest.tables.items():
        assert re.search(rf"^{name} +{height} rows  ", ended.out, re.M)
    assert "Massive layer" in ended.out


def test_show_a_table(scanned, cli):
    frame = Run.open("run").table("features")
    ended = cli("show", "run", "features", "--rows", "3")
    assert ended.code == 0
    assert all(name in ended.out for name in frame.columns)
    assert f"3 of {frame.height} rows; --rows {frame.height} shows all." in ended.out
    assert ended.out.count("│ residual ") == 3
    empty = cli("show", "run", "nonfinite")
    assert empty.out == f"nonfinite is empty. {TABLES['nonfinite'].doc}\n"


@pytest.mark.parametrize("name", sorted(SCANNED))
def test_csv_holds_the_whole_table(scanned, cli, name):
    ended = cli("show", "run", name, "--csv")
    assert (ended.code, ended.err) == (0, "")
    back = pl.read_csv(io.StringIO(ended.out), schema=TABLES[name].polars)
    assert_frame_equal(back, Run.open("run").table(name), check_exact=True)


def test_report(scanned, cli, work):
    page = (work / "run" / "report.html").read_text(encoding="utf-8")
    (work / "run" / "report.html").unlink()
    assert cli("report", "run").out == "run/report.html\n"
    assert cli("report", "run", "--out", "page.html").out == "page.html\n"
    for path in ("run/report.html", "page.html"):
        again = (work / path).read_text(encoding="utf-8")
        assert again.partition("<script")[0] == page.partition("<script")[0]  # bokeh numbers its models on
        assert len(again) > 0.9 * len(page), "the charts are there too"


def test_readers_change_nothing(scanned, cli, work):
    before = listing(work)
    for args in (["show", "run"], ["show", "run", "heads"], ["show", "run", "heads", "--csv"]):
        assert cli(*args).code == 0
    assert listing(work) == before


LISTS = {
    "models": list(PACKAGED),
    "families": [entry.name for entry in entry_points(group="monadnock.families")],
    "probes": [entry.name for entry in entry_points(group="monadnock.probes")],
    "tables": list(TABLES),
    "modes": list(MODES),
    "catalogue": list(entries()),
}


@pytest.mark.parametrize("what", LISTS)
def test_ls_lists_everything_that_is_registered(cli, what):
    ended = cli("ls", what)
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert sorted(name for name, _ in lines) == sorted(LISTS[what])
    assert all(note.strip() for _, note in lines)


def test_broken_values_are_a_finding(cli, tmp_path, text, work):
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 4] = float("nan")
    ended = cli("scan", save(tmp_path / "broken", broken), "--text", text, *SMALL, "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert "Broken values" in ended.out
    assert "NaN or infinity" in ended.out
    found = Run.open("run").table("nonfinite")
    weight = found.filter(pl.col("where") == "weight").row(0, named=True)
    assert (weight["layer"], weight["count"]) == (1, 1)
    assert "mlp.up_proj.weight" in weight["name"]
    assert found.filter(pl.col("where") == "residual")["layer"].min() == 1
    assert "Broken values" in cli("show", "run").out


def test_the_installed_command_runs():
    program = Path(sys.executable).with_name("monadnock")
    ended = subprocess.run([program, "ls", "tables"], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "massive_weights" in ended.stdout


def test_a_reader_that_stops_reading_is_no_error(work, scanned):
    program = Path(sys.executable).with_name("monadnock")
    ended = subprocess.run(
        ["bash", "-c", f"{program} show run features --rows 9999 | head -1"], capture_output=True, text=True
    )
    assert "Traceback" not in ended.stderr
