"""What simple compressors cost SmolLM2, against an independent measurement on the same two windows."""

import dataclasses

import pytest

from monadnock.compression import Method, compressed
from monadnock.evaluation import perplexity
from monadnock.preparing import text_windows

pytestmark = pytest.mark.real
# Perplexity on the first 2 windows of 1,024 tokens of the built-in text with BOS, measured by other code.
REFERENCE = {
    ("absmax", "tensor", 8): 14.38,
    ("absmax", "row", 4): 28.3,
    ("magnitude", "row", 16): 281,
}


@pytest.fixture(scope="module")
def two_windows(smollm2):
    whole = text_windows(smollm2, tokens=10**9, length=1024, bos=None)
    return dataclasses.replace(whole, ids=whole.ids[:2])


@pytest.mark.parametrize("setting", REFERENCE)
def test_perplexity_is_that_of_an_independent_measurement(smollm2, two_windows, setting):
    name, granularity, bits = setting
    with compressed(smollm2, Method.of(name, granularity=granularity, bits=bits)):
        assert perplexity(smollm2, two_windows) == pytest.approx(REFERENCE[setting], rel=0.003)
