"""Compress the linear layers of a model in place, and give every bit back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.calibrating import walk
from monadnock.compression.method import Method
from monadnock.compression.spqr import Rounded
from monadnock.data import Windows
from monadnock.interventions.changed import changed
from monadnock.models import Adapter
from monadnock.models.matrices import Matrix, find_matrices

Rows = Mapping[Matrix, Sequence[int]]


@dataclass(frozen=True)
class Compressed:
    """One compressed matrix: what the table `compressions` says of it, and how it was rounded (gptq, spqr).

    Attributes:
        matrix: which one.
        row: average_bits, outlier_share, kept_rows, weight_error, output_error.
        rounded: all of the rounding; None for compressors that look at the weights alone.
        kept: rows that are as they were, in float16.
    """

    matrix: Matrix
    row: dict[str, Any]
    rounded: Rounded | None
    kept: tuple[int, ...]


@contextmanager
def compressed(
    adapter: Adapter,
    method: Method,
    windows: Windows | None = None,
    *,
    matrices: Sequence[Matrix] | None = None,
    keep: Rows | None = None,
    step: Callable[[], None] = lambda: None,
    take: Callable[[Compressed], None] = lambda _: None,
) -> Iterator[list[dict[str, Any]]]:
    """Compress matrices of the model for the time of the block; afterwards every bit is as before.

    gptq and spqr go block after block, and in a block stage after stage (q, k and v; o; gate and up; down): inputs are
    those that all before give when they are compressed already.

    Args:
        adapter: the model.
        method: the compressor.
        windows: calibration text, for gptq and spqr.
        matrices: which; by default all linear layers of the blocks.
        keep: rows that stay, in float16, by matrix; scales are taken without them.
        step: called after each matrix.
        take: gets each matrix when it is compressed.

    Returns:
        In the block: rows of the table `compressions`, without method.

    Raises:
        MonadnockError: as `walk`, or if weights are kept on disk.

    Example:
        >>> with compressed(adapter, Method.of("absmax", granularity="row")):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    chosen = find_matrices(adapter) if matrices is None else list(matrices)
    rows: list[dict[str, Any]] = []

    def one(matrix: Matrix, hessian: Tensor | None) -> None:
        found = _compress(adapter, method, matrix, hessian, tuple((keep or {}).get(matrix, ())))
        rows.append(matrix.columns | {"name": matrix.name(adapter)} | found.row)
        take(found)
        step()

    def change(_views: list[Tensor]) -> None:
        if not method.needs_inputs:
            for matrix in chosen:
                one(matrix, None)
        elif chosen:
            assert windows is not None, "gptq and spqr need a calibration text"
            for inputs in walk(adapter, windows, chosen, again=True):
                for matrix in inputs.matrices:
                    moment = inputs.moment(matrix)
                    one(matrix, None if moment is None else moment.hessian)

    with changed(adapter, lambda: [matrix.weight(adapter).strided for matrix in chosen], change):
        yield rows


def _compress(
    adapter: Adapter, method: Method, matrix: Matrix, hessian: Tensor | None, keep: tuple[int, ...]
) -> Compressed:
    """Compress one matrix in the model."""
    view = matrix.weight(adapter)
    weight = view.read().detach().float().clone()
    others = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    others[list(keep)] = False
    result = weight.half().float()
    rounded = None
    if bool(others.any()):
        result[others], rounded = method.apply(weight[others], hessian)
    view.strided.copy_(result.view(view.strided.shape))
    share = None if rounded is None else float(rounded.outliers.float().mean())
    bits = method.average_bits(weight.shape, share)
    kept = len(keep) / len(weight)
    row = {
        "average_bits": bits * (1 - kept) + 16 * kept,
        "outlier_share": (share or 0.0) * (1 - kept),
        "kept_rows": len(keep),
        "weight_error": _share((result - weight).square().sum(), weight.square().sum()) ** 0.5,
        "output_error": None
        if hessian is None
        else _share(_energy(result - weight, hessian), _energy(weight, hessian)),
    }
    return Compressed(matrix, row, rounded, keep)


def _energy(weight: Tensor, hessian: Tensor) -> Tensor:
    return ((weight @ hessian.to(weight)) * weight).sum(dtype=torch.float64)


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part) / float(whole) if float(whole) else 0.0
