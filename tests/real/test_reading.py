"""What the states of SmolLM2 say: a token leaves the input dictionary, stays in the middle one, and is replaced."""

import polars as pl
import pytest
import torch

from monadnock.reading import lens, read
from monadnock.reading.lensing import PROMPT
from monadnock.reading.states import prompt_ids

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def run(smollm2, tmp_path_factory):
    return lens(smollm2, out=tmp_path_factory.mktemp("read") / "run", progress=False)


def own(run, dictionary, layer, rank=8):
    """Return the share of positions, the first left out, at which the token itself is among the first words."""
    rows = run.table("lens").filter(pl.col("position") > 0, dictionary=dictionary, layer=layer)
    found = rows.filter(pl.col("word_id") == pl.col("token_id"), pl.col("rank") <= rank)
    return found.height / rows["position"].n_unique()


def test_every_embedding_reads_itself_back(run):
    at = run.table("lens").filter(dictionary="input", layer=-1, rank=1)
    assert (at["word_id"] == at["token_id"]).all()
    assert at["amplitude"].to_list() == pytest.approx([1.0] * at.height, abs=1e-5)


def test_the_token_leaves_the_input_dictionary_for_the_middle_one(run):
    assert own(run, "input", 0) < 0.1
    assert own(run, "middle", 0, rank=1) > 0.8
    assert own(run, "middle", 11, rank=1) > 0.7
    assert own(run, "middle", 25, rank=1) < 0.2


def test_the_last_state_read_by_raw_rows_is_what_the_model_predicts(smollm2, tmp_path):
    found = lens(smollm2, out=tmp_path / "run", dictionaries=["output"], rows="raw", k=5, progress=False).table("lens")
    ids, _ = prompt_ids(smollm2, PROMPT, None)
    logits = smollm2.forward(ids, keep=len(ids)).float()
    rows = found.filter(layer=29).sort("position", "rank")["word_id"].to_list()
    assert torch.tensor(rows).view(len(ids), 5).tolist() == logits.topk(5).indices.tolist()


def test_what_the_tour_through_llama_claims(smollm2, run):
    read(smollm2, out=run.path, what=["tokens", "layers"], tokens=1024, length=512, progress=False)
    facts = run.table("dictionaries").row(0, named=True)
    assert facts["tied"]
    assert facts["positive_share"] > 0.95
    assert facts["noise_floor"] == pytest.approx(0.1305, abs=1e-3)
    similar = {
        (a, b): value for a, b, value in run.table("word_similarity").select("word_a", "word_b", "similarity").rows()
    }
    assert similar["girl", "boy"] > 0.6 > 0.2 > similar["girl", "red"]
    steps = run.table("state_similarity").filter(relation="later", gap=1).sort("layer")["mean"].to_list()
    assert abs(steps[0]) < 0.1  # the first layer turns the state
    assert sum(steps[2:-1]) / len(steps[2:-1]) == pytest.approx(0.955, abs=0.01)
    effect = run.table("first_sentence").filter(pl.col("layer").is_null(), sentence=1)["effect"]
    assert (effect < 0.01).all()  # claimed to be above 0
