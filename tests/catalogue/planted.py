"""Tiny models with planted massive rows, and entries of the catalogue that are right or wrong about them."""

from dataclasses import dataclass

import pytest

from monadnock.catalogue import Entry
from monadnock.data import token_windows
from monadnock.models import Adapter, Source
from monadnock.sites import Stream
from tests.planting import Patient, Reserved
from tests.words import random_words, word_tokenizer, write_words

NAME = "Planted-Tiny-4L"
TOKENIZER = word_tokenizer()
ROWS = [40, 2, 17, 9, 33]
FEATURE = 9


@dataclass(frozen=True)
class Planted:
    """A model with massive rows, and the layer and expert in which they are."""

    adapter: Adapter
    layer: int
    expert: int | None

    def entry(self, layer=None, expert=None, features=None, model=NAME):
        """Return an entry that is right, but for what is given."""
        return Entry(
            model,
            self.layer if layer is None else layer,
            self.expert if expert is None else expert,
            tuple(ROWS if features is None else features),
            "planted",
        )


def plant(folder, model_type="llama", layer=1, end=None):
    """Plant massive rows into a tiny model of four layers.

    Args:
        folder: where its text is written.
        model_type: llama, mixtral or gpt2.
        layer: where the five rows are; None plants none.
        end: a layer that takes the massive activation away again, with a larger |x_down|.
    """
    text = write_words(folder, random_words(100))
    ids = token_windows(TOKENIZER, text=text, length=44, tokens=88).ids
    subject = Patient(model_type, ids, Reserved(0, 1, 3))
    expert = None
    if layer is not None:
        largest = 4 * max(100.0, 1000 * subject.median(Stream.DOWN_PROJ_INPUT))
        total = 4 * max(100.0, 1000 * subject.median(Stream.RESIDUAL))
        expert = subject.expert(layer)
        subject.plant_rows(layer, ROWS, [largest * 0.8**rank for rank in range(len(ROWS))], FEATURE, total)
    if end is not None:
        gone = -float(subject.start(Stream.RESIDUAL, end - 1)[FEATURE])
        subject.plant_rows(end, [50], [3 * largest], FEATURE, gone)
    adapter = Adapter(subject.adapter.model, TOKENIZER, Source(f"someone/{NAME}", "object"))
    return Planted(adapter, -1 if layer is None else layer, expert)


@pytest.fixture
def publish(monkeypatch):
    """Return a function that puts entries in place of the published ones."""

    def put(*entries):
        monkeypatch.setattr(
            "monadnock.catalogue.published.published_weights", lambda: {entry.model: entry for entry in entries}
        )

    return put
