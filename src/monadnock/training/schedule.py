"""How the probability of dropping a weight falls over the steps of a fine-tuning (oh2024, section 4.3.2)."""

import math
from dataclasses import dataclass

from monadnock.errors import MonadnockError, nearest

SCHEDULES = ("step", "epoch-before", "epoch-after", "exp", "constant")
ALPHA = 0.01  # of exp, the best of the three that oh2024 tried


@dataclass(frozen=True)
class Schedule:
    """A curriculum: the probability p of each step.

    step: p0 (1 - t / T); epoch-before: p0 (1 - (e - 1) / E); epoch-after: p0 (1 - e / E); exp: p0 exp(-alpha t);
    constant: p0. Step t of T and epoch e of E count from 1, so that step and epoch-after end with 0.

    Attributes:
        name: one of SCHEDULES.
        p0: where it begins, 0 to 1.
        alpha: how fast exp falls, per step.

    Raises:
        MonadnockError: on an unknown name, or a p0 or alpha that makes no probability.

    Example:
        >>> [round(Schedule("step", 0.8).probability(t, 4, 1, 1), 3) for t in (1, 2, 3, 4)]
        [0.6, 0.4, 0.2, 0.0]
    """

    name: str = "step"
    p0: float = 0.8
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise MonadnockError(f"There is no schedule {self.name!r}: {nearest(self.name, SCHEDULES)}")
        if not 0 <= self.p0 <= 1:
            raise MonadnockError(f"p0 = {self.p0} was asked; it is a probability, from 0 to 1.")
        if not 0 <= self.alpha < math.inf:
            raise MonadnockError(f"alpha = {self.alpha} was asked; it is at least 0, as 0.01.")

    def probability(self, step: int, steps: int, epoch: int, epochs: int) -> float:
        """Return p of a step.

        Args:
            step: from 1.
            steps: of the whole training.
            epoch: in which the step is, from 1.
            epochs: of the whole training.
        """
        match self.name:
            case "step":
                left = 1 - step / steps
            case "epoch-before":
                left = 1 - (epoch - 1) / epochs
            case "epoch-after":
                left = 1 - epoch / epochs
            case "exp":
                left = math.exp(-self.alpha * step)
            case _:
                left = 1.0
        return self.p0 * min(max(left, 0.0), 1.0)
