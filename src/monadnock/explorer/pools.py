"""The largest values of 8 x 8, 16 x 16, ... weights: what a map shows where a pixel holds many of them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from monadnock.explorer.weights import QUANTITIES, Weights

FINEST, OVERVIEW = 8, 32  # weights on a side of a pooled value: the fewest that are stored, and of the small map
_SMALL = 128  # the coarsest has at most as many values on a side
_DECADES = 12  # below the largest value that are told apart
_CODES = 254  # of a pooled value above 0


@dataclass(frozen=True)
class Pools:
    """Pooled values of one quantity as bytes: 0 is 0, c from 1 to 254 is 10^(low + (c - 1) / 253 * (high - low)).

    Attributes:
        levels: for 8, 16, 32, ... weights on a side, uint8 [out / side, in / side], rounded up.
        low: log10 of the smallest value that is told apart.
        high: log10 of the largest.
    """

    levels: dict[int, np.ndarray]
    low: float
    high: float


def pool(values: np.ndarray, side: int) -> np.ndarray:
    """Return the maxima of squares of a matrix, [rows / side, columns / side] rounded up; the last may be cut off.

    Example:
        >>> pool(np.array([[1, 5, 2], [3, 4, 0]]), 2).tolist()
        [[5, 2]]
    """
    high = np.maximum.reduceat(values, np.arange(0, values.shape[0], side), axis=0)
    return np.maximum.reduceat(high, np.arange(0, values.shape[1], side), axis=1)


def finest(weights: Weights, workers: int = 2) -> dict[str, np.ndarray]:
    """Return the maxima of 8 x 8 weights of every quantity, float32 [out / 8, in / 8] rounded up.

    A factor belongs to a whole column, so that the errors of 8 rows are pooled before they are multiplied with it.
    """

    def work(block: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        starts = np.arange(0, block[1] - block[0], FINEST)
        size, error = (np.maximum.reduceat(each, starts, axis=0) for each in weights.rows(*block))
        columns = np.arange(0, size.shape[1], FINEST)
        found = (error * weights.compensated, error * weights.plain, size)
        compensated, plain, size = (np.maximum.reduceat(each, columns, axis=1) for each in found)
        return compensated, plain, size

    with ThreadPoolExecutor(workers) as pool_of_threads:
        parts = list(pool_of_threads.map(work, weights.blocks(FINEST)))
    return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(QUANTITIES)}


def as_bytes(values: np.ndarray) -> Pools:
    """Return the pools of one quantity from the maxima of 8 x 8 weights; infinity becomes the largest float."""
    values = np.nan_to_num(values.astype(np.float32))
    positive = values[values > 0]
    high = float(np.log10(positive.max())) if positive.size else 0.0
    low = max(float(np.log10(positive.min())), high - _DECADES) if positive.size else -1.0
    low = min(low, high - 0.1)
    with np.errstate(divide="ignore"):
        place = (np.log10(values) - low) / (high - low) * (_CODES - 1) + 1
    codes = np.where(values > 0, np.rint(np.clip(place, 1, _CODES)), 0).astype(np.uint8)
    levels = {FINEST: codes}
    side = FINEST
    while side < OVERVIEW or max(codes.shape) > _SMALL:
        side, codes = 2 * side, pool(codes, 2)
        levels[side] = codes
    return Pools(levels, low, high)
