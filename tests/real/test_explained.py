"""SmolLM2 and Gemma 3: rotary offsets, what sinks scale, and who makes and unmakes the massive activation."""

import math

import polars as pl
import pytest
import torch

from monadnock.models import observe
from monadnock.sites import Site, Stream

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def tables(smollm2_run):
    return smollm2_run.tables()


def test_large_rotary_features_are_slow(tables):
    rotary = tables["rotary"]
    assert rotary.height == 30 * 9 * 32
    assert rotary["context"].unique().to_list() == [8192]
    assert rotary["bound_frequency"].mean() == pytest.approx(0.31, abs=0.005)
    large = rotary.filter((pl.col("q_relative") > 3) & (pl.col("k_relative") > 3))
    assert large.height == pytest.approx(237, abs=5)  # measured independently of monadnock, on other windows
    assert large["bound_frequency"].all()
    assert (large["angle"].abs() > math.pi / 2).mean() == pytest.approx(0.74, abs=0.03)
    larger = rotary.filter((pl.col("q_relative") > 5) & (pl.col("k_relative") > 5))
    assert (larger["angle"].abs() > math.pi / 2).mean() >= 0.95
    sink = large.drop_nulls("sink_k_radius")
    assert (sink["sink_k_radius"] / sink["k_radius"]).median() < 0.1


def test_one_contribution_by_hand(smollm2, smollm2_run, tables):
    """The products of one head's queries with its sink key, from the probabilities' own logits."""
    layer, head = 14, 0
    ids = _ids(smollm2, smollm2_run)
    seen: list = []
    with observe(smollm2, {Site(Stream.QUERY, layer): seen.append, Site(Stream.KEY, layer): seen.append}):
        smollm2.forward(ids)
    query, key = (states.values.float().unflatten(-1, (-1, 64))[:, head] for states in seen)
    theta = 1 / smollm2.config.rope_parameters["rope_theta"] ** (torch.arange(0, 64, 2) / 64)
    row = tables["rotary"].filter(layer=layer, head=head).sort("feature")
    assert row["theta"].to_list() == pytest.approx(theta.tolist(), rel=1e-5)
    q, k = torch.complex(query[:, :32], query[:, 32:]), torch.complex(key[:1, :32], key[:1, 32:])
    distance = torch.arange(len(ids))[:, None]
    products = (q * k.conj() * torch.polar(torch.ones(1), theta * distance)).real.mean(0) / 8
    assert row["sink_contribution"].to_list() == pytest.approx(products.tolist(), rel=1e-3, abs=1e-3)
    assert row["q_radius"].to_list() == pytest.approx(q.abs().mean(0).tolist(), rel=1e-4)


def _ids(adapter, run):
    from monadnock.data import token_windows

    windows = token_windows(adapter.tokenizer, tokens=512, length=512)
    assert windows.token_hash == run.manifest.text.token_hash
    return windows.ids[0]


def test_who_makes_feature_507_and_who_takes_it_away(tables):
    parts = tables["contributions"].filter(feature=507).sort("layer")
    assert parts.filter(layer=11)["mlp"].item() == pytest.approx(24882, rel=0.01)
    assert abs(parts.filter(layer=11)["attention"].item()) < 20
    assert parts.filter(layer=28)["mlp"].item() == pytest.approx(-14253, rel=0.01)
    assert parts.filter(layer=29)["mlp"].item() == pytest.approx(-5798, rel=0.01)
    made = tables["emergence"].filter(state="intermediate")
    assert made["feature"].to_list() == [1229, 1487]
    assert (made["ratio"] > 1000).all()
    states = tables["trace"].filter(layer=11).sort("step")["state"].to_list()
    inner = ["mlp_input", "down_proj_input", "mlp_output", "residual"]
    assert states == ["before", "attn_input", "attn_output", "middle", *inner]


def test_columns_of_w_down_point_at_the_massive_rows(tables):
    found = tables["weight_outliers"].filter(layer=11).sort("rank")
    assert set(found["column"][:2]) == {1229, 1487}
    assert found["column_ratio"][1] > 5 * found["column_ratio"][2]
    assert not found["outlier"].any()  # by an2025's rule along rows no weight of SmolLM2 is one


def test_sinks_scale_and_follow_the_context(tables):
    scaling = tables["scaling"].join(tables["heads"], on=["layer", "head"])
    keys = scaling.filter(kind="key")
    assert keys.height == tables["heads"]["sink"].sum()
    assert keys["std"].median() > 0.15
    assert keys["context_share"].null_count() == keys.height  # one window cannot tell
    first = keys.filter(pl.col("sink_keys") == 1, pl.col("sink_position") == 0)
    assert first["mean"].to_list() == pytest.approx((1 - first["first_key_mass"]).to_list(), abs=1e-4)
    assert keys["value_ratio"].median() < 0.3
    behind = tables["zero_update"].filter(pl.col("layer") >= 12)
    assert (behind["ratio"] < 1).all()


def test_gemma_has_offsets_by_the_window_of_each_layer(gemma3_run):
    rotary = gemma3_run.table("rotary")
    contexts = dict(rotary.select("layer", "context").unique().iter_rows())
    assert contexts == {layer: 32768 if layer % 6 == 5 else 512 for layer in range(18)}
    slowest = rotary.group_by("layer").agg(pl.col("theta").min()).sort("layer")["theta"]
    assert slowest[5] < slowest[4] / 10
    assert rotary.filter("offset")["bound_frequency"].mean() > 0.8
    states = gemma3_run.table("trace").filter(layer=5)["state"].to_list()
    assert states.index("attn_update") == states.index("attn_output") + 1
    assert states.index("mlp_update") == states.index("mlp_output") + 1
    parts = gemma3_run.table("contributions")
    sums = parts["before"] + parts["attention"] + parts["mlp"]
    assert sums.to_list() == pytest.approx(parts["after"].to_list(), rel=1e-3, abs=1.0)
