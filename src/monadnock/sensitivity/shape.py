"""Which rows or columns of a matrix belong to attention heads, and which dimensions of a head rotary turns together."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.models.matrices import Matrix
from monadnock.models.rotary import Turn, watch_turns


@dataclass(frozen=True)
class Heads:
    """Heads of a matrix: head h has the lines h * width to (h + 1) * width - 1 of its axis.

    Attributes:
        axis: row (of W_q, W_k, W_v) or column (of W_o).
        count: heads, of W_k and W_v key-value heads.
        width: d_head.
        pairs: dimensions of a head that rotary turns together, [2, feature]; None where there is none.
    """

    axis: str
    count: int
    width: int
    pairs: Tensor | None


class Shapes:
    """Heads of every matrix of a model; rotary pairs are those that were seen while the model ran."""

    def __init__(self, adapter: Adapter):
        self.adapter = adapter
        self._pairs: dict[int, Tensor] = {}

    def watch(self, matrices: Iterable[Matrix]) -> AbstractContextManager[None]:
        """Note, while the block runs windows through the model, which dimensions the layers of matrices turn."""
        return watch_turns(self.adapter, self._note, iter({matrix.layer for matrix in matrices}))

    def heads(self, matrix: Matrix) -> Heads | None:
        """Return the heads of a matrix; None for the FFN."""
        adapter = self.adapter
        if matrix.module not in ("q", "k", "v", "o"):
            return None
        axis = "column" if matrix.module == "o" else "row"
        count = adapter.num_heads if matrix.module in ("q", "o") else adapter.num_kv_heads
        return Heads(axis, count, adapter.d_head, self._pairs.get(matrix.layer))

    def _note(self, layer: int, turn: Turn | None) -> None:
        if turn is not None and layer not in self._pairs:
            self._pairs[layer] = torch.stack([turn.first, turn.second])
