"""Which rows or columns of a matrix belong to attention heads, and which dimensions of a head rotary turns together."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.models.matrices import Matrix
from monadnock.models.rotary import Turn, watch_turns
from monadnock.models.start import run_layers


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
    """Heads of every matrix of a model; asks the model once for its rotary pairs."""

    def __init__(self, adapter: Adapter):
        self.adapter = adapter
        self.pairs = cache(self._pairs)

    def heads(self, matrix: Matrix) -> Heads | None:
        """Return the heads of a matrix; None for the FFN."""
        adapter = self.adapter
        if matrix.module not in ("q", "k", "v", "o"):
            return None
        axis = "column" if matrix.module == "o" else "row"
        count = adapter.num_heads if matrix.module in ("q", "o") else adapter.num_kv_heads
        return Heads(axis, count, adapter.d_head, self.pairs(matrix.layer))

    def _pairs(self, layer: int) -> Tensor | None:
        if self.adapter.family.rotary == "none":
            return None
        turns: list[Turn | None] = []

        def take(seen: int, turn: Turn | None) -> None:
            if seen == layer:
                turns.append(turn)

        two = torch.zeros(2, dtype=torch.int64)  # any two tokens: only which dimensions turn together is asked
        with watch_turns(self.adapter, take, iter([layer])):
            run_layers(self.adapter, two, {}, lambda done: done == layer)
        return torch.stack([turns[0].first, turns[0].second]) if turns and turns[0] is not None else None
