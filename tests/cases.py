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
(`sequence=True`) has arguments x (B, T, I), mask and h0, outputs y and h_last, and a forward that
also takes return_sequences and keep.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastgru import reference
from fastgru.kernels import dense, embedding, gru, recurrence
from fastgru.kernels.activations import activation_backward, activation_forward
from fastgru.kernels.arrays import none_of
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


# ---- GRU

GRU_PARAMS = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
GRU_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name != "gelu")


def gru_arguments(rng, sizes, masked, **_):
    B, T, I, H = (sizes[k] for k in "BTIH")
    # A leading gap and a hole in row 0, holes in the others; the last row has length 0.
    mask = (np.arange(T) + np.arange(B)[:, None]) % 3 != 0
    if B > 1:
        mask[-1] = False
    return {
        "x": rng.normal(size=(B, T, I)),
        "mask": mask if masked else None,
        "h0": rng.normal(size=(B, H)),
        # Small enough that activations without bounds do not let the state grow.
        "kernel": rng.normal(size=(I, 3 * H)) / np.sqrt(8 * I),
        "recurrent_kernel": rng.normal(size=(H, 3 * H)) / np.sqrt(8 * H),
        "bias": rng.normal(size=3 * H) / 4,
        "recurrent_bias": rng.normal(size=3 * H) / 4,
    }


def gru_codes(options):
    """Return the keyword arguments of gru_forward and gru_backward."""
    return {
        "go_backwards": options["go_backwards"],
        "activation": ACTIVATIONS.index(options["activation"]),
        "recurrent_activation": ACTIVATIONS.index(options["recurrent_activation"]),
    }


def last_state(y, h0):
    return y[:, -1] if y.shape[1] else h0


def gru_forward(a, options, return_sequences=True, keep=True):
    weights = gru.pack_gru(
        *(a[k] for k in GRU_PARAMS), reset_after=options["reset_after"], backward=keep
    )
    y, gates = gru.gru_forward(
        a["x"], a["mask"], a["h0"], weights,
        return_sequences=return_sequences, keep=keep, **gru_codes(options),
    )  # fmt: skip
    return {"y": y, "h_last": last_state(y, a["h0"])}, (weights, y, gates)


def gru_backward(a, kept, d, into, options):
    dx, dh0 = gru.gru_backward(
        d["y"], d["h_last"], a["x"], a["mask"], a["h0"], *kept,
        tuple(into[k] for k in GRU_PARAMS), **gru_codes(options),
    )  # fmt: skip
    return {"x": dx, "h0": dh0}


def gru_twin(a, options):
    named = {k: v for k, v in options.items() if k != "masked"}
    y, gates = reference.gru_forward(**a, **named)
    return y, gates, named


def gru_twin_forward(a, options):
    y, _, _ = gru_twin(a, options)
    return {"y": y, "h_last": last_state(y, a["h0"])}


def gru_twin_backward(a, d, options):
    y, gates, named = gru_twin(a, options)
    gradients = reference.gru_backward(d["y"], d["h_last"], **a, y=y, gates=gates, **named)
    return dict(zip(("x", "h0", *GRU_PARAMS), gradients, strict=True))


def gru_fenced(fence, a, d, options, workers):
    """Run the workers of the GRU in turn, the last first: for training, then for inference."""
    B, T, H = d["y"].shape
    x, h0, dy = (fence.put(v) for v in (a["x"], a["h0"], d["y"]))
    mask = recurrence.NO_MASK if a["mask"] is None else fence.put(a["mask"])
    params = [fence.put(a[k]) for k in GRU_PARAMS]
    held, backwards = not options["reset_after"], options["go_backwards"]
    codes = gru_codes(options)
    codes = codes["recurrent_activation"], codes["activation"]
    packed = gru.pack_gru(*params, reset_after=not held, backward=True)
    forward, backward = (fence.empty(p.shape, p.dtype) for p in (packed.forward, packed.backward))
    y, gates = fence.empty((B, T, H), x.dtype), fence.empty((B, T, 4, H), x.dtype)
    last, nothing = fence.empty((B, 1, H), x.dtype), fence.empty((0, 0, 4, H), x.dtype)
    dx, dh = fence.empty(x.shape, x.dtype), fence.put(d["h_last"], out=True)
    into = [fence.put(np.zeros_like(p), out=True) for p in params]
    rest = none_of(x.dtype, 1), ALONE, held, backwards
    shares = [(i, workers) for i in reversed(range(workers))]
    for share in shares:
        recurrence.recurrent_pack(*params, gru.APART, held, forward, backward, *share)
    for share in shares:
        gru.gru_forward_rows(x, mask, h0, None, forward, y, None, gates, *rest, *codes, *share)
        gru.gru_forward_rows(x, mask, h0, None, forward, last, None, nothing, *rest, *codes, *share)
    for share in shares:
        gru.gru_backward_rows(
            dy, dh, None, mask, h0, None, backward, y, None, gates, dx, *rest, *codes, *share
        )
    for share in shares:
        recurrence.recurrent_backward_columns(
            x, mask, h0, y, gates, *into, gru.APART, held, backwards, *share
        )
    gradients = dict(zip(GRU_PARAMS, into, strict=True))
    return {"y": y, "h_last": last[:, 0], "x": dx, "h0": dh, **gradients}


def gru_case(
    reset_after=True,
    go_backwards=False,
    masked=False,
    activation="tanh",
    recurrent_activation="sigmoid",
    dtype=np.float32,
):
    """Return the row of one kind of GRU."""
    words = [
        "gru",
        "after" if reset_after else "before",
        *["backwards"] * go_backwards,
        *["masked"] * masked,
        *[activation, recurrent_activation] * ((activation, recurrent_activation) != DEFAULT),
        np.dtype(dtype).name,
    ]
    return Case(
        "-".join(words),
        {"B": 3, "T": 5, "I": 4, "H": 7},
        gru_arguments,
        gru_forward,
        gru_twin_forward,
        gru_backward,
        gru_twin_backward,
        gru_fenced,
        dtype,
        {
            "reset_after": reset_after,
            "go_backwards": go_backwards,
            "masked": masked,
            "activation": activation,
            "recurrent_activation": recurrent_activation,
        },
        rows=("x", "mask", "h0"),
        params=GRU_PARAMS,
        sequence=True,
        bounded=(activation, recurrent_activation) == DEFAULT,
        terms=lambda B, T, I, H: (T + 1) * (B + I + H),
    )


DEFAULT = ("tanh", "sigmoid")
# Each activation once as the candidate's and once as the gates'.
ACTIVATION_PAIRS = tuple(zip(GRU_ACTIVATIONS, GRU_ACTIVATIONS[3:] + GRU_ACTIVATIONS, strict=False))

GRU_CASES = [
    gru_case(*flags, dtype=dtype)
    for *flags, dtype in itertools.product(*[(True, False)] * 3, (np.float32, np.float64))
] + [
    gru_case(reset_after, go_backwards, True, *pair, dtype)
    for pair in ACTIVATION_PAIRS
    for reset_after, go_backwards in ((True, False), (False, True))
    for dtype in (np.float32, np.float64)
]


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
        weights = dense.pack_dense(a["kernel"], a["bias"], backward=True)
        y = dense.dense_forward(a["x"], weights, code)
        return {"y": y}, (weights, y)

    def backward(a, kept, d, into, options):
        weights, y = kept
        da = pre_activation(d["y"], y, np.empty_like(y))
        return {"x": dense.dense_backward(da, a["x"], weights, into["kernel"], into["bias"])}

    def fenced(fence, a, d, options, workers):
        x, dy = fence.put(a["x"]), fence.put(d["y"])
        params = [fence.put(a[k]) for k in DENSE_PARAMS]
        packed = dense.pack_dense(*params, backward=True)
        there, back = (fence.empty(p.shape, p.dtype) for p in (packed.forward, packed.backward))
        y, dx = fence.empty(dy.shape, dy.dtype), fence.empty(x.shape, x.dtype)
        into = [fence.put(np.zeros_like(p), out=True) for p in params]
        shares = [(i, workers) for i in reversed(range(workers))]
        for share in shares:
            dense.dense_pack(*params, there, back, *share)
        for share in shares:
            dense.dense_rows(x, there, code, y, *share)
        da = pre_activation(dy, y, fence.empty(dy.shape, dy.dtype))
        for share in shares:
            dense.dense_backward_rows(da, back, dx, *share)
            dense.dense_backward_columns(x, da, *into, *share)
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


EMBEDDING_CASES = [embedding_case(dtype) for dtype in (np.float32, np.float64)]


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

CASES = GRU_CASES + DENSE_CASES + EMBEDDING_CASES + ACTIVATION_CASES
