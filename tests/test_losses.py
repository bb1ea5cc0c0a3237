"""Losses: values and gradients, shapes, weights and masks, and what they refuse."""

import math
import os

import numpy as np
import pytest
from test_golden import golden_file, make_golden

import fastgru as fg
from fastgru import losses, reference
from fastgru.losses import (
    CTC,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)

OF_DIFFERENCES = {
    "mean_squared_error": reference.mse,
    "mean_absolute_error": reference.mae,
    "huber": reference.huber,
}
CROSS_ENTROPIES = [BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy]
CASES = [
    pytest.param(MeanSquaredError(), id="mse"),
    pytest.param(MeanAbsoluteError(), id="mae"),
    pytest.param(Huber(0.7), id="huber"),
    *(
        pytest.param(
            loss(from_logits=f, label_smoothing=s),
            id=f"{loss.name}-{'logits' if f else 'probabilities'}{'-smoothed' if s else ''}",
        )
        for loss in CROSS_ENTROPIES
        for f in (False, True)
        for s in (0.0, 0.2)
    ),
]
SEQUENCE_CASES = [
    pytest.param(CTC(from_logits=f), id=f"ctc-{'logits' if f else 'probabilities'}")
    for f in (True, False)
]


def make(loss, shape, seed=0, dtype="float64"):
    """Return a target and an output of a shape (B, ..., K) that suit a loss."""
    rng = np.random.default_rng(seed)
    output = rng.normal(size=shape)
    if loss.name not in OF_DIFFERENCES and not loss.from_logits:
        output = rng.uniform(0.1, 0.9, shape)
    if loss.name == "sparse_categorical_crossentropy":
        return rng.integers(0, shape[-1], shape[:-1]), output.astype(dtype)
    return rng.uniform(size=shape), output.astype(dtype)


def twin(loss, target, output):
    """Return value and gradient of each position in plain NumPy."""
    if loss.name in OF_DIFFERENCES:
        options = {"delta": loss.delta} if loss.name == "huber" else {}
        return OF_DIFFERENCES[loss.name](output, target, **options)
    smoothing, kind = loss.label_smoothing, loss.name
    if kind == "sparse_categorical_crossentropy":
        target, kind = np.eye(output.shape[-1])[target], "categorical_crossentropy"
    choices = 2 if kind == "binary_crossentropy" else output.shape[-1]
    target = target * (1 - smoothing) + smoothing / choices
    return getattr(reference, kind)(output, target, loss.from_logits)


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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss_class", CROSS_ENTROPIES)
def test_fused_is_the_loss_of_the_activation(loss_class, smoothing):
    loss = loss_class(label_smoothing=smoothing)
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
        ("mae", MeanAbsoluteError),
        ("mean_absolute_error", MeanAbsoluteError),
        ("huber", Huber),
        ("ctc", CTC),
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
    for case in (*CASES, *SEQUENCE_CASES, pytest.param(CTC(3, True))):
        config = case.values[0].get_config()
        again = losses.get(config)
        assert type(again) is type(case.values[0]) and again.get_config() == config
    options = {"from_logits": True, "label_smoothing": 0.1, "ignore_class": -1}
    loss = SparseCategoricalCrossentropy(**options)
    assert loss.get_config() == {"name": "sparse_categorical_crossentropy", **options}
    assert losses.get({"name": "binary_crossentropy", "from_logits": True}).label_smoothing == 0


def test_bad_options_are_named():
    for make_loss in CROSS_ENTROPIES:
        with pytest.raises(ValueError, match=r"label_smoothing: expected a number in \[0, 1\)"):
            make_loss(label_smoothing=1.0)
    with pytest.raises(ValueError, match="delta: expected a number > 0, given 0"):
        Huber(0)
    with pytest.raises(TypeError, match="ignore_class: expected an integer, given 0.5"):
        SparseCategoricalCrossentropy(ignore_class=0.5)
    with pytest.raises(ValueError, match="blank: expected an integer >= 0, given -1"):
        CTC(blank=-1)
    with pytest.raises(TypeError, match="zero_infinity: expected a bool, given 1"):
        CTC(zero_infinity=1)


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


@pytest.mark.parametrize("name", ["binary", "categorical", "sparse_categorical"])
def test_fused_losses_overwrite_the_logits_only_when_asked(name):
    random = np.random.default_rng(0)
    logits = random.normal(size=(3, 4, 6)).astype("float32")
    target = random.uniform(size=logits.shape)
    if name == "sparse_categorical":
        target = random.integers(0, 6, (3, 4))
    mask = random.uniform(size=(3, 4)) < 0.7
    loss, before = losses.get(f"{name}_crossentropy"), logits.copy()
    value, dlogits = loss.fused(target, logits, mask=mask)
    assert np.array_equal(logits, before)
    again, place = loss.fused(target, logits, mask=mask, overwrite=True)
    assert np.shares_memory(place, logits) and not np.shares_memory(dlogits, logits)
    assert again == value and place.tobytes() == dlogits.tobytes()


def test_an_ignored_class_does_not_count():
    loss, plain = (
        SparseCategoricalCrossentropy(True, 0.1, -1),
        SparseCategoricalCrossentropy(True, 0.1),
    )
    target, output = make(plain, (4, 3, 5), 10)
    weights, mask = np.random.default_rng(1).uniform(size=4), np.ones((4, 3), bool)
    mask[2, 1:] = False
    ignored = mask.copy()
    ignored[0, 1] = ignored[3] = False
    want, doutput = plain(target, output, weights, ignored)
    target[0, 1] = target[3] = -1
    for given in (mask, mask[..., None]):
        value, got = loss(target, output, weights, given)
        assert value == want
        np.testing.assert_array_equal(got, doutput)
    assert loss(target, output)[0] == plain(target, output, mask=target >= 0)[0]
    loss.check(target, output.shape)
    with pytest.raises(ValueError, match="y: expected integers from 0 to 4, .* given -1"):
        plain.check(target, output.shape)
    with pytest.raises(TypeError, match="mask: expected an array of bool, given int64"):
        loss(target, output, mask=mask.astype(int))


# ---- the same numbers as Keras and PyTorch


def check_keras(golden):
    for key, (kind, options, target) in make_golden.LOSS_OPTIONS.items():
        loss = getattr(losses, kind)(**options)
        needs = target in ("numbers", "sequences") or options.get("from_logits")
        output, y = golden["logits" if needs else "probabilities"], golden[target]
        weights = golden["weights"][:, 0] if kind == "CTC" else golden["weights"]
        if kind == "CTC":
            y = np.where(y == 0, -1, y)
        value, dy = loss(y, output, sample_weight=weights)
        # Keras rounds weights, and what they are multiplied with, to float32.
        assert value == pytest.approx(float(golden[f"{key}_value"]), rel=1e-6), key
        np.testing.assert_allclose(dy, golden[f"{key}_dy"], rtol=1e-6, atol=1e-7, err_msg=key)
    loss = SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    value, dy = loss(golden["labels"], golden["logits"])
    assert value == pytest.approx(float(golden["smoothed_value"]), rel=1e-12)
    np.testing.assert_allclose(dy, golden["smoothed_dy"], rtol=1e-9, atol=1e-12)


def test_losses_are_those_of_keras():
    check_keras(golden_file("keras_losses"))


def test_losses_are_those_of_keras_where_it_is_installed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    check_keras(make_golden.losses_from_keras())


# ---- CTC


def spoken(B=3, T=8, V=5, seed=0):
    """Return label sequences, padded with -1, and logits."""
    rng = np.random.default_rng(seed)
    target = np.where(np.arange(3) < rng.integers(0, 4, (B, 1)), rng.integers(1, V, (B, 3)), -1)
    return target, rng.normal(size=(B, T, V))


def twin_of_ctc(target, output, mask, blank=0):
    counts = np.count_nonzero(target >= 0, axis=1)
    return reference.ctc_loss(output, mask, target, counts, blank)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ctc_is_the_mean_over_sequences(dtype):
    target, output = spoken()
    output = output.astype(dtype)
    mask = np.random.default_rng(1).random((3, 8)) < 0.8
    weights = np.array([0.5, 2.0, 0.7])
    value, doutput = CTC()(target, output, weights, mask)
    values, gradients = twin_of_ctc(target, output.astype(float), mask)
    assert doutput.dtype == output.dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert value == pytest.approx((values * weights).mean(), rel=tolerance)
    want = gradients * weights[:, None, None] / 3
    np.testing.assert_allclose(doutput, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", SEQUENCE_CASES)
def test_the_gradient_of_ctc_is_that_of_its_value(loss):
    target, output = spoken(seed=2)
    if not loss.from_logits:
        output = np.random.default_rng(3).uniform(0.1, 2, output.shape)  # any positive scale
    options = {"sample_weight": [1.0, 0.3, 2.0], "mask": np.arange(8) < [[8], [5], [7]]}
    _, doutput = loss(target, output, **options)
    want = differences(lambda a: loss(target, a, **options)[0], output)
    np.testing.assert_allclose(doutput, want, rtol=1e-6, atol=1e-8)


def test_ctc_of_a_softmax_is_fused():
    target, output = spoken(seed=4)
    want = CTC()(target, output)
    loss = CTC(from_logits=False)
    assert CTC().fused_activation is None and loss.fused_activation == "softmax"
    value, doutput = loss.fused(target, output)
    assert value == want[0] and doutput.tolist() == want[1].tolist()
    assert loss(target, reference.softmax(output))[0] == pytest.approx(value, rel=1e-12)


def test_label_sequences_come_in_many_forms():
    target, output = spoken(B=4, seed=5)
    want = CTC()(target, output)
    counts = np.count_nonzero(target >= 0, axis=1)
    ragged = [row[:n] for row, n in zip(target, counts, strict=True)]
    objects = np.empty(4, object)
    objects[:] = ragged
    wider = np.concatenate([target, np.full((4, 2), -1)], 1)
    for given in (target.astype("int8"), target.tolist(), ragged, objects, wider):
        assert CTC()(given, output)[0] == want[0]
    filled = np.where(target < 0, 3, target)
    assert CTC()(filled, output, target_lengths=counts)[0] == want[0] != CTC()(filled, output)[0]
    assert CTC()([[], [], [], []], output)[0] == CTC()(np.zeros((4, 0), int), output)[0]
    assert CTC()(np.zeros((0, 2), int), output[:0])[0] == 0.0


def test_lengths_say_which_frames_there_are():
    target, output = spoken(B=3, seed=6)
    lengths, mask = np.array([8, 6, 7]), np.ones((3, 8), bool)
    mask[:, 2] = False
    want = CTC()(target, output, mask=mask & (np.arange(8) < lengths[:, None]))
    value, doutput = CTC()(target, output, mask=mask, lengths=lengths)
    assert value == want[0] and doutput.tolist() == want[1].tolist()
    assert value != CTC()(target, output, lengths=lengths)[0]


def test_infinite_losses_are_zero_if_wanted():
    target, output = np.array([[1, 1, 2], [1, 2, 3]]), np.zeros((2, 3, 4))
    value, doutput = CTC()(target, output)
    assert value == math.inf and np.isnan(doutput[0]).all() and np.isfinite(doutput[1]).all()
    value, doutput = CTC(zero_infinity=True)(target, output)
    assert value == pytest.approx(3 * math.log(4) / 2) and not doutput[0].any()
    assert CTC()(target, output, sample_weight=[0, 1])[0] == pytest.approx(3 * math.log(4) / 2)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ([[1, 0], [2, 3]], {}, "y: expected labels from 0 to 3 other than the blank, 0, .*given 0"),
        ([[1, 4], [2, 3]], {}, "y: expected labels from 0 to 3 .* given 4"),
        ([[1, -1], [-1, 3]], {}, "y: .* nothing but -1 after the first -1, given 3"),
        ([[1, -2], [2, 3]], {}, "y: expected labels .* given -2"),
        ([[1, 1.5], [2, 3]], {}, "y: expected labels .* given 1.5"),
        ([[1, np.nan], [2, 3]], {}, "y: expected labels .* given nan"),
        ([[1]], {}, "y: expected 2 label sequences, given 1"),
        ([1, 2], {}, "y: expected a list of label sequences: "),
        (np.array([1, 2]), {}, r"y: expected a list of label sequences, or shape .* given \(2,\)"),
        ([[1], [2]], {"sample_weight": np.ones((2, 5))}, r"sample_weight: expected shape \(2,\)"),
        ([[1], [2]], {"mask": np.ones((2, 4), bool)}, r"mask: expected shape \(2, 5\)"),
        ([[1], [2]], {"lengths": [6, 1]}, "lengths: expected values from 0 to 5, given 1 to 6"),
        ([[1], [2]], {"target_lengths": [2, 1]}, "target_lengths: expected values from 0 to 1"),
    ],
)
def test_what_does_not_fit_ctc_is_named(target, options, message):
    with pytest.raises(ValueError, match=message):
        CTC()(target, np.zeros((2, 5, 4)), **options)
    if not {"lengths", "target_lengths"} & set(options):
        with pytest.raises(ValueError, match=message):
            CTC().check(target, (2, 5, 4), **options)


def test_outputs_that_do_not_fit_ctc_are_named():
    with pytest.raises(ValueError, match=r"output: expected shape \(batch, steps, classes\)"):
        CTC()([[1]], np.zeros((1, 4)))
    with pytest.raises(ValueError, match="blank: expected one of the 4 classes .* given 4"):
        CTC(blank=4)([[1]], np.zeros((1, 2, 4)))
    with pytest.raises(TypeError, match="y: expected real numbers, given an array of <U1"):
        CTC()(np.array([["a"]]), np.zeros((1, 2, 4)))


@pytest.mark.parametrize("form", ["ctc", "softmax"])
def test_a_network_learns_to_spell_by_ctc(form, tmp_path):
    rng = np.random.default_rng(7)
    target = np.where(np.arange(3) < rng.integers(1, 4, (24, 1)), rng.integers(1, 4, (24, 3)), -1)
    target[0] = [2, 2, -1]
    # Each label is heard for two frames, with a pause after it.
    x = np.zeros((24, 9, 4), "float32")
    for i, t in np.ndindex(24, 9):
        label = target[i, t // 3]
        x[i, t, 0 if t % 3 == 2 or label < 0 else label] = 1
    fg.set_random_seed(0)
    last = fg.Dense(4, "softmax" if form == "softmax" else None)
    model = fg.Sequential([fg.GRU(16, return_sequences=True), last])
    loss = CTC(from_logits=False) if form == "softmax" else "ctc"
    model.compile(fg.optimizers.Adam(0.02), loss)
    history = model.fit(x, target, epochs=60, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.1 < 3 < history[0]
    best = model.predict(x).argmax(-1)
    for path, wanted in zip(best, target, strict=True):
        merged = path[np.flatnonzero(np.diff(path, prepend=-1))]
        assert merged[merged > 0].tolist() == wanted[wanted > 0].tolist()
    assert model.evaluate(x, target) == pytest.approx(history[-1], abs=0.05)
    model.save(tmp_path / "m")
    again = fg.load_model(tmp_path / "m")
    assert again.loss.get_config() == model.loss.get_config()
    assert again.evaluate(x, target) == model.evaluate(x, target)


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_that_changed_after_its_check_makes_the_loss_nan(label):
    logits = np.zeros((3, 3), np.float32)
    labels = np.array([0, label, 2])
    value, doutput = losses.get("sparse_categorical_crossentropy").fused(
        labels, logits, checked=True
    )
    assert np.isnan(value)
    assert np.isnan(doutput[1]).all()
    assert np.isfinite(doutput[[0, 2]]).all()
