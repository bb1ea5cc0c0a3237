"""One time step at a time, for sequences that have no end: what `Layer.stream` returns.

A stream computes the bits that its layer gives for the whole sequence. It allocates nothing, so
its steps take the same time, and it belongs to one thread; of layers any number can be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgru.validation import numbers, shape_of


class Compiled(NamedTuple):
    """What a user's own compiled function calls instead of a `Stream`, in which it may run.

    ``kernel(*arguments)`` turns the stream's `x` into its `y`, and moves its state on.
    ``sequence(*memory, x, y)`` does so for all steps of an x (B, T, I), and writes what each gives
    to y (B, T, H). Both run on the caller's thread, and give the bits of the layer.

    Parameters
    ----------
    kernel : function
        Compiled by Numba.
    arguments : tuple
        All that it takes.
    sequence : function, optional
        Compiled by Numba; None in a layer that needs none, since its rows may be steps.
    memory : tuple
        The first of the arguments that it takes.
    """

    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    sequence: Callable[..., None] | None = None
    memory: tuple[Any, ...] = ()


class Stream:
    """Steps of one layer: ``y = step(x)``.

    Parameters
    ----------
    x : array (batch_size, I)
        Where the next input goes.
    y : array (batch_size, H)
        Where the output of a step is found.
    run : callable
        Computes y from x, and moves the state on.
    states : sequence of array
        The state, one array or more, all zeros at the beginning.
    convert : callable, optional
        Turns an input that is no array of the dtype of `x` into one, or raises.
    compiled : Compiled, optional
        What does the same in compiled code.
    owner : str
        What errors call it.

    Attributes
    ----------
    x, y : array (batch_size, I), (batch_size, H)
        Where compiled code puts an input and finds the output; `y` is the array that steps return.
    compiled : Compiled or None
        What compiled code calls.

    Examples
    --------
    >>> import fastgru as fg
    >>> layer = fg.GRU(8)
    >>> layer.build((None, None, 3))
    >>> step = layer.stream()
    >>> step([0.5, 0.0, -0.5]).shape
    (8,)
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        run: Callable[[], Any],
        states: Sequence[np.ndarray] = (),
        convert: Callable[[Any], np.ndarray] | None = None,
        compiled: Compiled | None = None,
        owner: str = "",
    ) -> None:
        self.x, self.y, self.compiled = x, y, compiled
        self._x, self._run, self._states, self._owner = x, run, tuple(states), owner
        self._convert = convert or (lambda given: numbers("x", given, x.dtype))
        # With one stream the axis of the batch may be left out, in the input and so in the output.
        self._outputs = {x.shape: y}
        if len(x) == 1:
            self._outputs[x.shape[1:]] = y[0]

    def __call__(self, x: Any) -> np.ndarray:
        """Compute one step.

        Parameters
        ----------
        x : array (batch_size, I), or (I,) for one stream
            The input of the step.

        Returns
        -------
        array (batch_size, H), or (H,)
            The output. The next step writes into the same array: copy what is to stay.

        Raises
        ------
        ValueError, TypeError
            If the input does not fit; the state has not moved then.
        """
        # The common case first: everything here is as long as the arithmetic of a small layer.
        if type(x) is not np.ndarray or x.dtype is not self._x.dtype:
            x = self._convert(x)
        y = self._outputs.get(x.shape)
        if y is None:
            shape_of("x", x, self._x.shape, self._owner)
        self._x[...] = x
        self._run()
        return y  # type: ignore[return-value]

    @property
    def state(self) -> Any:
        """The state (batch_size, H), or a list of them: a view, which may be written to."""
        if len(self._states) == 1:
            return self._states[0]
        return list(self._states)

    def reset(self) -> None:
        """Go back to the state before the first step."""
        for state in self._states:
            state[...] = 0


class Chain:
    """Steps of layers one after the other, with the interface of `Stream`.

    Parameters
    ----------
    steps : list of callable
        One for each layer, the first one first.
    """

    def __init__(self, steps: Sequence[Any]) -> None:
        self._steps = list(steps)

    def __call__(self, x: Any) -> np.ndarray:
        """Compute one step of all layers; the array returned is used again by the next step."""
        for step in self._steps:
            x = step(x)
        return x

    @property
    def state(self) -> list[Any]:
        """The states of all layers that have one."""
        return [step.state for step in self._steps if step._states]

    def reset(self) -> None:
        """Go back to the state before the first step."""
        for step in self._steps:
            step.reset()
