"""Zeroed rows give x_down = 0, retained ones alone give anything, and random ones are others."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from hypothesis import given
from hypothesis import strategies as st

from monadnock.errors import MonadnockError
from monadnock.interventions import random_rows, retain_rows, zero_rows
from monadnock.models import Adapter, Source, observe
from monadnock.sites import Site, Stream
from tests.interventions.conftest import IDS, expert_of
from tests.tiny import tiny_model

LAYER, ROWS = 1, [5, 0, 17]


def x_down(adapter, layer=LAYER):
    """Return x_down [rows, d_mlp] and the expert of each row."""
    seen = []
    with observe(adapter, {Site(Stream.DOWN_PROJ_INPUT, layer): seen.append}):
        adapter.forward(IDS)
    return seen[0].values.clone(), seen[0].expert


@pytest.mark.parametrize("attack", [zero_rows, retain_rows])
def test_x_down_is_what_the_rows_say(adapter, attack):
    expert = expert_of(adapter)
    clean, experts = x_down(adapter)
    with attack(adapter, LAYER, ROWS, expert=expert):
        found, _ = x_down(adapter)
    hit = torch.ones(len(clean), dtype=torch.bool) if expert is None else experts == expert
    assert hit.any()
    chosen = torch.zeros(clean.shape[1], dtype=torch.bool)
    chosen[ROWS] = True
    gone = chosen if attack is zero_rows else ~chosen
    assert (clean[:, gone] != 0).any()
    if adapter.family.model_type != "gpt_oss":  # which adds 1 to up after its bias: (0 + 1) * gate(0) is 0 all the same
        assert (found[hit][:, gone] == 0).all()
    torch.testing.assert_close(found[hit][:, ~gone], clean[hit][:, ~gone])
    torch.testing.assert_close(found[~hit], clean[~hit])


def test_retaining_every_row_and_zeroing_none_change_nothing(adapter):
    plain, expert = adapter.forward(IDS), expert_of(adapter)
    with zero_rows(adapter, LAYER, [], expert=expert):
        assert torch.equal(adapter.forward(IDS), plain)
    with retain_rows(adapter, LAYER, range(adapter.intermediate_size), expert=expert):
        assert torch.equal(adapter.forward(IDS), plain)
    with zero_rows(adapter, LAYER, range(adapter.intermediate_size), expert=expert):
        nothing = adapter.forward(IDS)
    with retain_rows(adapter, LAYER, [], expert=expert):
        assert torch.equal(adapter.forward(IDS), nothing)
    assert not torch.equal(nothing, plain)


@given(width=st.integers(1, 60), data=st.data())
def test_random_rows_are_different_rows_besides_those_named(width, data):
    besides = data.draw(st.lists(st.integers(0, width - 1), unique=True))
    k = data.draw(st.integers(0, width - len(besides)))
    drawn = random_rows(width, k, seed=data.draw(st.integers(0, 9)), besides=besides)
    assert len(set(drawn)) == k
    assert set(drawn) <= set(range(width)) - set(besides)


def test_the_seed_chooses_the_rows():
    assert random_rows(1000, 5, seed=1) == random_rows(1000, 5, seed=1) != random_rows(1000, 5, seed=2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((9, [0]), "Layer 9 was asked, but llama has the layers 0 to 2"),
        ((-1, [0]), "Layer -1 was asked"),
        ((0, [48]), "Row 48 was asked, but llama has 48: 0 to 47"),
        ((0, [1, 2, 1]), "Row 1 was asked twice"),
    ],
)
def test_what_does_not_exist_is_told(llama, arguments, told):
    with pytest.raises(MonadnockError, match=told), zero_rows(llama, *arguments):
        pass


def test_experts_are_named_where_there_are_some(llama):
    mixtral = Adapter(tiny_model("mixtral"), None, Source("mixtral", "object"))
    for adapter, expert, told in (
        (llama, 0, "llama is dense and has no experts"),
        (mixtral, None, "say which one is meant"),
        (mixtral, 99, "has the experts 0 to"),
    ):
        with pytest.raises(MonadnockError, match=told), zero_rows(adapter, 0, [0], expert=expert):
            pass
    with pytest.raises(MonadnockError, match="only 3 of 5 are left"):
        random_rows(5, 4, besides=[0, 1])


@pytest.mark.parametrize("model_type", ["llama", "phi3", "mixtral"])
def test_weights_that_accelerate_moves(model_type, tmp_path):
    """On the CPU they are the model's own; on disk they cannot be changed, which is told."""
    plain = Adapter(tiny_model(model_type), None, Source(model_type, "object"))
    expert = expert_of(plain)
    with zero_rows(plain, LAYER, ROWS, expert=expert):
        expected = plain.forward(IDS)
    moved = tiny_model(model_type)
    cpu_offload(moved, torch.device("cpu"))
    adapter = Adapter(moved, None, Source(model_type, "object"))
    clean = adapter.forward(IDS)
    with zero_rows(adapter, LAYER, ROWS, expert=expert):
        assert torch.equal(adapter.forward(IDS), expected)
    assert torch.equal(adapter.forward(IDS), clean)
    on_disk = tiny_model(model_type)
    disk_offload(on_disk, str(tmp_path), torch.device("cpu"))
    adapter = Adapter(on_disk, None, Source(model_type, "object"))
    with pytest.raises(MonadnockError, match="kept on disk"), zero_rows(adapter, LAYER, ROWS, expert=expert):
        pass
