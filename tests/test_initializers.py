"""Initial weights: their distributions, by name, by config and by function."""

import math

import numpy as np
import pytest

import fastgru as fg
from fastgru import initializers

ROWS, COLUMNS = 60, 240
SPREAD = {  # the standard deviation of each distribution for ROWS x COLUMNS
    "glorot_uniform": math.sqrt(2 / (ROWS + COLUMNS)),
    "glorot_normal": math.sqrt(2 / (ROWS + COLUMNS)),
    "he_uniform": math.sqrt(2 / ROWS),
    "he_normal": math.sqrt(2 / ROWS),
    "lecun_uniform": math.sqrt(1 / ROWS),
    "lecun_normal": math.sqrt(1 / ROWS),
    "random_uniform": 0.1 / math.sqrt(12),
    "random_normal": 0.05,
}


@pytest.mark.parametrize("name", SPREAD)
def test_a_distribution_has_its_mean_its_spread_and_its_bounds(name):
    values = initializers.get("kernel_initializer", name)((ROWS, COLUMNS), np.random.default_rng(3))
    assert values.shape == (ROWS, COLUMNS)
    assert abs(values.mean()) < 0.03 * SPREAD[name]
    assert values.std() == pytest.approx(SPREAD[name], rel=0.02)
    largest = np.abs(values).max() / SPREAD[name]
    if "uniform" in name:
        assert 0.99 * math.sqrt(3) < largest <= math.sqrt(3)
    elif name == "random_normal":
        assert 3 < largest < 6
    else:  # a normal distribution cut off at 2, and widened
        assert 2.2 < largest <= 2 / initializers.TRUNCATED


def test_an_orthogonal_matrix_is_one_in_both_shapes():
    for shape in ((4, 9), (9, 4)):
        q = initializers.get("a", "orthogonal")(shape, np.random.default_rng(0))
        product = q @ q.T if shape[0] < shape[1] else q.T @ q
        np.testing.assert_allclose(product, np.eye(4), atol=1e-12)
    with pytest.raises(ValueError, match=r"orthogonal: expected the shape of a matrix, given \(4,"):
        fg.Dense(4, bias_initializer="orthogonal").build((None, 3))


def test_the_layers_begin_with_what_their_options_say():
    own = lambda shape, random: np.arange(math.prod(shape)).reshape(shape)  # noqa: E731
    options = {"recurrent_initializer": own, "bias_initializer": initializers.Constant(3)}
    for kind in (fg.GRU, fg.SimpleRNN):
        layer = kind(2, kernel_initializer="ones", **options)
        layer.build((None, None, 3))
        assert (layer.params["kernel"] == 1).all() and (layer.params["bias"] == 3).all()
        assert (layer.params["recurrent_kernel"].ravel() == np.arange(4 * layer.GATES)).all()
    both = fg.Bidirectional(fg.LSTM(2, unit_forget_bias=False, **options))
    both.build((None, None, 3))
    assert (both.params["backward_bias"] == 3).all() and both.params["backward_kernel"].std() > 0
    lstm = fg.LSTM(2, **options)
    lstm.build((None, None, 3))
    assert lstm.params["bias"].tolist() == [3, 3, 1, 1, 3, 3, 3, 3]
    dense = fg.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    assert dense(np.ones((1, 3))).tolist() == [[1, 1]]
    table = fg.Embedding(5, 2, embeddings_initializer={"name": "constant", "value": 0.5})
    assert (table([[1, 2]]) == 0.5).all()


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_a_config_makes_the_same_initializer_again(name, tmp_path):
    shape = (4, 6)
    option = initializers.get("kernel_initializer", name)
    again = initializers.get("kernel_initializer", initializers.config_of(option))
    first, second = (f(shape, np.random.default_rng(0)) for f in (option, again))
    assert np.array_equal(first, second)
    model = fg.Sequential([fg.Dense(6, kernel_initializer=name, seed=0)])
    model.build((None, 4))
    model.save(tmp_path / "m.safetensors")
    config = fg.load_model(tmp_path / "m.safetensors").layers[0].get_config()
    assert config == model.layers[0].get_config()


def test_a_layer_with_a_function_of_ones_own_cannot_be_saved(tmp_path):
    model = fg.Sequential([fg.Dense(2, kernel_initializer=lambda shape, random: np.ones(shape))])
    model.build((None, 3))
    with pytest.raises(TypeError, match="kernel_initializer.*given function"):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: fg.Dense(2, kernel_initializer="he"), ValueError, "kernel_initializer: .*he_norm"),
        (lambda: fg.GRU(2, recurrent_initializer=1), TypeError, "recurrent_initializer: expected"),
        (lambda: fg.Embedding(2, 2, embeddings_initializer=None), TypeError, "embeddings_init"),
        (lambda: initializers.Constant("a"), TypeError, "value: expected a finite number"),
        (
            lambda: fg.Dense(2, kernel_initializer=lambda shape, random: np.ones(3)).build((1, 4)),
            ValueError,
            r"dense: kernel: expected shape \(4, 2\), given \(3,\)",
        ),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
