"""What massive weights do in SmolLM2, on the first 2,046 tokens of the built-in text, BOS in front of two windows."""

import pytest
import torch

from monadnock import interventions as change
from monadnock.attacking import attack
from monadnock.data import Windows
from monadnock.data.text import built_in_text
from monadnock.evaluation import perplexity
from monadnock.models.start import start_states

pytestmark = pytest.mark.real
LENGTH = 1024


@pytest.fixture(scope="module")
def windows(smollm2):
    text = smollm2.tokenizer(built_in_text()[:30_000], add_special_tokens=False)["input_ids"]
    body = torch.tensor(text[: 2 * (LENGTH - 1)]).view(2, LENGTH - 1)
    bos = body.new_full((2, 1), smollm2.tokenizer.bos_token_id)
    return Windows(torch.cat([bos, body], dim=1), True, "the first tokens", 0)


@pytest.fixture(scope="module")
def clean(smollm2, windows):
    return perplexity(smollm2, windows)


def test_the_clean_model(clean):
    assert clean == pytest.approx(13.6, abs=0.2)


def test_zeroing_two_rows_doubles_perplexity_and_keeping_only_them_hardly_hurts(smollm2, windows, clean):
    with change.zero_rows(smollm2, 11, [1229, 1487]):
        assert perplexity(smollm2, windows) == pytest.approx(28.7, rel=0.05)
    with change.retain_rows(smollm2, 11, [1229, 1487]):
        assert perplexity(smollm2, windows) == pytest.approx(14.8, rel=0.02)
    others = change.random_rows(1536, 50, besides=[1229, 1487])
    with change.zero_rows(smollm2, 11, others):
        assert perplexity(smollm2, windows) == pytest.approx(clean, rel=0.01)


def test_both_stages_together(smollm2, windows):
    second = start_states(smollm2, smollm2.tokenizer.bos_token_id).inner[2].abs().topk(2).indices.tolist()
    with change.zero_rows(smollm2, 11, [1229, 1487]), change.zero_rows(smollm2, 2, second):
        assert perplexity(smollm2, windows) == pytest.approx(126, rel=0.05)


def test_a_single_activation_carries_the_model(smollm2, windows, clean):
    """Without h[BOS, 507] behind layer 11 there is no model left; its mean over a text is as good as itself."""
    with change.set_activations(smollm2, 11, {507: 0.0}):
        assert perplexity(smollm2, windows) > 1e6
    mean = change.mean_activations(smollm2, windows.ids, 11, [507])
    with change.set_activations(smollm2, 11, mean):
        assert perplexity(smollm2, windows) == pytest.approx(clean, rel=1e-4)


def test_attacks_show_the_chain_from_rows_to_sinks(smollm2, tmp_path):
    """Two layers together do more than one, and the sinks go with the activation."""
    options = {"modes": ["zero"], "ks": [2], "tokens": 512, "length": 512, "out": tmp_path / "run"}
    attack(smollm2, metrics=["perplexity", "chain", "generation"], **options)
    run = attack(smollm2, metrics=["perplexity"], layers=[2, 11], **options)
    effects = run.table("effects")
    rows = {(r["mode"], r["layer"], r["metric"]): r["value"] for r in effects.to_dicts()}
    assert rows["zero", 11, "perplexity"] > 1.5 * rows["none", None, "perplexity"]
    assert rows["zero", None, "perplexity"] > 2 * rows["zero", 11, "perplexity"]
    assert rows["zero", 11, "top1_h"] < 0.1 * rows["none", None, "top1_h"]
    assert rows["zero", 11, "sink_share"] < 0.2 < 0.4 < rows["none", None, "sink_share"]  # 0.15 and 0.66
    assert rows["none", None, "implicit_scaling"] < 0.9 < rows["zero", 11, "implicit_scaling"]
    written = {r["mode"]: r["text"] for r in run.table("generations").to_dicts() if "France" in r["prompt"]}
    assert "Paris" in written["none"] and "Paris" not in written["zero"]
