"""Schedules: learning rates that change while a model trains.

``rate = schedule(step)``, where step is the number of batches that have been trained on so far.
"""

from __future__ import annotations

import math
from typing import Any

from fastgru.validation import (
    boolean,
    fraction_or_one,
    made_from,
    non_negative,
    non_negative_int,
    positive,
    positive_int,
)


class _Schedule:
    """What every schedule has: a call, and a config that files hold."""

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` batches."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such a schedule again."""
        return {"name": type(self).__name__, **vars(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a schedule from what `get_config` returned."""
        return cls(**{key: value for key, value in config.items() if key != "name"})


class ExponentialDecay(_Schedule):
    """Multiply the rate by `decay_rate` every `decay_steps` batches.

    Formula: rate = initial_learning_rate * decay_rate^(step / decay_steps)

    Source: keras.optimizers.schedules.ExponentialDecay.

    Parameters
    ----------
    initial_learning_rate : float
        At step 0.
    decay_steps : int
        Batches that one factor takes.
    decay_rate : float
        The factor, greater than 0.
    staircase : bool
        Whether the rate changes only every `decay_steps`, and not a little with each batch.

    Examples
    --------
    >>> ExponentialDecay(0.1, decay_steps=100, decay_rate=0.5)(200)
    0.025
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ) -> None:
        self.initial_learning_rate = non_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps = positive_int("decay_steps", decay_steps)
        self.decay_rate = positive("decay_rate", decay_rate)
        self.staircase = boolean("staircase", staircase)

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` batches."""
        done = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate**done


class PolynomialDecay(_Schedule):
    """Go from one rate to another one, by default on a straight line, and stay there.

    Formula::

        rate = (initial_learning_rate - end_learning_rate) * (1 - done)^power + end_learning_rate
        done = min(step / decay_steps, 1)
        cycle:  done = step / (decay_steps * max(ceil(step / decay_steps), 1))

    Source: keras.optimizers.schedules.PolynomialDecay.

    Parameters
    ----------
    initial_learning_rate : float
        At step 0.
    decay_steps : int
        Batches until the end.
    end_learning_rate : float
        At the end.
    power : float
        Of the polynomial, greater than 0; 1 is a straight line.
    cycle : bool
        Whether to rise again after `decay_steps`, and to fall over twice as many batches as at
        first, three times as many, and so on.

    Examples
    --------
    >>> linear = PolynomialDecay(0.1, decay_steps=100, end_learning_rate=0.0)
    >>> linear(50), linear(100), linear(101)
    (0.05, 0.0, 0.0)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
    ) -> None:
        self.initial_learning_rate = non_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps = positive_int("decay_steps", decay_steps)
        self.end_learning_rate = non_negative("end_learning_rate", end_learning_rate)
        self.power = positive("power", power)
        self.cycle = boolean("cycle", cycle)

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` batches."""
        done = step / self.decay_steps
        done = done / max(math.ceil(done), 1) if self.cycle else min(done, 1.0)
        span = self.initial_learning_rate - self.end_learning_rate
        return span * (1 - done) ** self.power + self.end_learning_rate


class CosineDecay(_Schedule):
    """Rise on a straight line, if asked to, then fall along half a cosine, and stay there.

    Formula, with warmup_target = initial_learning_rate and warmup_steps = 0 if there is none::

        step < warmup_steps:
            rate = initial_learning_rate
                   + (warmup_target - initial_learning_rate) * step / warmup_steps
        afterwards, with done = min((step - warmup_steps) / decay_steps, 1):
            rate = warmup_target * ((1 - alpha) * (1 + cos(pi * done)) / 2 + alpha)

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983; keras.optimizers.schedules.CosineDecay.

    Parameters
    ----------
    initial_learning_rate : float
        At step 0.
    decay_steps : int
        Batches from the top to the end, after those of the warmup.
    alpha : float
        In [0, 1]: the rate at the end as a share of that at the top.
    warmup_target : float, optional
        The rate at the top.
    warmup_steps : int
        Batches on the way to `warmup_target`.

    Raises
    ------
    ValueError
        If a number is out of range, or there are `warmup_steps` but no `warmup_target`.

    Examples
    --------
    >>> schedule = CosineDecay(0.0, decay_steps=100, warmup_target=0.1, warmup_steps=10)
    >>> schedule(5), schedule(10), round(schedule(60), 4), schedule(110)
    (0.05, 0.1, 0.05, 0.0)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = non_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps = positive_int("decay_steps", decay_steps)
        self.alpha = fraction_or_one("alpha", alpha)
        self.warmup_steps = non_negative_int("warmup_steps", warmup_steps)
        if warmup_target is not None:
            warmup_target = non_negative("warmup_target", warmup_target)
        elif warmup_steps:
            raise ValueError(
                f"warmup_target: expected a number >= 0 for warmup_steps={warmup_steps}, given None"
            )
        self.warmup_target = warmup_target

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` batches."""
        low, top = self.initial_learning_rate, self.warmup_target
        if top is None:
            top = low
        if step < self.warmup_steps:
            return low + (top - low) * step / self.warmup_steps
        done = min((step - self.warmup_steps) / self.decay_steps, 1.0)
        return top * ((1 - self.alpha) * (1 + math.cos(math.pi * done)) / 2 + self.alpha)


class LinearWarmup(_Schedule):
    """Rise to a rate on a straight line, then stay there or follow another schedule.

    Formula::

        step < warmup_steps:  rate = target * (step + 1) / warmup_steps
        afterwards:           rate = after, or after(step - warmup_steps)

    The first batch counts, and the last one of the warmup has the full rate. (`CosineDecay` rises
    from its initial rate, which may be 0 and lets its first batch do nothing.)

    Source: Goyal et al. 2017, arXiv:1706.02677, section 2.2.

    Parameters
    ----------
    target : float
        The rate after the warmup.
    warmup_steps : int
        Batches on the way to it.
    after : float or schedule, optional
        What follows, by default `target`; a schedule counts its steps from the end of the warmup.

    Examples
    --------
    >>> schedule = LinearWarmup(0.1, 10, after=PolynomialDecay(0.1, 100, 0.0))
    >>> schedule(0), schedule(9), schedule(10), schedule(60)
    (0.01, 0.1, 0.1, 0.05)
    """

    def __init__(self, target: float, warmup_steps: int, after: Any = None) -> None:
        self.target = non_negative("target", target)
        self.warmup_steps = positive_int("warmup_steps", warmup_steps)
        self.after = get(self.target if after is None else after, "after")

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` batches."""
        if step < self.warmup_steps:
            return self.target * (step + 1) / self.warmup_steps
        return self.after(step - self.warmup_steps) if callable(self.after) else self.after

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such a schedule again."""
        return {**super().get_config(), "after": config_of(self.after)}


SCHEDULES: dict[str, type[_Schedule]] = {
    kind.__name__: kind for kind in (CosineDecay, ExponentialDecay, LinearWarmup, PolynomialDecay)
}


def get(identifier: Any, name: str = "learning_rate") -> Any:
    """Return the schedule of a config, or the function itself, or a number as a float.

    Parameters
    ----------
    identifier : float, dict or function
        A constant rate, what a schedule's `get_config` returned, or a schedule or other function
        of the number of batches so far.
    name : str
        What errors call it.

    Raises
    ------
    ValueError, TypeError
        If it is none of them, or there is no such schedule.

    Examples
    --------
    >>> get(ExponentialDecay(0.1, 100, 0.5).get_config())(100)
    0.05
    """
    if isinstance(identifier, type):
        raise TypeError(
            f"{name}: expected a number or a schedule, given the class {identifier.__name__}, of "
            "which one is to be made first"
        )
    if callable(identifier):
        return identifier
    if isinstance(identifier, dict):
        return made_from(name, identifier, SCHEDULES)
    return non_negative(name, identifier)


def config_of(rate: Any) -> Any:
    """Return what `get` needs to make a `rate` again.

    A schedule that is not one of fastgru's own stays as it is, which no file can hold.
    """
    return rate.get_config() if type(rate) in SCHEDULES.values() else rate
