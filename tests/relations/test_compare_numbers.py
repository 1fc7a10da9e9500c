"""Head numbers are those of the tables, computed here in another way."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock import compare
from monadnock.findings import TABLES, table
from monadnock.relations.compare_numbers import NUMBERS, depth, lines
from tests.relations.runs import frames, write


def numbers(found, name):
    return dict(found.numbers.select("what", name).rows())


def test_numbers_of_planted_outliers(planted):
    found = compare(planted.base, planted.tuned)
    base, tuned = numbers(found, "base"), numbers(found, "tuned")
    assert (base["massive rows"], tuned["massive rows"]) == (0, 1)
    assert tuned["massive layer"] == planted.layer
    assert tuned["largest |x_down|, start token"] == pytest.approx(planted.size, rel=0.01)
    assert (base["massive features"], tuned["massive features"]) == (0, 1)
    assert tuned["largest |h|"] == pytest.approx(abs(planted.total), rel=0.05)
    assert (base["heads with a sink"], tuned["heads with a sink"]) == (0, 1 / 16)
    assert (base["first layer with such a sink"], tuned["first layer with such a sink"]) == (None, planted.sink_layer)
    assert tuned["implicit scaling"] < base["implicit scaling"] == 1
    row = found.numbers.filter(what="largest |h|").row(0, named=True)
    assert row["tuned / base"] == tuned["largest |h|"] / base["largest |h|"]
    assert row["tuned - base"] == tuned["largest |h|"] - base["largest |h|"]


def test_numbers_of_tables(tmp_path):
    tables = frames()
    run = write(tmp_path / "x", tables)
    told = numbers(compare(run, run), "A")
    heads = tables["heads"].to_dicts()
    assert told["heads with a sink"] == sum(head["sink"] for head in heads) / len(heads)
    first = [head for head in heads if head["sink"] and head["sink_position"] == 0]
    assert told["heads with sink at position 0"] == len(first) / len(heads)
    assert told["mean first-key mass"] == pytest.approx(sum(head["first_key_mass"] for head in heads) / len(heads))
    sizes = {(row["stream"], row["layer"]): row for row in tables["layers"].to_dicts()}
    finite = [row["top1"] for (stream, _), row in sizes.items() if stream == "residual" and math.isfinite(row["top1"])]
    assert told["largest |h|"] == max(finite)
    assert told["massive rows"] == tables["massive_weights"]["massive"].sum() == 3
    assert told["massive features"] == 1
    errors = [row["w8_error"] for row in tables["weights"].to_dicts() if row["axis"] == "tensor"]
    errors = [error for error in errors if math.isfinite(error)]
    assert told["8-bit error, worst matrix"] == max(errors)
    middle = sorted(errors)[(len(errors) - 1) // 2 : len(errors) // 2 + 1]
    assert told["8-bit error, median matrix"] == pytest.approx(sum(middle) / len(middle))
    ratios = [row["extremal_ratio"] for row in tables["weights"].to_dicts() if row["axis"] == "column"]
    assert told["largest extremal ratio"] == max(ratios)


def test_each_number_names_tables_and_definitions_that_exist():
    assert len({about.what for about in NUMBERS}) == len(NUMBERS)
    for about in NUMBERS:
        assert about.needs
        assert set(about.needs) <= set(TABLES)
        assert about.doc
        assert about.how in ("count", "index", "size", "share")


@pytest.mark.parametrize("about", NUMBERS, ids=lambda about: about.what)
def test_a_number_is_missing_where_its_tables_are_or_have_no_rows(tmp_path, about):
    full = frames(about.needs)
    empty = {name: table(name).frame() for name in about.needs}
    runs = {name: write(tmp_path / name, found) for name, found in (("full", full), ("empty", empty), ("none", {}))}
    found = compare(*runs.values())
    row = found.numbers.filter(what=about.what).row(0, named=True)
    assert row["full"] is not None
    assert row["empty"] in (None, 0)  # no rows that are massive is 0 massive rows
    assert row["none"] is None
    alone = compare(runs["none"], runs["none"])
    assert alone.numbers.is_empty()
    assert alone.numbers.columns == ["what", "A", "B", "B - A", "B / A"]


def test_cells_read_well(tmp_path):
    layers = lambda top1: table("layers").frame([{"stream": "residual", "layer": 3, "top1": top1, "median": 1.0}])  # noqa: E731
    heads = lambda count: table("heads").frame(  # noqa: E731
        [{"layer": 0, "head": i, "sink": i < count, "sink_position": 0, "first_key_mass": 0.5} for i in range(8)]
    )
    runs = [
        write(tmp_path / name, {"layers": layers(top1), "heads": heads(count)})
        for name, top1, count in (("x", 1000.0, 4), ("y", 2500.0, 3), ("z", 1000.1, 4))
    ]
    told = {about.what: cells for about, cells in lines(compare(*runs).sides)}
    assert told["largest |h|"] == [
        ("1,000", "layer 3", ""),
        ("2,500", "layer 3", "\N{MULTIPLICATION SIGN}2.5"),
        ("1,000", "layer 3", "≈"),
    ]
    assert told["heads with a sink"] == [
        ("50.0%", "4 of 8", ""),
        ("37.5%", "3 of 8", "\N{MINUS SIGN}12.5"),
        ("50.0%", "4 of 8", "="),
    ]
    assert told["mean first-key mass"][1] == ("50.0%", "", "=")
    assert told["first layer with such a sink"][1] == ("0", "depth 0.00", "=")


def test_other_rows_of_the_same_number_are_not_the_same(tmp_path):
    def massive(row):
        rows = [{"layer": 1, "rank": 1, "feature": row, "magnitude": 500.0, "massive": True}]
        return table("massive_weights").frame(rows)

    runs = [write(tmp_path / name, {"massive_weights": massive(row)}) for name, row in (("x", 5), ("y", 6))]
    told = {about.what: cells for about, cells in lines(compare(*runs).sides)}
    assert told["massive rows"] == [("1", "5", ""), ("1", "6", "others")]


def test_zeroing_is_told_for_as_many_rows_as_are_massive(tmp_path):
    massive = table("massive_weights").frame(
        [{"layer": 1, "rank": r, "feature": r, "magnitude": 500.0, "massive": r < 3} for r in range(1, 5)]
    )
    firsts = lambda k: " ".join(map(str, range(1, k + 1)))  # noqa: E731
    zero = {"mode": "zero", "metric": "perplexity", "data": "t", "baseline": 10.0}
    rows = [
        zero | {"layer": layer, "k": k, "targets": f"layer {layer}: {firsts(k)}", "value": 10.0 * layer + k}
        for layer in (1, 2)
        for k in (1, 2, 50)
    ]
    run = write(tmp_path / "x", {"massive_weights": massive, "effects": table("effects").frame(rows)})
    told = {about.what: cells for about, cells in lines(compare(run, run).sides)}
    assert told["perplexity"][0] == ("10", "", "")
    assert told["perplexity, rows zeroed"][0] == ("12", "k = 2", "")


@given(st.integers(1, 200), st.data())
def test_depth_goes_from_0_to_1(count, data):
    layer = data.draw(st.integers(0, count - 1))
    assert depth(0, count) == 0
    assert depth(count - 1, count) == (count > 1)
    assert 0 <= depth(layer, count) <= 1
    assert pl.Series([depth(i, count) for i in range(count)]).is_sorted()
