"""How token vectors lie to each other: against direct computation on small matrices, and on planted models."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.reading import dictionary as module
from monadnock.reading import tokens
from monadnock.reading.dictionary import Dictionary, input_dictionary, output_dictionary
from tests.reading.conftest import make


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(rows):
    return rows.double() / rows.double().norm(dim=1, keepdim=True)


# noise


@given(st.integers(2, 200_000))
def test_the_noise_floor_is_the_smallest_that_solves_its_inequality(width):
    def expected(floor):
        return width * math.erfc(floor * math.sqrt(width / 2))  # D (1 - erf)

    floor = tokens.noise_floor(width)
    assert expected(floor * 1.0001) < 1 < expected(floor * 0.9999)


def test_the_published_noise_floor():
    assert tokens.noise_floor(4096) == pytest.approx(0.06, abs=0.005)  # wray2023, section 6
    assert tokens.noise_floor(1) == 0


@pytest.mark.parametrize("width", [64, 576])
def test_less_than_one_entry_of_a_random_state_is_above_the_floor(width):
    """In words at right angles to each other, of either sign: D numbers of which fewer than one is as large."""
    states = unit(draw(20_000_000 // width**2 * 20, width))
    large = (states.abs() > tokens.noise_floor(width)).sum(1).double()
    above = (states > tokens.noise_floor(width)).sum(1).double()
    error = float(large.std() / math.sqrt(len(large)))
    assert 0.75 < large.mean() < 1 + 3 * error
    assert 0.35 < above.mean() < 0.55


# rank


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_the_effective_rank_of_as_many_equal_directions(rank, more, seed):
    rows = torch.linalg.qr(draw(rank + more + 20, rank, seed=seed)).Q @ torch.eye(rank, rank + more)
    values = tokens.singular_values(rows)
    assert tokens.effective_rank(values) == pytest.approx(rank, rel=1e-3)


def test_the_effective_rank_of_a_known_spectrum():
    shares = [0.5, 0.25, 0.25]  # entropy 1.5 bits
    assert tokens.effective_rank(torch.tensor(shares) * 7) == pytest.approx(2**1.5)
    assert tokens.effective_rank(torch.zeros(4)) == 0


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 99))
def test_singular_values_are_those_of_a_decomposition(count, width, seed):
    rows = draw(count, width, seed=seed)
    found, expected = tokens.singular_values(rows), torch.linalg.svdvals(rows.double())
    torch.testing.assert_close(found[: len(expected)], expected, atol=1e-5, rtol=1e-5)
    assert (found[len(expected) :] < 1e-5).all() and len(found) == width


# the table


def slow_facts(rows, own):
    cosines = unit(rows) @ unit(rows).T
    others = ~torch.eye(len(rows), dtype=torch.bool)
    values = torch.linalg.svdvals(rows.double())
    shares = values / values.sum()
    pearson = [float(torch.corrcoef(torch.stack([a, b]).double())[0, 1]) for a, b in zip(rows, own, strict=True)]
    return {
        "num_tokens": len(rows),
        "width": rows.shape[1],
        "mean_norm": float(rows.double().norm(dim=1).mean()),
        "positive_share": float((cosines[others] > 0).double().mean()),
        "mean_similarity": float(cosines[others].mean()),
        "effective_rank": float(torch.exp(-(shares * shares.log()).sum())),
        "stable_rank": float(values.square().sum() / values[0] ** 2),
        "own_correlation": sum(pearson) / len(pearson),
    }


@pytest.mark.parametrize("block", [7, 500])
def test_facts_are_those_of_all_pairs(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    own = draw(300, 16) + 0.3
    rows = 0.5 * own + 3 * draw(300, 16, seed=1)
    for each in (own, rows):
        words = Dictionary("output", each)
        found = tokens.dictionary_facts(words, Dictionary("input", own), tokens.singular_values(each))
        expected = slow_facts(each, own)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert found["capacity"] == pytest.approx(1 / tokens.noise_floor(16) ** 2)
        assert found["noise_floor"] == tokens.noise_floor(16)
    shares = [float((row > 0).double().mean()) for row in (unit(rows) @ unit(rows).T).fill_diagonal_(-1)]
    spread = torch.tensor(shares).std() * 300 / 299 / math.sqrt(300)
    assert found["positive_error"] == pytest.approx(float(spread), rel=1e-3)


def test_a_sample_of_tokens_stands_for_all(monkeypatch):
    rows = draw(2000, 16) + 0.4
    exact = slow_facts(rows, rows)
    monkeypatch.setattr(tokens, "SAMPLED", 200)
    words = Dictionary("input", rows)
    found = tokens.dictionary_facts(words, words, tokens.singular_values(rows))
    assert abs(found["positive_share"] - exact["positive_share"]) < 4 * found["positive_error"]
    assert 0 < found["positive_error"] < 0.02
    assert found["own_correlation"] == pytest.approx(1)


def test_the_largest_noise_is_that_of_gaussian_states():
    """Random states against random rows: the largest of V cosines of standard deviation 1 / sqrt D."""
    words = Dictionary("input", draw(4096, 64))
    found = tokens.dictionary_facts(words, words, torch.ones(64))["noise_largest"]
    expected = (unit(draw(500, 64, seed=1)) @ unit(words.rows).T).amax(1).mean()
    assert found == pytest.approx(float(expected), rel=0.02)


def test_rows_of_zeros_are_counted_as_tokens_like_nothing():
    """Rows that pad a vocabulary may be zero."""
    rows = torch.cat([torch.ones(3, 4), torch.zeros(1, 4)])
    words = Dictionary("input", rows)
    found = tokens.dictionary_facts(words, words, torch.ones(4))
    assert found["positive_share"] == pytest.approx(6 / 12) and found["mean_similarity"] == pytest.approx(6 / 12)


@pytest.mark.parametrize("more", [0, 5])
def test_an_output_with_more_tokens_than_the_input(more):
    own, output = Dictionary("input", draw(50, 8)), Dictionary("output", draw(50 + more, 8, seed=1))
    found = tokens.dictionary_facts(output, own, torch.ones(8))
    expected = [float(torch.corrcoef(torch.stack([a, b]))[0, 1]) for a, b in zip(own.rows, output.rows, strict=False)]
    assert found["own_correlation"] == pytest.approx(sum(expected) / 50, abs=1e-6) and found["num_tokens"] == 50 + more


# words


def test_similarities_are_symmetric_and_1_on_the_diagonal(adapter):
    words = {"w0": 3, "w5": 8, "w9": 12, "w50": 53}
    for each in (input_dictionary(adapter), output_dictionary(adapter)):
        rows = tokens.similarities(each, words)
        found = {(row["word_a"], row["word_b"]): row["similarity"] for row in rows}
        assert len(found) == len(rows) == 16
        whole = unit(each.rows) @ unit(each.rows).T
        for (a, b), value in found.items():
            assert value == pytest.approx(found[b, a], abs=1e-6)
            assert value == pytest.approx(float(whole[words[a], words[b]]), abs=1e-5)
            assert a != b or value == pytest.approx(1, abs=1e-5)
    assert tokens.similarities(each, {}) == []


def test_the_nearest_words_leave_the_word_itself_out():
    rows = draw(60, 8)
    whole = unit(rows) @ unit(rows).T
    near = tokens.nearest("input", Dictionary("input", rows), {"a": 4, "b": 7}, unit(rows)[[4, 7]].float(), str)
    for word, own in (("a", 4), ("b", 7)):
        found = [row for row in near if row["asked"] == word]
        order = [each for each in whole[own].argsort(descending=True).tolist() if each != own][: tokens.NEAREST]
        assert [row["word_id"] for row in found] == order
        assert [row["rank"] for row in found] == list(range(1, tokens.NEAREST + 1))
        assert [row["word"] for row in found] == [str([each]) for each in order]
        assert [row["similarity"] for row in found] == pytest.approx([float(whole[own, each]) for each in order])


def test_a_word_that_is_not_near_itself_still_has_ten():
    """For continuations the word's own token need not be among the nearest."""
    rows = torch.eye(30)
    near = tokens.nearest("continuation", Dictionary("output", rows), {"a": 4}, -rows[[4]], str)
    assert len(near) == tokens.NEAREST and all(row["word_id"] != 4 for row in near)


# continuations


def chain(count, seed=0):
    """Return a text in which each token has one that always follows: t, f(t), f(f(t)), ..."""
    after = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    ids = [0]
    for _ in range(4 * count):
        ids.append(int(after[ids[-1]]))
    return after, torch.tensor(ids[: len(ids) // 8 * 8]).view(-1, 8)


@pytest.mark.parametrize("case", ["llama", "gpt2", "gemma2"])
def test_embeddings_that_hold_what_follows_are_found(case):
    adapter = make(case, tie_word_embeddings=False)
    own, output = input_dictionary(adapter), output_dictionary(adapter)
    after = (torch.arange(128) * 5 + 3) % 128
    windows = torch.stack([torch.arange(128), after], 1)
    with torch.no_grad():
        output.rows[after] = output.norm(own.rows)  # the unembedding of what follows is what the norm makes of t
    found = tokens.continuation_test(own, output, windows)
    assert (
        found["pairs"] == int((after != torch.arange(128)).sum()) > 120
        and found["rank"] == 1
        and found["top_share"] == 1
    )
    assert found["better_share"] > 0.97 and found["control_rank"] > 30 and found["control_share"] < 0.2


def test_random_embeddings_hold_nothing():
    own, output = Dictionary("input", draw(3000, 32)), Dictionary("output", draw(3000, 32, seed=1))
    windows = torch.randint(0, 3000, (40, 50), generator=torch.Generator().manual_seed(2))
    found = tokens.continuation_test(own, output, windows)
    assert found["pairs"] == tokens.PAIRS
    assert abs(found["better_share"] - 0.5) < 4 * 0.5 / math.sqrt(tokens.PAIRS)
    assert 1300 < found["rank"] < 1700 and 1300 < found["control_rank"] < 1700
    assert found["top_share"] < 0.02


def test_ranks_are_those_of_a_full_sort(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)
    own, output = Dictionary("input", draw(40, 8)), Dictionary("output", draw(40, 8, seed=1))
    _, windows = chain(40)
    found = tokens.continuation_test(own, output, windows)
    pairs = {(int(a), int(b)) for row in windows for a, b in pairwise(row)}
    cosines = unit(own.rows) @ unit(output.rows).T
    pairs = {(a, b) for a, b in pairs if a != b}
    cosines.fill_diagonal_(-2)  # its own token is left out
    ranks = sorted(int((cosines[a] > cosines[a, b] + 1e-9).sum()) + 1 for a, b in pairs)
    assert found["pairs"] == len(pairs)
    assert found["rank"] == ranks[(len(ranks) - 1) // 2]  # the lower of two in the middle
    assert found["top_share"] == pytest.approx(sum(rank <= tokens.NEAREST for rank in ranks) / len(ranks))


def test_pairs_do_not_reach_from_window_to_window_and_count_once():
    own = Dictionary("input", torch.eye(6))
    found = tokens.continuation_test(own, own, torch.tensor([[0, 1, 2], [0, 1, 2], [3, 4, 5]]))
    assert found["pairs"] == 4
    assert tokens.continuation_test(own, own, torch.tensor([[0, 1]])) is None
