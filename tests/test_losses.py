"""Losses: values and gradients, shapes, weights and masks, and what they refuse."""

import math

import numpy as np
import pytest

from fastgru import losses, reference
from fastgru.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)

CROSS_ENTROPIES = [BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy]
CASES = [
    pytest.param(MeanSquaredError(), id="mse"),
    *(
        pytest.param(loss(from_logits=f), id=f"{loss.name}-{'logits' if f else 'probabilities'}")
        for loss in CROSS_ENTROPIES
        for f in (False, True)
    ),
]


def make(loss, shape, seed=0, dtype="float64"):
    """Return a target and an output of a shape (B, ..., K) that suit a loss."""
    rng = np.random.default_rng(seed)
    output = rng.normal(size=shape)
    if loss.name != "mean_squared_error" and not loss.from_logits:
        output = rng.uniform(0.1, 0.9, shape)
    if loss.name == "sparse_categorical_crossentropy":
        return rng.integers(0, shape[-1], shape[:-1]), output.astype(dtype)
    return rng.uniform(size=shape), output.astype(dtype)


def twin(loss, target, output):
    """Return value and gradient of each position in plain NumPy."""
    if loss.name == "mean_squared_error":
        return reference.mse(output, target)
    return getattr(reference, loss.name)(output, target, loss.from_logits)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 5), (5, 1), (2, 3, 4, 7)])
@pytest.mark.parametrize("loss", CASES)
def test_loss_is_the_mean_of_its_twin(loss, shape, dtype):
    target, output = make(loss, shape, dtype=dtype)
    if dtype == "float32" and loss.name != "sparse_categorical_crossentropy":
        target = target.astype(dtype).astype(float)
    value, doutput = loss(target, output)
    values, want = twin(loss, target, output.astype(float))
    rtol = 1e-5 if dtype == "float32" else 1e-12
    assert isinstance(value, float) and value == pytest.approx(values.mean(), rel=rtol)
    assert doutput.dtype == output.dtype and doutput.flags.c_contiguous
    np.testing.assert_allclose(doutput, want / values.size, rtol=rtol, atol=rtol)


def differences(f, a, eps=1e-6):
    """Return df/da by central differences."""
    d = np.empty_like(a)
    for i in np.ndindex(a.shape):
        kept = a[i]
        a[i] = kept + eps
        high = f(a)
        a[i] = kept - eps
        d[i], a[i] = (high - f(a)) / (2 * eps), kept
    return d


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", CASES)
def test_gradient_is_that_of_the_value(loss, weighted):
    target, output = make(loss, (2, 3, 5), 1)
    rng = np.random.default_rng(2)
    options = {}
    if weighted:
        options = {"sample_weight": rng.uniform(size=(2, 3)), "mask": rng.random((2, 3)) < 0.7}
    _, doutput = loss(target, output, **options)
    want = differences(lambda a: loss(target, a, **options)[0], output)
    np.testing.assert_allclose(doutput, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss_class", CROSS_ENTROPIES)
def test_fused_is_the_loss_of_the_activation(loss_class):
    loss = loss_class()
    target, logits = make(loss_class(from_logits=True), (3, 4), 3)
    activation = {
        "sigmoid": reference.ACTIVATIONS["sigmoid"].function,
        "softmax": reference.softmax,
    }[loss.fused_activation]
    value, dlogits = loss.fused(target, logits)
    assert value == pytest.approx(loss(target, activation(logits))[0], rel=1e-12)
    want = differences(lambda a: loss(target, activation(a))[0], logits)
    np.testing.assert_allclose(dlogits, want, rtol=1e-6, atol=1e-8)


def test_fused_activations():
    assert MeanSquaredError().fused_activation is None
    assert BinaryCrossentropy().fused_activation == "sigmoid"
    assert CategoricalCrossentropy().fused_activation == "softmax"
    assert SparseCategoricalCrossentropy().fused_activation == "softmax"
    # softmax and then a loss that takes logits: the model's softmax is one more, not the loss's.
    assert SparseCategoricalCrossentropy(from_logits=True).fused_activation is None
    with pytest.raises(TypeError, match="MeanSquaredError has no activation to fuse with"):
        MeanSquaredError().fused([0.0], [[0.0]])


# ---- shapes


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossentropy()])
@pytest.mark.parametrize("target_shape", [(4,), (4, 1), (4, 1, 1)])
def test_one_value_per_sample_may_leave_out_its_axis(loss, target_shape):
    target, output = make(loss, (4, 1), 4)
    want = loss(target, output)
    value, doutput = loss(target.reshape(target_shape), output)
    assert value == want[0] and doutput.tolist() == want[1].tolist()


@pytest.mark.parametrize("positions", [(4,), (4, 3)])
@pytest.mark.parametrize("dtype", ["int8", "uint64", "float32", "bool"])
def test_class_numbers_come_in_many_forms(positions, dtype):
    loss = SparseCategoricalCrossentropy()
    output = np.random.default_rng(0).uniform(0.1, 0.9, (*positions, 5))
    target = np.random.default_rng(1).integers(0, 2, positions)
    want = loss(target, output)
    for given in (target.astype(dtype), target.astype(dtype)[..., None], target.tolist()):
        value, doutput = loss(given, output)
        assert value == want[0] and doutput.tolist() == want[1].tolist()


@pytest.mark.parametrize("loss", CASES)
def test_lists_read_only_and_strided_arrays_are_taken(loss):
    target, output = make(loss, (3, 2, 5), 5)
    want = loss(target, output)
    frozen = output.copy()
    frozen.flags.writeable = False
    strided = np.repeat(output, 2, axis=1)[:, ::2]
    for given in (output.tolist(), frozen, strided, output.astype(">f8")):
        value, doutput = loss(target, given)
        assert value == want[0] and doutput.tolist() == want[1].tolist()


@pytest.mark.parametrize("loss", CASES)
def test_an_empty_batch_has_the_loss_zero(loss):
    target, output = make(loss, (0, 3, 5))
    value, doutput = loss(target, output)
    assert value == 0.0 and doutput.shape == (0, 3, 5)


# ---- weights and masks


@pytest.mark.parametrize("loss", CASES)
def test_weights_and_masks_as_in_keras(loss):
    target, output = make(loss, (4, 3, 5), 6)
    values, gradients = twin(loss, target, output)
    rng = np.random.default_rng(7)
    weights, mask = rng.uniform(size=(4, 3)), rng.random((4, 3)) < 0.6

    value, doutput = loss(target, output, sample_weight=weights)
    assert value == pytest.approx((values * weights).sum() / 12)  # not / weights.sum()
    np.testing.assert_allclose(doutput, gradients * weights[..., None] / 12, rtol=1e-10, atol=1e-14)

    value, doutput = loss(target, output, sample_weight=weights[:, 0], mask=mask)
    share = weights[:, :1] * mask / mask.sum()
    assert value == pytest.approx((values * share).sum())
    np.testing.assert_allclose(doutput, gradients * share[..., None], rtol=1e-10, atol=1e-14)

    same = loss(target, output, sample_weight=weights[:, :1], mask=mask[..., None])
    assert same[0] == value


@pytest.mark.parametrize("loss", CASES)
def test_masked_positions_are_invisible(loss):
    target, output = make(loss, (4, 3, 5), 8)
    mask = np.arange(3) < np.array([3, 1, 0, 2])[:, None]
    want, doutput = loss(target, output, mask=mask)
    target = target.astype(float)
    target[~mask], output[~mask] = np.nan, np.nan
    value, got = loss(target, output, mask=mask)
    assert value == want and (got[~mask] == 0).all()
    np.testing.assert_array_equal(got, doutput)
    value, got = loss(target, output, mask=np.zeros((4, 3), bool))
    assert value == 0.0 and not got.any()


def test_nan_in_the_output_flows_into_the_value():
    for loss in (case.values[0] for case in CASES):
        target, output = make(loss, (3, 5))
        output[1, 2] = np.nan
        value, doutput = loss(target, output)
        assert math.isnan(value) and np.isnan(doutput[1, 2]) and np.isfinite(doutput[0]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_weight": np.ones(5)}, ValueError, r"sample_weight: .*\(4,\) or \(4, 3\).*\(5,\)"),
        ({"sample_weight": np.ones((4, 2))}, ValueError, r"sample_weight: expected .*\(4, 2\)"),
        ({"sample_weight": 1.0}, ValueError, r"sample_weight: expected shape .* given \(\)"),
        ({"sample_weight": [1, 2, np.nan, 3]}, ValueError, "sample_weight: expected finite"),
        ({"sample_weight": ["a"] * 4}, TypeError, "sample_weight: expected real numbers"),
        ({"mask": np.ones((4, 4), bool)}, ValueError, r"mask: expected shape .* given \(4, 4\)"),
        ({"mask": np.ones((4, 3))}, TypeError, "mask: expected an array of bool, given float64"),
    ],
)
def test_bad_weights_are_named(options, error, message):
    target, output = make(MeanSquaredError(), (4, 3, 5))
    with pytest.raises(error, match=message):
        MeanSquaredError()(target, output, **options)


# ---- what does not fit


@pytest.mark.parametrize(
    ("name", "target", "shape", "message"),
    [
        ("mse", np.zeros(4), (4, 2), r"y: expected shape \(4, 2\), that of the .* given \(4,\)"),
        ("mse", np.zeros(5), (4, 1), r"y: expected shape \(4, 1\) or \(4,\), .* given \(5,\)"),
        ("mse", [np.nan, 1], (2, 1), "y: expected finite numbers, given nan"),
        ("mse", [np.inf, 1], (2, 1), "y: expected finite numbers, given inf"),
        ("mse", [[1], [1, 2]], (2, 1), "y: expected an array, given sequences of different"),
        ("binary_crossentropy", [0, 2], (2, 1), "y: expected targets from 0 to 1, given 2.0"),
        ("binary_crossentropy", [0, -1], (2, 1), "y: expected targets from 0 to 1, given -1.0"),
        ("binary_crossentropy", [0, np.nan], (2, 1), "y: expected targets from 0 to 1, given nan"),
        ("binary_crossentropy", np.zeros((2, 3)), (2, 1), r"y: expected shape .* given \(2, 3\)"),
        (
            "categorical_crossentropy", [0, 1], (2, 3),
            r"y: expected probabilities of shape \(2, 3\), .* given \(2,\); class numbers belong "
            "to 'sparse_categorical_crossentropy'",
        ),
        ("categorical_crossentropy", [[0, 2]], (1, 2), "y: .* from 0 to 1, given 2.0"),
        ("categorical_crossentropy", [[0, np.nan]], (1, 2), "y: .* from 0 to 1, given nan"),
        (
            "sparse_categorical_crossentropy", np.eye(3), (3, 3),
            r"y: expected class numbers of shape \(3,\) or \(3, 1\) for an output of shape "
            r"\(3, 3\), given \(3, 3\); one-hot targets belong to 'categorical_crossentropy'",
        ),
        ("sparse_categorical_crossentropy", [0, 3], (2, 3), "y: .* from 0 to 2, .* given 3"),
        ("sparse_categorical_crossentropy", [0, -1], (2, 3), "y: .* from 0 to 2, .* given -1"),
        ("sparse_categorical_crossentropy", [0, 0.5], (2, 3), "y: .*integers .* given 0.5"),
        ("sparse_categorical_crossentropy", [0, np.nan], (2, 3), "y: .*integers .* given nan"),
        ("sparse_categorical_crossentropy", [0, 1], (2, 1), "y: .* there is 'binary_crossentropy'"),
        ("sparse_categorical_crossentropy", [0, 1, 2], (2, 3), r"y: .*shape \(2,\).* given \(3,\)"),
    ],
)  # fmt: skip
def test_bad_targets_are_named(name, target, shape, message):
    with pytest.raises(ValueError, match=message):
        losses.get(name)(target, np.full(shape, 0.5))
    with pytest.raises(ValueError, match=message):
        losses.get(name).check(target, shape)


def test_targets_and_outputs_that_are_no_numbers():
    with pytest.raises(TypeError, match="y: expected real numbers, given an array of <U3"):
        BinaryCrossentropy()(["yes", "no"], [[0.5], [0.5]])
    with pytest.raises(ValueError, match=r"output: expected shape \(batch, ..., values\)"):
        BinaryCrossentropy()([0, 1], [0.5, 0.5])
    with pytest.raises(TypeError, match="from_logits: expected a bool, given 'yes'"):
        BinaryCrossentropy(from_logits="yes")


# ---- names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mse", MeanSquaredError),
        ("MSE", MeanSquaredError),
        ("mean_squared_error", MeanSquaredError),
        ("MeanSquaredError", MeanSquaredError),
        ("binary_crossentropy", BinaryCrossentropy),
        ("categorical_crossentropy", CategoricalCrossentropy),
        ("sparse_categorical_crossentropy", SparseCategoricalCrossentropy),
    ],
)
def test_losses_are_known_by_name(name, kind):
    assert type(losses.get(name)) is kind


def test_an_instance_stays_itself_and_a_config_makes_another():
    loss = BinaryCrossentropy(from_logits=True)
    assert losses.get(loss) is loss
    again = losses.get(loss.get_config())
    assert type(again) is BinaryCrossentropy and again.from_logits
    assert type(losses.get(MeanSquaredError().get_config())) is MeanSquaredError


def test_an_unknown_name_lists_the_losses():
    with pytest.raises(ValueError) as caught:
        losses.get("tanh")
    message = str(caught.value)
    assert message.startswith("loss: expected one of ") and "given 'tanh'" in message
    assert all(name in message for name in losses.LOSSES)
    with pytest.raises(ValueError, match="Did you mean 'binary_crossentropy'"):
        losses.get("binary_crossentrop")
    for wrong in (None, 3, {"from_logits": True}):
        with pytest.raises(TypeError, match="loss: expected one of"):
            losses.get(wrong)


@pytest.mark.parametrize("loss", CASES)
def test_a_check_without_an_output_knows_weights_and_masks(loss):
    target, output = make(loss, (4, 3, 5), 9)
    loss.check(target, output.shape, output.dtype)
    target = target.astype(float)
    target[1, 2], target[3] = np.nan, np.inf
    mask, weights = np.ones((4, 3), bool), np.array([1, 1, 1, 0])
    mask[1, 2] = False
    loss.check(target, output.shape, output.dtype, weights, mask)
    for some in ({"sample_weight": weights}, {"mask": mask}):
        with pytest.raises(ValueError, match="y: expected "):
            loss.check(target, output.shape, output.dtype, **some)
    with pytest.raises(ValueError, match=r"output: expected shape \(batch, ..., values\)"):
        loss.check(target, (4,))
