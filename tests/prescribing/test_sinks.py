"""How many first tokens are kept: fixed early sinks count, moving and later ones are told, massive tokens are added."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.prescribing.bounds import SINK_PREFIX
from monadnock.prescribing.prescription import Findings
from monadnock.prescribing.sinks import sinks
from tests.prescribing import planted
from tests.report.conftest import manifest


def test_a_sink_on_the_first_token_keeps_one_token(judge):
    row = judge(heads=planted.heads([0, 0, 0])).one("keep_sinks")
    assert (row["amount"], row["value"], row["bound"]) == (1, 3, 3)
    assert "the first token:" in row["reason"] and "no fixed prefix" not in row["reason"]
    assert "a BOS in front" in row["reason"]


def test_the_last_early_position_counts_and_what_no_prefix_holds_is_told(judge):
    row = judge(heads=planted.heads([0, 3, None, None, SINK_PREFIX])).one("keep_sinks")
    assert (row["amount"], row["value"], row["bound"]) == (4, 2, 5)
    assert "positions 0, 3" in row["reason"]
    assert "2 on positions that change" in row["reason"] and "1 on later positions" in row["reason"]


@pytest.mark.parametrize(
    ("positions", "windows", "amount"),
    [([2], 4, 3), ([2], 3, 3), ([2], 2, 1), ([SINK_PREFIX], 4, 1)],
)
def test_early_positions_that_are_massive_in_most_windows_are_kept_too(judge, positions, windows, amount):
    told = judge(heads=planted.heads([0]), activations=planted.entries(positions, windows))
    assert told.one("keep_sinks")["amount"] == amount


def test_entries_that_meet_no_criterion_and_other_streams_do_not_count(judge):
    rows = planted.entries([2], criterion=None) + planted.entries([3], stream="down_proj_input")
    assert judge(heads=planted.heads([0]), activations=rows).one("keep_sinks")["amount"] == 1


def test_sinks_that_move_cannot_be_kept_by_a_prefix(judge):
    row = judge(heads=planted.heads([None, 90])).one("no_sinks")
    assert (row["amount"], row["value"], row["bound"]) == (None, 0, 2)
    assert "No fixed prefix would hold a sink" in row["reason"]


def test_no_sink_at_all(judge):
    row = judge().one("no_sinks")
    assert (row["value"], row["bound"]) == (0.2, 0.3)


def test_one_window_and_no_bos_are_told(judge):
    row = judge(heads=planted.heads([0]), about={"num_windows": 1, "bos": False}).one("keep_sinks")
    assert "Only one window" in row["reason"] and "no BOS in front" in row["reason"]


def test_without_heads_the_command_is_told(judge):
    told = judge(heads=[])
    assert any("monadnock scan tiny" in row["reason"] for row in told.all("not_judged"))


@given(st.lists(st.none() | st.integers(0, 200), min_size=1, max_size=12))
def test_the_prefix_holds_every_early_fixed_sink_and_is_never_longer(positions):
    tables = {"heads": schema.table("heads").frame(planted.heads(positions))}
    (row,) = sinks(Findings(tables, manifest(), 4, "row"))
    early = [at for at in positions if at is not None and at < SINK_PREFIX]
    assert row.amount == (max(early) + 1 if early else None)
    assert row.value == len(early)
