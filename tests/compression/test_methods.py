"""Compressors: what each makes of a matrix, and that nothing is left of it in the model afterwards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.calibrating import walk
from monadnock.compression import METHODS, Method, compressed
from monadnock.compression.simple import absmax, magnitude, nearest
from monadnock.data.windows import Windows
from monadnock.models import Adapter, Source
from monadnock.models.family import families
from monadnock.models.matrices import Matrix, find_matrices
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def adapt(model_type="llama", **changes):
    return Adapter(tiny_model(model_type, **changes), None, Source(model_type, "object"))


def text(count=2, length=12):
    ids = torch.randint(3, 120, (count, length), generator=torch.Generator().manual_seed(1))
    return Windows(ids, False, "drawn", 0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 12), st.integers(0, 99))
def test_absmax_is_the_formula_of_the_paper(rows, columns, bits, seed):
    weight, top = drawn(rows, columns, seed), 2 ** (bits - 1) - 1
    scale = weight.abs().max() / top
    expected = torch.round(weight / scale) * scale
    torch.testing.assert_close(absmax(weight, bits, whole=True), expected)
    by_row = absmax(weight, bits)
    for row, found in zip(weight, by_row, strict=True):
        torch.testing.assert_close(found[None], absmax(row[None], bits, whole=True))
    assert ((by_row - weight).abs() <= 0.5001 * weight.abs().amax(1, keepdim=True) / top + 1e-7).all()
    assert (by_row.unique().numel() <= rows * (2 * top + 1)) and torch.equal(
        absmax(torch.zeros(2, 2)), torch.zeros(2, 2)
    )


@given(st.integers(1, 9), st.integers(1, 12), st.floats(0, 0.99), st.booleans(), st.integers(0, 99))
def test_magnitude_takes_the_smallest_and_no_more(rows, columns, share, whole, seed):
    weight = drawn(rows, columns, seed)
    found = magnitude(weight, share, whole=whole)
    parts = [(weight.flatten(), found.flatten())] if whole else list(zip(weight, found, strict=True))
    for before, after in parts:
        gone = after == 0
        assert int(gone.sum()) == int(share * len(before))
        assert torch.equal(before[~gone], after[~gone])
        if gone.any():
            assert before[gone].abs().max() <= before[~gone].abs().min()


@given(st.integers(1, 6), st.integers(2, 20), st.integers(1, 20), st.integers(0, 99))
def test_rounding_to_the_nearest_stays_within_half_a_step(rows, columns, group, seed):
    weight = drawn(rows, columns, seed)
    found = nearest(weight, 3, group)
    for before, after in zip(weight.split(group, 1), found.split(group, 1), strict=True):
        if before.shape[1] > 1:
            step = (before.amax(1, keepdim=True) - before.amin(1, keepdim=True)) / 7
            assert ((before - after).abs() <= step * 0.5001 + 1e-6).all()


def test_average_bits_are_the_published_ones():
    shape = torch.Size([576, 576])
    for method, outliers, bits in (
        (Method.of("spqr", bits=4), 0.00056, 4.643),
        (Method.of("spqr", threshold=0.1), 0.04299, 5.001),
        (Method.of("spqr"), 0.01773, 4.192),
        (Method.of("spqr", threshold=1.0), 0.00037, 3.637),
        (Method.of("gptq", bits=3), 0.0, 5.0),
        (Method.of("rtn", granularity="group"), 0.0, 6.0),
    ):
        assert method.average_bits(shape, outliers) == pytest.approx(bits, abs=6e-4), str(method)
    assert Method.of("rtn").average_bits(shape) == pytest.approx(4 + 32 / 576)
    assert Method.of("absmax").average_bits(shape) == pytest.approx(8 + 16 / 576**2)
    assert Method.of("absmax", granularity="row").average_bits(shape) == pytest.approx(8 + 16 / 576)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"name": "sqpr"}, "no compressor 'sqpr'.*spqr"),
        ({"name": "spqr", "granularity": "tensor"}, "spqr by tensor was asked; it works by group"),
        ({"name": "magnitude", "bits": 8}, "it prunes"),
        ({"name": "absmax", "bits": 1}, "takes 2 to 16"),
        ({"name": "absmax", "granularity": "row", "group": 4}, "a group has at least 1 column"),
        ({"name": "magnitude", "share": 1.0}, "a share from 0 to below 1"),
        ({"name": "spqr", "threshold": 0.0}, "a threshold above 0"),
        ({"name": "spqr", "damping": -1.0}, "a damping of at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_told(asked, told):
    with pytest.raises(MonadnockError, match=told):
        Method.of(**asked)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model_type", families())
def test_every_family_is_compressed_and_given_back_to_the_bit(model_type, name):
    adapter, window = adapt(model_type), text()
    before = {key: value.clone() for key, value in adapter.model.state_dict().items()}
    matrices = find_matrices(adapter)
    with compressed(adapter, Method.of(name), window) as rows:
        assert [(row["layer"], row["module"], row["expert"]) for row in rows] == [
            (each.layer, each.module, each.expert) for each in matrices
        ]
        changed = [key for key, value in adapter.model.state_dict().items() if not torch.equal(value, before[key])]
        assert changed and all(row["name"] for row in rows)
        assert not any("norm" in key or "embed" in key or "lm_head" in key for key in changed)
        if name == "magnitude":
            assert all(abs(float((m.weight(adapter).read() == 0).float().mean()) - 0.5) < 0.01 for m in matrices)
        names = {row["name"] for row in rows}
        known = {name for name, _ in adapter.model.named_modules()} | {n for n, _ in adapter.model.named_parameters()}
        assert names <= known
    after = adapter.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_model_is_given_back_after_an_error():
    adapter = adapt()
    before = adapter.weight(1, "down").read().clone()
    with pytest.raises(RuntimeError, match="stop"), compressed(adapter, Method.of("absmax")):
        raise RuntimeError("stop")
    assert torch.equal(adapter.weight(1, "down").read(), before)


def test_nothing_pruned_and_sixteen_bits_change_nothing():
    adapter, ids = adapt(), text().ids[0]
    clean = adapter.forward(ids, keep=12)
    with compressed(adapter, Method.of("magnitude", share=0.0)):
        assert torch.equal(adapter.forward(ids, keep=12), clean)
    with compressed(adapter, Method.of("absmax", bits=16, granularity="row")):
        torch.testing.assert_close(adapter.forward(ids, keep=12), clean, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_kept_rows_are_as_they_were_and_not_counted_in_scales(name):
    adapter, window = adapt(), text()
    up = Matrix(1, "up")
    with torch.no_grad():
        up.weight(adapter).strided[5].mul_(1000)
    kept = up.weight(adapter).read()[5].clone()
    error = {}
    for keep in ({}, {up: [5]}):
        with compressed(adapter, Method.of(name), window, keep=keep) as rows:
            (row,) = [each for each in rows if (each["layer"], each["module"]) == (1, "up")]
            others = torch.arange(48) != 5
            before = torch.cat([up.weight(adapter).read()[others]])
            error[bool(keep)] = before.clone()
            if keep:
                torch.testing.assert_close(up.weight(adapter).read()[5], kept.half().float(), rtol=0, atol=0)
                assert row["kept_rows"] == 1
                assert row["average_bits"] > 0
    if name in ("absmax", "magnitude"):  # one scale, or one bound, for the whole matrix: the others gain
        clean = up.weight(adapter).read()[others]
        assert (error[True] - clean).norm() < (error[False] - clean).norm()


@pytest.mark.parametrize("first", [Matrix(0, "down"), Matrix(2, "v"), Matrix(2, "gate")])
def test_each_is_rounded_for_the_inputs_that_those_before_give(first):
    """Of an earlier block, and of its own: o after v, down after gate."""
    adapter, window, method = adapt(), text(4), Method.of("gptq", bits=2)
    then = Matrix(2, "down" if first.module == "gate" else "o")
    weight = then.weight(adapter).read().clone()
    with compressed(adapter, method, window, matrices=[first]):
        (inputs,) = walk(adapter, window, [then])
        expected, _ = method.apply(weight, inputs.moment(then).hessian)
    with compressed(adapter, method, window, matrices=[first, then]):
        torch.testing.assert_close(then.weight(adapter).read(), expected)
    with compressed(adapter, method, window, matrices=[then]):
        assert not torch.equal(then.weight(adapter).read(), expected)


def test_output_error_is_that_of_the_layers_outputs():
    adapter, window = adapt(), text(4)
    matrix = Matrix(0, "q")
    (inputs,) = walk(adapter, window, [matrix])
    hessian, weight = inputs.moment(matrix).hessian, matrix.weight(adapter).read().clone()
    with compressed(adapter, Method.of("gptq"), window, matrices=[matrix]) as (row,):
        change = (matrix.weight(adapter).read() - weight).double()
    expected = (change @ hessian * change).sum() / (weight.double() @ hessian * weight).sum()
    assert row["output_error"] == pytest.approx(float(expected), rel=1e-3)
    assert row["weight_error"] == pytest.approx(float(change.norm() / weight.double().norm()), rel=1e-4)


def test_of_equal_weights_the_first_stay():
    weight = torch.tensor([[2.0, -1.0, 1.0, 1.0], [1.0, 1.0, -2.0, 1.0]])
    assert Method.of("magnitude", granularity="row").apply(weight)[0].tolist() == [[2, -1, 0, 0], [1, 0, -2, 0]]
    assert Method.of("magnitude").apply(weight)[0].tolist() == [[2, -1, 1, 0], [0, 0, -2, 0]]
