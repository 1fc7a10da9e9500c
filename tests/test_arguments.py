"""Arguments: read as a function's annotations say, and refused in a sentence where they are something else."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.arguments import checked, read_arguments


def thing(
    model,
    rate: float = 0.1,
    count: int | None = None,
    names: Sequence[str] = (),
    out: str | Path = "",
    on: bool = False,
) -> tuple:
    """Return what it was given."""
    return model, rate, count, names, out, on


@given(st.floats(allow_nan=False), st.none() | st.integers(), st.lists(st.text()), st.text(), st.booleans())
def test_what_is_of_the_right_type_is_left_as_it_is(rate, count, names, out, on):
    asked = {"rate": rate, "count": count, "names": names, "out": out, "on": on, "other": object}
    assert read_arguments(thing, asked) == asked
    assert checked(thing)("m", rate, count, names=names, out=out, on=on) == ("m", rate, count, names, out, on)


def test_text_of_a_number_is_a_number_as_yaml_writes_1e_4():
    assert read_arguments(thing, {"rate": "1e-4", "count": "3"}) == {"rate": 1e-4, "count": 3}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("rate", "fast", "rate is 'fast', but takes a number"),
        ("count", 2.5, "count is 2.5, but takes a whole number or nothing"),
        ("names", "arc_easy", "names is 'arc_easy', but takes a list, each of it a text"),
        ("names", [1], "a list, each of it a text"),
        ("out", ["a"], "but takes a text"),
        ("on", "maybe", "true or false"),
        ("rate", [0.0] * 1000, r"\.\.\., but takes a number"),
    ],
)
def test_anything_else_is_refused(name, value, told):
    with pytest.raises(MonadnockError, match=told):
        read_arguments(thing, {name: value})
    with pytest.raises(MonadnockError, match=told):
        checked(thing)("m", **{name: value})


def test_python_says_itself_what_no_argument_is():
    with pytest.raises(TypeError, match="unexpected keyword"):
        checked(thing)("m", other=1)
