"""Dictionaries against whole products, and against what the models themselves make of their states."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monadnock import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.models.components import tied
from monadnock.reading import dictionary as module
from monadnock.reading.dictionary import Dictionary, input_dictionary, one_token, output_dictionary
from monadnock.reading.middle import middle_dictionary
from tests.reading.conftest import make, plain
from tests.tiny import tiny_model
from tests.words import word_tokenizer

POSITIONS = {"gpt2", "gpt2-by-layer", "monadnock_gpt2", "opt", "opt-350m"}  # whose first state is no bare embedding


def unit(rows):
    return rows.double() / rows.double().norm(dim=1, keepdim=True)


# the largest products


@given(
    tokens=st.integers(1, 40),
    width=st.integers(1, 9),
    vectors=st.integers(0, 12),
    k=st.integers(1, 50),
    block=st.integers(1, 17),
    at_once=st.integers(1, 5),
    rows=st.sampled_from(["normalised", "raw"]),
    least=st.booleans(),
    among=st.none() | st.lists(st.integers(0, 39), min_size=1, max_size=20, unique=True),
    seed=st.integers(0, 999),
)
def test_top_is_that_of_the_whole_product(tokens, width, vectors, k, block, at_once, rows, least, among, seed):
    generator = torch.Generator().manual_seed(seed)
    words = Dictionary("input", torch.randn(tokens, width, generator=generator) * 3)
    states = torch.randn(vectors, width, generator=generator)
    ids = torch.arange(tokens) if among is None else torch.tensor([each for each in among if each < tokens] or [0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "_STATES", at_once)
        found = words.top(states, k, rows=rows, only=None if among is None else ids, least=least)
    whole = states.double() @ (words.rows.double() if rows == "raw" else unit(words.rows))[ids].T
    best = whole.topk(min(k, len(ids)), dim=1, largest=not least)
    torch.testing.assert_close(found.amplitudes.double(), best.values, atol=1e-5, rtol=1e-5)
    assert found.ids.shape == best.indices.shape and found.ids.dtype == torch.int64
    of_ids = {each: place for place, each in enumerate(ids.tolist())}
    places = found.ids.clone().apply_(of_ids.__getitem__)  # a token that was not asked for is no key
    torch.testing.assert_close(whole.gather(1, places), best.values, atol=1e-5, rtol=1e-5)
    assert all(len(set(row)) == len(row) for row in found.ids.tolist())


@pytest.mark.parametrize("block", [1, 2, 3, 8])
def test_equal_rows_are_all_found(block, monkeypatch):
    """Ties may come in any order, but none twice and none left out."""
    monkeypatch.setattr(module, "BLOCK", block)
    rows = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 3)
    top = Dictionary("input", rows).top(torch.tensor([[1.0, 0.1]]), 6)
    assert set(top.ids[0, :5].tolist()) == set(range(5)) and top.ids[0, 5] in (5, 6, 7)
    torch.testing.assert_close(top.amplitudes[0], torch.tensor([1.0] * 5 + [0.1]))


def test_a_row_of_zeros_is_like_nothing():
    top = Dictionary("input", torch.tensor([[0.0, 0.0], [-1.0, 0.0]])).top(torch.tensor([[1.0, 0.0]]), 2)
    assert top.ids.tolist() == [[0, 1]] and top.amplitudes.tolist() == [[0.0, -1.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_rows_are_multiplied_in_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 64, generator=generator).to(dtype)
    states = torch.nn.functional.normalize(torch.randn(4, 64, generator=generator), dim=1)
    found = Dictionary("input", rows).top(states, 300).amplitudes
    expected = (states.double() @ unit(rows.double()).T).sort(dim=1, descending=True).values
    assert (found - expected).abs().max() < 1e-6


class Largest(TorchDispatchMode):
    """Notes the number of entries of the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        sizes = [each.numel() for each in tree_leaves(made) if isinstance(each, torch.Tensor)]
        self.entries = max([self.entries, *sizes])
        return made


def test_nothing_as_large_as_states_times_vocabulary_is_made(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)
    monkeypatch.setattr(module, "_STATES", 50)
    words, states = Dictionary("input", torch.randn(2000, 4)), torch.randn(400, 4)
    with Largest() as most:
        words.top(states, 3)
        words.top(states, 3, only=torch.arange(1500), least=True, rows="raw")
    assert 50 * 100 <= most.entries <= 2000 * 4 + 400 * 4  # the product of a block; no copy beyond rows and states
    with Largest() as whole:  # it does see products
        states @ words.rows.T
    assert whole.entries == 400 * 2000


# what the dictionaries of a model are


def test_an_embedding_reads_back_as_its_own_token_before_the_first_layer(adapter, ids):
    states, _ = plain(adapter, ids)
    words = input_dictionary(adapter)
    top = words.top(words.states(states[0]), 1)
    if adapter.source.id in POSITIONS:
        assert (top.amplitudes < 0.999).all()  # a position was added
        assert bool(adapter.family.positions)
    else:
        assert top.ids[:, 0].tolist() == ids.tolist()
        torch.testing.assert_close(top.amplitudes, torch.ones(len(ids), 1))
        assert not adapter.family.positions


def test_a_position_taken_away_leaves_the_embedding(ids):
    """Where a position is added, it is all that is."""
    for case in POSITIONS:
        adapter = make(case)
        adapter.decoder.get_submodule(adapter.family.positions).weight.data.zero_()
        words = input_dictionary(adapter)
        top = words.top(words.states(plain(adapter, ids)[0][0]), 1)
        assert top.ids[:, 0].tolist() == ids.tolist()
        torch.testing.assert_close(top.amplitudes, torch.ones(len(ids), 1))


def test_raw_rows_give_the_models_own_order_of_tokens(adapter, ids):
    """A soft cap, a scale of logits and a scale of embeddings change no order; a bias does, and is no direction."""
    states, logits = plain(adapter, ids)
    head = adapter.model.get_output_embeddings()
    logits = logits - (0 if head.bias is None else head.bias)
    words = output_dictionary(adapter)
    read = words.top(words.states(states[-1]), 128, rows="raw")
    ordered = logits.gather(1, read.ids)
    assert (ordered.diff(dim=1) <= 1e-4).all()
    assert (ordered[:, 0] - ordered[:, -1] > 0.1).all()  # there is an order
    norm = words.norm(states[-1]) if words.norm else states[-1]
    assert torch.equal(words.states(states[-1]), torch.nn.functional.normalize(norm, dim=1))


def test_raw_amplitudes_are_logits_over_the_size_of_the_state(ids):
    adapter = make("llama")
    states, logits = plain(adapter, ids)
    words = output_dictionary(adapter)
    top = words.top(words.states(states[-1]), 5, rows="raw")
    size = adapter.decoder.norm(states[-1]).norm(dim=1, keepdim=True)
    torch.testing.assert_close(top.amplitudes * size, logits.gather(1, top.ids), rtol=1e-4, atol=1e-5)


def test_directions_are_what_a_state_gains_behind_the_final_norm(adapter):
    """The norm of a large state moves by gain * (v - mean v) / size, where it takes the mean away, when v is added."""
    words, generator = output_dictionary(adapter), torch.Generator().manual_seed(0)
    vectors = torch.randn(6, adapter.hidden_size, generator=generator) + 0.7
    expected = vectors
    if words.norm is not None:
        layer_norm = "RMS" not in type(words.norm).__name__
        gains = adapter.gains(None, "final")
        expected = (vectors - layer_norm * vectors.mean(1, keepdim=True)) * gains
    for size in (1e-4, 1.0, 1e4):  # a direction has no size
        found = words.directions(vectors * size)
        torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1), atol=1e-4, rtol=1e-4)


def test_rows_are_as_wide_as_the_states_and_shared_with_the_model_where_they_can_be(adapter):
    own, output = input_dictionary(adapter), output_dictionary(adapter)
    assert own.rows.shape == output.rows.shape == (128, adapter.hidden_size)
    embedding, head = adapter.model.get_input_embeddings().weight, adapter.model.get_output_embeddings().weight
    if adapter.family.model_type != "opt":  # which is narrower outside
        assert own.rows.data_ptr() == embedding.data_ptr() and output.rows.data_ptr() == head.data_ptr()
        assert (own.rows.data_ptr() == output.rows.data_ptr()) == tied(adapter)
    assert not own.rows.requires_grad and not output.rows.requires_grad


def test_rows_that_pad_the_vocabulary_are_no_words():
    adapter = make("llama")
    adapter.tokenizer = word_tokenizer(num_words=97)  # and three special ones
    assert len(input_dictionary(adapter).rows) == len(output_dictionary(adapter).rows) == 100
    middle = middle_dictionary(adapter, 1)
    assert len(middle.rows) == 100
    assert middle.top(torch.randn(50, 32), 100).ids.max() == 99
    adapter.tokenizer = None
    assert len(input_dictionary(adapter).rows) == 128


def test_rows_of_another_width_are_refused():
    adapter = make("llama")
    adapter.model.set_input_embeddings(torch.nn.Embedding(128, 20))
    with pytest.raises(MonadnockError, match="input rows of 20 entries, but states of 32; they cannot be compared"):
        input_dictionary(adapter)


def test_a_model_without_a_head_is_told(monkeypatch):
    adapter = make("llama")
    monkeypatch.setattr(adapter.model, "get_output_embeddings", lambda: None)
    with pytest.raises(MonadnockError, match="llama has no output embeddings"):
        output_dictionary(adapter)


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])
def test_a_model_that_accelerate_keeps_elsewhere_reads_the_same(model_type, where, tmp_path):
    whole, moved = tiny_model(model_type), tiny_model(model_type)
    if where == "cpu":
        cpu_offload(moved, torch.device("cpu"))
    else:
        disk_offload(moved, str(tmp_path), torch.device("cpu"))
    assert next(moved.parameters()).is_meta
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    for make_it in (input_dictionary, output_dictionary):
        here, there = (make_it(Adapter(model, None, Source("t", "object"))) for model in (whole, moved))
        assert torch.equal(here.states(states), there.states(states))
        assert torch.equal(here.directions(states), there.directions(states))
        for one, other in zip(here.top(here.states(states), 9), there.top(there.states(states), 9), strict=True):
            assert torch.equal(one, other)


# words


def test_words_are_single_tokens_and_the_form_behind_a_blank_comes_first():
    known = {" a": [5], "a": [6], " b": [7, 8], "b": [9], " c": [1, 2], "c": [3, 4], " d": [0], "d": [0]}

    class Tokens:
        unk_token_id = 0

        def encode(self, text, add_special_tokens):
            assert not add_special_tokens
            return known[text]

    assert one_token(Tokens(), ["b", "a"]) == {"b": 9, "a": 5}
    with pytest.raises(MonadnockError, match=r"single tokens of the model; 'c' \(2 tokens\), 'd' \(unknown\) are not"):
        one_token(Tokens(), ["a", "c", "d"])


def test_a_word_that_the_vocabulary_lacks_is_no_token():
    """Tokenizers of whole words make one token of it: the unknown one."""
    assert one_token(word_tokenizer(), ["w3"]) == {"w3": 6}
    with pytest.raises(MonadnockError, match="'girl'"):
        one_token(word_tokenizer(), ["w3", "girl"])
