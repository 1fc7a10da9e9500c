"""Studies over chosen inputs: where BOS matters, what length does, and whole maps of attention."""

from monadnock.studying.inputs import KINDS
from monadnock.studying.running import study

__all__ = ["KINDS", "study"]
