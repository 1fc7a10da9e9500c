"""Streaming statistics: `update`, `merge`, `state_dict`; merging parts equals one pass."""

from monadnock.stats.base import Statistic
from monadnock.stats.heads import AttentionStates
from monadnock.stats.magnitude import Magnitude
from monadnock.stats.massive import is_massive, massive_layer
from monadnock.stats.probabilities import Attention
from monadnock.stats.second_moment import SecondMoment
from monadnock.stats.start import Beginning, Norms, Preferred, RouterMean, Snapshot, preferred

__all__ = [
    "Attention",
    "AttentionStates",
    "Beginning",
    "Magnitude",
    "Norms",
    "Preferred",
    "RouterMean",
    "SecondMoment",
    "Snapshot",
    "Statistic",
    "is_massive",
    "massive_layer",
    "preferred",
]
