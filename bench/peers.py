"""The other libraries, each as an expert would call it: the same weights, inputs and questions.

A factory takes a problem (`bench.kernels.Problem`) and the number of threads and returns the calls
to time, one per question; see `bench.kernels`. It imports its library inside, so that one that is
not installed is missing and no more. A call takes NumPy arrays, with the axis of time first where
that is the library's native layout, and gives new ones; what can be done once is done before the
clock: weights are in the library's own arrays, order and layout, graphs are compiled.

Gates are in the order r, z, n here and in PyTorch; ONNX and Keras have z, r, n.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bench.kernels import Problem

Calls = dict[str, Callable[[], tuple[np.ndarray, ...]]]


def swap_gates(array: np.ndarray) -> np.ndarray:
    """Exchange the first two of three blocks of columns: r z n to z r n, and back."""
    r, z, n = np.split(array, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)


def time_first(x: np.ndarray) -> np.ndarray:
    """Exchange the axes of batch and time."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


# ---- PyTorch


def torch_calls(problem: Problem, threads: int) -> Calls:
    """Call nn.GRU: without gradients, and with autograd to all of them."""
    import torch

    torch.set_num_threads(threads)
    x, h0, weights, dy, dh_last = problem
    gru = torch.nn.GRU(x.shape[2], h0.shape[1])
    with torch.no_grad():
        for parameter, values in zip(gru.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(values.T.copy()))
    inputs = time_first(x), h0[None]
    output_gradients = torch.from_numpy(time_first(dy)), torch.from_numpy(dh_last[None])

    def inference() -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            return (gru(*map(torch.from_numpy, inputs))[0].numpy().swapaxes(0, 1),)

    def training() -> tuple[np.ndarray, ...]:
        leaves = [torch.from_numpy(array).requires_grad_() for array in inputs]
        outputs = gru(*leaves)
        dx, dh0, *gradients = torch.autograd.grad(
            outputs, [*leaves, *gru.parameters()], output_gradients
        )
        y = outputs[0].detach().numpy().swapaxes(0, 1)
        return y, dx.numpy().swapaxes(0, 1), dh0.numpy()[0], *(g.numpy().T for g in gradients)

    return {"inference": inference, "training": training}


# ---- ONNX Runtime and OpenVINO, which do not train


def onnx_model(problem: Problem) -> bytes:
    """Return a model with one GRU node: x (T, B, I), h0 (1, B, H) -> y (T, 1, B, H)."""
    from onnx import TensorProto, helper, numpy_helper

    x, h0, (kernel, recurrent_kernel, bias, recurrent_bias), *_ = problem
    (B, T, I), H = x.shape, h0.shape[1]
    arrays = {
        "W": swap_gates(kernel).T[None],
        "R": swap_gates(recurrent_kernel).T[None],
        "b": np.concatenate([swap_gates(bias), swap_gates(recurrent_bias)])[None],
    }
    node = helper.make_node(
        "GRU", ["x", "W", "R", "b", "", "h0"], ["y"], hidden_size=H, linear_before_reset=1
    )

    def described(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "gru",
        [described("x", T, B, I), described("h0", 1, B, H)],
        [described("y", T, 1, B, H)],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()],
    )
    opset = [helper.make_opsetid("", 14)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def onnxruntime_session(problem: Problem, threads: int) -> Any:
    """Load the model with all optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(
        onnx_model(problem), options, providers=["CPUExecutionProvider"]
    )


def onnxruntime_calls(problem: Problem, threads: int) -> Calls:
    """Run the model."""
    session = onnxruntime_session(problem, threads)
    x, h0 = time_first(problem.x), problem.h0[None]

    def inference() -> tuple[np.ndarray, ...]:
        (y,) = session.run(["y"], {"x": x, "h0": h0})
        return (y[:, 0].swapaxes(0, 1),)

    return {"inference": inference}


def openvino_request(problem: Problem, threads: int) -> Any:
    """Compile the same model for latency, in float32."""
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = core.compile_model(core.read_model(onnx_model(problem)), "CPU", settings)
    return model.create_infer_request()


def openvino_calls(problem: Problem, threads: int) -> Calls:
    """Run it on NumPy's memory, which is several times quicker than handing `infer` the arrays."""
    import openvino

    request = openvino_request(problem, threads)
    inputs = time_first(problem.x), problem.h0[None]

    def inference() -> tuple[np.ndarray, ...]:
        for i, array in enumerate(inputs):
            request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))
        request.infer()
        y = request.get_output_tensor(0).data.copy()
        return (y[:, 0].swapaxes(0, 1),)

    return {"inference": inference}


# ---- JAX


def jax_gru(x: Any, h0: Any, weights: Any, extra: Any) -> Any:
    """Run over x (B, T, I): all input projections in one product, then a scan over the steps.

    `extra` (T, B, 3H) is added to the recurrent projections. It is zero, and its gradient is
    theirs, from which one product after the scan makes that of the recurrent weights; left to
    `jax.vjp`, every step adds to all of it.
    """
    import jax
    from jax import numpy as jnp

    kernel, recurrent_kernel, bias, recurrent_bias = weights
    B, T, I = x.shape
    H = h0.shape[1]
    projected = jnp.swapaxes(x, 0, 1).reshape(T * B, I) @ kernel + bias

    def step(h: Any, given: Any) -> Any:
        p, e = given
        q = h @ recurrent_kernel + recurrent_bias + e
        r, z = jnp.split(jax.nn.sigmoid(p[:, : 2 * H] + q[:, : 2 * H]), 2, axis=1)
        n = jnp.tanh(p[:, 2 * H :] + r * q[:, 2 * H :])
        h = n + z * (h - n)
        return h, h

    h_last, y = jax.lax.scan(step, h0, (projected.reshape(T, B, 3 * H), extra))
    return jnp.swapaxes(y, 0, 1), h_last


def jax_calls(problem: Problem, threads: int) -> Calls:
    """Call the scan, compiled; the number of threads is in the environment."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    from jax import numpy as jnp

    x, h0, weights, dy, dh_last = problem
    weights = tuple(map(jnp.asarray, weights))
    (B, T, _), H = x.shape, h0.shape[1]

    @jax.jit
    def forward(x: Any, h0: Any, weights: Any) -> Any:
        return jax_gru(x, h0, weights, jnp.zeros((T, 1, 1)))[0]

    @jax.jit
    def both(x: Any, h0: Any, weights: Any, dy: Any, dh_last: Any) -> Any:
        kernel, recurrent_kernel, bias, recurrent_bias = weights

        def inner(x: Any, h0: Any, kernel: Any, bias: Any, extra: Any) -> Any:
            return jax_gru(x, h0, (kernel, recurrent_kernel, bias, recurrent_bias), extra)

        zeros = jnp.zeros((T, B, 3 * H))
        (y, _), vjp = jax.vjp(inner, x, h0, kernel, bias, zeros)
        dx, dh0, dkernel, dbias, dq = vjp((dy, dh_last))
        before = jnp.concatenate([h0[None], jnp.swapaxes(y, 0, 1)[:-1]])
        drecurrent_kernel = before.reshape(T * B, H).T @ dq.reshape(T * B, 3 * H)
        return y, dx, dh0, dkernel, drecurrent_kernel, dbias, dq.sum((0, 1))

    def inference() -> tuple[np.ndarray, ...]:
        return (np.asarray(forward(x, h0, weights)),)

    def training() -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, both(x, h0, weights, dy, dh_last)))

    return {"inference": inference, "training": training}


# ---- Keras


def import_keras() -> Any:
    """Import Keras with the backend that KERAS_BACKEND names, else the fastest that is there."""
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = _keras_backend()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", os.environ.get("OMP_NUM_THREADS", ""))
    import keras

    return keras


def _keras_backend() -> str:
    from importlib.util import find_spec

    for backend in ("jax", "tensorflow", "torch"):
        if find_spec(backend):
            return backend
    raise ModuleNotFoundError("no backend for Keras: neither JAX, TensorFlow nor PyTorch")


def keras_weights(weights: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Return the weights as `keras.layers.GRU` takes them."""
    kernel, recurrent_kernel, *biases = map(swap_gates, weights)
    return [kernel, recurrent_kernel, np.stack(biases)]


def keras_calls(problem: Problem, threads: int) -> Calls:
    """Call a model with one GRU layer: `predict_on_batch`; gradients with its JAX backend alone."""
    keras = import_keras()
    x, h0, weights, dy, dh_last = problem
    inputs = keras.Input(x.shape[1:]), keras.Input(h0.shape[1:])
    layer = keras.layers.GRU(h0.shape[1], return_sequences=True, return_state=True)
    outputs = layer(inputs[0], initial_state=inputs[1])
    layer.set_weights(keras_weights(weights))
    model = keras.Model(inputs, outputs[0])

    def inference() -> tuple[np.ndarray, ...]:
        return (model.predict_on_batch([x, h0]),)

    if keras.backend.backend() != "jax":
        return {"inference": inference}
    import jax

    seeds = [variable.value for variable in layer.non_trainable_variables]

    @jax.jit
    def both(x: Any, h0: Any, weights: Any, dy: Any, dh_last: Any) -> Any:
        def forward(x: Any, h0: Any, weights: Any) -> Any:
            return layer.stateless_call(weights, seeds, x, initial_state=h0)[0]

        (y, h_last), vjp = jax.vjp(forward, x, h0, weights)
        return y, *vjp((dy, dh_last))

    own = list(map(jax.numpy.asarray, keras_weights(weights)))

    def training() -> tuple[np.ndarray, ...]:
        outputs = both(x, h0, own, dy, dh_last)
        y, dx, dh0, gradients = jax.tree.map(np.asarray, outputs)
        dkernel, drecurrent_kernel, dbiases = map(swap_gates, gradients)
        return y, dx, dh0, dkernel, drecurrent_kernel, *dbiases

    return {"inference": inference, "training": training}


FACTORIES: dict[str, Callable[[Problem, int], Calls]] = {
    "pytorch": torch_calls,
    "onnxruntime": onnxruntime_calls,
    "openvino": openvino_calls,
    "jax": jax_calls,
    "keras": keras_calls,
}
