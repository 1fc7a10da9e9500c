"""A lens over tiny models: what it writes, how it goes on, what it refuses."""

import pytest
import torch

from monadnock import MonadnockError
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.reading import lens
from monadnock.reading import lensing as module
from monadnock.reading.dictionary import NAMES, input_dictionary, output_dictionary
from monadnock.reading.middle import middle_dictionary
from monadnock.scanning import scan
from tests.reading.conftest import make, plain
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import BOS_ID, FIRST_WORD_ID, random_words, word_tokenizer, write_words

PROMPT = "w1 w2 w3 w4"
IDS = [BOS_ID, *(FIRST_WORD_ID + i for i in (1, 2, 3, 4))]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(400))


@pytest.fixture(scope="module")
def llama():
    return make("llama")


@pytest.fixture
def run_lens(tmp_path):
    """Return a function that reads into `tmp_path/run`."""

    def run(adapter, prompt=PROMPT, **options):
        return lens(adapter, prompt, **{"out": tmp_path / "run", "progress": False, **options})

    return run


@pytest.fixture
def added(monkeypatch):
    """The parts that are written, as (table, part)."""
    parts, add = [], Run.add
    monkeypatch.setattr(Run, "add", lambda self, *args: parts.append(args[:2]) or add(self, *args))
    return parts


def reading(run, **place):
    """Return the tokens and amplitudes of one state, best first."""
    rows = run.table("lens").filter(**place).sort("rank")
    assert rows["rank"].to_list() == list(range(1, rows.height + 1))
    return rows["word_id"].to_list(), rows["amplitude"].to_list()


@pytest.mark.parametrize("case", ["llama", "gpt2", "gemma2", "mixtral"])
@pytest.mark.parametrize("rows", ["normalised", "raw"])
def test_every_state_is_read_by_every_dictionary(case, rows, run_lens):
    adapter = make(case)
    before = state(adapter.model)
    run = run_lens(adapter, k=3, rows=rows)
    assert_untouched(adapter.model, before)
    states, logits = plain(adapter, torch.tensor(IDS))
    middle = middle_dictionary(adapter, run.manifest.text.start_token_id)
    table = run.table("lens")
    assert table.height == 3 * 4 * 5 * 3
    for words in (input_dictionary(adapter), output_dictionary(adapter), middle):
        matrix = words.rows if rows == "raw" else torch.nn.functional.normalize(words.rows, dim=1)
        for layer in range(-1, 3):
            products = words.states(states[layer + 1]) @ matrix.T
            for position in range(5):
                ids, amplitudes = reading(run, dictionary=words.name, layer=layer, position=position)
                best = products[position].topk(3)
                assert amplitudes == pytest.approx(best.values.tolist(), abs=1e-4)
                assert products[position, ids].tolist() == pytest.approx(amplitudes, abs=1e-4)
    if rows == "raw":
        for position in range(5):
            (best, *_), _ = reading(run, dictionary="output", layer=2, position=position)
            assert best == int(logits[position].argmax())
    assert set(table["rows"]) == {rows} and set(table["words"]) == {"all"}
    said = table.select("prompt", "bos", "position", "token_id", "token").unique().sort("position").rows()
    assert said == [(PROMPT, True, at, each, adapter.tokenizer.decode([each])) for at, each in enumerate(IDS)]
    assert (table["word"] == adapter.tokenizer.batch_decode([[each] for each in table["word_id"]])).all()


def test_a_token_reads_as_itself_before_the_first_layer(llama, run_lens):
    run = run_lens(llama, dictionaries=["input"], k=1)
    first = run.table("lens").filter(layer=-1).sort("position")
    assert first["word_id"].to_list() == IDS
    assert first["amplitude"].to_list() == pytest.approx([1.0] * 5)
    assert first["word"].to_list() == first["token"].to_list()


def test_attention_to_the_first_token_is_kept_with_the_ends_of_sentences(llama, run_lens, monkeypatch):
    monkeypatch.setattr(module, "ends_sentence", lambda texts: [text == "w2" for text in map(str.strip, texts)])
    run = run_lens(llama)
    table = run.table("first_token")
    assert table.height == 3 * 4 * 5
    assert (table.filter(position=0)["mass"] - 1).abs().max() < 1e-6
    assert table.filter(ends_sentence=True)["position"].unique().to_list() == [2]
    from monadnock.reading.states import first_attention

    expected = first_attention(llama, torch.tensor(IDS))
    for row in table.to_dicts():
        assert row["mass"] == pytest.approx(float(expected[row["layer"], row["head"], row["position"]]), abs=1e-6)


def test_words_of_the_prompt_alone(llama, run_lens, added):
    run = run_lens(llama, words="prompt", k=8, dictionaries=["input", "middle"])
    table = run.table("lens")
    assert set(table["word_id"]) == set(IDS)
    assert table.height == 2 * 4 * 5 * 5  # each prompt has five
    added.clear()
    run_lens(llama, words="prompt", k=8, dictionaries=["input", "middle"])
    assert added == []
    both = run_lens(llama, k=2, dictionaries=["input"])
    assert set(both.table("lens")["words"]) == {"all", "prompt"}


def test_more_words_than_there_are_tokens(llama, run_lens, added, monkeypatch):
    monkeypatch.setattr(module, "MOST", 500)
    assert run_lens(llama, k=200, dictionaries=["input"]).table("lens")["rank"].max() == 128
    added.clear()
    run_lens(llama, k=200, dictionaries=["input"])
    assert added == []


def test_nothing_is_done_twice(llama, run_lens, added, monkeypatch):
    run = run_lens(llama, dictionaries=["input", "output"])
    whole = run.table("lens")
    assert len(added) == 3
    added.clear()
    monkeypatch.setattr(module, "see_prompt", None)
    assert run_lens(llama, dictionaries=["output", "input", "output"]).table("lens").equals(whole)
    assert run_lens(llama, dictionaries=["input"], k=3).table("lens").equals(whole)  # fewer words are there already
    assert run_lens(llama, dictionaries=["input"], middle_layers=3).table("lens").equals(whole)
    assert added == []


def test_more_words_take_the_place_of_fewer(llama, run_lens, added):
    run_lens(llama, dictionaries=["input", "output"], k=2)
    added.clear()
    run = run_lens(llama, dictionaries=["input"], k=4)
    assert [table for table, _ in added] == ["lens"]
    counts = run.table("lens").group_by("dictionary", "layer", "position").len()
    assert set(counts.filter(dictionary="input")["len"]) == {4} and set(counts.filter(dictionary="output")["len"]) == {
        2
    }


def test_other_settings_stand_beside_each_other(llama, run_lens):
    one = run_lens(llama, dictionaries=["input", "middle"], k=1).table("lens").height
    assert run_lens(llama, dictionaries=["input", "middle"], k=1, middle_layers=1).table("lens").height == one * 3 / 2
    assert run_lens(llama, dictionaries=["input"], k=1, rows="raw").table("lens").height == one * 2
    run = run_lens(llama, "w9", dictionaries=["input"], k=1)
    assert set(run.table("lens")["prompt"]) == {PROMPT, "w9"}
    run = run_lens(llama, dictionaries=["input"], k=1, bos=False)
    assert run.table("lens").filter(bos=False, layer=-1)["token_id"].to_list() == IDS[1:]
    places = ["prompt", "bos", "position", "dictionary", "layer", "rank", "rows", "words"]
    assert not run.table("lens").select(places).is_duplicated().any()
    places = ["prompt", "bos", "layer", "head", "position"]
    assert not run.table("first_token").select(places).is_duplicated().any()


def test_prompts_of_the_same_tokens_are_both_kept(llama, run_lens):
    """A tokenizer may not tell two texts apart; who asks for the one finds it."""
    run_lens(llama, "w1 w2", dictionaries=["input"])
    run = run_lens(llama, "w1  w2", dictionaries=["input"])
    for name in ("lens", "first_token"):
        assert set(run.table(name)["prompt"]) == {"w1 w2", "w1  w2"}


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_stopped_lens_goes_on_and_ends_with_the_same_rows(llama, run_lens, tmp_path, monkeypatch, stop):
    whole = run_lens(llama, out=tmp_path / "whole")
    before, calls, add = state(llama.model), [], Run.add

    def stops(self, *args):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(args[:2])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        run_lens(llama)
    assert_untouched(llama.model, before)
    kept = list((tmp_path / "run" / "tables").glob("*/*.parquet"))
    assert len(kept) == stop
    monkeypatch.setattr(Run, "add", lambda self, *args: calls.append(args[:2]) or add(self, *args))
    again = run_lens(llama)
    assert len(calls) == len(set(calls)) == 4
    for name in ("lens", "first_token"):
        order = [column for column in again.table(name).columns if column != "amplitude"]
        assert again.table(name).sort(order).equals(whole.table(name).sort(order))


def test_a_tokenizer_without_bos(tmp_path):
    adapter = Adapter(tiny_model("llama"), word_tokenizer(bos=False), Source("llama", "object"))
    run = lens(adapter, PROMPT, out=tmp_path / "run", k=1, progress=False)
    assert set(run.table("lens")["bos"]) == {False} and run.table("lens")["position"].max() == 3
    middle = middle_dictionary(adapter, run.manifest.text.start_token_id)
    states, _ = plain(adapter, torch.tensor(IDS[1:]))
    best = middle.top(middle.states(states[2]), 1)
    (word,), (amplitude,) = reading(run, dictionary="middle", layer=1, position=3)
    assert word == best.ids[3, 0] and amplitude == pytest.approx(float(best.amplitudes[3, 0]), abs=1e-4)
    with pytest.raises(MonadnockError, match="BOS was asked for, but the tokenizer of llama has none"):
        lens(adapter, PROMPT, out=tmp_path / "run", bos=True, progress=False)


def test_the_longest_prompt_that_is_read(run_lens):
    adapter = make("llama", max_position_embeddings=300)
    run = run_lens(adapter, "w1 " * 255, dictionaries=["input"], k=1)
    assert run.table("lens")["position"].max() == 255


class Silent:
    """A tokenizer that drops what it does not know."""

    bos_token_id = BOS_ID

    def encode(self, text, **options):
        return []


@pytest.mark.parametrize(
    ("prompt", "options", "told"),
    [
        (PROMPT, {"dictionaries": ["inputs"]}, "There is no dictionary 'inputs': did you mean input?"),
        (PROMPT, {"dictionaries": []}, "No dictionary was asked for; there are input, output, middle"),
        (PROMPT, {"k": 0}, "0 words of each state were asked; give 1 to 100"),
        (PROMPT, {"k": 101}, "101 words of each state were asked"),
        (PROMPT, {"rows": "row"}, "rows was 'row'; give normalised or raw"),
        (PROMPT, {"words": "some"}, "words was 'some'; give all or prompt"),
        (PROMPT, {"middle_layers": 4}, "behind 4 layers was asked, but llama has 3"),
        (PROMPT, {"middle_layers": 0}, "behind 0 layers was asked, but llama has 3"),
        ("", {}, "The prompt is empty"),
        (" \n", {}, "The prompt is empty"),
        ("w1 \udcff", {}, "The prompt cannot be read as text"),
        ("w1 " * 256, {}, "The prompt has 257 tokens, .* at most 256; give a shorter one"),
        ("w1 " * 300, {"bos": False}, "The prompt has 300 tokens"),
    ],
)
def test_refused_requests_leave_nothing(llama, run_lens, tmp_path, prompt, options, told):
    with pytest.raises(MonadnockError, match=told) as error:
        run_lens(llama, prompt, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"dictionaries": ["inputs"]}, {"k": 0}, {"rows": "row"}, {"words": "some"}])
def test_what_needs_no_model_is_refused_before_it_is_loaded(options, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_model", None)
    with pytest.raises(MonadnockError):
        lens("nowhere", out=tmp_path / "run", **options)


def test_a_prompt_that_gives_no_tokens(tmp_path):
    adapter = Adapter(tiny_model("llama"), Silent(), Source("llama", "object"))
    with pytest.raises(MonadnockError, match="The prompt is empty"):
        lens(adapter, PROMPT, out=tmp_path / "run")


def test_a_prompt_longer_than_the_model_sees(run_lens):
    with pytest.raises(MonadnockError, match="The prompt has 41 tokens, the model sees at most 32"):
        run_lens(make("llama", max_position_embeddings=32), "w1 " * 40)


def test_a_run_of_another_model_is_refused(llama, run_lens, text, tmp_path):
    other = Adapter(tiny_model("llama", seed=1), word_tokenizer(), Source("another", "object"))
    scan(other, text=text, out=tmp_path / "run", length=24, tokens=24, probes=["start_token"], progress=False)
    with pytest.raises(MonadnockError, match="is a run of another, the model is llama"):
        run_lens(llama)
    with torch.no_grad():
        other.weight(1, "down").read().mul_(1.5)
    with pytest.raises(MonadnockError, match="with other weights"):
        run_lens(other)
    assert not {"lens", "first_token"} & set(Run.open(tmp_path / "run").heights())


def test_names_of_dictionaries_are_those_that_can_be_asked():
    assert NAMES == ("input", "output", "middle")
