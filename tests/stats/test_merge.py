"""Merging parts that have seen different windows equals one pass, in any order and through a file."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from monadnock.stats import Attention, Magnitude, RouterMean, Snapshot, Statistic
from monadnock.stats.base import Rule
from tests.stats.cases import Rows, random_attention, random_states, seeds, steady

few = settings(steady, max_examples=15)

WIDTH = 11

Update = Callable[[Statistic, int, int], None]


def states(stat: Statistic, seed: int, window: int) -> None:
    stat.update(Rows(random_states(seed + window, 6, WIDTH, "heavy")), window)


def expert_states(stat: Statistic, seed: int, window: int) -> None:
    random = torch.Generator().manual_seed(seed + window)
    experts = torch.randint(4, (6,), generator=random)
    stat.update(Rows(torch.randn(6, WIDTH, generator=random), torch.arange(6) % 3, experts), window)


def attention(stat: Statistic, seed: int, window: int) -> None:
    for block in random_attention(seed + window, 2, 13, None, False).blocks([4, 9]):
        stat.update(block, window)


KINDS: dict[str, tuple[type[Statistic], Update]] = {
    "magnitude": (Magnitude, states),
    "magnitude-experts": (Magnitude, expert_states),
    "attention": (Attention, attention),
    "router": (RouterMean, states),
}


def make(kind: str, num_windows: int, seed: int, windows: list[int]) -> Statistic:
    cls, update = KINDS[kind]
    stat = cls(num_windows)
    for window in windows:
        update(stat, seed, window)
    return stat


def through_file(stat: Statistic) -> Statistic:
    """Write a statistic's tensors as safetensors and read them into a new one."""
    fresh = type(stat)(1)
    fresh.load_state_dict(load(save(stat.state_dict())))
    return fresh


def assert_same(found: Statistic, expected: Statistic) -> None:
    mine, theirs = found.state_dict(), expected.state_dict()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype
        assert torch.allclose(mine[name].double(), theirs[name].double(), rtol=1e-12, atol=0), name


splits = st.lists(st.integers(0, 2), min_size=1, max_size=5)  # which part sees each window


@pytest.mark.parametrize("kind", KINDS)
@few
@given(splits, st.permutations([0, 1, 2]), st.booleans(), seeds)
def test_parts_equal_one_pass(kind, split, order, saved, seed):
    num = len(split)
    parts = [make(kind, num, seed, [w for w in range(num) if split[w] == part]) for part in order]
    first, *rest = [through_file(part) for part in parts] if saved else parts
    for part in rest:
        first.merge(part)
    assert_same(first, make(kind, num, seed, list(range(num))))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(st.integers(1, 4), st.integers(0, 4), seeds)
def test_a_saved_part_goes_on(kind, num, done, seed):
    done = min(done, num)
    stat = through_file(make(kind, num, seed, list(range(done))))
    for window in range(done, num):
        KINDS[kind][1](stat, seed, window)
    assert_same(stat, make(kind, num, seed, list(range(num))))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_leaves_the_other_part_as_it_was(kind):
    one, other = make(kind, 3, 5, [0]), make(kind, 3, 5, [2])
    empty = KINDS[kind][0](3)
    empty.merge(other)
    KINDS[kind][1](empty, 5, 1)  # goes on in place
    empty.merge(one)
    assert_same(other, make(kind, 3, 5, [2]))
    assert_same(one, make(kind, 3, 5, [0]))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(st.sets(st.integers(0, 3), min_size=1), st.sets(st.integers(0, 3), min_size=1), seeds)
def test_a_window_seen_by_both_is_an_error(kind, mine, theirs, seed):
    one, other = (make(kind, 4, seed, sorted(windows)) for windows in (mine, theirs))
    if not mine & theirs:
        one.merge(other)
        assert one.seen.nonzero().flatten().tolist() == sorted(mine | theirs)
        return
    before = {name: value.clone() for name, value in one.state_dict().items()}
    with pytest.raises(ValueError, match="same window"):
        one.merge(other)
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_parts_of_different_models_are_an_error():
    one, other = Magnitude(2), Magnitude(2)
    one.update(Rows(torch.ones(2, 5)), 0)
    other.update(Rows(torch.ones(2, 4)), 1)
    with pytest.raises(ValueError, match="feature_max has shape"):
        one.merge(other)


def test_a_state_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="RouterMean holds no"):
        RouterMean(1).load_state_dict(make("magnitude", 1, 0, [0]).state_dict())


def test_a_part_that_saw_nothing_adds_nothing():
    snapshot = Snapshot(1)
    snapshot.merge(Snapshot(1))
    assert snapshot.state_dict().keys() == {"seen"}
    snapshot.update(Rows(torch.ones(1, 2)), 0)
    snapshot.merge(Snapshot(1))
    assert snapshot.values.tolist() == [[1, 1]]


@dataclass
class _Number:
    value: float


class _Largest(Statistic):
    """A statistic of another package: it names its tensors and says how they merge, nothing more."""

    rules: dict[str, Rule] = {"largest": "max", "total": "sum", "each": "window"}  # noqa: RUF012

    def update(self, batch: _Number, window: int) -> None:
        if not hasattr(self, "largest"):
            self.largest, self.total = torch.tensor(-torch.inf), torch.tensor(0.0)
            self.each = torch.zeros(len(self.seen))
        self.largest = self.largest.clamp(min=batch.value)
        self.total = self.total + batch.value
        self.each[window] = batch.value
        self.seen[window] = True


@steady
@given(splits, st.data())
def test_the_rules_are_enough_for_a_new_statistic(split, data):
    values = [data.draw(st.integers(-9, 9)) for _ in split]
    whole = _Largest(len(split))
    for part in range(3):
        stat = _Largest(len(split))
        for window, value in enumerate(values):
            if split[window] == part:
                stat.update(_Number(value), window)
        whole.merge(stat)
    assert float(whole.largest) == max(values)
    assert float(whole.total) == sum(values)
    assert whole.each.tolist() == values


def test_a_statistic_must_say_how_it_is_updated():
    with pytest.raises(TypeError, match="does not say"):
        Statistic(1).update(Rows(torch.ones(1, 1)), 0)
