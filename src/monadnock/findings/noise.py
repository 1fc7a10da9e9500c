"""How large an amplitude must be to stand out from noise, from the width of the states alone."""

import math
from statistics import NormalDist

import polars as pl


def noise_floor(width: int) -> float:
    """Return F, the smallest amplitude with D (1 - erf(F sqrt(D / 2))) < 1, of states with D entries (wray2023).

    Example:
        >>> round(noise_floor(4096), 3), noise_floor(1)
        (0.057, 0.0)
    """
    return NormalDist().inv_cdf(1 - 0.5 / width) / math.sqrt(width) if width > 1 else 0.0


def told_floor(dictionaries: pl.DataFrame, width: int) -> float:
    """Return F as the table `dictionaries` has it, or from the width of the states where it has none.

    Example:
        >>> told_floor(pl.DataFrame({"noise_floor": [None, 0.25]}), 4096)
        0.25
    """
    told = dictionaries["noise_floor"].drop_nulls()
    told = told.filter(told.is_finite())
    return float(told[0]) if told.len() else noise_floor(width)
