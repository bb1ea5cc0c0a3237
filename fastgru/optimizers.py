"""Optimizers: how gradients move the weights."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgru import kernels
from fastgru.errors import NonFiniteError
from fastgru.validation import (
    boolean,
    fraction,
    made_from,
    non_negative,
    non_negative_int,
    positive,
)


class Optimizer:
    """What every optimizer has.

    Parameters
    ----------
    learning_rate : float
        How far to go; may be set later, too.
    lr : float, optional
        Another name for `learning_rate`.
    clipnorm : float, optional
        Shorten each gradient to at most this length.
    clipvalue : float, optional
        Limit each element of the gradients to [-clipvalue, clipvalue].
    global_clipnorm : float, optional
        Shorten all gradients by one factor to at most this common length.

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
        learning_rate: float | None = None,
        *,
        lr: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        if learning_rate is not None and lr is not None:
            raise TypeError(
                "lr: expected either learning_rate or its alias lr, given both "
                f"({learning_rate!r} and {lr!r})"
            )
        rate = lr if learning_rate is None else learning_rate
        self.learning_rate = self._default_rate if rate is None else rate
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {name: value for name, value in clips.items() if value is not None}
        for name, value in given.items():
            clips[name] = positive(name, value)
        if len(given) > 1:
            raise ValueError(
                "clipnorm, clipvalue, global_clipnorm: expected at most one of them, given "
                + ", ".join(f"{name}={value!r}" for name, value in given.items())
            )
        self._clips = clips
        self.iterations = 0
        self._params: list[np.ndarray] = []
        self._slots: dict[str, list[np.ndarray]] = {}
        self._last: tuple[Any, ...] = ()

    # ---- what a kind of optimizer defines

    def _slot_names(self) -> tuple[str, ...]:
        """Return the names of the arrays that are kept for each param."""
        return ()

    def _update(self, places: Any, scales: np.ndarray, limit: float) -> bool:
        """Update the params and slots of some places; return whether they are finite."""
        raise TypeError(f"{type(self).__name__} does not define _update")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {"name": self.name, "learning_rate": self.learning_rate, **self._clips}

    # ---- what all of them share

    @property
    def learning_rate(self) -> float:
        """How far to go."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = non_negative("learning_rate", value)

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
        """Update all params in place.

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
            If a gradient is NaN or infinite, after `clipvalue`; nothing is changed then. Or if the
            update itself is too large for the dtype; the message says that params were changed.
        """
        groups, slots = self._groups(list(params), list(grads))
        limit = self.clipvalue or math.inf
        shortest = self.clipnorm or self.global_clipnorm
        norm = None
        if shortest is None:
            finite, what = True, "a gradient is NaN or infinite"
            for places in groups:
                finite &= kernels.all_finite(places, limit)
            scales = [np.ones(len(places.sizes)) for places in groups]
        else:
            squares = [kernels.sums_of_squares(places) for places in groups]
            norm = math.sqrt(sum(float(some.sum()) for some in squares))
            finite, what = math.isfinite(norm), f"the length of the gradients is {norm}"
            if self.clipnorm is None:
                squares = [np.full_like(some, norm**2) for some in squares]
            # Not longer than the limit: 1.
            scales = [shortest / np.maximum(np.sqrt(some), shortest) for some in squares]
        if not finite:
            raise NonFiniteError(f"{what}; no weight was changed by it")
        self._params, self._slots = list(params), slots
        self.iterations += 1
        for places, scale in zip(groups, scales, strict=True):
            finite &= self._update(places, scale, limit)
        if not finite:
            raise NonFiniteError("the update was too large; weights were changed, to NaN or inf")
        return norm

    def _groups(
        self, params: list[np.ndarray], grads: list[np.ndarray]
    ) -> tuple[list[Any], dict[str, list[np.ndarray]]]:
        """Check the arrays; return their places, grouped by dtype, and the slots that are in them.

        What the same arrays gave the last time is given again.
        """
        arrays = [*params, *grads]
        if self._last:
            known, slots, groups = self._last
            same = len(known) == len(arrays) and all(map(operator.is_, known, arrays))
            if same and slots is self._slots:
                return groups, slots
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
        slots = self._slots
        if any(name not in slots for name in self._slot_names()):
            new = {n: [np.zeros(p.shape, p.dtype) for p in params] for n in self._slot_names()}
            slots = {**new, **slots}
        roles = [params, taken, *(slots[name] for name in self._slot_names())]
        members: dict[Any, list[int]] = {}
        for i, param in enumerate(params):
            if param.size:
                members.setdefault(param.dtype, []).append(i)
        groups = [
            kernels.places_of(*([role[i] for i in group] for role in roles))
            for group in members.values()
        ]
        # A gradient that had to be copied is another one the next time.
        self._last = (arrays, slots, groups) if all(map(operator.is_, taken, grads)) else ()
        return groups, slots

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
                f"given {_text(params)}. Use a new optimizer for other params."
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
        state: dict[str, Any] = {
            "iterations": self.iterations,
            "learning_rate": self.learning_rate,
        }
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
        rate = non_negative("learning_rate", state.pop("learning_rate", self.learning_rate))
        names = self._slot_names()
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
        self._params, self._last = [], ()  # whose state it is now shows in the next update

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies need: they will update copies of the params, not these."""
        return {**self.__dict__, "_params": [], "_last": ()}


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
        param = param + velocity
        nesterov:  param = param + momentum * velocity - learning_rate * grad

    PyTorch leaves the learning rate out of its velocity, v = momentum * v + grad, and takes
    param - learning_rate * v: the same while the learning rate does not change.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning"; keras.optimizers.SGD.

    Parameters
    ----------
    learning_rate : float
        0.01 by default; `lr` is an alias.
    momentum : float
        In [0, 1).
    nesterov : bool
        Whether to step from where the momentum is about to lead.
    clipnorm, clipvalue, global_clipnorm : float, optional
        At most one of them; see `Optimizer`.

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
        learning_rate: float | None = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        lr: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            lr=lr,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
        )
        self.momentum = fraction("momentum", momentum)
        self.nesterov = boolean("nesterov", nesterov)

    def _slot_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _update(self, places: Any, scales: np.ndarray, limit: float) -> bool:
        numbers = self.learning_rate, self.momentum, self.nesterov
        return kernels.sgd_update(places, scales, limit, *numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Step down the mean gradient, measured in units of its root mean square.

    Formula, at step t = 1, 2, ...::

        m = m + (1 - beta_1) (grad - m)        v = v + (1 - beta_2) (grad^2 - v)
        alpha = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)
        param = param - alpha * m / (sqrt(v) + epsilon)

    This is Keras' order of operations, the one before section 2.1 of the paper. PyTorch divides by
    sqrt(v / (1 - beta_2^t)) + epsilon, algorithm 1, so that its epsilon, 1e-8 by default, weighs
    less in early steps.

    Source: Kingma and Ba 2015, arXiv:1412.6980; keras.optimizers.Adam.

    Parameters
    ----------
    learning_rate : float
        0.001 by default; `lr` is an alias.
    beta_1, beta_2 : float
        In [0, 1): how much of the mean and of the mean square is kept at each step.
    epsilon : float
        Greater than 0, so that a gradient of zero does no harm.
    clipnorm, clipvalue, global_clipnorm : float, optional
        At most one of them; see `Optimizer`.

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
        learning_rate: float | None = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        lr: float | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            lr=lr,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
        )
        self.beta_1 = fraction("beta_1", beta_1)
        self.beta_2 = fraction("beta_2", beta_2)
        self.epsilon = positive("epsilon", epsilon)

    def _slot_names(self) -> tuple[str, ...]:
        return ("m", "v")

    def _update(self, places: Any, scales: np.ndarray, limit: float) -> bool:
        t = self.iterations
        alpha = self.learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        numbers = alpha, self.beta_1, self.beta_2, self.epsilon
        return kernels.adam_update(places, scales, limit, *numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config`, or `get`, needs to make such an optimizer again."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}


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
