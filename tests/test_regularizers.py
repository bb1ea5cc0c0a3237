"""Regularizers: their costs and gradients, and what fit, evaluate and files make of them."""

import numpy as np
import pytest

import fastgru as fg
from fastgru import regularizers

W = np.array([[0.5, -2.0, 0.0], [1.5, -0.25, 3.0]])


@pytest.mark.parametrize(
    ("identifier", "value"),
    [
        ("l1", 0.01 * 7.25),
        ("L2", 0.01 * (0.25 + 4 + 2.25 + 0.0625 + 9)),
        ("l1_l2", 0.01 * (7.25 + 15.5625)),
        (regularizers.L1L2(l2=0.5), 0.5 * 15.5625),
        ({"name": "l1", "l1": 2.0}, 14.5),
    ],
)
def test_a_cost_is_its_formula_and_its_gradient_the_central_difference(identifier, value):
    cost = regularizers.get("kernel_regularizer", identifier)
    assert cost.value(W) == pytest.approx(value, rel=1e-12)
    gradient = cost.gradient(W)
    for i in np.ndindex(W.shape):
        step = np.zeros_like(W)
        step[i] = 1e-6
        slope = (cost.value(W + step) - cost.value(W - step)) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-8)
    assert cost.gradient(W.astype(np.float32)).dtype == np.float32
    again = regularizers.get("kernel_regularizer", regularizers.config_of(cost))
    assert type(again) is type(cost) and again.value(W) == cost.value(W)


def layers():
    rules = {"kernel_regularizer": "l2", "bias_regularizer": regularizers.L1(0.02)}
    return [
        fg.Embedding(9, 4, embeddings_regularizer="l1_l2", seed=0),
        fg.Bidirectional(
            fg.GRU(3, recurrent_regularizer="l1", bias_initializer="ones", seed=1, **rules)
        ),
        fg.Dense(1, bias_initializer="ones", seed=2, **rules),
    ]


def test_fit_and_evaluate_report_the_costs_and_training_follows_their_gradients():
    ids, y = np.random.default_rng(0).integers(0, 9, (6, 5)), np.ones((6, 1))
    model = fg.Sequential(layers())
    model.compile(fg.optimizers.SGD(0.0), "mse")
    plain = fg.Sequential([fg.Embedding(9, 4), fg.Bidirectional(fg.GRU(3)), fg.Dense(1)])
    plain.compile(fg.optimizers.SGD(0.0), "mse")
    plain.build(ids.shape), model.build(ids.shape)
    plain.set_weights(model.get_weights())
    E, (k, u, b, kb, ub, bb), (dk, db) = (layer.get_weights() for layer in model.layers)
    [E] = E
    want = 0.01 * (np.abs(E).sum() + (E**2).sum())
    want += 0.01 * sum((w**2).sum() for w in (k, kb, dk))
    want += 0.01 * sum(np.abs(w).sum() for w in (u, ub))
    want += 0.02 * sum(np.abs(w).sum() for w in (b, bb, db))
    assert want > 0.1
    assert model.evaluate(ids, y) - plain.evaluate(ids, y) == pytest.approx(want, rel=1e-4)
    got = model.fit(ids, y, verbose=0).history["loss"][0]
    assert got - plain.fit(ids, y, verbose=0).history["loss"][0] == pytest.approx(want, rel=1e-4)
    model.train_on_batch(ids, y), plain.train_on_batch(ids, y)
    for layer, other in zip(model.layers, plain.layers, strict=True):
        for name, gradient in layer.grads.items():
            cost, w = layer.regularizer(name), layer.params[name]
            np.testing.assert_allclose(
                gradient - other.grads[name], cost.gradient(w), rtol=1e-3, atol=1e-6
            )


def test_weights_that_are_not_trained_cost_nothing():
    layer = layers()[2]
    layer.build((None, 4))
    assert layer.penalty() > 0
    layer.trainable = False
    assert layer.penalty() == 0


def test_costs_are_saved_with_the_model(tmp_path):
    model = fg.Sequential(layers())
    model.save(tmp_path / "m.safetensors")
    again = fg.load_model(tmp_path / "m.safetensors")
    assert [a.get_config() for a in again.layers] == [b.get_config() for b in model.layers]
    assert [a.penalty() for a in again.layers] == [b.penalty() for b in model.layers]


class Own(regularizers.L1L2):
    def value(self, w):
        return float(np.max(w))


def test_a_cost_of_ones_own_works_but_cannot_be_saved(tmp_path):
    model = fg.Sequential([fg.Dense(2, kernel_regularizer=Own())])
    model.build((None, 3))
    assert model.layers[0].penalty() == model.layers[0].params["kernel"].max()
    with pytest.raises(TypeError, match="kernel_regularizer.*given Own"):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: fg.Dense(2, kernel_regularizer="l3"), ValueError, "kernel_regularizer: .*l1_l2"),
        (lambda: fg.GRU(2, bias_regularizer=0.1), TypeError, "bias_regularizer: expected one of"),
        (lambda: regularizers.L2(-1), ValueError, "l2: expected a number >= 0, given -1"),
        (lambda: regularizers.L1("a"), TypeError, "l1: expected a number >= 0"),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
