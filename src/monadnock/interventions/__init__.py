"""Change a model for the time of a block: weights, activations, attention, input; every bit comes back after it."""

from monadnock.interventions.activations import mean_activations, set_activations
from monadnock.interventions.entries import median_gains, scale_weights
from monadnock.interventions.keys import mask_keys
from monadnock.interventions.prefix import prefix_tokens
from monadnock.interventions.rows import random_rows, retain_rows, zero_rows

__all__ = [
    "mask_keys",
    "mean_activations",
    "median_gains",
    "prefix_tokens",
    "random_rows",
    "retain_rows",
    "scale_weights",
    "set_activations",
    "zero_rows",
]
