"""Metrics: what counts as right, and the average over batches."""

import numpy as np
import pytest

from fastgru import metrics
from fastgru.losses import BinaryCrossentropy
from fastgru.metrics import Accuracy, Mean, accuracy_kind


@pytest.mark.parametrize(
    ("target", "output", "kind"),
    [
        ((4,), (4, 1), "binary"),
        ((4, 1), (4, 1), "binary"),
        ((4, 3), (4, 3, 1), "binary"),
        ((4,), (4, 5), "sparse_categorical"),
        ((4, 1), (4, 5), "sparse_categorical"),
        ((4, 3), (4, 3, 5), "sparse_categorical"),
        ((4, 3, 1), (4, 3, 5), "sparse_categorical"),
        ((4, 5), (4, 5), "categorical"),
        ((4, 3, 5), (4, 3, 5), "categorical"),
    ],
)
def test_accuracy_means_what_the_shapes_say(target, output, kind):
    assert accuracy_kind(target, output) == kind
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, target)
    scores = rng.uniform(size=output)
    automatic, named = metrics.get("accuracy"), metrics.get(f"{kind}_accuracy")
    for metric in (automatic, named):
        metric.update(labels, scores)
    assert automatic.result() == named.result()


def test_binary_accuracy_counts_above_the_threshold():
    metric = metrics.get("accuracy")
    metric.update([[1], [0], [0], [1]], [[0.98], [1], [0], [0.6]])  # Keras' own example
    assert metric.result() == 0.75
    metric.reset()
    metric.update([1, 0], [[0.5], [0.5]])
    assert metric.result() == 0.5  # 0.5 itself is a no


def test_binary_accuracy_of_many_answers_is_their_mean():
    metric = metrics.get("binary_accuracy")
    metric.update([[1, 0, 1], [0, 0, 0]], [[0.9, 0.1, 0.2], [0.9, 0.1, 0.2]])
    assert metric.result() == pytest.approx(4 / 6)


def test_the_largest_output_decides_among_classes():
    output = np.array([[0.1, 0.6, 0.3], [0.05, 0.95, 0], [0.2, 0.3, 0.5]], "float32")
    sparse, categorical = metrics.get("accuracy"), metrics.get("accuracy")
    sparse.update([2, 1, 2], output)
    categorical.update(np.eye(3)[[2, 1, 2]], output)
    assert sparse.result() == categorical.result() == pytest.approx(2 / 3)


def test_batches_masks_and_weights_are_weighted():
    rng = np.random.default_rng(1)
    target, output = rng.integers(0, 5, (6, 4)), rng.uniform(size=(6, 4, 5))
    right = target == output.argmax(-1)
    mask, weights = rng.random((6, 4)) < 0.7, rng.uniform(size=6)
    metric = metrics.get("acc")
    for rows in (slice(0, 1), slice(1, 6)):
        metric.update(target[rows], output[rows], weights[rows], mask[rows])
    share = weights[:, None] * mask
    assert metric.result() == pytest.approx((right * share).sum() / share.sum())
    metric.reset()
    metric.update(np.where(mask, target, -1), np.where(mask[..., None], output, np.nan), mask=mask)
    assert metric.result() == pytest.approx(right[mask].mean())


def test_mean_is_weighted_and_empty_at_first():
    mean = Mean("loss")
    assert mean.name == "loss" and mean.result() == 0.0
    mean.add(3.0, 2)
    mean.add([1.0, 5.0, np.nan, np.inf], [1, 3, 0, 0])
    assert mean.result() == pytest.approx(22 / 6)
    mean.reset()
    assert mean.result() == 0.0
    mean.add(np.nan)
    assert np.isnan(mean.result())


def test_metrics_keep_the_name_they_were_asked_for_by():
    names = ["accuracy", "acc", "binary_accuracy", "categorical_accuracy"]
    assert [metrics.get(name).name for name in names] == names
    metric = Accuracy("sparse_categorical")
    assert metric.name == "sparse_categorical_accuracy" and metrics.get(metric) is metric
    assert metrics.get("ACC").name == "ACC"


def test_logits_turn_at_zero():
    metric = metrics.get("accuracy", BinaryCrossentropy(from_logits=True))
    metric.update([1, 0], [[0.2], [-0.2]])
    assert metric.result() == 1.0
    assert metrics.get("accuracy", BinaryCrossentropy()).threshold == 0.5


def test_what_is_unknown_or_does_not_fit_is_named():
    with pytest.raises(ValueError, match="metrics: expected one of .*Did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(TypeError, match="metrics: expected one of acc, accuracy, .* given None"):
        metrics.get(None)
    with pytest.raises(ValueError, match="kind: expected one of binary, categorical"):
        Accuracy("ternary")
    metric = metrics.get("accuracy")
    with pytest.raises(ValueError, match=r"y: expected class numbers of shape \(4,\).*\(3,\)"):
        metric.update(np.zeros(3), np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"y: expected shape \(4, 5\), .* given \(4, 2\)"):
        metric.update(np.zeros((4, 2)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"output: expected shape .* given \(4,\)"):
        metric.update(np.zeros(4), np.zeros(4))
    assert metric.result() == 0.0


def test_a_config_makes_the_same_metric():
    for metric in (Accuracy(), Accuracy("binary", np.float32(0.25), "mine"), metrics.get("acc")):
        config = metric.get_config()
        again = metrics.get(config)
        assert type(again) is Accuracy and again.get_config() == config
    assert metrics.get(Accuracy("binary", 0.25).get_config()).threshold == 0.25
    with pytest.raises(ValueError, match="threshold: expected a finite number, given nan"):
        Accuracy(threshold=np.nan)
    with pytest.raises(TypeError, match="name: expected a str, given 3"):
        Accuracy(name=3)
