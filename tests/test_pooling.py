"""Pooling over time: the steps that count, ties, gradients."""

import numpy as np
import pytest
import test_layers

import fastgru as fg

KINDS = [fg.GlobalAveragePooling1D, fg.GlobalMaxPooling1D]
each_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = [5, 0, 2]


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_the_steps_that_count_are_pooled(kind, dtype, rng):
    x = rng.normal(size=(3, 5, 4)).astype(dtype)
    pool = np.mean if kind is fg.GlobalAveragePooling1D else np.max
    mask = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0]], bool)
    for steps, here in (
        ({"lengths": LENGTHS}, np.arange(5) < np.array(LENGTHS)[:, None]),
        ({"mask": mask}, mask),
        ({"mask": mask, "lengths": LENGTHS}, mask & (np.arange(5) < np.array(LENGTHS)[:, None])),
        ({}, np.ones((3, 5), bool)),
    ):
        y = kind(dtype=dtype)(x, **steps)
        assert y.dtype == dtype
        for row, values, real in zip(y, x, here, strict=True):
            want = pool(values[real], axis=0) if real.any() else np.zeros(4)
            np.testing.assert_allclose(row, want, rtol=1e-6)


@each_kind
@pytest.mark.parametrize("steps", [{}, {"lengths": LENGTHS}])
def test_gradients_are_central_differences(kind, steps, rng):
    test_layers.check_gradients(kind(dtype="float64"), rng.normal(size=(3, 5, 4)), **steps)


@each_kind
def test_padding_is_invisible_whatever_it_holds_and_however_long_it_is(kind, rng):
    x, results = rng.normal(size=(3, 5, 4)), []
    for padding, steps in ((0.0, 5), (np.nan, 5), (np.inf, 17), (1e300, 40)):
        mask = np.arange(steps) < np.array(LENGTHS)[:, None]
        values = np.full((3, steps, 4), padding)
        values[mask] = x[np.arange(5) < np.array(LENGTHS)[:, None]]
        y, backward = kind(dtype="float64").forward(values, lengths=LENGTHS)
        dx = backward(np.ones_like(y))
        assert not dx[~mask].any()
        results.append([y, dx[mask]])
    assert all(all(map(np.array_equal, results[0], other)) for other in results)


def test_of_equal_values_the_first_has_the_gradient():
    x = np.array([[[1.0], [3.0], [3.0], [2.0]]])
    y, backward = fg.GlobalMaxPooling1D().forward(x, mask=np.array([[True, False, True, True]]))
    assert y == 3 and backward(np.array([[7.0]]))[0, :, 0].tolist() == [0, 0, 7, 0]
    y, backward = fg.GlobalMaxPooling1D().forward(x)
    assert y == 3 and backward(np.array([[7.0]]))[0, :, 0].tolist() == [0, 7, 0, 0]


@each_kind
def test_what_is_not_finite_is_computed_through(kind):
    x = np.array([[[1.0, -np.inf], [np.nan, -np.inf], [5.0, -np.inf]]])
    assert np.array_equal(kind()(x), [[np.nan, -np.inf]], equal_nan=True)


@each_kind
def test_a_layer_behind_pooling_sees_no_mask(kind):
    x = np.array([[3, 4, 0], [5, 0, 0]])
    model = fg.Sequential([fg.Embedding(9, 4, mask_zero=True), kind(), fg.Dense(2)])
    assert model.predict(x).shape == (2, 2) and model.layers[1].output_shape((2, 3, 4)) == (2, 4)


@each_kind
def test_mistakes_are_named(kind):
    layer = kind()
    with pytest.raises(ValueError, match=r"pooling1d: x: expected shape \(batch, steps, inputs\)"):
        layer(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"pooling1d: x: expected shape \(batch, steps, inputs\)"):
        fg.Sequential([fg.GRU(3), layer]).build((None, 5, 4))
    with pytest.raises(ValueError, match=r"pooling1d: dy: expected shape \(2, 4\), given \(2, 3\)"):
        layer.forward(np.zeros((2, 5, 4)))[1](np.zeros((2, 3)))


@pytest.mark.parametrize("steps", [{}, {"lengths": LENGTHS}])
def test_both_poolings_side_by_side_are_what_each_is_alone(steps, rng):
    x = rng.normal(size=(3, 5, 4))
    layer = fg.GlobalMaxAveragePooling1D(dtype="float64")
    alone = [kind(dtype="float64")(x, **steps) for kind in reversed(KINDS)]
    assert np.array_equal(layer(x, **steps), np.concatenate(alone, axis=1))
    assert layer.output_shape((None, 5, 4)) == (None, 8)
    test_layers.check_gradients(layer, x, **steps)


def test_a_dense_layer_may_follow_both_poolings():
    model = fg.Sequential([fg.GRU(3, return_sequences=True), fg.GlobalMaxAveragePooling1D()])
    model.add(fg.Dense(2))
    assert model.predict(np.ones((2, 5, 4))).shape == (2, 2)
    assert model.layers[2].weights()["kernel"].shape == (6, 2)
