"""s_ij against brute force: the loss of the best compensation, found by least squares."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.sensitivity.loss import KINDS, factors, grids, sensitivity_of, squared_errors
from monadnock.sensitivity.shares import line_rows, share_row


def draw(rows, columns, seed=0, tokens=None):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(tokens or 4 * columns, columns, generator=generator, dtype=torch.float64)
    inputs = inputs @ torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    weight = torch.randn(rows, columns, generator=generator)
    return weight, inputs, 2 / len(inputs) * inputs.t() @ inputs


def rounded(weight, bits):
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return torch.round((weight - low) / step) * step + low


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(2, 9), st.sampled_from([2, 3, 4]), st.integers(0, 99))
def test_compensated_is_the_loss_that_the_best_compensation_leaves(rows, columns, bits, seed):
    weight, inputs, hessian = draw(rows, columns, seed)
    found = sensitivity_of(weight, hessian, "compensated", bits=bits, damping=0)
    errors = rounded(weight, bits) - weight
    for i in range(rows):
        for j in range(columns):
            others = [k for k in range(columns) if k != j]
            made = inputs[:, j] * float(errors[i, j])
            best = torch.linalg.lstsq(inputs[:, others], -made[:, None]).solution
            loss = float((made + (inputs[:, others] @ best)[:, 0]).square().mean())
            assert float(found[i, j]) == pytest.approx(loss, rel=1e-3, abs=1e-9)


@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 3, 8]), st.integers(0, 99))
def test_plain_is_the_loss_of_rounding_one_weight_and_nothing_else(rows, columns, bits, seed):
    weight, inputs, hessian = draw(rows, columns, seed)
    found = sensitivity_of(weight, hessian, "plain", bits=bits)
    step = (weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)) / (2**bits - 1)
    if columns == 1:
        return  # a row of one value: its grid is from -1 to 1
    error = rounded(weight, bits) - weight
    expected = (inputs[:, None, :] * error[None]).square().mean(0)
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-3, atol=float(1e-6 * step.max() ** 2))


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(2, 24), st.integers(0, 99))
def test_sequential_adds_up_to_the_loss_of_the_whole_rounded_matrix(rows, columns, seed):
    from monadnock.compression import Setting, round_spqr

    weight, _, hessian = draw(rows, columns, seed)
    damping = 0.02
    found = sensitivity_of(weight, hessian, "sequential", damping=damping)
    setting = Setting(3, columns, None, threshold=float("inf"), damping=damping)
    change = (round_spqr(weight, hessian, setting).weight - weight).double()
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(columns)
    loss = float(((change @ damped) * change).sum()) / 2
    assert float(found.sum()) == pytest.approx(loss, rel=2e-3)


@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 99))
def test_compensation_never_costs(rows, columns, seed):
    weight, _, hessian = draw(rows, columns, seed)
    plain, compensated = (sensitivity_of(weight, hessian, kind, damping=0) for kind in ("plain", "compensated"))
    assert (compensated <= plain * 1.0001 + 1e-12).all()


def test_two_inputs_that_fire_together_hide_each_other_from_the_compensated_kind_only():
    weight, inputs, _ = draw(8, 16)
    inputs[:, 3] *= 100
    inputs[:, 9] = inputs[:, 3] * 1.7 + 1e-3 * inputs[:, 9]
    hessian = 2 / len(inputs) * inputs.t() @ inputs
    share = {}
    for kind in ("plain", "compensated"):
        columns = sensitivity_of(weight, hessian, kind, damping=1e-9).sum(0)
        share[kind] = float(columns[[3, 9]].sum() / columns.sum())
    assert share["plain"] > 0.9 and share["compensated"] < 0.1


def test_factors_are_those_of_the_inverse_and_leave_the_hessian_as_it_was():
    _, _, hessian = draw(1, 40)
    for each in (hessian, hessian.t().contiguous().t()):
        before = each.clone()
        found = factors(each, 0.01)
        assert torch.equal(each, before)
        inverse = torch.linalg.inv(hessian + 0.01 * hessian.diagonal().mean() * torch.eye(40))
        torch.testing.assert_close(found.compensated, 1 / (2 * inverse.diagonal()))


@pytest.mark.skipif(sys.platform != "linux", reason="tells memory in kilobytes on Linux only")
def test_factors_need_one_matrix_beside_the_hessian():
    """At 11,008 inputs each more is 1 GB."""
    code = (
        "import resource, torch; from monadnock.sensitivity.loss import factors;"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
        "factors(torch.eye(64, dtype=torch.float64), 0.01); hessian = torch.eye(2048, dtype=torch.float64);"
        "before = most(); factors(hessian, 0.01); print(most() - before)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 60, "of 32 MB each"


def test_groups_have_grids_of_their_own():
    weight, _, hessian = draw(4, 12)
    whole, grouped = (sensitivity_of(weight, hessian, "plain", group=group).sum() for group in (None, 3))
    assert grouped < whole
    assert grids(weight, 3, 5).scale.shape == (4, 3)
    alone = torch.cat([squared_errors(weight[:, :5], 3), squared_errors(weight[:, 5:10], 3)], 1)
    torch.testing.assert_close(squared_errors(weight, 3, 5)[:, :10], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_never_fire_cost_little_and_break_nothing(kind):
    weight, inputs, _ = draw(4, 8)
    inputs[:, 2] = 0
    hessian = 2 / len(inputs) * inputs.t() @ inputs
    found = sensitivity_of(weight, hessian, kind)
    assert found.isfinite().all()
    assert found[:, 2].sum() < 0.1 * found.sum()
    assert share_row(weight, found, hessian)["num_dead"] == 1


def test_a_singular_hessian_is_told():
    weight, inputs, _ = draw(2, 8, tokens=3)
    hessian = 2 / len(inputs) * inputs.t() @ inputs
    hessian[:, 5] = hessian[5] = 0
    with pytest.raises(MonadnockError, match="8 inputs, 1 of them always 0, is singular with damping 0"):
        sensitivity_of(weight, hessian, "compensated", damping=0)
    assert sensitivity_of(weight, hessian, "compensated").isfinite().all()
    with pytest.raises(MonadnockError, match="singular"):
        factors(torch.zeros(3, 3).double(), 0.01)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_shares_are_those_of_sorted_values(rows, columns, seed):
    values = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) ** 4
    weight, hessian = torch.ones(rows, columns), 2 * torch.eye(columns).double()
    row = share_row(weight, values, hessian)
    ordered = values.flatten().sort(descending=True).values.double()
    assert row["total"] == pytest.approx(float(ordered.sum()))
    assert row["relative"] == pytest.approx(row["total"] / (rows * columns))
    for name, share in (("top_1e4", 1e-4), ("top_1e2", 1e-2)):
        count = max(round(share * values.numel()), 1)
        assert row[name] == pytest.approx(float(ordered[:count].sum() / ordered.sum()))
    lines = line_rows(values)
    assert len([line for line in lines if line["axis"] == "row"]) == min(rows, 16)
    best = next(line for line in lines if line["axis"] == "column" and line["rank"] == 1)
    assert best["index"] == int(values.sum(0).argmax())


def test_nothing_at_all_has_no_shares():
    row = share_row(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, 3).double())
    assert row["total"] == 0 and row["relative"] is None and row["top_1e3"] is None
    assert line_rows(torch.zeros(2, 3)) == []


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("foo", {}, "no kind of sensitivity 'foo'"),
        ("plain", {"bits": 0}, "0 bits were asked"),
        ("plain", {"group": 0}, "Groups of 0 columns"),
        ("compensated", {"damping": -1.0}, "A damping of -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_told(kind, options, told):
    with pytest.raises(MonadnockError, match=told):
        sensitivity_of(torch.randn(4, 6), torch.eye(6), kind, **options)


def test_a_hessian_of_another_width_is_told():
    with pytest.raises(MonadnockError, match=r"shape \(4, 6\) came with a Hessian of \(5, 5\)"):
        sensitivity_of(torch.randn(4, 6), torch.eye(5), "plain")
