"""Tables are joined on their keys; what cannot be joined is left out, and said."""

import math
import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from monadnock import MonadnockError, compare
from monadnock.findings import Run, table
from monadnock.relations.compare_tables import BY_NAME, COMPARED
from tests.relations.runs import frames, write
from tests.report.conftest import MODEL

HEADS = [
    {"layer": i, "head": h, "sink": h == 0, "sink_mass": 0.1 * i + h, "kind": "sink"} for i in (0, 1) for h in (0, 1)
]


def heads(rows):
    return {"heads": table("heads").frame(rows)}


def test_rows_meet_on_their_keys_in_whatever_order(tmp_path):
    other = [row | {"sink_mass": row["sink_mass"] + 0.5} for row in reversed(HEADS[1:])] + [
        {"layer": 7, "head": 0, "sink_mass": 1.0}
    ]
    found = compare(write(tmp_path / "x", heads(HEADS)), write(tmp_path / "y", heads(other)))
    frame = found.table("heads", "sink_mass")
    assert frame.columns == ["layer", "head", "x", "y", "y - x", "y / x"]
    assert frame.select("layer", "head", "x", "y").rows() == [
        (0, 0, 0.0, None),
        (0, 1, 1.0, 1.5),
        (1, 0, 0.1, 0.6),
        (1, 1, 1.1, 1.6),
        (7, 0, None, 1.0),
    ]
    assert frame["y - x"].to_list() == [None, *[pytest.approx(0.5)] * 3, None]
    assert frame["y / x"].to_list() == [None, 1.5, pytest.approx(6), pytest.approx(16 / 11), None]
    assert found.table("heads", "kind").columns == ["layer", "head", "x", "y"]
    assert found.tables().rows() == [("y", "heads", 3, 1, 1, 3)]


def test_keys_that_are_null_meet_too(tmp_path):
    rows = [
        {"layer": None, "norm": "final", "feature": 3, "gain": 2.0},
        {"layer": 0, "norm": "query", "feature": 3, "gain": 1.0},
    ]
    gains = {"norm_gains": table("norm_gains").frame(rows)}
    frame = compare(write(tmp_path / "x", gains), write(tmp_path / "y", gains)).table("norm_gains", "gain")
    assert frame.height == 2
    assert frame["y - x"].to_list() == [0.0, 0.0]


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_column_of_every_table_can_be_joined(tmp_path, name):
    tables = frames([name])
    found = compare(write(tmp_path / "x", tables), write(tmp_path / "y", tables))
    for value in BY_NAME[name].values:
        frame = found.table(name, value.column)
        assert frame["x"].equals(frame["y"])
        assert frame.height == found.tables()["both"].item()


def test_three_runs_stand_side_by_side_against_the_first(tmp_path):
    runs = [
        write(tmp_path / n, heads([row | {"sink_mass": float(i)} for row in HEADS])) for i, n in enumerate("xyz", 1)
    ]
    frame = compare(*runs).table("heads", "sink_mass")
    assert frame.columns == ["layer", "head", "x", "y", "z", "y - x", "y / x", "z - x", "z / x"]
    assert frame["z / x"].unique().to_list() == [3.0]


def test_a_table_that_a_run_lacks_is_left_out_and_said(tmp_path):
    has = {"x": ["heads", "norms"], "y": ["norms"], "z": ["heads"]}
    x, y, z = (write(tmp_path / name, frames(tables)) for name, tables in has.items())
    found = compare(x, y, z)
    assert found.left_out().rows() == [("heads", "y", "y does not have it"), ("norms", "z", "z does not have it")]
    assert found.remarks == ["Not measured in y: heads.", "Not measured in z: norms."]
    assert found.table("heads", "sink").columns == ["layer", "head", "x", "z"]
    assert set(found.tables().select("run", "table").rows()) == {("z", "heads"), ("y", "norms")}
    with pytest.raises(MonadnockError, match=r"^Table 'heads' cannot be joined: y does not have it\.$"):
        compare(x, y).table("heads", "sink")
    with pytest.raises(MonadnockError, match=r"^Table 'heads' cannot be joined: y does not have it\.$"):
        compare(y, x).table("heads", "sink")


@pytest.mark.parametrize("fact", ["num_layers", "num_heads", "hidden_size", "intermediate_size", "num_experts"])
def test_tables_of_another_shape_are_not_joined(tmp_path, fact):
    tables = frames()
    found = compare(write(tmp_path / "x", tables), write(tmp_path / "y", tables, **{fact: 5}))
    apart = {spec.table for spec in COMPARED if fact in spec.shape}
    assert apart
    assert set(found.left_out()["table"]) == apart
    assert set(found.tables()["table"]) == set(BY_NAME) - apart
    with pytest.raises(MonadnockError, match="cannot be joined: x has"):
        found.table(min(apart), BY_NAME[min(apart)].values[0].column)
    assert any("Not joined, as x has" in remark for remark in found.remarks)


def test_runs_of_the_first_ones_shape_are_joined_though_others_are_not(tmp_path):
    tables = frames(["heads"])
    runs = [write(tmp_path / name, tables, num_layers=count) for name, count in (("x", 6), ("y", 9), ("z", 6))]
    assert compare(*runs).table("heads", "sink").columns == ["layer", "head", "x", "z"]
    assert set(compare(*runs).sentences["z"][0]) == {"Nothing", "no row differs from x in 1 tables."}
    assert compare(*runs).sentences["y"] == []


def attack(layer, value, **more):
    place = {
        "layer": layer,
        "k": 2,
        "mode": "zero",
        "targets": f"layer {layer}: 5",
        "metric": "perplexity",
        "data": "t",
    }
    return place | {"value": value, "baseline": 10.0} | more


def test_an_attack_on_its_own_massive_layer_is_the_same_attack(tmp_path):
    runs = []
    for name, layer in (("x", 2), ("y", 4)):
        massive = table("massive_weights").frame([{"layer": layer, "rank": 1, "feature": 5, "massive": True}])
        effects = table("effects").frame([attack(2, 20.0 + layer), attack(4, 30.0 + layer)])
        runs.append(write(tmp_path / name, {"massive_weights": massive, "effects": effects}))
    frame = compare(*runs).table("effects", "value")
    values = {row["where"]: (row["x"], row["y"]) for row in frame.to_dicts()}
    assert values == {"massive layer": (22.0, 34.0), "layer 4": (32.0, None), "layer 2": (None, 24.0)}


def test_draws_of_a_control_are_averaged(tmp_path):
    draws = [attack(2, value, mode="random", seed=seed) for seed, value in enumerate((11.0, 13.0))]
    run = write(tmp_path / "x", {"effects": table("effects").frame(draws)})
    assert compare(run, run).table("effects", "value")["A"].to_list() == [12.0]


NAMES = {
    "short and different": (["base", "w8.1_x-y"], ["base", "w8.1_x-y"]),
    "long": (["a-very-long-name", "b"], ["A", "B"]),
    "equal": (["one/run", "two/run"], ["A", "B"]),
    "equal but for case": (["Run", "run"], ["A", "B"]),
    "a column": (["layer", "b"], ["A", "B"]),
    "a column, capital": (["base", "WHAT"], ["A", "B"]),
    "markup": (["[red]x", "b"], ["A", "B"]),
    "tags": (["<b>x", "b"], ["A", "B"]),
    "blank": (["a b", "c"], ["A", "B"]),
    "an option": (["-x", "c"], ["A", "B"]),
    "direction": (["a\u202eb", "c"], ["A", "B"]),
    "many": ([f"run-number-{i}" for i in range(28)], [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA", "BB"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_runs_have_the_names_of_their_folders_or_letters(tmp_path, case):
    folders, names = NAMES[case]
    runs = [write(tmp_path / folder, {}) for folder in folders]
    assert compare(*runs).names == names


def test_runs_may_be_given_as_runs_paths_or_strings(tmp_path, monkeypatch):
    tables = frames(["heads"])
    for name in "xy":
        write(tmp_path / name, tables)
    monkeypatch.chdir(tmp_path / "x")
    frame = compare(Run.open("."), str(tmp_path / "y")).table("heads", "sink_mass")
    assert frame.columns[2:4] == ["x", "y"]
    assert_frame_equal(frame, compare(tmp_path / "x", tmp_path / "y").table("heads", "sink_mass"))


def test_bad_input_is_one_clear_sentence(tmp_path):
    run = write(tmp_path / "x", frames(["heads"]))
    for runs, said in (([], "No run was given; give two or more"), ([run], "1 run was given; give two or more")):
        with pytest.raises(MonadnockError, match=said):
            compare(*runs)
    with pytest.raises(MonadnockError, match="nothing is not a run"):
        compare(run, tmp_path / "nothing")
    found = compare(run, run)
    for name, column, said in (
        ("haeds", "sink", "'haeds' cannot be compared, as it does not exist: did you mean heads"),
        ("attention", "cumulative", "as it lists tokens of its own text"),
        ("heads", "sink_mas", "Column 'sink_mas' of heads is not compared: did you mean sink_mass"),
    ):
        with pytest.raises(MonadnockError, match=said):
            found.table(name, column)
    (tmp_path / "x" / "tables" / "heads.parquet").write_bytes(b"PAR1")
    with pytest.raises(MonadnockError, match=r"Table 'heads' is damaged"):
        compare(run, run)


def test_what_it_prints_and_shows_in_a_notebook(tmp_path):
    tables = frames()
    found = compare(write(tmp_path / "x", tables), write(tmp_path / "y", tables, length=7))
    told = repr(found)
    for part in ("x: ", "y: ", "Warning: The scanned tokens differ", "y against x:", "  Nothing: no row differs"):
        assert part in told
    html = found._repr_html_()
    assert "<script" not in html
    assert MODEL not in html
    assert html.count("<table>") == 1
    assert "&lt;script&gt;" in html


def test_ratios_to_nothing_are_infinite_and_never_raise(tmp_path):
    runs = [write(tmp_path / n, heads([{"layer": 0, "head": 0, "sink_mass": v}])) for n, v in (("x", 0.0), ("y", 1.0))]
    assert compare(*runs).table("heads", "sink_mass")["y / x"].item() == math.inf


def test_comparing_needs_no_torch(tmp_path):
    for name in "xy":
        write(tmp_path / name, frames())
    code = (
        "import sys, monadnock; print(monadnock.compare('x', 'y').numbers.height); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 15


def test_the_page_is_a_view_like_others(tmp_path):
    run = write(tmp_path / "x", frames(["heads"]))
    path = compare(run, run).report(tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    assert pl.Series([path.read_text(encoding="utf-8")]).str.contains("monadnock compare").item()
