"""Whole prescriptions: what is written where, again and again, without torch; the command line; bad input."""

import subprocess
import sys

import pytest
import yaml

from monadnock.errors import MonadnockError
from monadnock.findings import Run
from monadnock.prescribing import prescribe, read_recipe
from monadnock.prescribing.prescription import ACTIONS
from tests.prescribing import planted
from tests.prescribing.recipe_format import check_recipe
from tests.report.conftest import HOSTILE

LOUD = planted.changed(planted.sensitivity(), {"layer": 3, "module": "down"}, relative=1.0, total=6.4)


@pytest.fixture
def run(tmp_path):
    tables = {"sensitivity": LOUD, "heads": planted.heads([0, 1]), "massive_weights": planted.massive()}
    return planted.write(tmp_path / "run", planted.everything() | tables)


def test_the_table_and_the_recipe_are_written(run):
    path = prescribe(run, bits=4, granularity="row")
    assert path == run.path / "recipe.yaml"
    recipe = read_recipe(path)
    assert (recipe.bits, recipe.strategy, recipe.ignore) == (4, "row", ("lm_head", planted.name(3, "down")))
    check_recipe(yaml.safe_load(path.read_text(encoding="utf-8")))
    table = Run.open(run.path).table("prescriptions")
    assert table["rank"].to_list() == [*range(1, table.height + 1)]
    assert table["action"][0] == "keep_module" and set(table["action"]) <= set(ACTIONS)
    assert table["reason"].str.len_chars().min() > 20
    places = [ACTIONS.index(action) for action in table["action"]]
    assert places == sorted(places)


def test_again_replaces_what_was_prescribed(run):
    prescribe(run)
    first = run.table("prescriptions").rows()
    prescribe(run)
    assert run.table("prescriptions").rows() == first
    prescribe(run, bits=8, granularity="tensor")
    assert run.table("prescriptions")["rank"].to_list() == [*range(1, run.table("prescriptions").height + 1)]
    assert read_recipe(run.path / "recipe.yaml").bits == 8


def test_another_file_for_the_recipe(run, tmp_path):
    assert prescribe(run, out=tmp_path / "mine.yaml") == tmp_path / "mine.yaml"
    assert not (run.path / "recipe.yaml").exists()


@pytest.mark.parametrize(("width", "inner", "group"), [(256, 512, 128), (64, 128, 64), (576, 1536, 64), (48, 96, 16)])
def test_groups_are_as_wide_as_all_matrices_allow(tmp_path, width, inner, group):
    tables = planted.everything() | {"parameters": []}
    run = planted.write(tmp_path / "run", tables, hidden_size=width, intermediate_size=inner)
    assert read_recipe(prescribe(run, granularity="group")).group == group


def test_widths_that_no_group_divides(tmp_path):
    run = planted.write(tmp_path / "run", planted.everything(), hidden_size=50)
    with pytest.raises(MonadnockError, match="which groups of 16 do not divide"):
        prescribe(run, granularity="group")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_stay_strings(tmp_path, hostile):
    rows = [row | {"name": hostile} if row["name"] == planted.name(3, "down") else row for row in LOUD]
    run = planted.write(tmp_path / "run", planted.everything() | {"sensitivity": rows}, id=hostile)
    path = prescribe(run)
    asked = check_recipe(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert len(asked["ignore"]) == 2
    if hostile:  # without a name, the family's path is taken
        assert read_recipe(path).keeps(hostile)
    assert not read_recipe(path).keeps(planted.name(2, "down"))


def test_nothing_needs_torch_where_modules_are_named(run):
    code = """
import sys
from monadnock.prescribing import prescribe
prescribe(sys.argv[1])
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)


def test_a_family_whose_layers_llm_compressor_does_not_see(tmp_path):
    run = planted.write(tmp_path / "run", planted.everything(), family="gpt2")
    prescribe(run)
    assert any("Conv1D" in reason for reason in run.table("prescriptions")["reason"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"bits": 1}, "1 bits were asked"),
        ({"bits": 16}, "16 bits were asked"),
        ({"granularity": "rows"}, "did you mean row"),
        ({"out": "/no/such/folder/recipe.yaml"}, "could not be written"),
    ],
)
def test_bad_settings(run, settings, told):
    with pytest.raises(MonadnockError, match=told):
        prescribe(run, **settings)
    assert "prescriptions" not in run.heights()


def test_an_empty_run_and_no_run(tmp_path):
    run = planted.write(tmp_path / "run", {"layers": planted.layers(), "heads": []})
    with pytest.raises(MonadnockError, match="nothing to judge from; `monadnock scan tiny --out DIR`"):
        prescribe(run)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(MonadnockError, match="is not a run"):
            prescribe(path)
    damaged = run.path / "tables" / "layers.parquet"
    whole = planted.write(tmp_path / "run", planted.everything())
    damaged.write_bytes(b"no table")
    with pytest.raises(MonadnockError, match="'layers' is damaged"):
        prescribe(whole)


def cli(monkeypatch, capfd, *args):
    from monadnock.cli import main

    monkeypatch.setattr(sys, "argv", ["monadnock", "prescribe", *map(str, args)])
    monkeypatch.setenv("COLUMNS", "120")
    capfd.readouterr()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    said = capfd.readouterr()
    return code, said.out, said.err


def test_the_command_line_says_what_to_do_and_what_is_next(run, monkeypatch, capfd):
    monkeypatch.chdir(run.path.parent)
    code, out, err = cli(monkeypatch, capfd, "run", "--bits", "4")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("keep_module") and lines[1].startswith("  ")
    assert "KV cache, 2 tokens" in out
    assert lines[-2:] == [
        "Recipe: run/recipe.yaml",
        "Next:   monadnock compress tiny --recipe run/recipe.yaml --out run",
    ]


@pytest.mark.parametrize("args", [["none"], ["run", "--bits", "1"], ["run", "--granularity", "column"]])
def test_the_command_line_complains_in_one_sentence(run, monkeypatch, capfd, args):
    monkeypatch.chdir(run.path.parent)
    code, out, err = cli(monkeypatch, capfd, *args)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("monadnock: ")
