"""States along the layers and within one, and the middle dictionary, against plain loops over plain passes."""

import math

import pytest
import torch

from monadnock import MonadnockError
from monadnock.reading import middle as middle_module
from monadnock.reading.dictionary import input_dictionary
from monadnock.reading.layers import GAPS, state_similarity
from monadnock.reading.middle import middle_dictionary, steps
from monadnock.reading.states import first_attention, see_prompt
from tests.models.conftest import eager
from tests.reading.conftest import make, plain
from tests.scans import assert_untouched, state

SIZE = 7


@pytest.fixture(scope="module")
def windows():
    return torch.randint(3, 100, (3, SIZE), generator=torch.Generator().manual_seed(1))


def unit(rows):
    return rows.double() / rows.double().norm(dim=-1, keepdim=True)


def naive(adapter, windows):
    """Return the rows of the table by products of all positions with all."""
    states = [[unit(each[1:]) for each in plain(adapter, ids)[0]] for ids in windows]  # [window][layer + 1]
    count, found = adapter.num_layers + 1, {}
    one = [torch.cat([(s[at] * s[at + 1]).sum(1) for s in states]).mean().item() for at in range(count - 1)]
    for at in range(count):
        for gap in GAPS:
            if at + gap < count:
                products = torch.cat([(s[at] * s[at + gap]).sum(1) for s in states])
                predicted = math.prod(one[at : at + gap])
                found[at - 1, "later", gap] = (products.mean().item(), products.std(correction=0).item(), predicted)
        whole = [s[at] @ s[at].T for s in states]
        for step, name in ((1, "neighbours"), (2, "next neighbours")):
            products = torch.cat([each.diagonal(step) for each in whole])
            found[at - 1, name, 0] = (products.mean().item(), products.std(correction=0).item(), None)
        pairs = torch.cat([each[~torch.eye(SIZE - 1, dtype=torch.bool)] for each in whole])
        found[at - 1, "all pairs", 0] = (pairs.mean().item(), None, None)
    return found


def told(rows):
    found = {(r["layer"], r["relation"], r["gap"]): (r["mean"], r["deviation"], r["predicted"]) for r in rows}
    assert len(found) == len(rows)
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for place, values in expected.items():
        for one, other in zip(found[place], values, strict=True):
            assert other is None if one is None else one == pytest.approx(other, abs=2e-5), place


@pytest.mark.parametrize("case", ["llama", "gpt2", "mixtral", "gemma3_text", "falcon", "opt-350m"])
def test_similarity_is_that_of_all_products(case, windows):
    adapter = make(case)
    before, calls = state(adapter.model), []
    rows = state_similarity(adapter, windows, lambda: calls.append(0))
    assert_untouched(adapter.model, before)
    assert len(calls) == len(windows)
    assert_same(told(rows), naive(adapter, windows))


def test_deep_models_have_all_three_distances(windows):
    adapter = make("llama", num_hidden_layers=18)
    found = told(state_similarity(adapter, windows))
    assert_same(found, naive(adapter, windows))
    assert {gap for _, relation, gap in found if relation == "later"} == {1, 5, 15}
    assert [layer for layer, _, gap in found if gap == 15] == [-1, 0, 1, 2]


def test_states_that_stay_are_wholly_alike(windows):
    """Layers that add nothing: 1 at every distance, which is predicted too."""
    adapter = make("llama", num_hidden_layers=6)
    with torch.no_grad():
        for layer in range(6):
            adapter.weight(layer, "o").read().zero_()
            adapter.weight(layer, "down").read().zero_()
    later = [row for row in state_similarity(adapter, windows) if row["relation"] == "later"]
    assert {row["gap"] for row in later} == {1, 5}
    assert all(row["mean"] == pytest.approx(1) and row["predicted"] == pytest.approx(1) for row in later)
    assert all(row["deviation"] < 1e-4 for row in later)


def test_the_first_position_counts_for_nothing(windows):
    """Its massive activation is like nothing else: another first token, in a model without attention, changes none."""
    adapter = make("llama")
    with torch.no_grad():
        for layer in range(3):
            adapter.weight(layer, "o").read().zero_()
    other = windows.clone()
    other[:, 0] = 101
    assert state_similarity(adapter, windows) == state_similarity(adapter, other)
    other[:, 1] = 101
    assert state_similarity(adapter, windows) != state_similarity(adapter, other)


def test_windows_without_neighbours_have_no_rows_for_them():
    rows = state_similarity(make("llama"), torch.tensor([[1, 5], [1, 6]]))
    assert {row["relation"] for row in rows} == {"later"}


# what a prompt leaves


def test_states_and_attention_of_a_prompt_are_the_models_own(adapter, ids):
    before = state(adapter.model)
    seen = see_prompt(adapter, ids)
    assert_untouched(adapter.model, before)
    states, _ = plain(adapter, ids)
    assert seen.states.shape == (adapter.num_layers + 1, len(ids), adapter.hidden_size)
    for one, other in zip(seen.states, states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    if adapter.source.id == "falcon-rw":
        return  # transformers' own eager code adds ALiBi a second time
    with eager(adapter):
        probs = adapter.model(ids[None], output_attentions=True, use_cache=False).attentions
    expected = torch.stack([each[0, :, :, 0] for each in probs])
    torch.testing.assert_close(seen.first, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first_attention(adapter, ids), seen.first, rtol=1e-4, atol=1e-5)


def test_first_tokens_outside_a_sliding_window_get_nothing(monkeypatch):
    monkeypatch.setattr("monadnock.models.attention.block_rows", lambda *args, **kwargs: 8)  # blocks without key 0
    adapter = make("mistral")  # windows of 8 tokens
    first = first_attention(adapter, torch.arange(3, 43))
    assert (first[:, :, 8:] == 0).all() and (first[:, :, :8] > 0).all()


# the middle dictionary


def slow_middle(adapter, start, layers):
    """Return rows and mean by their definition: one pair of tokens after another, with plain hooks."""
    own, states = input_dictionary(adapter).rows.double(), []
    for token in range(len(own)):
        state = unit(plain(adapter, torch.tensor([start, token]))[0][layers][1])
        along = own[token] / own[token].norm()
        states.append(state - state.dot(along) * along)
    states = torch.stack(states)
    return unit(states - states.mean(0)), states.mean(0)


def assert_middle(found, expected):
    for one, other in zip((found.rows, found.mean), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    for size in (1.0, 100.0):  # the mean is one of normalised states
        torch.testing.assert_close(
            found.states(size * states).double(), unit(unit(states) - expected[1]), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("case", ["llama", "gpt2", "opt", "gemma2", "mixtral", "falcon", "gpt_oss", "mpt"])
def test_the_middle_dictionary_is_that_of_its_definition(case, monkeypatch):
    monkeypatch.setattr(middle_module, "_TOKENS", 50)
    adapter, calls = make(case), []
    before = state(adapter.model)
    found = middle_dictionary(adapter, 1, step=lambda: calls.append(0))
    assert_untouched(adapter.model, before)
    assert len(calls) == steps(adapter) == 3
    assert_middle(found, slow_middle(adapter, 1, 2))
    assert (found.name, found.norm) == ("middle", None)


@pytest.mark.parametrize("layers", [1, 3])
def test_other_layers_and_start_tokens_make_other_middle_dictionaries(layers):
    adapter = make("llama")
    found = middle_dictionary(adapter, 7, layers=layers)
    assert_middle(found, slow_middle(adapter, 7, layers))
    assert found.name == f"middle {layers}"
    assert (found.rows - middle_dictionary(adapter, 1, layers=layers).rows).abs().max() > 0.01


def test_layers_behind_the_middle_do_not_run():
    adapter, ran = make("llama"), []
    adapter.layers[2].register_forward_pre_hook(lambda *args: ran.append(0))
    middle_dictionary(adapter, 1)
    assert ran == []
    middle_dictionary(adapter, 1, layers=3)
    assert ran == [0]


@pytest.mark.parametrize("layers", [0, 4, -1])
def test_a_middle_behind_layers_that_are_not_there(layers):
    with pytest.raises(MonadnockError, match=f"behind {layers} layers was asked, but llama has 3"):
        middle_dictionary(make("llama"), 1, layers=layers)


def test_a_middle_dictionary_in_bfloat16_is_near_that_in_float32():
    exact, short = make("llama"), make("llama")
    short.model.to(torch.bfloat16)
    one, other = middle_dictionary(exact, 1), middle_dictionary(short, 1)
    assert other.rows.dtype == torch.bfloat16
    assert (unit(one.rows) * unit(other.rows.float())).sum(1).min() > 0.98


def test_what_a_token_adds_reads_back_as_that_token():
    """In the middle dictionary itself: the state of (start, t) is t's, for nearly all."""
    adapter = make("llama")
    words = middle_dictionary(adapter, 1)
    states = torch.stack([plain(adapter, torch.tensor([1, token]))[0][2][1] for token in range(128)])
    top = words.top(words.states(states), 1).ids[:, 0]
    assert (top == torch.arange(128)).double().mean() > 0.9


def test_large_states_do_not_make_up_the_mean_that_is_taken_away():
    """A few tokens with a massive state leave the rows of the others where they are."""
    adapter = make("llama")
    before = middle_dictionary(adapter, 1)
    with torch.no_grad():
        adapter.model.get_input_embeddings().weight[-4:] *= 1000
    after = middle_dictionary(adapter, 1)
    assert (unit(before.rows[:-4]) * unit(after.rows[:-4])).sum(1).min() > 0.99
