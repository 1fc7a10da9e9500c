"""What every family has to keep: watching changes nothing, and what is seen is what the model computed."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from monadnock.errors import MonadnockError
from monadnock.models import attention, experts
from monadnock.models.adapter import Adapter
from monadnock.models.family import families
from monadnock.models.observe import States, observe
from monadnock.sites import Site, Stream
from tests.models.conftest import LENGTH, eager, heads, probabilities, record, sites, values
from tests.tiny import tiny_config


def close(actual: Tensor, expected: Tensor, share: float = 1e-5) -> None:
    """Compare up to rounding: a share of the largest expected value."""
    torch.testing.assert_close(actual, expected, rtol=share, atol=share * float(expected.abs().max()))


def linear(x: Tensor, adapter: Adapter, layer: int, role: str, expert: int | None = None) -> Tensor:
    bias = adapter.bias(layer, role, expert)
    return F.linear(x, adapter.weight(layer, role, expert).read(), None if bias is None else bias.read())


def activation(adapter: Adapter):
    names = ("hidden_act", "hidden_activation", "activation_function", "activation")
    return ACT2FN[next((getattr(adapter.config, name) for name in names if hasattr(adapter.config, name)), "gelu")]


def test_logits_under_observation_of_everything(adapter, ids):
    plain = adapter.forward(ids, LENGTH)
    seen, observed = record(adapter, ids)
    close(observed, plain)
    assert all(seen.values()), "a watcher saw nothing"
    if adapter.family.attention == "interface":
        assert len(seen[Site(Stream.ATTN_PROBS, 0)]) == math.ceil(LENGTH / 16)


def own_probabilities(adapter: Adapter, ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return the model's own probabilities of every layer, [head, query, key]."""
    if adapter.family.alibi_in_mask:  # eager Falcon adds ALiBi twice, but says what its default attention is given
        given = []

        def sdpa(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, **_) -> Tensor:
            given.append((query @ key.mT / math.sqrt(query.shape[-1]) + attn_mask).softmax(-1)[0])
            return given[-1][None] @ value

        monkeypatch.setattr(F, "scaled_dot_product_attention", sdpa)
        assert adapter.config._attn_implementation == "sdpa"
        adapter.forward(ids)
        return given
    with eager(adapter), torch.inference_mode():
        return [layer[0] for layer in adapter.model(ids[None], output_attentions=True, use_cache=False).attentions]


def test_probabilities_are_the_models_own(adapter, ids, monkeypatch):
    observed = probabilities(adapter, ids)
    expected = own_probabilities(adapter, ids, monkeypatch)
    assert len(expected) == adapter.num_layers
    for ours, own in zip(observed, expected, strict=True):
        close(ours, own)
        sums = ours.sum(-1)
        if adapter.family.model_type == "gpt_oss":  # the learned sinks take the rest
            assert sums.max() <= 1 and sums.mean() < 0.99
        else:
            close(sums, torch.ones_like(sums))


def window(adapter: Adapter, layer: int) -> int:
    """How many tokens a query sees, itself included, as the config says."""
    kinds = getattr(adapter.config, "layer_types", None)
    slides = kinds is None or kinds[layer] == "sliding_attention"
    return (getattr(adapter.config, "sliding_window", None) or LENGTH) if slides else LENGTH


def test_number_of_queries_of_each_key(adapter, ids):
    seen, _ = record(adapter, ids, Stream.ATTN_PROBS)
    whole = probabilities(adapter, ids)
    for layer in range(adapter.num_layers):
        blocks = seen[Site(Stream.ATTN_PROBS, layer)]
        expected = [min(window(adapter, layer), LENGTH - key) for key in range(LENGTH)]
        assert all(block.num_queries.tolist() == expected for block in blocks)
        assert (whole[layer] > 0).any(0).sum(0).tolist() == expected
        if window(adapter, layer) == 8:
            assert max(block.first_key for block in blocks) > 0, "keys outside the window are not cut away"


def test_some_families_slide_and_mix():
    kinds = {name: set(getattr(tiny_config(name), "layer_types", None) or []) for name in families()}
    mixed = {name for name, kind in kinds.items() if len(kind) == 2}
    assert mixed == {"qwen2", "qwen3", "gemma2", "gemma3_text", "gpt_oss"}


def test_residual_is_the_hidden_state(adapter, ids):
    residual = values(adapter, ids, Stream.RESIDUAL)
    with torch.inference_mode():
        hidden = adapter.model(ids[None], output_hidden_states=True, use_cache=False, return_dict=True).hidden_states
    for layer in range(adapter.num_layers - 1):
        close(residual[Site(Stream.RESIDUAL, layer)], hidden[layer + 1][0])
    norm = adapter.norm(None, "final")
    if norm is not None and not getattr(adapter.decoder, "project_out", None):
        close(norm(residual[Site(Stream.RESIDUAL, adapter.num_layers - 1)]), hidden[-1][0])


def test_projections_follow_from_their_inputs(adapter, ids):
    roles = {Stream.QUERY: "q", Stream.KEY: "k", Stream.VALUE: "v"}
    seen = values(adapter, ids, Stream.ATTN_INPUT, *roles)
    for layer in range(adapter.num_layers):
        for stream, role in roles.items():
            expected = linear(seen[Site(Stream.ATTN_INPUT, layer)], adapter, layer, role)
            close(seen[Site(stream, layer)], expected)


def test_attention_output_follows_from_probabilities_and_values(adapter, ids):
    seen = values(adapter, ids, Stream.VALUE, Stream.ATTN_OUTPUT)
    clip = adapter.config.attn_config.clip_qkv if adapter.family.model_type == "mpt" else None
    for layer, probs in enumerate(probabilities(adapter, ids)):
        value = seen[Site(Stream.VALUE, layer)]
        mixed = probs @ heads(value if clip is None else value.clamp(-clip, clip), adapter)  # [head, row, d_head]
        expected = linear(mixed.transpose(0, 1).flatten(1), adapter, layer, "o")
        close(seen[Site(Stream.ATTN_OUTPUT, layer)], expected)


def test_fused_queries_and_keys_are_the_ones_compared(adapter, ids, monkeypatch):
    """At position 0 rotary turns nothing, so that the query and key that attention gets are the projections."""
    if "#" not in adapter.family.q:
        pytest.skip("q and k are modules of their own")
    given: list[tuple[Tensor, Tensor]] = []
    real = attention.observed_attention
    if adapter.family.attention == "interface":

        def spy(module, query, key, *args, **kwargs):
            given.append((query[0], key[0]))
            return real(module, query, key, *args, **kwargs)

        monkeypatch.setattr(attention, "observed_attention", spy)
    else:
        multiply = torch.matmul

        def spy_on_scores(left: Tensor, right: Tensor) -> Tensor:
            if left.dim() == 4 and left.shape[-1] == adapter.d_head:
                given.append((left[0], right[0].mT))
            return multiply(left, right)

        monkeypatch.setattr(Tensor, "__matmul__", spy_on_scores)
        monkeypatch.setattr(torch, "matmul", spy_on_scores)
    seen, _ = record(adapter, ids)
    monkeypatch.undo()
    assert len(given) == adapter.num_layers
    clip = adapter.config.attn_config.clip_qkv if adapter.family.model_type == "mpt" else None
    for layer, pair in enumerate(given):
        for stream, used in zip((Stream.QUERY, Stream.KEY), pair, strict=True):
            first = seen[Site(stream, layer)][0].values[:1]
            first = first if clip is None else first.clamp(-clip, clip)
            expected = heads(first, adapter)
            used = used.repeat_interleave(adapter.num_heads // used.shape[0], dim=0)
            close(used[:, :1], expected)


def test_intermediate_state_follows_from_gate_and_up(adapter, ids):
    if adapter.family.experts:
        pytest.skip("see the test of the experts")
    seen = values(adapter, ids, Stream.MLP_INPUT, Stream.DOWN_PROJ_INPUT, Stream.MLP_OUTPUT)
    act = activation(adapter)
    for layer in range(adapter.num_layers):
        x = seen[Site(Stream.MLP_INPUT, layer)]
        up = linear(x, adapter, layer, "up")
        expected = act(linear(x, adapter, layer, "gate")) * up if adapter.has("gate") else act(up)
        state = seen[Site(Stream.DOWN_PROJ_INPUT, layer)]
        close(state, expected)
        close(seen[Site(Stream.MLP_OUTPUT, layer)], linear(state, adapter, layer, "down"))


def test_experts_states_give_the_block_output(adapter, ids):
    if not adapter.family.experts:
        pytest.skip("dense")
    seen, _ = record(adapter, ids, Stream.MLP_INPUT, Stream.DOWN_PROJ_INPUT, Stream.MLP_OUTPUT, Stream.ROUTER_LOGITS)
    act = activation(adapter)
    for layer in range(adapter.num_layers):
        x = seen[Site(Stream.MLP_INPUT, layer)][0].values
        logits = seen[Site(Stream.ROUTER_LOGITS, layer)][0].values
        top = logits.topk(adapter.config.num_experts_per_tok)
        share = torch.zeros_like(logits).scatter(1, top.indices, top.values.softmax(-1))  # [row, expert]
        total, rows = torch.zeros_like(x), 0
        (whole,) = seen[Site(Stream.DOWN_PROJ_INPUT, layer)]  # the rows of all experts, shown at once
        for expert in whole.expert.unique().tolist():
            mine = whole.expert == expert
            part = type(whole)(whole.values[mine], whole.position[mine])
            gate, up = (linear(x[part.position], adapter, layer, role, expert) for role in ("gate", "up"))
            if adapter.family.model_type == "gpt_oss":
                gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
                expected = (up + 1) * gate * torch.sigmoid(1.702 * gate)
            else:
                expected = act(gate) * up
            close(part.values, expected)
            out = linear(part.values, adapter, layer, "down", expert)
            total.index_add_(0, part.position, out * share[part.position, expert, None])
            rows += len(part.position)
        assert rows == LENGTH * adapter.config.num_experts_per_tok
        close(seen[Site(Stream.MLP_OUTPUT, layer)][0].values, total)


def traces(adapter: Adapter) -> list[object]:
    """Everything that observation might leave behind, and what transformers itself may have hooked on before."""
    hooks = [
        dict(table)
        for module in adapter.model.modules()
        for table in (module._forward_hooks, module._forward_pre_hooks, module._forward_hooks_with_kwargs)
        if table
    ]
    return [*hooks, *attention.watchers.items(), *experts.watchers.items()]


@pytest.mark.parametrize("end", ["normal", "in the block", "in a watcher"])
def test_nothing_is_left(adapter, ids, end):
    def settings() -> tuple:
        configs = [adapter.model.config, adapter.config, adapter.decoder.config]
        return tuple((c._attn_implementation, c._experts_implementation) for c in configs)

    before, hooks, plain, seen = settings(), traces(adapter), adapter.forward(ids, LENGTH), set()

    def watch_of(site: Site):
        def watch(_batch: object) -> None:
            seen.add(site)
            if end == "in a watcher" and site == Site(Stream.MLP_OUTPUT, 1):
                raise RuntimeError("stop")

        return watch

    try:
        with observe(adapter, {site: watch_of(site) for site in sites(adapter)}):
            assert traces(adapter) != hooks
            assert settings() != before or before[0][0] == "eager"
            adapter.forward(ids)
            assert end != "in a watcher"
            if end == "in the block":
                raise RuntimeError("stop")
    except RuntimeError:
        assert end != "normal"
    assert Site(Stream.MLP_OUTPUT, 1) in seen
    assert traces(adapter) == hooks
    assert not attention.watchers and not experts.watchers
    assert settings() == before
    assert torch.equal(adapter.forward(ids, LENGTH), plain)


@pytest.mark.parametrize("setting", ["eager", "sdpa"])
def test_attention_setting_is_given_back(adapter, ids, setting):
    if setting == "sdpa" and adapter.config._attn_implementation != "sdpa":
        pytest.skip("not for this family")
    before = adapter.config._attn_implementation
    adapter.config._attn_implementation_internal = setting
    try:
        with observe(adapter, {Site(Stream.ATTN_PROBS, 0): lambda block: None}):
            adapter.forward(ids)
        assert adapter.config._attn_implementation == setting
    finally:
        adapter.config._attn_implementation_internal = before


def test_watching_some_sites_does_not_touch_attention(adapter, ids):
    """Only ATTN_PROBS changes how attention is computed; the rest of a pass stays bit-identical."""
    plain = adapter.forward(ids, LENGTH)
    with observe(adapter, {Site(Stream.RESIDUAL, 0): lambda states: None}):
        assert torch.equal(adapter.forward(ids, LENGTH), plain)


def test_a_stream_that_does_not_exist_is_refused(adapter):
    if adapter.family.router:
        assert adapter.streams() == set(Stream)
        return
    with (
        pytest.raises(MonadnockError, match="has no stream router_logits"),
        observe(adapter, {Site(Stream.ROUTER_LOGITS, 0): lambda states: None}),
    ):
        pass


def test_states_have_one_row_per_token(adapter, ids):
    seen, _ = record(adapter, ids)
    for site, parts in seen.items():
        if site.stream in (Stream.ATTN_PROBS, Stream.HEADS):
            continue
        if site.stream is Stream.DOWN_PROJ_INPUT and adapter.family.experts:
            continue
        (states,) = parts
        assert isinstance(states, States)
        assert states.values.dim() == 2 and len(states.values) == LENGTH
        assert states.position is None and states.expert is None


def test_parameters_stay_parameters(adapter):
    """Reading weights does not wrap or copy the model's parameters."""
    before = {name: (id(p), p.data_ptr()) for name, p in adapter.model.named_parameters()}
    for layer in range(adapter.num_layers):
        for _ in adapter.matrices(layer):
            pass
    assert before == {name: (id(p), p.data_ptr()) for name, p in adapter.model.named_parameters()}
    assert all(isinstance(p, nn.Parameter) for p in adapter.model.parameters())
