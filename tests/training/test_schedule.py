"""Schedules are the formulas of oh2024, section 4.3.2, and give probabilities only."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.errors import MonadnockError
from monadnock.training import SCHEDULES, MacDropCallback, Schedule

few = settings(max_examples=50)
p0s = st.floats(0, 1)
places = st.integers(1, 500).flatmap(lambda whole: st.tuples(st.integers(1, whole), st.just(whole)))


@few
@given(p0=p0s, step=places, epoch=places, alpha=st.floats(0, 1))
def test_every_step_has_the_probability_of_its_formula(p0, step, epoch, alpha):
    (t, steps), (e, epochs) = step, epoch
    formulas = {
        "step": p0 * (1 - t / steps),
        "epoch-before": p0 * (1 - (e - 1) / epochs),
        "epoch-after": p0 * (1 - e / epochs),
        "exp": p0 * math.exp(-alpha * t),
        "constant": p0,
    }
    assert set(formulas) == set(SCHEDULES)
    for name, expected in formulas.items():
        p = Schedule(name, p0, alpha).probability(t, steps, e, epochs)
        assert p == pytest.approx(expected, abs=1e-12)
        assert 0 <= p <= p0


@few
@given(p0=p0s, steps=st.integers(1, 500), epochs=st.integers(1, 50))
def test_how_each_schedule_ends(p0, steps, epochs):
    ends = {name: Schedule(name, p0).probability(steps, steps, epochs, epochs) for name in SCHEDULES}
    assert ends["step"] == ends["epoch-after"] == 0
    assert ends["epoch-before"] == pytest.approx(p0 / epochs)
    assert ends["constant"] == p0
    assert ends["exp"] == pytest.approx(p0 * math.exp(-0.01 * steps))


@few
@given(name=st.sampled_from(SCHEDULES), p0=p0s, epochs=st.integers(1, 4), length=st.integers(1, 9))
def test_no_schedule_ever_rises(name, p0, epochs, length):
    schedule, steps = Schedule(name, p0, 0.3), epochs * length
    course = [schedule.probability(t, steps, (t - 1) // length + 1, epochs) for t in range(1, steps + 1)]
    assert course == sorted(course, reverse=True)


@few
@given(name=st.sampled_from(SCHEDULES), p0=p0s, step=st.integers(1, 999), epoch=st.integers(1, 99))
def test_a_step_past_the_end_still_has_a_probability(name, p0, step, epoch):
    """A Trainer that goes on past the steps that it announced must not be given a negative one."""
    assert 0 <= Schedule(name, p0).probability(step, 10, epoch, 2) <= 1


def test_epochs_change_epoch_schedules_only_and_steps_the_others():
    for name in ("epoch-before", "epoch-after"):
        assert len({Schedule(name).probability(t, 10, 1, 3) for t in range(1, 11)}) == 1
    for name in ("step", "exp", "constant"):
        assert len({Schedule(name).probability(4, 10, e, 3) for e in (1, 2, 3)}) == 1


def test_the_defaults_are_those_of_the_paper():
    assert Schedule() == Schedule("step", 0.8, 0.01)
    callback = MacDropCallback()
    assert (callback.schedule, callback.k, callback.scope) == (Schedule("step", 0.8, 0.01), 5, "massive")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schedule": "steps"}, "no schedule 'steps'.*step"),
        ({"schedule": ""}, "no schedule ''"),
        ({"p0": -0.1}, "p0 = -0.1 was asked; it is a probability, from 0 to 1"),
        ({"p0": 1.01}, "p0 = 1.01"),
        ({"p0": math.nan}, "p0 = nan"),
        ({"alpha": -1.0}, "alpha = -1.0 was asked; it is at least 0"),
        ({"alpha": math.inf}, "alpha = inf"),
        ({"alpha": math.nan}, "alpha = nan"),
        ({"scope": "other"}, "no scope 'other'.*others"),
        ({"k": 0}, "k = 0 was asked; at least one row"),
        ({"targets": []}, "No rows were named"),
    ],
)
def test_what_makes_no_curriculum_is_told_at_once(options, told):
    with pytest.raises(MonadnockError, match=told):
        MacDropCallback(**options)
