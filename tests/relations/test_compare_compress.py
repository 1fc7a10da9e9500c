"""Sensitivities and compressed matrices of several runs meet, also where expert and group are null."""

import pytest

from monadnock import MonadnockError, compare
from monadnock.findings import table
from tests.relations.runs import write

PLACE = {"layer": 11, "module": "down", "kind": "plain", "bits": 3, "data": "topics"}
METHOD = {"method": "rtn 4 bits row", "layer": 0, "module": "q"}


def runs(tmp_path, name, first, other):
    """Return the comparison of two runs with one table each."""
    made = [write(tmp_path / run, {name: table(name).frame(rows)}) for run, rows in (("x", first), ("y", other))]
    return compare(*made)


def test_sensitivities_meet_on_null_keys_and_on_nothing_else(tmp_path):
    first = [PLACE | {"relative": 0.1, "top_1e3": 0.5}, PLACE | {"group": 16, "relative": 0.2, "top_1e3": 0.1}]
    other = [PLACE | {"relative": 0.3, "top_1e3": 0.9}, PLACE | {"expert": 0, "group": 16, "relative": 0.4}]
    found = runs(tmp_path, "sensitivity", first, other)
    frame = found.table("sensitivity", "relative")
    assert frame.select("expert", "group", "x", "y").rows() == [
        (0, 16, None, 0.4), (None, 16, 0.2, None), (None, None, 0.1, 0.3),
    ]  # fmt: skip
    assert frame["y / x"].to_list() == [None, None, pytest.approx(3.0)]
    assert found.table("sensitivity", "top_1e3")["y - x"].drop_nulls().to_list() == [pytest.approx(0.4)]
    assert found.tables().rows() == [("y", "sensitivity", 1, 1, 1, 1)]


def test_compressed_matrices_meet_by_method(tmp_path):
    first = [METHOD | {"average_bits": 4.0, "weight_error": 0.1}, METHOD | {"method": "spqr", "output_error": 0.02}]
    other = [METHOD | {"average_bits": 4.5, "weight_error": 0.2}, METHOD | {"method": "spqr", "output_error": 0.01}]
    found = runs(tmp_path, "compressions", first, other)
    assert found.table("compressions", "average_bits")["y - x"].to_list() == [0.5, None]
    assert found.table("compressions", "weight_error")["y / x"].to_list() == [2.0, None]
    assert found.table("compressions", "output_error")["y / x"].to_list() == [None, 0.5]


@pytest.mark.parametrize("name", ["sensitivity_lines", "patterns", "prescriptions"])
def test_what_stands_out_in_one_run_is_not_joined(tmp_path, name):
    with pytest.raises(MonadnockError, match="as it lists what stands out in its own run"):
        runs(tmp_path, name, [], []).table(name, "share")


def test_runs_of_compressors_alone_have_no_attacks_in_common(tmp_path):
    row = {"mode": "compress", "metric": "perplexity", "data": "topics", "value": 13.0, "baseline": 12.0, "method": "a"}
    found = runs(tmp_path, "effects", [row], [row | {"value": 14.0}])
    assert found.table("effects", "value").height == 0
    page = found.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="attacks"' not in page
