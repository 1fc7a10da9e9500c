"""Plain [out, in] access to a weight that a family may store fused, transposed or stacked over experts."""

from dataclasses import dataclass

import torch
from torch import Tensor

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
_PLACE = {"q": 0, "k": 1, "v": 2, "gate": 0, "up": 1}


@dataclass(frozen=True)
class WeightView:
    """A weight seen as a matrix [out, in], or a bias seen as a vector [out], sharing the model's memory.

    `strided` is the part as a view of the model's own storage: [out, in], or [group, out / group, in] where a
    family stores the heads of q, k and v between each other. `read` gives the matrix; `set_rows` writes through.

    Example:
        >>> up = adapter.weight(11, "up")  # doctest: +SKIP
        >>> up.read().shape  # doctest: +SKIP
        torch.Size([1536, 576])
    """

    strided: Tensor
    grouped: bool = False

    def read(self) -> Tensor:
        """Return the matrix [out, in] (or vector [out]): a view where memory allows it, else a copy."""
        return self.strided.flatten(0, 1) if self.grouped else self.strided

    def set_rows(self, rows: Tensor, values: Tensor | float) -> None:
        """Write `values` (a number, or [len(rows), in]) into the given output rows of the model's own weight."""
        with torch.no_grad():
            if self.grouped:
                size = self.strided.shape[1]
                self.strided[rows // size, rows % size] = values
            else:
                self.strided[rows] = values


def cut(stored: Tensor, role: str, how: str, *, num_heads: int, d_head: int, transposed: bool) -> WeightView:
    """Cut one part out of a stored weight [out, in] ([in, out] if transposed) or bias [out].

    Args:
        stored: a 2-D weight or 1-D bias, fused or not.
        role: q, k, v, o, gate, up or down.
        how: the family's cut: "", rows, heads, halves or pairs.
        num_heads: number of query heads.
        d_head: width of a head.
        transposed: whether the family stores [in, out].
    """
    matrix = stored.t() if transposed and stored.dim() == 2 else stored
    if how == "":
        return WeightView(matrix)
    place = _PLACE[role]
    if how == "halves":
        return WeightView(matrix.chunk(2)[place])
    if how == "pairs":
        return WeightView(matrix[place::2])
    num_kv = (matrix.shape[0] // d_head - num_heads) // 2
    q_out, kv_out = num_heads * d_head, num_kv * d_head
    if how == "rows":
        return WeightView(matrix.split([q_out, kv_out, kv_out])[place])
    if how == "heads":
        per_kv = num_heads // num_kv
        groups = matrix.unflatten(0, (num_kv, per_kv + 2, d_head))
        # the per_kv queries of a group lie together, so that [kv_head, per_kv * d_head, ...] is still a view
        part = groups[:, :per_kv].flatten(1, 2) if role == "q" else groups[:, per_kv + place - 1]
        return WeightView(part, grouped=True)
    raise ValueError(f"unknown cut {how!r}")
