"""Sensitivity: what rounding each weight costs, where the costly ones are, and what pattern they make."""

from monadnock.sensitivity.measuring import sensitivity

__all__ = ["sensitivity"]
