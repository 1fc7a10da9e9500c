"""Colours of a map, from light to dark, and which values they stand for."""

import math

import numpy as np

from monadnock.explorer.pools import Pools

# log10 of the values of the lightest and the darkest colour, the same for all maps; what lies beyond gets the end's.
FIXED = {"compensated": (-7.0, 0.0), "plain": (-7.0, 0.0), "magnitude": (-3.0, 1.0)}
_STEPS = 256
_BELOW = 1.0  # decades of single weights that lie below the pooled ones
_NARROW = 2.0  # decades that the fitted scale has at least


def palette() -> str:
    """Return 256 colours as hexadecimal digits, from nearly white to dark blue, in even steps of lightness."""
    t = np.linspace(0, 1, _STEPS)
    light = 0.985 - 0.80 * t
    colourful = 0.01 + 0.105 * np.sin(np.pi * t**0.9) ** 1.2 + 0.04 * t
    hue = np.radians(232 + 34 * t)
    rgb = _rgb(light, colourful * np.cos(hue), colourful * np.sin(hue))
    return np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8).tobytes().hex()


def fitted(pools: Pools) -> tuple[float, float]:
    """Return the ends of a scale that suits one matrix, as log10, from its maxima of 8 x 8 weights."""
    codes = pools.levels[min(pools.levels)]
    codes = codes[codes > 0]
    if not codes.size:
        return -1.0, 1.0
    ends = pools.low + (np.percentile(codes, [1, 99.9]) - 1) / 253 * (pools.high - pools.low)
    low, high = float(ends[0]) - _BELOW, float(ends[1])
    return math.floor(10 * min(low, high - _NARROW)) / 10, math.ceil(10 * high) / 10


def _rgb(light: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return sRGB, [colour, 3], of colours in Oklab (Ottosson 2020)."""
    cone = np.stack(
        [
            light + 0.3963377774 * a + 0.2158037573 * b,
            light - 0.1055613458 * a - 0.0638541728 * b,
            light - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    mix = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((mix @ cone**3).T, 0, None)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
