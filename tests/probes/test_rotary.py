"""Rotary features: planted offsets are found with their angle; bounds agree with published cases and with counting."""

import math

import polars as pl
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from monadnock import scan
from monadnock.models import Adapter, Source
from monadnock.models.rotary import sliding_window
from monadnock.probes.rotary import bounds
from tests.probes.conftest import TOKENIZER
from tests.tiny import tiny_model
from tests.words import random_words, write_words

D_HEAD, HEADS, KV_HEADS, LENGTH = 16, 4, 2, 40
FEATURES = D_HEAD // 2
angles = st.floats(-math.pi + 0.01, math.pi)


def test_published_cases():
    """Feature 12 of 16 at 2,048 positions (jonasson2025); dimensions 58 and 122 of Llama-2-7B (an2025)."""
    theta = 10000.0 ** (-torch.arange(16, dtype=torch.float64) / 16)
    assert bounds(theta, torch.zeros(16), 2048)[0].tolist() == [False] * 12 + [True] * 4
    theta = 10000.0 ** (-torch.arange(64, dtype=torch.float64) / 64)
    assert bounds(theta, torch.zeros(64), 4096)[0].nonzero().flatten().tolist() == list(range(50, 64))
    assert 58 in range(50, 64) and 122 == 58 + 64


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-5, 1.0), angles, st.integers(2, 400))
def test_bounds_are_what_counting_over_the_context_says(theta, angle, context):
    distance = torch.arange(0, context + 1, dtype=torch.float64)
    frequency, negative = bounds(torch.tensor([theta], dtype=torch.float64), torch.tensor([angle]), context)
    turned = math.fmod(angle + 2 * math.pi, 2 * math.pi)
    edges = [abs(turned - math.pi / 2), abs(turned + theta * context - 1.5 * math.pi), abs(theta * context - math.pi)]
    if min(edges) < 1e-3 or theta > math.pi / 4:
        return  # at the edge, or so fast that positions step over the other half turn
    logits = torch.cos(angle + theta * distance)
    assert bool(negative) is bool((logits <= 0).all())
    some_sign_kept = any(
        bool((torch.cos(torch.tensor(start) + theta * distance) >= -1e-9).all())
        for start in (-math.pi / 2, -math.pi / 2 + 1e-6)
    )
    assert bool(frequency) is some_sign_kept


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(500))


@settings(deadline=None, derandomize=True, max_examples=12, phases=[Phase.generate])
@given(
    model_type=st.sampled_from(["llama", "qwen2"]),
    layer=st.integers(0, 2),
    kv_head=st.integers(0, KV_HEADS - 1),
    feature=st.integers(0, FEATURES - 1),
    angle=angles,
    start=angles,
)
def test_planted_offsets_are_found(text, tmp_path_factory, model_type, layer, kv_head, feature, angle, start):
    model = tiny_model(model_type, head_dim=D_HEAD, attention_bias=True, hidden_size=64)
    adapter = Adapter(model, TOKENIZER, Source("tiny", "object"))
    dims = [feature, feature + FEATURES]
    with torch.no_grad():
        for role, heads, turned in (("q", [2 * kv_head, 2 * kv_head + 1], start + angle), ("k", [kv_head], start)):
            vector = 30 * torch.tensor([math.cos(turned), math.sin(turned)])
            for head in heads:
                adapter.bias(layer, role).set_rows(torch.tensor([head * D_HEAD + dim for dim in dims]), vector)
    out = tmp_path_factory.mktemp("run") / "run"
    run = scan(adapter, out=out, text=text, length=LENGTH, tokens=LENGTH, probes=["rotary"])
    rotary = run.table("rotary")
    assert rotary.height == 3 * HEADS * FEATURES
    offsets = rotary.filter("offset")
    found = set(offsets.select("layer", "head", "feature").iter_rows())
    assert found == {(layer, 2 * kv_head + which, feature) for which in (0, 1)}
    for row in offsets.to_dicts():
        assert (row["kv_head"], row["dimension"], row["other_dimension"]) == (kv_head, *dims)
        away = (row["angle"] - angle + math.pi) % (2 * math.pi) - math.pi
        assert abs(away) < 0.1
        assert row["q_radius"] == pytest.approx(30, rel=0.2)
        assert row["context"] == (sliding_window(adapter, layer) or 256)
        assert row["cycles"] == pytest.approx(row["theta"] * row["context"] / (2 * math.pi))
        size = row["q_radius"] * row["k_radius"] / math.sqrt(D_HEAD)
        reach = sliding_window(adapter, layer) or LENGTH
        back = [query - key for query in range(LENGTH) for key in range(query + 1) if query - key < reach]
        mean = sum(math.cos(row["angle"] + row["theta"] * distance) for distance in back) / len(back)
        assert row["mean_contribution"] == pytest.approx(size * mean, abs=0.1 * size)
    for row in rotary.to_dicts():
        theta, phi = (torch.tensor([row[name]], dtype=torch.float64) for name in ("theta", "angle"))
        frequency, negative = bounds(theta, phi, row["context"])
        assert (row["bound_frequency"], row["bound_angle"]) == (bool(frequency), bool(negative))


def test_contributions_sum_to_the_mean_logit(scanned):
    it = scanned("llama")
    rotary, heads = it.run.table("rotary"), it.run.table("heads")
    total = rotary.group_by("layer", "head").agg(pl.col("mean_contribution").sum()).sort("layer", "head")
    for layer in range(3):
        probs = it.plain.attentions[layer].double()  # log probabilities and logits differ by one number per query
        queries, keys = (it.output_of(f"model.layers.{layer}.self_attn.{name}_proj") for name in ("q", "k"))
        assert queries.shape[1] == keys.shape[1] == probs.shape[2]
        logits = _logits(it, layer)
        mean = logits.nanmean((0, 2, 3))
        ours = total.filter(layer=layer)["mean_contribution"].to_list()
        assert ours == pytest.approx(mean.tolist(), rel=1e-4, abs=1e-5)
    assert heads["logit_gap"].min() > 0


def _logits(it, layer):
    """Return the logits that transformers' own code makes, with NaN where a key is not seen."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    module = it.model.model.layers[layer].self_attn
    hidden = it.input_of(f"model.layers.{layer}.self_attn.q_proj")
    shape = (*hidden.shape[:2], -1, module.head_dim)
    query, key = (getattr(module, f"{name}_proj")(hidden).view(shape).transpose(1, 2) for name in ("q", "k"))
    positions = torch.arange(hidden.shape[1])[None]
    query, key = apply_rotary_pos_emb(query, key, *it.model.model.rotary_emb(hidden, positions))
    logits = module.scaling * query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(2, 3)
    hidden_keys = torch.ones(logits.shape[2:], dtype=torch.bool).triu(1)
    return logits.masked_fill(hidden_keys, torch.nan)


@pytest.mark.parametrize("family", ["gpt2", "mpt"])
def test_without_rotary_there_are_bands_only(scanned, family):
    run = scanned(family).run
    assert run.table("rotary").height == 0
    bands = run.table("bands")
    assert bands.height == 3 * 8
    assert bands["feature"].null_count() == bands["half"].null_count() == bands.height
    assert (bands["q_max"] > 0).all()


def test_partial_rotary_leaves_dimensions_without_a_pair(scanned):
    bands = scanned("phi").run.table("bands").filter(layer=0)
    assert bands["feature"].to_list() == [0, 1, 0, 1, None, None, None, None]
    assert bands["half"].to_list() == [0, 0, 1, 1, None, None, None, None]
    assert scanned("phi").run.table("rotary")["feature"].max() == 1


def test_bands_are_the_largest_over_tokens_and_heads(scanned):
    it = scanned("gpt2")
    qkv = it.output_of("transformer.h.1.attn.c_attn")
    query, key = (part.unflatten(-1, (4, 8)).abs().amax((0, 1, 2)) for part in qkv.chunk(3, -1)[:2])
    bands = it.run.table("bands").filter(layer=1)
    assert bands["q_max"].to_list() == pytest.approx(query.tolist(), rel=1e-5)
    assert bands["k_max"].to_list() == pytest.approx(key.tolist(), rel=1e-5)
