"""Refuse config attributes that would change the maths behind a family's back."""

import difflib
from typing import Any

from monadnock.errors import MonadnockError, nearest
from monadnock.models.family import COMMON_ATTRIBUTES, Family


def check_config(config: Any, family: Family) -> list[str]:
    """Compare a transformers config with what its family handles.

    An attribute that the config class declares, that differs from the class's default and that nobody handles is an
    error; so is an undeclared one that looks like a misspelt declared one. Other undeclared attributes are never
    read by the model's code.

    Returns:
        The names of the undeclared attributes.

    Raises:
        MonadnockError: naming the attribute, its value and the nearest known names.
    """
    handled = COMMON_ATTRIBUTES | family.handles
    default = type(config)().to_dict()
    given = config.to_dict()
    aliases = set(getattr(type(config), "attribute_map", {})) | set(getattr(type(config), "attribute_map", {}).values())
    ignored = []
    for name, value in given.items():
        if name in handled or name in aliases or name.startswith("_"):
            continue
        if name not in default:
            if difflib.get_close_matches(name, default, n=1, cutoff=0.85):
                raise MonadnockError(
                    f"Config attribute {name}={value!r} is unknown to {family.model_type}: {nearest(name, default)}"
                )
            ignored.append(name)
        elif value != default[name]:
            raise MonadnockError(
                f"Config attribute {name}={value!r} (default {default[name]!r}) changes the maths in a way that family "
                f"{family.model_type} does not handle yet: {nearest(name, handled)}"
            )
    return sorted(ignored)
