"""Whatever is changed, in whatever family, every bit of the model is back afterwards, also after an exception."""

from contextlib import ExitStack

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock import interventions as change
from tests.interventions.conftest import CASES, IDS, assert_same_bits, bits, expert_of, make

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_made = {}


def adapter_of(case, dtype):
    if (case, dtype) not in _made:
        _made[case, dtype] = make(case, dtype)
    return _made[case, dtype]


@st.composite
def interventions(draw, adapter):
    """Draw one intervention with its arguments."""
    layer = draw(st.integers(0, adapter.num_layers - 1))
    expert = expert_of(adapter)
    rows = draw(
        st.lists(st.integers(0, adapter.intermediate_size - 1), unique=True, max_size=adapter.intermediate_size)
    )
    features = draw(st.lists(st.integers(0, adapter.hidden_size - 1), unique=True, min_size=1, max_size=5))
    kinds = {
        "zero": lambda: change.zero_rows(adapter, layer, rows, expert=expert),
        "retain": lambda: change.retain_rows(adapter, layer, rows, expert=expert),
        "scale": lambda: change.scale_weights(
            adapter, layer, [(f, rows[0] if rows else 0) for f in features], draw(st.floats(-3, 3)), expert=expert
        ),
        "gains": lambda: change.median_gains(
            adapter, features, norms=[name for name in adapter.family.norms if name not in ("query", "key")]
        ),
        "activations": lambda: change.set_activations(adapter, layer, dict.fromkeys(features, 1.5), positions=[0, 7]),
        "mask": lambda: change.mask_keys(adapter, [0, 3], layers=[layer]),
        "prefix": lambda: change.prefix_tokens(adapter, [1, 2]),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]


class Broken(Exception):  # noqa: N818 - not an error of ours
    pass


@pytest.mark.parametrize("case", list(CASES))
@given(data=st.data())
def test_every_bit_comes_back(case, data):
    adapter = adapter_of(case, data.draw(st.sampled_from(DTYPES)))
    before = bits(adapter)
    chosen = data.draw(st.lists(interventions(adapter), min_size=1, max_size=3))
    fails = data.draw(st.booleans())
    with ExitStack() as outer:
        if fails:
            outer.enter_context(pytest.raises(Broken))
        with ExitStack() as stack:
            for make_one in chosen:
                stack.enter_context(make_one())
            adapter.forward(IDS)
            if fails:
                raise Broken
    assert_same_bits(adapter, before)


def test_a_forward_pass_that_breaks_leaves_nothing_behind(adapter):
    before, plain = bits(adapter), adapter.forward(IDS)
    expert = expert_of(adapter)
    with (
        pytest.raises((IndexError, RuntimeError)),
        change.zero_rows(adapter, 1, [0, 1], expert=expert),
        change.set_activations(adapter, 1, {0: 0.0}),
        change.mask_keys(adapter, [0]),
    ):
        adapter.forward(torch.tensor([10**6]))
    assert_same_bits(adapter, before)
    assert torch.equal(adapter.forward(IDS), plain)


def test_blocks_nest_and_each_gives_back_what_it_found(llama):
    before = bits(llama)
    with change.zero_rows(llama, 1, [2, 3]):
        inside = bits(llama)
        with change.retain_rows(llama, 1, [3, 4]), change.zero_rows(llama, 1, [4]):
            assert float(llama.weight(1, "up").read().abs().sum()) == 0
        assert all(torch.equal(value, inside[name]) for name, value in bits(llama).items())
    assert_same_bits(llama, before)


def test_gradients_flow_inside_a_block(llama):
    """An intervention must not switch off what a user trains inside it, and zeroed rows give no gradient."""
    down = llama.layers[1].mlp.down_proj.weight
    with torch.enable_grad(), change.zero_rows(llama, 1, [2, 3]):
        llama.model(input_ids=IDS[None], labels=IDS[None]).loss.backward()
    assert float(down.grad[:, [2, 3]].abs().max()) == 0
    assert float(down.grad.abs().max()) > 0
    llama.model.zero_grad(set_to_none=True)
