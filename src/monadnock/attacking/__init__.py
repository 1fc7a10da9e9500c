"""Attacks: what massive weights, activations and sinks do, measured by taking them away."""

from monadnock.attacking.modes import MODES, Change, Mode, Setting
from monadnock.attacking.sweep import attack

__all__ = ["MODES", "Change", "Mode", "Setting", "attack"]
