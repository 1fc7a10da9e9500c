"""Numbers and lists as sentences tell them."""

import unicodedata
from collections.abc import Sequence


def number(value: float) -> str:
    """Return a number with three digits, or whole from 100 on.

    Example:
        >>> number(24926.3), number(0.16889), number(13)
        ('24,926', '0.169', '13')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def listed(words: Sequence[str], most: int = 6) -> str:
    """Join words for a sentence, the first few and how many more there are.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], 2)
        ('a, b and c', 'a, b and 2 more')
    """
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def printable(text: str) -> str:
    """Return `text` with control and direction characters spelled out as escapes; line breaks stay.

    Example:
        >>> printable("a\\x07")
        'a\\\\x07'
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
        else char
        for char in text
    )
