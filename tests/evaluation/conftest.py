"""Tiny models with a text, for evaluations."""

import pytest

from monadnock.data import token_windows
from monadnock.models import Adapter, Source
from tests.models.conftest import CASES, one_thread, without_gradients  # noqa: F401 (fixtures)
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words

TOKENIZER = word_tokenizer()


def make(case):
    model_type, changes = CASES[case]
    return Adapter(tiny_model(model_type, **changes), TOKENIZER, Source(case, "object"))


@pytest.fixture(scope="module", params=list(CASES))
def adapter(request):
    return make(request.param)


@pytest.fixture(scope="module")
def llama():
    return make("llama")


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(400))


@pytest.fixture(scope="session")
def windows(text):
    return token_windows(TOKENIZER, text=text, length=24, tokens=72)
