"""Explanations: every link of the causal chain cut on the model at hand, beside the same number cut at random."""

from monadnock.explaining.running import explain

__all__ = ["explain"]
