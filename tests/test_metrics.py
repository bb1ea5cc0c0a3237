"""Metrics: what counts as right, and the average over batches."""

import itertools
import math
import os
import sys

import numpy as np
import pytest
from test_golden import golden_file, make_golden

import fastgru as fg
from fastgru import metrics
from fastgru.losses import BinaryCrossentropy, SparseCategoricalCrossentropy
from fastgru.metrics import (
    AUC,
    F1,
    METRICS,
    Accuracy,
    Mean,
    Perplexity,
    Precision,
    Recall,
    TopK,
    accuracy_kind,
)


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


def test_a_metric_goes_on_from_its_state():
    one, other = metrics.get("accuracy"), metrics.get("accuracy")
    one.update([0, 1, 1], [[0.2], [0.4], [0.9]])
    state = one.get_state()
    one.reset()
    other.set_state(state)
    assert other.result() == 2 / 3
    other.update([1], [[0.9]])
    assert other.result() == 3 / 4 and state["weight"] == 3
    with pytest.raises(ValueError, match="state: expected .*'total'.* given .*'name'"):
        other.set_state({"name": "accuracy"})


# ---- other metrics


def check_keras(golden):
    made = {
        "precision": Precision(0.6),
        "recall": Recall(0.6),
        "auc": AUC(),
        "f1": F1(0.3),
        "top_k": TopK(3),
    }
    for i in range(2):
        for name in ("precision", "recall", "auc"):
            made[name].update(golden["target"][i], golden["output"][i], golden["weights"][i])
        made["f1"].update(np.eye(7)[golden["classes"][i]], golden["scores"][i])
        made["top_k"].update(golden["classes"][i], golden["scores"][i], golden["weights"][i])
    for name, metric in made.items():
        # Keras sums up float32, and its area is one of thresholds.
        assert metric.result() == pytest.approx(float(golden[name]), rel=1e-5), name


def test_metrics_are_those_of_keras():
    check_keras(golden_file("keras_metrics"))


def test_metrics_are_those_of_keras_where_it_is_installed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    check_keras(make_golden.metrics_from_keras())


def sample(name, seed=0, shape=(6, 4)):
    """Return target, output, weights and mask that suit a metric."""
    rng = np.random.default_rng(seed)
    weights, mask = rng.uniform(0.5, 2, shape), rng.random(shape) < 0.7
    if name in ("top_k", "perplexity"):
        return rng.integers(0, 9, shape), rng.dirichlet(np.ones(9), shape), weights, mask
    output = rng.integers(0, 12, (*shape, 1)) / 12  # with ties
    return rng.integers(0, 2, shape), output, weights, mask


NAMES = ["accuracy", "top_k", "precision", "recall", "f1", "auc", "perplexity"]


@pytest.mark.parametrize("name", NAMES)
def test_batches_add_up_and_what_is_masked_does_not_count(name):
    target, output, weights, mask = sample(name)
    metric, alone = metrics.get(name), metrics.get(name)
    for rows in (slice(0, 1), slice(1, 1), slice(1, 6)):
        metric.update(target[rows], output[rows], weights[rows], mask[rows])
    alone.update(target[mask], output[mask], weights[mask])
    assert metric.result() == pytest.approx(alone.result(), rel=1e-12) and metric.result() > 0
    metric.reset()
    assert metric.result() == 0.0
    metric.update(
        np.where(mask, target, -1), np.where(mask[..., None], output, np.nan), weights, mask
    )
    assert metric.result() == pytest.approx(alone.result(), rel=1e-12)
    plain = metrics.get(name)
    plain.update(target, output)
    assert plain.result() != pytest.approx(metric.result(), rel=1e-3)


@pytest.mark.parametrize("k", [1, 2, 5, 9, 12])
def test_top_k_looks_among_the_k_largest(k):
    target, output, _, _ = sample("top_k")
    sparse, categorical = TopK(k), TopK(k)
    sparse.update(target, output)
    categorical.update(np.eye(9)[target], output)
    best = np.argsort(-output, axis=-1)[..., :k]
    want = (best == target[..., None]).any(-1).mean()
    assert sparse.result() == categorical.result() == pytest.approx(want)


def test_of_equal_outputs_the_first_are_on_top():
    output = np.array([[0.3, 0.1, 0.3, 0.3], [np.nan, 0.1, 0.2, 0.3]])
    for label, wanted in enumerate([1, 0, 1, 0]):
        top = TopK(2)
        top.update([label], output[:1])
        assert top.result() == wanted
    accuracy, top = Accuracy(), TopK(1)
    for metric in (accuracy, top):
        metric.update([0, 2], output[[0, 0]])
    assert accuracy.result() == top.result() == 0.5
    top.reset()
    top.update([0], output[1:])
    assert top.result() == 0.0


def test_precision_recall_and_f1_count_answers():
    target, output, _, mask = sample("f1", seed=2)
    counts = {(t, said): 0 for t in (0, 1) for said in (False, True)}
    for i in np.argwhere(mask):
        counts[target[tuple(i)], bool(output[(*i, 0)] > 0.4)] += 1
    right, found, missed = counts[1, True], counts[0, True], counts[1, False]
    for metric, want in (
        (Precision(0.4), right / (right + found)),
        (Recall(0.4), right / (right + missed)),
        (F1(0.4), 2 * right / (2 * right + found + missed)),
    ):
        metric.update(target, output, mask=mask)
        assert metric.result() == pytest.approx(want)
        metric.reset()
        metric.update([0], [[0.1]])
        assert metric.result() == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_area_counts_pairs_of_a_yes_and_a_no(seed):
    target, output, weights, _ = sample("auc", seed)
    metric = AUC()
    metric.update(target[:2], output[:2], weights[:2])
    metric.update(target[2:], output[2:], weights[2:])
    answers = list(zip(target.ravel(), output.ravel(), weights.ravel(), strict=True))
    won = total = 0.0
    for (t, y, w), (u, z, v) in itertools.product(answers, answers):
        if t == 1 and u == 0:
            total += w * v
            won += w * v * (1.0 if y > z else 0.5 if y == z else 0.0)
    assert metric.result() == pytest.approx(won / total)
    squeezed = AUC()
    squeezed.update(target, np.log(output + 1) * 30, weights)
    assert squeezed.result() == pytest.approx(won / total)


def test_the_area_without_a_yes_or_with_nan():
    metric = AUC()
    metric.update([0, 0], [[0.2], [0.4]])
    assert metric.result() == 0.0
    metric.update([1], [[np.nan]])
    assert math.isnan(metric.result())


@pytest.mark.parametrize("from_logits", [False, True])
def test_perplexity_is_the_exponential_of_the_loss(from_logits):
    target, output, weights, mask = sample("perplexity")
    loss = SparseCategoricalCrossentropy(from_logits)
    metric = metrics.get("perplexity", loss)
    metric.update(target, output, mask=mask)
    assert metric.result() == pytest.approx(math.exp(loss(target, output, mask=mask)[0]))
    assert metric.from_logits is from_logits
    uniform = Perplexity(from_logits=True)
    uniform.update([3, 1], np.zeros((2, 9)))
    assert uniform.result() == pytest.approx(9)


def test_metrics_of_logits_turn_at_zero():
    loss = BinaryCrossentropy(from_logits=True)
    for name in ("precision", "recall", "f1"):
        metric = metrics.get(name, loss)
        metric.update([1, 0], [[0.2], [-0.2]])
        assert metric.result() == 1.0 and metrics.get(name).threshold == 0.5


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_can_be_made_again(name):
    metric = metrics.get(name)
    config = metric.get_config()
    again = metrics.get(config)
    assert type(again) is type(metric) and again.get_config() == config
    assert again.name == name and metrics.get(name.upper()).name == name.upper()
    assert metrics.get(metric) is metric


def test_configs_without_a_class_are_those_of_accuracy():
    assert type(metrics.get({"name": "acc", "kind": None, "threshold": 0.5})) is Accuracy
    assert TopK(3, "mine").get_config() == {"class": "TopK", "k": 3, "name": "mine"}
    assert Precision().name == "precision" and F1().name == "f1" and TopK().name == "top_k"
    with pytest.raises(ValueError, match="metrics: expected one of AUC, Accuracy.*given 'os'"):
        metrics.get({"name": "acc", "class": "os"})
    with pytest.raises(ValueError, match="k: expected a positive integer, given 0"):
        TopK(0)


@pytest.mark.parametrize("name", NAMES)
def test_targets_that_do_not_fit_a_metric_are_named(name):
    target, output, _, _ = sample(name)
    metric = metrics.get(name)
    with pytest.raises(ValueError, match="y: expected "):
        metric.update(target[:, :3], output)
    if name != "accuracy":
        with pytest.raises(ValueError, match="y: expected .* given nan"):
            metric.update(np.where(target == 1, np.nan, target), output)
    assert metric.result() == 0.0


def test_metrics_go_with_a_model_and_its_file(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5, 3)), rng.integers(0, 7, 40)
    model = fg.Sequential([fg.GRU(4), fg.Dense(7, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", ["acc", "perplexity", TopK(3)])
    history = model.fit(x, y, verbose=0, epochs=2).history
    assert list(history) == ["loss", "acc", "perplexity", "top_k"]
    results = model.evaluate(x, y, return_dict=True)
    assert results["perplexity"] == pytest.approx(math.exp(results["loss"]), rel=1e-5)
    model.save(tmp_path / "m")
    assert fg.load_model(tmp_path / "m").evaluate(x, y, return_dict=True) == results

    model = fg.Sequential([fg.GRU(4), fg.Dense(1)])
    names = ["precision", "recall", "f1", "auc"]
    model.compile("adam", BinaryCrossentropy(from_logits=True), names)
    model.fit(x, y > 3, verbose=0)
    model.save(tmp_path / "m")
    again = fg.load_model(tmp_path / "m")
    assert [m.get_config() for m in again.metrics] == [m.get_config() for m in model.metrics]
    assert again.metrics[0].threshold == 0
    assert again.evaluate(x, y > 3) == model.evaluate(x, y > 3)


# ---- texts


def slow_distance(a, b):
    """Return the edit distance by the recursion that defines it."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return slow_distance(a[1:], b[1:])
    return 1 + min(slow_distance(a[1:], b), slow_distance(a, b[1:]), slow_distance(a[1:], b[1:]))


def test_the_edit_distance_is_that_of_the_recursion():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(rng.choice(list("abc"), rng.integers(0, 7))) for _ in range(2))
        assert metrics.edit_distance(a, b) == slow_distance(a, b), (a, b)
    assert metrics.edit_distance(["one", "two"], ["one", "one", "two"]) == 1


def test_error_rates_are_of_the_whole_corpus():
    references, hypotheses = ["a b c", "d"], ["a x c d", "d"]
    assert metrics.wer(references, hypotheses) == 2 / 4  # one changed, one added
    assert metrics.wer("a b", "b") == 0.5
    assert metrics.wer([" a  b "], ["a b"]) == 0.0
    assert metrics.wer(["a"], ["b c d"]) == 3.0
    assert metrics.cer(references, hypotheses) == 3 / 6
    assert metrics.cer(["", "ab"], ["x", "ab"]) == 0.5


def test_texts_that_do_not_fit_are_named():
    for rate in (metrics.wer, metrics.cer):
        with pytest.raises(ValueError, match="hypotheses: expected 2 texts, .* given 1"):
            rate(["a", "b"], ["a"])
        with pytest.raises(TypeError, match="references: expected a list of texts, given 'a'"):
            rate("a", ["a"])
        with pytest.raises(TypeError, match=r"hypotheses: expected a list of texts, given \[1\]"):
            rate(["a"], [1])
        with pytest.raises(ValueError, match="references: expected at least one .* given none"):
            rate([""], ["a"])


def test_bleu_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    references = ["The dog bit the man.", "It was not surprising.", "The man had just bitten him."]
    others = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    hypotheses = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him!"]
    want = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert metrics.bleu(references, hypotheses) == want and 50 < want < 100
    several = [list(pair) for pair in zip(references, others, strict=True)]
    several[1].pop()
    assert metrics.bleu(several, hypotheses) == pytest.approx(
        sacrebleu.corpus_bleu(hypotheses, [references, [others[0], None, others[2]]]).score
    )
    none = metrics.bleu(references, hypotheses, tokenize="none", lowercase=True)
    assert (
        none
        == sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none", lowercase=True).score
        != want
    )
    with pytest.raises(ValueError, match="hypotheses: expected 3 texts, .* given 2"):
        metrics.bleu(references, hypotheses[:2])
    with pytest.raises(TypeError, match="expected lists of texts"):
        metrics.bleu("a", "a")


def test_bleu_without_sacrebleu_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastgru\[translate\]'"):
        metrics.bleu(["a"], ["a"])
