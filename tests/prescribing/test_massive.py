"""Massive rows: measured gain, measured no gain, and nothing measured; what keeping modules has bought."""

import math

import pytest

from tests.prescribing import planted

BASE, KEPT = "absmax 8 bits tensor", "absmax 8 bits tensor, massive rows kept"


def test_rows_that_were_not_measured_are_named_with_the_command_that_measures(judge):
    rows = judge(massive_weights=planted.massive(), super_weights=planted.supers()).all("measure_rows")
    assert {(row["module"], row["rows"], row["amount"]) for row in rows} == {
        ("up", "17 19", 2),
        ("gate", "17 19", 2),
        ("down", "5", 1),
    }
    assert all(row["layer"] == 2 for row in rows)
    assert rows[0]["module"] == "down" and rows[0]["value"] == 18000 and "columns 17 19" in rows[0]["reason"]
    assert all("monadnock compress tiny --method absmax --bits 4 --granularity row" in row["reason"] for row in rows)


def test_a_model_without_gates_has_no_rows_of_gate(judge):
    counted = [row for row in planted.parameters() if row["component"] != "gate"]
    told = judge(massive_weights=planted.massive(), parameters=counted)
    assert [row["module"] for row in told.all("measure_rows")] == ["up"]


@pytest.mark.parametrize(
    ("base", "kept", "action"),
    [
        (14.38, 14.37, "no_rows"),  # 1 % of the loss
        (14.38, 14.50, "no_rows"),  # worse
        (14.38, 14.00, "keep_rows"),  # half of it
        (13.60, 13.59, "no_rows"),  # nothing was lost
        (math.inf, 20.0, "keep_rows"),
        (math.inf, math.inf, "no_rows"),
        (math.nan, 14.0, "no_rows"),
    ],
)
def test_what_was_measured_decides(judge, base, kept, action):
    rows = [planted.effect(BASE, base), planted.effect(KEPT, kept)]
    told = judge(bits=8, granularity="tensor", massive_weights=planted.massive(), effects=rows)
    row = told.one(action)
    assert not told.all("measure_rows")
    assert (row["rows"], row["layer"], row["evidence"]) == ("17 19", 2, "effects.value")
    assert [row["value"], row["bound"]] == pytest.approx([kept, base], nan_ok=True)
    assert BASE in row["reason"]


def test_every_compressor_that_was_measured_is_told_the_one_that_is_asked_first(judge):
    methods = ("absmax 4 bits row", "absmax 8 bits tensor", "rtn 4 bits row")
    rows = [planted.effect(each + end, 15.0) for each in methods for end in ("", ", massive rows kept")]
    told = judge(massive_weights=planted.massive(), effects=rows).all("no_rows")
    assert len(told) == 3
    others = [planted.effect(KEPT, 14.0), planted.effect(BASE, 15.0, data="another text")]
    assert judge(massive_weights=planted.massive(), effects=others).all("measure_rows")  # not the same text


def test_attacks_and_other_metrics_are_no_measurements_of_compressors(judge):
    rows = [
        planted.effect(BASE, 14.0, mode="zero"),
        planted.effect(KEPT, 13.6, mode="zero"),
        planted.effect(BASE, 0.3, metric="kl"),
        planted.effect(KEPT, 0.1, metric="kl"),
    ]
    assert judge(massive_weights=planted.massive(), effects=rows).all("measure_rows")


def test_what_keeping_modules_bought_is_told(judge):
    recipe = "absmax 4 bits row, without layer 11 down, layer 0 down and 3 more"
    rows = [planted.effect("absmax 4 bits row", 28.3), planted.effect(recipe, 25.5)]
    row = judge(effects=rows).one("modules_helped")
    assert (row["value"], row["bound"]) == (25.5, 28.3)
    assert "19%" in row["reason"] and "layer 11 down" in row["reason"]
    rows = [planted.effect("absmax 4 bits row", 28.3), planted.effect(recipe, 28.0)]
    assert "only 2%" in judge(effects=rows).one("modules_idle")["reason"]


def test_no_massive_row(judge):
    row = judge().one("no_rows")
    assert (row["value"], row["bound"]) == (9.0, 100.0)


def test_without_the_table_the_command_is_told(judge):
    assert any("Massive weights were not looked for" in row["reason"] for row in judge(massive_weights=[]).rows)
