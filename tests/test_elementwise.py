"""Activations as layers, masking, and dropout of whole features and steps."""

import numpy as np
import pytest
import test_layers

import fastgru as fg
from fastgru.layers import ACTIVATIONS

NAMES = [*ACTIVATIONS, "softmax"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_activation_is_that_of_dense(name, dtype, rng):
    x = rng.normal(size=(3, 5, 4)).astype(dtype)
    dense = fg.Dense(4, name, dtype=dtype)
    dense.build(x.shape)
    dense.set_weights([np.eye(4), np.zeros(4)])
    layer = fg.Activation(name, dtype=dtype)
    (want, back), (y, backward) = dense.forward(x), layer.forward(x)
    assert np.array_equal(y, want) and np.array_equal(layer(x), y)
    dy = rng.normal(size=y.shape).astype(dtype)
    assert np.array_equal(backward(dy), back(dy))
    step = layer.stream(3)
    assert all(np.array_equal(step(x[:, t]), y[:, t]) for t in range(5))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_activations_are_central_differences(name, rng):
    test_layers.check_gradients(fg.Activation(name, dtype="float64"), rng.normal(size=(3, 5, 4)))


def test_mistakes_of_activations_are_named():
    with pytest.raises(ValueError, match="activation: .*Did you mean 'tanh'"):
        fg.Activation("tan")
    with pytest.raises(ValueError, match=r"activation: x: expected shape \(batch, ...\)"):
        fg.Activation("tanh")(np.zeros(3))
    with pytest.raises(ValueError, match=r"activation: dy: expected shape \(2, 3\)"):
        fg.Activation("tanh").forward(np.zeros((2, 3)))[1](np.zeros((2, 4)))


# ---- masking


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1])
def test_steps_of_one_value_are_masked(value, dtype, rng):
    x = rng.normal(size=(3, 5, 4))
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    x[~mask] = value
    x[0, 0, :3] = value  # a part of a step is no step
    layer = fg.Masking(value, dtype=dtype)
    y, backward = layer.forward(x)
    assert np.array_equal(layer.output_mask(x, None), mask)
    assert np.array_equal(layer.output_mask(x, ~mask), mask & ~mask)
    assert np.array_equal(y[mask], x[mask].astype(dtype)) and not y[~mask].any()
    dx = backward(np.ones_like(y))
    assert dx[mask].all() and not dx[~mask].any()
    with pytest.raises(ValueError, match="masking: x: a row of .* is padding"):
        layer.stream(3)(x[:, 2])
    assert np.array_equal(layer.stream(2)(x[::2, 0]), x[::2, 0].astype(dtype))


def test_a_model_that_begins_with_masking_skips_steps_in_training_and_use(rng):
    x, lengths = rng.normal(size=(6, 5, 4)).astype("float32"), np.array([5, 3, 1, 2, 4, 5])
    mask = np.arange(5) < lengths[:, None]
    x[~mask] = -9
    gru = fg.GRU(3, return_sequences=True, seed=0)
    model = fg.Sequential([fg.Masking(-9), gru, fg.Dense(2, "softmax", seed=0)])
    want = gru(np.where(mask[..., None], x, 0), lengths=lengths)
    assert np.array_equal(fg.Sequential(model.layers[:2]).predict(x), want)
    y = rng.integers(0, 2, (6, 5))
    y[~mask] = -1  # no label at all
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    y[0, 0] = -1
    with pytest.raises(ValueError, match="y: "):
        model.fit(x, y, verbose=0)


def test_mistakes_of_masking_are_named():
    with pytest.raises(ValueError, match="mask_value: expected a finite number"):
        fg.Masking(np.nan)
    for use in (fg.Masking(), lambda x: fg.Masking().output_mask(x, None)):
        with pytest.raises(ValueError, match=r"masking: x: expected shape \(batch, steps, inputs"):
            use(np.zeros((3, 4)))


# ---- dropout


@pytest.mark.parametrize(("drop", "axis"), [("features", 1), ("steps", 2)])
def test_whole_features_or_steps_are_dropped(drop, axis):
    layer = fg.SpatialDropout1D(0.25, drop, seed=1)
    x = np.ones((100, 30, 20), "float32")
    assert layer(x) is x
    y, backward = layer.forward(x)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y.min(axis=axis) == y.max(axis=axis)).all()
    assert (y.min(axis=3 - axis) != y.max(axis=3 - axis)).any()
    assert abs((y == 0).mean() - 0.25) < 0.03
    assert np.array_equal(backward(x), y)


def test_mistakes_of_spatial_dropout_are_named():
    with pytest.raises(ValueError, match="drop: expected one of features, steps, given 'words'"):
        fg.SpatialDropout1D(0.5, "words")
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, steps, inputs\), given"):
        fg.SpatialDropout1D(0.5).forward(np.zeros((3, 4)))
