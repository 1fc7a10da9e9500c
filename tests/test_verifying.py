"""Massive rows that were planted match an entry, match it in part, or do not, and no layer runs in vain."""

import re
from dataclasses import FrozenInstanceError

import pytest
from accelerate.utils import OffloadedWeightsLoader

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.verifying import verify
from tests.catalogue.planted import NAME, ROWS, TOKENIZER, plant, publish
from tests.models.test_start import counted
from tests.scans import assert_untouched, state
from tests.words import word_tokenizer

__all__ = ["publish"]
pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ["llama", "mixtral", "gpt2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(params=FAMILIES)
def planted(request, folder):
    return plant(folder, request.param)


def saved(planted, place):
    planted.adapter.model.save_pretrained(place)
    TOKENIZER.save_pretrained(place)
    return place


def test_match(planted, publish):
    publish(planted.entry())
    verdict = verify(planted.adapter)
    assert verdict.outcome == "match"
    assert (verdict.layer, verdict.expert, verdict.features) == (1, planted.expert, tuple(ROWS))
    assert (verdict.expert is None) == (planted.adapter.family.model_type != "mixtral")
    assert verdict.entry == planted.entry()
    assert (verdict.layers_run, verdict.num_layers, verdict.massive) == (2, 4, True)
    assert (verdict.model, verdict.start_token_id) == (f"someone/{NAME}", 1)
    assert list(verdict.magnitudes) == sorted(verdict.magnitudes, reverse=True)
    assert verdict.magnitudes[1] / verdict.magnitudes[0] == pytest.approx(0.8, rel=0.02)
    place = "layer 1" if planted.expert is None else f"layer 1, expert {planted.expert}"
    assert str(verdict) == verdict.sentence
    assert verdict.sentence.startswith(
        f"Match with the catalogue's {NAME} (planted): {place}, and its 5 indices in the same order. "
        f"Largest |x_down| in {place}: 40 ("
    )
    assert verdict.sentence.endswith("BOS ('<s>', id 1) was fed alone; 2 of 4 layers ran. Layers count from 0.")


PARTIAL = {
    "another order": ([2, 40, 17, 9, 33], "its 5 indices in another order (there 2, 40, 17, 9 and 33)"),
    "one other index": ([40, 2, 50, 9, 33], "4 of its 5 indices in the same order, without 50 and 17 in its place"),
    "two others": ([51, 2, 50, 9, 33], "3 of its 5 indices in the same order, without 51 and 50 and 40 and 17 in"),
    "both": ([2, 40, 17, 9, 50], "4 of its 5 indices in another order (there 2, 40, 17, 9 and 50), without 50 and 33"),
    "only one": ([50, 51, 52, 53, 40], "1 of its 5 indices in the same order, without 50, 51, 52 and 53"),
    "fewer": ([2, 40], "its 2 indices in another order (there 2 and 40)"),
}


@pytest.mark.parametrize("case", PARTIAL)
def test_partial_match(planted, publish, case):
    features, said = PARTIAL[case]
    publish(planted.entry(features=features))
    verdict = verify(planted.adapter)
    assert verdict.outcome == "partial"
    assert verdict.sentence.startswith(f"Partial match with the catalogue's {NAME} (planted): layer 1")
    assert said in verdict.sentence
    assert verdict.features == tuple(ROWS[: len(features)])


def test_no_index_in_common_is_a_mismatch(planted, publish):
    publish(planted.entry(features=[50, 51, 52, 53, 54]))
    verdict = verify(planted.adapter)
    assert verdict.outcome == "mismatch"
    assert "but none of its indices 50, 51, 52, 53 and 54." in verdict.sentence


def test_another_expert_is_a_mismatch(folder, publish):
    planted = plant(folder, "mixtral")
    other = (planted.expert + 1) % 4
    publish(planted.entry(expert=other))
    verdict = verify(planted.adapter)
    assert verdict.outcome == "mismatch"
    assert f": layer 1, expert {planted.expert}, not layer 1, expert {other}." in verdict.sentence


def test_a_dense_model_has_no_expert(folder, publish):
    planted = plant(folder, "llama")
    publish(planted.entry(expert=0))
    assert verify(planted.adapter).outcome == "mismatch"


# planted layer, the entry's layer, layers that have to run
LAYERS = {"earlier": (0, 2, 3), "later": (2, 0, 3), "last": (3, 0, 4), "beyond the model": (1, 9, 4)}


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("case", LAYERS)
def test_another_layer_is_a_mismatch(folder, publish, model_type, case):
    layer, published, run = LAYERS[case]
    planted = plant(folder, model_type, layer)
    publish(planted.entry(layer=published))
    verdict = verify(planted.adapter)
    assert verdict.outcome == "mismatch"
    assert (verdict.layer, verdict.features, verdict.layers_run) == (layer, tuple(ROWS), run)
    assert f"(planted): layer {layer}" in verdict.sentence
    assert f", not layer {published}" in verdict.sentence


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_only_as_many_layers_run_as_it_takes(folder, publish, layer):
    planted = plant(folder, "llama", layer)
    publish(planted.entry())
    before = state(planted.adapter.model)
    assert verify(planted.adapter).layers_run == layer + 1
    assert_untouched(planted.adapter.model, before)
    counts = counted(planted.adapter)
    verify(planted.adapter)
    assert counts == [2] * (layer + 1) + [0] * (3 - layer), "once with the text, once alone"


def test_a_model_without_massive_activations_runs_to_its_end(folder, publish):
    planted = plant(folder, "llama", None)
    publish(planted.entry(layer=0))
    verdict = verify(planted.adapter)
    assert (verdict.layers_run, verdict.massive) == (4, False)
    assert "4 of 4 layers ran, and no massive activation stood in h after them." in verdict.sentence
    assert verdict.outcome != "mismatch" or "no massive weights were found, there they are in layer" in verdict.sentence


def test_a_mismatch_of_a_model_without_massive_weights_says_that_there_are_none(folder, publish):
    planted = plant(folder, "llama", None)
    publish(planted.entry(layer=3))
    verdict = verify(planted.adapter)
    wanted = "mismatch", "no massive weights were found, there they are in layer 3."
    assert (verdict.outcome, wanted[1] in verdict.sentence) == (wanted[0], True), verdict.sentence


def test_the_layer_that_takes_it_away_is_not_the_massive_one(folder, publish):
    planted = plant(folder, end=3)
    publish(planted.entry(layer=3, features=[50, *ROWS[:4]]))
    verdict = verify(planted.adapter)
    assert (verdict.layer, verdict.features) == (1, tuple(ROWS))
    assert (verdict.outcome, verdict.layers_run, verdict.massive) == ("mismatch", 4, False)


def test_weights_of_later_layers_stay_on_disk(folder, publish, tmp_path, monkeypatch):
    planted = plant(folder)
    publish(planted.entry())
    place = saved(planted, tmp_path / NAME)
    parts = ["embed_tokens", "rotary_emb", "norm", *(f"layers.{layer}" for layer in range(4))]
    where: dict = {f"model.{part}": "disk" if part.startswith("layers") else "cpu" for part in parts}
    read, own = [], OffloadedWeightsLoader.__getitem__
    monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", lambda self, key: read.append(key) or own(self, key))
    verdict = verify(place, dtype="float32", device_map=where | {"lm_head": "disk"})
    assert (verdict.outcome, verdict.layers_run) == ("match", 2)
    assert {re.sub(r"(layers\.\d+)\..*", r"\1", key) for key in read} == {"model.layers.0", "model.layers.1"}


def test_everything_is_put_back_when_it_fails(planted, publish, monkeypatch):
    publish(planted.entry())
    before = state(planted.adapter.model)

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("monadnock.verifying.is_massive", broken)
    with pytest.raises(ZeroDivisionError):
        verify(planted.adapter)
    assert_untouched(planted.adapter.model, before)


def test_a_folder_is_known_by_its_name(folder, publish, tmp_path):
    planted = plant(folder)
    place = saved(planted, tmp_path / NAME.lower())
    publish(planted.entry())
    verdict = verify(place, dtype="float32", device="cpu")
    assert verdict.outcome == "match"
    assert verdict.model == str(place)
    publish(planted.entry(model="Another"))
    assert verify(str(place), entry="another").entry.model == "Another"


def test_an_unknown_model_is_told_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("monadnock.preparing.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(MonadnockError, match=r"of 'me/Llama-2-7b-hg' \(did you mean Llama-2-7b-hf or"):
        verify("me/Llama-2-7b-hg")
    with pytest.raises(MonadnockError, match="of 'nothing'"):
        verify("me/Llama-2-7b-hf", entry="nothing")


@pytest.mark.parametrize(
    ("tokenizer", "told"),
    [(None, "given without its tokenizer"), (word_tokenizer(bos=False), f"The tokenizer of {NAME} has no BOS token")],
    ids=["none", "without BOS"],
)
def test_without_a_bos_token_there_is_nothing_to_compare(folder, publish, tokenizer, told):
    planted = plant(folder)
    publish(planted.entry())
    adapter = Adapter(planted.adapter.model, tokenizer, Source(NAME, "object"))
    with pytest.raises(MonadnockError, match=told):
        verify(adapter)


def test_a_tokenizer_of_another_model(folder, publish):
    planted = plant(folder)
    publish(planted.entry())
    tokenizer = word_tokenizer(num_words=5, first_id=200)
    tokenizer.bos_token = "w4"
    with pytest.raises(MonadnockError, match="gives id 204, but the model has 128 embeddings"):
        verify(Adapter(planted.adapter.model, tokenizer, Source(NAME, "object")))


def test_a_verdict_stays_as_it_is(folder, publish):
    planted = plant(folder)
    publish(planted.entry())
    with pytest.raises(FrozenInstanceError):
        verify(planted.adapter).outcome = "mismatch"
