"""The causal chain of SmolLM2, over 512 tokens of the built-in text, BOS in front."""

import shutil

import pytest

from monadnock.explaining import explain
from monadnock.findings.chain_links import HOLDS, OPEN, PARTLY
from tests.explaining.conftest import verdicts

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def chain(smollm2, smollm2_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(smollm2_run.path, path)
    return explain(smollm2, out=path, tokens=512, length=512, controls=1, progress=False).table("chain")


def test_which_links_hold(chain):
    assert verdicts(chain) == {
        ("super weights -> massive activation", "super"): HOLDS,
        ("massive rows -> massive activation", "zero"): HOLDS,
        ("massive activation -> sinks", "activation-zero"): PARTLY,
        ("massive activation -> sinks", "activation-all"): PARTLY,
        ("sinks -> predictions", "mask"): OPEN,  # the sink moves to the next key
        ("sinks -> predictions", "mask-behind"): HOLDS,
        ("super weights -> sinks", "super"): PARTLY,
        ("super weights -> predictions", "super"): HOLDS,
        ("massive rows -> sinks", "zero"): HOLDS,
        ("massive rows -> predictions", "zero"): HOLDS,
        ("massive activation -> predictions", "activation-zero"): HOLDS,
        ("massive activation -> predictions", "activation-all"): HOLDS,
    }


def test_numbers(chain):
    found = {(row["mode"], row["metric"]): row for row in chain.to_dicts()}
    assert found["zero", "start_h"]["targets"] == "layer 11: 1229 1487"
    assert found["super", "start_h"]["before"] == pytest.approx(24_832, rel=1e-3)
    assert found["super", "start_h"]["after"] == pytest.approx(988, rel=0.01)
    assert found["zero", "start_h"]["after"] == pytest.approx(187, rel=0.01)
    assert found["mask-behind", "perplexity"]["after"] == pytest.approx(2 * 19.4, rel=0.05)
    assert found["mask-behind", "perplexity"]["control"] == pytest.approx(19.4, rel=0.01)
    assert found["super", "perplexity"]["after"] > 1e6


def test_what_takes_the_activation_away_is_left_with_nothing_to_take(chain):
    """What layer 28 writes into feature 507 is all that is there when there is nothing to take away."""
    note = chain.filter(mode="super", metric="start_h")["note"][0]
    assert note.startswith("feature 507 of the start token is then at -18,0")
    assert note.endswith("behind layer 28, the layer that takes it away in the clean model")
