"""Sensitivity: what rounding each weight costs, where the costly ones are, and what pattern they make."""

from monadnock.sensitivity.loss import KINDS, factors, sensitivity_of
from monadnock.sensitivity.measuring import measure

__all__ = ["KINDS", "factors", "measure", "sensitivity_of"]
