"""Arguments of a function, read as its annotations say: from a recipe file, or from whoever calls it."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from monadnock.errors import MonadnockError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def read_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments in the types that a function is annotated with; a text that reads as a number is one.

    Args:
        function: whose annotations hold.
        given: arguments by name; those that it does not name are returned as they are.

    Raises:
        MonadnockError: on the first value that is of another type.

    Example:
        >>> from monadnock.training import finetune
        >>> read_arguments(finetune, {"rate": "1e-4", "zeroed": [2]})
        {'rate': 0.0001, 'zeroed': [2]}
    """
    hints = _hints(function)
    read = {}
    for name, value in given.items():
        hint = hints.get(name, Any)
        try:
            read[name] = _reader(hint).validate_python(value)
        except ValidationError as error:
            shown = repr(value)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise MonadnockError(f"{name} is {shown}, but takes {_in_words(hint)}.") from error
    return read


def checked(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a function read its arguments by `read_arguments` first."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def reading(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        bound = signature.bind(*args, **kwargs)
        bound.arguments.update(read_arguments(function, bound.arguments))
        return function(*bound.args, **bound.kwargs)

    return reading


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


@functools.cache
def _reader(hint: Any) -> TypeAdapter[Any]:
    """Return what reads a type; to make one takes far longer than to use it."""
    return TypeAdapter(hint, config=_config(hint))


def _config(hint: Any) -> ConfigDict | None:
    """Return how a type is read; dataclasses and models say it themselves."""
    own = isinstance(hint, type) and (hasattr(hint, "__dataclass_fields__") or hasattr(hint, "model_fields"))
    return None if own else ConfigDict(arbitrary_types_allowed=True)


def _in_words(hint: Any) -> str:
    """Say what a value may be, as whoever writes one would."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if str in inner and Path in inner:
            inner = tuple(each for each in inner if each is not Path)
        told = [_in_words(each) for each in inner if each is not types.NoneType]
        return " or ".join([*dict.fromkeys(told), *(["nothing"] * (types.NoneType in inner))])
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each of it {_in_words(inner[0])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
