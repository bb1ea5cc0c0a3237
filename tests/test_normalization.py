"""Layer normalization: rows, weights, masks, gradients."""

import numpy as np
import pytest
import test_layers

import fastgru as fg
from fastgru import reference

EVERY = [{}, {"center": False}, {"scale": False}, {"center": False, "scale": False}]


def example(**options):
    layer = fg.LayerNormalization(dtype="float64", **options)
    layer.build((None, None, 4))
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    return layer, random.normal(size=(3, 5, 4))


@pytest.mark.parametrize("options", [*EVERY, {"epsilon": 0.5}])
def test_it_equals_the_reference(options):
    layer, x = example(**options)
    gamma, beta = layer.params.get("gamma", np.ones(4)), layer.params.get("beta", np.zeros(4))
    want = reference.normalization(x, gamma, beta, options.get("epsilon", 1e-3))
    np.testing.assert_allclose(layer(x), want, rtol=1e-12)
    np.testing.assert_allclose(layer(x[:, 0]), want[:, 0], rtol=1e-12)
    assert list(layer.params) == [
        n for n, o in (("gamma", "scale"), ("beta", "center")) if options.get(o, True)
    ]


@pytest.mark.parametrize("options", EVERY)
def test_gradients_are_central_differences(options):
    layer, x = example(**options)
    test_layers.check_gradients(layer, x)
    layer.zero_gradients()
    test_layers.check_gradients(layer, x, lengths=[5, 0, 2])


def test_it_begins_with_ones_and_zeros():
    layer = fg.LayerNormalization()
    y = layer(np.random.default_rng(0).normal(3, 5, size=(6, 40)))
    gamma, beta = layer.get_weights()
    assert (gamma == 1).all() and not beta.any()
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=1), 1, rtol=1e-3)


def test_what_masked_steps_hold_is_invisible():
    layer, x = example()
    mask = np.arange(5) < np.array([[5], [0], [2]])
    results = []
    for padding in (0, np.nan, np.inf):
        layer.zero_gradients()
        values = np.where(mask[..., None], x, padding)
        y, backward = layer.forward(values, mask=mask)
        dx = backward(mask[..., None] * np.ones_like(y))
        results.append([y, dx, *layer.get_gradients()])
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))
    assert (results[0][0][~mask] == layer.params["beta"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_one_at_a_time_and_any_number_of_threads_give_the_same_bits(dtype, rng, threads):
    layer = fg.LayerNormalization(dtype=dtype)
    x = rng.normal(size=(7, 6, 43)).astype(dtype)
    results = []
    for n in (1, 2, 3):
        threads.set_num_threads(n)
        layer.zero_gradients()
        y, backward = layer.forward(x)
        results.append([y, backward(x * y), *layer.get_gradients()])
    assert all(all(map(np.array_equal, results[0], other)) for other in results)
    step = layer.stream(7)
    assert all(np.array_equal(step(x[:, t]), y[:, t]) for t in range(6))


def test_mistakes_are_named():
    layer, x = example()
    for mistake, message in (
        (lambda: fg.LayerNormalization(epsilon=0), "epsilon: expected a number > 0, given 0"),
        (lambda: layer(x[..., :3]), r"layernormalization: x: expected shape \(3, 5, 4\)"),
        (lambda: layer(x[0, 0]), r"x: expected shape \(batch, ..., K\), given \(4,\)"),
        (lambda: layer.forward(x)[1](x[:1]), r"dy: expected shape \(3, 5, 4\), given \(1, 5, 4\)"),
        (lambda: fg.LayerNormalization()(x[..., :0]), "expected a last axis of 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            mistake()
