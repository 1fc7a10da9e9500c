"""SmolLM2-135M-Instruct gives the numbers that were measured independently of monadnock."""

import polars as pl
import pytest

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def tables(smollm2_run):
    return smollm2_run.tables()


def test_the_run_is_sound(smollm2_run):
    facts = smollm2_run.manifest
    assert (facts.model.num_layers, facts.model.num_heads, facts.model.hidden_size) == (30, 9, 576)
    assert facts.model.dtype == "float32"
    assert facts.text.bos
    assert facts.text.start_token == "<|im_start|>"
    assert facts.self_check.num_logit_positions >= 64
    assert facts.self_check.relative_error <= facts.self_check.tolerance <= 1e-4
    assert facts.tables["nonfinite"] == 0


def test_the_massive_layer_and_its_rows(tables):
    found = tables["massive_weights"].sort("rank")
    assert found["layer"].unique().to_list() == [11]
    assert found["feature"][:2].to_list() == [1229, 1487]
    assert found["magnitude"][:2].to_list() == pytest.approx([3065, 1119], rel=0.01)
    assert found["magnitude"][2] == pytest.approx(11, abs=0.5)
    assert found.filter("massive")["feature"].to_list() == [1229, 1487]


def test_the_massive_features_of_the_residual(tables):
    states = tables["start_states"].filter(pl.col("stream") == "residual", pl.col("layer") == 11).sort("rank")
    assert states["feature"][:2].to_list() == [507, 247]
    assert states["value"][:2].abs().to_list() == pytest.approx([24926, 1825], rel=0.01)


def test_the_text_carries_them_on_its_start_token_only(tables):
    massive = tables["activations"].filter(pl.col("stream") == "residual", pl.col("criterion").is_not_null())
    assert massive["position"].unique().to_list() == [0]
    assert massive["token_class"].unique().to_list() == ["start"]
    at_11 = massive.filter(pl.col("layer") == 11).sort("rank")
    assert at_11["feature"].to_list() == [507, 247]
    # causality: in a window the start token has the states that it has alone
    assert at_11["value"].abs().to_list() == pytest.approx([24926, 1825], rel=0.01)


def test_the_lifecycle_of_feature_507_has_two_stages(tables):
    first, second = tables["lifecycles"].filter(pl.col("feature") == 507).sort("birth").iter_rows(named=True)
    assert (first["birth"], second["birth"]) == (1, 11)
    assert first["death"] is not None and first["death"] <= 11
    assert (second["rise_layer"], second["fall_layer"]) == (11, 28)
    assert second["massive"]
    assert abs(second["peak_value"]) == pytest.approx(24926, rel=0.01)


def test_the_super_weight(tables):
    found = tables["super_weights"].sort("rank").row(0, named=True)
    assert (found["layer"], found["row"], found["column"]) == (11, 507, 1229)
    assert abs(found["contribution"]) == pytest.approx(18_000, rel=0.01)


def test_heads_that_attend_to_the_start(tables):
    heads = tables["heads"]
    assert heads.height == 270
    sinks = heads.filter(pl.col("first_key_mass") > 0.3)
    # Independently measured: 131. The count depends on the prose (a tenth of the heads lie near 0.3), so a range.
    assert 120 <= sinks.height <= 145
    assert sinks["layer"].min() >= 12


def test_before_the_massive_layer_another_token_is_the_sink(tables):
    early = tables["heads"].filter(pl.col("sink"), pl.col("layer") <= 10)
    assert early["layer"].min() >= 3
    assert set(early["layer"]) == set(range(3, 11))
    strongest = early.sort("sink_mass", descending=True).group_by("layer", maintain_order=True).first()
    assert (strongest["sink_position"] > 0).all()
    means = tables["attention"].filter(pl.col("head").is_null(), pl.col("layer").is_between(3, 10))
    main = means.sort("cumulative", descending=True).group_by("layer", maintain_order=True).first()
    assert main.height == 8
    assert (main["position"] > 0).all()


def test_parameters_add_up(smollm2, smollm2_run, tables):
    assert tables["parameters"]["count"].sum() == 134_515_008 == smollm2_run.manifest.model.num_parameters
    of = dict(tables["parameters"].group_by("component").agg(pl.col("count").sum()).iter_rows())
    assert of["embedding"] == 49152 * 576
    assert of["unembedding"] == 0, "tied"
    assert of["down"] == 30 * 576 * 1536
    assert of["norm"] == 61 * 576


def test_the_summary_tells_all_this(smollm2_run):
    said = dict(smollm2_run.summary().items)
    assert said["Massive layer"].startswith("layer 11, rows 1229 (|x_down| 3,065) and 1487 (|x_down| 1,119)")
    assert "507 (layers 1 to 8, up to 769, below the bound; from layer 11 on, up to 24,926)" in said["Features"]
    assert said["Super weights"].startswith("W_down[507, 1229] of layer 11")
    assert "Broken values" not in said


def test_the_model_is_left_as_it_was(smollm2, smollm2_run):
    assert not smollm2.model.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in smollm2.model.modules())
    assert smollm2.config._attn_implementation == "sdpa"
