"""Changed activations, masked keys, prefixes and single weights do what they say, in every family."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.errors import MonadnockError
from monadnock.interventions import (
    mask_keys,
    mean_activations,
    median_gains,
    prefix_tokens,
    scale_weights,
    set_activations,
)
from monadnock.models import Adapter, Source, observe
from monadnock.sites import Site, Stream
from tests.interventions.conftest import IDS, expert_of
from tests.tiny import tiny_model

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def look(adapter, ids, site):
    seen = []
    with observe(adapter, {site: seen.append}):
        logits = adapter.forward(ids, keep=len(ids))
    return seen, logits


def written(adapter, ids, tokens=5):
    """Return greedy tokens, with a cache."""
    model = adapter.model
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids[None], attention_mask=torch.ones_like(ids[None]), do_sample=False, max_new_tokens=tokens,
            min_new_tokens=tokens, pad_token_id=0,
        )  # fmt: skip
    return out[0, len(ids) :].tolist()


def written_slowly(adapter, ids, tokens=5):
    """Return greedy tokens, without a cache: one whole pass for each."""
    end = adapter.model.generation_config.eos_token_id
    for _ in range(tokens):
        logits = adapter.forward(ids)[-1].clone()
        if end is not None:
            logits[end] = -torch.inf
        ids = torch.cat([ids, logits.argmax()[None]])
    return ids[-tokens:].tolist()


def test_activations_are_set_where_they_are_said_to_be(adapter):
    site = Site(Stream.RESIDUAL, 1)
    (clean,), _ = look(adapter, IDS, site)
    before = clean.values.clone()
    with set_activations(adapter, 1, {3: 2.5, 30: 0.0}, positions=[0, 5, 900]):
        (found,), _ = look(adapter, IDS, site)
    expected = before.clone()
    expected[[0, 5], 3], expected[[0, 5], 30] = 2.5, 0.0
    assert torch.equal(found.values, expected)


def test_an_activation_set_to_what_it_is_changes_nothing(adapter):
    """Setting h[0, f] to its mean over windows that begin with the same token changes nothing: it is a constant."""
    windows = torch.stack([IDS, IDS.roll(3)])
    windows[:, 0] = 1
    means = mean_activations(adapter, windows, 1, [3, 4])
    plain = adapter.forward(windows[0])
    with set_activations(adapter, 1, means):
        torch.testing.assert_close(adapter.forward(windows[0]), plain, **CLOSE)


def test_the_mean_is_over_the_positions_that_are_named(llama):
    states = torch.stack([look(llama, ids, Site(Stream.RESIDUAL, 2))[0][0].values for ids in (IDS, IDS.flip(0))])
    found = mean_activations(llama, torch.stack([IDS, IDS.flip(0)]), 2, [7, 1], positions=[2, 3, 9])
    expected = states[:, [2, 3, 9]][..., [7, 1]].double().mean((0, 1)).tolist()
    assert list(found) == [7, 1]
    assert list(found.values()) == pytest.approx(expected)


def test_set_activations_knows_positions_in_generation(llama):
    """Only position 0 is changed, not the first of every later pass that goes on from a cache."""
    with set_activations(llama, 1, {3: 40.0}):
        assert written(llama, IDS) == written_slowly(llama, IDS)


def test_masked_keys_get_nothing_but_from_themselves(adapter):
    site = Site(Stream.ATTN_PROBS, 1)
    with mask_keys(adapter, [0, 4]):
        blocks, observed = look(adapter, IDS, site)
        plain = adapter.forward(IDS, keep=len(IDS))
    torch.testing.assert_close(observed, plain, **CLOSE)
    clean, _ = look(adapter, IDS, site)
    size = len(IDS)
    probs, before = torch.zeros(2, adapter.num_heads, size, size)
    for blocks_of, whole in ((blocks, probs), (clean, before)):
        for block in blocks_of:
            _, queries, keys = block.probs.shape
            whole[:, block.first_query : block.first_query + queries, block.first_key : block.first_key + keys] = (
                block.probs
            )
    for key in (0, 4):
        later = [q for q in range(size) if q not in (key,)]
        assert float(probs[:, later, key].max()) == 0
    assert float(probs[:, 0, 0].min()) > 0  # its own key stays
    assert float(before[:, 1:, 0].max()) > 0
    if adapter.family.model_type != "gpt_oss":  # whose learned sink takes a part
        torch.testing.assert_close(probs.sum(2), torch.ones(adapter.num_heads, size), **CLOSE)


def test_only_the_named_layers_are_masked(llama):
    with mask_keys(llama, [0], layers=[2]):
        blocks, _ = look(llama, IDS, Site(Stream.ATTN_PROBS, 1))
        assert float(blocks[-1].probs[:, 1:, 0].min()) > 0
        blocks, _ = look(llama, IDS, Site(Stream.ATTN_PROBS, 2))
        assert all(float(b.probs[:, 1:, 0].max()) == 0 for b in blocks if b.first_key == 0)


def test_masked_keys_in_generation(adapter):
    with mask_keys(adapter, [0, 3]):
        assert written(adapter, IDS) == written_slowly(adapter, IDS)


@given(data=st.data())
def test_a_prefix_gives_what_the_longer_text_gives(adapter, data):
    count = data.draw(st.integers(1, 4))
    prefix = data.draw(st.lists(st.integers(0, 99), min_size=count, max_size=count))
    keep = data.draw(st.sampled_from([1, 3, len(IDS), torch.tensor([0, 2, 9])]))
    whole = torch.cat([torch.tensor(prefix), IDS])
    longer = adapter.forward(whole, keep=len(whole))[len(prefix) :]
    with prefix_tokens(adapter, prefix):
        found = adapter.forward(IDS, keep=keep)
    expected = longer[keep] if isinstance(keep, torch.Tensor) else longer[-keep:]
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_prefix_in_generation(adapter):
    whole = torch.cat([torch.tensor([1, 7]), IDS])
    expected = written(adapter, whole)
    with prefix_tokens(adapter, [1, 7]):
        assert written(adapter, IDS) == expected
    with prefix_tokens(adapter, [1]), prefix_tokens(adapter, [7]):
        assert written(adapter, IDS) == expected


def test_a_prefix_is_seen_by_who_looks(llama):
    with prefix_tokens(llama, [1, 7]):
        (states,), _ = look(llama, IDS, Site(Stream.RESIDUAL, 0))
    assert len(states.values) == len(IDS) + 2


def test_scaled_weights_are_the_named_entries(adapter):
    expert = expert_of(adapter)
    before = adapter.weight(1, "down", expert).read().clone()
    with scale_weights(adapter, 1, [(3, 5), (0, 2)], 0.5, expert=expert):
        found = adapter.weight(1, "down", expert).read().clone()
    expected = before.clone()
    expected[3, 5] *= 0.5
    expected[0, 2] *= 0.5
    assert torch.equal(found, expected)


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "olmo2"])
def test_gains_go_to_the_median_of_their_norm(model_type):
    adapter = Adapter(tiny_model(model_type), None, Source(model_type, "object"))
    before = {(layer, name): gains.clone() for layer, name, gains in adapter.norms()}
    with median_gains(adapter, [3, 9]):
        after = {(layer, name): gains.clone() for layer, name, gains in adapter.norms()}
    for place, old in before.items():
        expected = old.clone()
        if place[1] in ("attn_output", "mlp_output"):
            expected[[3, 9]] = old.median()
        torch.testing.assert_close(after[place], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda a: set_activations(a, 3, {0: 0.0}), "Layer 3 was asked"),
        (lambda a: set_activations(a, 0, {32: 0.0}), "Feature 32 was asked, but llama has 32"),
        (lambda a: set_activations(a, 0, {1: 0.0}, positions=[-1]), "Position -1 was asked"),
        (lambda a: mask_keys(a, [-2]), "Position -2 was asked"),
        (lambda a: mask_keys(a, [0], layers=[7]), "Layer 7 was asked"),
        (lambda a: prefix_tokens(a, [10**6]), "Token 1000000 was asked as a prefix"),
        (lambda a: scale_weights(a, 0, [(32, 0)]), "Row of W_down 32 was asked"),
        (lambda a: scale_weights(a, 0, [(0, 48)]), "Column of W_down 48 was asked"),
        (lambda a: scale_weights(a, 0, [(1, 1), (1, 1)]), "was asked twice"),
        (lambda a: median_gains(a, [0]), "has no norm behind attention or FFN"),
        (lambda a: median_gains(a, [0], norms=["query"]), "has no norm named 'query'"),
    ],
)
def test_what_does_not_exist_is_told(llama, make, told):
    with pytest.raises(MonadnockError, match=told), make(llama):
        pass


def test_a_mean_over_no_position_is_told(llama):
    with pytest.raises(MonadnockError, match="windows of 20 tokens"):
        mean_activations(llama, IDS[None], 0, [0], positions=[20])
