"""Scaling by sinks, its spread over queries and windows, and zero-update, against direct formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.probes.sinks import context_share
from tests.stats.cases import seeds, steady


@steady
@given(seeds, st.integers(2, 40), st.integers(2, 60))
def test_a_function_of_the_position_has_no_context_share(seed, windows, size):
    curve = torch.rand(1, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sums = torch.stack([windows * curve, windows * curve**2])
    assert float(context_share(sums, windows)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_context_share_is_the_planted_one(share):
    random = torch.Generator().manual_seed(0)
    position = math.sqrt(1 - share) * torch.randn(1, 4000, generator=random, dtype=torch.float64)
    context = math.sqrt(share) * torch.randn(5, 4000, generator=random, dtype=torch.float64)
    values = position + context  # [window, seq]
    sums = torch.stack([values.sum(0, keepdim=True), (values**2).sum(0, keepdim=True)])
    assert float(context_share(sums, 5)) == pytest.approx(share, abs=0.04)


def test_one_window_or_no_variance_has_none():
    assert context_share(torch.ones(2, 3, 8), 1).isnan().all()
    assert context_share(torch.stack([2 * torch.ones(1, 8), 2 * torch.ones(1, 8)]), 2).isnan().all()


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "gemma2", "mpt", "mistral"])
def test_scaling_is_what_transformers_probabilities_say(scanned, family):
    it = scanned(family)
    scaling = it.run.table("scaling")
    for layer in range(3):
        probs = it.plain.attentions[layer].double()[..., : it.ids.shape[1]]  # without a learned sink's column
        seen = (probs > 0).any((0, 1)).sum(0)
        sinks = (probs.sum(2) / seen > 0.3) & (seen >= 0.25 * seen.max())  # [window, head, key]
        kept = (probs * ~sinks[:, :, None]).sum(3)  # [window, head, query]
        rows = scaling.filter(layer=layer)
        assert rows["sink_keys"].to_list() == pytest.approx(sinks.sum(2).double().mean(0).tolist())
        assert rows["mean"].to_list() == pytest.approx(kept.mean((0, 2)).tolist(), abs=1e-4)
        assert rows["std"].to_list() == pytest.approx(kept.std((0, 2), unbiased=False).tolist(), abs=0.04)
        learned = (1 - probs.sum(3)).mean((0, 2))
        assert rows["learned_mass"].to_list() == pytest.approx(learned.clamp(min=0).tolist(), abs=1e-5)
        assert (rows["kind"].str.contains("learned").any()) is (family == "gpt_oss")
    assert scaling["gate"].unique().to_list() == [1.0]


def test_a_gated_head_says_so(scanned, tmp_path):
    from monadnock import scan

    it = scanned("qwen3")
    module = it.adapter.layers[1].self_attn.o_proj
    handle = module.register_forward_pre_hook(lambda _module, args: (0.25 * args[0],))
    try:
        run = scan(it.adapter, out=tmp_path / "run", text=it.text, length=44, tokens=88, probes=["sinks"])
    finally:
        handle.remove()
    rows = run.table("scaling")
    assert set(rows.filter(layer=1)["kind"].str.split("+").list.last()) == {"gate"}
    assert not rows.filter(layer=0)["kind"].str.contains("gate").any()
    assert rows.filter(layer=1)["gate"].to_list() == pytest.approx([0.25] * 4)
    assert rows.filter(layer=1)["mean"].max() <= 0.25 + 1e-6


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
def test_zero_update_compares_what_attention_writes(scanned, family):
    it = scanned(family)
    for row in it.run.table("zero_update").to_dicts():  # these families have no norm behind attention
        layer = row["layer"]
        probs = it.plain.attentions[layer].double()[..., : it.ids.shape[1]]
        seen = (probs > 0).any((0, 1)).sum(0)
        sinks = ((probs.sum(2) / seen > 0.3) & (seen >= 0.25 * seen.max())).any(1)  # [window, position]
        norms = it.output_of(f"model.layers.{layer}.self_attn.o_proj").norm(dim=-1)
        assert row["num_sinks"] == pytest.approx(float(sinks.sum(1).double().mean()))
        assert row["others"] == pytest.approx(float(norms[~sinks].mean()), rel=1e-4)
        if bool(sinks.any()):
            assert row["sinks"] == pytest.approx(float(norms[sinks].mean()), rel=1e-4)
            assert row["ratio"] == pytest.approx(row["sinks"] / row["others"])
        else:
            assert row["sinks"] is row["ratio"] is None


def test_zero_update_is_behind_the_norm_where_there_is_one(scanned):
    it = scanned("gemma2")
    for row in it.run.table("zero_update").to_dicts():
        probs = it.plain.attentions[row["layer"]].double()
        seen = (probs > 0).any((0, 1)).sum(0)
        sinks = ((probs.sum(2) / seen > 0.3) & (seen >= 0.25 * seen.max())).any(1)
        added = it.output_of(f"model.layers.{row['layer']}.post_attention_layernorm").norm(dim=-1)
        assert row["others"] == pytest.approx(float(added[~sinks].mean()), rel=1e-4)


def test_nan_is_no_gate_and_has_no_tenths(tmp_path, scanned):
    from monadnock import scan
    from monadnock.models import Adapter, Source
    from tests.probes.conftest import TOKENIZER
    from tests.tiny import tiny_model

    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[0, 0] = torch.nan
    adapter = Adapter(model, TOKENIZER, Source("tiny", "object"))
    run = scan(adapter, text=scanned("llama").text, out=tmp_path / "run", length=24, tokens=48, probes=["sinks"])
    scaling = run.table("scaling")
    assert not scaling["kind"].str.contains("gate").any()
    broken = scaling.filter(layer=2)
    assert broken["mean"].is_nan().all() and broken["p10"].null_count() == broken["p90"].null_count() == broken.height


def test_one_key_has_no_gap(tmp_path, scanned):
    from monadnock import scan

    it = scanned("llama")
    run = scan(it.adapter, text=it.text, out=tmp_path / "run", length=3, tokens=6, probes=["attention"])
    assert run.table("heads")["logit_gap"].null_count() == run.table("heads").height
