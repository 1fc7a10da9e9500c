"""Weight outliers: extremal ratios, spread, kurtosis and 8-bit rounding error of every matrix, gains of every norm."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from monadnock.models import Adapter
from monadnock.models.components import parameters
from monadnock.probes.base import Ask, Evidence
from monadnock.thresholds import AN2025_RATIO, COLUMN_RATIO

LISTED = 8  # columns of every W_down listed
OUTLIERS = 32  # row-wise outliers of every W_down listed at most
CHUNK = 2**24  # entries that are looked at together for NaN and infinity
LEVELS = 127  # largest level of a symmetric 8-bit integer

Axis = Literal["tensor", "row", "column"]


class Weights:
    """Every weight matrix along both axes and as a whole, and every norm; reads the weights, runs nothing."""

    name: ClassVar[str] = "weights"
    tables: ClassVar[tuple[str, ...]] = ("weights", "weight_outliers", "norms", "nonfinite")
    thresholds: ClassVar[dict[str, float]] = {
        "an2025.weight_ratio": AN2025_RATIO,
        "monadnock.column_ratio": COLUMN_RATIO,
    }

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for nothing: the weights are there."""
        return []

    def reads(self, evidence: Evidence, layer: int) -> dict[str, list]:
        """Return the rows of weights, weight_outliers and nonfinite at a layer."""
        adapter = evidence.adapter
        weights, outliers, nonfinite = [], [], []
        if 0 <= layer < adapter.num_layers:
            for role, expert, view in adapter.matrices(layer):
                matrix = view.read().float()
                place = {"layer": layer, "module": role, "expert": expert}
                axes: tuple[Axis, ...] = ("tensor", "row", "column")
                weights += [place | {"axis": axis} | slice_facts(matrix, axis) for axis in axes]
                if role == "down":
                    outliers += [{"layer": layer, "expert": expert} | row for row in standing_out(matrix)]
        for where, name, values in parameters(adapter, layer):
            parts = values.flatten().split(CHUNK)
            bad = sum(part.numel() - int(part.isfinite().count_nonzero()) for part in parts)
            if bad:
                nonfinite.append({"where": "weight", "layer": where, "name": name, "count": bad})
        return {"weights": weights, "weight_outliers": outliers, "nonfinite": nonfinite}

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill weights, weight_outliers, norms and nonfinite."""
        steps = [evidence.read(self, layer) for layer in range(-1, evidence.adapter.num_layers + 1)]
        norms = [_norm(*norm) for norm in evidence.adapter.norms()]
        return {name: [row for step in steps for row in step[name]] for name in steps[0]} | {"norms": norms}


def slice_facts(matrix: Tensor, axis: Axis) -> dict[str, Any]:
    """Measure the slices of a matrix [out, in] along an axis; the columns of table `weights`.

    Args:
        matrix: [out, in], float32.
        axis: `row` takes the slices matrix[i, :], `column` matrix[:, j], `tensor` the whole matrix as one slice.

    Example:
        >>> import torch
        >>> round(slice_facts(torch.tensor([[1.0, -1.0], [9.0, 1.0]]), "column")["extremal_ratio"], 4)
        1.8
    """
    slices = {"tensor": matrix.reshape(1, -1), "row": matrix, "column": matrix.t()}[axis]  # [slice, entry]
    magnitudes = slices.abs()
    mean, largest = magnitudes.mean(1), magnitudes.amax(1)
    ratio = (largest / mean).nan_to_num(0.0)
    large = largest > AN2025_RATIO * mean
    num_outliers = int((magnitudes[large] > AN2025_RATIO * mean[large, None]).sum()) if bool(large.any()) else 0
    del magnitudes  # a matrix may be large: two of its size at a time, beside itself
    squares = (slices - slices.mean(1, keepdim=True)).square_()
    variance = squares.mean(1)
    fourth = squares.square_().mean(1)
    del squares
    scale = largest / LEVELS
    error = (slices / scale.clamp(min=1e-38)[:, None]).round_().mul_(scale[:, None]).sub_(slices)
    return {
        "extremal_ratio": float(ratio.max()),
        "index": None if axis == "tensor" else int(ratio.argmax()),
        "sigma_over_mean": float((variance.sqrt() / mean).nanmean()),
        "kurtosis": float((fourth / variance.square()).nanmean()),
        "num_outliers": num_outliers,
        "w8_error": float(error.norm() / slices.norm()),
    }


def standing_out(matrix: Tensor) -> list[dict[str, Any]]:
    """Return the entries of a matrix that stand out from their column or row; the columns of table `weight_outliers`.

    Args:
        matrix: [out, in], float32.

    Example:
        >>> import torch
        >>> [(entry["row"], entry["column"]) for entry in standing_out(torch.tensor([[1.0, 1.0], [1.0, 9.0]]))][:1]
        [(1, 1)]
    """
    sizes = matrix.abs()
    by_row = (sizes / sizes.mean(1, keepdim=True)).nan_to_num_(0.0)
    by_column = (sizes / sizes.mean(0)).nan_to_num_(0.0)
    extremal, row = by_column.max(0)
    columns = extremal.topk(min(LISTED, len(extremal))).indices
    places = (row[columns] * matrix.shape[1] + columns).tolist()
    outliers = by_row.flatten().topk(min(OUTLIERS, by_row.numel()))
    places += outliers.indices[outliers.values > AN2025_RATIO].tolist()
    return [
        {
            "rank": rank,
            "row": place // matrix.shape[1],
            "column": place % matrix.shape[1],
            "weight": float(matrix.flatten()[place]),
            "column_ratio": float(by_column.flatten()[place]),
            "row_ratio": float(by_row.flatten()[place]),
            "outlier": bool(by_row.flatten()[place] > AN2025_RATIO),
        }
        for rank, place in enumerate(dict.fromkeys(places), start=1)
    ]


def _norm(layer: int | None, name: str, gains: Tensor) -> dict[str, Any]:
    return {
        "layer": layer,
        "norm": name,
        "mean": float(gains.mean()),
        "median": float(gains.median()),
        "min": float(gains.min()),
        "max": float(gains.max()),
        "num_negative": int((gains < 0).sum()),
    }
