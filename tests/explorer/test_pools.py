"""Maxima of squares of weights, and the bytes that they are kept as."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from monadnock.explorer.pools import as_bytes, finest, pool
from monadnock.explorer.weights import QUANTITIES, read_weights
from tests.explorer import planted


def direct(values, side):
    """Return the maxima of squares: each value beside the others of its square, the largest taken."""
    height, width = (-(-length // side) for length in values.shape)
    room = np.full((height * side, width * side), values.min())
    room[: values.shape[0], : values.shape[1]] = values
    return room.reshape(height, side, width, side).max((1, 3))


@given(arrays.arrays(np.int16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_pooling_takes_the_maximum(values, side):
    np.testing.assert_array_equal(pool(values, side), direct(values, side))


@pytest.mark.parametrize("name", ["map-002-q", *planted.odd_matrices()])
def test_every_level_is_the_direct_maximum(run, name):
    weights, _ = read_weights(run, name)
    values = planted.sensitivities(run.tensors(name)[0], weights.bits, weights.group)
    for quantity, pooled in finest(weights).items():
        kept = as_bytes(pooled)
        for side, codes in kept.levels.items():
            wanted = direct(values[quantity], side)
            shown = 10 ** (kept.low + (codes - 1.0) / 253 * (kept.high - kept.low))
            assert codes.shape == wanted.shape
            least = wanted > 10**kept.low  # below it all are alike
            half = (kept.high - kept.low) / 253 / 2 + 1e-3
            assert np.abs(np.log10(shown[least] / wanted[least])).max(initial=0) < half
    assert set(finest(weights)) == set(QUANTITIES)


def test_there_is_an_overview_and_a_level_that_fits_a_small_window():
    kept = as_bytes(np.ones((1024, 3)))
    assert list(kept.levels) == [8, 16, 32, 64]
    assert list(as_bytes(np.ones((3, 3))).levels) == [8, 16, 32]


def test_one_weight_of_many_is_not_lost():
    values = np.full((300, 300), 1e-6)
    values[123, 211] = 1.0
    kept = as_bytes(pool(values, 8))
    assert kept.levels[32][3, 6] == 254
    assert (kept.levels[32] == 254).sum() == 1


@pytest.mark.parametrize(
    "values", [np.zeros((9, 9)), np.full((9, 9), 3e-30), np.eye(9) * 1e30, np.where(np.eye(9), np.inf, 0)]
)
def test_bytes_of_zeros_of_equal_and_of_far_values_are_finite(values):
    kept = as_bytes(values)
    assert kept.low < kept.high
    assert (kept.levels[8] == 0).tolist() == (values == 0).tolist()
    assert kept.levels[8].max() <= 254
