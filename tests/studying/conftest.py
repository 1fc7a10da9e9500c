"""Tiny models whose BOS is massive wherever it stands, and studies of them."""

from typing import Any

import pytest
import torch

from monadnock.models import Adapter
from monadnock.studying import study
from tests.models.conftest import one_thread  # noqa: F401 (a fixture)
from tests.planting import Patient, Reserved
from tests.words import BOS_ID, random_words, word_tokenizer, write_words

TOKENIZER = word_tokenizer()
LENGTH, LAYER = 24, 1
SIZES: dict[str, Any] = {"length": LENGTH, "tokens": 3 * LENGTH, "progress": False}
PROMPT = "w1 w2 w3. w4 w5 w6 w8."


def planted(model_type: str) -> Adapter:
    """Return a tiny model in which two rows of layer 1 answer to BOS at any position, and to nothing else."""
    words = TOKENIZER(" ".join(random_words(4 * LENGTH)), add_special_tokens=False)["input_ids"]
    ids = torch.tensor(words[: 3 * LENGTH]).view(3, LENGTH)
    for window, place in enumerate((0, LENGTH // 2, LENGTH - 1)):
        ids[window, place] = BOS_ID
    patient = Patient(model_type, ids, Reserved(every=30, start=31, marker=29))
    patient.plant_rows(LAYER, [9, 40], [4000.0, 2500.0], feature=3, total=9000.0)
    patient.adapter.tokenizer = TOKENIZER
    return patient.adapter


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(300))


@pytest.fixture(scope="module")
def llama():
    return planted("llama")


@pytest.fixture
def run_study(text, tmp_path):
    """Return a function that studies into `tmp_path/run`."""

    def run(adapter, kind, **options):
        return study(adapter, kind, **{"text": text, "out": tmp_path / "run"} | SIZES | options)

    return run
