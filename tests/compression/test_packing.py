"""The stored form: what is read back is what was rounded, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.compression import Setting, round_spqr
from monadnock.compression.packing import pack, pack_matrix, unpack, unpack_matrix


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=40))
def test_codes_come_back(bits, numbers):
    codes = (np.array(numbers, dtype=np.int64) % 2**bits).astype(np.uint8)
    packed = pack(codes, bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    assert unpack(packed, bits, len(codes)).tolist() == codes.tolist()


@settings(max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 50), st.integers(1, 8), st.integers(1, 20), st.sampled_from([0.01, 0.2, 50]),
    st.integers(0, 3), st.integers(0, 99),
)  # fmt: skip
def test_a_matrix_comes_back_to_the_bit(rows, columns, bits, group, threshold, kept, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 10.0 ** float(seed % 7 - 4)
    inputs = torch.randn(3 * columns, columns, generator=generator)
    setting = Setting(bits, group, 3, threshold=threshold, half=True)
    rounded = round_spqr(weight, inputs.t() @ inputs, setting)
    places = tuple(range(0, 2 * kept, 2)) if kept <= rows else tuple(range(kept))
    arrays, facts = pack_matrix(rounded, setting, torch.ones(kept, columns) / 3, places)
    found = unpack_matrix(arrays, facts)
    others = [row for row in range(rows + kept) if row not in places]
    assert found.shape == (rows + kept, columns)
    assert torch.equal(found[others], rounded.weight)
    assert torch.equal(found[list(places)], (torch.ones(kept, columns) / 3).half().float())


def test_it_is_as_small_as_it_says():
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(256, 512, generator=generator), torch.randn(1024, 512, generator=generator)
    setting = Setting(half=True)
    rounded = round_spqr(weight, inputs.t() @ inputs, setting)
    arrays, _ = pack_matrix(rounded, setting, weight[:0], ())
    share = float(rounded.outliers.float().mean())
    stored = 8 * sum(each.nbytes for each in arrays.values()) / weight.numel()
    order_and_starts = (16 * 512 + 32 * 257) / weight.numel()
    assert stored == pytest.approx(3 + 6 / 16 + 64 / 256 + 32 * share + order_and_starts, rel=1e-3)


def test_half_precision_costs_next_to_nothing():
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(64, 128, generator=generator), torch.randn(512, 128, generator=generator)
    hessian = inputs.t() @ inputs
    losses = []
    for half in (False, True):
        change = round_spqr(weight, hessian, Setting(half=half)).weight - weight
        losses.append(float(((change @ hessian) * change).sum()))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_damage_is_told():
    weight, inputs = torch.randn(4, 8), torch.randn(32, 8)
    setting = Setting(half=True)
    arrays, facts = pack_matrix(round_spqr(weight, inputs.t() @ inputs, setting), setting, weight[:0], ())
    for damage in ({"codes": arrays["codes"][:1]}, {"order": arrays["order"][:2]}, {"scale_steps": arrays["codes"]}):
        with pytest.raises(MonadnockError, match="packed matrix is damaged"):
            unpack_matrix(arrays | damage, facts)
    with pytest.raises(MonadnockError, match="packed matrix is damaged"):
        unpack_matrix({}, facts)
