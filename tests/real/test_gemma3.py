"""Gemma 3 270M: gains that are massive weights themselves, and windows that slide."""

import polars as pl
import pytest

pytestmark = pytest.mark.real

FULL = [5, 11, 17]  # every sixth layer sees everything


@pytest.fixture(scope="module")
def tables(gemma3_run):
    return gemma3_run.tables()


def test_the_run_is_sound(gemma3_run):
    facts = gemma3_run.manifest
    assert (facts.model.family, facts.model.num_layers, facts.model.num_heads) == ("gemma3_text", 18, 4)
    assert facts.model.num_parameters == 268_098_176
    assert (facts.text.bos, facts.text.start_token) == (True, "<bos>")
    assert facts.self_check.relative_error <= facts.self_check.tolerance <= 1e-4
    assert facts.tables["nonfinite"] == 0


def test_parameters_add_up(tables):
    assert tables["parameters"]["count"].sum() == 268_098_176


def test_gains_behind_attention_and_ffn_are_massive(tables):
    behind = pl.col("norm").is_in(["attn_output", "mlp_output"])
    gains = tables["norm_gains"].filter(behind, pl.col("feature") == 163)
    assert gains["massive_feature"].all()
    medians = tables["norms"].filter(behind).select("layer", "norm", "median")
    found = gains.join(medians, on=["layer", "norm"]).filter(
        pl.col("gain").is_between(525, 789), pl.col("median").is_between(1, 19)
    )
    assert found.height >= 3
    assert (found["ratio"] > 25).all()
    assert (found["gain"].abs() / found["median"].abs() - found["ratio"]).abs().max() < 0.05 * found["ratio"].max()


def test_gains_are_one_plus_the_weight(gemma3, tables):
    for row in (
        tables["norm_gains"].filter(pl.col("norm") == "mlp_output", pl.col("feature") == 163).iter_rows(named=True)
    ):
        weight = gemma3.model.get_parameter(f"model.layers.{row['layer']}.post_feedforward_layernorm.weight")[163]
        assert row["gain"] == pytest.approx(1 + weight.item(), rel=1e-5)


def test_keys_of_sliding_layers_are_seen_by_at_most_512_queries(gemma3, tables):
    assert gemma3.config.sliding_window == 512
    most = dict(tables["attention"].group_by("layer").agg(pl.col("num_queries").max()).iter_rows())
    assert sorted(most) == list(range(18))
    assert all(most[layer] <= 512 for layer in most if layer not in FULL)
    assert [most[layer] for layer in FULL] == [1024] * 3, "the start token gathers most, and every query sees it"
    mean = tables["heads"].filter(~pl.col("layer").is_in(FULL))["mean_distance"]
    assert mean.min() >= 0
    assert mean.max() < 512


def test_feature_163_of_the_residual_overflows_float16(tables):
    largest = tables["activations"].filter(pl.col("stream") == "residual", pl.col("feature") == 163)
    assert largest["overflows_float16"].any()


def test_the_summary_names_the_gains(gemma3_run):
    assert "gains after attention and FFN are massive weights" in dict(gemma3_run.summary().items)["Norm gains"]
