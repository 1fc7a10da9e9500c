"""Values, changes and places of a comparison as people read them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monadnock.relations.compare_tables import Compared

_TIMES = "\N{MULTIPLICATION SIGN}"
_MINUS = "\N{MINUS SIGN}"
_STATES = {"residual": "h", "down_proj_input": "x_down"}


def number(value: object) -> str:
    """Return a value as text: about four digits, yes or no for flags, `none` for nothing.

    Example:
        >>> number(24926.3), number(0.04671), number(1229), number(True), number(None)
        ('24,926', '0.04671', '1,229', 'yes', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity" if value > 0 else f"{_MINUS}infinity"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def times(value: float) -> str:
    """Return a ratio as text, with as many digits as it takes to see that it is not 1.

    Example:
        >>> times(0.0467), times(1.0004), times(2.5), times(250.0)
        ('×0.0467', '×1.0004', '×2.5', '×250')
    """
    if not math.isfinite(value) or abs(value) >= 1000:
        return _TIMES + number(value)
    away = abs(value - 1)
    digits = 3 if away == 0 else max(3, math.ceil(-math.log10(away)) + 1 + (value > 1))
    return f"{_TIMES}{value:.{min(digits, 9)}g}"


def signed(value: float) -> str:
    """Return a difference as text, with its sign.

    Example:
        >>> signed(0.25), signed(-1200.0)
        ('+0.25', '−1,200')
    """
    return (_MINUS if value < 0 else "+") + number(abs(value))


def named(key: str, value: object) -> str:
    """Return a key with its value: a number after the key's name, a word alone.

    Example:
        >>> named("layer", 11), named("module", "down"), named("stream", "residual")
        ('layer 11', 'down', 'h')
    """
    return _STATES.get(value, value) if isinstance(value, str) else f"{key.replace('_', ' ')} {value}"


def where(spec: Compared, row: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the place that a row's keys name; keys that are null are left out."""
    if spec.table == "effects":
        return (
            "clean model"
            if row["mode"] == "none"
            else ", ".join(filter(None, (f"{row['mode']} {row['k']}", row["where"])))
        )
    return ", ".join(named(spec.words.get(key, key), row[key]) for key in keys if row[key] is not None)
