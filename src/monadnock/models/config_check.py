"""Refuse models of another kind, and config attributes that would change the maths behind a family's back."""

import ast
import difflib
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from monadnock.errors import MonadnockError, nearest
from monadnock.models.family import COMMON_ATTRIBUTES, Family, families, family

_READ = re.compile(r"""getattr\(\s*(?:self\.)?config,\s*["'](\w+)["'](?:,\s*([^()]*?))?\s*\)""")


def find_family(config: Any) -> Family:
    """Return the family of a transformers config, as it is for this config.

    Args:
        config: the text config of a model.

    Raises:
        MonadnockError: if it is no decoder-only language model, or of no known family.
    """
    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise MonadnockError(
            f"Model type {name!r} is an encoder-decoder, but monadnock looks at decoder-only language models: "
            f"known are {', '.join(families())}"
        )
    if name not in families() and getattr(config, "is_decoder", True) is False:
        raise MonadnockError(
            f"Model type {name!r} is an encoder, whose attention is not causal, but monadnock looks at decoder-only "
            f"language models: known are {', '.join(families())}"
        )
    return family(name).variant(config)


def check_config(config: Any, family: Family) -> list[str]:
    """Compare a transformers config with what its family handles.

    An attribute that the config class declares, that differs from the class's default and that nobody handles is an
    error; so is an undeclared one that looks like a misspelt known one, or that the model's code reads all the same.
    Other undeclared attributes are never read. None and False count as equal: both mean that something is off.

    Returns:
        The names of the undeclared attributes, sorted.

    Raises:
        MonadnockError: naming the attribute, its value and the nearest known names.
    """
    handled = COMMON_ATTRIBUTES | family.handles
    default = dict(_flat(type(config)(), type(config)().to_dict()))
    aliases = set(config.attribute_map) | set(config.attribute_map.values())
    read = _read_by_code(config)
    ignored = []
    for name, value in _flat(config, config.to_dict()):
        if name in handled or name in aliases or _is_common(name) or _is_private(name, default):
            continue
        if name in default and _same(value, default[name]):
            continue
        if name in default:
            raise MonadnockError(
                f"Config attribute {name}={value!r} (default {default[name]!r}) changes the maths in a way that family "
                f"{family.model_type} does not handle yet: {nearest(name, handled)}"
            )
        if name in read and not _same(value, read[name]):
            raise MonadnockError(
                f"Config attribute {name}={value!r} (default {read[name]!r}) changes the maths in a way that family "
                f"{family.model_type} does not handle yet, although its code reads it: {nearest(name, handled)}"
            )
        if name not in read and difflib.get_close_matches(name, default | dict.fromkeys(handled), n=1, cutoff=0.85):
            raise MonadnockError(
                f"Config attribute {name}={value!r} is unknown to {family.model_type}: "
                f"{nearest(name, default | dict.fromkeys(handled))}"
            )
        ignored.append(name)
    return sorted(ignored)


def _flat(config: Any, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of a config's dict, with those of nested configs as `nested.name`."""
    for name, value in values.items():
        if name in config.sub_configs and isinstance(value, dict):
            yield from ((f"{name}.{inner}", value[inner]) for inner in value)
        else:
            yield name, value


def _is_common(name: str) -> bool:
    nested, _, inner = name.rpartition(".")
    return bool(nested) and inner in COMMON_ATTRIBUTES


def _is_private(name: str, default: dict[str, Any]) -> bool:
    """Whether transformers keeps an attribute to itself; an old name of such a one (Gemma 3) is fine too."""
    return name.rpartition(".")[2].startswith("_") or f"_{name}" in default


def _same(value: Any, other: Any) -> bool:
    off = (value is None or value is False) and (other is None or other is False)
    return off or value == other


def _read_by_code(config: Any) -> dict[str, Any]:
    """Return the attributes, with defaults, that act without being declared.

    They are properties of the config class, or transformers reads them by `getattr(config, name, default)`.
    """
    from transformers import masking_utils

    modeling = sys.modules.get(type(config).__module__.replace(".configuration_", ".modeling_"))
    found: dict[str, Any] = dict.fromkeys(n for n, _ in inspect.getmembers(type(config), inspect.isdatadescriptor))
    for module in (masking_utils, modeling):
        for name, default in _READ.findall(inspect.getsource(module) if module else ""):
            try:
                found[name] = ast.literal_eval(default)
            except (SyntaxError, ValueError):
                found[name] = None
    return found
