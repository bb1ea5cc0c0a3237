"""The table of kernels: each row names a kernel, its twin in `fastgru.reference` and their sizes.

To test a new kernel, write one `build` of random arguments, the two adapters `forward` and
`backward`, their twins, and add a row to CASES; every check of `checks.py` for which the row has
the needed parts then runs. What the parts look like:

build(rng, sizes)            -> arguments: {name: array or None}. Values are float64, `Case` casts
                                them; ids and masks keep their dtype. All sizes are different.
forward(a, options)          -> outputs {name: array}, and whatever `backward` needs
backward(a, kept, d, into, options)
                             -> gradients {argument: array}. `d` holds the gradients of the
                                outputs. Those of `params` are added to the arrays in `into`.
twin_forward(a, options)     -> outputs
twin_backward(a, d, options) -> gradients, of params too
fenced(fence, a, d, options, workers)
                             -> outputs and gradients in one dict, made by the serial workers in
                                arrays from `fence.put` and `fence.empty`

A kernel without a gradient leaves out `backward` and `twin_backward`. A kernel over sequences
(`sequence=True`) has arguments x (B, T, I), mask and h0, outputs y and h_last (c0 and c_last, too,
if it has a second state), and a forward that also takes return_sequences and keep. A recurrent cell
is a `Cell` and its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastgru import reference
from fastgru.kernels import (
    attention,
    dense,
    embedding,
    gru,
    lstm,
    normalization,
    packing,
    pooling,
    recurrence,
    simple_rnn,
)
from fastgru.kernels.activations import activation_backward, activation_forward
from fastgru.kernels.arrays import none_of
from fastgru.kernels.gemm import padded
from fastgru.kernels.names import ACTIVATIONS
from fastgru.kernels.relay import ALONE


@dataclass(frozen=True)
class Case:
    """One kernel, its twin, and how to make arguments for both; see the module."""

    name: str
    sizes: dict[str, int]
    build: Callable[..., dict[str, Any]]
    forward: Callable[..., tuple[dict[str, np.ndarray], Any]]
    twin_forward: Callable[..., dict[str, np.ndarray]]
    backward: Callable[..., dict[str, np.ndarray]] | None = None
    twin_backward: Callable[..., dict[str, np.ndarray]] | None = None
    fenced: Callable[..., dict[str, np.ndarray]] | None = None
    dtype: Any = np.float32
    options: dict[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()  # arguments (and their gradients) whose first axis is the batch
    params: tuple[str, ...] = ()  # arguments whose gradients are added to
    sequence: bool = False
    cell: Cell | None = None
    bounded: bool = True  # whether values stay of order 1 over many steps
    terms: Callable[..., int] = lambda **sizes: 1  # products summed for one number, for tolerances

    def has(self, part: str) -> bool:
        """Return whether a check that needs this part can run."""
        if part == "masked":
            return bool(self.options.get("masked"))
        return bool(getattr(self, part))

    def at(self, **sizes: int) -> Case:
        """Return the same case with other sizes."""
        return replace(self, sizes=self.sizes | sizes)

    def arguments(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return random arguments in the dtype of the case."""
        return cast(self.build(rng, self.sizes, **self.options), self.dtype)

    def gradients(self, rng: np.random.Generator, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return random gradients of the outputs."""
        return cast({k: rng.normal(size=v.shape) for k, v in outputs.items()}, self.dtype)

    def example(self, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return random arguments, and gradients of the outputs that belong to them."""
        a = self.arguments(rng)
        return a, self.gradients(rng, self.twin_forward(cast(a, np.float64), self.options))

    def run(self, a, d, into=None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run the kernel forward and, if it can, backward: outputs, gradients."""
        outputs, kept = self.forward(a, self.options)
        if not self.backward:
            return outputs, {}
        into = {k: np.zeros_like(a[k]) for k in self.params} if into is None else into
        return outputs, self.backward(a, kept, d, into, self.options) | into

    def twin(self, a, d) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Run the reference in float64: outputs, gradients."""
        a, d = cast(a, np.float64), cast(d, np.float64)
        outputs = self.twin_forward(a, self.options)
        return outputs, self.twin_backward(a, d, self.options) if self.twin_backward else {}


def cast(arrays: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Cast the floats among some arrays."""
    return {
        k: np.ascontiguousarray(v, dtype) if v is not None and v.dtype.kind == "f" else v
        for k, v in arrays.items()
    }


# ---- recurrent cells


class Cell(NamedTuple):
    """A recurrent cell: its functions are `name`_forward and so on, in `module` and the twin."""

    name: str
    module: Any
    gates: int
    params: tuple[str, ...]
    states: tuple[str, ...] = ("h",)
    kept: tuple[str, ...] = ("y", "gates")  # what forward returns and backward takes
    twin_kept: tuple[str, ...] = ("y", "gates")

    def call(self, module, verb, *arguments, **options):
        """Call `name`_verb of a module."""
        return getattr(module, f"{self.name}_{verb}")(*arguments, **options)

    def pack(self, a, options, backward=True):
        """Pack the params among some arguments."""
        reset = {k: options[k] for k in ("reset_after",) if k in options}
        function = getattr(self.module, f"pack_{self.name}")
        return function(*(a[k] for k in self.params), **reset, backward=backward)

    def initial(self, a):
        """Return the initial states among some arguments."""
        return [a[f"{k}0"] for k in self.states]

    def outputs(self, a, kept):
        """Return y and the last state of each kind."""
        sequences = {"h": kept["y"], "c": kept.get("c")}
        last = {f"{k}_last": last_state(sequences[k], a[f"{k}0"]) for k in self.states}
        return {"y": kept["y"], **last}


GRU_PARAMS = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
GRU = Cell("gru", gru, 3, GRU_PARAMS)
LSTM = Cell("lstm", lstm, 4, GRU_PARAMS[:3], ("h", "c"), ("y", "c", "gates"), ("y", "c", "gates"))
SIMPLE_RNN = Cell("simple_rnn", simple_rnn, 1, GRU_PARAMS[:3], twin_kept=("y",))

# Activations whose slope follows from their value.
SLOPED = tuple(name for name in ACTIVATIONS if name != "gelu")


def recurrent_arguments(cell, rng, sizes, masked, dropped=False):
    B, T, I, H = (sizes[k] for k in "BTIH")
    N = cell.gates * H
    # A leading gap and a hole in row 0, holes in the others; the last row has length 0.
    mask = (np.arange(T) + np.arange(B)[:, None]) % 3 != 0
    if B > 1:
        mask[-1] = False
    return {
        "x": rng.normal(size=(B, T, I)),
        "mask": mask if masked else None,
        "drop": 2.0 * rng.integers(0, 2, (B, H)) if dropped else None,
        **{f"{k}0": rng.normal(size=(B, H)) for k in cell.states},
        # Small enough that activations without bounds do not let the state grow.
        "kernel": rng.normal(size=(I, N)) / np.sqrt(8 * I),
        "recurrent_kernel": rng.normal(size=(H, N)) / np.sqrt(8 * H),
        **{k: rng.normal(size=N) / 4 for k in cell.params[2:]},
    }


def codes(options):
    """Return the keyword arguments of a forward and a backward function."""
    roles = {k: ACTIVATIONS.index(v) for k, v in options.items() if "activation" in k}
    flags = {k: options[k] for k in ("go_backwards", "with_dx") if k in options}
    return flags | roles


def last_state(y, h0):
    return y[:, -1] if y.shape[1] else h0


def recurrent_fenced(cell, fence, a, d, options, workers):
    """Run the workers of a cell in turn, the last first: for training, then for inference."""
    B, T, H = d["y"].shape
    x, dy = fence.put(a["x"]), fence.put(d["y"])
    mask = recurrence.NO_MASK if a["mask"] is None else fence.put(a["mask"])
    params = {k: fence.put(a[k]) for k in cell.params}
    biases = [*(params[k] for k in cell.params[2:]), none_of(x.dtype, 1)][:2]
    matrices = params["kernel"], params["recurrent_kernel"]
    packed = cell.pack(params, options)
    kind = packed.apart, packed.held
    there, back = (fence.empty(p.shape, p.dtype) for p in (packed.forward, packed.backward))
    initial = [fence.put(v) for v in cell.initial(a)]

    def states(*shape):
        return [fence.empty(shape, x.dtype) for _ in cell.states]

    def both(some):  # what a cell without c has in its place
        return [*some, None][:2]

    (y, c), (last, c_last) = both(states(B, T, H)), both(states(B, 1, H))
    slots = cell.module.SLOTS
    gates, nothing = fence.empty((B, T, slots, H), x.dtype), fence.empty((0, 0, slots, H), x.dtype)
    dx = fence.empty(x.shape, x.dtype)
    dstates = [fence.put(d[f"{k}_last"], out=True) for k in cell.states]
    into = {k: fence.put(np.zeros_like(v), out=True) for k, v in params.items()}
    dbiases = [*(into[k] for k in cell.params[2:]), none_of(x.dtype, 1)][:2]
    roles = codes(options)
    roles = roles.get("recurrent_activation", 0), roles["activation"]
    rest = none_of(x.dtype, 1), ALONE, packed.held or None, options["go_backwards"], *roles
    h0, c0 = both(initial)
    drop = None if a["drop"] is None else fence.put(a["drop"])
    shares = [(i, workers) for i in reversed(range(workers))]
    for share in shares:
        packing.pack_forward(*matrices, *biases, *kind, there, *share)
        packing.pack_backward(*matrices, *kind, back, *share)
    for share in shares:
        for outputs in ((y, c, gates), (last, c_last, nothing)):
            arguments = x, mask, h0, c0, drop, there, *outputs, *rest, *share
            cell.call(cell.module, "forward_rows", *arguments)
    for share in shares:
        arguments = dy, *both(dstates), mask, h0, c0, drop, back, y, c, gates, dx, *rest, *share
        cell.call(cell.module, "backward_rows", *arguments)
    h0, y_seen = (h0, y) if drop is None else (h0 * drop, y * drop[:, None])
    for share in shares:
        gradients = into["kernel"], into["recurrent_kernel"], *dbiases
        recurrence.recurrent_backward_columns(
            x, mask, h0, y_seen, gates, *gradients, False, *kind, options["go_backwards"], *share
        )
    ends = {k: v[:, 0] for k, v in {"h_last": last, "c_last": c_last}.items() if v is not None}
    dinitial = {f"{k}0": v for k, v in zip(cell.states, dstates, strict=True)}
    return {"y": y, **ends, "x": dx, **dinitial, **into}


def recurrent_case(cell, words, dtype, masked=False, dropped=False, **options):
    """Return the row of one kind of a cell; `options` are those of its functions."""

    def forward(a, options, return_sequences=True, keep=True):
        weights = cell.pack(a, options, keep)
        results = cell.call(
            cell.module, "forward", a["x"], a["mask"], *cell.initial(a), weights,
            return_sequences=return_sequences, keep=keep, drop=a["drop"], **codes(options),
        )  # fmt: skip
        return cell.outputs(a, dict(zip(cell.kept, results, strict=True))), (weights, *results)

    def backward(a, kept, d, into, options):
        dlast = [d[f"{k}_last"] for k in cell.states]
        dx, *dinitial = cell.call(
            cell.module, "backward", d["y"], *dlast, a["x"], a["mask"], *cell.initial(a), *kept,
            tuple(into[k] for k in cell.params), drop=a["drop"], **codes(options),
        )  # fmt: skip
        return {"x": dx} | {f"{k}0": v for k, v in zip(cell.states, dinitial, strict=True)}

    def twin(a, options):
        named = {k: v for k, v in options.items() if k not in ("masked", "dropped")}
        results = cell.call(reference, "forward", **a, **named)
        results = results if isinstance(results, tuple) else (results,)
        return dict(zip(cell.twin_kept, results, strict=True)), named

    def twin_backward(a, d, options):
        kept, named = twin(a, options)
        dlast = [d[f"{k}_last"] for k in cell.states]
        gradients = cell.call(reference, "backward", d["y"], *dlast, **a, **kept, **named)
        names = "x", *(f"{k}0" for k in cell.states), *cell.params
        return dict(zip(names, gradients, strict=True))

    activations = options["activation"], options.get("recurrent_activation", DEFAULT[1])
    usual = activations == DEFAULT
    words = [
        *[cell.name, *words],
        *["backwards"] * options["go_backwards"],
        *["masked"] * masked,
        *["dropped"] * dropped,
        *[v for k, v in options.items() if "activation" in k and not usual],
        np.dtype(dtype).name,
    ]
    return Case(
        "-".join(words),
        {"B": 3, "T": 5, "I": 4, "H": 7},
        lambda rng, sizes, masked, dropped, **_: recurrent_arguments(
            cell, rng, sizes, masked, dropped
        ),
        forward,
        lambda a, options: cell.outputs(a, twin(a, options)[0]),
        backward,
        twin_backward,
        lambda *arguments: recurrent_fenced(cell, *arguments),
        dtype,
        {**options, "masked": masked, "dropped": dropped},
        rows=("x", "mask", "drop", *(f"{k}0" for k in cell.states)),
        params=cell.params,
        sequence=True,
        cell=cell,
        bounded=usual,
        terms=lambda B, T, I, H: (T + 1) * (B + I + H),
    )


DEFAULT = ("tanh", "sigmoid")
# Each activation once as the candidate's and once as the gates'.
ACTIVATION_PAIRS = tuple(zip(SLOPED, SLOPED[3:] + SLOPED, strict=False))
DTYPES = np.float32, np.float64


def gru_case(
    reset_after=True,
    go_backwards=False,
    masked=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    dtype=np.float32,
    dropped=False,
):
    """Return the row of one kind of GRU."""
    return recurrent_case(
        GRU, ["after" if reset_after else "before"], dtype, masked, dropped,
        reset_after=reset_after, go_backwards=go_backwards, activation=activation,
        recurrent_activation=recurrent_activation,
    )  # fmt: skip


def lstm_case(
    go_backwards=False,
    masked=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    dtype=np.float32,
    dropped=False,
):
    """Return the row of one kind of LSTM."""
    return recurrent_case(
        LSTM, [], dtype, masked, dropped, go_backwards=go_backwards, activation=activation,
        recurrent_activation=recurrent_activation,
    )  # fmt: skip


def simple_rnn_case(
    go_backwards=False, masked=False, activation="tanh", dtype=np.float32, dropped=False
):
    """Return the row of one kind of simple recurrent network."""
    return recurrent_case(
        SIMPLE_RNN, [], dtype, masked, dropped, go_backwards=go_backwards, activation=activation
    )


GRU_CASES = [
    gru_case(*flags, dtype=dtype)
    for *flags, dtype in itertools.product(*[(True, False)] * 3, DTYPES)
] + [
    gru_case(reset_after, go_backwards, True, *pair, dtype)
    for pair in ACTIVATION_PAIRS
    for reset_after, go_backwards in ((True, False), (False, True))
    for dtype in DTYPES
]

LSTM_CASES = [
    lstm_case(*flags, dtype=dtype)
    for *flags, dtype in itertools.product(*[(True, False)] * 2, DTYPES)
] + [lstm_case(False, True, *pair, dtype) for pair in ACTIVATION_PAIRS for dtype in DTYPES]

SIMPLE_RNN_CASES = [
    simple_rnn_case(*flags, dtype=dtype)
    for *flags, dtype in itertools.product(*[(True, False)] * 2, DTYPES)
] + [
    simple_rnn_case(False, True, name, dtype)
    for name in SLOPED
    if name != DEFAULT[0]
    for dtype in DTYPES
]

DROPPED_CASES = [
    case(*flags, True, dropped=True, dtype=dtype)
    for case, *flags in (
        (gru_case, True, False),
        (gru_case, False, True),
        (lstm_case, False),
        (simple_rnn_case, True),
    )
    for dtype in DTYPES
]

RECURRENT_CASES = GRU_CASES + LSTM_CASES + SIMPLE_RNN_CASES + DROPPED_CASES


# ---- dense layers

DENSE_PARAMS = ("kernel", "bias")


def dense_case(activation, dtype):
    """Return the row of a dense layer with one activation."""
    code = ACTIVATIONS.index(activation)

    def build(rng, sizes):
        B, K, N = (sizes[k] for k in "BKN")
        kernel = rng.normal(size=(K, N)) / np.sqrt(K)
        return {"x": rng.normal(size=(B, K)), "kernel": kernel, "bias": rng.normal(size=N)}

    def pre_activation(dy, y, da):
        activation_backward(code, dy.reshape(-1), y.reshape(-1), y.reshape(-1), da.reshape(-1))
        return da

    def forward(a, options):
        weights = packing.pack_dense(a["kernel"], a["bias"], backward=True)
        y = dense.dense_forward(a["x"], weights, code)
        return {"y": y}, (weights, y)

    def backward(a, kept, d, into, options):
        weights, y = kept
        da = pre_activation(d["y"], y, np.empty_like(y))
        return {"x": dense.dense_backward(da, a["x"], weights, into["kernel"], into["bias"])}

    def fenced(fence, a, d, options, workers):
        x, dy = fence.put(a["x"]), fence.put(d["y"])
        params = [fence.put(a[k]) for k in DENSE_PARAMS]
        packed = packing.pack_dense(*params, backward=True)
        there, back = (fence.empty(p.shape, p.dtype) for p in (packed.forward, packed.backward))
        y, dx = fence.empty(dy.shape, dy.dtype), fence.empty(x.shape, x.dtype)
        into = [fence.put(np.zeros_like(p), out=True) for p in params]
        kernel, bias = params
        none = fence.empty((0, kernel.shape[1]), x.dtype)
        zeros = back[: padded(kernel.shape[0], x.dtype)]
        zeros[:] = 0
        shares = [(i, workers) for i in reversed(range(workers))]
        for share in shares:
            packing.pack_forward(kernel, none, bias, none_of(x.dtype, 1), 0, False, there, *share)
            packing.pack_backward(kernel, none, 0, False, back[zeros.size :], *share)
        for share in shares:
            dense.dense_rows(x, there, code, y, *share)
        da = pre_activation(dy, y, fence.empty(dy.shape, dy.dtype))
        for share in shares:
            dense.dense_rows(da, back, 0, dx, *share)
            dense.dense_backward_columns(x, da, *into, False, *share)
        return {"y": y, "x": dx, **dict(zip(DENSE_PARAMS, into, strict=True))}

    def twin_backward(a, d, options):
        gradients = reference.dense_backward(d["y"], **a, activation=activation)
        return dict(zip(("x", *DENSE_PARAMS), gradients, strict=True))

    return Case(
        f"dense-{activation}-{np.dtype(dtype).name}",
        {"B": 3, "K": 4, "N": 7},
        build,
        forward,
        lambda a, options: {"y": reference.dense(**a, activation=activation)},
        backward,
        twin_backward,
        fenced,
        dtype,
        rows=("x",),
        params=DENSE_PARAMS,
        terms=lambda B, K, N: B + K + N,
    )


DENSE_CASES = [
    dense_case(activation, dtype)
    for activation in ("linear", "tanh")
    for dtype in (np.float32, np.float64)
]


# ---- embeddings


def embedding_case(dtype):
    """Return the row of the embedding."""

    def build(rng, sizes):
        B, V, E = (sizes[k] for k in "BVE")
        return {"ids": rng.integers(0, V, B), "table": rng.normal(size=(V, E))}

    def backward(a, kept, d, into, options):
        embedding.embedding_backward(d["y"], a["ids"], into["table"])
        return {}

    def fenced(fence, a, d, options, workers):
        ids, table, dy = fence.put(a["ids"]), fence.put(a["table"]), fence.put(d["y"])
        y, dtable = fence.empty(dy.shape, dy.dtype), fence.put(np.zeros_like(table), out=True)
        embedding.embedding_rows(ids, table, y)
        for worker in reversed(range(workers)):
            embedding.embedding_add(ids, dy, dtable, worker, workers)
        return {"y": y, "table": dtable}

    return Case(
        f"embedding-{np.dtype(dtype).name}",
        {"B": 11, "V": 5, "E": 4},
        build,
        lambda a, options: ({"y": embedding.embedding_forward(a["ids"], a["table"])}, None),
        lambda a, options: {"y": reference.embedding(a["ids"], a["table"])},
        backward,
        lambda a, d, options: {"table": reference.embedding_backward(d["y"], **a)},
        fenced,
        dtype,
        rows=("ids",),
        params=("table",),
        terms=lambda B, V, E: B,
    )


def bag_case(dtype):
    """Return the row of the sums of embeddings."""

    def build(rng, sizes):
        B, V, E, K = (sizes[k] for k in "BVEK")
        return {"ids": rng.integers(0, V, (B, K)), "table": rng.normal(size=(V, E))}

    def backward(a, kept, d, into, options):
        embedding.bag_backward(d["y"], a["ids"], into["table"])
        return {}

    def fenced(fence, a, d, options, workers):
        ids, table, dy = fence.put(a["ids"]), fence.put(a["table"]), fence.put(d["y"])
        y, dtable = fence.empty(dy.shape, dy.dtype), fence.put(np.zeros_like(table), out=True)
        for worker in reversed(range(workers)):
            embedding.bag_rows(ids, table, y, worker, workers)
            embedding.bag_add(ids, dy, dtable, worker, workers)
        return {"y": y, "table": dtable}

    return Case(
        f"bag-{np.dtype(dtype).name}",
        {"B": 11, "V": 5, "E": 4, "K": 3},
        build,
        lambda a, options: ({"y": embedding.bag_forward(a["ids"], a["table"])}, None),
        lambda a, options: {"y": reference.bag(a["ids"], a["table"])},
        backward,
        lambda a, d, options: {"table": reference.bag_backward(d["y"], **a)},
        fenced,
        dtype,
        rows=("ids",),
        params=("table",),
        terms=lambda B, V, E, K: B * K,
    )


EMBEDDING_CASES = [
    case(dtype) for case in (embedding_case, bag_case) for dtype in (np.float32, np.float64)
]


# ---- elementwise activations


def activation_case(name, dtype):
    """Return the row of one elementwise activation."""
    code, (function, derivative) = ACTIVATIONS.index(name), reference.ACTIVATIONS[name]

    def forward(a, options):
        y = np.empty_like(a["x"])
        activation_forward(code, a["x"], y)
        return {"y": y}, y

    def backward(a, y, d, into, options):
        dx = np.empty_like(y)
        activation_backward(code, d["y"], a["x"], y, dx)
        return {"x": dx}

    def fenced(fence, a, d, options, workers):
        x, dy = fence.put(a["x"]), fence.put(d["y"])
        y, dx = fence.empty(x.shape, x.dtype), fence.empty(x.shape, x.dtype)
        activation_forward(code, x, y)
        activation_backward(code, dy, x, y, dx)
        return {"y": y, "x": dx}

    return Case(
        f"{name}-{np.dtype(dtype).name}",
        {"N": 37},
        lambda rng, sizes: {"x": 3 * rng.normal(size=sizes["N"])},
        forward,
        lambda a, options: {"y": function(a["x"])},
        backward,
        lambda a, d, options: {"x": d["y"] * derivative(a["x"], function(a["x"]))},
        fenced,
        dtype,
        rows=("x",),
        terms=lambda N: 4,  # ulp that an elementary function may be off
    )


ACTIVATION_CASES = [
    activation_case(name, dtype) for name in ACTIVATIONS for dtype in (np.float32, np.float64)
]


# ---- attention, pooling and normalization


def shares(worker, workers, *arguments):
    """Run the shares of a serial worker, the last first."""
    for i in reversed(range(workers)):
        worker(*arguments, i, workers)


def holes(B, T):
    """Return a mask with a leading gap, holes, and a last row without any step."""
    mask = (np.arange(T) + np.arange(B)[:, None]) % 3 != 0
    mask[-1] = B < 2
    return mask


def dot_scores_case(dtype):
    """Return the row of the scores by inner products."""

    def build(rng, sizes):
        B, S, N, I = (sizes[k] for k in "BSNI")
        return {"query": rng.normal(size=(B, S, I)), "keys": rng.normal(size=(B, N, I))}

    def backward(a, kept, d, into, options):
        dkeys = np.ones_like(a["keys"])  # it is added to
        dquery = attention.dot_scores_backward(d["scores"], **a, dkeys=dkeys)
        return {"query": dquery, "keys": dkeys - 1}

    def fenced(fence, a, d, options, workers):
        query, keys, ds = (fence.put(v) for v in (a["query"], a["keys"], d["scores"]))
        scores, dquery = (fence.empty(v.shape, v.dtype) for v in (ds, query))
        dkeys = fence.put(np.ones_like(keys), out=True)
        shares(attention.dot_scores_rows, workers, query, keys, scores)
        shares(attention.dot_scores_backward_rows, workers, ds, query, keys, dquery, dkeys)
        return {"scores": scores, "query": dquery, "keys": dkeys - 1}

    def twin_backward(a, d, options):
        gradients = reference.dot_scores_backward(d["scores"], **a)
        return dict(zip(("query", "keys"), gradients, strict=True))

    return Case(
        f"dot_scores-{np.dtype(dtype).name}",
        {"B": 3, "S": 2, "N": 5, "I": 4},
        build,
        lambda a, options: ({"scores": attention.dot_scores_forward(**a)}, None),
        lambda a, options: {"scores": reference.dot_scores(**a)},
        backward,
        twin_backward,
        fenced,
        dtype,
        rows=("query", "keys"),
        terms=lambda B, S, N, I: S + N + I,
    )


def additive_scores_case(dtype):
    """Return the row of the scores by a small network."""

    def build(rng, sizes):
        B, S, N, U = (sizes[k] for k in "BSNU")
        shapes = {"query": (B, S, U), "keys": (B, N, U), "scale": (U,)}
        return {name: rng.normal(size=shape) for name, shape in shapes.items()}

    def backward(a, kept, d, into, options):
        dscale = into["scale"]
        results = attention.additive_scores_backward(d["scores"], **a, dscale=dscale)
        return dict(zip(("query", "keys"), results, strict=True))

    def fenced(fence, a, d, options, workers):
        query, keys, scale = (fence.put(a[k]) for k in ("query", "keys", "scale"))
        ds = fence.put(d["scores"])
        scores, dquery, dkeys = (fence.empty(v.shape, v.dtype) for v in (ds, query, keys))
        dscales = fence.empty((len(query), scale.size), scale.dtype)
        shares(attention.additive_scores_rows, workers, query, keys, scale, scores)
        arguments = ds, query, keys, scale, dquery, dkeys, dscales
        shares(attention.additive_scores_backward_rows, workers, *arguments)
        return {"scores": scores, "query": dquery, "keys": dkeys, "scale": dscales.sum(axis=0)}

    def twin_backward(a, d, options):
        gradients = reference.additive_scores_backward(d["scores"], **a)
        return dict(zip(("query", "keys", "scale"), gradients, strict=True))

    return Case(
        f"additive_scores-{np.dtype(dtype).name}",
        {"B": 3, "S": 2, "N": 5, "U": 4},
        build,
        lambda a, options: ({"scores": attention.additive_scores_forward(**a)}, None),
        lambda a, options: {"scores": reference.additive_scores(**a)},
        backward,
        twin_backward,
        fenced,
        dtype,
        rows=("query", "keys"),
        params=("scale",),
        terms=lambda B, S, N, U: B * S * N + U,
    )


def attend_case(dtype, holed):
    """Return the row of the softmax over the steps that count, and of the weighted sum."""

    def build(rng, sizes, holed):
        B, S, N, I = (sizes[k] for k in "BSNI")
        return {
            "scores": 3 * rng.normal(size=(B, S, N)),
            "values": rng.normal(size=(B, N, I)),
            "mask": holes(B, N) if holed else None,
        }

    def forward(a, options):
        context, weights = attention.attend_forward(**a)
        return {"context": context, "weights": weights}, weights

    def backward(a, weights, d, into, options):
        dscores, dvalues = attention.attend_backward(
            d["context"], d["weights"], weights, a["values"], a["mask"]
        )
        return {"scores": dscores, "values": dvalues}

    def fenced(fence, a, d, options, workers):
        scores, values, dc, dw = map(
            fence.put, (a["scores"], a["values"], d["context"], d["weights"])
        )
        mask = recurrence.NO_MASK if a["mask"] is None else fence.put(a["mask"])
        weights, context, dscores, dvalues = (
            fence.empty(v.shape, v.dtype) for v in (scores, dc, scores, values)
        )
        shares(attention.attend_rows, workers, scores, values, mask, weights, context)
        arguments = dc, dw, weights, values, mask, dscores, dvalues
        shares(attention.attend_backward_rows, workers, *arguments)
        return {"context": context, "weights": weights, "scores": dscores, "values": dvalues}

    def twin_backward(a, d, options):
        gradients = reference.attend_backward(d["context"], d["weights"], **a)
        return dict(zip(("scores", "values"), gradients, strict=True))

    return Case(
        "-".join(["attend", *["holed"] * holed, np.dtype(dtype).name]),
        {"B": 3, "S": 2, "N": 5, "I": 4},
        build,
        forward,
        lambda a, options: dict(zip(("context", "weights"), reference.attend(**a), strict=True)),
        backward,
        twin_backward,
        fenced,
        dtype,
        {"holed": holed},
        rows=("scores", "values", "mask"),
        terms=lambda B, S, N, I: S + N + I + 4,
        # The gradient of a score is a difference of sums that may be larger than itself.
        bounded=False,
    )


def pool_case(kind, dtype, masked):
    """Return the row of one kind of pooling, average or max."""

    def build(rng, sizes, masked):
        B, T, I = (sizes[k] for k in "BTI")
        # Few different values, so that the maximum is often there twice.
        x = rng.integers(-2, 3, (B, T, I)) + rng.normal(size=(1, 1, I))
        return {"x": x, "mask": holes(B, T) if masked else None}

    def forward(a, options):
        if kind == "average":
            return {"y": pooling.average_pool_forward(**a)}, None
        y, places = pooling.max_pool_forward(**a)
        return {"y": y}, places

    def backward(a, places, d, into, options):
        T = a["x"].shape[1]
        if kind == "average":
            return {"x": pooling.average_pool_backward(d["y"], a["mask"], T)}
        return {"x": pooling.max_pool_backward(d["y"], places, T)}

    def fenced(fence, a, d, options, workers):
        x, dy = fence.put(a["x"]), fence.put(d["y"])
        mask = recurrence.NO_MASK if a["mask"] is None else fence.put(a["mask"])
        y, dx = fence.empty(dy.shape, dy.dtype), fence.empty(x.shape, x.dtype)
        if kind == "average":
            shares(pooling.average_pool_rows, workers, x, mask, y)
            shares(pooling.average_pool_backward_rows, workers, dy, mask, dx)
        else:
            places = fence.put(np.zeros(dy.shape, np.int32), out=True)
            shares(pooling.max_pool_rows, workers, x, mask, y, places)
            shares(pooling.max_pool_backward_rows, workers, dy, places, dx)
        return {"y": y, "x": dx}

    def twin(a, options):
        return {
            "y": reference.average_pool(**a) if kind == "average" else reference.max_pool(**a)[0]
        }

    def twin_backward(a, d, options):
        if kind == "average":
            return {"x": reference.average_pool_backward(d["y"], **a)}
        return {"x": reference.max_pool_backward(d["y"], **a)}

    return Case(
        "-".join([f"{kind}_pool", *["masked"] * masked, np.dtype(dtype).name]),
        {"B": 3, "T": 5, "I": 4},
        build,
        forward,
        twin,
        backward,
        twin_backward,
        fenced,
        dtype,
        {"masked": masked},
        rows=("x", "mask"),
        terms=lambda B, T, I: T,
    )


def normalization_case(dtype):
    """Return the row of the layer normalization."""
    params, epsilon = ("gamma", "beta"), 1e-3

    def build(rng, sizes):
        B, K = sizes["B"], sizes["K"]
        # One column in the middle of its row: its variance is 0.
        x = rng.normal(size=(B, K)) if K > 1 else np.zeros((B, K))
        return {"x": x, "gamma": rng.normal(size=K), "beta": rng.normal(size=K)}

    def forward(a, options):
        y, *kept = normalization.normalization_forward(**a, epsilon=epsilon)
        return {"y": y}, kept

    def backward(a, kept, d, into, options):
        gradients = (into[k] for k in params)
        dx = normalization.normalization_backward(d["y"], *kept, a["gamma"], *gradients)
        return {"x": dx}

    def fenced(fence, a, d, options, workers):
        x, gamma, beta = (fence.put(a[k]) for k in ("x", *params))
        dy = fence.put(d["y"])
        y, normal, dx = (fence.empty(x.shape, x.dtype) for _ in range(3))
        scales = fence.empty(x.shape[:1], x.dtype)
        into = [fence.put(np.zeros_like(gamma), out=True) for _ in params]
        there = x, gamma, beta, epsilon, y, normal, scales
        shares(normalization.normalization_rows, workers, *there)
        back = dy, normal, scales, gamma, dx
        shares(normalization.normalization_backward_rows, workers, *back)
        shares(normalization.normalization_backward_columns, workers, dy, normal, *into)
        return {"y": y, "x": dx, **dict(zip(params, into, strict=True))}

    def twin_backward(a, d, options):
        gradients = reference.normalization_backward(d["y"], **a, epsilon=epsilon)
        return dict(zip(("x", *params), gradients, strict=True))

    return Case(
        f"normalization-{np.dtype(dtype).name}",
        {"B": 5, "K": 7},
        build,
        forward,
        lambda a, options: {"y": reference.normalization(**a, epsilon=epsilon)},
        backward,
        twin_backward,
        fenced,
        dtype,
        rows=("x",),
        params=params,
        # A row whose values lie close together is made longer.
        terms=lambda B, K: 4 * (B + K),
    )


ATTENTION_CASES = [
    *map(dot_scores_case, DTYPES),
    *map(additive_scores_case, DTYPES),
    *(attend_case(dtype, holed) for dtype in DTYPES for holed in (False, True)),
]
POOLING_CASES = [
    pool_case(kind, dtype, masked)
    for kind in ("average", "max")
    for dtype in DTYPES
    for masked in (False, True)
]
NORMALIZATION_CASES = [*map(normalization_case, DTYPES)]

CASES = (
    RECURRENT_CASES + DENSE_CASES + EMBEDDING_CASES + ACTIVATION_CASES
    + ATTENTION_CASES + POOLING_CASES + NORMALIZATION_CASES
)  # fmt: skip
