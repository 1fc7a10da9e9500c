"""Attacks: what massive weights, activations and sinks do, measured by taking them away."""

from monadnock.attacking.modes import MODES, Change, Mode, Setting
from monadnock.attacking.sweep import attack
from monadnock.attacking.targets import Aim

__all__ = ["MODES", "Aim", "Change", "Mode", "Setting", "attack"]
