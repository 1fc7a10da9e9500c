"""SpQR of one matrix: equal to the authors' implementation, and what must hold of any rounding."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.compression import Method, Setting, round_spqr
from monadnock.compression.grid import Grid
from monadnock.compression.spqr import inverse_factor

FILE = Path(__file__).parent / "data" / "spqr_layer0_k_proj.npz"
PUBLISHED = {
    "gptq3_act": Setting(bits=3, statistics_bits=None, threshold=math.inf, damping=0.01),
    "spqr3_t0.2": Setting(bits=3),
    "spqr4_t0.2": Setting(bits=4),
}


@pytest.fixture(scope="module")
def reference():
    with np.load(FILE, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_gives_what_the_authors_code_gives(reference, name):
    found = round_spqr(reference["W"], reference["H"], PUBLISHED[name])
    expected, mask = reference[f"{name}.weight"], reference[f"{name}.outliers"]
    assert (found.outliers == mask).float().mean() > 0.9999
    assert ((found.weight - expected).abs() < 1e-4).float().mean() > 0.9999
    assert found.threshold == pytest.approx(float(reference[f"{name}.threshold"]), rel=1e-5)


@pytest.mark.parametrize(("name", "bits"), [("spqr3_t0.2", 3), ("spqr4_t0.2", 4)])
def test_with_statistics_as_they_are_stored_it_loses_as_much_as_the_authors_code(reference, name, bits):
    """The form that `compress` takes: outliers and second-level statistics in float16."""
    found = Method.of("spqr", bits=bits).apply(reference["W"], reference["H"])[1]
    hessian, weight = reference["H"], reference["W"]
    mine, theirs = (loss(weight, each, hessian) for each in (found.weight, reference[f"{name}.weight"]))
    assert mine == pytest.approx(theirs, rel=0.005)
    kept = int(reference[f"{name}.outliers"].sum())
    assert int(found.outliers.sum()) == pytest.approx(kept, rel=0.05)


def draw(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * columns, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), inputs.t() @ inputs


def loss(weight, rounded, hessian):
    change = rounded - weight
    return float(((change @ hessian) * change).sum())


def nearest(weight, bits, group):
    parts = [Grid.fit(part, bits).round(part) for part in weight.split(group, dim=1)]
    return torch.cat(parts, 1)


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from([2, 3, 4]), st.integers(0, 99), st.booleans())
def test_any_matrix_is_rounded(rows, columns, bits, seed, by_size):
    weight, hessian = draw(rows, columns, seed)
    found = round_spqr(weight, hessian, Setting(bits=bits, by_size=by_size))
    assert found.weight.shape == found.outliers.shape == weight.shape
    assert found.weight.isfinite().all()


def test_making_up_for_errors_beats_rounding_to_the_nearest():
    weight, hessian = draw(32, 64)
    setting = Setting(bits=3, statistics_bits=None, threshold=math.inf, damping=0.01)
    assert loss(weight, round_spqr(weight, hessian, setting).weight, hessian) < 0.7 * loss(
        weight, nearest(weight, 3, 16), hessian
    )


def test_many_bits_change_nothing():
    weight, hessian = draw(8, 32)
    setting = Setting(bits=16, statistics_bits=None, threshold=math.inf)
    torch.testing.assert_close(round_spqr(weight, hessian, setting).weight, weight, atol=2e-3, rtol=0)


def test_a_planted_outlier_is_kept_apart_and_spares_its_group():
    weight, hessian = draw(16, 64)
    weight[3, 17] = 40.0
    found = round_spqr(weight, hessian, Setting(bits=3, statistics_bits=None))
    assert found.outliers[3, 17]
    without = round_spqr(weight, hessian, Setting(bits=3, statistics_bits=None, threshold=math.inf))
    row = slice(3, 4)
    assert loss(weight[row], found.weight[row], hessian) < 0.2 * loss(weight[row], without.weight[row], hessian)


def test_a_lower_threshold_keeps_more_apart():
    weight, hessian = draw(32, 64)
    counts = [int(round_spqr(weight, hessian, Setting(threshold=t)).outliers.sum()) for t in (0.05, 0.2, 1.0, math.inf)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] and counts[3] == 0


def test_inputs_that_never_fire_lose_their_weights():
    weight, hessian = draw(8, 32)
    hessian[5], hessian[:, 5] = 0, 0
    setting = Setting(bits=8, statistics_bits=None, threshold=math.inf, group=1)
    found = round_spqr(weight, hessian, setting).weight
    assert found.isfinite().all() and found[:, 5].abs().max() < 1


def test_the_factor_is_that_of_the_inverse():
    _, hessian = draw(1, 12)
    factor = inverse_factor(hessian, 0.5)
    damped = hessian + 0.5 * hessian.diagonal().mean() * torch.eye(12)
    torch.testing.assert_close((factor.t() @ factor) @ damped, torch.eye(12), atol=1e-3, rtol=0)
    assert torch.equal(factor, factor.triu())


def test_what_cannot_be_inverted_or_does_not_fit_is_told():
    with pytest.raises(MonadnockError, match="cannot be inverted with damping 0"):
        round_spqr(torch.randn(2, 3), -torch.eye(3), Setting(damping=0))
    with pytest.raises(MonadnockError, match=r"A weight of shape \(2, 3\) came with a Hessian of \(4, 4\)"):
        round_spqr(torch.randn(2, 3), torch.eye(4))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_rounding_twice_changes_nothing_and_stays_within_half_a_step(rows, columns, bits, seed):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    grid = Grid.fit(values, bits)
    found = grid.round(values)
    torch.testing.assert_close(grid.round(found), found, atol=1e-5, rtol=1e-5)
    assert ((found - values).abs() <= 0.5001 * grid.scale + 1e-6)[(values.amin(1) != values.amax(1))].all()


@pytest.mark.parametrize("setting", [Setting(half=True), Setting(3, 16, None, threshold=math.inf, damping=0.01)])
def test_pruned_rows_and_dead_inputs_stay_zero(setting):
    weight, hessian = draw(64, 64)
    weight[20:52] = 0
    hessian[48:], hessian[:, 48:] = 0, 0  # one group of columns
    found = round_spqr(weight, hessian, setting)
    assert found.weight[20:52].abs().max() < 0.05 * weight.std()
    assert found.weight[:, 48:].abs().max() < 0.05 * weight.std()
    assert found.outliers[:, 48:].float().mean() <= found.outliers[:, :48].float().mean() + 0.01
    assert loss(weight, found.weight, hessian) < 0.1 * loss(weight, 0 * weight, hessian)


@pytest.mark.parametrize(("rows", "columns", "group"), [(2000, 64, 2), (2000, 18, 16), (64, 16, 1)])
def test_groups_of_nearly_equal_values_break_nothing_in_half_precision(rows, columns, group):
    weight, hessian = draw(rows, columns)
    weight[0] = 3.0 + 1e-6 * weight[0]
    found = round_spqr(weight, hessian, Setting(group=group, half=True))
    assert found.weight.isfinite().all()
    assert loss(weight, found.weight, hessian) < 0.1 * loss(weight, 0 * weight, hessian)


def test_a_row_of_equal_values_is_rounded_to_itself():
    for value in (0.0, 5.0, -0.3):
        row = torch.full((2, 4), value)
        assert torch.equal(Grid.fit(row, 4).round(row), row)
