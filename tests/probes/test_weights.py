"""Table weights against plain numpy formulas on the model's own parameters: fused, transposed, stacked over experts."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.probes.weights import slice_facts
from tests.stats.cases import seeds, steady

pytestmark = pytest.mark.usefixtures("one_thread")


def parts(family: str, layer) -> dict[tuple[str, int | None], np.ndarray]:
    """Return a layer's matrices [out, in] by (module, expert), taken out of the parameters by hand."""
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    found: dict[tuple[str, int | None], np.ndarray] = {}
    if family == "gpt2":
        found["q", None], found["k", None], found["v", None] = np.split(weights["attn.c_attn.weight"].T, 3)
        names = {"o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
        return found | {(role, None): weights[f"{name}.weight"].T for role, name in names.items()}
    if family == "phi3":
        fused = weights["self_attn.qkv_proj.weight"]  # 4 heads of 8, 2 key-value heads
        found["q", None], found["k", None], found["v", None] = fused[:32], fused[32:48], fused[48:]
        found["gate", None], found["up", None] = np.split(weights["mlp.gate_up_proj.weight"], 2)
    else:
        found |= {(role, None): weights[f"self_attn.{role}_proj.weight"] for role in "qkv"}
    found["o", None] = weights["self_attn.o_proj.weight"]
    if family in ("llama", "phi3"):
        roles = ("gate", "up", "down") if family == "llama" else ("down",)
        return found | {(role, None): weights[f"mlp.{role}_proj.weight"] for role in roles}
    both, down = weights["mlp.experts.gate_up_proj"], weights["mlp.experts.down_proj"]
    for expert in range(len(both)):
        if family == "mixtral":
            found["gate", expert], found["up", expert] = np.split(both[expert], 2)
            found["down", expert] = down[expert]
        else:  # gpt_oss stores [in, out], gate and up alternating
            found["gate", expert], found["up", expert] = both[expert].T[::2], both[expert].T[1::2]
            found["down", expert] = down[expert].T
    return found | {("router", None): weights[f"mlp.{'gate' if family == 'mixtral' else 'router'}.weight"]}


def formulas(matrix: np.ndarray, axis: str) -> dict[str, float | int | None]:
    """Return the columns of table `weights`, slice by slice, in float64."""
    matrix = matrix.astype(np.float64)
    slices = {"tensor": [matrix.ravel()], "row": list(matrix), "column": list(matrix.T)}[axis]
    ratios = [np.abs(w).max() / np.abs(w).mean() for w in slices]
    lost = 0.0
    for w in slices:
        scale = np.abs(w).max() / 127
        lost += ((w - np.round(w / scale) * scale) ** 2).sum()
    return {
        "extremal_ratio": max(ratios),
        "index": None if axis == "tensor" else int(np.argmax(ratios)),
        "sigma_over_mean": float(np.mean([w.std() / np.abs(w).mean() for w in slices])),
        "kurtosis": float(np.mean([((w - w.mean()) ** 4).mean() / w.var() ** 2 for w in slices])),
        "num_outliers": int(sum((np.abs(w) > 1000 * np.abs(w).mean()).sum() for w in slices)),
        "w8_error": math.sqrt(lost / (matrix**2).sum()),
    }


def same(found: dict, expected: dict) -> None:
    assert {name: found[name] for name in ("index", "num_outliers")} == {
        name: expected[name] for name in ("index", "num_outliers")
    }
    for name in ("extremal_ratio", "sigma_over_mean", "kurtosis"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    assert found["w8_error"] == pytest.approx(expected["w8_error"], rel=2e-3)  # a tie may round the other way


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "mixtral", "gpt_oss"])
def test_every_matrix_along_every_axis(scanned, family):
    case = scanned(family)
    table = case.run.table("weights")
    total = 0
    for layer in range(3):
        for (module, expert), matrix in parts(family, case.adapter.layers[layer]).items():
            which = pl.col("expert").is_null() if expert is None else pl.col("expert") == expert
            for axis in ("tensor", "row", "column"):
                (row,) = table.filter(which, layer=layer, module=module, axis=axis).to_dicts()
                same(row, formulas(matrix, axis))
                total += 1
    assert table.height == total


@steady
@given(
    seeds,
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["tensor", "row", "column"]),
    st.floats(-6, 6),
    st.floats(0, 3),
)
def test_slices_of_random_matrices(seed, rows, columns, axis, power, spread):
    random = torch.Generator().manual_seed(seed)
    shape = rows + 2, columns + 2  # a slice of one entry, or of two, has no kurtosis to speak of
    matrix = torch.randn(shape, generator=random) * torch.exp(spread * torch.randn(shape, generator=random))
    matrix = (matrix * 10**power).float()
    same(slice_facts(matrix, axis), formulas(matrix.numpy(), axis))


@pytest.mark.parametrize(("axis", "rel"), [("tensor", 0.002), ("row", 0.002), ("column", 0.002)])
def test_a_large_gaussian_matrix(axis, rel):
    facts = slice_facts(torch.randn(2000, 1500, generator=torch.Generator().manual_seed(0)), axis)
    assert facts["sigma_over_mean"] == pytest.approx(math.sqrt(math.pi / 2), rel=rel)
    assert facts["kurtosis"] == pytest.approx(3, rel=0.01)
    assert facts["num_outliers"] == 0


def test_row_outliers_and_the_place_of_the_largest_ratio():
    matrix = torch.ones(3, 4000)
    matrix[1, 77] = -3000.0
    row, column, tensor = (slice_facts(matrix, axis) for axis in ("row", "column", "tensor"))
    assert (row["index"], row["num_outliers"]) == (1, 1)
    assert row["extremal_ratio"] == pytest.approx(3000 / (6999 / 4000))
    assert (column["index"], column["num_outliers"]) == (77, 0)
    assert column["extremal_ratio"] == pytest.approx(3000 / (3002 / 3))
    assert (tensor["index"], tensor["num_outliers"]) == (None, 1)


def test_levels_of_an_8_bit_integer_are_kept():
    levels = torch.arange(-127.0, 128.0)[None] * 0.5
    assert slice_facts(levels, "tensor")["w8_error"] < 1e-6
    halves = levels.clone()
    halves[0, 100] += 0.25  # half a level away from the next
    assert slice_facts(halves, "tensor")["w8_error"] == pytest.approx(0.25 / float(halves.norm()), rel=1e-3)


def test_slices_that_are_zero_are_left_out():
    matrix = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 4.0]])
    facts = slice_facts(matrix, "row")
    alone = slice_facts(matrix[1:], "row")
    assert facts["extremal_ratio"] == alone["extremal_ratio"] == 2
    assert facts["sigma_over_mean"] == alone["sigma_over_mean"]
    assert facts["w8_error"] == alone["w8_error"]
