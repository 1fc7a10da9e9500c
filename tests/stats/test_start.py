"""Snapshots keep states as they are; router means are means of softmaxes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.stats import RouterMean, Snapshot
from tests.stats.cases import Rows, seeds, steady


@steady
@given(seeds, st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.booleans())
def test_snapshot_is_a_copy_in_float32(seed, dtype, experts):
    values = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed)).to(dtype)
    stat = Snapshot(1)
    stat.update(Rows(values, None, torch.tensor([2, 0, 1]) if experts else None), 0)
    exact = values.float().clone()
    values.zero_()  # a model may overwrite its states
    assert stat.values.dtype == torch.float32 and torch.equal(stat.values, exact)
    assert stat.seen.tolist() == [True]
    assert not experts or stat.expert.tolist() == [2, 0, 1]
    assert ("expert" in stat.state_dict()) == experts


@steady
@given(seeds, st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 9), st.floats(0, 50))
def test_router_mean_is_the_mean_softmax_over_tokens(seed, lengths, experts, scale):
    random = torch.Generator().manual_seed(seed)
    windows = [scale * torch.randn(length, experts, generator=random) for length in lengths]
    stat = RouterMean(len(windows))
    for window, logits in enumerate(windows):
        stat.update(Rows(logits), window)
    expected = torch.cat(windows).double().softmax(-1).mean(0)
    found = stat.total / stat.count
    assert torch.allclose(found, expected, atol=1e-6)
    assert abs(float(found.sum()) - 1) < 1e-6
