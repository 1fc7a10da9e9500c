"""Token classes: start, delimiter, weak, other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.data import token_class
from monadnock.data.token_classes import prevailing

LATER = st.integers(1, 10**6)
CLASSES = {
    "weak": ["the", " The", "a", " OF", "and\n", "that", "", "▁".replace("▁", " ")],
    "delimiter": [".", ",", " ...", "\n.\n", "?!", "(", "—", "。", "**", '"'],
    "other": ["rock", "1", "thee", "a.", "the-", "Ġthe", "$", "'s", "�", "🪨", "theof"],
}


@given(st.text(), st.booleans())
def test_position_0_is_start(text, special):
    assert token_class(text, position=0, special=special) == "start"


@given(st.text(), LATER)
def test_a_special_token_is_start_wherever_it_stands(text, position):
    assert token_class(text, position=position, special=True) == "start"


@given(st.text(st.characters(categories=["Zs", "Zl", "Zp"]) | st.sampled_from(" \t\n\r\v\f")), LATER)
def test_blanks_are_weak(text, position):
    assert token_class(text, position=position) == "weak"


@given(st.text(), st.text(" \n\t"), st.text(" \n\t"), LATER)
def test_blanks_around_a_word_and_its_place_do_not_matter(text, before, after, position):
    assert token_class(before + text + after, position=position) == token_class(text, position=1)


@given(st.text(), LATER)
def test_every_token_has_one_of_the_classes(text, position):
    assert token_class(text, position=position) in {"delimiter", "weak", "other"}


@given(st.text(".,;:!?()", min_size=1), LATER)
def test_a_run_of_delimiters_is_one(text, position):
    assert token_class(text, position=position) == "delimiter"


@pytest.mark.parametrize(("text", "expected"), [(text, name) for name in CLASSES for text in CLASSES[name]])
def test_examples(text, expected):
    assert token_class(text, position=3) == expected


def test_prevailing_needs_more_than_half():
    assert prevailing([3, 1, 1, 3, 2]) is None
    assert prevailing([3, 1]) is None
    assert prevailing(["b", "a", "a"]) == "a"
    assert prevailing([0]) == 0
