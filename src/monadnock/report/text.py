"""Values as people read them: visible tokens, short numbers, names of streams."""

import math

from monadnock.findings.words import printable as printable  # shown on pages and in terminals alike

_VISIBLE = {" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"}
_LONGEST = 24
NONE = "(none)"
_STREAMS = {"residual": "residual stream (h)", "down_proj_input": "input of the down projection (x_down)"}


def token(text: str) -> str:
    """Return a token with its blanks visible and its length bounded.

    Example:
        >>> token(" the\\n")
        '␣the↵'
    """
    if not text:
        return "(empty)"
    seen = printable("".join(_VISIBLE.get(char, char) for char in text))
    return seen if len(seen) <= _LONGEST else seen[: _LONGEST - 1] + "…"


def line(text: str, most: int) -> str:
    """Return a text on one line, cut where it is longer than `most` characters.

    Example:
        >>> line("Summer is\\n warm.", 12)
        'Summer is w…'
    """
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: float | None) -> str:
    """Return a float with about four significant digits, an integer as it is, `(none)` for a missing one.

    Example:
        >>> number(12345.678), number(0.000012), number(1229), number(None)
        ('12,346', '1.2e-05', '1229', '(none)')
    """
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if isinstance(value, int):
        return str(value)  # mostly an index, such as feature 1229
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"


def cell(value: object) -> str:
    """Return any value of a table as text: numbers short, flags as yes or no, strings visible, `(none)` for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return number(value)
    return token(str(value))


def stream(name: str) -> str:
    """Return a stream's name in words."""
    return _STREAMS.get(name, name.replace("_", " "))


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "layer"), count(2, "stretch", "stretches")
        ('1 layer', '2 stretches')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
