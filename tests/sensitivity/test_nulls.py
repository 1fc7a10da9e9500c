"""Scores of patterns against plain loops and least squares; what permutations keep, and what p-values they give."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.sensitivity import scores
from monadnock.sensitivity.nulls import Chance, Rolls, permuted_chance, spread_sample, without_wide_parts

pytestmark = pytest.mark.usefixtures("one_thread")
SEED = st.integers(0, 2**31)
few = settings(max_examples=8)


@few
@given(SEED, st.integers(2, 9), st.integers(2, 12))
def test_scores_are_what_loops_give(seed, height, width):
    levels = torch.randn(height, 2 * width, generator=torch.Generator().manual_seed(seed))
    table, blocks = levels.double().numpy(), np.repeat([0, 1], width)
    means = [np.mean(line) for line in table]
    assert scores.line_scores(levels).numpy() == pytest.approx(
        np.array(means) - np.sort(means)[(height - 1) // 2], abs=1e-5
    )
    parts = np.array([[np.mean(line[blocks == block]) for block in (0, 1)] for line in table])
    wanted = parts - parts.mean(1, keepdims=True) - parts.mean(0) + parts.mean()
    assert scores.part_scores(levels, torch.tensor(blocks)).numpy() == pytest.approx(wanted, abs=1e-5)
    stripes = [np.mean(table[:, :width]) - np.mean(table[:, width:])]
    assert scores.stripe_scores(levels.mean(0), width).numpy() == pytest.approx([*stripes, -stripes[0]], abs=1e-5)
    pair = np.corrcoef(table[:, :width].flatten(), table[:, width:].flatten())[0, 1]
    assert float(scores.pair_score(levels)) == pytest.approx(pair, abs=1e-5)


@few
@given(SEED, st.integers(2, 6), st.integers(2, 5))
def test_the_unstructured_share_is_what_a_fit_leaves(seed, height, width):
    """Least squares with one number for each row and block, and one for each column."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randn(height, 2 * width, generator=generator) + 3 * torch.randn(height, 1, generator=generator)
    blocks = torch.arange(2 * width) // width
    places = [(row, column) for row in range(height) for column in range(2 * width)]
    design = np.zeros((len(places), 2 * height + 2 * width))
    for entry, (row, column) in enumerate(places):
        design[entry, 2 * row + int(blocks[column])] = design[entry, 2 * height + column] = 1
    wanted = levels.double().numpy().flatten()
    left = wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    free = len(places) - np.linalg.matrix_rank(design)
    share = (left @ left / free) / np.var(wanted, ddof=1)
    assert scores.unstructured_share(levels, blocks) == pytest.approx(min(share, 1), abs=1e-4)


@few
@given(SEED, st.integers(1, 9), st.integers(1, 9))
def test_rolls_keep_the_order_within_columns(seed, height, width):
    matrix = torch.arange(height * width).view(height, width)
    rolled = Rolls(matrix).draw(torch.Generator().manual_seed(seed))
    for before, after in zip(matrix.T, rolled.T, strict=True):
        assert any(torch.equal(before.roll(offset), after) for offset in range(height))


@few
@given(SEED, st.integers(0, 31), st.integers(0, 1))
def test_only_wide_parts_are_made_narrower(seed, row, part):
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(seed))
    blocks = torch.arange(128) // 64
    weight[row, part * 64 : part * 64 + 64] *= 9
    weight[row, 64 - part * 64] = 99
    changed = without_wide_parts(weight, blocks)
    ratio = changed / weight
    assert float(ratio[row, part * 64]) == pytest.approx(1 / 9, rel=0.5)
    ratio[row, part * 64 : part * 64 + 64] = 1
    assert torch.equal(ratio, torch.ones_like(ratio))


def test_every_roll_is_drawn():
    generator, rolls = torch.Generator().manual_seed(0), Rolls(torch.arange(6).view(3, 2))
    assert len({tuple(rolls.draw(generator).flatten().tolist()) for _ in range(200)}) == 9


@few
@given(SEED, st.integers(1, 4), st.integers(2, 6))
def test_lines_stay_in_their_block(seed, blocks, size):
    lines, seen = torch.arange(blocks * size).view(blocks, size).float(), []
    permuted_chance(lines, lambda each: seen.append(each) or each.sum((1, 2)), 7, torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat(seen).sort(-1).values, lines.expand(7, -1, -1))


def test_the_chance_of_two_alike_lines_in_one_stripe_is_a_third():
    lines = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    chance = permuted_chance(
        lines, lambda each: scores.stripe_scores(each, 2).amax((1, 2)), 3000, torch.Generator().manual_seed(0)
    )
    assert chance.p_value(1.0) == pytest.approx(1 / 3, abs=0.03)


def test_p_values_are_never_0():
    assert Chance(torch.zeros(99)).p_value(1e9) == 0.01
    assert Chance(torch.ones(99)).p_value(1.0) == 1.0


@given(st.integers(1, 500), st.integers(1, 500), SEED)
def test_samples_are_spread(size, most, seed):
    sample = spread_sample(size, most, torch.Generator().manual_seed(seed)).tolist()
    assert len(sample) <= most and sample == sorted(set(sample)) and 0 <= sample[0] <= sample[-1] < size
    assert max(np.diff([-1, *sample, size])) <= 2 * math.ceil(size / most)
