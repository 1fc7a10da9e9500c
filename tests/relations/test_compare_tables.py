"""What is declared about tables holds: their columns exist, their keys name one row, and no table is forgotten."""

import re
from pathlib import Path

import polars as pl
import pytest

from monadnock.findings import TABLES
from monadnock.findings.manifest import ModelFacts
from monadnock.findings.summary_attacks import averaged
from monadnock.findings.tables_read import READ
from monadnock.relations.compare_tables import BY_NAME, COMPARED, TOLD
from tests.relations.runs import frames
from tests.report.conftest import rows

# They list tokens, texts or positions of one text, or the largest of one run: a row of one run is no row of another.
NOT_COMPARED = {"activations", "attention", "generations", "inputs", "maps", *(table.name for table in READ)}
NOT_COMPARED |= {"sensitivity_lines", "patterns", "prescriptions", "finetuning_steps", "training_steps"}
VALUES = [(spec, value) for spec in COMPARED for value in spec.values]


def test_every_table_is_compared_or_known_not_to_be():
    assert set(BY_NAME) | NOT_COMPARED == set(TABLES)
    assert not set(BY_NAME) & NOT_COMPARED
    assert len(BY_NAME) == len(COMPARED)


@pytest.mark.parametrize("spec", COMPARED, ids=lambda spec: spec.table)
def test_keys_values_and_facts_exist(spec):
    columns = TABLES[spec.table].polars
    if spec.table == "effects":
        columns = averaged(TABLES["effects"].frame(rows("effects"))).rename({"place": "where"}).schema
    assert {*spec.keys, *(value.column for value in spec.values)} <= set(columns)
    assert not set(spec.keys) & {value.column for value in spec.values}
    assert len({value.column for value in spec.values}) == len(spec.values)
    assert set(spec.shape) <= set(ModelFacts.model_fields)
    assert set(spec.words) <= set(spec.keys)
    for value in spec.values:
        numeric = columns[value.column].is_numeric()
        assert {"flag": columns[value.column] == pl.Boolean, "name": columns[value.column] == pl.String}.get(
            value.change, numeric
        ), value
        assert value.change in ("flag", "name", "ratio", "difference")
        assert set(value.per) <= set(spec.keys)
        assert set(value.only) <= set(spec.keys)
        assert not value.size or columns[value.size].is_numeric()


def test_what_is_told_has_a_name_of_its_own():
    told = [value.told for _, value in VALUES if value.told]
    assert len(set(told)) == len(told) == len(TOLD)
    topics = [value.topic for _, value in VALUES if value.topic]
    assert len(set(topics)) == len(topics)
    for _, value in VALUES:
        assert value.told or not value.topic
        assert bool(value.size) == (value.change == "flag" and bool(value.told))


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"effects"}))
def test_keys_name_one_row_of_a_scan(scanned, name):
    if name not in scanned.manifest.tables:
        pytest.skip("no scan fills it")
    assert not scanned.table(name).select(BY_NAME[name].keys).is_duplicated().any()


def test_synthetic_tables_are_not_empty():
    assert [name for name, frame in frames().items() if not frame.height] in ([], ["chain"])


@pytest.mark.parametrize("spec", COMPARED, ids=lambda spec: spec.table)
def test_what_is_joined_is_documented(spec):
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{spec.table}` \| (.*) \| (.*) \|$", page, re.M)
    assert [re.findall(r"`(\w+)`", cell) for cell in row] == [
        list(spec.keys),
        [value.column for value in spec.values],
    ]


def test_what_is_not_joined_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in NOT_COMPARED)
