"""The same numbers as PyTorch and Keras: from golden files, and live where a peer is installed."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

import fastgru as fg

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Keras on PyTorch often rounds to float32 on its way, whatever the dtype of the layer.
ROUNDED = 1e-6
spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
make_golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_golden)


def close(got, want, dtype, name, float64_tolerance=1e-10):
    tolerance = {"float64": float64_tolerance, "float32": 2e-5}[dtype]
    scale = np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, err_msg=name)


def numbered(golden, name):
    """Return the arrays of a golden file whose names are this one and a number."""
    return [golden[f"{name}{i}"] for i in range(len(golden)) if f"{name}{i}" in golden]


def layer_of(cell, merge_mode, dtype, return_sequences=True, **options):
    options |= {"return_sequences": return_sequences, "return_state": True, "dtype": dtype}
    layer = getattr(fg, cell)(6, **options)
    layer = fg.Bidirectional(layer, merge_mode) if merge_mode else layer
    layer.build((None, None, 4))
    return layer


def check_passes(layer, golden, dtype, dy, real, tolerance=1e-10, **steps):
    """Compare outputs, states and the gradients of all inputs, where outputs are `real`."""
    (y, *last), backward = layer.forward(
        golden["x"], initial_state=numbered(golden, "initial"), **steps
    )
    close(y * real, golden["y"], dtype, "y", tolerance)
    dx, dinitial = backward(dy, numbered(golden, "dlast"))
    close(dx, golden["dx"], dtype, "dx", tolerance)
    dinitial = dinitial if isinstance(dinitial, list) else [dinitial]
    for name, some in (("last", last), ("dinitial", dinitial)):
        for i, (got, want) in enumerate(zip(some, numbered(golden, name), strict=True)):
            close(got, want, dtype, f"{name}{i}", tolerance)


def check_keras(name, golden, dtype):
    """Compare with a layer of Keras through get_weights, set_weights and get_gradients."""
    options = dict(make_golden.KERAS[name])
    layer = layer_of(options.pop("cell"), options.pop("merge_mode", None), dtype, **options)
    layer.set_weights(numbered(golden, "w"))
    real = np.array(True)
    if isinstance(layer, fg.Bidirectional) and layer.return_sequences:
        # There alone a masked step's output is zero in Keras.
        real = golden["mask"][..., None]
    dy = golden["dy"] * real
    check_passes(layer, golden, dtype, dy, real, ROUNDED, mask=golden["mask"])
    for i, (got, want) in enumerate(
        zip(layer.get_gradients(), numbered(golden, "dw"), strict=True)
    ):
        close(got, want, dtype, f"gradient of weight {i}", ROUNDED)


def check_keras_layers(name, golden, dtype):
    """Compare a stack of layers with Keras', all but the steps that fastgru leaves out."""
    described = make_golden.KERAS_LAYERS[name]
    layers = [make_golden.layer_of(fg, kind, dict(options)) for kind, options in described]
    layers = [type(layer).from_config(in_dtype(layer, dtype)) for layer in layers]
    y = x = golden["x"]
    mask = layers[0].output_mask(x, None) if len(layers) > 1 else golden["mask"]
    assert np.array_equal(mask, golden["mask"])
    weights, backwards = numbered(golden, "w"), []
    for layer, (kind, _) in zip(layers, described, strict=True):
        layer.build(y.shape)
        count = len(layer.get_weights())
        layer.set_weights(weights[:count])
        weights = weights[count:]
        takes = make_golden.TAKES_A_MASK[kind]
        y, backward = layer.forward(y, mask=mask if takes else None)
        backwards.append(backward)
    assert not weights
    close(y, golden["y"], dtype, "y", ROUNDED)
    dy = golden["dy"]
    for backward in reversed(backwards):
        dy = backward(dy)
    close(dy, golden["d0"], dtype, "dx", ROUNDED)
    gradients = [gradient for layer in layers for gradient in layer.get_gradients()]
    for i, (got, want) in enumerate(zip(gradients, numbered(golden, "dw"), strict=True)):
        close(got, want, dtype, f"gradient of weight {i}", ROUNDED)


def in_dtype(layer, dtype):
    """Return the config of the same layer in another dtype."""
    config = layer.get_config()
    if "layer" in config:
        inner = config["layer"]
        return config | {"layer": inner | {"config": inner["config"] | {"dtype": dtype}}}
    return config | {"dtype": dtype}


def check_keras_attention(name, golden, dtype):
    """Compare with Keras' attention, which has no matrices: they are the identity here."""
    kinds = {"keras_dot_attention": "dot", "keras_additive_attention": "additive"}
    layer = fg.Attention(kinds[name], query_dim=4, dtype=dtype)
    layer.build(golden["x"].shape)
    if layer.score == "additive":
        layer.set_weights([np.eye(4), np.eye(4), np.zeros(4), golden["w0"]])
    y, backward = layer.forward(golden["x"], mask=golden["mask"], query=golden["query"])
    close(y, golden["y"], dtype, "y", ROUNDED)
    for i, got in enumerate(backward(golden["dy"])):
        close(got, golden[f"d{i}"], dtype, f"gradient of input {i}", ROUNDED)
    if layer.score == "additive":
        close(layer.grads["scale"], golden["dw0"], dtype, "dscale", ROUNDED)


def optimizer_of(name):
    """Return the optimizer of a golden file: PyTorch's settings by Keras' names, or Keras' own."""
    if name in make_golden.OPTIMIZED_BY_TORCH:
        options = dict(make_golden.OPTIMIZED_BY_TORCH[name])
        kind, betas = options.pop("optimizer"), options.pop("betas", ())
        names = {"lr": "learning_rate", "alpha": "rho", "eps": "epsilon"}
        options = {names.get(key, key): value for key, value in options.items()}
        options |= {f"beta_{i}": beta for i, beta in enumerate(betas, 1)}
    else:
        options = dict(make_golden.OPTIMIZED_BY_KERAS[name])
        kind, (schedule, settings) = options.pop("optimizer"), options.pop("learning_rate")
        options["learning_rate"] = getattr(fg.schedules, schedule)(**settings)
    return getattr(fg.optimizers, kind)(**options)


def check_optimizer(name, golden, dtype="float64"):
    """Compare the params after each step, and what is left in them in the end."""
    optimizer = optimizer_of(name)
    # Keras on PyTorch computes the common length of gradients in float32.
    tolerance = 1e-6 if optimizer.global_clipnorm else 1e-10
    params = [array.astype(dtype) for array in numbered(golden, "initial")]
    for step in range(make_golden.STEPS):
        optimizer.apply(params, numbered(golden, f"grad{step}_"))
        for i, (got, want) in enumerate(
            zip(params, numbered(golden, f"param{step}_"), strict=True)
        ):
            close(got, want, dtype, f"param {i} after step {step}", tolerance)
    if name in make_golden.OPTIMIZED_BY_KERAS:
        optimizer.finalize(params)
        for got, want in zip(params, numbered(golden, "final"), strict=True):
            close(got, want, dtype, "final", tolerance)


def check_stateful(name, golden, dtype):
    """Compare a layer that goes on, and begins anew, with one of Keras."""
    options = make_golden.STATEFUL[name]
    layer = getattr(fg, options["cell"])(6, return_sequences=True, stateful=True, dtype=dtype)
    layer.build((None, None, 4))
    layer.set_weights(numbered(golden, "w"))
    close(layer(golden["x0"]), golden["y0"], dtype, "y0", ROUNDED)
    close(layer.forward(golden["x1"])[0], golden["y1"], dtype, "y1", ROUNDED)
    layer.reset_states()
    close(layer(golden["x1"]), golden["y2"], dtype, "y2", ROUNDED)


CHECKS = {
    **dict.fromkeys(make_golden.KERAS, check_keras),
    **dict.fromkeys(make_golden.KERAS_LAYERS, check_keras_layers),
    **dict.fromkeys(make_golden.KERAS_ATTENTION, check_keras_attention),
    **dict.fromkeys(make_golden.STATEFUL, check_stateful),
    **dict.fromkeys(make_golden.OPTIMIZED_BY_TORCH, check_optimizer),
    **dict.fromkeys(make_golden.OPTIMIZED_BY_KERAS, check_optimizer),
}


def golden_file(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("name", CHECKS)
def test_peers_agree_where_they_are_installed(name, monkeypatch):
    pytest.importorskip("torch")
    if name.startswith("keras"):
        monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
        pytest.importorskip("keras")
    CHECKS[name](name, make_golden.MAKERS[name](), "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CHECKS)
def test_golden_files_are_reproduced(name, dtype):
    CHECKS[name](name, golden_file(name), dtype)


def test_every_golden_file_is_compared():
    assert set(make_golden.MAKERS) == {path.stem for path in GOLDEN.glob("*.npz")}
    # Those of sounds are compared in test_audio.py, layers of PyTorch in test_parity.py, operators
    # of ONNX in test_parity_onnx.py, losses and metrics in tests of theirs.
    others = *make_golden.AUDIO, *make_golden.TORCH, *make_golden.ONNX, *make_golden.OTHERS
    assert set(make_golden.MAKERS) == {*CHECKS, *others}


@pytest.mark.parametrize(("name", "gates"), [("keras_reset_after", 3), ("keras_lstm", 4)])
def test_a_swap_of_gates_would_be_noticed(name, gates):
    golden = golden_file(name)
    first, second, *rest = np.split(golden["w0"], gates, axis=1)
    golden["w0"] = np.concatenate([second, first, *rest], axis=1)
    with pytest.raises(AssertionError, match="y"):
        check_keras(name, golden, "float64")


@pytest.mark.parametrize("name", ["keras_lstm_bidirectional", "keras_lstm_last"])
def test_a_swap_of_directions_would_be_noticed(name):
    golden = golden_file(name)
    for i in range(3):
        golden[f"w{i}"], golden[f"w{i + 3}"] = golden[f"w{i + 3}"], golden[f"w{i}"]
    with pytest.raises(AssertionError, match="y"):
        check_keras(name, golden, "float64")
