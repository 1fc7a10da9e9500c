"""What sinks do, streamed in blocks, against direct formulas on whole probability matrices and naive loops."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monadnock.models.heads import HeadStates
from monadnock.models.rotary import Turn
from monadnock.stats import AttentionStates
from monadnock.stats import probabilities as at
from monadnock.stats.heads import BINS, TOP
from tests.stats.cases import Causal, attention_of, seeds, steady

cuts = st.lists(st.integers(1, 40), max_size=4)
drawn = attention_of(st.integers(2, 40))
THETA = torch.tensor([1.0, 0.1, 0.004], dtype=torch.float64)


def states_of(case: Causal, seed: int, *, gated: bool = False, kv_heads: int = 1, factor: float = 1.0) -> HeadStates:
    """Return random head states with 8 dimensions, two of which do not turn."""
    random = torch.Generator().manual_seed(seed)
    heads, size = len(case.probs), case.size
    angles = torch.arange(size)[:, None] * THETA
    turn = Turn((factor * angles.cos()).float(), (factor * angles.sin()).float(), THETA, *torch.arange(6).view(2, 3))
    query, key, value = (torch.randn(count, size, 8, generator=random) for count in (heads, kv_heads, kv_heads))
    gate = torch.rand(heads, size, generator=random) if gated else None
    return HeadStates(query, key, value, 0.35, case.num_queries, turn, gate)


def feed(case: Causal, blocks: list[int], states: HeadStates, windows: int = 1, window: int = 0) -> AttentionStates:
    stat = AttentionStates(windows)
    for block in reversed(case.blocks(blocks)):
        stat.update(block, window)
    stat.update(states, window)
    return stat


def sinks_of(case: Causal) -> Tensor:
    """Which keys are a sink of which head, [head, key]."""
    seen = case.num_queries
    return (case.probs.sum(1) / seen > 0.3) & (seen >= 0.25 * seen.max())


@dataclass
class Summed:
    """A case with the attention that stays when sinks are taken away, [head, query]."""

    case: Causal

    @property
    def scaled(self) -> Tensor:
        return (self.case.probs * ~sinks_of(self.case)[:, None]).sum(2)


@steady
@given(drawn, cuts, seeds, st.booleans())
def test_scaling_is_what_the_sinks_leave(case, blocks, seed, gated):
    states = states_of(case, seed, gated=gated)
    stat, expected = feed(case, blocks, states), Summed(case).scaled
    if gated:
        expected = expected * states.gate
    if case.size <= 8 or not gated:  # the mean is exact even where a sink was not kept in every block
        assert stat.scaled[0].sum(1).numpy() == pytest.approx((expected).sum(1).numpy(), rel=1e-4, abs=1e-4)
    sinks = sinks_of(case)
    assert stat.facts[0, :, 0].numpy() == pytest.approx(sinks.sum(1).numpy())
    assert torch.equal(stat.sink_positions[0], sinks.any(0))
    assert int(stat.scaled_bins.sum()) == expected.numel()


@steady
@given(st.integers(1, 6), st.integers(9, 60), cuts, seeds)
def test_scaling_is_exact_for_every_query_where_sinks_are_strong(heads, size, blocks, seed):
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(heads, size, size, generator=random, dtype=torch.float64)
    scores[:, :, 0] += 6 + 2 * torch.randn(heads, size, generator=random, dtype=torch.float64)
    hidden = torch.arange(size)[:, None] < torch.arange(size)
    case = Causal(scores.masked_fill(hidden, -torch.inf).softmax(-1).float().double(), None)
    stat = feed(case, blocks, states_of(case, seed))
    assert stat.scaled[0].numpy() == pytest.approx(Summed(case).scaled.numpy(), abs=1e-5)
    direct = (Summed(case).scaled * BINS).floor().clamp(0, TOP * BINS - 1)
    below = torch.stack([(direct < edge).sum(1) for edge in range(1, TOP * BINS + 1)], 1)
    assert (stat.scaled_bins.cumsum(1) - below).abs().max() <= 2  # rounding at the edge of a bin


@steady
@given(drawn, cuts, seeds, st.sampled_from([1.0, 1.3]))
def test_rotary_sums_are_those_of_naive_loops(case, blocks, seed, factor):
    states = states_of(case, seed, factor=factor)
    stat, (heads, size, width) = feed(case, blocks, states), states.query.shape
    peak = stat.head[0, :, at.SINK_POSITION].long()
    back = torch.polar(torch.ones(size, 3), -(torch.arange(size)[:, None] * THETA).float())
    for name, part in (("rotary_q", states.query), ("rotary_k", states.key)):
        pairs = torch.complex(part[..., :3], part[..., 3:6])
        plain = (pairs * back).sum(1)
        expected = torch.stack([pairs.abs().sum(1), plain.real, plain.imag], -1)
        assert getattr(stat, name).numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-4)
    visible = case.probs.sum(0) > 0 if not _leaks(case) else _visible(case)
    for head in range(heads):
        sees = visible[:, peak[head]]
        products = states.query[head][sees] * states.key[0, peak[head]] * states.scale
        assert stat.rotary_sink_products[head].numpy() == pytest.approx(products.mean(0).numpy(), rel=1e-3, abs=1e-4)
        total = torch.zeros(width)
        for query in range(size):
            total += (states.query[head, query] * states.key[0][visible[query]] * states.scale).sum(0)
        mean = total / int(visible.sum())
        assert stat.rotary_mean_products[head].numpy() == pytest.approx(mean.numpy(), rel=1e-3, abs=1e-3)
        radius = torch.hypot(states.key[0, peak[head], :3], states.key[0, peak[head], 3:6])
        assert stat.rotary_sink[head].numpy() == pytest.approx(radius.numpy(), rel=1e-5)
        norms = states.value[0].norm(dim=-1)
        assert float(stat.facts[0, head, 2]) == pytest.approx(float(norms[peak[head]] / norms.mean()), rel=1e-4)
    assert stat.rotary_max[1].numpy() == pytest.approx(states.key.abs().amax((0, 1)).numpy())


def _visible(case: Causal) -> Tensor:
    back = torch.arange(case.size)[:, None] - torch.arange(case.size)
    return (back >= 0) & (back < (case.window or case.size))


def _leaks(case: Causal) -> bool:
    return bool((case.probs.sum(2) < 0.999).any())


@steady
@given(st.integers(2, 12), seeds, st.booleans())
def test_merging_parts_equals_one_pass(size, seed, gated):
    cases = [Causal(torch.rand(2, size, size).double().tril().softmax(-1).tril(), None) for _ in range(3)]
    states = [states_of(case, seed + place, gated=gated) for place, case in enumerate(cases)]
    whole, parts = AttentionStates(3), [AttentionStates(3) for _ in cases]
    for window, (case, heads) in enumerate(zip(cases, states, strict=True)):
        for stat in (whole, parts[window]):
            for block in case.blocks([3]):
                stat.update(block, window)
            stat.update(heads, window)
    first, *others = parts
    for other in others:
        first.merge(other)
    loaded = AttentionStates(3)
    loaded.load_state_dict(first.state_dict())
    for name in AttentionStates.rules:
        assert torch.allclose(
            getattr(loaded, name).double(), getattr(whole, name).double(), rtol=1e-6, equal_nan=True
        ), name


def test_grouped_queries_read_their_own_key():
    case = Causal(torch.eye(5).double().repeat(4, 1, 1), None)
    states = states_of(case, 0, kv_heads=2)
    stat = feed(case, [], states)
    last = stat.head[0, :, at.SINK_POSITION].long()
    for head in range(4):
        key = states.key[head // 2, last[head]]
        products = (states.query[head, last[head] :] * key).mean(0) * states.scale
        assert stat.rotary_sink_products[head].numpy() == pytest.approx(products.numpy(), rel=1e-4, abs=1e-5)


def test_gap_is_that_of_the_logits():
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 40, 40, generator=random, dtype=torch.float64)
    hidden = torch.arange(40)[:, None] < torch.arange(40)
    case = Causal(logits.masked_fill(hidden, -torch.inf).softmax(-1), None)
    expected = []
    for head in range(2):
        gaps = []
        for query in at.entropy_queries(40):
            row = logits[head, query, : query + 1]
            gaps.append(float(row.max() - (row.sum() - row.max()) / query))
        expected.append(math.fsum(gaps) / len(gaps))
    for blocks in ([], [7, 19]):
        found = feed(case, blocks, states_of(case, 0)).head[0, :, at.GAP]
        assert found.numpy() == pytest.approx(expected, rel=1e-5)
