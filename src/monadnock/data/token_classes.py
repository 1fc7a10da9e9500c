"""The class of a token: start, delimiter, weak or other; the rule is data in `token_classes.toml`."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def _rules() -> dict[str, frozenset[str]]:
    text = (files("monadnock.data") / "token_classes.toml").read_text(encoding="utf-8")
    return {name: frozenset(words) for name, words in tomllib.loads(text).items()}


def token_class(text: str, *, position: int, special: bool = False) -> str:
    r"""Return the class of a decoded token.

    Args:
        text: the token's decoded text.
        position: its position in the window; position 0 is the start token.
        special: whether the tokenizer counts it as special.

    Example:
        >>> [token_class(t, position=5) for t in (" the", "\n", ".", " rock")]
        ['weak', 'weak', 'delimiter', 'other']
    """
    if position == 0 or special:
        return "start"
    word = text.strip().lower()
    if word == "":
        return "weak"
    rules = _rules()
    if word in rules["weak"]:
        return "weak"
    return "delimiter" if set(word) <= rules["delimiter"] or word in rules["delimiter"] else "other"


def token_columns(tokenizer: Any, token_id: int, position: int) -> dict[str, Any]:
    """Return the columns token_id, token and token_class of a token, as tables have them.

    Args:
        tokenizer: a transformers tokenizer.
        token_id: the token.
        position: its position in the window.
    """
    text, special = tokenizer.decode([token_id]), token_id in tokenizer.all_special_ids
    return {"token_id": token_id, "token": text, "token_class": token_class(text, position=position, special=special)}


def prevailing(values: Sequence[T]) -> T | None:
    """Return the value that more than half of the values have, or None.

    Example:
        >>> prevailing([0, 0, 3]), prevailing([3, 81, 46])
        (0, None)
    """
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None
