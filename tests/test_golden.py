"""The same numbers as PyTorch and Keras: from golden files, and live where a peer is installed."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

import fastgru as fg

GOLDEN = pathlib.Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
make_golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_golden)


def close(got, want, dtype, name, float64_tolerance=1e-10):
    tolerance = {"float64": float64_tolerance, "float32": 2e-5}[dtype]
    scale = np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, err_msg=name)


def check_torch(golden, dtype):
    """Compare with nn.GRU: gates r, z, n as here, weights transposed."""
    layer = fg.GRU(6, return_sequences=True, return_state=True, dtype=dtype)
    layer.build((None, None, 4))
    names = {
        "kernel": "weight_ih_l0",
        "recurrent_kernel": "weight_hh_l0",
        "bias": "bias_ih_l0",
        "recurrent_bias": "bias_hh_l0",
    }
    for name, theirs in names.items():
        layer.params[name][...] = golden[theirs].T
    lengths = golden["lengths"]
    real = (np.arange(5) < lengths[:, None])[..., None]
    (y, last), backward = layer.forward(golden["x"], lengths=lengths, initial_state=golden["h0"])
    close(y * real, golden["y"], dtype, "y")
    close(last, golden["last"], dtype, "last")
    dx, dh0 = backward(golden["dy"] * real, golden["dlast"])
    close(dx, golden["dx"], dtype, "dx")
    close(dh0, golden["dh0"], dtype, "dh0")
    for name, theirs in names.items():
        close(layer.grads[name], golden[f"d{theirs}"].T, dtype, name)


def check_keras(name, golden, dtype):
    """Compare with keras.layers.GRU through get_weights, set_weights and get_gradients."""
    layer = fg.GRU(6, return_sequences=True, dtype=dtype, **make_golden.KERAS[name])
    layer.build((None, None, 4))
    count = len(layer.get_weights())
    layer.set_weights([golden[f"w{i}"] for i in range(count)])
    y, backward = layer.forward(golden["x"], mask=golden["mask"], initial_state=golden["h0"])
    dx, dh0 = backward(golden["dy"])
    # With a mask, Keras on PyTorch rounds to float32 on its way, whatever the dtype of the layer.
    rounded = 1e-6
    close(y, golden["y"], dtype, "y", rounded)
    close(dx, golden["dx"], dtype, "dx", rounded)
    close(dh0, golden["dh0"], dtype, "dh0", rounded)
    for i, gradient in enumerate(layer.get_gradients()):
        close(gradient, golden[f"dw{i}"], dtype, f"gradient of weight {i}", rounded)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["torch", *make_golden.KERAS])
def test_golden_files_are_reproduced(name, dtype):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        golden = dict(file)
    check_torch(golden, dtype) if name == "torch" else check_keras(name, golden, dtype)


def test_a_swap_of_gates_would_be_noticed():
    with np.load(GOLDEN / "keras_reset_after.npz", allow_pickle=False) as file:
        golden = dict(file)
    z, r, h = np.split(golden["w0"], 3, axis=1)
    golden["w0"] = np.concatenate([r, z, h], axis=1)
    with pytest.raises(AssertionError, match="y"):
        check_keras("keras_reset_after", golden, "float64")


def test_pytorch_agrees_where_it_is_installed():
    pytest.importorskip("torch")
    check_torch(make_golden.from_torch(), "float64")


@pytest.mark.parametrize("name", make_golden.KERAS)
def test_keras_agrees_where_it_is_installed(name, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    check_keras(name, make_golden.from_keras(**make_golden.KERAS[name]), "float64")
