"""Recurrent layers over sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgru import initializers, kernels
from fastgru.layers import ACTIVATIONS, Backward, Layer, Shape, activation_name
from fastgru.streaming import Stream
from fastgru.validation import numbers, positive_int, shape_of, step_mask

# Backpropagation through time keeps the gates alone, so a slope must follow from the value.
RECURRENT_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name != "gelu")
_WHY = " (softmax and gelu are for Dense: their slopes do not follow from the kept values.)"


class GRU(Layer):
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
    activation, recurrent_activation : str
        linear, tanh, sigmoid, relu, hard_sigmoid, elu, selu or softplus.
    use_bias : bool
        Whether there are biases.
    reset_after : bool
        True: reset gate after the product, with a bias of its own (cuDNN, PyTorch, Keras' default).
        False: before it, as in the paper.
    return_sequences : bool
        Whether to return the output of every step, not only the last.
    return_state : bool
        Whether to return ``[output, last state]``.
    go_backwards : bool
        Whether to read the sequence from its end; the output is in the order of reading.
    dtype, seed, name
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

    def __init__(
        self,
        units: int,
        *,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,
        reset_after: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        dtype: str = "float32",
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, seed=seed, name=name)
        self.units = positive_int("units", units)
        valid = RECURRENT_ACTIVATIONS
        self.activation = activation_name("activation", activation, valid, _WHY)
        self.recurrent_activation = activation_name(
            "recurrent_activation", recurrent_activation, valid, _WHY
        )
        self.use_bias = bool(use_bias)
        self.reset_after = bool(reset_after)
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.go_backwards = bool(go_backwards)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        own = (
            "units", "activation", "recurrent_activation", "use_bias", "reset_after",
            "return_sequences", "return_state", "go_backwards",
        )  # fmt: skip
        return {**{name: getattr(self, name) for name in own}, **super().get_config()}

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return kernel (I, 3H), recurrent_kernel (H, 3H) and biases (3H,); gates r, z, n."""
        if len(input_shape) != 3 or input_shape[2] is None or input_shape[2] < 1:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, steps, inputs), given {input_shape}"
            )
        H = self.units
        shapes: dict[str, tuple[int, ...]] = {
            "kernel": (input_shape[2], 3 * H),
            "recurrent_kernel": (H, 3 * H),
        }
        if self.use_bias:
            shapes["bias"] = (3 * H,)
            if self.reset_after:
                shapes["recurrent_bias"] = (3 * H,)
        return shapes

    def initializer(self, name: str) -> Callable[..., np.ndarray]:
        """Return Keras' initializers."""
        return initializers.orthogonal if name == "recurrent_kernel" else super().initializer(name)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (B, T, units), or (B, units) for the last state."""
        steps = input_shape[1:2] if self.return_sequences else ()
        return (input_shape[0], *steps, self.units)

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the mask in the order of the output, or None for the last state."""
        if not self.return_sequences or mask is None:
            return None
        return mask[:, ::-1] if self.go_backwards else mask

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

    def _pack(self, backward: bool) -> Any:
        p = self._params
        none = np.zeros(3 * self.units, self.dtype)
        return kernels.pack_gru(
            p["kernel"],
            p["recurrent_kernel"],
            p.get("bias", none),
            p.get("recurrent_bias", none),
            reset_after=self.reset_after,
            backward=backward,
        )

    def _inputs(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return x, mask and first state as the kernels want them."""
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype)
        if not self.built:
            shape_of("x", x, ("batch", "steps", "inputs"), owner)
            self.build(x.shape)
        shape_of("x", x, ("batch", "steps", self._params["kernel"].shape[0]), owner)
        B, T, _ = x.shape
        mask = step_mask(mask, lengths, B, T, owner)
        if initial_state is None:
            return x, mask, np.zeros((B, self.units), self.dtype)
        if isinstance(initial_state, (list, tuple)) and len(initial_state) == 1:
            (initial_state,) = initial_state
        h0 = numbers("initial_state", initial_state, self.dtype)
        shape_of("initial_state", h0, (B, self.units), owner)
        return x, mask, h0

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "go_backwards": self.go_backwards,
            "recurrent_activation": ACTIVATIONS.index(self.recurrent_activation),
            "activation": ACTIVATIONS.index(self.activation),
        }

    def _outputs(self, y: np.ndarray, h0: np.ndarray) -> Any:
        last = y[:, -1] if y.shape[1] else h0.copy()
        output = y if self.return_sequences else last
        return [output, last.copy()] if self.return_state else output

    def infer(self, x: Any, mask: Any, lengths: Any, initial_state: Any) -> Any:
        """Run over the sequences, keeping nothing but the output."""
        x, mask, h0 = self._inputs(x, mask, lengths, initial_state)
        weights = self.packed(False, self._pack)
        y, _ = kernels.gru_forward(
            x, mask, h0, weights, return_sequences=self.return_sequences, **self._options
        )
        return self._outputs(y, h0)

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[Any, Backward]:
        """Run over the sequences for training.

        Returns the output and ``backward(dy, dstates=None)``, which gives dx, or
        ``(dx, dinitial_state)`` when an initial state was given. `dstates` is the gradient of the
        last state, with `return_state`. The gradients are computed from x, the initial state and
        the output as they are when `backward` is called: change none of them in place before.
        """
        stateful = initial_state is not None
        x, mask, h0 = self._inputs(x, mask, lengths, initial_state)
        weights = self.packed(True, self._pack)
        y, gates = kernels.gru_forward(x, mask, h0, weights, keep=True, **self._options)
        once = self._once()

        def backward(dy: Any, dstates: Any = None, with_dx: bool = True) -> Any:
            once()
            owner = f"{self.name}: "
            if dy is not None:
                dy = numbers("dy", dy, self.dtype)
                shape_of("dy", dy, y.shape if self.return_sequences else h0.shape, owner)
            if isinstance(dstates, (list, tuple)) and len(dstates) == 1:
                (dstates,) = dstates
            if dstates is not None:
                dstates = numbers("dstates", dstates, self.dtype)
                shape_of("dstates", dstates, h0.shape, owner)
            if not self.return_sequences and dy is not None:
                dstates = dy if dstates is None else dy + dstates
                dy = None
            with self._adding:
                none = np.zeros(3 * self.units, self.dtype)
                g = self._grads
                gradients = (
                    g["kernel"],
                    g["recurrent_kernel"],
                    g.get("bias", none),
                    g.get("recurrent_bias", none),
                )
                dx, dh0 = kernels.gru_backward(
                    dy, dstates, x, mask, h0, weights, y, gates, gradients,
                    with_dx=with_dx, **self._options,
                )  # fmt: skip
            if not with_dx:
                dx = None
            return (dx, dh0) if stateful else dx

        return self._outputs(y, h0), backward

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step of `batch_size` streams: see `Layer.stream`."""
        if self.go_backwards:
            raise ValueError(f"{self.name}: go_backwards: expected False, a stream has no end")
        batch_size = self._streams(batch_size)
        weights = self.packed(False, self._pack)
        codes = {k: v for k, v in self._options.items() if k != "go_backwards"}
        memory = kernels.open_gru_stream(batch_size, weights, **codes)
        run = kernels.gru_stream_runner(memory)
        return Stream(memory.x, memory.h, run, [memory.h], owner=f"{self.name}: ")


def _swap_gates(array: np.ndarray) -> np.ndarray:
    """Exchange the first two of three blocks of columns: r z n to z r n, and back."""
    r, z, n = np.split(array, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)
