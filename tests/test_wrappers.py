"""A layer at every step: shapes, masks, weights, gradients, files."""

import numpy as np
import pytest
import test_layers

import fastgru as fg
from fastgru.wrappers import INNER

F64 = {"dtype": "float64", "seed": 3}
B, T, I_, K = 3, 5, 4, 6
LENGTHS = [5, 0, 2]

# Makers, and the shape of one step.
KINDS = {
    "Dense": (lambda **o: fg.Dense(7, "tanh", **o), (I_,)),
    "LayerNormalization": (fg.LayerNormalization, (I_,)),
    "Activation": (lambda **o: fg.Activation("elu", **o), (I_, K)),
    "GRU": (lambda **o: fg.GRU(7, **o), (K, I_)),
    "LSTM": (lambda **o: fg.LSTM(7, return_sequences=True, **o), (K, I_)),
    "SimpleRNN": (lambda **o: fg.SimpleRNN(7, **o), (K, I_)),
    "Bidirectional": (lambda **o: fg.Bidirectional(fg.GRU(7, **o)), (K, I_)),
    "Attention": (lambda **o: fg.Attention(**o), (K, I_)),
    "GlobalAveragePooling1D": (fg.GlobalAveragePooling1D, (K, I_)),
    "GlobalMaxPooling1D": (fg.GlobalMaxPooling1D, (K, I_)),
    "GlobalMaxAveragePooling1D": (fg.GlobalMaxAveragePooling1D, (K, I_)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def example(kind):
    """Return a TimeDistributed, the same layer with the same weights alone, and an input."""
    make, shape = KINDS[kind]
    x = np.random.default_rng(0).normal(size=(B, T, *shape))
    layer, alone = fg.TimeDistributed(make(**F64)), make(**F64)
    layer.build(x.shape)
    alone.build((None, *shape))
    alone.set_weights(layer.get_weights())
    return layer, alone, x


def test_the_table_has_all_but_what_draws_at_random_or_looks_up():
    others = {"Dropout", "SpatialDropout1D", "Embedding", "EmbeddingBag"}
    assert set(INNER) - set(KINDS) == others


@each_kind
def test_every_step_is_given_to_the_layer(kind):
    layer, alone, x = example(kind)
    y, backward = layer.forward(x)
    assert y.shape == layer(x).shape == layer.output_shape(x.shape)
    dy = np.random.default_rng(1).normal(size=y.shape)
    dx = backward(dy)
    for t in range(T):
        want, back = alone.forward(x[:, t])
        assert np.array_equal(y[:, t], want) and np.array_equal(layer(x)[:, t], want)
        assert np.array_equal(dx[:, t], back(dy[:, t]))
    for got, want in zip(layer.get_gradients(), alone.get_gradients(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@each_kind
@pytest.mark.parametrize("steps", [{}, {"lengths": LENGTHS}])
def test_gradients_are_central_differences(kind, steps):
    layer, _, x = example(kind)
    test_layers.check_gradients(layer, x[:, :, ..., :3] if x.ndim < 3 else x, **steps)


@each_kind
def test_masked_steps_are_left_out(kind):
    layer, alone, x = example(kind)
    mask = np.arange(T) < np.array(LENGTHS)[:, None]
    x[~mask] = np.nan
    y, backward = layer.forward(x, lengths=LENGTHS)
    assert not y[~mask].any() and np.array_equal(y[mask], alone(x[mask]))
    assert np.array_equal(layer(x, mask=mask), y)
    dx = backward(np.ones_like(y))
    assert not dx[~mask].any() and np.isfinite(dx).all()
    assert all(np.isfinite(g).all() for g in layer.get_gradients())
    y, backward = layer.forward(x, lengths=[0] * B)
    assert not y.any() and not backward(y).any()


def test_words_of_characters_go_through_an_embedding_and_a_gru():
    x = np.random.default_rng(0).integers(0, 9, (20, T, K))
    model = fg.Sequential(
        [
            fg.TimeDistributed(fg.Embedding(9, 4)),
            fg.TimeDistributed(fg.GRU(5)),
            fg.GRU(6),
            fg.TimeDistributed(fg.Dropout(0.5)),
            fg.Dense(1),
        ][:3]
        + [fg.Dense(1)]
    )
    model.compile("adam", "mse")
    history = model.fit(x, x[:, -1, :1] / 9, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    with pytest.raises(ValueError, match="expected integers from 0 to 8"):
        model.fit(x + 9, x[:, -1, :1], verbose=0)


def hierarchical():
    """Return a model of words of characters, where 0 is padding, and ids with some."""
    x = np.random.default_rng(0).integers(1, 9, (4, 3, 5))
    x[np.arange(5) >= np.array([[5, 2, 1], [3, 0, 4], [1, 0, 0], [0, 0, 0]])[..., None]] = 0
    layers = [
        fg.Embedding(9, 4, mask_zero=True),
        fg.Dense(5, "tanh"),
        fg.TimeDistributed(fg.GRU(6, return_sequences=True, go_backwards=True)),
        fg.TimeDistributed(fg.Bidirectional(fg.LSTM(3))),
        fg.GRU(2),
    ]
    return fg.Sequential(layers), x


def test_a_layer_is_given_the_mask_inside_of_each_step(tmp_path):
    model, x = hierarchical()
    y = model.predict(x)
    embedding, dense, first, second, last = model.layers
    for row, want in zip(x, y, strict=True):
        words = [
            second.layer(first.layer(dense(embedding(word[word > 0][None]))))
            for word in row
            if word.any()
        ]
        if words:
            np.testing.assert_allclose(last(np.stack(words, axis=1))[0], want, atol=1e-6)
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(fg.load_model(tmp_path / "m.safetensors").predict(x), y)
    lengths = [3, 3, 1, 0]
    assert np.array_equal(model.predict([r[:n] for r, n in zip(x, lengths, strict=True)]), y)
    x[2, 1:] = x[3] = 99
    assert np.array_equal(model.predict(x, lengths=lengths), y)


def test_a_model_of_words_of_characters_is_built_at_once_and_trains():
    model, x = hierarchical()
    assert [layer.built for layer in model.layers] == [True] * 5
    assert model.layers[0].input_shape == (None, None, None)
    model.compile(fg.optimizers.Adam(0.05), "mse")
    y = np.random.default_rng(1).normal(size=(4, 2))
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(ValueError, match=r"gru: x: expected shape \(batch, steps, inputs\)"):
        model.predict(x[:, 0])
    with pytest.raises(ValueError, match="gru_1: x: .*Set return_sequences=True"):
        model.add(fg.GRU(3))


@pytest.mark.parametrize("axes", [2, 3])
def test_a_mask_of_more_axes_is_that_of_the_steps_that_have_something(axes):
    x = np.random.default_rng(0).normal(size=(B, T, K, I_))
    mask = np.random.default_rng(1).random((B, T, K)[:axes]) < 0.5
    some = mask if axes == 2 else mask.any(axis=2)
    layer = fg.TimeDistributed(fg.GRU(7, **F64))
    assert np.array_equal(layer.output_mask(x, mask), some)
    y = layer(x, mask=mask, lengths=LENGTHS)
    here = some & (np.arange(T) < np.array(LENGTHS)[:, None])
    assert y[here].any(axis=-1).all() and not y[~here].any()
    test_layers.check_gradients(layer, x, mask=mask)
    layer = fg.TimeDistributed(fg.LayerNormalization(**F64))
    assert np.array_equal(layer.output_mask(x, mask), mask)
    with pytest.raises(ValueError, match="mask: expected shape"):
        layer(x, mask=np.ones((B, T, K + 1), bool))


def test_it_streams_saves_and_sees_changes(tmp_path, rng):
    model = fg.Sequential(
        [fg.GRU(6, return_sequences=True), fg.TimeDistributed(fg.Dense(3, "softmax"))]
    )
    x = rng.normal(size=(2, T, I_)).astype(np.float32)
    y = model.predict(x)
    step = model.stream(2)
    assert all(np.array_equal(step(x[:, t]), y[:, t]) for t in range(T))
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(fg.load_model(tmp_path / "m.safetensors").predict(x), y)
    assert model.layers[1].params["bias"] is model.layers[1].layer.params["bias"]
    model.layers[1].params["bias"][0] += 1
    assert not np.array_equal(model.predict(x), y)
    model.layers[1].set_weights([0 * w for w in model.layers[1].get_weights()])
    np.testing.assert_allclose(model.predict(x), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: fg.TimeDistributed(3), TypeError, "layer: expected one of Activation, .* given 3"),
        (lambda: fg.TimeDistributed(fg.Masking()), TypeError, "layer: expected one of Activation"),
        (lambda: fg.TimeDistributed(fg.GRU(3, return_state=True)), ValueError, "return_state"),
        (
            lambda: fg.TimeDistributed(fg.Bidirectional(fg.GRU(3, return_state=True))),
            ValueError,
            "layer: expected one without return_state, given 'bidirectional'",
        ),
        (lambda: fg.TimeDistributed(fg.Attention(return_weights=True)), ValueError, "_weights"),
        (
            lambda: fg.TimeDistributed(test_layers.built(fg.Dense(3))),
            ValueError,
            "layer: expected one that is not built, given 'dense'",
        ),
        (
            lambda: fg.TimeDistributed(fg.Dense(3))(np.zeros(4)),
            ValueError,
            r"\(batch, steps, ...\)",
        ),
        (
            lambda: fg.TimeDistributed(fg.Dense(3))(np.zeros((4, 5))),
            ValueError,
            r"dense: x: expected shape \(batch, ..., inputs\), given \(None,\)",
        ),
        (
            lambda: fg.TimeDistributed(fg.Dense(3)).forward(np.zeros((2, 3, 4)))[1](np.zeros(2)),
            ValueError,
            r"timedistributed: dy: expected shape \(2, 3, 3\), given \(2,\)",
        ),
        (
            lambda: test_layers.built(fg.TimeDistributed(fg.Attention(), name="a")),
            ValueError,
            r"attention: x: expected shape \(batch, steps, inputs\)",
        ),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_words_cannot_be_streamed_as_characters():
    layer = fg.TimeDistributed(fg.GRU(3))
    layer.build((None, None, 4, 2))
    with pytest.raises(TypeError, match="cannot work step by step"):
        layer.stream()
