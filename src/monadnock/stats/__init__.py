"""Streaming statistics: `update`, `merge`, `state_dict`; merging parts equals one pass."""

from monadnock.stats.base import Statistic
from monadnock.stats.magnitude import Magnitude
from monadnock.stats.probabilities import Attention
from monadnock.stats.start import RouterMean, Snapshot

__all__ = ["Attention", "Magnitude", "RouterMean", "Snapshot", "Statistic"]
