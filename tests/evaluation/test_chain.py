"""The chain's numbers are those of a scan, and replayed layers change nothing of them."""

import math

import polars as pl
import pytest
import torch

from monadnock.evaluation.chain import follow_chain
from monadnock.interventions import mask_keys, zero_rows
from monadnock.models.replay import capture
from monadnock.scanning import scan


def test_the_chain_of_the_clean_model_is_what_a_scan_finds(adapter, windows, text, tmp_path):
    run = scan(adapter, text=text, length=24, tokens=72, out=tmp_path / "run", progress=False)
    chain = follow_chain(adapter, windows.ids)
    layers, heads = run.table("layers").filter(stream="residual"), run.table("heads")
    assert chain.top1_h == pytest.approx(layers["top1"].max(), rel=1e-6)
    assert chain.sink_share == pytest.approx(heads["sink"].mean())
    if adapter.family.model_type == "gpt_oss":  # a learned sink takes a part
        assert chain.implicit_scaling < 1 - float((heads["sink_mass"] * heads["sink"]).mean()) - 1e-3
    else:
        expected = heads.select(pl.when("sink").then(1 - pl.col("sink_mass")).otherwise(1.0).mean()).item()
        assert chain.implicit_scaling == pytest.approx(expected, rel=1e-5)


def test_a_chain_that_goes_on_from_kept_outputs_is_the_same(adapter, windows):
    expert = None if adapter.num_experts is None else 0
    clean = follow_chain(adapter, windows.ids)
    outputs = [capture(adapter, ids, [0])[0] for ids in windows.ids]
    with zero_rows(adapter, 1, range(0, 48, 3), expert=expert):
        whole = follow_chain(adapter, windows.ids)
        short = follow_chain(adapter, windows.ids, clean=clean, start=lambda window: (0, outputs[window]))
    for name in ("top1", "sink", "total"):
        torch.testing.assert_close(getattr(short, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
    assert not torch.equal(whole.top1, clean.top1)


def test_a_learned_sink_is_part_of_the_scaling():
    from tests.evaluation.conftest import make

    adapter = make("gpt_oss")
    ids = torch.randint(3, 100, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer in range(adapter.num_layers):
            adapter.module(layer, "self_attn").sinks.fill_(30.0)  # takes all
    chain = follow_chain(adapter, ids)
    assert chain.implicit_scaling < 0.01
    assert chain.sink_share == 0


def test_masking_every_key_takes_the_sinks_away(llama, windows):
    """With all earlier keys masked a query has only itself: a key is seen by one query, and no head has a sink."""
    with mask_keys(llama, range(24)):
        chain = follow_chain(llama, windows.ids)
    assert chain.sink_share == 0
    assert chain.implicit_scaling == pytest.approx(1)


def test_a_broken_model_has_no_chain():
    from tests.evaluation.conftest import make

    adapter = make("llama")
    with torch.no_grad():
        adapter.weight(1, "q").read().fill_(float("nan"))
    chain = follow_chain(adapter, torch.randint(3, 100, (2, 24)))
    assert all(math.isnan(value) for value in (chain.top1_h, chain.sink_share, chain.implicit_scaling))
