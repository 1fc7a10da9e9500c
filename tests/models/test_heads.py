"""Queries, keys and values as attention used them: they give back the observed probabilities, in every family."""

import pytest
import torch

from monadnock.models import attention
from monadnock.models.adapter import Adapter, Source
from monadnock.models.attention import AttentionBlock
from monadnock.models.heads import HeadStates
from monadnock.models.observe import observe
from monadnock.models.rotary import sliding_window
from monadnock.sites import Site, Stream
from tests.models.conftest import probabilities, values
from tests.tiny import tiny_model

BIASED = ("gemma2", "mpt", "mpt-clipped", "falcon-rw")  # a soft cap or ALiBi stands between products and logits


def head_states(adapter: Adapter, ids: torch.Tensor) -> list[HeadStates]:
    seen: dict[int, list] = {layer: [] for layer in range(adapter.num_layers)}
    with observe(adapter, {Site(Stream.HEADS, layer): seen[layer].append for layer in seen}):
        adapter.forward(ids)
    for parts in seen.values():
        assert all(isinstance(part, AttentionBlock) for part in parts[:-1]), "blocks come first"
        assert isinstance(parts[-1], HeadStates)
    return [parts[-1] for parts in seen.values()]


def test_products_give_the_observed_logits(adapter, case, ids):
    for states, probs in zip(head_states(adapter, ids), probabilities(adapter, ids), strict=True):
        assert states.query.shape == (adapter.num_heads, len(ids), adapter.d_head)
        assert states.key.shape == states.value.shape == (adapter.num_kv_heads, len(ids), adapter.d_head)
        key = states.key.repeat_interleave(adapter.num_heads // adapter.num_kv_heads, 0)
        logits = states.scale * states.query @ key.transpose(1, 2)
        unexplained = torch.where(probs > 1e-12, probs.clamp(min=1e-30).log() - logits, torch.nan)
        rest = (unexplained - unexplained.nanmean(-1, keepdim=True)).nan_to_num()  # one number for each query
        assert (float(rest.abs().max()) < 1e-4) is (case not in BIASED)
        seen = (probs > 0).any(0).sum(0)
        assert torch.equal(states.num_queries, seen)


def test_the_window_of_each_layer_is_the_one_that_attention_has(adapter, ids):
    for layer, states in enumerate(head_states(adapter, ids)):
        assert int(states.num_queries.max()) == min(sliding_window(adapter, layer) or len(ids), len(ids))


def test_values_weighted_by_probabilities_are_what_the_output_projection_reads(adapter, ids):
    observed = zip(head_states(adapter, ids), probabilities(adapter, ids), strict=True)
    for layer, (states, probs) in enumerate(observed):
        read = probs @ states.value.repeat_interleave(adapter.num_heads // adapter.num_kv_heads, 0)
        weight, bias = adapter.weight(layer, "o").read(), adapter.bias(layer, "o")
        written = read.transpose(0, 1).flatten(1) @ weight.t() + (0 if bias is None else bias.read())
        output = values(adapter, ids, Stream.ATTN_OUTPUT)[Site(Stream.ATTN_OUTPUT, layer)]
        assert torch.allclose(written, output, atol=1e-4)
        assert states.gate is None


def test_updates_add_up_to_the_residual(adapter, case, ids):
    states = values(adapter, ids, Stream.RESIDUAL, Stream.ATTN_UPDATE, Stream.MLP_UPDATE)
    for layer in range(1, adapter.num_layers):
        parts = [states[Site(stream, layer)] for stream in (Stream.ATTN_UPDATE, Stream.MLP_UPDATE)]
        after = states[Site(Stream.RESIDUAL, layer - 1)] + sum(parts)
        same = torch.allclose(after, states[Site(Stream.RESIDUAL, layer)], atol=1e-4)
        assert same is (case != "opt-350m")  # whose norms stand behind the sums


@pytest.mark.parametrize("elementwise", [True, False])
def test_a_gate_is_seen(elementwise):
    adapter = Adapter(tiny_model("qwen3"), None, Source("mine", "object"))
    ids, heads, width = torch.arange(3, 23), adapter.num_heads, adapter.d_head
    random = torch.Generator().manual_seed(0)
    gate = torch.rand(20, heads, width if elementwise else 1, generator=random)

    def apply(_module, args):
        return (args[0].unflatten(-1, (heads, width)) * gate).flatten(-2)

    plain = head_states(adapter, ids)[1]
    read = probabilities(adapter, ids)[1] @ plain.value.repeat_interleave(heads // adapter.num_kv_heads, 0)
    handle = adapter.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda m, a: (apply(m, a),))
    first, states, _ = head_states(adapter, ids)
    handle.remove()
    expected = (read.transpose(0, 1) * gate).norm(dim=-1) / read.transpose(0, 1).norm(dim=-1)
    assert states.gate is not None and first.gate is None
    assert torch.allclose(states.gate, expected.t(), rtol=1e-4)


def test_nothing_stays_behind(adapter, ids):
    before = adapter.forward(ids, len(ids))
    head_states(adapter, ids)
    with pytest.raises(RuntimeError, match="stop"), observe(adapter, {Site(Stream.HEADS, 0): _stop}):
        adapter.forward(ids)
    assert not attention.passed and not attention.watchers
    assert torch.equal(adapter.forward(ids, len(ids)), before)


def _stop(_seen):
    raise RuntimeError("stop")
