"""Recurrent layers over sequences, in one direction and in both."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fastgru import custom, initializers, kernels
from fastgru.arrays import Arrays
from fastgru.layers import ACTIVATIONS, Backward, Layer, Shape, activation_name
from fastgru.regularizers import L1L2
from fastgru.streaming import Compiled, Stream
from fastgru.validation import (
    boolean,
    fraction,
    numbers,
    one_of,
    positive_int,
    shape_of,
    step_mask,
)

# Backpropagation through time keeps the gates alone, so a slope must follow from the value.
RECURRENT_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name != "gelu")
_WHY = (
    " (softmax and gelu are for Dense: their slopes do not follow from the kept values.)"
    " A pair of functions, (value, slope from the value), is an activation as well."
)


class Recurrent(Layer):
    """What recurrent layers share: all but the weights, kernels and states of their cells.

    `GRU` documents the options. A layer of this kind gives its `CELL`, the name in its kernels'
    names; `GATES`, the number of blocks of H columns in its weights; `STATES`; `BIASES`, as its
    kernels take them; and `OPTIONS`, all that its config has beside those of `Layer`.
    """

    CELL: ClassVar[str]
    GATES: ClassVar[int]
    STATES: ClassVar[tuple[str, ...]] = ("h",)
    BIASES: ClassVar[tuple[str, ...]] = ("bias",)
    OPTIONS: ClassVar[tuple[str, ...]] = (
        "units", "activation", "use_bias", "return_sequences", "return_state", "go_backwards",
        "stateful", "zero_output_for_mask", "dropout", "recurrent_dropout",
    )  # fmt: skip

    def __init__(
        self,
        units: int,
        *,
        activation: Any = "tanh",
        use_bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.units = positive_int("units", units)
        self.activation = _activation("activation", activation)
        self.use_bias = boolean("use_bias", use_bias)
        self.return_sequences = boolean("return_sequences", return_sequences)
        self.return_state = boolean("return_state", return_state)
        self.go_backwards = boolean("go_backwards", go_backwards)
        self.stateful = boolean("stateful", stateful)
        self.zero_output_for_mask = boolean("zero_output_for_mask", zero_output_for_mask)
        self.dropout = fraction("dropout", dropout)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout)
        self._rule(
            kernel=(kernel_initializer, kernel_regularizer),
            recurrent=(recurrent_initializer, recurrent_regularizer),
            bias=(bias_initializer, bias_regularizer),
        )
        self._carried: list[np.ndarray] | None = None

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**{name: getattr(self, name) for name in self.OPTIONS}, **super().get_config()}

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies need; what a batch has left behind belongs to this layer alone."""
        return {**super().__getstate__(), "_carried": None}

    def reset_states(self, states: Any = None) -> None:
        """Let the next batch begin new sequences, in a layer that is `stateful`.

        Parameters
        ----------
        states : array (B, H) or list of them, optional
            What it begins with, in the order of `initial_state`; by default zeros.

        Raises
        ------
        ValueError
            If `states` are given to a layer that is not stateful, or do not fit.
        """
        if states is not None and not self.stateful:
            raise ValueError(f"{self.name}: states: expected None, as the layer is not stateful")
        if states is not None:
            arrays = listed(states)
            batch = len(arrays[0]) if arrays and np.ndim(arrays[0]) == 2 else "batch"
            states = [array.copy() for array in self._states("states", states, batch)]
        self._carried = states

    def _begin(self, B: int) -> list[np.ndarray]:
        """Return the states that a batch of B rows begins with when none are given."""
        if self._carried is None:
            return [np.zeros((B, self.units), self.dtype) for _ in self.STATES]
        if len(self._carried[0]) != B:
            raise ValueError(
                f"{self.name}: x: expected {len(self._carried[0])} rows, as in the batch whose "
                f"last state goes on, given {B}; call reset_states() before new sequences"
            )
        return self._carried

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return kernel (I, GH), recurrent_kernel (H, GH) and bias (GH,) for a cell of G gates."""
        if len(input_shape) != 3 or input_shape[2] is None or input_shape[2] < 1:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, steps, inputs), given {input_shape}"
            )
        columns = self.GATES * self.units
        matrices = {
            "kernel": (input_shape[2], columns),
            "recurrent_kernel": (self.units, columns),
        }
        return {**matrices, **dict.fromkeys(self._biases() if self.use_bias else (), (columns,))}

    def _biases(self) -> tuple[str, ...]:
        """Return the names of the biases among the params."""
        return self.BIASES

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (B, T, units), or (B, units) for the last state."""
        steps = input_shape[1:2] if self.return_sequences else ()
        return (input_shape[0], *steps, self.units)

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the mask in the order of the output, or None for the last state."""
        if not self.return_sequences or mask is None:
            return None
        return mask[:, ::-1] if self.go_backwards else mask

    def _arrays(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return params or gradients as the kernels take them, zeros for missing biases."""
        arrays = [values["kernel"], values["recurrent_kernel"]]
        for name in self.BIASES:
            given = name in values
            arrays.append(values[name] if given else np.zeros(arrays[0].shape[1], self.dtype))
        return arrays

    @functools.cached_property
    def is_custom(self) -> bool:
        """Whether an activation is no name, so that no kernel is compiled for it."""
        return any(not isinstance(getattr(self, role), str) for role in self._roles)

    def settle(self) -> None:
        """Work out what follows from the options, which would else be done on the first use."""
        _ = self.is_custom, self._options

    @property
    def _roles(self) -> list[str]:
        """The options that are activations."""
        return [name for name in self.OPTIONS if name.endswith("activation")]

    def _kernel(self, verb: str) -> Any:
        if self.is_custom:
            return getattr(custom, verb)
        return getattr(kernels, f"{self.CELL}_{verb}")

    def _pack(self, backward: bool) -> Any:
        if self.is_custom:
            return custom.CELLS[self.CELL](*self._arrays(self._params), **self._packing)
        pack = getattr(kernels, f"pack_{self.CELL}")
        return pack(*self._arrays(self._params), backward=backward, **self._packing)

    @property
    def _packing(self) -> dict[str, Any]:
        """The options that packing depends on."""
        return {}

    @functools.cached_property
    def _options(self) -> dict[str, Any]:
        """The options of the kernels; they never change."""
        values: dict[str, Any] = {role: getattr(self, role) for role in self._roles}
        for role, value in values.items():
            if isinstance(value, str):
                code = ACTIVATIONS.index(value)
                values[role] = custom.named(code) if self.is_custom else code
        return {"go_backwards": self.go_backwards, **values}

    def _inputs(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any
    ) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]:
        """Return x, mask and first states as the kernels want them, in a layer that is built."""
        inputs = self._checked(x, mask, lengths, initial_state)
        if self.built:
            return inputs
        # Now, so that a first call which fails leaves nothing behind.
        self.build(inputs[0].shape)
        # Another thread may have built it first, for other inputs.
        return self._checked(x, mask, lengths, initial_state)

    def _checked(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any
    ) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]:
        """Return x, mask and first states as the kernels want them, or raise; build nothing."""
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype, owner)
        inputs = self._params["kernel"].shape[0] if self.built else "inputs"
        shape = x.shape
        if len(shape) != 3 or shape[2] != inputs:
            shape_of("x", x, ("batch", "steps", inputs), owner)
        B, T, _ = shape
        if mask is not None or lengths is not None:
            mask = step_mask(mask, lengths, B, T, owner)
        if initial_state is None:
            return x, mask, self._begin(B)
        return x, mask, self._states("initial_state", initial_state, B)

    def _states(self, name: str, given: Any, B: int | str, missing: bool = False) -> list[Any]:
        """Return one array (B, H) per state, from a list of them, or from the only one itself."""
        owner, count = f"{self.name}: ", len(self.STATES)
        states = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(states) != count and isinstance(given, (list, tuple)) and count == 1:
            states = [given]  # one state as nested lists
        if len(states) != count:
            wanted = ", ".join(self.STATES)
            raise ValueError(
                f"{owner}{name}: expected a list [{wanted}], given "
                + (f"a list of {len(states)}" if isinstance(given, (list, tuple)) else "one array")
            )
        arrays: list[Any] = []
        for i, state in enumerate(states):
            array = None
            if state is not None or not missing:
                label = name if count == 1 else f"{name}[{i}]"
                array = numbers(label, state, self.dtype)
                shape_of(label, array, (B, self.units), owner)
            arrays.append(array)
        return arrays

    def _outputs(
        self,
        sequences: Sequence[np.ndarray],
        initial: Sequence[np.ndarray],
        mask: np.ndarray | None,
        with_states: bool,
    ) -> Any:
        """Return the output, with the last of each sequence of states if wanted."""
        wanted = with_states or self.return_state
        if not wanted and not self.stateful:
            if self.return_sequences:
                return self._zeroed(sequences[0], mask)
            return _last(sequences[0], initial[0])
        last = list(map(_last, sequences, initial))
        if self.stateful:
            self._carried = [state.copy() for state in last]
        output = self._zeroed(sequences[0], mask) if self.return_sequences else last[0]
        return [output, *(state.copy() for state in last)] if wanted else output

    def _zeroed(self, y: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Return outputs, or their gradients, with zeros at masked steps if that is wanted."""
        if mask is None or not self.zero_output_for_mask:
            return y
        mask = mask[:, ::-1] if self.go_backwards else mask
        return np.where(mask[:, :, None], y, y.dtype.type(0))

    def infer(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any, with_states: bool = False
    ) -> Any:
        """Run over the sequences, keeping nothing but the output.

        `with_states` returns the last states, too, as `return_state` does, for this call.
        """
        x, mask, initial = self._inputs(x, mask, lengths, initial_state)
        if x.shape[:2] == (1, 1) and mask is None and not (self.is_custom or self._shared):
            return self._outputs(self._one_step(x, initial), initial, mask, with_states)
        weights = self.packed(False, self._pack)
        results = self._kernel("forward")(
            x, mask, *initial, weights, return_sequences=self.return_sequences, **self._options
        )
        return self._outputs(results[: len(initial)], initial, mask, with_states)

    def _one_step(self, x: np.ndarray, initial: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the states (1, 1, H) after one step of one row.

        They have the bits of a sequence, but take less time, which is short enough to matter: they
        are computed in the memory of a stream, of which there is one for each thread that asks at
        the same time.
        """
        streams: list[tuple[Any, ...]] = self.packed("streams", lambda _: [])
        try:
            opened, states, run = streams.pop()
        except IndexError:
            opened, states, run = self._open(1)
        opened.x[...] = x[0]
        for state, first in zip(states, initial, strict=True):
            state[...] = first
        run()
        results = [state.copy()[None] for state in states]
        streams.append((opened, states, run))
        return results

    def _open(self, batch_size: int) -> tuple[Any, list[np.ndarray], Callable[[], None]]:
        """Return what some streams work on, their states, and what moves them on by a step."""
        codes = {k: v for k, v in self._options.items() if k != "go_backwards"}
        opened = kernels.open_stream(
            batch_size, self.packed(False, self._pack), gates=self.GATES, states=len(self.STATES),
            **codes,
        )  # fmt: skip
        states = [opened.h, opened.c][: len(self.STATES)]
        return opened, states, kernels.stream_runner(self._kernel("stream"), opened)

    def forward(
        self,
        x: Any,
        mask: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        *,
        with_states: bool = False,
    ) -> tuple[Any, Backward]:
        """Run over the sequences for training; with `with_states` as in `infer`.

        Returns the output and ``backward(dy, dstates=None)``, which gives dx, or
        ``(dx, dinitial_state)`` when an initial state was given. `dstates` is the gradient of the
        last state, with `return_state`. A layer with two states takes and gives lists of two. With
        ``overwrite=True`` the layer's gradients replace those in `grads`, as in `Dense`. The
        gradients are computed from x, the initial state and the output as they are when `backward`
        is called: change none of them in place before. They end where a `stateful` layer goes on.
        """
        given = initial_state is not None
        x, mask, initial = self._inputs(x, mask, lengths, initial_state)
        B, T, I = x.shape
        options, kept_inputs = self._options, None
        if self.dropout:
            kept_inputs = self._dropout(self.dropout, (B, 1, I))
            x = x * kept_inputs
        if self.recurrent_dropout:
            options = {**options, "drop": self._dropout(self.recurrent_dropout, (B, self.units))}
        weights = self.packed(True, self._pack)
        kept = self._kernel("forward")(x, mask, *initial, weights, keep=True, **options)
        once = self._once()

        def backward(
            dy: Any, dstates: Any = None, with_dx: bool = True, overwrite: bool = False
        ) -> Any:
            once()
            if dy is not None:
                dy = numbers("dy", dy, self.dtype)
                steps = (T,) if self.return_sequences else ()
                shape_of("dy", dy, (B, *steps, self.units), f"{self.name}: ")
            last: list[Any] = [None] * len(initial)
            if dstates is not None:
                last = self._states("dstates", dstates, B, missing=True)
            if dy is not None:
                if self.return_sequences:
                    dy = self._zeroed(dy, mask)
                else:
                    last[0] = dy if last[0] is None else dy + last[0]
                    dy = None
            with self._adding.now:
                gradients = tuple(self._arrays(self._grads)) if self.trainable else ()
                dx, *dinitial = self._kernel("backward")(
                    dy, *last, x, mask, *initial, weights, *kept, gradients, with_dx=with_dx,
                    overwrite=overwrite, **options,
                )  # fmt: skip
            if not with_dx:
                dx = None
            elif kept_inputs is not None:
                dx *= kept_inputs
            if not given:
                return dx
            return dx, dinitial[0] if len(dinitial) == 1 else dinitial

        return self._outputs(kept[: len(initial)], initial, mask, with_states), backward

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step of `batch_size` streams: see `Layer.stream`."""
        if self.go_backwards:
            raise ValueError(f"{self.name}: go_backwards: expected False, a stream has no end")
        if self.is_custom:
            raise TypeError(f"{self.name}: activation: expected names, a stream is compiled code")
        opened, states, run = self._open(self._streams(batch_size))
        step = self._kernel("stream")
        compiled = Compiled(step, (*opened[:3], 0, 1), self._kernel("sequence"), opened[:3])
        return Stream(opened.x, opened.h, run, states, compiled=compiled, owner=f"{self.name}: ")


class Gated(Recurrent):
    """A cell with gates, which have an activation of their own."""

    OPTIONS = (*Recurrent.OPTIONS, "recurrent_activation")

    def __init__(
        self, units: int, *, recurrent_activation: Any = "sigmoid", **options: Any
    ) -> None:
        super().__init__(units, **options)
        self.recurrent_activation = _activation("recurrent_activation", recurrent_activation)


def _last(states: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the states (B, H) after the last step, the first ones if there is none."""
    if not states.shape[1]:
        return first.copy()
    last = states[:, -1]
    if not last.flags.carray:  # as the next layer wants it
        strided, last = last, np.empty_like(first)
        kernels.perform(np.copyto, last, strided)
    return last


def listed(value: Any) -> list[Any]:
    """Return a list as one, and one array in a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _activation(role: str, value: Any) -> Any:
    """Return the name of an activation, or a pair of functions."""
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(map(callable, value)):
        return tuple(value)
    return activation_name(role, value, RECURRENT_ACTIVATIONS, _WHY)


class GRU(Gated):
    """A layer of gated recurrent units.

    Input (B, T, I) -> Output (B, units), the last state, or (B, T, units) with `return_sequences`.

    ::

        r = s(x Wr + br + h Ur + cr)        z = s(x Wz + bz + h Uz + cz)
        n = f(x Wn + bn + r * (h Un + cn))        with reset_after
        n = f(x Wn + bn + (r * h) Un)             without
        h = (1 - z) * n + z * h

    with s the `recurrent_activation` and f the `activation`. A masked step repeats output and
    state; a row of length 0 keeps its initial state.

    Parameters
    ----------
    units : int
        Number of units, H.
    activation, recurrent_activation : str or (function, function)
        linear, tanh, sigmoid, relu, hard_sigmoid, elu, selu or softplus; by default tanh and
        sigmoid. Or a pair of functions of arrays, elementwise: y of x, and the slope dy/dx as a
        function of y. With these the layer runs step by step in NumPy, and cannot be saved.
    use_bias : bool
        Whether there are biases; by default there are.
    reset_after : bool
        True: reset gate after the product, with a bias of its own (cuDNN, PyTorch, Keras' default).
        False: before it, as in the paper.
    return_sequences : bool
        Whether to return the output of every step, not only the last.
    return_state : bool
        Whether to return ``[output, last state]``.
    go_backwards : bool
        Whether to read the sequence from its end; the output is in the order of reading.
    stateful : bool
        Whether the last state of a batch is the initial state of the next, until `reset_states`;
        row i of a batch goes on where row i of the one before has ended. Gradients stop there.
    zero_output_for_mask : bool
        Whether outputs at masked steps are zeros, with `return_sequences`; states are not. Without,
        the output is the last state also where the last step is masked (Keras gives zeros there).
    dropout, recurrent_dropout : float
        Share of the inputs, and of the previous state where weights meet it, that are zero in
        training, the same in all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).
    kernel_initializer, recurrent_initializer, bias_initializer : str or callable
        What the weights begin with, as in `Dense`: "glorot_uniform", "orthogonal", "zeros".
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or L1L2, optional
        What the size of the weights costs, as in `Dense`.
    dtype, seed, name, trainable
        As in `Layer`.

    Raises
    ------
    ValueError, TypeError
        If an option or an input does not fit; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> GRU(8, return_sequences=True)(np.zeros((2, 5, 3))).shape
    (2, 5, 8)

    Notes
    -----
    Cho et al. 2014, arXiv:1406.1078v3; Chung et al. 2014, arXiv:1412.3555.
    """

    CELL = "gru"
    GATES = 3
    BIASES = ("bias", "recurrent_bias")
    OPTIONS = (*Gated.OPTIONS, "reset_after")

    def __init__(self, units: int, *, reset_after: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.reset_after = boolean("reset_after", reset_after)

    def _biases(self) -> tuple[str, ...]:
        return self.BIASES if self.reset_after else self.BIASES[:1]

    @property
    def _packing(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}

    # Keras puts the gates in the order z, r, h, and two biases into one array.

    def _to_keras(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        arrays = {name: _swap_gates(array) for name, array in values.items()}
        biases = [arrays.pop(name) for name in ("bias", "recurrent_bias") if name in arrays]
        if biases:
            return [*arrays.values(), np.stack(biases) if self.reset_after else biases[0]]
        return list(arrays.values())

    def _from_keras(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        matrices, biases = arrays[:2], arrays[2:]
        if biases and self.reset_after:
            biases = list(biases[0])
        ordered = [_swap_gates(array) for array in [*matrices, *biases]]
        return dict(zip(self._params, ordered, strict=True))


def _swap_gates(array: np.ndarray) -> np.ndarray:
    """Exchange the first two of three blocks of columns: r z n to z r n, and back."""
    r, z, n = np.split(array, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)


class LSTM(Gated):
    """A layer of long short-term memory.

    Input (B, T, I) -> Output (B, units), the last h, or (B, T, units) with `return_sequences`.

    ::

        i = s(x Wi + h Ui + bi)        f = s(x Wf + h Uf + bf)
        g = p(x Wg + h Ug + bg)        o = s(x Wo + h Uo + bo)
        c = f * c + i * g              h = o * p(c)

    with s the `recurrent_activation` and p the `activation`. The state is ``[h, c]``. A masked step
    repeats output and states; a row of length 0 keeps its initial states.

    Parameters
    ----------
    units : int
        Number of units, H.
    activation, recurrent_activation : str or (function, function)
        linear, tanh, sigmoid, relu, hard_sigmoid, elu, selu or softplus; by default tanh and
        sigmoid. Or a pair of functions of arrays, elementwise: y of x, and the slope dy/dx as a
        function of y. With these the layer runs step by step in NumPy, and cannot be saved.
    use_bias : bool
        Whether there is a bias; by default there is.
    unit_forget_bias : bool
        Whether the bias of the forget gate f begins with ones, as Jozefowicz et al. 2015 advise,
        so that a new layer remembers.
    return_sequences : bool
        Whether to return the output of every step, not only the last.
    return_state : bool
        Whether to return ``[output, last h, last c]``.
    go_backwards : bool
        Whether to read the sequence from its end; the output is in the order of reading.
    stateful : bool
        Whether the last state of a batch is the initial state of the next, until `reset_states`;
        row i of a batch goes on where row i of the one before has ended. Gradients stop there.
    zero_output_for_mask : bool
        Whether outputs at masked steps are zeros, with `return_sequences`; states are not. Without,
        the output is the last state also where the last step is masked (Keras gives zeros there).
    dropout, recurrent_dropout : float
        Share of the inputs, and of the previous state where weights meet it, that are zero in
        training, the same in all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).
    kernel_initializer, recurrent_initializer, bias_initializer : str or callable
        What the weights begin with, as in `Dense`: "glorot_uniform", "orthogonal", "zeros".
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or L1L2, optional
        What the size of the weights costs, as in `Dense`.
    dtype, seed, name, trainable
        As in `Layer`.

    Raises
    ------
    ValueError, TypeError
        If an option or an input does not fit; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> y, h, c = LSTM(8, return_sequences=True, return_state=True)(np.zeros((2, 5, 3)))
    >>> y.shape, h.shape, c.shape
    ((2, 5, 8), (2, 8), (2, 8))

    Notes
    -----
    Hochreiter and Schmidhuber 1997, Neural Computation 9 (8); the forget gate is from Gers,
    Schmidhuber and Cummins 2000, Neural Computation 12 (10).
    """

    CELL = "lstm"
    GATES = 4
    STATES = ("h", "c")
    OPTIONS = (*Gated.OPTIONS, "unit_forget_bias")

    def __init__(self, units: int, *, unit_forget_bias: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.unit_forget_bias = boolean("unit_forget_bias", unit_forget_bias)

    def initializer(self, name: str) -> Callable[..., np.ndarray]:
        """Return the initializer of one param."""
        begin = super().initializer(name)
        forget = name == "bias" and self.unit_forget_bias
        return initializers.with_forget_bias(begin) if forget else begin


class SimpleRNN(Recurrent):
    """A layer of simple recurrent units.

    Input (B, T, I) -> Output (B, units), the last state, or (B, T, units) with `return_sequences`.

    ::

        h = f(x W + h U + b)

    with f the `activation`. A masked step repeats output and state; a row of length 0 keeps its
    initial state. Over many steps its gradients vanish or explode: try a `GRU` first.

    Parameters
    ----------
    units : int
        Number of units, H.
    activation : str or (function, function)
        linear, tanh, sigmoid, relu, hard_sigmoid, elu, selu or softplus; by default tanh. Or a pair
        of functions, as in `GRU`.
    use_bias : bool
        Whether there is a bias; by default there is.
    return_sequences : bool
        Whether to return the output of every step, not only the last.
    return_state : bool
        Whether to return ``[output, last state]``.
    go_backwards : bool
        Whether to read the sequence from its end; the output is in the order of reading.
    stateful : bool
        Whether the last state of a batch is the initial state of the next, until `reset_states`;
        row i of a batch goes on where row i of the one before has ended. Gradients stop there.
    zero_output_for_mask : bool
        Whether outputs at masked steps are zeros, with `return_sequences`; states are not. Without,
        the output is the last state also where the last step is masked (Keras gives zeros there).
    dropout, recurrent_dropout : float
        Share of the inputs, and of the previous state where weights meet it, that are zero in
        training, the same in all steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).
    kernel_initializer, recurrent_initializer, bias_initializer : str or callable
        What the weights begin with, as in `Dense`: "glorot_uniform", "orthogonal", "zeros".
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or L1L2, optional
        What the size of the weights costs, as in `Dense`.
    dtype, seed, name, trainable
        As in `Layer`.

    Raises
    ------
    ValueError, TypeError
        If an option or an input does not fit; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> SimpleRNN(8)(np.zeros((2, 5, 3))).shape
    (2, 8)

    Notes
    -----
    Elman 1990, "Finding structure in time", Cognitive Science 14 (2).
    """

    CELL = "simple_rnn"
    GATES = 1


CELLS: dict[str, type[Recurrent]] = {c.__name__: c for c in (GRU, LSTM, SimpleRNN)}

# How the outputs of two directions become one.
MERGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "concat": lambda y, z: np.concatenate([y, z], axis=-1),
    "sum": lambda y, z: y + z,
    "mul": lambda y, z: y * z,
    "ave": lambda y, z: (y + z) / 2,
}


class Bidirectional(Layer):
    """Read sequences in both directions, by two layers of one kind, and merge their outputs.

    Input (B, T, I) -> Output as that of the `layer`, its last axis doubled by ``"concat"``. With
    `return_sequences` the output of a step has seen all steps before it, by the one, and all behind
    it, by the other. A masked step repeats output and states in both directions, so each row is
    read from its own end. (Keras gives zeros there, with `return_sequences`, as a layer with
    `zero_output_for_mask` does.)

    Weights are listed and states taken and given forward first, then backward: a `GRU`'s initial
    state is ``[forward h, backward h]``, and an `LSTM`'s ``[h, c, h, c]``.

    Parameters
    ----------
    layer : GRU, LSTM or SimpleRNN
        What to make both layers from, not built yet: the first has its config, the second the same
        with `go_backwards` the other way round (and a seed of its own).
    merge_mode : str
        ``"concat"``, ``"sum"``, ``"mul"`` or ``"ave"`` (the mean).
    name : str, optional
        As in `Layer`.
    trainable : bool
        As in `Layer`.

    Raises
    ------
    ValueError, TypeError
        If an argument or an input does not fit; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru as fg
    >>> fg.Bidirectional(fg.GRU(8, return_sequences=True))(np.zeros((2, 5, 3))).shape
    (2, 5, 16)

    Notes
    -----
    Schuster and Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str = "concat",
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        if type(layer) not in CELLS.values():
            raise TypeError(f"layer: expected one of {', '.join(CELLS)}, given {layer!r}")
        if layer.built:
            raise ValueError(f"layer: expected one that is not built, given {layer.name!r}")
        super().__init__(dtype=layer.dtype.name, name=name, trainable=trainable)
        self.merge_mode = one_of("merge_mode", merge_mode, MERGES)
        self._config = config = layer.get_config()
        seed = None if layer.seed is None else layer.seed + 1
        turned = {"go_backwards": not layer.go_backwards, "seed": seed}
        self.forward_layer: Recurrent = type(layer)(**config | {"name": f"forward_{layer.name}"})
        self.backward_layer: Recurrent = type(layer)(
            **config | turned | {"name": f"backward_{layer.name}"}
        )
        self.trainable = trainable and layer.trainable

    @property
    def stateful(self) -> bool:
        """Whether both layers go on from the last states of the batch before."""
        return self.forward_layer.stateful

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights, which goes for both layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = boolean("trainable", value)
        if hasattr(self, "backward_layer"):
            for _, layer in self._both:
                layer.trainable = self._trainable

    def regularizer(self, name: str) -> L1L2 | None:
        """Return what the size of one param costs, as in the layer that it belongs to."""
        return next(
            layer.regularizer(name.removeprefix(prefix))
            for prefix, layer in self._both
            if name.startswith(prefix)
        )

    def reset_states(self, states: Any = None) -> None:
        """Let the next batch begin new sequences, in both directions; see `GRU.reset_states`.

        Parameters
        ----------
        states : list of array (B, H), optional
            What it begins with, in the order of `initial_state`; by default zeros.
        """
        for (_, layer), own in zip(self._both, self._halves("states", states), strict=True):
            layer.reset_states(own)

    @property
    def return_sequences(self) -> bool:
        """Whether the output of every step is returned."""
        return self.forward_layer.return_sequences

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        layer = {"class": type(self.forward_layer).__name__, "config": self._config}
        own = {"merge_mode": self.merge_mode, "name": self.name, "trainable": self.trainable}
        return {"layer": layer, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a layer from what `get_config` returned."""
        described = config["layer"]
        kind = CELLS[one_of("layer", described["class"], CELLS)]
        return cls(**config | {"layer": kind.from_config(described["config"])})

    # The params are the arrays of both layers, under names of their own.

    @property
    def _both(self) -> tuple[tuple[str, Recurrent], ...]:
        return ("forward_", self.forward_layer), ("backward_", self.backward_layer)

    def _joined(self, values: Callable[[Recurrent], dict[str, Any]]) -> dict[str, Any]:
        """Return some values of both layers by name."""
        return {
            f"{prefix}{name}": value
            for prefix, layer in self._both
            for name, value in values(layer).items()
        }

    def _part(self, prefix: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return what belongs to one of the two layers, under its own names."""
        return {n.removeprefix(prefix): v for n, v in values.items() if n.startswith(prefix)}

    def _tie(self) -> None:
        """Hold the arrays of both layers."""
        self._params = Arrays("params", self.dtype, self._joined(Layer.weights))
        self._grads = Arrays("grads", self.dtype, self._joined(lambda layer: layer.grads))

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shapes of both layers' params, forward_... and backward_..."""
        return self._joined(lambda layer: layer.weight_shapes(input_shape))

    def build(self, input_shape: Shape, weights: dict[str, np.ndarray] | None = None) -> None:
        """Allocate the weights of both layers, unless they are there; see `Layer.build`."""
        if self.built:
            return
        with self._building.now:
            if self.built:
                return
            for prefix, layer in self._both:
                own = None if weights is None else self._part(prefix, weights)
                layer.build(input_shape, own)
            self._tie()
            self.input_shape = (None, *input_shape[1:])

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The weights of both layers by name, once they are built."""
        for _, layer in self._both:
            layer.params  # noqa: B018  (who has these arrays may change them: see `Layer.params`)
        return super().params

    def changed(self) -> None:
        """Note that the weights have changed."""
        for _, layer in self._both:
            layer.changed()

    def _to_keras(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [
            array
            for prefix, layer in self._both
            for array in layer._to_keras(self._part(prefix, values))
        ]

    def _from_keras(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        half = len(arrays) // 2
        parts = arrays[:half], arrays[half:]
        return {
            f"{prefix}{name}": array
            for (prefix, layer), part in zip(self._both, parts, strict=True)
            for name, array in layer._from_keras(part).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        super().__setstate__(state)
        self.forward_layer = copy.copy(self.forward_layer)
        self.backward_layer = copy.copy(self.backward_layer)
        self._tie()

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the layer's, with the last axis doubled by concat."""
        *axes, units = self.forward_layer.output_shape(input_shape)
        return (*axes, units * 2 if self.merge_mode == "concat" else units)  # type: ignore[operator]

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the mask in the order of the output, or None for the last state."""
        return self.forward_layer.output_mask(x, mask)

    def _inputs(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any
    ) -> tuple[np.ndarray, Any, Any]:
        """Return x and the states of both layers, once the layer is built for them."""
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype, owner)
        shape_of("x", x, ("batch", "steps", "inputs"), owner)
        halves = self._halves("initial_state", initial_state)
        if not self.built:
            for (_, layer), own in zip(self._both, halves, strict=True):
                layer._checked(x, mask, lengths, own)
            self.build(x.shape)
        return x, *halves

    def _halves(self, name: str, states: Any) -> tuple[Any, Any]:
        """Return the states, or their gradients, of both layers."""
        if states is None:
            return None, None
        count = len(self.forward_layer.STATES)
        if not isinstance(states, (list, tuple)) or len(states) != 2 * count:
            given = f"a list of {len(states)}" if isinstance(states, (list, tuple)) else "one array"
            raise ValueError(
                f"{self.name}: {name}: expected a list of {2 * count} arrays, the forward layer's "
                f"and then the backward layer's, given {given}"
            )
        return states[:count], states[count:]

    def _merged(self, outputs: Any, turned: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return the output, and what the two layers contribute, in one order."""
        y, *states = outputs if isinstance(outputs, list) else [outputs]
        z, *others = turned if isinstance(turned, list) else [turned]
        z = self._turned(z)
        merged = MERGES[self.merge_mode](y, z)
        return ([merged, *states, *others] if states else merged), y, z

    def _turned(self, z: np.ndarray) -> np.ndarray:
        """Put the backward layer's outputs, or their gradients, into the other order of steps."""
        return z[:, ::-1] if self.return_sequences else z

    def infer(self, x: Any, mask: Any, lengths: Any, initial_state: Any) -> Any:
        """Run over the sequences in both directions, keeping nothing but the output."""
        x, first, second = self._inputs(x, mask, lengths, initial_state)
        return self._merged(
            self.forward_layer.infer(x, mask, lengths, first),
            self.backward_layer.infer(x, mask, lengths, second),
        )[0]

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[Any, Backward]:
        """Run over the sequences in both directions for training.

        Returns the output and ``backward(dy, dstates=None)``, which gives dx, or
        ``(dx, dinitial_state)`` when an initial state was given; `dstates` and dinitial_state are
        lists like the initial state. What holds for `GRU.forward` holds here.
        """
        given = initial_state is not None
        x, first, second = self._inputs(x, mask, lengths, initial_state)
        outputs, back = self.forward_layer.forward(x, mask, lengths, first)
        turned, turned_back = self.backward_layer.forward(x, mask, lengths, second)
        output, y, z = self._merged(outputs, turned)
        shape = (output[0] if isinstance(output, list) else output).shape
        once = self._once()

        def backward(dy: Any, dstates: Any = None, with_dx: bool = True) -> Any:
            once()
            first, second = self._halves("dstates", dstates)
            dz = None
            if dy is not None:
                dy = numbers("dy", dy, self.dtype)
                shape_of("dy", dy, shape, f"{self.name}: ")
                if self.merge_mode == "concat":  # [y, z]
                    dy, dz = np.split(dy, 2, axis=-1)
                elif self.merge_mode == "sum":  # y + z
                    dz = dy
                elif self.merge_mode == "mul":  # y * z
                    dy, dz = dy * z, dy * y
                else:  # (y + z) / 2
                    dy = dz = dy / 2
                dz = self._turned(dz)
            results = back(dy, first, with_dx=with_dx), turned_back(dz, second, with_dx=with_dx)
            if not given:
                return results[0] + results[1] if with_dx else None
            (dx, dfirst), (dx_turned, dsecond) = results
            dinitial = [array for states in (dfirst, dsecond) for array in listed(states)]
            return (dx + dx_turned if with_dx else None), dinitial

        return output, backward

    def stream(self, batch_size: int = 1) -> Stream:
        """Raise, whatever the `batch_size`: the backward layer begins with what comes last."""
        raise TypeError(
            f"{self.name}: Bidirectional cannot work step by step, since the backward layer begins "
            "with what comes last: a stream has no end"
        )
