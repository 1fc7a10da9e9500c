"""The second moment of a site's states: what a linear layer's loss depends on."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from monadnock.stats.base import Rule, Statistic


class SecondMoment(Statistic):
    """Sum of x x^T over all tokens, [width, width] in float64, and how many there were.

    Each window's products are taken in the states' own precision (at least float32), and added up in float64.

    Attributes:
        products: sum of x x^T.
        tokens: number of tokens, a tensor of no dimension.

    Example:
        >>> from monadnock.models.hooks import States
        >>> moment = SecondMoment(1)
        >>> moment.update(States(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), 0)
        >>> moment.products.tolist(), int(moment.tokens)
        ([[1.0, 2.0], [2.0, 5.0]], 2)
    """

    rules: ClassVar[dict[str, Rule]] = {"products": "sum", "tokens": "sum"}

    products: Tensor
    tokens: Tensor

    def update(self, batch: Any, window: int) -> None:
        """Take in the `States` of one window."""
        values = batch.values
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        self._accumulate({"products": (values.t() @ values).double(), "tokens": torch.tensor(len(values))})
        self.seen[window] = True

    @property
    def hessian(self) -> Tensor:
        """H = 2 / N * X^T X of a linear layer whose inputs these are, [width, width] (spqr)."""
        return self.products * (2 / int(self.tokens))
