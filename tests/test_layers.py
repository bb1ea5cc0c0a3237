"""Layers: shapes, gradients, weights in Keras' layout, and errors that say what was expected."""

import copy
import os
import pickle
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from children import finish, start

import fastgru as fg
from fastgru import layers, recurrent, reference
from fastgru.layers import ACTIVATIONS
from fastgru.recurrent import RECURRENT_ACTIVATIONS
from fastgru.tied import TiedEmbedding

F64 = {"dtype": "float64", "seed": 3}

# At least one of every kind, for what all of them must keep.
EXAMPLES = [
    lambda **options: fg.Embedding(9, 4, **options),
    lambda **options: fg.EmbeddingBag(9, 4, **options),
    lambda **options: fg.GRU(6, **options),
    lambda **options: fg.GRU(6, return_sequences=True, reset_after=False, **options),
    lambda **options: fg.GRU(6, return_sequences=True, go_backwards=True, **options),
    lambda **options: fg.LSTM(6, **options),
    lambda **options: fg.SimpleRNN(6, return_sequences=True, **options),
    lambda **options: fg.Bidirectional(fg.GRU(6, **options)),
    lambda **options: fg.Bidirectional(fg.LSTM(6, return_sequences=True, **options), "mul"),
    lambda **options: fg.Dense(7, "tanh", **options),
    lambda **options: fg.Dense(7, "softmax", **options),
    lambda **options: fg.Dense(7, "gelu", **options),
    lambda **options: fg.Dropout(0.25, **options),
    lambda **options: fg.SpatialDropout1D(0.25, **options),
    lambda **options: fg.Activation("softmax", **options),
    lambda **options: fg.Activation("gelu", **options),
    lambda **options: fg.Masking(**options),
    lambda **options: fg.LayerNormalization(**options),
    lambda **options: fg.GlobalAveragePooling1D(**options),
    lambda **options: fg.GlobalMaxAveragePooling1D(**options),
    lambda **options: fg.GlobalMaxPooling1D(**options),
    lambda **options: fg.Attention(units=6, **options),
    lambda **options: fg.TimeDistributed(fg.Dense(7, "tanh", **options)),
]
every_layer = pytest.mark.parametrize("make", EXAMPLES, ids=lambda make: type(make()).__name__)


def input_of(layer, B=3, T=5, seed=0):
    random = np.random.default_rng(seed)
    if isinstance(layer, fg.EmbeddingBag):
        return random.integers(0, 9, (B, T, 4))
    if isinstance(layer, fg.Embedding):
        return random.integers(0, 9, (B, T))
    return random.normal(size=(B, T, 4)).astype(layer.dtype)


def listed(value):
    """Return a list as it is, and one array in a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def numeric(layer, x, gradients, array, eps=1e-6, **options):
    """Return the central differences of sum(outputs * gradients) with respect to an array."""

    def total():
        outputs = listed(layer(x, **options))
        return sum((y * dy).sum() for y, dy in zip(outputs, gradients, strict=True))

    result = np.empty_like(array)
    for i in np.ndindex(array.shape):
        kept = array[i]
        array[i] = kept + eps
        high = total()
        array[i] = kept - eps
        low = total()
        array[i] = kept
        result[i] = (high - low) / (2 * eps)
    return result


def check_gradients(layer, x, **options):
    """Compare the gradients of all inputs, of outputs and states alike, with differences."""
    random = np.random.default_rng(5)
    outputs, backward = layer.forward(x, **options)
    gradients = [random.normal(size=y.shape) for y in listed(outputs)]
    got = backward(*gradients) if len(gradients) < 2 else backward(gradients[0], gradients[1:])
    pairs = {}
    if isinstance(got, tuple):
        got, dinitial = got
        initial = listed(options["initial_state"])
        for i, pair in enumerate(zip(listed(dinitial), initial, strict=True)):
            pairs[f"initial_state[{i}]"] = pair
    if got is not None:
        pairs["x"] = got, x
    pairs |= {name: (layer.grads[name], param) for name, param in layer.params.items()}
    for name, (gradient, array) in pairs.items():
        want = numeric(layer, x, gradients, array, **options)
        np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-8, err_msg=name)


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


@pytest.mark.parametrize("kind", [fg.LSTM, fg.SimpleRNN])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("return_state", [True, False])
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"use_bias": False}])
def test_gradients_of_other_cells_are_central_differences(
    kind, return_sequences, return_state, options
):
    random = np.random.default_rng(1)
    layer = kind(6, return_sequences=return_sequences, return_state=return_state, **options, **F64)
    x = random.normal(size=(3, 5, 4))
    initial = [random.normal(size=(3, 6)) for _ in layer.STATES]
    check_gradients(layer, x, lengths=[5, 0, 2], initial_state=initial)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("cell", [fg.GRU, fg.LSTM])
def test_gradients_in_both_directions_are_central_differences(merge_mode, return_sequences, cell):
    random = np.random.default_rng(1)
    options = {"return_sequences": return_sequences, "return_state": merge_mode != "sum"}
    layer = fg.Bidirectional(cell(5, **options, **F64), merge_mode)
    x = random.normal(size=(3, 4, 2))
    initial = [random.normal(size=(3, 5)) for _ in range(2 * len(cell.STATES))]
    check_gradients(layer, x, lengths=[4, 0, 2], initial_state=initial)
    check_gradients(fg.Bidirectional(cell(3, **options, **F64), merge_mode), x[:2])


def check_activations_mean_their_names():
    """Compare each one, by its name, with the reference: in Dense and all places of cells."""
    random = np.random.default_rng(4)
    x = random.normal(size=(3, 5, 4))
    for name in ACTIVATIONS:
        layer = fg.Dense(7, name, **F64)
        got, (kernel, bias) = layer(x), layer.get_weights()
        want = reference.ACTIVATIONS[name].function(x @ kernel + bias)
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12, err_msg=name)
    for role in ("activation", "recurrent_activation"):
        for name in RECURRENT_ACTIVATIONS:
            layer = fg.GRU(6, **{role: name}, **F64)
            got, h0 = layer(x), np.zeros((3, 6))
            want, _ = reference.gru_forward(x, None, h0, *layer.params.values(), **{role: name})
            np.testing.assert_allclose(got, want[:, -1], rtol=1e-10, err_msg=f"{role} {name}")
            layer = fg.LSTM(6, **{role: name}, **F64)
            got = layer(x)
            weights = h0, h0, *layer.params.values()
            want, *_ = reference.lstm_forward(x, None, *weights, **{role: name})
            np.testing.assert_allclose(got, want[:, -1], rtol=1e-10, err_msg=f"{role} {name}")
    for name in RECURRENT_ACTIVATIONS:
        layer = fg.SimpleRNN(6, activation=name, **F64)
        got = layer(x)
        want = reference.simple_rnn_forward(x, None, h0, *layer.params.values(), activation=name)
        np.testing.assert_allclose(got, want[:, -1], rtol=1e-10, err_msg=name)


def test_activations_mean_their_names():
    check_activations_mean_their_names()
    assert set(ACTIVATIONS) == set(reference.ACTIVATIONS)


@pytest.mark.parametrize("i", range(len(ACTIVATIONS) - 1))
def test_swapped_names_of_activations_are_found(i, monkeypatch):
    names = list(ACTIVATIONS)
    names[i : i + 2] = names[i + 1], names[i]
    for module in (layers, recurrent):
        monkeypatch.setattr(module, "ACTIVATIONS", tuple(names))
    with pytest.raises(AssertionError):
        check_activations_mean_their_names()


@pytest.mark.parametrize("name", RECURRENT_ACTIVATIONS)
def test_activations_of_recurrent_layers_have_right_gradients(name):
    x = np.random.default_rng(2).normal(size=(2, 4, 3))
    options = {"recurrent_activation": "hard_sigmoid"}
    for kind, more in ((fg.GRU, options), (fg.LSTM, options), (fg.SimpleRNN, {})):
        check_gradients(kind(5, activation=name, **more, **F64), x)


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


@pytest.mark.parametrize("shape", [(3, 5, 7), (30, 40, 7), (0, 5, 7), (3, 0, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **options: fg.GRU(9, return_sequences=True, **options),
        lambda **options: fg.GRU(9, return_sequences=True, reset_after=False, **options),
        lambda **options: fg.LSTM(9, return_sequences=True, use_bias=False, **options),
        lambda **options: fg.SimpleRNN(40, return_sequences=True, go_backwards=True, **options),
        lambda **options: fg.GRU(
            3, return_sequences=True, activation=(np.tanh, lambda y: 1 - y * y), **options
        ),
        lambda **options: fg.Dense(9, **options),
        lambda **options: fg.Dense(40, "relu", use_bias=False, **options),
    ],
)
def test_gradients_may_be_overwritten(make, dtype, shape, threads):
    """Then they have the bits that those have which are added to zeros, whatever was there."""
    random = np.random.default_rng(0)
    layer = make(dtype=dtype, seed=1)
    x = random.normal(size=shape)
    mask = random.random(shape[:2]) < 0.7
    gradients = []
    for workers, overwrite in ((1, False), (1, True), (2, True)):
        threads.set_num_threads(workers)
        y, backward = layer.forward(x, mask=mask)
        for gradient in layer.grads.values():
            gradient[...] = np.nan if overwrite else 0
        dy = np.random.default_rng(1).normal(size=y.shape)
        dx = backward(dy, overwrite=overwrite)
        gradients.append([dx, *(gradient.copy() for gradient in layer.grads.values())])
    for got in gradients[1:]:
        for one, other in zip(got, gradients[0], strict=True):
            np.testing.assert_array_equal(one, other)


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


@every_layer
@pytest.mark.parametrize(("B", "T"), [(0, 5), (3, 0), (0, 0)])
def test_an_empty_batch_and_no_steps_go_through(make, B, T):
    layer = make(seed=0)
    x = input_of(layer, B, T)
    y, backward = layer.forward(x)
    assert y.shape == layer(x).shape == layer.output_shape(x.shape)
    dx = backward(np.ones_like(y))
    assert dx is None or dx.shape == x.shape
    assert all(not g.any() for g in layer.get_gradients())
    if isinstance(layer, (recurrent.Recurrent, fg.Bidirectional)):
        states = getattr(layer, "STATES", None) or 2 * layer.forward_layer.STATES
        initial = [np.ones((B, 6)) for _ in states]
        y, backward = layer.forward(x, lengths=[0] * B, initial_state=initial)
        dx, dinitial = backward(np.ones_like(y))
        assert dx.shape == x.shape and not dx.any()
        assert [a.shape for a in listed(dinitial)] == [(B, 6)] * len(initial)


# ---- LSTM and SimpleRNN


def test_lstm_and_simple_rnn_equal_the_reference_through_their_keras_weights():
    random = np.random.default_rng(3)
    x = random.normal(size=(3, 4, 2))
    for kind, columns, forward in (
        (fg.LSTM, 20, reference.lstm_forward),
        (fg.SimpleRNN, 5, reference.simple_rnn_forward),
    ):
        layer = kind(5, return_sequences=True, **F64)
        layer.build(x.shape)
        weights = [random.normal(size=w.shape) / 2 for w in layer.get_weights()]
        assert [w.shape for w in weights] == [(2, columns), (5, columns), (columns,)]
        layer.set_weights(weights)
        initial = [np.zeros((3, 5)) for _ in layer.STATES]
        want = forward(x, None, *initial, *weights)
        want = want[0] if isinstance(want, tuple) else want
        np.testing.assert_allclose(layer(x), want, rtol=1e-12)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_both_states_of_an_lstm_go_in_and_out(return_sequences):
    random = np.random.default_rng(4)
    layer = fg.LSTM(4, return_sequences=return_sequences, return_state=True, seed=0)
    x = random.normal(size=(3, 6, 2))
    initial = [random.normal(size=(3, 4)).astype("float32") for _ in "hc"]
    y, h, c = layer(x, lengths=[6, 0, 3], initial_state=initial)
    assert np.array_equal(h[1], initial[0][1]) and np.array_equal(c[1], initial[1][1])
    assert np.array_equal(h, y[:, -1] if return_sequences else y)
    _, *states = layer(x[:, :4])
    second, *ends = layer(x[:, 4:], initial_state=states)
    whole, *want = layer(x)
    assert np.array_equal(second, whole[:, 4:] if return_sequences else whole)
    assert all(map(np.array_equal, ends, want))
    (trained, *kept), _ = layer.forward(x, lengths=[6, 0, 3], initial_state=initial)
    assert all(map(np.array_equal, [trained, *kept], [y, h, c]))


def test_one_of_the_gradients_of_two_states_may_be_missing():
    x = np.random.default_rng(0).normal(size=(3, 6, 2))
    results = []
    for dstates in ([None, np.ones((3, 4))], [np.zeros((3, 4)), np.ones((3, 4))]):
        layer = fg.LSTM(4, return_state=True, **F64)
        (y, _, _), backward = layer.forward(x)
        results.append([backward(None, dstates), *layer.get_gradients()])
    assert results[0][0].any() and all(map(np.array_equal, *results))


def test_an_lstm_begins_with_a_forget_bias_of_one_unless_told_otherwise():
    for option, want in ((True, [0, 1, 0, 0]), (False, [0] * 4)):
        layer = fg.LSTM(5, unit_forget_bias=option)
        layer.build((None, None, 3))
        assert np.array_equal(layer.get_weights()[2], np.repeat(want, 5))


# ---- both directions


def directions(layer):
    """Return the two layers of a built Bidirectional, made anew, with their weights."""
    weights = layer.get_weights()
    half = len(weights) // 2
    options = layer.get_config()["layer"]["config"]
    pair = []
    for go_backwards, own in ((False, weights[:half]), (True, weights[half:])):
        made = type(layer.forward_layer)(**options | {"go_backwards": go_backwards})
        made.build(layer.input_shape)
        made.set_weights(own)
        pair.append(made)
    return pair


@pytest.mark.parametrize("cell", [fg.GRU, fg.LSTM, fg.SimpleRNN])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_each_row_is_read_from_both_of_its_own_ends(cell, merge_mode):
    random = np.random.default_rng(2)
    options = {"return_sequences": True, "return_state": True, **F64}
    layer = fg.Bidirectional(cell(5, **options), merge_mode)
    x, lengths = random.normal(size=(4, 6, 3)), [6, 1, 4, 2]
    last_only = fg.Bidirectional(cell(5, **F64), merge_mode)
    y, *states = layer(x, lengths=lengths)
    last_only.build(x.shape)
    last_only.set_weights(layer.get_weights())
    last = last_only(x, lengths=lengths)
    there, back = directions(layer)
    for b, length in enumerate(lengths):
        row = x[b : b + 1, :length]
        (one, *ends), (other, *beginnings) = there(row), back(row)
        for got, want in zip(states, [*ends, *beginnings], strict=True):
            np.testing.assert_array_equal(got[b : b + 1], want)

        def merged(a, z):
            merges = {"concat": np.concatenate([a, z], -1), "sum": a + z, "mul": a * z}
            return merges.get(merge_mode, (a + z) / 2)

        np.testing.assert_array_equal(y[b, :length], merged(one, other[:, ::-1])[0])
        np.testing.assert_array_equal(last[b], merged(one[0, -1], other[0, -1]))


def test_a_template_that_goes_backwards_has_its_directions_exchanged():
    layer = fg.Bidirectional(fg.GRU(5, return_sequences=True, go_backwards=True, **F64), "sum")
    x = np.random.default_rng(0).normal(size=(3, 6, 2))
    y, other = layer(x), fg.Bidirectional(fg.GRU(5, return_sequences=True, **F64), "sum")
    other.build(x.shape)
    weights = layer.get_weights()
    other.set_weights(weights[3:] + weights[:3])
    np.testing.assert_allclose(y, other(x)[:, ::-1], rtol=1e-12)
    mask = np.arange(6) < np.array([[6], [2], [0]])
    assert np.array_equal(layer.output_mask(x, mask), mask[:, ::-1])
    assert np.array_equal(other.output_mask(x, mask), mask)


def test_padding_is_invisible_in_both_directions():
    layer = fg.Bidirectional(fg.LSTM(5, return_sequences=True, return_state=True, **F64))
    x = np.random.default_rng(0).normal(size=(3, 6, 2))
    mask = np.arange(6) < np.array([[6], [0], [3]])
    results = []
    for padding in (0.0, np.nan):
        layer.zero_gradients()
        filled = np.where(mask[..., None], x, padding)
        (y, *states), backward = layer.forward(filled, mask=mask)
        dx = backward(np.ones_like(y), [np.ones_like(s) for s in states])
        assert not dx[~mask].any() and dx[mask].all()
        results.append([y, *states, dx, *layer.get_gradients()])
    assert all(map(np.array_equal, *results))


@every_layer
def test_nothing_in_the_padding_reaches_outputs_or_gradients(make):
    lengths = [5, 0, 3]
    mask = np.arange(5) < np.array(lengths)[:, None]
    results = []
    for padding in (-1, 99) if isinstance(make(), fg.Embedding) else (1.0, np.nan):
        layer = make(**F64)
        x = input_of(layer)
        x[~mask] = padding
        y, backward = layer.forward(x, lengths=lengths)
        dy = np.random.default_rng(1).normal(size=y.shape)
        here = layer.output_mask(x, mask)
        if here is not None:
            y, dy[~here] = y[here], 0
        dx = backward(dy)
        results.append([y, *layer.get_gradients(), dx if dx is None else dx[mask]])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("activation", ["linear", "tanh", "gelu", "softmax"])
@pytest.mark.parametrize("padding", [np.nan, np.inf, np.finfo(np.float64).max])
def test_what_a_dense_layer_finds_in_the_padding_makes_no_gradient(activation, padding):
    mask = np.random.default_rng(1).random((2, 3, 5)) < 0.5
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    x[~mask] = padding
    layer = fg.Dense(7, activation, **F64)
    layer.build(x.shape)
    layer.set_weights([9 * w for w in layer.get_weights()])  # so that the largest overflows
    y, backward = layer.forward(x, mask=mask)
    assert np.array_equal(y[mask], layer(x[mask])) and np.array_equal(y, layer(x, mask=mask))
    dx = backward(mask[..., None] * np.ones_like(y))
    assert not dx[~mask].any() and np.isfinite(dx).all()
    gradients = layer.get_gradients()
    layer.zero_gradients()
    layer.forward(x[mask])[1](np.ones_like(y[mask]))
    for got, want in zip(gradients, layer.get_gradients(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def tied_embedding(rows, dim):
    output = fg.Dense(rows, **F64)
    output.build((None, dim))
    return TiedEmbedding(output, dtype="float64")


@pytest.mark.parametrize("kind", [fg.Embedding, fg.EmbeddingBag, tied_embedding])
def test_ids_in_the_padding_are_not_looked_at(kind):
    layer = kind(9, 4)
    bag = (1,) if kind is fg.EmbeddingBag else ()
    ids = np.array([[1, 2, -1], [99, 7, 5]]).reshape(2, 3, *bag)
    mask = np.array([[True, True, False], [False, True, True]])
    y, backward = layer.forward(ids, mask=mask)
    assert np.array_equal(y[mask], layer(ids.clip(0, 8))[mask])
    backward(np.ones_like(y))
    assert layer.grads[next(iter(layer.params))].sum() == 4 * mask.sum()
    with pytest.raises(ValueError, match="expected integers from 0 to 8, given 0 to 99"):
        layer(ids, lengths=[2, 3])
    with pytest.raises(ValueError, match="lengths: expected values from 0 to 3, given 1 to 7"):
        layer(ids, lengths=[1, 7])
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, steps\), given \(3,\)"):
        layer(ids.reshape(6)[:3], lengths=[1, 1, 1])


@pytest.mark.parametrize(
    "layer",
    [fg.Embedding(9, 4), fg.Dense(2), fg.GRU(2), fg.LayerNormalization()],
    ids=lambda layer: layer.name,
)
def test_lengths_that_do_not_fit_are_refused(layer):
    for call in (layer, layer.forward):
        with pytest.raises(ValueError, match="lengths: expected values from 0 to 5, given 1 to 9"):
            call(input_of(layer, B=2), lengths=[1, 9])
    assert not layer.built


def test_two_directions_have_weights_of_their_own_in_one_order():
    layer = fg.Bidirectional(fg.GRU(5, seed=3))
    layer.build((None, None, 2))
    alone = fg.GRU(5, seed=3)
    alone.build((None, None, 2))
    weights = layer.get_weights()
    assert all(map(np.array_equal, weights[:3], alone.get_weights()))
    assert not np.array_equal(weights[0], weights[3])
    again = fg.Bidirectional(fg.GRU(5, seed=3))
    again.build((None, None, 2))
    assert all(map(np.array_equal, weights, again.get_weights()))
    assert list(layer.params)[::4] == ["forward_kernel", "backward_kernel"]
    assert layer.count_params() == 2 * alone.count_params()
    assert np.array_equal(layer.params["backward_kernel"], layer.backward_layer.params["kernel"])


def test_states_of_two_directions_come_forward_first():
    random = np.random.default_rng(4)
    layer = fg.Bidirectional(fg.LSTM(4, return_state=True, **F64))
    initial = [random.normal(size=(3, 4)) for _ in range(4)]
    _, *states = layer(random.normal(size=(3, 6, 2)), lengths=[6, 0, 3], initial_state=initial)
    assert len(states) == 4
    for state, first in zip(states, initial, strict=True):
        assert np.array_equal(state[1], first[1]) and not np.array_equal(state[0], first[0])


def test_changes_of_the_weights_of_either_direction_are_seen():
    layer = fg.Bidirectional(fg.GRU(4, seed=0))
    x = np.ones((1, 2, 3))
    seen = [layer(x)]
    layer.set_weights([w + 1 for w in layer.get_weights()])
    seen.append(layer(x))
    for name in ("forward_kernel", "backward_kernel"):
        layer.params[name][...] = 0
        seen.append(layer(x))
    for i, y in enumerate(seen):
        assert all(not np.array_equal(y, other) for other in seen[:i])


# ---- weights


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


def test_values_assigned_to_a_param_are_copied_into_its_array():
    layer, other = fg.GRU(5, seed=0), fg.GRU(5, seed=1)
    x = input_of(layer)
    layer(x), other(x)
    kept = dict(layer.params)
    for name, values in other.params.items():
        layer.params[name] = np.asfortranarray(values.astype("float64"))
    assert all(layer.params[name] is array for name, array in kept.items())
    assert np.array_equal(layer(x), other(x))
    layer.grads["kernel"] = np.ones((4, 15))
    layer.grads["kernel"] += 1
    assert (layer.get_gradients()[0] == 2).all()


def test_params_take_many_values_at_once_or_none():
    layer = fg.Dense(3, **F64)
    layer.build((None, 2))
    params, random = layer.params, np.random.default_rng(0)
    kernel, bias = random.normal(size=(2, 3)), random.normal(size=3)
    params.update({"kernel": kernel}, bias=bias)
    assert np.array_equal(params["kernel"], kernel) and np.array_equal(params["bias"], bias)
    params |= {"bias": params["bias"][::-1]}
    assert params is layer.params and np.array_equal(params["bias"], bias[::-1])
    with pytest.raises(ValueError, match="bias"):
        params.update(kernel=np.zeros((2, 3)), bias=kernel)
    assert np.array_equal(params["kernel"], kernel)


def test_params_are_a_dict():
    layer = fg.GRU(5, seed=0)
    layer.build((None, None, 4))
    names = ["kernel", "recurrent_kernel", "bias", "recurrent_bias"]
    assert isinstance(layer.params, dict) and list(layer.params) == list(layer.grads) == names
    assert list(dict(**layer.params)) == names and "bias" in layer.params
    for again in (copy.deepcopy(layer.params), pickle.loads(pickle.dumps(layer.params))):
        assert all(map(np.array_equal, again.values(), layer.params.values()))
        again["kernel"] = np.zeros((4, 15))
        with pytest.raises(KeyError, match="params: expected one of"):
            again["x"] = 0
    assert copy.copy(layer.params)["kernel"] is layer.params["kernel"]
    assert layer.params["kernel"].any()


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda p: p.update(bias=np.zeros(2)), ValueError, r"params\['bias'\]: expected.*\(3,\)"),
        (lambda p: p.__setitem__("kernel", np.zeros((3, 2))), ValueError, r"given \(3, 2\)"),
        (lambda p: p.__setitem__("bias", ["a"] * 3), TypeError, "expected real numbers"),
        (lambda p: p.__setitem__("bias", np.zeros(3, complex)), TypeError, "given an array"),
        (lambda p: p.__setitem__("b", 0), KeyError, r"\['kernel', 'bias'\], given 'b'"),
        (lambda p: p["biases"], KeyError, r"\['kernel', 'bias'\], given 'biases'"),
        (lambda p: p.__delitem__("bias"), TypeError, "params: expected new values"),
        (lambda p: p.pop("bias"), TypeError, "params: expected new values"),
        (lambda p: p.popitem(), TypeError, "params: expected new values"),
        (lambda p: p.clear(), TypeError, "params: expected new values"),
        (lambda p: p.setdefault("b", 0), TypeError, "params: expected new values"),
    ],
)  # fmt: skip
def test_params_keep_their_names_and_shapes(mistake, error, message):
    layer = fg.Dense(3, seed=0)
    layer.build((None, 2))
    before = layer.get_weights()
    with pytest.raises(error, match=message):
        mistake(layer.params)
    assert all(map(np.array_equal, layer.get_weights(), before))


def test_weights_to_begin_with_are_checked():
    with pytest.raises(ValueError, match=r"dense: kernel: expected shape \(2, 3\), given \(2, 2\)"):
        fg.Dense(3).build((None, 2), {"kernel": np.zeros((2, 2)), "bias": np.zeros(3)})


def test_weights_packed_while_they_change_are_packed_again():
    layer = fg.Dense(3, **F64)
    x = np.random.default_rng(0).normal(size=(4, 2))
    layer.build(x.shape)
    old, new = layer.get_weights(), [w + 1 for w in layer.get_weights()]

    def slow(backward):
        weights = layer._pack(backward)
        layer.set_weights(new)
        return weights

    layer.packed(False, slow)
    np.testing.assert_allclose(layer(x), x @ new[0] + new[1], rtol=1e-12)
    layer.set_weights(old)
    np.testing.assert_allclose(layer(x), x @ old[0] + old[1], rtol=1e-12)


# ---- threads, copies and other processes


@pytest.fixture
def impatient():
    """Threads that take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@every_layer
def test_many_threads_may_be_the_first_to_use_a_layer(make, impatient):
    barrier = threading.Barrier(16)
    for seed in range(5):
        alone, shared = make(seed=seed), make(seed=seed)
        x = input_of(alone)
        want = alone(x)

        def use(_, layer=shared, x=x):
            barrier.wait(60)
            return layer(x)

        with ThreadPoolExecutor(16) as pool:
            got = list(pool.map(use, range(16)))
        assert all(np.array_equal(y, want) for y in got)
        assert np.array_equal(shared(x), want)
        assert all(map(np.array_equal, shared.get_weights(), alone.get_weights()))


def test_gradients_of_many_threads_add_up(impatient):
    layer = fg.Dense(300, **F64)
    x = np.random.default_rng(0).normal(size=(2, 40))
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait(60)
        for _ in range(10):
            y, backward = layer.forward(x)
            backward(np.ones_like(y))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    np.testing.assert_allclose(layer.grads["bias"], 2 * 80)


@every_layer
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_a_copy_shares_nothing(make, duplicate):
    layer = make(seed=0)
    x = input_of(layer)
    want = layer(x)
    other = duplicate(layer)
    assert np.array_equal(other(x), want)
    for name, w in other.weights().items():
        assert not np.shares_memory(w, layer.weights()[name])
        w += 1
    other.changed()
    assert np.array_equal(layer(x), want)
    if layer.weights() and not getattr(layer, "activation", None) == "softmax":
        assert not np.array_equal(other(x), want)


@every_layer
def test_a_layer_that_arrives_read_only_owns_what_it_has(make):
    layer = make(seed=0)
    x = input_of(layer)
    want = layer(x)
    state = layer.__getstate__()
    own = [*layer.weights().values(), *layer.grads.values()]
    for array in own:
        array.flags.writeable = False
    arrived = type(layer).__new__(type(layer))
    arrived.__setstate__(state)
    y, backward = arrived.forward(x)
    backward(y)
    for array in (*arrived.params.values(), *arrived.grads.values()):
        assert array.flags.writeable and array.flags.c_contiguous
        array += 1
    for array in own:
        array.flags.writeable = True
    assert np.array_equal(layer(x), want)


def fitted(model, x, y):
    model.fit(x, y, verbose=0, shuffle=False)
    return model.get_weights()


def test_joblib_workers_train_what_arrives_in_read_only_memory():
    joblib = pytest.importorskip("joblib")
    model = fg.Sequential([fg.GRU(8, seed=0), fg.Dense(1, seed=0)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(20, 5, 4)).astype("float32")
    y = x[:, -1, :1]
    model.build(x.shape)
    parallel = joblib.Parallel(n_jobs=2, backend="loky", max_nbytes=64)
    results = parallel(joblib.delayed(fitted)(model, x, y) for _ in range(2))
    want = fitted(model, x, y)
    assert all(all(map(np.array_equal, weights, want)) for weights in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_holds_the_locks_of_a_layer_uses_it():
    code = """
import os, signal, threading
import numpy as np, fastgru as fg
layer, new = fg.Dense(3, seed=0), fg.Dense(3, seed=0)
y, backward = layer.forward(np.ones((2, 4)))
held, done = threading.Event(), threading.Event()
def hold():
    with layer._adding.now, new._building.now:
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    backward(y)
    assert np.array_equal(new(np.ones((2, 4))), y)
    os._exit(0)
_, status = os.waitpid(child, 0)
done.set()
thread.join()
backward(y)
print(os.waitstatus_to_exitcode(status))
"""
    assert finish(start("-W", "ignore", "-c", code)) == "0\n"


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


@every_layer
def test_two_forwards_in_flight_do_not_touch_each_other(make):
    one, other = make(**F64), make(**F64)
    first, second = input_of(one), input_of(one, B=2, seed=1)
    (y, back), (z, back_too) = one.forward(first), one.forward(second)
    got = [y, z, back(y), back_too(z), *one.get_gradients()]
    want = []
    for x in (first, second):
        y, back = other.forward(x)
        want += [y, back(y)]
    want = [*want[::2], *want[1::2], *other.get_gradients()]
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a, b) if b is not None else a is None


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
    with pytest.raises(ValueError, match=r"dropout: dy: expected shape \(200, 50\)"):
        layer.forward(x)[1](x[:1])


def test_dropout_passes_on_the_very_input_in_inference():
    layer = fg.Dropout(0.25, seed=1)
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    frozen = x.copy()
    frozen.flags.writeable = False
    for given in (x, frozen, x[::2], np.asfortranarray(x)):
        before = given.copy()
        assert layer(given) is given and np.array_equal(given, before)
    assert np.array_equal(layer(x.astype("float64")), x)


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


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_a_seed_of_any_integer_type_is_an_int(kind):
    layer = fg.GRU(5, seed=kind(7))
    assert type(layer.seed) is int and layer.seed == layer.get_config()["seed"] == 7
    x = input_of(layer)
    assert np.array_equal(layer(x), fg.GRU(5, seed=7)(x))


def test_configs_make_the_same_layer_again():
    for layer in (
        fg.GRU(3, activation="relu", reset_after=False, return_state=True, seed=4, name="a"),
        fg.LSTM(3, recurrent_activation="elu", unit_forget_bias=False, go_backwards=True),
        fg.SimpleRNN(3, activation=None, return_sequences=True, use_bias=False),
        fg.Bidirectional(fg.LSTM(3, return_state=True, seed=4, dtype="float64"), "ave", name="a"),
        fg.Dense(3, "gelu", use_bias=False, dtype="float64"),
        fg.Embedding(5, 2, mask_zero=True, input_length=7),
        fg.Dropout(0.5, trainable=False),
        fg.GRU(3, stateful=True, zero_output_for_mask=True, dropout=0.25, recurrent_dropout=0.5),
        fg.Bidirectional(fg.LSTM(3, kernel_regularizer="l1", trainable=False)),
        fg.SimpleRNN(3, recurrent_initializer="he_normal", bias_regularizer="l2"),
        fg.SpatialDropout1D(0.5, "steps", seed=1),
        fg.Activation(None, name="a"),
        fg.Masking(-1.0),
        fg.LayerNormalization(1e-5, center=False, dtype="float64"),
        fg.GlobalAveragePooling1D(name="a"),
        fg.GlobalMaxPooling1D(seed=2),
        fg.Attention("general", query_dim=3, return_weights=True),
        fg.Attention(units=5, seed=2),
        fg.TimeDistributed(fg.Bidirectional(fg.LSTM(3, seed=4)), name="a"),
    ):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert repr(layer).startswith(type(layer).__name__)


X = np.zeros((3, 5, 4))


def built(layer):
    layer(X)
    return layer


MISTAKES = [
    (lambda: fg.GRU(0), ValueError, "units: expected a positive integer, given 0"),
    (lambda: fg.GRU(2.5), TypeError, "units: expected a positive integer, given 2.5"),
    (lambda: fg.GRU(2, activation="tan"), ValueError, "activation: .*tanh.*Did you mean 'tanh'"),
    (lambda: fg.GRU(2, activation="gelu"), ValueError, "for Dense"),
    (lambda: fg.GRU(2, dtype="float16"), ValueError, "dtype: expected 'float32' or 'float64'"),
    (lambda: fg.GRU(2, dtype=None), ValueError, "dtype: expected .* given None"),
    (lambda: fg.GRU(2)(X[0]), ValueError, r"gru: x: .*\(batch, steps, inputs\), given \(5, 4\)"),
    (lambda: fg.GRU(2)("text"), TypeError, "x: expected real numbers"),
    (lambda: fg.GRU(2)([[1], [1, 2]]), ValueError, "x: .*different lengths"),
    (lambda: fg.GRU(2)(X, lengths=[1, 2]), ValueError, r"lengths: expected shape \(3,\)"),
    (lambda: fg.GRU(2)(X, lengths=[1, 2, 6]), ValueError, "lengths: expected values from 0 to 5"),
    (lambda: fg.GRU(2)(X, lengths=[1.0, 2, 3]), TypeError, "lengths: expected integers"),
    (lambda: fg.GRU(2)(X, mask=np.ones((3, 4), bool)), ValueError, r"mask: expected .*\(3, 5\)"),
    (lambda: fg.GRU(2)(X, mask=np.ones((3, 5))), TypeError, "mask: expected an array of bool"),
    (lambda: fg.GRU(2)(X, initial_state=X[0]), ValueError, r"initial_state: .*\(3, 2\)"),
    (lambda: fg.LSTM(2)(X, initial_state=X[:, 0, :2]), ValueError, r"a list \[h, c\], given one"),
    (lambda: fg.LSTM(2)(X, initial_state=[X[:, 0, :2]]), ValueError, "given a list of 1"),
    (
        lambda: fg.LSTM(2)(X, initial_state=[X[:, 0, :2], X[:, 0]]),
        ValueError,
        r"lstm: initial_state\[1\]: expected shape \(3, 2\)",
    ),
    (lambda: fg.LSTM(2, reset_after=True), TypeError, "reset_after"),
    (lambda: fg.GRU(2, stateful=1), TypeError, "stateful: expected a bool, given 1"),
    (lambda: fg.GRU(2, dropout=1.0), ValueError, r"dropout: expected a number in \[0, 1\)"),
    (lambda: fg.LSTM(2, recurrent_dropout="a"), TypeError, "recurrent_dropout: expected a number"),
    (lambda: fg.Dense(2, trainable=None), TypeError, "trainable: expected a bool, given None"),
    (lambda: fg.Dense(2, use_bias="no"), TypeError, "use_bias: expected a bool, given 'no'"),
    (lambda: fg.Embedding(2, 2, mask_zero=0), TypeError, "mask_zero: expected a bool, given 0"),
    (lambda: fg.Bidirectional(fg.GRU(2), trainable=1), TypeError, "trainable: expected a bool"),
    (lambda: fg.SimpleRNN(2, activation="gelu"), ValueError, "for Dense"),
    (lambda: fg.Bidirectional(fg.Dense(2)), TypeError, "layer: expected one of GRU, LSTM, Simp"),
    (lambda: fg.Bidirectional(fg.GRU), TypeError, "layer: expected one of GRU, LSTM, SimpleRNN"),
    (lambda: fg.Bidirectional(built(fg.GRU(2))), ValueError, "layer: expected one that is not bu"),
    (lambda: fg.Bidirectional(fg.GRU(2), "add"), ValueError, "merge_mode: expected one of ave"),
    (lambda: fg.Bidirectional(fg.GRU(2))(X[0]), ValueError, "bidirectional: x: .*x\\[None\\]"),
    (
        lambda: fg.Bidirectional(fg.GRU(2))(X, initial_state=[X[:, 0, :2]]),
        ValueError,
        "initial_state: expected a list of 2 arrays, .* given a list of 1",
    ),
    (lambda: fg.GRU(2).set_weights([]), ValueError, "expected a built layer"),
    (lambda: fg.Dense(3, "sofmax"), ValueError, "Did you mean 'softmax'"),
    (lambda: fg.Dense(3)(np.zeros(4)), ValueError, "dense: x: expected shape"),
    (lambda: fg.Embedding(5, 2)([[5]]), ValueError, "x: expected integers from 0 to 4, given 5"),
    (lambda: fg.Embedding(5, 2)([[-1]]), ValueError, "given -1"),
    (lambda: fg.Embedding(5, 2)([[0.5]]), TypeError, "x: expected integers"),
    (lambda: fg.Embedding(5, 2)([[1], [1, 2]]), ValueError, "x: .*different lengths"),
    (lambda: fg.Embedding(5, 2, input_length=0), ValueError, "input_length: expected a positive"),
    (lambda: fg.Embedding(0, 2), ValueError, "input_dim: expected a positive integer"),
    (lambda: fg.Dropout(1.0), ValueError, r"rate: expected a number in \[0, 1\)"),
    (lambda: fg.GRU(2, seed=-1), ValueError, "seed: expected an integer >= 0, given -1"),
    (lambda: fg.GRU(2, seed="a"), TypeError, "seed: expected an integer >= 0, given 'a'"),
    (lambda: fg.GRU(2, name=5), TypeError, "name: expected a str, given 5"),
    (lambda: fg.set_random_seed(-1), ValueError, "seed: expected an integer >= 0"),
    (lambda: fg.set_num_threads(0), ValueError, "n: expected a positive integer"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fg.GRU(3, unts=4), "GRU: .* units, .* given 'unts'. Did you mean 'units'"),
        (lambda: fg.Dense(3, stateful=True), "Dense: .*activation, .*use_bias, given 'stateful'"),
        (lambda: fg.optimizers.Adam(lrr=1), "Adam: .*beta_1, .*lr, .*'lrr'. Did you mean 'lr'"),
        (lambda: fg.losses.get({"name": "mse", "x": 1}), "MeanSquaredError: expected no options"),
        (lambda: fg.losses.get({"name": "huber", "x": 1}), "Huber: .* among delta, given 'x'"),
        (lambda: fg.metrics.get({"class": "F1", "name": "f1", "x": 1}), "F1: .*name, threshold, "),
    ],
)
def test_options_that_there_are_not_are_refused_with_those_of_the_class(make, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: built(fg.GRU(3)).set_weights(None), "gru: weights: expected a list .* given None"),
        (lambda: fg.Sequential([fg.GRU(3)]).set_weights(5), "weights: expected a list of arrays"),
        (lambda: fg.GRU(3).build(5), "gru: input_shape: expected a tuple .*given 5"),
        (lambda: fg.GRU(3).build("abc"), "gru: input_shape: expected a tuple .*given 'abc'"),
        (lambda: fg.GRU(3).build((None, None, 3.0)), "gru: input_shape: .*3.0"),
        (lambda: fg.Bidirectional(fg.GRU(3)).build(5), "gru: input_shape: expected a tuple"),
        (lambda: fg.TimeDistributed(fg.Dense(3)).build(5), "distributed: input_shape: expected"),
        (lambda: fg.Sequential([fg.GRU(3)]).build(5), "^input_shape: expected a tuple"),
    ],
)
def test_shapes_and_weights_that_are_none_are_named(mistake, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mistake()


ODD = np.ones((9, 9), bool)
FIRST_CALLS = {
    "mask": (lambda: fg.GRU(3), {"mask": ODD}),
    "lengths": (lambda: fg.LSTM(3), {"lengths": [1, 2, 3]}),
    "initial_state": (lambda: fg.GRU(3), {"initial_state": np.zeros((2, 9))}),
    "mask in both directions": (lambda: fg.Bidirectional(fg.GRU(3)), {"mask": ODD}),
    "one state of two": (
        lambda: fg.Bidirectional(fg.GRU(3)),
        {"initial_state": [np.zeros((2, 3)), np.zeros((2, 9))]},
    ),
    "mask of steps": (lambda: fg.TimeDistributed(fg.Dense(3)), {"mask": ODD}),
    "mask of values": (fg.Attention, {"mask": ODD}),
    "mask of a pool": (fg.GlobalMaxPooling1D, {"mask": ODD}),
    "mask of features": (fg.LayerNormalization, {"mask": ODD}),
}


@pytest.mark.parametrize("name", FIRST_CALLS)
def test_a_first_call_that_fails_leaves_a_layer_that_takes_any_input(name):
    make, options = FIRST_CALLS[name]
    layer = make()
    for use in (layer, layer.forward):
        with pytest.raises(ValueError, match=next(iter(options))):
            use(np.zeros((2, 3, 4)), **options)
        assert not layer.built
    layer(np.zeros((2, 3, 5)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: fg.GRU(3), lambda: fg.Bidirectional(fg.GRU(3)), lambda: fg.Dense(3),
        lambda: fg.Embedding(3, 4), lambda: fg.Dropout(0.1), lambda: fg.Masking(),
        lambda: fg.TimeDistributed(fg.Dense(3)), fg.Attention, fg.GlobalMaxPooling1D,
        fg.LayerNormalization, lambda: fg.Activation("relu"),
    ],
)  # fmt: skip
def test_what_is_no_input_is_refused_in_the_name_of_the_layer(make):
    layer = make()
    with pytest.raises(TypeError, match=f"^{layer.name}: x: expected real numbers, given"):
        layer(None)


def test_a_wrong_number_of_features_is_named():
    layer = fg.GRU(2)
    layer(X)
    with pytest.raises(ValueError, match=re.escape("expected shape (batch, steps, 4)")):
        layer(X[..., :3])


def test_a_missing_axis_is_named_where_it_is_what_is_missing():
    def message(x, **options):
        with pytest.raises(ValueError) as caught:
            layer(x, **options)
        return str(caught.value)

    layer = fg.GRU(2)
    assert message(X[0]).endswith("given (5, 4). Add the missing axis: x[None].")
    layer(X)
    assert message(X[0]).endswith("Add the missing axis: x[None].")
    assert message(X[0, :, :3]).endswith("expected shape (batch, steps, 4), given (5, 3).")
    assert message(X[0, 0]).endswith("given (4,).")
    assert message(X, initial_state=np.zeros(2)).endswith("given (2,).")
    assert message(X[:1], initial_state=np.zeros(2)).endswith("axis: initial_state[None].")
    assert message(X, mask=np.ones(5, bool)).endswith("expected shape (3, 5), given (5,).")


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


def test_bags_are_sums_of_embeddings_and_zero_is_nothing():
    layer = fg.EmbeddingBag(9, 4, mask_zero=True, **F64)
    ids = np.array([[[1, 7, 8], [2, 2, 0], [0, 0, 0]]])
    y, backward = layer.forward(ids)
    table = layer.params["embeddings"]
    want = [table[[1, 7, 8]].sum(axis=0), 2 * table[2], np.zeros(4)]
    np.testing.assert_allclose(y[0], want, rtol=1e-12)
    assert layer.output_mask(ids, None).tolist() == [[True, True, False]]
    check_gradients(layer, ids)
    assert not layer.grads["embeddings"][0].any()
    model = fg.Sequential([fg.EmbeddingBag(9, 4), fg.GRU(3)])  # built before it has seen data
    assert model.count_params() == 36 + 4 * 9 + 3 * 9 + 18
    assert model.predict([ids[0], ids[0, :2]]).shape == (2, 3)
    for wrong, message in ((ids[0, 0], r"expected shape \(\.\.\., bag\)"), (ids + 6, "0 to 8")):
        with pytest.raises(ValueError, match=message):
            layer(wrong)


def test_nothing_is_dropped_where_gradients_of_inference_are_asked_for():
    layer = fg.Dropout(0.5, seed=3)
    x = np.ones((40, 5), np.float32)
    with layers.no_dropout():
        y, backward = layer.forward(x)
    assert np.array_equal(y, x) and np.array_equal(backward(x), x)
    assert not np.array_equal(layer.forward(x)[0], x)
