"""The cache of keys and values that a module is given in generation, whatever transformers calls it."""

from collections.abc import Mapping
from typing import Any

_NAMES = ("cache", "past_key_values", "layer_past")  # since transformers 5.24, before, and in some attention modules


def cache_of(given: Mapping[str, Any]) -> Any:
    """Return the cache among the arguments that a module is given by name; None if there is none.

    Example:
        >>> cache_of({"past_key_values": None, "cache": "a cache"})
        'a cache'
    """
    return next((given[name] for name in _NAMES if given.get(name) is not None), None)
