"""Scales and rotations: per row or tensor, against a Gaussian, features of all tokens against massive tokens."""

import math

import pytest
import torch

from monadnock.prescribing.bounds import ROTATE_SHARE
from monadnock.prescribing.scales import gaussian_error, levels
from tests.prescribing import planted


@pytest.mark.parametrize(("count", "bits"), [(64, 8), (576, 8), (576, 4), (4096, 4)])
def test_what_rounding_leaves_of_a_gaussian_row(count, bits):
    rows = torch.randn(2000, count, generator=torch.Generator().manual_seed(0))
    step = rows.abs().amax(1, keepdim=True) / levels(bits)
    left = (rows / step).round() * step - rows
    assert gaussian_error(count, bits) == pytest.approx(float(left.norm() / rows.norm()), rel=0.02)


def test_a_tensor_scale_that_is_as_good_as_rows_is_enough(judge):
    row = judge().one("per_tensor")
    assert row["value"] == pytest.approx(0.012) and row["bound"] == pytest.approx(0.018)


def test_rows_need_scales_of_their_own_where_one_tensor_scale_is_far_worse(judge):
    rows = planted.changed(planted.weights(), {"layer": 4, "module": "gate", "axis": "tensor"}, w8_error=0.09)
    row = judge(weights=rows).one("per_row")
    assert (row["layer"], row["module"]) == (4, "gate")
    assert "1 of 42 matrices" in row["reason"] and "10.0 times" in row["reason"]
    assert "With 4 bits" in row["reason"] and "With" not in judge(bits=8, weights=rows).one("per_row")["reason"]


def weight_rotation(told):
    (row,) = [row for row in told.rows if row["evidence"] == "weights.w8_error" and "Gaussian" in row["reason"]]
    return row


def test_a_rotation_of_weights_is_called_for_where_rows_round_worse_than_gaussian_ones(judge):
    assert weight_rotation(judge())["action"] == "no_rotation"
    rows = planted.changed(planted.weights(), {"axis": "row"}, w8_error=3 * gaussian_error(planted.WIDTH))
    row = weight_rotation(judge(weights=rows))
    assert row["action"] == "rotate" and row["value"] == pytest.approx(3.0, rel=0.1)


def activation(told, bits):
    (row,) = [row for row in told.rows if row["evidence"] == "features.mean_abs" and row["amount"] == bits]
    return row


def outlying(mean, places=12):
    rows = planted.features()
    keys = [(row["stream"], row["layer"]) for row in planted.layers()][:places]
    return [r | {"mean_abs": mean} if (r["stream"], r["layer"]) in keys and r["feature"] == 3 else r for r in rows]


@pytest.mark.parametrize(("ratio", "eight", "four"), [(1, "no_", "no_"), (20, "no_", ""), (300, "", "")])
def test_features_that_stand_out_in_all_tokens_call_for_a_rotation(judge, ratio, eight, four):
    told = judge(features=outlying(0.8 * ratio))
    assert activation(told, 8)["action"] == ("no_rotation" if eight else "rotate")
    assert activation(told, 4)["action"] == ("no_rotation" if four else "rotate")


def test_one_place_is_kept_in_16_bits_more_cheaply_than_by_a_rotation(judge):
    row = activation(judge(features=outlying(800.0, places=1)), 8)
    assert row["action"] == "no_rotation" and 0 < row["value"] < ROTATE_SHARE
    assert "keep the inputs of these in 16 bits" in row["reason"]


def test_massive_tokens_alone_call_for_no_rotation(judge):
    """One token in 512 has 4e5 in a feature whose mean is 0.8 elsewhere."""
    size = 4e5
    mean = (size * 4 + 0.8 * (512 - 4)) / 512
    rows = [
        entry | {"layer": row["layer"], "stream": row["stream"]} for row in planted.layers() for entry in at_start(size)
    ]
    told = judge(features=outlying(mean), activations=rows)
    assert activation(told, 8)["action"] == activation(told, 4)["action"] == "no_rotation"
    assert activation(judge(features=outlying(mean)), 8)["action"] == "rotate"  # where nobody says that it is one token


def at_start(size):
    return planted.entries([0], value=-size)


def test_a_norm_that_silences_the_feature_takes_it_off_the_residual(judge):
    gains = [{"layer": layer, "norm": "attn_input", "feature": 3, "ratio": 0.001} for layer in range(planted.LAYERS)]
    told = judge(features=outlying(800.0), norm_gains=gains)
    places = activation(told, 8)
    assert places["value"] == pytest.approx(7 / 12)  # x_down of 6 layers, and the last residual, which none reads


def test_norms_behind_attention_and_mlp_cannot_be_folded(judge):
    norms = [{"layer": 0, "norm": "mlp_output", "median": 1.0}]
    assert "cannot be folded" in activation(judge(features=outlying(800.0), norms=norms), 8)["reason"]
    assert "folded" not in activation(judge(features=outlying(800.0)), 8)["reason"]


def test_a_fixed_scale_for_all_tokens_is_warned_of_where_one_entry_sets_it(judge):
    assert not judge().all("per_token")
    row = judge(layers=planted.layers(top1=3000.0), activations=planted.entries([0])).one("per_token")
    assert (row["module"], row["bound"]) == ("down", 127)
    assert row["value"] == pytest.approx(3750) and "4 of 512 tokens" in row["reason"]


def test_missing_tables_are_told_with_the_command(judge):
    told = judge(weights=[], features=[])
    reasons = " ".join(row["reason"] for row in told.all("not_judged"))
    assert reasons.count("monadnock scan tiny") == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, None, 0.0])
def test_numbers_that_are_none_do_no_harm(judge, value):
    layers = planted.layers(mean_abs=value, median=value, top1=value)
    told = judge(
        layers=layers, features=planted.features(value), weights=[r | {"w8_error": value} for r in planted.weights()]
    )
    assert told.rows
