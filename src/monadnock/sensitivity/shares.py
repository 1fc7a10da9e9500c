"""How much of a matrix's sensitivity few weights, rows and columns carry."""

from typing import Any

import torch
from torch import Tensor

SHARES = {"top_1e4": 1e-4, "top_1e3": 1e-3, "top_1e2": 1e-2}
LINES = 16  # rows and columns that are listed


def share_row(weight: Tensor, values: Tensor, hessian: Tensor) -> dict[str, Any]:
    """Return the total of a matrix's sensitivities and the share of the largest.

    Args:
        weight: [out, in].
        values: s_ij, [out, in].
        hessian: 2 / N * X^T X, [in, in].

    Returns:
        total, relative (null if the matrix has no output), top_1e4, top_1e3 and top_1e2 (null if the total is 0; of
        few weights the largest alone), num_dead.

    Example:
        >>> found = share_row(torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, 3.0]]), 2 * torch.eye(2).double())
        >>> found["total"], found["relative"], found["top_1e2"]
        (4.0, 1.0, 0.75)
    """
    total = float(values.sum(dtype=torch.float64))
    weight = weight.double()
    whole = float(((weight @ hessian.to(weight)) * weight).sum()) / 2
    counts = {name: max(round(share * values.numel()), 1) for name, share in SHARES.items()}
    largest = values.flatten().topk(max(counts.values())).values.double().cumsum(0)
    shares = {name: float(largest[count - 1]) / total if total else None for name, count in counts.items()}
    dead = int((hessian.diagonal() == 0).sum())
    return {"total": total, "relative": total / whole if whole else None, "num_dead": dead, **shares}


def line_rows(values: Tensor) -> list[dict[str, Any]]:
    """Return the rows and columns with the largest shares of the total, largest first: axis, rank, index, share."""
    rows = []
    for axis, dim in (("row", 1), ("column", 0)):
        sums = values.sum(dim, dtype=torch.float64)
        total = float(sums.sum())
        if total:
            top = (sums / total).topk(min(LINES, len(sums)))
            ranked = enumerate(zip(top.indices.tolist(), top.values.tolist(), strict=True), start=1)
            rows += [{"axis": axis, "rank": rank, "index": index, "share": share} for rank, (index, share) in ranked]
    return rows
