"""Questions in the form of Spec-Bench: which columns they make, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.evaluation.questions import MT_BENCH, read_questions
from monadnock.findings.judged import COLUMNS

OURS = Path(__file__).parents[2] / "recipes" / "questions.jsonl"


def write(folder, *rows):
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_ours_fill_the_seven_columns():
    asked = read_questions(OURS).asked
    assert {question.column(turn) for question in asked for turn in range(len(question.turns))} == set(COLUMNS)
    assert {question.category for question in asked} > set(MT_BENCH)
    assert len({question.id for question in asked}) == len(asked)


def test_a_limit_holds_for_each_category():
    whole, cut = read_questions(OURS), read_questions(OURS, 1)
    assert [each.category for each in cut.asked] == list(dict.fromkeys(each.category for each in whole.asked))
    assert whole.label != cut.label


@given(st.integers(1, 3), st.none() | st.text("ab", max_size=3) | st.lists(st.none() | st.text("ab"), max_size=4))
def test_there_is_one_reference_or_none_for_each_turn(tmp_path_factory, turns, reference):
    row = {"category": "qa", "turns": ["?"] * turns} | ({} if reference is None else {"reference": reference})
    (question,) = read_questions(write(tmp_path_factory.mktemp("q"), row)).asked
    given = [reference] if isinstance(reference, str) else reference or []
    assert question.references == tuple([*(each for each in given), *[None] * turns][:turns]) or reference == ""
    assert question.column(0) == ("qa" if turns == 1 else "qa-1")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"category": "qa"}, "question 1 of .* needs a category and turns"),
        ({"turns": ["?"]}, "needs a category"),
        ({"category": "qa", "turns": []}, "needs a category"),
        ({"category": "qa", "turns": ["  "]}, "needs a category"),
        ({"category": "qa", "turns": "?"}, "needs a category"),
        (["?"], "needs a category"),
        ({"category": "qa", "turns": ["?"], "reference": 3}, "neither a text nor a list"),
        ({"category": "qa", "turns": ["?"], "reference": [3]}, "neither a text nor a list"),
    ],
)
def test_rows_in_another_form_are_refused(tmp_path, row, says):
    with pytest.raises(MonadnockError, match=says):
        read_questions(write(tmp_path, row))


def test_two_questions_of_one_name_are_refused(tmp_path):
    row = {"question_id": 7, "category": "qa", "turns": ["?"]}
    with pytest.raises(MonadnockError, match="several questions with question_id 7"):
        read_questions(write(tmp_path, row, row))


def test_files_without_questions_are_refused(tmp_path):
    with pytest.raises(MonadnockError, match="has no questions"):
        read_questions(write(tmp_path))
    with pytest.raises(MonadnockError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
