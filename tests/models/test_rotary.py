"""Rotary angles against transformers' own, for every way of scaling them, and turning against its own code."""

import math

import pytest
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from monadnock.models.adapter import Adapter, Source
from monadnock.models.rotary import Turn, make_turn, sliding_window, training_context, watch_turns
from tests.tiny import tiny_model

IDS = torch.arange(3, 43)
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 3.0, 4.0]}
SCALED: dict[str, dict] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {"rope_type": "longrope", "factor": 8.0, "original_max_position_embeddings": 32, **FACTORS},
}


def adapter_of(model_type: str, **changes) -> Adapter:
    return Adapter(tiny_model(model_type, **changes), None, Source("mine", "object"))


def turns_of(adapter: Adapter, ids: torch.Tensor = IDS) -> list[Turn]:
    found: dict[int, Turn] = {}
    with watch_turns(adapter, found.__setitem__, iter(range(adapter.num_layers))):
        adapter.forward(ids)
    return [found[layer] for layer in range(adapter.num_layers)]


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_theta_is_what_transformers_initialises(kind, dtype):
    parameters = SCALED[kind] | {"rope_theta": 10000.0}
    adapter = adapter_of("llama", rope_parameters=parameters, max_position_embeddings=64, head_dim=8)
    for parameter in adapter.model.parameters():  # as checkpoints load: buffers, the angles among them, stay float32
        parameter.data = parameter.data.to(dtype)
    if kind == "default":
        expected, factor = 10000.0 ** (-torch.arange(0, 8, 2) / 8), 1.0
    else:
        expected, factor = ROPE_INIT_FUNCTIONS[kind](adapter.config, "cpu", seq_len=len(IDS))
    for turn in turns_of(adapter):
        assert turn.theta.numpy() == pytest.approx(expected.numpy(), rel=1e-6)
        strength = (turn.cos.float() ** 2 + turn.sin.float() ** 2).sqrt()
        assert strength.numpy() == pytest.approx(factor, rel=1e-2 if dtype is torch.bfloat16 else 1e-6)


def test_dynamic_scaling_beyond_the_context_is_that_of_the_window():
    parameters = SCALED["dynamic"] | {"rope_theta": 10000.0}
    adapter = adapter_of("llama", rope_parameters=parameters, max_position_embeddings=32)
    short, ids = turns_of(adapter, IDS[:20])[0], torch.arange(3, 103)
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](adapter.config, "cpu", seq_len=len(ids))
    long = turns_of(adapter, ids)[0]
    assert long.theta.numpy() == pytest.approx(expected.numpy(), rel=1e-6)
    assert long.theta[1] < short.theta[1] == pytest.approx(0.1)


def test_each_kind_of_layer_has_its_own_angles():
    adapter = adapter_of("gemma3_text")
    rotary = adapter.decoder.rotary_emb
    sliding, full, _ = turns_of(adapter)
    assert sliding.theta.numpy() == pytest.approx(rotary.sliding_attention_inv_freq.numpy(), rel=1e-6)
    assert full.theta.numpy() == pytest.approx(rotary.full_attention_inv_freq.numpy(), rel=1e-6)
    assert full.theta[-1] < sliding.theta[-1] / 10
    assert [training_context(adapter, layer) for layer in range(3)] == [8, 256, 8]


@pytest.mark.parametrize(
    ("model_type", "features", "dims"),
    [
        ("llama", 4, (0, 4)),
        ("phi", 2, (0, 2)),
        ("gpt_neox", 2, (0, 2)),
        ("gpt_oss", 8, (0, 8)),
        ("falcon", 4, (0, 4)),
        ("cohere", 4, (0, 1)),
    ],
)
def test_pairs_of_halves_partial_and_given_once(model_type, features, dims):
    turn = turns_of(adapter_of(model_type))[1]
    assert (len(turn.theta), int(turn.first[0]), int(turn.second[0])) == (features, *dims)
    assert turn.theta[0] == pytest.approx(1.0)


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "mpt"])
def test_without_rotary_nothing_turns(model_type):
    assert turns_of(adapter_of(model_type)) == [None] * 3


@pytest.mark.parametrize("interleaved", [False, True])
def test_turning_is_complex_multiplication(interleaved):
    theta, size, width = torch.tensor([1.0, 0.1, 0.01]), 9, 8  # two dimensions stay as they are
    angles = torch.arange(size)[:, None] * theta
    layout = angles.repeat_interleave(2, 1) if interleaved else torch.cat([angles, angles], 1)
    given = layout.cos()[None], layout.sin()[None]
    turn = make_turn(given, given, interleaved=interleaved)
    assert turn is not None
    assert turn.theta.numpy() == pytest.approx(theta.numpy(), rel=1e-6)
    states = torch.randn(2, size, width, generator=torch.Generator().manual_seed(0))
    a, b = turn.pairs(states)
    expected = torch.complex(a, b) * torch.polar(torch.ones_like(angles), angles)
    turned_a, turned_b = turn.pairs(turn.turned(states))
    assert torch.allclose(torch.complex(turned_a, turned_b), expected, atol=1e-6)
    assert torch.equal(turn.turned(states)[..., 6:], states[..., 6:])
    places = [int(place) for pair in zip(turn.first, turn.second, strict=True) for place in pair]
    assert places == ([0, 1, 2, 3, 4, 5] if interleaved else [0, 3, 1, 4, 2, 5])


def test_one_token_has_no_angles():
    assert turns_of(adapter_of("llama"), IDS[:1]) == [None] * 3


def test_contexts():
    assert training_context(adapter_of("llama"), 0) == 256
    assert training_context(adapter_of("gpt_oss"), 0) == 8  # the window, of layers that slide
    assert training_context(adapter_of("gpt_oss"), 1) == 64  # what yarn starts from
    scaled = {"rope_parameters": SCALED["llama3"] | {"rope_theta": 1e4}, "max_position_embeddings": 256}
    assert training_context(adapter_of("llama", **scaled), 0) == 32
    assert sliding_window(adapter_of("mistral"), 0) == 8
    assert sliding_window(adapter_of("llama"), 0) is None


def test_hooks_are_gone_afterwards():
    adapter = adapter_of("llama")
    turns_of(adapter)
    assert not adapter.decoder._forward_pre_hooks and not adapter.decoder.rotary_emb._forward_hooks
    assert all(not layer.self_attn._forward_pre_hooks for layer in adapter.layers)
    assert math.isfinite(float(adapter.forward(IDS).sum()))
