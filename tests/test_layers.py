"""Layers: shapes, gradients, weights in Keras' layout, and errors that say what was expected."""

import re

import numpy as np
import pytest

import fastgru as fg
from fastgru import reference
from fastgru.layers import ACTIVATIONS
from fastgru.recurrent import RECURRENT_ACTIVATIONS

F64 = {"dtype": "float64", "seed": 3}


def numeric(layer, x, dy, array, eps=1e-6, **options):
    """Return the central differences of sum(y * dy) with respect to an array."""
    result = np.empty_like(array)
    for i in np.ndindex(array.shape):
        kept = array[i]
        array[i] = kept + eps
        high = (layer(x, **options) * dy).sum()
        array[i] = kept - eps
        low = (layer(x, **options) * dy).sum()
        array[i] = kept
        result[i] = (high - low) / (2 * eps)
    return result


def check_gradients(layer, x, **options):
    random = np.random.default_rng(5)
    y, backward = layer.forward(x, **options)
    dy = random.normal(size=y.shape)
    dx = backward(dy)
    if isinstance(dx, tuple):
        dx, dh0 = dx
        want = numeric(layer, x, dy, options["initial_state"], **options)
        np.testing.assert_allclose(dh0, want, rtol=1e-6, atol=1e-8)
    if dx is not None:
        want = numeric(layer, x, dy, x, **options)
        np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-8)
    for name, param in layer.params.items():
        want = numeric(layer, x, dy, param, **options)
        np.testing.assert_allclose(layer.grads[name], want, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "softmax", None])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_gradients_are_central_differences(activation, use_bias):
    x = np.random.default_rng(0).normal(size=(3, 5, 4))
    check_gradients(fg.Dense(7, activation, use_bias=use_bias, **F64), x)


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"use_bias": False}])
def test_gru_gradients_are_central_differences(reset_after, return_sequences, options):
    random = np.random.default_rng(1)
    layer = fg.GRU(6, reset_after=reset_after, return_sequences=return_sequences, **options, **F64)
    x, h0 = random.normal(size=(3, 5, 4)), random.normal(size=(3, 6))
    check_gradients(layer, x, lengths=[5, 0, 2], initial_state=h0)


@pytest.mark.parametrize("name", RECURRENT_ACTIVATIONS)
def test_gru_activations_have_right_gradients(name):
    x = np.random.default_rng(2).normal(size=(2, 4, 3))
    layer = fg.GRU(5, activation=name, recurrent_activation="hard_sigmoid", **F64)
    check_gradients(layer, x)


def test_gru_equals_the_reference_through_its_keras_weights():
    random = np.random.default_rng(3)
    layer = fg.GRU(5, return_sequences=True, **F64)
    x = random.normal(size=(3, 4, 2))
    layer.build(x.shape)
    layer.set_weights([random.normal(size=w.shape) / 2 for w in layer.get_weights()])
    kernel, recurrent, bias = layer.get_weights()
    assert [kernel.shape, recurrent.shape, bias.shape] == [(2, 15), (5, 15), (2, 15)]

    def zrh(a):  # Keras' order to r, z, n
        z, r, h = np.split(a, 3, -1)
        return np.concatenate([r, z, h], -1)

    want, _ = reference.gru_forward(
        x, None, np.zeros((3, 5)), zrh(kernel), zrh(recurrent), zrh(bias[0]), zrh(bias[1])
    )
    np.testing.assert_allclose(layer(x), want, rtol=1e-12)


def test_gradients_come_in_the_order_of_the_weights():
    layer = fg.GRU(5, **F64)
    y, backward = layer.forward(np.random.default_rng(0).normal(size=(3, 4, 2)))
    backward(np.ones_like(y))
    z, r, h = np.split(layer.get_gradients()[0], 3, -1)
    assert np.array_equal(layer.grads["kernel"], np.concatenate([r, z, h], -1))
    assert [g.shape for g in layer.get_gradients()] == [w.shape for w in layer.get_weights()]


def test_states_go_in_and_out():
    random = np.random.default_rng(4)
    layer = fg.GRU(4, return_sequences=True, return_state=True, seed=0)
    x, h0 = random.normal(size=(3, 6, 2)), random.normal(size=(3, 4)).astype("float32")
    y, last = layer(x, lengths=[6, 0, 3], initial_state=h0)
    assert np.array_equal(last[1], h0[1])
    assert np.array_equal(last[2], y[2, 2])
    assert np.array_equal(y[2, 3:], np.repeat(last[2:3], 3, 0))
    first, state = layer(x[:, :4])
    second, _ = layer(x[:, 4:], initial_state=state)
    assert np.array_equal(np.concatenate([first, second], 1), layer(x)[0])
    (y, _), backward = layer.forward(x, initial_state=h0)
    dx, dh0 = backward(np.zeros_like(y), np.ones_like(last))
    assert dx.shape == x.shape and np.abs(dh0).max() > 0


def test_no_steps_give_an_empty_output_and_the_first_state():
    h0 = np.ones((2, 3), "float32")
    x = np.zeros((2, 0, 4))
    assert fg.GRU(3, return_sequences=True)(x).shape == (2, 0, 3)
    assert np.array_equal(fg.GRU(3)(x, initial_state=h0), h0)
    y, backward = fg.GRU(3).forward(x, initial_state=h0)
    dx, dh0 = backward(np.full_like(h0, 2))
    assert dx.shape == x.shape and np.array_equal(dh0, np.full_like(h0, 2))


def test_changes_of_the_weights_are_seen():
    layer = fg.GRU(4, seed=0)
    x = np.ones((1, 2, 3))
    before = layer(x)
    layer.params["kernel"][...] = 0
    middle = layer(x)
    assert not np.array_equal(before, middle)
    layer.params["recurrent_bias"][...] = 1
    assert not np.array_equal(middle, layer(x))
    other = fg.Dense(4, seed=0)
    before = other(x)
    other.set_weights([w + 1 for w in other.get_weights()])
    assert not np.array_equal(before, other(x))


def test_forwards_may_overlap_and_backward_runs_once():
    layer = fg.GRU(4, **F64)
    random = np.random.default_rng(0)
    xs = random.normal(size=(2, 3, 5, 2))
    (y0, back0), (_, back1) = layer.forward(xs[0]), layer.forward(xs[1])
    dx0 = back0(np.ones_like(y0))
    back1(np.ones_like(y0))
    again = fg.GRU(4, **F64)
    y, back = again.forward(xs[0])
    assert np.array_equal(back(np.ones_like(y)), dx0)
    with pytest.raises(RuntimeError, match="backward was called before"):
        back(np.ones_like(y))


def test_embedding_looks_up_and_adds_up():
    layer = fg.Embedding(9, 4, **F64)
    ids = np.array([[1, 2, 1], [8, 0, 1]])
    y, backward = layer.forward(ids)
    assert np.array_equal(y, layer.params["embeddings"][ids])
    dy = np.random.default_rng(0).normal(size=y.shape)
    backward(dy)
    want = reference.embedding_backward(dy, ids, layer.params["embeddings"])
    np.testing.assert_allclose(layer.grads["embeddings"], want, rtol=1e-12, atol=1e-15)


def test_dropout_drops_in_training_alone():
    layer = fg.Dropout(0.25, seed=1)
    x = np.ones((200, 50), "float32")
    assert np.array_equal(layer(x), x)
    y, backward = layer.forward(x)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    assert np.array_equal(backward(x), y)


def test_seeds_repeat_the_weights():
    def weights():
        layer = fg.GRU(5)
        layer.build((None, None, 3))
        return layer.get_weights()

    fg.set_random_seed(7)
    first = weights()
    different = weights()
    fg.set_random_seed(7)
    assert all(map(np.array_equal, first, weights()))
    assert not np.array_equal(first[0], different[0])


def test_configs_make_the_same_layer_again():
    for layer in (
        fg.GRU(3, activation="relu", reset_after=False, return_state=True, seed=4, name="a"),
        fg.Dense(3, "gelu", use_bias=False, dtype="float64"),
        fg.Embedding(5, 2, mask_zero=True, input_length=7),
        fg.Dropout(0.5),
    ):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert repr(layer).startswith(type(layer).__name__)


X = np.zeros((3, 5, 4))
MISTAKES = [
    (lambda: fg.GRU(0), ValueError, "units: expected a positive integer, given 0"),
    (lambda: fg.GRU(2.5), TypeError, "units: expected a positive integer, given 2.5"),
    (lambda: fg.GRU(2, activation="tan"), ValueError, "activation: .*tanh.*Did you mean 'tanh'"),
    (lambda: fg.GRU(2, activation="gelu"), ValueError, "for Dense"),
    (lambda: fg.GRU(2, dtype="float16"), ValueError, "dtype: expected 'float32' or 'float64'"),
    (lambda: fg.GRU(2)(X[0]), ValueError, r"gru: x: .*\(batch, steps, inputs\), given \(5, 4\)"),
    (lambda: fg.GRU(2)("text"), TypeError, "x: expected real numbers"),
    (lambda: fg.GRU(2)([[1], [1, 2]]), ValueError, "x: .*different lengths"),
    (lambda: fg.GRU(2)(X, lengths=[1, 2]), ValueError, r"lengths: expected shape \(3,\)"),
    (lambda: fg.GRU(2)(X, lengths=[1, 2, 6]), ValueError, "lengths: expected values from 0 to 5"),
    (lambda: fg.GRU(2)(X, lengths=[1.0, 2, 3]), TypeError, "lengths: expected integers"),
    (lambda: fg.GRU(2)(X, mask=np.ones((3, 4), bool)), ValueError, r"mask: expected .*\(3, 5\)"),
    (lambda: fg.GRU(2)(X, mask=np.ones((3, 5))), TypeError, "mask: expected an array of bool"),
    (lambda: fg.GRU(2)(X, initial_state=X[0]), ValueError, r"initial_state: .*\(3, 2\)"),
    (lambda: fg.GRU(2).set_weights([]), ValueError, "expected a built layer"),
    (lambda: fg.Dense(3, "sofmax"), ValueError, "Did you mean 'softmax'"),
    (lambda: fg.Dense(3)(np.zeros(4)), ValueError, "dense: x: expected shape"),
    (lambda: fg.Embedding(5, 2)([[5]]), ValueError, "x: expected integers from 0 to 4, given 5"),
    (lambda: fg.Embedding(5, 2)([[-1]]), ValueError, "given -1"),
    (lambda: fg.Embedding(5, 2)([[0.5]]), TypeError, "x: expected integers"),
    (lambda: fg.Embedding(0, 2), ValueError, "input_dim: expected a positive integer"),
    (lambda: fg.Dropout(1.0), ValueError, r"rate: expected a number in \[0, 1\)"),
    (lambda: fg.GRU(2, seed=-1), ValueError, "seed: expected an integer >= 0, given -1"),
    (lambda: fg.GRU(2, seed="a"), ValueError, "seed: expected an integer >= 0, given 'a'"),
    (lambda: fg.GRU(2, name=5), TypeError, "name: expected a str, given 5"),
    (lambda: fg.set_random_seed(-1), ValueError, "seed: expected an integer >= 0"),
    (lambda: fg.set_num_threads(0), ValueError, "n: expected a positive integer"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_a_wrong_number_of_features_is_named():
    layer = fg.GRU(2)
    layer(X)
    with pytest.raises(ValueError, match=re.escape("expected shape (batch, steps, 4)")):
        layer(X[..., :3])


def test_any_layout_of_the_input_gives_the_same_bits():
    layer = fg.GRU(6, seed=0)
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    want = layer(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.zeros((6, 5, 8), "float32")[::2, :, ::2]
    strided[...] = x
    for other in (frozen, strided, np.asfortranarray(x), x.astype(">f4"), x.astype("float64")):
        assert np.array_equal(layer(other), want)
        y, backward = layer.forward(other)
        assert np.array_equal(y, want) and backward(y).shape == x.shape
