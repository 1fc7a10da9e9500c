"""Going on from kept outputs gives the same as running every layer, and the skipped layers do not run."""

import pytest
import torch

from monadnock.interventions import set_activations, zero_rows
from monadnock.models.replay import capture, replay


def test_replayed_layers_give_the_same_logits_and_do_not_run(adapter, ids):
    plain = adapter.forward(ids, keep=len(ids))
    outputs = capture(adapter, ids, range(adapter.num_layers))
    for layer in range(-1, adapter.num_layers):
        ran = []
        handles = [
            adapter.module(each, adapter.family.attention_module).register_forward_hook(
                lambda *_, each=each, ran=ran: ran.append(each)
            )
            for each in range(adapter.num_layers)
        ]
        with replay(adapter, layer, outputs.get(layer)):
            found = adapter.forward(ids, keep=len(ids))
        for handle in handles:
            handle.remove()
        assert ran == list(range(layer + 1, adapter.num_layers))
        assert torch.equal(found, plain)
    assert not any("forward" in vars(module) for module in adapter.layers)


def test_an_attack_behind_replayed_layers_is_the_whole_attack(adapter, ids):
    expert = None if adapter.num_experts is None else 0
    clean = capture(adapter, ids, [0])
    for make in (
        lambda: zero_rows(adapter, 1, [1, 2, 3], expert=expert),
        lambda: set_activations(adapter, 0, {4: 3.0}),
    ):
        with make():
            whole = adapter.forward(ids, keep=len(ids))
        with make(), replay(adapter, 0, clean[0]):
            assert torch.equal(adapter.forward(ids, keep=len(ids)), whole)


def test_replays_nest(adapter, ids):
    """The inner one is in force, the outer one is again afterwards."""
    outputs = capture(adapter, ids, [0, 1])
    other = capture(adapter, ids.flip(0), [1])[1]
    with replay(adapter, 0, outputs[0]):
        first = adapter.forward(ids)
        with replay(adapter, 1, other):
            assert not torch.equal(adapter.forward(ids), first)
        assert torch.equal(adapter.forward(ids), first)


def test_everything_is_as_before_after_an_exception(adapter, ids):
    output = capture(adapter, ids, [1])[1]
    with pytest.raises(ZeroDivisionError), replay(adapter, 1, output):
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in adapter.layers)
