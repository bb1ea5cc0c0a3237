"""The contract that all layers keep, and the layers without recurrence.

`y, backward = layer.forward(x)` computes for training, and `dx = backward(dy)`, called once, adds
to `layer.grads` and gives the gradient of the input. All that backward needs lives in that closure,
so one layer can have any number of forwards in flight, in any number of threads. It holds x and y
themselves, not copies: where one of them is changed in place before `backward` is called, the
gradients are wrong. `layer(x)` computes for inference. `Layer` tells how to make one of your own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from fastgru import initializers, kernels, regularizers
from fastgru.arrays import Arrays
from fastgru.initializers import Initializer
from fastgru.kernels.names import ACTIVATIONS
from fastgru.locks import Lock
from fastgru.random import generator
from fastgru.regularizers import L1L2
from fastgru.streaming import Compiled, Stream
from fastgru.validation import (
    array_of,
    boolean,
    float_dtype,
    fraction,
    list_of_arrays,
    name_or,
    numbers,
    one_of,
    outer,
    positive_int,
    rows_of,
    shape_of,
    sizes,
    step_mask,
    unknown_option,
    visible,
)

Backward = Callable[..., Any]
INT64 = np.dtype(np.int64)
_ROLES = {"recurrent_kernel": "recurrent", "recurrent_bias": "bias"}
Shape = tuple[int | None, ...]
_drops = ContextVar("drops", default=True)
_packs_anew = ContextVar("packs_anew", default=False)


@contextlib.contextmanager
def _inside(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    """Give a variable another value inside a ``with`` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def no_dropout() -> contextlib.AbstractContextManager[None]:
    """Let `forward` drop nothing inside a ``with`` block: gradients of what inference computes."""
    return _inside(_drops, False)


def packing_anew() -> contextlib.AbstractContextManager[None]:
    """Let layers pack their weights at every use inside a ``with`` block, for that use alone."""
    return _inside(_packs_anew, True)


def activation_name(name: str, value: Any, valid: tuple[str, ...], why: str = "") -> str:
    """Return the name of an activation, None being linear, or raise with the list of them."""
    return "linear" if value is None else one_of(name, value, valid, why)


def _role(param: str) -> str:
    """Return how a param is called in the names of options."""
    return _ROLES.get(param, param)


class Layer:
    """What every layer has; the module's docstring tells what `forward` and `backward` are.

    Parameters
    ----------
    dtype : str
        ``"float32"`` or ``"float64"``.
    seed : int, optional
        Seed of the initial weights and of dropout; by default drawn from `set_random_seed`.
    name : str, optional
        Name in summaries and files; by default the class's, in lower case.
    trainable : bool
        Whether training changes the weights. It can be set later, before `Sequential.compile`.

    Notes
    -----
    A layer of your own is a subclass that defines `forward` and, where the defaults do not fit:

    - ``weight_shapes(input_shape)``, and ``initializer(name)``, which gives a function of a shape
      and a `numpy.random.Generator`;
    - ``output_shape(input_shape)`` and ``output_mask(x, mask)``;
    - ``infer(x, mask, lengths, initial_state)``, for inference;
    - ``get_config()``, when its ``__init__`` takes more than these options.

    ``forward(x, mask=None, lengths=None, initial_state=None)`` calls ``self.build(x.shape)`` and
    returns y and ``backward(dy, with_dx=True)``. That adds to `grads` what dy, in the shape of y,
    makes of them, and returns dx in the shape of x, which may be None where x has no gradient and,
    to save work, where `with_dx` is False. When an initial state was given, it returns
    ``(dx, dinitial_state)``. `load_model` knows the classes in ``fastgru.registry.LAYERS``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru as fg
    >>> class Scale(fg.Layer):
    ...     def weight_shapes(self, input_shape):
    ...         return {"scale": input_shape[-1:]}
    ...
    ...     def initializer(self, name):
    ...         return lambda shape, random: np.ones(shape)
    ...
    ...     def forward(self, x, mask=None, lengths=None, initial_state=None):
    ...         x = np.asarray(x, self.dtype)
    ...         self.build(x.shape)
    ...         scale = self.params["scale"]
    ...
    ...         def backward(dy, with_dx=True):
    ...             self.grads["scale"] += (dy * x).reshape(-1, scale.size).sum(axis=0)
    ...             return dy * scale if with_dx else None
    ...
    ...         return x * scale, backward
    >>> model = fg.Sequential([Scale(), Scale()])
    >>> model.compile(fg.optimizers.SGD(0.02), loss="mse")
    >>> x = np.array([[1.0, 2.0], [3.0, -1.0]])
    >>> history = model.fit(x, 4 * x, epochs=100, verbose=0)
    >>> model.predict(x).round(2).tolist()
    [[4.0, 8.0], [12.0, -4.0]]
    """

    def __init__(
        self,
        *,
        dtype: str = "float32",
        seed: int | None = None,
        name: str | None = None,
        trainable: bool = True,
        **unknown: Any,
    ) -> None:
        for option in unknown:
            raise unknown_option(type(self), option)
        self.name = name_or(name, type(self).__name__.lower())
        self.trainable = trainable
        self._rules: dict[str, tuple[Initializer, L1L2 | None]] = {}
        self.dtype = float_dtype(dtype)
        self._random = generator(seed)
        self.seed = None if seed is None else int(seed)
        self.input_shape: Shape | None = None
        self._params = Arrays("params", self.dtype)
        self._grads = Arrays("grads", self.dtype)
        self._packed: dict[Any, Any] = {}
        self._shared = False
        self._building = Lock()
        self._adding = Lock()

    # ---- what a kind of layer defines

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the params for an input shape, whose batch size is None."""
        return {}

    def initializer(self, name: str) -> Callable[..., np.ndarray]:
        """Return the initializer of one param."""
        rules = self._rules.get(_role(name))
        if rules is not None:
            return rules[0]
        return initializers.zeros if "bias" in name else initializers.glorot_uniform

    def regularizer(self, name: str) -> L1L2 | None:
        """Return what the size of one param costs; by default nothing."""
        return self._rules.get(_role(name), (None, None))[1]

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output for the shape of an input."""
        return input_shape

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return the mask (B, T) that goes with the output; by default the input's.

        Only the first layer of a model may look at the values of x.
        """
        return mask

    @property
    def last_activation(self) -> str | None:
        """The activation that comes last in the layer and that it can leave out, if there is one.

        Such a layer's `forward` and `infer` take ``logits=True``, for what goes into the
        activation, and `activated` applies it to that.
        """
        return None

    def activated(self, logits: np.ndarray) -> np.ndarray:
        """Return the `last_activation` of logits."""
        y = np.empty_like(logits)
        activate(str(self.last_activation), logits, y)
        return y

    def check(self, x: np.ndarray) -> None:
        """Raise unless the values of an input fit, whose shape does; by default all do."""

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[Any, Backward]:
        """Compute for training; return the output and the function that goes back."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def infer(self, x: Any, mask: Any, lengths: Any, initial_state: Any) -> Any:
        """Compute for inference, keeping nothing."""
        return self.forward(x, mask=mask, lengths=lengths, initial_state=initial_state)[0]

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function that computes one time step at a time, and allocates nothing.

        It works with the weights of now: make another one after they have changed.

        Parameters
        ----------
        batch_size : int
            Number of streams side by side, each with a state of its own.

        Returns
        -------
        Stream
            ``y = step(x)``, with x (batch_size, I), or (I,) for one stream; the array returned is
            used again by the next step. ``step.state`` is the state, ``step.reset()`` clears it.

        Raises
        ------
        ValueError
            If the layer is not built: its number of inputs is not known.
        TypeError
            If such a layer cannot work step by step.
        """
        raise TypeError(f"{self.name}: {type(self).__name__} cannot work step by step")

    def _streams(self, batch_size: Any) -> int:
        """Return the number of streams, or raise; also where the layer is not built."""
        self._must_be_built()
        return positive_int("batch_size", batch_size)

    def _must_be_built(self) -> None:
        if not self.built:
            raise ValueError(
                f"{self.name}: expected a built layer, given one that has seen no input; "
                "call build(input_shape) first"
            )

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make such a layer again, without its weights."""
        rules = {}
        for role, (initializer, regularizer) in self._rules.items():
            rules[f"{role}_initializer"] = initializers.config_of(initializer)
            rules[f"{role}_regularizer"] = regularizers.config_of(regularizer)
        own = {"dtype": self.dtype.name, "seed": self.seed, "name": self.name}
        return {**rules, **own, "trainable": self.trainable}

    def _rule(self, **roles: tuple[Any, Any]) -> None:
        """Take the options `..._initializer` and `..._regularizer` of each role of params."""
        for role, (initializer, regularizer) in roles.items():
            self._rules[role] = (
                initializers.get(f"{role}_initializer", initializer),
                regularizers.get(f"{role}_regularizer", regularizer),
            )

    # ---- what all of them share

    def __call__(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> Any:
        """Compute for inference.

        Parameters
        ----------
        x : array
            The input, batch first.
        mask : array of bool (B, T), optional
            False where a step is to be skipped.
        lengths : array of int (B,), optional
            How many steps of each row count, in any order; 0 is allowed.
        initial_state : array (B, H), optional
            The state before the first step, of recurrent layers; zeros by default.
        """
        return self.infer(x, mask, lengths, initial_state)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a layer from what `get_config` returned."""
        return cls(**config)

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self.input_shape is not None

    def build(self, input_shape: Shape, weights: dict[str, np.ndarray] | None = None) -> None:
        """Allocate the weights, unless they are there; called by the first use.

        Parameters
        ----------
        input_shape : tuple
            Shape of the input, batch first; None where a size does not matter.
        weights : dict of arrays, optional
            The params to begin with, instead of initial ones.
        """
        if self.built:
            return
        with self._building.now:
            if self.built:
                return
            input_shape = (None, *sizes("input_shape", input_shape, f"{self.name}: ")[1:])
            arrays = {}
            for name, shape in self.weight_shapes(input_shape).items():
                if weights is None:
                    values = self.initializer(name)(shape, self._random)
                else:
                    values = weights[name]
                arrays[name] = numbers(name, values, self.dtype)
                shape_of(name, arrays[name], shape, f"{self.name}: ")
            self._params.hold(arrays)
            self._grads.hold({name: np.zeros_like(a) for name, a in arrays.items()})
            # Last: who finds the layer built takes no lock.
            self.input_shape = input_shape

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The weights by name, once the layer is built; arrays that may be written to.

        ``params[name] = values`` copies values of the same shape into the array of that name.
        """
        # Who has seen these arrays may change them at any time without a word, so from now on the
        # weights are packed at every use.
        self._shared = True
        return self._params

    @property
    def grads(self) -> dict[str, np.ndarray]:
        """The gradients: same names and shapes as `params`."""
        return self._grads

    def weights(self) -> dict[str, np.ndarray]:
        """Return the params for reading, or for changes that `changed` is called after."""
        return self._params

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; if not, `backward` adds nothing to `grads`."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = boolean("trainable", value)

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the pairs of a param and its gradient that an optimizer works on."""
        if not self.trainable:
            return []
        return list(zip(self._params.values(), self._grads.values(), strict=True))

    @property
    def regularized(self) -> bool:
        """Whether there is a penalty: whether the size of weights that are trained costs."""
        return self.trainable and any(self.regularizer(n) is not None for n in self._params)

    def penalty(self, with_gradients: bool = False) -> float:
        """Return what the regularizers add to the loss: the cost of weights that are trained.

        Parameters
        ----------
        with_gradients : bool
            Whether to add the gradients of that to `grads`.
        """
        total = 0.0
        for name, param in self._params.items() if self.trainable else ():
            regularizer = self.regularizer(name)
            if regularizer is not None:
                total += regularizer.value(param)
                if with_gradients:
                    with self._adding.now:
                        gradient = self._grads[name]
                        gradient += regularizer.gradient(param)
        return total

    def reset_states(self) -> None:
        """Forget what batches have left behind, in a layer that is `stateful`."""

    def _dropout(self, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """Draw what a dropout multiplies: zeros, and what keeps the mean."""
        if not _drops.get():
            return np.ones(shape, self.dtype)
        keep = self._random.random(shape, np.float32) >= rate
        return keep * self.dtype.type(1 / (1 - rate))

    def changed(self) -> None:
        """Note that the weights have changed."""
        self._packed = {}

    def packed(self, kind: Any, pack: Callable[[Any], Any]) -> Any:
        """Return what `pack(kind)` makes of the weights, again only where they have changed.

        The kind is whether to pack for the backward pass, or a name.
        """
        if self._shared or _packs_anew.get():
            return pack(kind)
        # Taken before packing: weights that change meanwhile come with a new dict (`changed`), and
        # what was made of the old ones is dropped with this one.
        kept = self._packed
        if kind not in kept:
            kept[kind] = pack(kind)
        return kept[kind]

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights, in Keras' order and layout."""
        return [p.copy() for p in self._to_keras(self._params)]

    def get_gradients(self) -> list[np.ndarray]:
        """Return copies of the gradients, in the order and layout of `get_weights`."""
        return [g.copy() for g in self._to_keras(self._grads)]

    def set_weights(self, weights: list[Any]) -> None:
        """Set the weights from arrays in the order and layout of `get_weights`.

        Raises
        ------
        ValueError, TypeError
            If the layer is not built, or the number or a shape of the arrays does not fit; then
            no weight has changed.
        """
        self._must_be_built()
        weights = list_of_arrays("weights", weights, f"{self.name}: ")
        own = self._to_keras(self._params)
        if len(weights) != len(own):
            raise ValueError(
                f"{self.name}: weights: expected {len(own)} arrays, given {len(weights)}"
            )
        arrays = []
        for i, (mine, given) in enumerate(zip(own, weights, strict=True)):
            array = numbers(f"weights[{i}]", given, self.dtype)
            shape_of(f"weights[{i}]", array, mine.shape, f"{self.name}: ")
            arrays.append(array)
        self._params.update(self._from_keras(arrays))
        self.changed()

    def _to_keras(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(values.values())

    def _from_keras(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._params, arrays, strict=True))

    def zero_gradients(self) -> None:
        """Set all gradients to zero."""
        for gradient in self._grads.values():
            gradient[...] = 0

    def count_params(self) -> int:
        """Return the number of weights."""
        return sum(p.size for p in self._params.values())

    def _once(self) -> Callable[[], None]:
        """Return a check that a backward is called one time only."""
        called = False

        def check() -> None:
            nonlocal called
            if called:
                raise RuntimeError(
                    f"{self.name}: backward was called before; it may have used up what forward "
                    "kept. Call forward again."
                )
            called = True

        return check

    def __copy__(self) -> Any:
        """Return a deep copy: of two layers with the same arrays, neither would know when to pack.

        Each keeps packed weights, and the other one could change them without a word.
        """
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and other processes need, which is all but the packed weights."""
        return {**self.__dict__, "_packed": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` returned."""
        self.__dict__.update(state)
        # joblib hands large arrays over as read-only maps of files.
        self._params, self._grads = copy.copy(self._params), copy.copy(self._grads)

    def __repr__(self) -> str:
        """Return the class and the config."""
        options = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({options})"


class Embedding(Layer):
    """Turn integers into vectors: row i of a table for the integer i.

    Input (B, T) or any other shape, integers -> Output (..., output_dim).

    Parameters
    ----------
    input_dim : int
        Number of rows, V: the largest integer plus one.
    output_dim : int
        Length of a vector.
    mask_zero : bool
        Whether the integer 0 is padding: the layers that follow skip it.
    input_length : int, optional
        Number of steps T, when it is always the same; only summaries use it.
    embeddings_initializer, embeddings_regularizer
        What the table begins with and what its size costs, as in `Dense`; by default
        "random_uniform", and nothing.
    dtype, seed, name, trainable
        As in `Layer`.

    Raises
    ------
    ValueError
        If a size is not positive, or an integer is outside 0 ... input_dim - 1 at a step that is
        not masked.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        mask_zero: bool = False,
        input_length: int | None = None,
        *,
        embeddings_initializer: Any = "random_uniform",
        embeddings_regularizer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.input_dim = positive_int("input_dim", input_dim)
        self.output_dim = positive_int("output_dim", output_dim)
        self.mask_zero = boolean("mask_zero", mask_zero)
        self._rule(embeddings=(embeddings_initializer, embeddings_regularizer))
        self.input_length = (
            None if input_length is None else positive_int("input_length", input_length)
        )

    @property
    def known_input_shape(self) -> Shape:
        """The shape of any input: its sizes matter to no layer above."""
        return None, self.input_length

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "mask_zero": self.mask_zero,
            "input_length": self.input_length,
            **super().get_config(),
        }

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shape of the table."""
        return {"embeddings": (self.input_dim, self.output_dim)}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape and the length of a vector."""
        return (*input_shape, self.output_dim)

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
        """Return where the input is not padding, neither by the mask nor, with mask_zero, by 0."""
        if not self.mask_zero:
            return mask
        inside = np.asarray(x) != 0
        return inside if mask is None else inside & outer(mask, inside.ndim)

    def _integers(self, x: Any) -> np.ndarray:
        ids = array_of("x", x, f"{self.name}: ")
        if ids.dtype.kind == "f" and not np.all(ids == np.floor(ids)):
            raise TypeError(f"{self.name}: x: expected integers, given {ids.dtype} with fractions")
        if ids.dtype.kind == "b":
            raise TypeError(f"{self.name}: x: expected integers, given bool")
        return ids

    def _ids(self, x: Any) -> np.ndarray:
        ids = self._integers(x)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.input_dim:
            raise ValueError(
                f"{self.name}: x: expected integers from 0 to {self.input_dim - 1}, "
                f"given {ids.min()} to {ids.max()}"
            )
        return kernels.as_kernel_array(ids, np.int64)

    def _masked(self, x: Any, mask: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return ids with 0 at masked steps, whatever they are there, and the mask."""
        owner = f"{self.name}: "
        x = array_of("x", x, owner)
        if x.ndim < 2:
            shape_of("x", x, ("batch", "steps"), owner)
        mask = step_mask(mask, lengths, x.shape[0], x.shape[1], owner, x.shape[2:])
        return visible(x, mask), mask

    def check(self, x: np.ndarray) -> None:
        """Raise unless all are integers from 0 to input_dim - 1."""
        self._ids(x)

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step, with `batch_size` ids as its input."""
        n = self._streams(batch_size)
        ids, y = np.zeros(n, np.int64), np.zeros((n, self.output_dim), self.dtype)
        table = self._params["embeddings"]

        def run() -> None:
            kernels.embedding_forward(ids, table, out=y)
            if self.mask_zero and not ids.all():
                raise ValueError(f"{self.name}: x: 0 is padding; leave such a step out")

        return Stream(ids, y, run, convert=self._ids, owner=f"{self.name}: ")

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Look the vectors up; `backward` adds their gradients to the rows they came from."""
        if mask is not None or lengths is not None:
            x, mask = self._masked(x, mask, lengths)
        if type(x) is not np.ndarray or x.dtype is not INT64:  # the common case is one that is
            x = self._integers(x)
        ids = kernels.as_kernel_array(x, INT64)
        if not self.built:
            self.check(x)  # so that a first call that fails leaves nothing behind
            self.build(ids.shape)
        flat = ids.reshape(-1)
        try:
            y = kernels.embedding_forward(flat, self._params["embeddings"])
        except ValueError:
            self.check(x)  # which names the layer
            raise
        once = self._once()

        def backward(dy: Any, with_dx: bool = False) -> None:
            once()
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, (*ids.shape, self.output_dim), f"{self.name}: ")
            if not self.trainable:
                return
            if mask is not None:
                dy = visible(dy, mask)
            with self._adding.now:
                table = self._grads["embeddings"]
                kernels.embedding_backward(dy.reshape(flat.size, self.output_dim), flat, table)

        return y.reshape(*ids.shape, self.output_dim), backward


# The activations of `Dense` that are computed after the product, in a pass of their own.
APART = ("softmax", "gelu")


def activate(activation: str, a: np.ndarray, y: np.ndarray) -> None:
    """Write an activation of a to y; softmax is that of each row of the last axis."""
    if activation != "softmax":
        flat = (array.reshape(-1) for array in (a, y))
        kernels.perform(kernels.activation_forward, ACTIVATIONS.index(activation), *flat)
    elif a.size:
        K = a.shape[-1]
        kernels.softmax_forward(a.reshape(-1, K), y.reshape(-1, K))


def activation_gradient(
    activation: str, dy: np.ndarray, a: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return the gradient of the a whose activation is y."""
    da = np.empty_like(y)
    if activation != "softmax":
        flat = (array.reshape(-1) for array in (dy, a, y, da))
        kernels.perform(kernels.activation_backward, ACTIVATIONS.index(activation), *flat)
    elif a.size:
        kernels.softmax_backward(*(array.reshape(-1, a.shape[-1]) for array in (dy, y, da)))
    return da


class Dense(Layer):
    """Compute y = activation(x kernel + bias), at every step of a sequence alike.

    Input (..., K) -> Output (..., units).

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        linear, tanh, sigmoid, relu, softmax, hard_sigmoid, elu, selu, softplus or gelu.
    use_bias : bool
        Whether there is a bias.
    kernel_initializer, bias_initializer : str or callable
        What the weights begin with: a name in `fastgru.initializers.INITIALIZERS`, a `Constant`, or
        a function of a shape and a `numpy.random.Generator` (such a layer cannot be saved). By
        default "glorot_uniform" and "zeros".
    kernel_regularizer, bias_regularizer : str or L1L2, optional
        What the size of the weights costs: "l1", "l2", "l1_l2" or one of `fastgru.regularizers`.
    dtype, seed, name, trainable
        As in `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> Dense(2, activation="relu")(np.ones((3, 4))).shape
    (3, 2)
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        *,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.units = positive_int("units", units)
        self.activation = activation_name("activation", activation, (*ACTIVATIONS, "softmax"))
        self.use_bias = boolean("use_bias", use_bias)
        self._rule(
            kernel=(kernel_initializer, kernel_regularizer),
            bias=(bias_initializer, bias_regularizer),
        )

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        own = {"units": self.units, "activation": self.activation, "use_bias": self.use_bias}
        return {**own, **super().get_config()}

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return kernel (K, units) and bias (units,)."""
        K = input_shape[-1]
        if len(input_shape) < 2:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, ..., inputs), given {input_shape}"
            )
        if K is None or K < 1:
            raise ValueError(f"{self.name}: x: expected a last axis of 1 or more, given {K}")
        bias = {"bias": (self.units,)} if self.use_bias else {}
        return {"kernel": (K, self.units), **bias}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape with the last axis replaced."""
        return (*input_shape[:-1], self.units)

    def _pack(self, backward: bool) -> Any:
        bias = self._params.get("bias")
        if bias is None:
            bias = np.zeros(self.units, self.dtype)
        return kernels.pack_dense(self._params["kernel"], bias, backward=backward)

    def forward(
        self,
        x: Any,
        mask: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        *,
        logits: bool = False,
    ) -> tuple[np.ndarray, Backward]:
        """Compute y; with `logits`, what the activation would have been applied to.

        ``backward(dy, overwrite=True)`` takes `grads` for zeros, which is less work than to set
        them to zero before.
        """
        return self._compute(x, mask, lengths, "linear" if logits else self.activation, True)

    def infer(
        self, x: Any, mask: Any, lengths: Any, initial_state: Any, *, logits: bool = False
    ) -> np.ndarray:
        """Compute y; with `logits`, what the activation would have been applied to."""
        return self._compute(x, mask, lengths, "linear" if logits else self.activation, False)[0]

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function of one time step of `batch_size` streams: see `Layer.stream`."""
        n = self._streams(batch_size)
        weights = self.packed(False, self._pack)
        x, a = (np.zeros((n, k), self.dtype) for k in (weights.inputs, self.units))
        y, inside = (np.zeros_like(a), "linear") if self._is_apart else (a, self.activation)
        code = ACTIVATIONS.index(inside)

        def run() -> None:
            kernels.dense_forward(x, weights, code, out=a)
            if y is not a:
                activate(self.activation, a, y)

        compiled = None
        if y is a:
            arguments = x, weights.forward, code, a, 0, 1
            compiled = Compiled(kernels.dense_rows, arguments)
        return Stream(x, y, run, compiled=compiled, owner=f"{self.name}: ")

    @property
    def _is_apart(self) -> bool:
        """Whether the activation has a pass of its own."""
        return self.activation in APART

    @property
    def last_activation(self) -> str:
        """The activation."""
        return self.activation

    def _harmless(self, x: np.ndarray, mask: Any, lengths: Any) -> np.ndarray:
        """Return x, with zeros at masked steps if something there could reach a gradient."""
        if x.ndim < 3:
            return x  # which has no steps
        B, T, *inner = x.shape[:-1]
        mask = step_mask(mask, lengths, B, T, f"{self.name}: ", inner)
        hidden = x[~mask]
        # NaN times a gradient of 0 is NaN. So is inf - inf, which a product makes of numbers whose
        # squares are too large.
        return x if np.isfinite(np.vdot(hidden, hidden)) else visible(x, mask)

    def _compute(
        self, x: Any, mask: Any, lengths: Any, activation: str, training: bool
    ) -> tuple[np.ndarray, Backward]:
        x = numbers("x", x, self.dtype, f"{self.name}: ")
        if x.ndim < 2:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, ..., inputs), given {x.shape}"
            )
        if mask is not None or lengths is not None:
            x = self._harmless(x, mask, lengths)
        self.build(x.shape)
        K = self._params["kernel"].shape[0]
        if x.shape[-1] != K:
            shape_of("x", x, (*x.shape[:-1], K), f"{self.name}: ")
        rows = rows_of(x)
        weights = self.packed(training, self._pack)
        if activation in APART:
            a = kernels.dense_forward(rows, weights)
            y = self.activated(a)
        else:
            a = y = kernels.dense_forward(rows, weights, ACTIVATIONS.index(activation))
        once = self._once()

        def backward(dy: Any, with_dx: bool = True, overwrite: bool = False) -> np.ndarray | None:
            once()
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, (*x.shape[:-1], self.units), f"{self.name}: ")
            da = rows_of(dy)
            if activation != "linear":
                da = activation_gradient(activation, da, a, y)
            dbias = self._grads.get("bias")
            if dbias is None:
                dbias = np.zeros(self.units, self.dtype)
            with self._adding.now:
                dkernel = self._grads["kernel"] if self.trainable else None
                dx = kernels.dense_backward(
                    da, rows, weights, dkernel, dbias, with_dx=with_dx, overwrite=overwrite
                )
            return dx if dx is None or x is rows else dx.reshape(x.shape)

        return y if x is rows else y.reshape(*x.shape[:-1], self.units), backward


class Dropout(Layer):
    """Set a random share of the values to zero in training, and scale the others up.

    Input any shape -> Output the same shape. Inference passes everything on unchanged.

    Parameters
    ----------
    rate : float
        The share of values that are set to zero, in [0, 1).
    dtype, seed, name, trainable
        As in `Layer`.
    """

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.rate = fraction("rate", rate)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {"rate": self.rate, **super().get_config()}

    def infer(self, x: Any, mask: Any, lengths: Any, initial_state: Any) -> np.ndarray:
        """Return the input itself, where it has the layer's dtype."""
        x = np.asarray(array_of("x", x, f"{self.name}: "), self.dtype)
        self.build(x.shape)
        return x

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a function that gives back its input of `batch_size` rows."""
        n = self._streams(batch_size)
        x = np.zeros((n, (self.input_shape or (1,))[-1] or 1), self.dtype)
        return Stream(x, x, lambda: None, owner=f"{self.name}: ")

    def forward(
        self, x: Any, mask: Any = None, lengths: Any = None, initial_state: Any = None
    ) -> tuple[np.ndarray, Backward]:
        """Drop values; `backward` drops the same gradients."""
        x = self.infer(x, mask, lengths, initial_state)
        factor = self._dropout(self.rate, self._drawn(x.shape))

        def backward(dy: Any, with_dx: bool = True) -> np.ndarray:
            dy = numbers("dy", dy, self.dtype)
            shape_of("dy", dy, x.shape, f"{self.name}: ")
            return dy * factor

        return x * factor, backward

    def _drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what is drawn for an input; an axis of 1 shares its draws."""
        return shape
