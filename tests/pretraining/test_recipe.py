"""Recipes of pretraining: those that come with monadnock read, and what is wrong is said in a sentence."""

from pathlib import Path

import pytest

from monadnock import MonadnockError
from monadnock.pretraining import read_recipe
from monadnock.pretraining.recipe import TextData

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes").glob("pretrain_*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_reads(path):
    assert read_recipe(path).about


def test_changes_stand_in_place_of_what_is_written(recipe):
    read = read_recipe(recipe(), steps=3, architecture="llama", data={"text": ["a.txt"]})
    assert read.steps == 3 and read.architecture == "llama" and isinstance(read.data, TextData)
    assert read.data.length == 16 and read.data.bos  # as long as the task's sequences were
    assert read_recipe(recipe(), steps=None).steps == 12


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step": 5}, "sets step, which there is not: did you mean steps"),
        ({"data": {"task": "backcopy", "lenght": 9}}, "sets lenght, which there is not: did you mean length"),
        ({"data": {"task": "shakespeare"}}, r"data\.task has to be 'backcopy', not 'shakespeare'\.$"),
        ({"data": {"task": "backcopy", "vocabulary": 300}}, "sets vocabulary, which there is not: known are length"),
        ({"betas": [2, 3]}, r"betas\.0 has to be below 1, not 2\.$"),
        ({"betas": [0.9]}, r"betas\.1 is missing\.$"),
        ({"betas": [0.1, 0.2, 0.3]}, r"betas has to be a list of two, not \[0\.1"),
        ({"data": {"text": ["a"], "length": 2}}, r"data\.length has to be at least 8, not 2\.$"),
        ({"data": {"text": "a"}}, r"data\.text has to be a list, not 'a'\.$"),
        ({"data": 5}, r"data has to be a list of names with values, not 5\.$"),
        ({"steps": 0}, r"steps has to be at least 1, not 0\.$"),
        ({"steps": 1.5}, r"steps has to be a whole number, not 1\.5\.$"),
        ({"rate": "fast"}, r"rate has to be a number, not 'fast'\.$"),
        ({"rate": float("inf")}, r"rate has to be a finite number, not inf\.$"),
        ({"compile": "maybe"}, r"compile has to be true or false, not 'maybe'\.$"),
        ({"architecture": "bert"}, r"architecture has to be 'gpt2' or 'llama', not 'bert'\.$"),
        ({"model": {1: 2}}, r"model\.1 has to be a name, a text, not 1\.$"),
        ({"verb": "pretrain"}, "recipe of a sweep: monadnock sweep"),
    ],
)
def test_what_is_wrong_is_said(recipe, changes, says):
    path = recipe(architecture="gpt2")
    import yaml

    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(MonadnockError, match=says) as error:
        read_recipe(path)
    assert "\n" not in str(error.value) and "pydantic" not in str(error.value)


@pytest.mark.parametrize("text", ["- a", "a: [", "\0", ""])
def test_what_is_no_recipe_is_told(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(MonadnockError, match=r"r\.yaml (is no list of names|cannot be read)"):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(MonadnockError, match="cannot be read"):
        read_recipe(tmp_path / "none.yaml")
