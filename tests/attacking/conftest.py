"""Tiny models with planted massive rows, and their attacks."""

from typing import Any

import pytest
import torch

from monadnock.attacking import attack
from monadnock.models import Adapter
from tests.models.conftest import one_thread  # noqa: F401 (a fixture)
from tests.planting import Patient, Reserved
from tests.words import random_words, word_tokenizer, write_words

TOKENIZER = word_tokenizer()
LENGTH, WINDOWS, LAYER, ROWS = 24, 2, 1, [9, 40]
SIZES: dict[str, Any] = {"length": LENGTH, "tokens": LENGTH * WINDOWS, "progress": False}


def planted(model_type: str, text) -> Adapter:
    """Return a tiny model in which two rows of layer 1 make a massive activation of the start token."""
    from monadnock.data import token_windows

    ids = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=LENGTH * WINDOWS).ids
    patient = Patient(model_type, ids, Reserved(every=30, start=31, marker=29))
    patient.plant_rows(LAYER, ROWS, [4000.0, 2500.0], feature=3, total=9000.0)
    patient.adapter.tokenizer = TOKENIZER
    return patient.adapter


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(300))


@pytest.fixture(scope="module", params=["llama", "mixtral", "gpt2"])
def patient(request, text):
    return planted(request.param, text)


@pytest.fixture(scope="module")
def llama(text):
    return planted("llama", text)


@pytest.fixture
def run_attack(text, tmp_path):
    """Return a function that attacks into `tmp_path/run`, quick metrics only unless others are asked."""

    def run(adapter, **options):
        given = {"text": text, "out": tmp_path / "run", "metrics": ["perplexity", "kl"]} | SIZES | options
        return attack(adapter, **given)

    return run


def states(adapter):
    return {name: p.detach().clone() for name, p in adapter.model.named_parameters()}


def assert_unchanged(adapter, before):
    assert all(torch.equal(p, before[name]) for name, p in adapter.model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in adapter.model.modules())
