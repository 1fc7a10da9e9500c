"""Planted changes are found where they are, and nothing is found between runs that are alike."""

import math
import re
import shutil

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monadnock import compare
from monadnock.relations.compare_changes import changes, sentences
from monadnock.relations.compare_join import Side
from monadnock.relations.compare_tables import BY_NAME, COMPARED
from monadnock.relations.compare_words import number, signed, times
from tests.relations.runs import frames, write
from tests.report.conftest import manifest


def topics(found, name):
    return dict(found.sentences[name])


def test_outliers_planted_in_between_are_gained(planted):
    found = compare(planted.base, planted.tuned)
    told = topics(found, "tuned")
    row, feature = f"layer {planted.layer}, row {planted.row}", f"feature {planted.feature}"
    head = f"layer {planted.sink_layer}, head {planted.head}"
    assert told["Massive rows"] == f"none lost, 1 gained ({row}); 1 now."
    assert told["Massive features"] == f"none lost, 1 gained ({feature}); 1 now."
    assert told["Sinks"] == f"none lost, 1 gained ({head}); 1 now."
    assert re.match(rf"most in layer {planted.layer}, (up|gate|down)|most in layer 2, [qk]", told["Extremal ratios"])
    gained = found.changes().filter(how="gained")
    assert dict(gained.select("what", "where").rows()) == {"massive row": row, "massive feature": feature, "sink": head}
    size = gained.filter(what="massive row")["after"].item()
    assert float(size.replace(",", "")) == pytest.approx(planted.size, rel=0.01)


def test_in_the_other_order_they_are_lost(planted):
    there, back = compare(planted.base, planted.tuned), compare(planted.tuned, planted.base)
    assert topics(back, "base")["Sinks"] == f"1 of 1 lost (layer 2, head {planted.head}), none gained; 0 now."
    flags = ["what", "where", "before", "after"]
    gained, lost = there.changes().filter(how="gained"), back.changes().filter(how="lost")
    assert gained.select(flags).rows() == lost.select("what", "where", "after", "before").rows()
    for table, column in (("heads", "sink_mass"), ("weights", "extremal_ratio"), ("layers", "top1")):
        one, other = there.table(table, column), back.table(table, column)
        assert one["tuned - base"].to_list() == [-value for value in other["base - tuned"]]
        assert one["tuned / base"].to_list() == pytest.approx([1 / value for value in other["base / tuned"]])


def test_only_the_matrices_that_were_written_to_changed(planted):
    frame = compare(planted.base, planted.tuned).table("weights", "extremal_ratio")
    unlike = frame.filter(pl.col("base") != pl.col("tuned"))
    written = {(planted.layer, "up"), (planted.layer, "gate"), (planted.layer, "down"), (2, "q"), (2, "k")}
    assert set(unlike.select("layer", "module").unique().rows()) == written


def test_the_same_run_twice_differs_in_nothing(planted):
    found = compare(planted.base, planted.base)
    tables = found.tables()
    assert tables.select("only_first", "only_here", "different").sum().row(0) == (0, 0, 0)
    assert tables["both"].sum() > 0
    assert found.changes().is_empty()
    assert found.sentences == {"B": [("Nothing", f"no row differs from A in {tables.height} tables.")]}
    assert "B is the same folder as A." in found.remarks
    assert not found.warnings


def test_a_copy_of_a_run_differs_in_nothing(planted, tmp_path):
    shutil.copytree(planted.base.path, tmp_path / "copy")
    found = compare(planted.base.path, str(tmp_path / "copy"))
    assert [topic for topic, _ in found.sentences["copy"]] == ["Nothing"]
    assert not found.warnings
    assert not found.remarks


def sides(first, second):
    return [
        Side(name, manifest_path, manifest(), tables)
        for name, manifest_path, tables in (("a", None, first), ("b", None, second))
    ]


CELLS = [
    (spec.table, value.column)
    for spec in COMPARED
    for value in spec.values
    if value.told and value.change in ("ratio", "difference") and spec.table != "effects"
]


@pytest.mark.parametrize(("table", "column"), CELLS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_cell_is_the_one_change(table, column, data):
    spec = BY_NAME[table]
    value = next(value for value in spec.values if value.column == column)
    tables = frames([table])
    told = tables[table].with_row_index("_row").filter(pl.col(column).cast(pl.Float64).is_finite())
    for key, only in value.only.items():
        told = told.filter(pl.col(key) == only)
    row = data.draw(st.sampled_from(told["_row"].to_list()))
    factor = data.draw(st.floats(1.5, 10))
    there = pl.int_range(pl.len()) == row
    new = pl.col(column) * factor + (pl.col(column) == 0) * 0.5
    other = {table: tables[table].with_columns(pl.when(there).then(new).otherwise(pl.col(column)).alias(column))}
    pair = sides(tables, other)
    (found,) = [row for row in changes(pair).to_dicts() if row["what"] == value.told]
    before, after = tables[table][column][row], other[table][column][row]
    assert (found["run"], found["table"], found["how"]) == ("b", table, "changed")
    assert (found["before"], found["after"]) == (number(before), number(after))
    assert found["difference"] == pytest.approx(after - before)
    for key in spec.keys:
        key_value = tables[table][key][row]
        if isinstance(key_value, int):
            assert re.search(rf"\b{spec.words.get(key, key).replace('_', ' ')} {key_value}\b", found["where"])
    if value.topic:
        assert found["where"] in dict(sentences(pair)["b"])[value.topic]


def test_the_largest_change_comes_first_and_most_limits_each_kind():
    tables = frames(["weights"])
    grown = pl.when(pl.col("axis") == "column").then(pl.col("extremal_ratio") * (1 + pl.col("layer")))
    other = {"weights": tables["weights"].with_columns(extremal_ratio=grown.otherwise("extremal_ratio"))}
    for most in (1, 3, 50):
        frame = changes(sides(tables, other), most).filter(what="extremal ratio")
        assert frame.height == min(most, 5 * 6)  # layer 0 times 1 is no change
        assert frame["ratio"].to_list() == sorted(frame["ratio"], reverse=True)
        assert frame["ratio"][0] == pytest.approx(6)
        assert frame["where"][0].startswith("layer 5, ")


def test_from_zero_to_something_is_the_largest_change():
    tables = frames(["norm_gains"])
    rows = tables["norm_gains"].with_row_index("_row")
    first = {"norm_gains": rows.with_columns(gain=pl.when(pl.col("_row") == 4).then(0.0).otherwise("gain"))}
    other = {
        "norm_gains": rows.with_columns(gain=pl.when(pl.col("_row") == 4).then(1e-9).otherwise(pl.col("gain") * 2))
    }
    found = changes(sides(first, other)).row(0, named=True)
    assert (found["before"], found["after"], found["ratio"]) == ("0", "1e-09", math.inf)


def test_kinds_of_heads_are_counted_by_what_they_turned_into():
    tables = frames(["heads"])
    heads = tables["heads"].with_columns(kind=pl.lit("sink"))
    other = heads.with_columns(kind=pl.when(pl.col("layer") < 2).then(pl.lit("broad")).otherwise("kind"))
    other = other.with_columns(
        kind=pl.when((pl.col("layer") == 5) & (pl.col("head") == 0)).then(pl.lit("self")).otherwise("kind")
    )
    told = dict(sentences(sides({"heads": heads}, {"heads": other}))["b"])
    assert told["Kinds of heads"] == "9 of 24 changed: 8 from sink to broad and 1 from sink to self."


def test_a_feature_is_massive_once_however_often_it_lives():
    life = {"peak_layer": 3, "peak_value": -900.0, "massive": True}
    lives = lambda *births: pl.DataFrame([life | {"feature": 3, "birth": birth} for birth in births])  # noqa: E731
    from monadnock.findings import table

    pair = sides(
        {"lifecycles": table("lifecycles").frame(lives(1, 4))}, {"lifecycles": table("lifecycles").frame(lives(2))}
    )
    assert dict(sentences(pair)["b"])["Massive features"] == "the same 1 in both (feature 3)."
    assert changes(pair).filter(what="massive feature").is_empty()


@given(st.floats(1e-6, 1e6))
def test_a_ratio_reads_as_one_only_where_it_is(value):
    told = times(value)
    back = float(told[1:].replace(",", ""))
    assert back == pytest.approx(value, rel=0.006)
    if abs(value - 1) > 1e-7:
        assert (back > 1) == (value > 1)
        assert back != 1


@given(st.floats(-1e300, 1e300))
def test_a_difference_bears_its_sign(value):
    told = signed(value)
    assert told[0] == ("\N{MINUS SIGN}" if value < 0 else "+")
    assert float(told[1:].replace(",", "")) == pytest.approx(abs(value), rel=1e-3, abs=1e-300)


def test_a_run_with_broken_values_is_compared_all_the_same(tmp_path):
    tables = frames()
    found = compare(write(tmp_path / "a", tables), write(tmp_path / "b", tables))
    assert [topic for topic, _ in found.sentences["b"]] == ["Nothing"]  # NaN is NaN
    assert any("NaN or infinity was met" in sentence for sentence in found.warnings)
