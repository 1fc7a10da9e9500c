"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.tiny import tiny_model
from tests.words import random_words, write_words

# The same examples every time, and no deadline: a busy machine is no failure.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first, so that no worker is left with one of them alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 600 words, w0 to w89."""
    return write_words(tmp_path_factory.mktemp("text"), random_words(600, num_words=90))


@pytest.fixture
def model() -> Any:
    """A tiny Llama of two layers."""
    return tiny_model("llama", num_hidden_layers=2)
