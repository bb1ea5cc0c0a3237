"""Attention: a weighted average over the steps of a sequence, by learned weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastgru import initializers, kernels
from fastgru.layers import Backward, Layer, Shape
from fastgru.validation import numbers, one_of, positive_int, shape_of, step_mask, visible

SCORES = ("additive", "dot", "general")


class Memory(NamedTuple):
    """The values that queries look at, and what the scores need of them."""

    values: np.ndarray
    mask: np.ndarray | None
    keys: np.ndarray
    packed: dict[str, Any]


class Attention(Layer):
    """Average the steps of each sequence, by weights that the layer computes from them.

    Input (B, T, I), the values -> Output (B, I), or (B, S, I) for S queries to each sequence.

    ::

        y = sum over t of weights[t] values[t],   weights = softmax(scores) over the unmasked t

        "additive"   scores[t] = scale . tanh(values[t] kernel + query query_kernel + bias)
        "general"    scores[t] = (query query_kernel) . values[t]
        "dot"        scores[t] = query . values[t]

    Without a query, only ``"additive"`` can be used, without its middle term: it pools a sequence
    into one vector. Masked steps have weight 0, whatever they hold; where all steps are masked,
    weights and output are 0.

    Parameters
    ----------
    score : str
        ``"additive"``, ``"general"`` or ``"dot"``.
    units : int, optional
        Size of the hidden layer of ``"additive"``; by default that of the values, I.
    query_dim : int, optional
        Size of a query, Q; by default taken from the first call, where no query means that there
        never is one. For ``"dot"`` it is I.
    return_weights : bool
        Whether to return ``[y, weights]``, weights (B, T), or (B, S, T) for S queries.
    dtype, seed, name
        As in `Layer`.

    Raises
    ------
    ValueError, TypeError
        If an option or an input does not fit; the message says what was expected.

    Examples
    --------
    >>> import numpy as np
    >>> values, query = np.zeros((2, 5, 3)), np.zeros((2, 4, 6))
    >>> Attention()(values).shape
    (2, 3)
    >>> y, weights = Attention("general", return_weights=True)(values, query=query)
    >>> y.shape, weights.shape
    ((2, 4, 3), (2, 4, 5))

    Notes
    -----
    "additive" is Bahdanau et al. 2015, arXiv:1409.0473, and without a query Yang et al. 2016,
    "Hierarchical attention networks for document classification"; "general" and "dot" are Luong et
    al. 2015, arXiv:1508.04025. In a `Sequential` there is no query; with `return_weights`,
    ``predict(x, return_states=True)`` returns the weights.
    """

    def __init__(
        self,
        score: str = "additive",
        units: int | None = None,
        query_dim: int | None = None,
        return_weights: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.score = one_of("score", score, SCORES)
        self.units = None if units is None else positive_int("units", units)
        self.query_dim = None if query_dim is None else positive_int("query_dim", query_dim)
        self.return_weights = bool(return_weights)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        names = ("score", "units", "query_dim", "return_weights")
        return {**{name: getattr(self, name) for name in names}, **super().get_config()}

    def weight_shapes(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shapes of those of kernel, query_kernel, bias and scale that there are."""
        I, Q = input_shape[-1], self.query_dim
        if len(input_shape) != 3 or I is None or I < 1:
            raise ValueError(
                f"{self.name}: x: expected shape (batch, steps, inputs), given {input_shape}"
            )
        if self.score == "dot":
            return {}
        if self.score == "general":
            if Q is None:
                raise ValueError(
                    f"{self.name}: query_dim: expected a positive integer for a layer that is "
                    "built before it has seen a query, given None"
                )
            return {"query_kernel": (Q, I)}
        U = self.units or I
        query_kernel = {} if Q is None else {"query_kernel": (Q, U)}
        return {"kernel": (I, U), **query_kernel, "bias": (U,), "scale": (U,)}

    def initializer(self, name: str) -> Callable[..., np.ndarray]:
        """Return the initializer of one param."""
        if name == "scale":  # a kernel of one column
            return lambda shape, random: initializers.glorot_uniform((*shape, 1), random)[:, 0]
        return super().initializer(name)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output for one query or none."""
        return input_shape[0], input_shape[-1]

    def output_mask(self, x: np.ndarray, mask: np.ndarray | None) -> None:
        """Return None: the steps of the values are no steps of the output."""

    # ---- the passes

    def _pack(self, backward: bool) -> dict[str, Any]:
        """Return the matrices as the kernels want them, by their names."""
        packed = {}
        for name in ("kernel", "query_kernel"):
            matrix = self._params.get(name)
            if matrix is not None:
                bias = self._params["bias"] if name == "kernel" else self._no_bias(matrix)
                packed[name] = kernels.pack_dense(matrix, bias, backward=backward)
        return packed

    def _no_bias(self, matrix: np.ndarray) -> np.ndarray:
        return np.zeros(matrix.shape[1], self.dtype)

    def _query(self, query: Any) -> np.ndarray | None:
        """Return a query (B, Q) or (B, S, Q) as it is, or raise."""
        if query is None:
            return None
        query = numbers("query", query, self.dtype)
        if query.ndim not in (2, 3):
            raise ValueError(
                f"{self.name}: query: expected shape (batch, inputs) or (batch, queries, inputs), "
                f"given {query.shape}"
            )
        return query

    def _memory(self, x: Any, mask: Any, lengths: Any, query: Any, backward: bool) -> Memory:
        """Return the values x as queries need them, in a layer that is built for these."""
        owner = f"{self.name}: "
        x = numbers("x", x, self.dtype, owner)
        shape_of("x", x, ("batch", "steps", "inputs"), owner)
        mask = step_mask(mask, lengths, x.shape[0], x.shape[1], owner)
        if not self.built and query is not None and self.score != "dot" and self.query_dim is None:
            self.query_dim = query.shape[-1]
        self.build(x.shape)
        inputs = self.input_shape[-1]  # type: ignore[index]
        shape_of("x", x, ("batch", "steps", inputs), owner)
        x, packed = visible(x, mask), self.packed(backward, self._pack)
        keys = _product(x, packed["kernel"]) if self.score == "additive" else x
        return Memory(x, mask, keys, packed)

    def _projected(self, query: np.ndarray | None, memory: Memory) -> np.ndarray:
        """Return the queries (B, S, ...) as they are compared with the keys, or raise."""
        B, _, inputs = memory.values.shape
        dim = inputs if self.score == "dot" else self.query_dim
        if dim is None:
            if query is not None:
                raise ValueError(
                    f"{self.name}: query: expected none, since the layer was built without "
                    f"query_dim, given shape {query.shape}"
                )
            return np.zeros((B, 1, memory.keys.shape[2]), self.dtype)
        if query is None:
            raise ValueError(
                f"{self.name}: query: expected shape ({B}, {dim}) or ({B}, queries, {dim}), "
                "given None"
            )
        shape_of("query", query, (B, *["queries"] * (query.ndim - 2), dim), f"{self.name}: ")
        query = _three(query)
        return query if self.score == "dot" else _product(query, memory.packed["query_kernel"])

    def _attend(self, memory: Memory, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the output (B, S, I) and the weights (B, S, T)."""
        if self.score == "additive":
            scale = self._params["scale"]
            scores = kernels.additive_scores_forward(projected, memory.keys, scale)
        else:
            scores = kernels.dot_scores_forward(projected, memory.keys)
        return kernels.attend_forward(scores, memory.values, memory.mask)

    def _output(self, query: np.ndarray | None, y: np.ndarray, weights: np.ndarray) -> Any:
        """Return what the caller gets, without the axis of queries where there was none."""
        if query is None or query.ndim == 2:
            y, weights = y[:, 0], weights[:, 0]
        return [y, weights] if self.return_weights else y

    def over(self, x: Any, mask: Any = None, lengths: Any = None) -> Callable[..., Any]:
        """Return a function of queries to the same values, for inference.

        What is made of the values for the scores is made once, as a decoder wants it that asks one
        query at a time. The function works with the weights of now.

        Parameters
        ----------
        x : array (B, T, I)
            The values.
        mask, lengths
            As in a call of the layer.

        Returns
        -------
        callable
            ``attend(query)`` gives what ``layer(x, mask, lengths, query=query)`` gives.
        """
        memory = self._memory(x, mask, lengths, None, False)

        def attend(query: Any = None) -> Any:
            query = self._query(query)
            return self._output(query, *self._attend(memory, self._projected(query, memory)))

        return attend

    def weights_of(self, x: Any, mask: Any = None, lengths: Any = None) -> np.ndarray:
        """Return the weights (B, T) by which it pools values without a query.

        Parameters
        ----------
        x : array (B, T, I)
            The values.
        mask, lengths
            As in a call of the layer.
        """
        memory = self._memory(x, mask, lengths, None, False)
        return self._attend(memory, self._projected(None, memory))[1][:, 0]

    def __call__(
        self,
        x: Any,
        mask: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        query: Any = None,
    ) -> Any:
        """Compute for inference.

        Parameters
        ----------
        x : array (B, T, I)
            The values.
        mask : array of bool (B, T), optional
            False where a value is to be skipped.
        lengths : array of int (B,), optional
            How many values of each row count, in any order; 0 is allowed.
        initial_state
            Not used.
        query : array (B, Q) or (B, S, Q), optional
            What the values are looked at for: one query for each row, or S.
        """
        query = self._query(query)
        memory = self._memory(x, mask, lengths, query, False)
        return self._output(query, *self._attend(memory, self._projected(query, memory)))

    def forward(
        self,
        x: Any,
        mask: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        query: Any = None,
    ) -> tuple[Any, Backward]:
        """Compute for training.

        Returns the output and ``backward(dy, dweights=None)``, which gives dx, or ``(dx, dquery)``
        when a query was given; `dweights` is the gradient of the weights, for `return_weights`.
        """
        query = self._query(query)
        memory = self._memory(x, mask, lengths, query, True)
        projected = self._projected(query, memory)
        y, weights = self._attend(memory, projected)
        output = self._output(query, y, weights)
        once = self._once()

        def gradient(name: str, given: Any, of: np.ndarray) -> np.ndarray:
            if given is None:
                return np.zeros_like(of)
            single = query is None or query.ndim == 2
            given = numbers(name, given, self.dtype)
            shape_of(name, given, (of[:, 0] if single else of).shape, f"{self.name}: ")
            return given.reshape(of.shape)

        def backward(dy: Any, dweights: Any = None, with_dx: bool = True) -> Any:
            once()
            # [weights], as the states of other layers come
            dweights = dweights[0] if isinstance(dweights, (list, tuple)) else dweights
            dy, dweights = gradient("dy", dy, y), gradient("dweights", dweights, weights)
            values, mask, keys, packed = memory
            dscores, dx = kernels.attend_backward(dy, dweights, weights, values, mask)
            with self._adding.now:
                grads = self._grads
                if self.score == "additive":
                    scores = dscores, projected, keys, self._params["scale"], grads["scale"]
                    dprojected, dkeys = kernels.additive_scores_backward(*scores)
                    back = packed["kernel"], grads["kernel"], grads["bias"], with_dx
                    dvalues = _product_backward(dkeys, values, *back)
                    if dvalues is not None:
                        dx += dvalues
                else:
                    dprojected = kernels.dot_scores_backward(dscores, projected, keys, dx)
                if query is None:
                    return dx if with_dx else None
                dquery = dprojected
                if self.score != "dot":
                    matrix = grads["query_kernel"]
                    back = packed["query_kernel"], matrix, self._no_bias(matrix), True
                    dquery = _product_backward(dprojected, _three(query), *back)
            return (dx if with_dx else None), dquery.reshape(query.shape)

        return output, backward


def _three(query: np.ndarray) -> np.ndarray:
    """Return queries with the axis of queries."""
    return query[:, None] if query.ndim == 2 else query


def _rows(x: np.ndarray) -> np.ndarray:
    """Return the rows of all steps, one behind the other."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


def _product(x: np.ndarray, weights: Any) -> np.ndarray:
    """Return x (B, n, K) times a packed matrix, plus its bias."""
    return kernels.dense_forward(_rows(x), weights).reshape(*x.shape[:2], weights.units)


def _product_backward(dy: np.ndarray, x: np.ndarray, weights: Any, *into: Any) -> Any:
    """Return dx, or None, and add to the gradients of matrix and bias; see `_product`."""
    *gradients, with_dx = into
    dx = kernels.dense_backward(_rows(dy), _rows(x), weights, *gradients, with_dx=with_dx)
    return None if dx is None else dx.reshape(x.shape)
