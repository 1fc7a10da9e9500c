"""What is seen of one input, against the model's own eager attention and hidden states."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.models import Adapter, Source
from monadnock.studying.observing import map_rows, observe_input, uniform
from tests.models.conftest import eager
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import word_tokenizer

FAMILIES = [
    "llama",
    "gpt2",
    "gemma3_text",
    "mixtral",
    "gpt_oss",
    "mpt",
]  # sliding windows, experts, learned sinks, ALiBi
SIZE = 20


@pytest.fixture(scope="module", params=FAMILIES)
def adapter(request):
    return Adapter(tiny_model(request.param), word_tokenizer(), Source(request.param, "object"))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, 100, (SIZE,), generator=torch.Generator().manual_seed(3))


def own(adapter, ids):
    """Return the model's own probabilities [layer][head, query, key] and states behind each layer but the last."""
    with eager(adapter), torch.inference_mode():
        told = adapter.model(ids[None], output_attentions=True, output_hidden_states=True, use_cache=False)
    return [layer[0] for layer in told.attentions], [states[0] for states in told.hidden_states[1:-1]]


def seen_by(adapter, layer):
    """Return which queries see which keys, [query, key], as the config says."""
    causal = torch.ones(SIZE, SIZE).tril().bool()
    kinds = getattr(adapter.config, "layer_types", None)
    window = getattr(adapter.config, "sliding_window", None)
    if window and (kinds is None or kinds[layer] == "sliding_attention"):
        return causal & ~torch.ones(SIZE, SIZE).tril(-window).bool()
    return causal


def test_attention_is_what_eager_attention_gives(adapter, ids):
    wanted = [(layer, head) for layer in range(adapter.num_layers) for head in (None, 0, 3)]
    before = state(adapter.model)
    seen = observe_input(adapter, ids, torch.ones(adapter.num_layers), wanted)
    assert_untouched(adapter.model, before)
    probs, _ = own(adapter, ids)
    assert list(seen.maps) == wanted
    for layer, expected in enumerate(probs):
        torch.testing.assert_close(seen.maps[layer, None], expected.mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(seen.maps[layer, 3], expected[3], rtol=1e-4, atol=1e-6)
        visible = seen_by(adapter, layer)
        counts = visible.sum(0)
        alpha = expected.double().sum(1) / counts
        rows = [row for row in seen.rows if row["layer"] == layer]
        assert [row["attention"] for row in rows] == pytest.approx(alpha.mean(0).tolist(), rel=1e-4, abs=1e-7)
        sinks = (alpha > 0.3) & (counts >= 0.25 * counts.max())
        assert [row["num_sink_heads"] for row in rows] == sinks.sum(0).tolist()
        flat = visible.double() / visible.sum(1, keepdim=True)
        assert [row["uniform"] for row in rows] == pytest.approx((flat.sum(0) / counts).tolist())


def test_some_head_has_a_sink_and_some_key_is_none(ids):
    """Else the comparison above would hold for nothing."""
    adapter = Adapter(tiny_model("llama"), word_tokenizer(), Source("llama", "object"))
    counts = {row["num_sink_heads"] for row in observe_input(adapter, ids, torch.ones(3)).rows}
    assert 0 in counts and max(counts) > 0


def test_states_are_what_the_model_gives(adapter, ids):
    median = torch.linspace(0.5, 1.0, adapter.num_layers, dtype=torch.float64)
    seen = observe_input(adapter, ids, median)
    _, states = own(adapter, ids)
    for layer, expected in enumerate(states):
        rows = [row for row in seen.rows if row["layer"] == layer]
        assert [row["position"] for row in rows] == list(range(SIZE))
        top = expected.abs().max(1)
        assert [row["top1"] for row in rows] == pytest.approx(top.values.tolist(), rel=1e-4)
        assert [row["feature"] for row in rows] == top.indices.tolist()
        assert [row["ratio"] for row in rows] == pytest.approx((top.values / median[layer]).tolist(), rel=1e-4)
        assert [row["rms"] for row in rows] == pytest.approx(expected.square().mean(1).sqrt().tolist(), rel=1e-4)
    assert seen.maps == {}


def test_massive_needs_both_bounds(ids):
    adapter = Adapter(tiny_model("llama"), word_tokenizer(), Source("llama", "object"))
    with torch.no_grad():
        adapter.weight(1, "down").read().mul_(1000)
    for median, found in ((1e-3, True), (1e3, False)):
        rows = observe_input(adapter, ids, torch.full((3,), median, dtype=torch.float64)).rows
        assert any(row["massive"] for row in rows if row["layer"] == 1) == found
        assert not any(row["massive"] for row in rows if row["top1"] <= 100)
        assert all(row["massive"] for row in rows if row["top1"] > 100) == found


def test_tokens_are_told_with_their_class():
    adapter = Adapter(tiny_model("llama"), word_tokenizer(), Source("llama", "object"))
    rows = observe_input(adapter, torch.tensor([4, 1, 5]), torch.ones(3)).rows[:3]
    assert [(row["token_id"], row["token"], row["token_class"]) for row in rows] == [
        (4, "w1", "start"), (1, "<s>", "start"), (5, "w2", "other")
    ]  # fmt: skip


@given(st.integers(1, 40), st.integers(1, 50))
def test_uniform_attention_in_any_window(size, width):
    visible = torch.ones(size, size).tril() - torch.ones(size, size).tril(-width)
    counts = visible.sum(0)
    expected = (visible.double() / visible.sum(1, keepdim=True)).sum(0) / counts
    torch.testing.assert_close(uniform(counts.long()), expected)


def test_rows_of_a_map_are_the_keys_up_to_the_query():
    mass = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert map_rows(mass) == [
        {"query": 0, "key": 0, "mass": 1.0},
        {"query": 1, "key": 0, "mass": 0.25},
        {"query": 1, "key": 1, "mass": 0.75},
    ]
