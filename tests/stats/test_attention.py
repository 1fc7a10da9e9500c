"""Attention sums against direct formulas on whole probability matrices, fed in blocks of any size."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monadnock.stats import Attention
from monadnock.stats import probabilities as at
from tests.stats.cases import Causal, attention_of, steady

cuts = st.lists(st.integers(1, 70), max_size=6)
drawn = attention_of(st.integers(1, 70))


def feed(case: Causal, blocks: list[int]) -> Attention:
    stat = Attention(1)
    for block in case.blocks(blocks):
        stat.update(block, 0)
    return stat


def with_mean(scores: Tensor) -> Tensor:
    """Add the mean over heads as a last row."""
    return torch.cat([scores, scores.mean(0, keepdim=True)])


def near(expected: Tensor):
    return pytest.approx(expected.numpy(), rel=1e-5, abs=1e-6)


@steady
@given(drawn, cuts)
def test_masses_entropy_and_distance(case, blocks):
    head = feed(case, blocks).head[0]
    probs, size = case.probs, case.size
    back = torch.arange(size)[:, None] - torch.arange(size)
    entropy = -(probs * probs.clamp(min=1e-300).log()).sum(2)[:, list(at.entropy_queries(probs.shape[1]))].mean(1)
    assert head[:, at.FIRST].numpy() == near(probs[:, :, 0].mean(1))
    assert head[:, at.ENTROPY].numpy() == near(entropy)
    assert head[:, at.DISTANCE].numpy() == pytest.approx(((probs * back).sum(2).mean(1)).numpy(), rel=1e-4, abs=1e-4)
    assert head[:, at.PREVIOUS].numpy() == near((probs * (back == 1)).sum(2).mean(1))
    assert head[:, at.SELF].numpy() == near((probs * (back == 0)).sum(2).mean(1))
    assert head[:, at.NEAR].numpy() == near((probs * (back < 8) * (back >= 0)).sum(2).mean(1))


@steady
@given(drawn, cuts)
def test_top_keys_per_head_and_for_the_mean(case, blocks):
    stat = feed(case, blocks)
    scores = with_mean(case.probs.sum(1))
    count = min(at.TOP, case.size)
    exact = scores.sort(dim=1, descending=True).values[:, :count]
    position = stat.top_position[0, :, :count]
    assert stat.top_value[0, :, :count].numpy() == near(exact)
    assert scores.gather(1, position).numpy() == near(exact)
    assert torch.equal(stat.top_queries[0, :, :count], case.num_queries[position])
    assert (stat.top_position[0, :, count:] == -1).all()


@steady
@given(drawn, cuts)
def test_sink_is_the_largest_normalized_score_among_keys_that_are_seen_enough(case, blocks):
    stat = feed(case, blocks)
    scores, seen = with_mean(case.probs.sum(1)), case.num_queries
    enough = seen >= 0.25 * seen.max()  # of the queries, or of those that a sliding window lets see any one key
    alpha = torch.where(enough, scores / seen, -1.0)
    value, position, queries = stat.peak[0].T
    position = position.long()
    assert (value / queries).numpy() == near(alpha.amax(1))
    assert alpha.gather(1, position[:, None])[:, 0].numpy() == near(alpha.amax(1))
    assert torch.equal(queries.long(), seen[position])
    assert stat.head[0, :, at.SINK].numpy() == near(alpha.amax(1)[:-1])
    assert torch.equal(stat.head[0, :, at.SINK_POSITION].long(), position[:-1])


@steady
@given(drawn, cuts, st.floats(1.1, 4))
def test_outliers_are_counted_against_the_mean_score(case, blocks, ratio):
    with pytest.MonkeyPatch.context() as patch:  # a thousand times the mean needs more than a thousand keys
        patch.setattr(at, "AN2025_RATIO", ratio)
        found = feed(case, blocks).outliers[0]
    scores = with_mean(case.probs.sum(1))
    share = scores / scores.mean(1, keepdim=True)
    assert ((share > ratio * 1.0001).sum(1) <= found).all()
    assert (found <= (share > ratio * 0.9999).sum(1)).all()


def test_one_key_that_gets_everything_is_an_outlier():
    size = 1200
    probs = torch.zeros(2, size, size, dtype=torch.float64)
    probs[0, :, 0] = 1
    probs[1] = torch.eye(size)
    stat = feed(Causal(probs, None), list(range(0, size, 100)))
    assert stat.outliers[0].tolist() == [1, 0, 0]  # the mean over heads gives it half of that
    assert stat.head[0, 0].tolist()[:4] == [1, 1, 0, 0]
    assert stat.head[0, 1, at.SELF] == 1


@steady
@given(st.integers(1, 200), st.lists(st.integers(1, 200), max_size=5))
def test_uniform_causal_attention_gives_harmonic_numbers(size, blocks):
    probs = torch.ones(1, size, size, dtype=torch.float64).tril()
    stat = feed(Causal(probs / probs.sum(2, keepdim=True), None), blocks)
    harmonic = sum(1 / n for n in range(1, size + 1))
    head = stat.head[0, 0]
    assert float(stat.top_value[0, 0, 0]) == pytest.approx(harmonic, rel=1e-5)
    assert float(head[at.FIRST]) == pytest.approx(harmonic / size, rel=1e-5)
    assert float(head[at.DISTANCE]) == pytest.approx((size - 1) / 4, rel=1e-4, abs=1e-5)
    logs = [math.log(query + 1) for query in at.entropy_queries(size)]
    assert float(head[at.ENTROPY]) == pytest.approx(sum(logs) / len(logs), rel=1e-5)
    assert int(head[at.SINK_POSITION]) == 0


@pytest.mark.parametrize("window", [None, 6])
def test_a_late_sink_is_found_and_the_last_keys_are_not(window):
    size, sink = 64, 40
    probs = torch.ones(1, size, size, dtype=torch.float64).tril()
    probs *= torch.ones(size, size).triu(1 - (window or size))
    probs[:, sink:, sink] *= 100
    probs[:, -1] = 0
    probs[:, -1, -1] = 1  # the last key is seen by one query, and gets all of it
    stat = feed(Causal(probs / probs.sum(2, keepdim=True), window), [20, 30, 45])
    assert int(stat.head[0, 0, at.SINK_POSITION]) == sink
    assert float(stat.head[0, 0, at.SINK]) > 0.5


@settings(steady, max_examples=20)
@given(drawn, cuts, cuts)
def test_windows_do_not_mix(case, one, other):
    """A second window, also after a first one that broke off in the middle, is as if it were alone."""
    stat = Attention(2)
    for block in case.blocks([case.size // 2])[:1]:
        stat.update(block, 0)  # broken off, unless it was the whole
    for block in case.blocks(one):
        stat.update(block, 0)
    for block in case.blocks(other):
        stat.update(block, 1)
    alone = feed(case, other)
    assert stat.seen.all()
    assert torch.equal(stat.head[1].nan_to_num(), alone.head[0].nan_to_num())  # a window of one key has no gap
    assert stat.head[0].nan_to_num().numpy() == near(alone.head[0].nan_to_num())


def test_sampled_entropy_is_close_to_that_of_all_queries():
    """Uniform causal attention has entropy ln(i + 1): the middle of each stretch stands for the stretch."""
    size = 512
    sampled = sum(math.log(query + 1) for query in at.entropy_queries(size)) / len(at.entropy_queries(size))
    whole = sum(math.log(query + 1) for query in range(size)) / size
    assert sampled == pytest.approx(whole, rel=0.002)
