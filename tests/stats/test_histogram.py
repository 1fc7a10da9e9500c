"""The logarithmic histogram: counts every value, and its median is within the stated error of the exact one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.stats.histogram import NUM_BINS, RELATIVE_ERROR, histogram, histogram_median
from tests.stats.cases import states, steady

SMALLEST = 2.0**-126  # the smallest normal float32; below, bins are as wide as their values
sizes = st.floats(SMALLEST, 2.0**127, width=32) | st.just(0.0)


def close_to(exact: float):
    return pytest.approx(exact, rel=RELATIVE_ERROR * (1 + 1e-6), abs=0)


@steady
@given(st.lists(sizes, min_size=1, max_size=40))
def test_median_is_within_the_stated_error_of_the_lower_median(values):
    exact = sorted(values)[(len(values) - 1) // 2]
    assert histogram_median(histogram(torch.tensor(values))) == close_to(exact)


@steady
@given(states)
def test_median_of_states(values):
    magnitudes = values.abs()
    exact = float(magnitudes.flatten().median())  # torch takes the lower one
    assert histogram_median(histogram(magnitudes)) == close_to(exact)


@steady
@given(sizes)
def test_every_bin_is_narrow(value):
    counts = histogram(torch.tensor([value]))
    (place,) = counts.nonzero().flatten().tolist()
    low, high = torch.tensor([place << 16, (place + 1) << 16], dtype=torch.int32).view(torch.float32).tolist()
    assert low <= value < high
    assert value == 0 or (high - low) / 2 <= RELATIVE_ERROR * low


@steady
@given(states, states)
def test_histograms_add_up(first, second):
    together = torch.cat([first.flatten(), second.flatten()]).abs()
    counts = histogram(first.abs()) + histogram(second.abs())
    assert torch.equal(counts, histogram(together))
    assert counts.shape == (NUM_BINS,) and int(counts.sum()) == together.numel()


def test_layout_does_not_matter():
    values = torch.rand(6, 7)
    assert torch.equal(histogram(values.t()), histogram(values))


def test_median_of_nothing_is_nan():
    assert math.isnan(histogram_median(torch.zeros(NUM_BINS, dtype=torch.int64)))
