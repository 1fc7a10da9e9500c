"""Every table turns rows into a frame of exactly its schema, and says so when it cannot."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.errors import MonadnockError
from monadnock.findings.columns import FLAG, INT, REAL, TEXT
from monadnock.findings.schema import TABLES, table

each_table = pytest.mark.parametrize("known", TABLES.values(), ids=list(TABLES))
VALUES = {
    INT: st.integers(-(2**63), 2**63 - 1),
    REAL: st.floats(width=64),
    TEXT: st.text(st.characters(exclude_categories=["Cs"])),
    FLAG: st.booleans(),
}


@each_table
@pytest.mark.parametrize("rows", [None, [], pl.DataFrame()], ids=["none", "list", "frame"])
def test_no_rows_give_an_empty_frame_of_the_schema(known, rows):
    frame = known.frame(rows)
    assert frame.height == 0
    assert frame.schema == known.polars


@each_table
def test_missing_columns_become_null(known):
    name, dtype, _ = known.columns[-1]
    value = {INT: 3, REAL: 0.5, TEXT: "x", FLAG: True}[dtype]
    frame = known.frame([{name: value}])
    assert frame.schema == known.polars
    assert frame.row(0, named=True) == dict.fromkeys(known.polars) | {name: value}


@each_table
def test_an_unknown_column_is_refused_by_name(known):
    with pytest.raises(ValueError, match=f"table {known.name} has no column .'colour'."):
        known.frame([{"colour": 1}])


@each_table
def test_columns_of_another_type_are_cast_and_brought_into_order(known):
    columns = {name: ["1"] if dtype is TEXT else [1] for name, dtype, _ in reversed(known.columns)}
    frame = known.frame(pl.DataFrame(columns))
    assert frame.schema == known.polars
    assert list(frame.columns) == [name for name, _, _ in known.columns]
    assert frame.row(0) == tuple("1" if dtype is TEXT else 1 for _, dtype, _ in known.columns)


@each_table
def test_a_table_and_its_columns_have_one_line_of_meaning(known):
    names = [name for name, _, _ in known.columns]
    assert len(set(names)) == len(names)
    for text in (known.doc, *(meaning for _, _, meaning in known.columns)):
        assert text.strip()
        assert "\n" not in text


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(pl.exceptions.PolarsError):
        table("heads").frame([{"layer": "three"}])


@given(st.data())
def test_frame_keeps_every_value(data):
    known = data.draw(st.sampled_from(list(TABLES.values())))
    first, *others = [(name, st.none() | VALUES[dtype]) for name, dtype, _ in known.columns]
    row = st.fixed_dictionaries(dict([first]), optional=dict(others))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    frame = known.frame(rows)
    expected = [tuple(row.get(name) for name in known.polars) for row in rows]
    assert frame.schema == known.polars
    assert repr(frame.rows()) == repr(expected)  # repr, so that NaN equals NaN


def test_an_unknown_table_gets_the_nearest_name():
    with pytest.raises(MonadnockError, match="did you mean heads"):
        table("head")
