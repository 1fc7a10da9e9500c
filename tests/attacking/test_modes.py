"""The modes that mask keys, set activations and draw controls: what they change, where, and that a seed decides it."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from monadnock import MonadnockError
from monadnock.attacking import MODES, Setting
from monadnock.attacking.targets import Aim, Targets
from monadnock.data import token_windows
from monadnock.findings.modes import CONTROLS
from monadnock.models import observe
from monadnock.sites import Site, Stream
from tests.attacking.conftest import LAYER, LENGTH, ROWS, SIZES, TOKENIZER, assert_unchanged, states

ENTRIES = tuple((3, row) for row in ROWS)
DRAWN = sorted(set(CONTROLS.values()) - {"gain-random"})


@pytest.fixture(scope="module")
def setting(llama, text):
    windows = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=SIZES["tokens"])
    targets = Targets((Aim(LAYER, None, tuple(ROWS)),), ENTRIES, (3, 5), start_token=1)
    return Setting(llama, targets, windows, k=2, seed=0)


def numbers(change):
    return [int(part) for part in change.targets.partition(": ")[2].replace(",", " ").split()]


def seen(setting, change, stream, layer):
    """Return what a change makes of the first window at a site."""
    kept = []
    with ExitStack() as stack:
        if change is not None:
            stack.enter_context(change.enter())
        stack.enter_context(observe(setting.adapter, {Site(stream, layer): lambda batch: kept.append(batch)}))
        setting.adapter.forward(setting.windows.ids[0])
    return kept


@pytest.mark.parametrize("mode", DRAWN)
def test_a_control_is_decided_by_its_seed_and_never_draws_a_target(setting, mode):
    target = next(name for name, control in CONTROLS.items() if control == mode)
    assert MODES[mode].drawn and not MODES[target].drawn
    chosen = MODES[target].make(setting)
    for seed in range(20):
        drawn = MODES[mode].make(replace(setting, seed=seed))
        assert drawn.targets == MODES[mode].make(replace(setting, seed=seed)).targets
        assert drawn.targets.partition(":")[0] == chosen.targets.partition(":")[0]
        assert drawn.untouched == chosen.untouched
        if mode == "super-random":
            pairs = list(zip(numbers(drawn)[::2], numbers(drawn)[1::2], strict=True))
            assert len(set(pairs)) == 2 and not set(pairs) & set(ENTRIES)
        else:
            assert len(set(numbers(drawn))) == 2 and not set(numbers(drawn)) & set(numbers(chosen))
    others = {MODES[mode].make(replace(setting, seed=seed)).targets for seed in range(20)}
    assert len(others) > 10


def test_random_entries_come_from_the_whole_matrix(setting):
    adapter = setting.adapter
    found = numbers(MODES["super-random"].make(replace(setting, k=400)))
    assert set(found[::2]) == set(range(adapter.hidden_size))
    assert set(found[1::2]) == set(range(adapter.intermediate_size))
    with pytest.raises(MonadnockError, match="2048 random entries were asked, but W_down of layer 1 has 2048"):
        MODES["super-random"].make(replace(setting, k=2048))


def test_random_entries_are_zeroed_and_come_back(setting):
    before, change = states(setting.adapter), MODES["super-random"].make(setting)
    rows, columns = numbers(change)[::2], numbers(change)[1::2]
    with change.enter():
        down = setting.adapter.weight(LAYER, "down").read()
        assert (down[rows, columns] == 0).all()
        assert (down == 0).sum() == (before["model.layers.1.mlp.down_proj.weight"] == 0).sum() + 2
    assert_unchanged(setting.adapter, before)


@pytest.mark.parametrize(("mode", "layers"), [("activation-zero", [LAYER]), ("activation-all", range(4))])
def test_activations_are_zero_where_the_mode_says(setting, mode, layers):
    change = MODES[mode].make(setting)
    for layer in range(4):
        (batch,) = seen(setting, change, Stream.RESIDUAL, layer)
        others = [f for f in range(32) if f not in (3, 5)]
        zeros = (batch.values[:, [3, 5]] == 0).nonzero().tolist()
        assert zeros == ([[0, 0], [0, 1]] if layer in layers else [])
        assert (batch.values[0, others] == 0).sum() <= 1  # a reserved feature of the planted model


@pytest.mark.parametrize(("mode", "first"), [("mask", 0), ("mask-behind", LAYER + 1)])
@pytest.mark.parametrize("drawn", [False, True])
def test_keys_are_masked_in_the_layers_that_the_mode_says(setting, mode, first, drawn):
    change = MODES[CONTROLS[mode] if drawn else mode].make(setting)
    keys = torch.tensor(numbers(change))
    assert (keys < setting.k).all() if not drawn else (keys >= setting.k).all()
    for layer in range(4):
        probs = torch.zeros(4, LENGTH, LENGTH)
        for block in seen(setting, change, Stream.ATTN_PROBS, layer):
            probs[:, block.first_query : block.first_query + block.probs.shape[1]] = block.probs
        below = torch.ones(LENGTH, LENGTH).tril(-1).bool()[:, keys]  # later queries
        masked = probs[:, :, keys][:, below]
        assert (masked == 0).all() if layer >= first else (masked > 0).all()


def test_layers_below_the_masked_ones_are_left_alone(setting):
    change = MODES["mask-behind"].make(setting)
    assert change.untouched == LAYER + 1
    for layer in range(4):
        (clean,), (masked,) = (seen(setting, each, Stream.RESIDUAL, layer) for each in (None, change))
        assert torch.equal(clean.values, masked.values) == (layer <= LAYER)


def test_nothing_lies_behind_the_last_layer(setting):
    last = replace(setting, targets=replace(setting.targets, aims=(Aim(3, None, ()),)))
    with pytest.raises(MonadnockError, match="No layer of llama lies behind layer 3"):
        MODES["mask-behind"].make(last)
