"""The backcopy task: what follows a trigger, what follows anything else, and that every sequence is always the same."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.pretraining.backcopy import BOS, Backcopy
from monadnock.pretraining.data import HELD
from monadnock.training.tokens import IGNORED


@given(st.integers(0, 2**40), st.integers(3, 30), st.integers(3, 12), st.data())
def test_after_a_trigger_the_token_before_it_comes_again(seed, length, tokens, data):
    triggers = data.draw(st.integers(1, tokens - 1))
    task = Backcopy(6, length=length, tokens=tokens, triggers=triggers, seed=seed)
    for row in task.__getitems__(list(range(6))):
        ids = row["input_ids"]
        assert ids[0] == BOS and len(ids) == length + 1 and ((ids[1:] >= 1) & (ids[1:] <= tokens)).all()
        words = ids[1:] - 1
        after = (words[1:-1] < triggers).nonzero().flatten() + 1
        assert torch.equal(words[after + 1], words[after - 1])
        assert words[0] >= triggers and not ((words[1:] < triggers) & (words[:-1] < triggers)).any()
        assert row["labels"][:2].tolist() == [IGNORED, IGNORED] and torch.equal(row["labels"][2:], ids[2:])


@given(st.integers(0, 99), st.permutations(range(8)))
def test_a_sequence_is_the_same_whenever_it_is_asked_for(seed, order):
    task = Backcopy(8, length=10, seed=seed)
    together = task.__getitems__(order)
    assert all(
        torch.equal(task[place]["input_ids"], row["input_ids"]) for place, row in zip(order, together, strict=True)
    )
    other = Backcopy(8, length=10, seed=seed + 1)
    assert torch.equal(other.transitions, task.transitions)
    assert not all(torch.equal(task[place]["input_ids"], other[place]["input_ids"]) for place in range(8))


def test_no_two_seeds_have_sequences_in_common_nor_alike():
    """The generator reads 32 bits: seeds that differ elsewhere, or in one bit alone, have to give other numbers."""
    drawn = {
        seed: torch.stack([row["input_ids"][1:] for row in Backcopy(50, seed=seed).__getitems__(list(range(50)))])
        for seed in (HELD, 0, 1, 2, 3, 4, 2**30, 2**31, 2**32 - 1)
    }
    for one, two in itertools.combinations(drawn.values(), 2):
        assert (one == two).float().mean() < 0.1
        assert not (one[:, None] == two[None]).all(2).any()


def test_elsewhere_tokens_follow_the_transition_matrix():
    task = Backcopy(4000, length=20, tokens=5, triggers=1)
    words = torch.stack([row["input_ids"][1:] - 1 for row in task.__getitems__(list(range(4000)))])
    last, following = words[:, 1:-1].flatten(), words[:, 2:].flatten()
    for word in range(1, 5):
        counts = torch.bincount(following[last == word], minlength=5).float()
        bound = 4 * (task.transitions[word] * (1 - task.transitions[word]) / counts.sum()).sqrt()
        assert ((counts / counts.sum() - task.transitions[word]).abs() <= bound).all()


def test_pairs_take_turns_to_the_end_and_are_there_only_if_asked_for():
    for pairs in (False, True):
        rows = Backcopy(400, length=20, tokens=8, triggers=4, pairs=pairs).__getitems__(list(range(400)))
        words = torch.stack([row["input_ids"][1:] - 1 for row in rows])
        begun = (words[:, :2] < 4).all(1)
        assert bool(begun.any()) == pairs
        assert (words[begun][:, 2:] == words[begun][:, :-2]).all()


@pytest.mark.parametrize("wrong", [{"length": 2}, {"triggers": 0}, {"triggers": 64}, {"size": 0}])
def test_numbers_that_make_no_task_are_refused(wrong):
    with pytest.raises(MonadnockError, match="were asked; give at least 1 sequence"):
        Backcopy(**{"size": 4, **wrong})
