"""The packaged models are where the catalogue says that we found them, and where a scan finds them."""

import pytest

from monadnock.catalogue import measured_weights
from monadnock.verifying import verify

pytestmark = pytest.mark.real


def test_smollm2(smollm2, smollm2_run):
    verdict = verify(smollm2)
    assert (verdict.outcome, verdict.layers_run, verdict.massive) == ("match", 12, True)
    assert verdict.magnitudes[:2] == pytest.approx((3065, 1119), rel=0.01)
    assert "BOS ('<|im_start|>', id 1)" in verdict.sentence
    assert_as_scanned(smollm2_run, "smollm2")


def test_gemma3(gemma3, gemma3_run):
    verdict = verify(gemma3)
    assert (verdict.outcome, verdict.layers_run, verdict.massive) == ("match", 1, True)
    assert_as_scanned(gemma3_run, "gemma3-270m")


def test_against_another_entry(smollm2):
    verdict = verify(smollm2, entry="Llama-2-7b-hf")
    assert (verdict.outcome, verdict.layer, verdict.layers_run) == ("mismatch", 11, 12)
    assert "layer 11, not layer 1" in verdict.sentence


def assert_as_scanned(run, name):
    """The whole scan, through all layers, finds the same layer and indices."""
    entry, found = measured_weights()[name], run.table("massive_weights").sort("rank")
    assert found["layer"].unique().to_list() == [entry.layer]
    assert tuple(found["feature"][:5]) == entry.features
