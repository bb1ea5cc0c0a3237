"""Optimizers: how gradients move the weights.

``apply(params, gradients)``, once for each batch, does in this order what was asked for: the mean
with the gradients of the batches before, clipping, weight decay, the update itself, the moving
average of the params.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgru import kernels, schedules
from fastgru.errors import NonFiniteError
from fastgru.schedules import CosineDecay, ExponentialDecay, LinearWarmup, PolynomialDecay
from fastgru.validation import (
    boolean,
    fraction,
    fraction_or_one,
    made_from,
    non_negative,
    non_negative_int,
    positive,
    positive_int,
    unknown_option,
)

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "ExponentialDecay",
    "LinearWarmup",
    "Optimizer",
    "PolynomialDecay",
    "RMSprop",
    "get",
]


class _Group(NamedTuple):
    """Where the arrays of one dtype are: `kernels.places_of` them."""

    update: Any  # params, their gradients or means of them, and what the kind of optimizer keeps
    gather: Any  # means, and the gradients that go into them; None if each batch is an update
    average: Any  # moving averages, and the params; None if there are none


class _Known(NamedTuple):
    """What an optimizer was given, the slots that go with it, and where all of that is."""

    params: list[np.ndarray]
    grads: list[np.ndarray]
    slots: dict[str, list[np.ndarray]]
    groups: list[_Group]


def _same(arrays: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Return whether the arrays are the others themselves."""
    return len(arrays) == len(others) and all(map(operator.is_, arrays, others))


class Optimizer:
    """What every optimizer has.

    Parameters
    ----------
    learning_rate : float or schedule
        How far to go; may be set later, too. A schedule is one of `fastgru.schedules`, or any
        function of the number of batches so far; a file can hold the former only.
    lr : float or schedule, optional
        Another name for `learning_rate`.
    weight_decay : float, optional
        Take this share, times the learning rate, off each param in each update, biases included:
        decoupled from the gradient, as in Keras and in PyTorch's AdamW. (PyTorch's other optimizers
        add weight_decay * param to the gradient, the L2 penalty.)
    clipnorm : float, optional
        Shorten each gradient to at most this length. (That of a GRU's `bias` and that of its
        `recurrent_bias` are two; in Keras these are the rows of one array.)
    clipvalue : float, optional
        Limit each element of the gradients to [-clipvalue, clipvalue].
    global_clipnorm : float, optional
        Shorten all gradients by one factor to at most this common length.
    use_ema : bool
        Whether to keep an exponential moving average of each param: the param itself after the
        first update, then ema_momentum * average + (1 - ema_momentum) * param. `Sequential.fit`
        leaves it in the params after the last epoch, as Keras' does; see `finalize` and
        `Sequential.averaged`.
    ema_momentum : float
        In [0, 1].
    ema_overwrite_frequency : int, optional
        Also write the averages into the params after every so many updates.
    gradient_accumulation_steps : int, optional
        Update once in so many batches, by the mean of their gradients, which is then clipped:
        what one batch of that size would do. Schedules count the batches, as in Keras; the moving
        average counts the updates (Keras', one for each batch, would weigh the last param most).

    Raises
    ------
    ValueError
        If a number is out of range, or more than one way to clip is given.
    TypeError
        If both `learning_rate` and `lr` are given.

    Attributes
    ----------
    iterations : int
        Number of updates so far.
    """

    name: str
    _default_rate: float

    def __init__(
        self,
        learning_rate: Any = None,
        *,
        lr: Any = None,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        gradient_accumulation_steps: int | None = None,
        **unknown: Any,
    ) -> None:
        for option in unknown:
            raise unknown_option(type(self), option)
        if learning_rate is not None and lr is not None:
            raise TypeError(
                "lr: expected either learning_rate or its alias lr, given both "
                f"({learning_rate!r} and {lr!r})"
            )
        rate = lr if learning_rate is None else learning_rate
        self._learning_rate = schedules.get(self._default_rate if rate is None else rate)
        self.weight_decay = _unless_none(non_negative, "weight_decay", weight_decay)
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {name: value for name, value in clips.items() if value is not None}
        clips = {name: _unless_none(positive, name, value) for name, value in clips.items()}
        if len(given) > 1:
            raise ValueError(
                "clipnorm, clipvalue, global_clipnorm: expected at most one of them, given "
                + ", ".join(f"{name}={value!r}" for name, value in given.items())
            )
        self._clips = clips
        self.use_ema = boolean("use_ema", use_ema)
        self.ema_momentum = fraction_or_one("ema_momentum", ema_momentum)
        self.ema_overwrite_frequency = _unless_none(
            positive_int, "ema_overwrite_frequency", ema_overwrite_frequency
        )
        self.gradient_accumulation_steps = _unless_none(
            positive_int, "gradient_accumulation_steps", gradient_accumulation_steps
        )
        self.iterations = 0
        self._gathered = 0  # batches since the last update
        self._params: list[np.ndarray] = []
        self._slots: dict[str, list[np.ndarray]] = {}
        self._last: _Known | None = None

    # ---- what a kind of optimizer defines

    def _slot_names(self) -> tuple[str, ...]:
        """Return the names of the arrays that the update itself keeps for each param."""
        return ()

    def _update(
        self, places: Any, scales: np.ndarray, limit: float, rate: float, decay: float
    ) -> bool:
        """Update the params and slots of some places; return whether they are finite."""
        raise TypeError(f"{type(self).__name__} does not define _update")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {
            "name": self.name,
            "learning_rate": schedules.config_of(self._learning_rate),
            "weight_decay": self.weight_decay,
            **self._clips,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    # ---- what all of them share

    @property
    def learning_rate(self) -> float:
        """How far to go in the next batch; a number takes the place of a number only."""
        if not callable(self._learning_rate):
            return self._learning_rate
        step = self.iterations * (self.gradient_accumulation_steps or 1) + self._gathered
        return non_negative(f"learning_rate({step})", self._learning_rate(step))

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._learning_rate = self._next_rate(value)

    def _next_rate(self, value: Any) -> Any:
        """Return what a learning rate may be set to, or raise."""
        rate = schedules.get(value)
        if callable(self._learning_rate) and not callable(rate):
            raise TypeError(
                f"learning_rate: expected another schedule in place of one, given {value!r}. "
                "Begin with a number to be able to set numbers."
            )
        return rate

    @property
    def clipnorm(self) -> float | None:
        """Greatest length of each gradient."""
        return self._clips["clipnorm"]

    @property
    def clipvalue(self) -> float | None:
        """Greatest size of each element of the gradients."""
        return self._clips["clipvalue"]

    @property
    def global_clipnorm(self) -> float | None:
        """Greatest common length of all gradients."""
        return self._clips["global_clipnorm"]

    def apply(self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray]) -> float | None:
        """Take the gradients of one batch: update all params in place, or wait for more batches.

        Parameters
        ----------
        params : list of arrays
            C-contiguous, float32 or float64, of any shape; the same list in every call.
        grads : list of arrays
            One of the same shape for each.

        Returns
        -------
        float or None
            The common length of all gradients before clipping, if clipping had to know it.

        Raises
        ------
        ValueError, TypeError
            If the lists do not fit, or the state is that of other params; nothing is changed then.
        NonFiniteError
            If a gradient is NaN or infinite, after `clipvalue` if each batch is an update; nothing
            is changed then. Or if the update itself is too large for the dtype; the message says
            that params were changed.
        """
        known = self._known(params, grads)
        groups = known.groups
        rate = self.learning_rate
        steps = self.gradient_accumulation_steps
        if steps:
            if not all([kernels.all_finite(group.gather) for group in groups]):
                raise NonFiniteError("a gradient is NaN or infinite; no weight was changed by it")
            keep = 1.0 if self._gathered else 0.0
            for group in groups:
                kernels.average_update(group.gather, keep, 1 / steps)
            self._params, self._slots = known.params, known.slots
            self._gathered = (self._gathered + 1) % steps
            if self._gathered:
                return None
        limit = self.clipvalue or math.inf
        scales, norm = self._scales(groups, limit)
        self._params, self._slots = known.params, known.slots
        self.iterations += 1
        decay = rate * (self.weight_decay or 0.0)
        finite = True
        for group, scale in zip(groups, scales, strict=True):
            finite &= self._update(group.update, scale, limit, rate, decay)
        if not finite:
            raise NonFiniteError("the update was too large; weights were changed, to NaN or inf")
        if self.use_ema:
            keep = 0.0 if self.iterations == 1 else self.ema_momentum
            for group in groups:
                kernels.average_update(group.average, keep, 1 - keep)
            if self.iterations % (self.ema_overwrite_frequency or math.inf) == 0:
                self.finalize(params)
        return norm

    def knows(self, params: Sequence[np.ndarray]) -> bool:
        """Return whether the last call was given these params, and the state is still theirs."""
        return self._of(params) is not None

    def clearing(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        overwritten: Collection[int] = (),
    ) -> Callable[[], None]:
        """Return a function that sets gradients to zero, so that others can be summed in them.

        Parameters
        ----------
        params, grads : lists of arrays
            As given to `apply`, for which the places that are noted here are noted, too.
        overwritten : collection of int
            Which gradients to leave as they are.

        Raises
        ------
        ValueError, TypeError
            As `apply`; or if a gradient is none that kernels can take as it is.
        """
        known = self._known(params, grads)
        if self._last is not known:
            raise ValueError(
                "grads: expected C-contiguous, writable arrays of the dtypes of the params"
            )
        left: dict[Any, list[np.ndarray]] = {}
        for i, grad in enumerate(grads):
            if i not in overwritten:
                left.setdefault(grad.dtype, []).append(grad)
        places = [kernels.places_of(some, some) for some in left.values()]

        def clear() -> None:
            for some in places:
                kernels.clear(some)

        return clear

    def _scales(self, groups: list[_Group], limit: float) -> tuple[list[np.ndarray], float | None]:
        """Return the factors that clip by a norm, and that norm; raise if there is no such."""
        shortest = self.clipnorm or self.global_clipnorm
        norm = None
        if shortest is None:
            finite, what = True, "a gradient is NaN or infinite"
            for group in groups:
                finite &= kernels.all_finite(group.update, limit)
            scales = [np.ones(len(group.update.sizes)) for group in groups]
        else:
            scales, total = [], 0.0
            for group in groups:
                squares, of_group = kernels.sums_of_squares(group.update)
                scales.append(squares)
                total += of_group
            norm = math.sqrt(total)
            finite, what = math.isfinite(norm), "the length of the gradients is NaN or infinite"
            # Not longer than the limit: 1.
            for some in scales:
                if self.clipnorm is None:
                    some.fill(shortest / max(norm, shortest))
                else:
                    some[:] = shortest / np.maximum(np.sqrt(some), shortest)
        if not finite:
            raise NonFiniteError(f"{what}; no weight was changed by it")
        return scales, norm

    def _all_slot_names(self) -> tuple[str, ...]:
        """Return the names of all arrays that are kept for each param."""
        gather = ("gradient",) if self.gradient_accumulation_steps else ()
        return (*self._slot_names(), *gather, *(("average",) if self.use_ema else ()))

    def _of(self, params: Sequence[np.ndarray]) -> _Known | None:
        """Return what the last call has found out, if it was given these params."""
        last = self._last
        if last is not None and last.slots is self._slots and _same(last.params, params):
            return last
        return None

    def _known(self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray]) -> _Known:
        """Check the arrays; return where they are, grouped by dtype, and the slots with them.

        What the same arrays gave the last time is given again.
        """
        last = self._of(params)
        if last is not None and _same(last.grads, grads):
            return last
        params, grads = list(params), list(grads)
        self.check(params)
        if len(params) != len(grads):
            raise ValueError(f"grads: expected {len(params)} arrays, given {len(grads)}")
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            if np.shape(grad) != param.shape:
                raise ValueError(
                    f"grads[{i}]: expected shape {param.shape}, given {np.shape(grad)}"
                )
        pairs = zip(grads, params, strict=True)
        taken = [kernels.as_kernel_array(grad, param.dtype) for grad, param in pairs]
        slots, names = self._slots, self._all_slot_names()
        if any(name not in slots for name in names):
            new = {name: [np.zeros(p.shape, p.dtype) for p in params] for name in names}
            slots = {**new, **slots}
        means, averages = slots.get("gradient"), slots.get("average")
        roles = [params, means or taken, *(slots[name] for name in self._slot_names())]
        members: dict[Any, list[int]] = {}
        for i, param in enumerate(params):
            if param.size:
                members.setdefault(param.dtype, []).append(i)

        def places(group: list[int], *roles: list[np.ndarray]) -> Any:
            return kernels.places_of(*([role[i] for i in group] for role in roles))

        groups = [
            _Group(
                places(group, *roles),
                places(group, means, taken) if means else None,
                places(group, averages, params) if averages else None,
            )
            for group in members.values()
        ]
        known = _Known(params, grads, slots, groups)
        # A gradient that had to be copied is another one the next time.
        self._last = known if _same(taken, grads) else None
        return known

    def finalize(self, params: Sequence[np.ndarray]) -> None:
        """Write the moving averages into the params, if there are any.

        The same as Keras' ``finalize_variable_values``: `Sequential.fit` calls it after the last
        epoch. Training may go on from there.

        Parameters
        ----------
        params : list of arrays
            As given to `apply`.
        """
        for param, average in self._averages(params):
            param[...] = average

    def swap(self, params: Sequence[np.ndarray]) -> None:
        """Exchange the params and their moving averages, if there are any; twice changes nothing.

        Parameters
        ----------
        params : list of arrays
            As given to `apply`.
        """
        for param, average in self._averages(params):
            kept = param.copy()
            param[...], average[...] = average, kept

    def _averages(self, params: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each param with its average; nothing before the first update."""
        if not (self.use_ema and self.iterations):
            return []
        self.check(params)
        return list(zip(params, self._slots["average"], strict=True))

    def check(self, params: Sequence[np.ndarray]) -> None:
        """Raise unless `apply` can update these params: it is new, or its state is theirs.

        Parameters
        ----------
        params : list of arrays
            As given to `apply`.

        Raises
        ------
        ValueError, TypeError
            If an array cannot be updated in place, or the state is that of other arrays: it has
            updated them, or it has been set to a state of other shapes.
        """
        if self._of(params) is not None:
            return  # they passed the last time
        for i, param in enumerate(params):
            if not isinstance(param, np.ndarray) or param.dtype.char not in "fd":
                kind = getattr(param, "dtype", type(param).__name__)
                raise TypeError(
                    f"params[{i}]: expected an array of float32 or float64, given {kind}"
                )
            flags = param.flags
            if not (flags.c_contiguous and flags.writeable and flags.aligned) or (
                not param.dtype.isnative
            ):
                raise ValueError(
                    f"params[{i}]: expected a C-contiguous, writable array in native byte order, "
                    "which can be updated in place"
                )
        kept = self._params or next(iter(self._slots.values()), [])
        if kept and _layout(kept) != _layout(params):
            raise ValueError(
                f"params: expected the arrays that this optimizer has state for, {_text(kept)}; "
                f"given {_text(params)}. Use a new optimizer for other params: "
                "call compile again, with one, after changing `trainable`."
            )
        if not all(map(operator.is_, self._params, params)):
            raise ValueError(
                "params: expected the arrays that this optimizer has updated before, given others "
                f"of the same shapes, {_text(params)}. Use a new optimizer for each model."
            )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make an optimizer from what `get_config` returned."""
        return cls(**{key: value for key, value in config.items() if key != "name"})

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that changes: numbers, and arrays, ``"m.0"`` for params[0]."""
        state: dict[str, Any] = {"iterations": self.iterations}
        if not callable(self._learning_rate):
            state["learning_rate"] = self._learning_rate
        if self.gradient_accumulation_steps:
            state["gathered"] = self._gathered
        for name, slots in self._slots.items():
            state |= {f"{name}.{i}": slot.copy() for i, slot in enumerate(slots)}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to what `get_state` returned; the optimizer may be a new one.

        Raises
        ------
        ValueError, TypeError
            If the state is not that of such an optimizer; nothing is changed then.
        """
        state = dict(state)
        iterations = non_negative_int("state['iterations']", state.pop("iterations", None))
        non_negative("state['iterations']", iterations)  # formulas take it as a float
        rate = self._next_rate(state.pop("learning_rate", self._learning_rate))
        gathered = non_negative_int("state['gathered']", state.pop("gathered", 0))
        if gathered >= (self.gradient_accumulation_steps or 1):
            raise ValueError(
                "state['gathered']: expected less than gradient_accumulation_steps, "
                f"{self.gradient_accumulation_steps}, given {gathered}"
            )
        names = self._all_slot_names()
        count = len(state) // len(names) if names else 0
        expected = [f"{name}.{i}" for name in names for i in range(count)]
        if sorted(expected) != sorted(state):
            kind = ", ".join(f"{name}.0 ... {name}.n" for name in names) or "no arrays"
            raise ValueError(
                f"state: expected {kind} for {type(self).__name__}, given {sorted(state)}"
            )
        slots = {}
        for name in names if count else ():
            arrays = [np.asarray(state[f"{name}.{i}"]) for i in range(count)]
            for i, array in enumerate(arrays):
                if array.dtype.char not in "fd":
                    raise TypeError(
                        f"state: expected float32 or float64 in '{name}.{i}', given {array.dtype}"
                    )
            slots[name] = [np.array(a, a.dtype.newbyteorder("="), order="C") for a in arrays]
        alike = list(slots.values())
        if self._params and names:
            alike.append(self._params)
        for arrays in alike[1:]:
            if _layout(arrays) != _layout(alike[0]):
                raise ValueError(
                    f"state: expected arrays like {_text(arrays)}, given {_text(alike[0])}"
                )
        self.iterations, self._learning_rate, self._slots = iterations, rate, slots
        self._gathered = gathered
        self._params, self._last = [], None  # whose state it is now shows in the next update

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies need: they will update copies of the params, not these."""
        return {**self.__dict__, "_params": [], "_last": None}


def _unless_none(check: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """Return a number that was checked, or None."""
    return None if value is None else check(name, value)


def _layout(arrays: Sequence[np.ndarray]) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shapes and dtypes."""
    return [(array.shape, array.dtype) for array in arrays]


def _text(arrays: Sequence[np.ndarray]) -> str:
    """Write shapes and dtypes for people."""
    return "[" + ", ".join(f"{dtype} {shape}" for shape, dtype in _layout(arrays)) + "]"


class SGD(Optimizer):
    """Step down the gradient, with momentum.

    Formula::

        velocity = momentum * velocity - learning_rate * grad
        param = param * (1 - learning_rate * weight_decay) + velocity
        nesterov:  momentum * velocity - learning_rate * grad instead of velocity

    PyTorch leaves the learning rate out of its velocity, v = momentum * v + grad, and takes
    param - learning_rate * v: the same while the learning rate does not change.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning"; keras.optimizers.SGD.

    Parameters
    ----------
    learning_rate : float or schedule
        0.01 by default; `lr` is an alias.
    momentum : float
        In [0, 1).
    nesterov : bool
        Whether to step from where the momentum is about to lead.
    options
        `weight_decay`, `clipnorm` and all others of `Optimizer`.

    Examples
    --------
    >>> param = np.array([1.0, 2.0])
    >>> SGD(learning_rate=0.5).apply([param], [np.array([1.0, -1.0])])
    >>> param.tolist()
    [0.5, 2.5]
    """

    name = "sgd"
    _default_rate = 0.01

    def __init__(
        self,
        learning_rate: Any = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = fraction("momentum", momentum)
        self.nesterov = boolean("nesterov", nesterov)

    def _slot_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _update(
        self, places: Any, scales: np.ndarray, limit: float, rate: float, decay: float
    ) -> bool:
        numbers = rate, self.momentum, self.nesterov, decay
        return kernels.sgd_update(places, scales, limit, *numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """Step down the gradient, measured in units of its root mean square.

    Formula::

        v = v + (1 - rho) (grad^2 - v)        mean = mean + (1 - rho) (grad - mean)
        spread = max(v - mean^2, 0) if centered else v
        velocity = momentum * velocity + learning_rate * grad / sqrt(spread + epsilon)
        param = param * (1 - learning_rate * weight_decay) - velocity

    This is Keras' place of epsilon, inside the root. PyTorch divides by sqrt(spread) + epsilon,
    leaves the learning rate out of its velocity, and has other defaults: learning_rate 0.01, rho
    (alpha) 0.99, epsilon 1e-8. Both let v - mean^2 fall below 0 by rounding, and then give NaN.

    Source: Tieleman and Hinton 2012, lecture 6.5, rmsprop; Graves 2013, arXiv:1308.0850, equations
    38 to 41, for centered; keras.optimizers.RMSprop.

    Parameters
    ----------
    learning_rate : float or schedule
        0.001 by default; `lr` is an alias.
    rho : float
        In [0, 1): how much of the mean square is kept at each step.
    momentum : float
        In [0, 1).
    epsilon : float
        Greater than 0, so that a gradient of zero does no harm.
    centered : bool
        Whether to measure by the variance instead of the mean square.
    options
        `weight_decay`, `clipnorm` and all others of `Optimizer`.

    Examples
    --------
    >>> param = np.array([1.0, 2.0])
    >>> RMSprop(0.5, rho=0.75).apply([param], [np.array([3.0, -0.1])])
    >>> param.round(4).tolist()
    [0.0, 3.0]
    """

    name = "rmsprop"
    _default_rate = 0.001

    def __init__(
        self,
        learning_rate: Any = None,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = fraction("rho", rho)
        self.momentum = fraction("momentum", momentum)
        self.epsilon = positive("epsilon", epsilon)
        self.centered = boolean("centered", centered)

    def _slot_names(self) -> tuple[str, ...]:
        mean = ("mean",) if self.centered else ()
        return ("v", *mean, *(("velocity",) if self.momentum else ()))

    def _update(
        self, places: Any, scales: np.ndarray, limit: float, rate: float, decay: float
    ) -> bool:
        numbers = rate, self.rho, self.momentum, self.epsilon, self.centered, decay
        return kernels.rmsprop_update(places, scales, limit, *numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


class Adam(Optimizer):
    """Step down the mean gradient, measured in units of its root mean square.

    Formula, at step t = 1, 2, ...::

        m = m + (1 - beta_1) (grad - m)        v = v + (1 - beta_2) (grad^2 - v)
        alpha = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)
        param = param * (1 - learning_rate * weight_decay) - alpha * m / (sqrt(v) + epsilon)

    This is Keras' order of operations, the one before section 2.1 of the paper. PyTorch divides by
    sqrt(v / (1 - beta_2^t)) + epsilon, algorithm 1, so that its epsilon, 1e-8 by default, weighs
    less in early steps.

    Source: Kingma and Ba 2015, arXiv:1412.6980; keras.optimizers.Adam.

    Parameters
    ----------
    learning_rate : float or schedule
        0.001 by default; `lr` is an alias.
    beta_1, beta_2 : float
        In [0, 1): how much of the mean and of the mean square is kept at each step.
    epsilon : float
        Greater than 0, so that a gradient of zero does no harm.
    options
        `weight_decay`, `clipnorm` and all others of `Optimizer`.

    Examples
    --------
    >>> param = np.array([1.0, 2.0])
    >>> Adam(lr=0.5).apply([param], [np.array([3.0, -0.1])])
    >>> param.round(4).tolist()
    [0.5, 2.5]
    """

    name = "adam"
    _default_rate = 0.001

    def __init__(
        self,
        learning_rate: Any = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = fraction("beta_1", beta_1)
        self.beta_2 = fraction("beta_2", beta_2)
        self.epsilon = positive("epsilon", epsilon)

    def _slot_names(self) -> tuple[str, ...]:
        return ("m", "v")

    def _update(
        self, places: Any, scales: np.ndarray, limit: float, rate: float, decay: float
    ) -> bool:
        t = self.iterations
        alpha = rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        numbers = alpha, self.beta_1, self.beta_2, self.epsilon, decay
        return kernels.adam_update(places, scales, limit, *numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class AdamW(Adam):
    """Adam with weight decay, which shrinks all params alike, however large their gradients are.

    Formula: that of `Adam`. The decay is 0.004 by default, as in Keras; PyTorch's is 0.01, and it
    is the same formula but for the place of epsilon.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, with its schedule multiplier
    inside the learning rate; keras.optimizers.AdamW.

    Parameters
    ----------
    learning_rate : float or schedule
        0.001 by default; `lr` is an alias.
    weight_decay : float
        The share, times the learning rate, that each param loses in each update.
    beta_1, beta_2, epsilon, options
        As in `Adam`.

    Examples
    --------
    >>> param = np.array([1.0, 2.0])
    >>> AdamW(0.5, weight_decay=0.1).apply([param], [np.array([3.0, -0.1])])
    >>> param.round(4).tolist()
    [0.45, 2.4]
    """

    name = "adamw"

    def __init__(
        self,
        learning_rate: Any = None,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        weight_decay = non_negative("weight_decay", weight_decay)
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, weight_decay=weight_decay, **options
        )


OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (Adam, AdamW, RMSprop, SGD)}


def get(identifier: Any) -> Optimizer:
    """Return the optimizer of a name or of a config, or the instance itself.

    Parameters
    ----------
    identifier : str, dict or Optimizer
        A name, upper or lower case, or what `Optimizer.get_config` returned.

    Raises
    ------
    ValueError, TypeError
        If there is no such optimizer; the message lists the names and the closest.

    Examples
    --------
    >>> get("adam").learning_rate
    0.001
    """
    if isinstance(identifier, Optimizer):
        return identifier
    return made_from("optimizer", identifier, OPTIMIZERS)
