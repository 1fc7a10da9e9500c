"""The packaged models, loaded once, and what a scan of each finds."""

import os
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from monadnock.models import load
from monadnock.models.packaged import PACKAGED
from monadnock.scanning import scan


def loaded(name):
    """Load a packaged model; without its wheels the tests are left out, but never in CI."""
    for wheel in PACKAGED[name].distributions:
        try:
            distribution(wheel)
        except PackageNotFoundError:
            if not os.environ.get("CI"):
                pytest.skip(f"{wheel} is not installed: {PACKAGED[name].install}")
    return load(name)


@pytest.fixture(scope="session")
def smollm2():
    return loaded("smollm2")


@pytest.fixture(scope="session")
def smollm2_run(smollm2, tmp_path_factory):
    """Return a scan over 512 tokens of the built-in text, BOS in front."""
    return scan(smollm2, tokens=512, length=512, out=tmp_path_factory.mktemp("smollm2") / "run")


@pytest.fixture(scope="session")
def gemma3():
    return loaded("gemma3-270m")


@pytest.fixture(scope="session")
def gemma3_run(gemma3, tmp_path_factory):
    """Return a scan over 1024 tokens of the built-in text, twice the width of the sliding window."""
    return scan(gemma3, tokens=1024, length=1024, out=tmp_path_factory.mktemp("gemma3") / "run")
