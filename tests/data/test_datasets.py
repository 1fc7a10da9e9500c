"""Text from a data set: only as much as is needed, and a sentence where it is not to be had."""

import sys
import types

import pytest

from monadnock.data import token_windows
from monadnock.errors import MonadnockError
from tests.words import word_tokenizer


class Fake(types.ModuleType):
    """Stands in for the `datasets` package, and counts the rows that are taken from it."""

    def __init__(self, splits):
        super().__init__("datasets")
        self.splits, self.asked, self.taken = splits, [], 0

    def load_dataset(self, path, config, *, streaming):
        self.asked.append((path, config, streaming))
        if isinstance(self.splits, Exception):
            raise self.splits
        return {name: self._rows(rows) for name, rows in self.splits.items()}

    def _rows(self, rows):
        for row in rows:
            self.taken += 1
            yield row


@pytest.fixture
def fake(monkeypatch):
    def put(splits):
        monkeypatch.setitem(sys.modules, "datasets", Fake(splits))
        return sys.modules["datasets"]

    return put


def windows(name, **options):
    return token_windows(word_tokenizer(), dataset=name, **{"length": 5, "tokens": 10} | options)


def refusal(name):
    with pytest.raises(MonadnockError) as caught:
        windows(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def texts(*words):
    return [{"id": i, "text": word} for i, word in enumerate(words)]


def ids(found):
    return [[i - 3 for i in row[1:]] for row in found.ids.tolist()]


def test_the_split_is_test_or_else_the_first_there_is(fake):
    data = fake({"train": texts("w1 " * 9), "test": texts("w2 w3", "w4 w5", "w6 w7 w8 w9")})
    found = windows("owner/name")
    assert ids(found) == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert found.source == "owner/name"
    assert data.asked == [("owner/name", None, True)]
    fake({"train": texts("w1 " * 9), "valid": texts("w2 " * 9)})
    assert ids(windows("owner/name")) == [[1] * 4] * 2


def test_config_and_split_may_be_named(fake):
    data = fake({"train": texts("w1 " * 9), "test": texts("w2 " * 9)})
    found = windows("owner/name:small:train")
    assert ids(found) == [[1] * 4] * 2
    assert found.source == "owner/name:small:train"
    windows("owner/name:small")
    windows("owner/name::train")
    assert [config for _, config, _ in data.asked] == ["small", "small", None]


def test_no_more_rows_are_taken_than_needed(fake):
    data = fake({"test": texts(*["w1 w2 w3 w4 w5 w6 w7 w8 w9 w10"] * 1000)})
    windows("owner/name")
    assert 1 <= data.taken < 10


def test_the_first_column_of_text_stands_in_for_one_named_text(fake):
    fake({"test": [{"id": 1, "line": "w1 " * 9, "more": "w2 " * 9}]})
    assert ids(windows("owner/name")) == [[1] * 4] * 2


def test_what_is_not_there(fake):
    fake({"test": [{"id": 1, "label": 2}]})
    assert refusal("owner/name") == "Data set owner/name has no text column; it has id, label."
    fake({"train": texts("w1"), "validation": texts("w1")})
    assert "has no split 'valdation': did you mean validation?" in refusal("owner/name::valdation")
    fake(ConnectionError("Couldn't reach the hub\nlong traceback"))
    assert refusal("owner/name") == "Data set owner/name could not be loaded: Couldn't reach the hub"
    fake(ValueError())
    assert refusal("owner/name") == "Data set owner/name could not be loaded: ValueError"
    fake({"test": []})
    assert "too short for one window" in refusal("owner/name")
    fake({"test": texts("w1")})
    assert "The text owner/name has 1 tokens, too short" in refusal("owner/name")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install -e '.[data]'" in refusal("owner/name")
