"""Schedules: their values, their configs, and what they refuse."""

import math

import pytest

from fastgru import schedules
from fastgru.schedules import CosineDecay, ExponentialDecay, LinearWarmup, PolynomialDecay

ROWS = [
    # schedule, rates at steps 0, 1, 5, 10, 11, 25
    (
        ExponentialDecay(0.3, 10, 0.5),
        [0.3, 0.3 * 0.5**0.1, 0.3 * 0.5**0.5, 0.15, 0.3 * 0.5**1.1, 0.3 * 0.5**2.5],
    ),
    (ExponentialDecay(0.3, 10, 0.5, staircase=True), [0.3, 0.3, 0.3, 0.15, 0.15, 0.075]),
    (PolynomialDecay(0.3, 10, 0.1), [0.3, 0.28, 0.2, 0.1, 0.1, 0.1]),
    (PolynomialDecay(0.3, 10, 0.1, power=2), [0.3, 0.262, 0.15, 0.1, 0.1, 0.1]),
    (
        PolynomialDecay(0.3, 10, 0.1, cycle=True),
        [0.3, 0.28, 0.2, 0.1, 0.1 + 0.2 * 9 / 20, 0.1 + 0.2 * 5 / 30],
    ),
    (
        CosineDecay(0.3, 10, alpha=0.2),
        [0.3, 0.3 * (0.4 * (1 + math.cos(math.pi / 10)) + 0.2), 0.3 * 0.6, 0.06, 0.06, 0.06],
    ),
    (
        CosineDecay(0.1, 10, warmup_target=0.3, warmup_steps=5),
        [0.1, 0.14, 0.3, 0.15, 0.15 * (1 + math.cos(math.pi * 0.6)), 0.0],
    ),
    (LinearWarmup(0.3, 10), [0.03, 0.06, 0.18, 0.3, 0.3, 0.3]),
    (
        LinearWarmup(0.3, 10, after=PolynomialDecay(0.3, 20, 0.0)),
        [0.03, 0.06, 0.18, 0.3, 0.285, 0.075],
    ),
    (LinearWarmup(0.3, 10, after=0.2), [0.03, 0.06, 0.18, 0.2, 0.2, 0.2]),
]


@pytest.mark.parametrize(("schedule", "rates"), ROWS)
def test_schedules_have_the_rates_of_their_formulas(schedule, rates):
    got = [schedule(step) for step in (0, 1, 5, 10, 11, 25)]
    assert got == pytest.approx(rates, rel=1e-12, abs=1e-17)
    assert {type(rate) for rate in got} == {float}


@pytest.mark.parametrize(("schedule", "rates"), ROWS)
def test_config_makes_the_same_schedule(schedule, rates):
    config = schedule.get_config()
    again = schedules.get(config)
    assert type(again) is type(schedule) and again.get_config() == config
    assert [again(step) for step in range(30)] == [schedule(step) for step in range(30)]


def test_every_schedule_has_a_row():
    assert {type(schedule) for schedule, _ in ROWS} == set(schedules.SCHEDULES.values())


def test_a_function_is_a_schedule_that_has_no_config():
    def rate(step):
        return 0.5

    assert schedules.get(rate) is rate is schedules.config_of(rate)
    assert LinearWarmup(0.5, 2, after=rate)(2) == 0.5
    assert LinearWarmup(0.5, 2, after=rate).get_config()["after"] is rate


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ExponentialDecay(-1, 2, 0.5), ValueError, "initial_learning_rate: .* given -1"),
        (lambda: ExponentialDecay(1, 0, 0.5), ValueError, "decay_steps: .* integer, given 0"),
        (lambda: ExponentialDecay(1, 2, 0), ValueError, "decay_rate: expected a number > 0"),
        (lambda: ExponentialDecay(1, 2, 0.5, 1), TypeError, "staircase: expected a bool, given 1"),
        (lambda: PolynomialDecay(1, 2, -1), ValueError, "end_learning_rate: expected .* given -1"),
        (lambda: PolynomialDecay(1, 2, power=0), ValueError, "power: expected a number > 0"),
        (lambda: CosineDecay(1, 2, alpha=1.5), ValueError, r"alpha: expected .* in \[0, 1\]"),
        (lambda: CosineDecay(1, 2, warmup_steps=-1), ValueError, "warmup_steps: .* given -1"),
        (
            lambda: CosineDecay(1, 2, warmup_steps=3), ValueError,
            "warmup_target: expected a number >= 0 for warmup_steps=3, given None",
        ),
        (lambda: LinearWarmup(0.1, 0), ValueError, "warmup_steps: expected a positive integer"),
        (lambda: LinearWarmup(0.1, 5, "flat"), TypeError, "after: expected a number >= 0"),
        (
            lambda: schedules.get({"name": "CosineDecline"}), ValueError,
            "learning_rate: expected one of CosineDecay, .*Did you mean 'CosineDecay'",
        ),
        (lambda: schedules.get({"decay_steps": 2}), TypeError, "learning_rate: expected one of"),
        (
            lambda: schedules.get(CosineDecay), TypeError,
            "learning_rate: expected a number or a schedule, given the class CosineDecay",
        ),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
