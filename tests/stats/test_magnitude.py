"""Magnitude against direct formulas in float64, over random states with heavy tails, zeros, NaN and infinity."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monadnock.stats import Magnitude
from monadnock.stats.histogram import RELATIVE_ERROR
from monadnock.stats.magnitude import TOP
from tests.stats.cases import Rows, random_states, seeds, states, steady

BAD = 8  # column of the non-finite count


def measure(*windows: Tensor) -> Magnitude:
    stat = Magnitude(len(windows))
    for window, values in enumerate(windows):
        stat.update(Rows(values), window)
    return stat


def near(expected: float, rel: float = 2e-5):
    return pytest.approx(expected, rel=rel, abs=1e-12, nan_ok=True)


@steady
@given(states)
def test_one_window_equals_the_formulas(values):
    stat = measure(values)
    size = values.double().abs()
    assert float(stat.means()) == near(float(size.mean()))
    assert stat.rms() == near(float(size.square().mean().sqrt()))
    assert float(stat.medians()) == pytest.approx(float(size.flatten().median()), rel=RELATIVE_ERROR * 1.001)
    assert int(stat.scalars[0, 7]) == int((size > 1000 * size.mean()).sum())
    assert int(stat.scalars[0, BAD]) == 0
    assert torch.equal(stat.feature_max.double(), size.amax(0))
    assert torch.allclose(stat.feature_mean().double(), size.mean(0), rtol=1e-5, atol=0)


def kurtosis(values: Tensor) -> float:
    """As scipy.stats.kurtosis(fisher=False) computes it: moments about the mean."""
    centred = values.double().flatten() - values.double().mean()
    variance = float(centred.square().mean())
    return float(centred.pow(4).mean()) / variance**2 if variance else math.nan


@steady
@given(seeds, st.sampled_from(["normal", "heavy", "sparse", "massive", "zero"]), st.floats(-2, 2))
def test_kurtosis_over_all_windows(seed, kind, shift):
    windows = [random_states(seed + i, 30, 40, kind) for i in range(3)]
    if kind == "normal":
        windows = [values + shift for values in windows]
    assert measure(*windows).kurtosis() == near(kurtosis(torch.cat(windows)), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.3, -1e6])
def test_states_that_are_all_the_same_have_no_kurtosis(value):
    assert math.isnan(measure(torch.full((300, 300), value)).kurtosis())  # and not what rounding makes of it


@pytest.mark.parametrize(("shift", "known"), [(5, True), (-9, True), (25, False)])
def test_kurtosis_beside_a_large_mean(shift, known):
    values = shift + torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    found = measure(values).kurtosis()
    assert found == pytest.approx(kurtosis(values), rel=0.02) if known else math.isnan(found)


def test_gaussian_has_kurtosis_three_and_a_known_mean():
    values = torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    stat = measure(values)
    assert stat.kurtosis() == pytest.approx(3, abs=0.05)
    assert stat.rms() / float(stat.means()) == pytest.approx(math.sqrt(math.pi / 2), abs=0.005)
    assert float(stat.medians()) == pytest.approx(0.6745, abs=0.005)


@steady
@given(states, st.booleans())
def test_top_entries_are_the_largest_and_know_their_places(values, shuffled):
    rows = len(values)
    position = torch.randperm(rows, generator=torch.Generator().manual_seed(1)) if shuffled else None
    expert = torch.arange(rows) % 3 if shuffled else None
    stat = Magnitude(1)
    stat.update(Rows(values, position, expert), 0)
    count = min(TOP, values.numel())
    top, place = stat.top_value[0], stat.top_place[0]
    exact = values.abs().flatten().sort(descending=True).values[:count]
    assert torch.equal(top[:count].abs(), exact)
    assert (top[count:] == 0).all() and (place[count:] == -1).all()
    found = place[:count]
    assert len({tuple(entry) for entry in found.tolist()}) == count
    row_of = torch.arange(rows) if position is None else position.argsort()
    assert torch.equal(values[row_of[found[:, 0]], found[:, 1]], top[:count])
    if expert is None:
        assert (found[:, 2] == -1).all()
    else:
        assert torch.equal(expert[row_of[found[:, 0]]], found[:, 2])


@steady
@given(states, seeds, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(1, 9))
def test_non_finite_entries_are_counted_and_left_out(values, seed, bad, count):
    count = min(count, values.numel())
    places = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(seed))[:count]
    broken, healed = values.clone(), values.clone()
    broken.view(-1)[places] = bad
    healed.view(-1)[places] = 0.0
    found, expected = measure(broken), measure(healed)
    assert int(found.scalars[0, BAD]) == count
    assert torch.equal(found.scalars[0, :BAD], expected.scalars[0, :BAD])
    assert torch.equal(found.top_value.abs(), expected.top_value.abs())
    assert torch.equal(found.feature_max, expected.feature_max)
    assert torch.equal(found.feature_sum, expected.feature_sum)


def test_a_window_of_nothing_but_nan():
    stat = measure(torch.full((3, 5), math.nan), torch.ones(3, 5))
    assert stat.scalars[:, BAD].tolist() == [15, 0]
    assert stat.means().tolist() == [0, 1]
    assert (stat.top_value[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    values = (100 * random_states(3, 300, 300, "normal")).to(dtype)
    stat, exact = measure(values), measure(values.float())
    assert torch.equal(stat.scalars, exact.scalars)
    assert float(stat.means()) == near(float(values.double().abs().mean()))
    assert stat.top_value.dtype == torch.float32


def test_outliers_are_relative_to_their_own_window():
    quiet, loud = torch.ones(40, 40), 50 * torch.ones(40, 40)
    quiet[7, 9] = loud[7, 9] = -6000.0  # 1264 and 112 times the mean
    stat = measure(quiet, loud)
    assert stat.scalars[:, 7].tolist() == [1, 0]
    assert stat.top_place[:, 0].tolist() == [[7, 9, -1]] * 2
    assert stat.top_value[:, 0].tolist() == [-6000, -6000]


def test_only_windows_that_were_seen_count():
    stat = Magnitude(3)
    stat.update(Rows(torch.ones(2, 4)), 1)
    assert stat.means().tolist() == [1] and stat.rms() == 1
    assert stat.feature_mean().tolist() == [1, 1, 1, 1]


def test_states_are_not_changed():
    values = torch.tensor([[1.0, math.nan], [2.0, -3.0]])
    measure(values)
    assert values.nan_to_num(9.0).tolist() == [[1, 9], [2, -3]]
