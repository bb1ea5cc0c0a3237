"""Classifying texts: labels of all kinds, unknown words, calibration, reasons, files."""

import re

import numpy as np
import pytest

import fastgru as fg
from fastgru import cli, explain
from fastgru.classification import TEMPERATURES, best_temperature
from fastgru.step import Step

GOOD = ["a joy", "pure joy", "a moving film", "moving and funny", "joyful!", "a fine film"]
BAD = ["a bore", "pure boredom", "a dull film", "dull and clumsy", "boring!", "a poor film"]
TEXTS = (GOOD + BAD) * 5
LABELS = (["good"] * 6 + ["bad"] * 6) * 5


def small(**options):
    sizes = {"units": 6, "embedding_dim": 8, "buckets": 50, "members": 1, "epochs": 12, "seed": 3}
    return fg.TextClassifier(**sizes | {"learning_rate": 0.02} | options)


@pytest.fixture(scope="module")
def fitted():
    return small(members=2).fit(TEXTS, LABELS, verbose=0)


def test_it_learns_and_answers_in_the_labels_it_was_given(fitted):
    assert fitted.classes_ == ["bad", "good"]
    assert fitted.score(TEXTS, LABELS) == 1
    assert fitted.predict(["a joy", "dull"]).tolist() == ["good", "bad"]
    p = fitted.predict_proba(TEXTS)
    assert p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert (p.argmax(axis=1) == (np.array(LABELS) == "good")).all()
    assert fitted.predict_proba([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("labels", "again"),
    [
        ([0, 1] * 8, [0, 1]),
        (np.array([7, 3] * 8), [7, 3]),
        ([True, False] * 8, [True, False]),
        (["x", "y"] * 8, ["x", "y"]),
    ],
)
def test_labels_come_back_as_they_were(labels, again):
    model = small(held_out=0).fit(["a joy", "a bore"] * 8, labels, verbose=0)
    assert model.predict(["a joy", "a bore"]).tolist() == again


def test_there_may_be_more_classes_and_several_labels_at_a_time():
    texts = ["red apple", "green pear", "blue sky"] * 8
    model = small(held_out=0).fit(texts, ["a", "b", "c"] * 8, verbose=0)
    assert model.predict(texts[:3]).tolist() == ["a", "b", "c"]
    labels = [["red", "fruit"], ["fruit"], []] * 8
    model = small(held_out=0).fit(texts, labels, verbose=0)
    assert model.predict(texts[:3]) == [["fruit", "red"], ["fruit"], []]
    assert model.score(texts, [set(each) for each in labels]) == 1
    for rows in ([{0, 1}, {1, 0}], [[1], [0]], [[0, 1], [0]], [[2, 1], [0, 1]]):
        model = small(held_out=0, epochs=1).fit(["a", "b"], rows, verbose=0)
        assert model.classes_ == sorted({label for row in rows for label in row})
    indicator = np.array([[1, 1], [0, 1], [0, 0]] * 8)
    model = small(held_out=0).fit(texts, indicator, verbose=0)
    assert np.array_equal(model.predict(texts), indicator)
    assert ((model.predict_proba(texts) > 0.5) == indicator).all()


def test_words_that_were_never_seen_are_known_by_their_letters(fitted):
    assert "joyfully" not in fitted._vocabulary
    assert fitted.predict(["joyfully", "boringly"]).tolist() == ["good", "bad"]
    blind = small(ngrams=[], held_out=0).fit(TEXTS, LABELS, verbose=0)
    assert np.ptp(blind.decision_function(["joyfully", "boringly"]), axis=0).max() == 0


def test_texts_are_answered_alone_as_among_others(fitted):
    together = fitted.predict_proba(TEXTS[:12])
    alone = np.concatenate([fitted.predict_proba([text]) for text in TEXTS[:12]])
    assert np.array_equal(together, alone)


def test_a_seed_makes_it_repeatable_and_leaves_the_programs_draws_alone():
    fg.set_random_seed(5)
    first = small(epochs=2).fit(TEXTS, LABELS, verbose=0).predict_proba(GOOD)
    state = fg.random.get_state()
    fg.set_random_seed(5)
    assert fg.random.get_state() == state
    fg.set_random_seed(6)
    assert np.array_equal(first, small(epochs=2).fit(TEXTS, LABELS, verbose=0).predict_proba(GOOD))
    other = small(epochs=2, seed=4).fit(TEXTS, LABELS, verbose=0).predict_proba(GOOD)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("pooling", ["attention", "max_average"])
def test_a_file_holds_all_that_it_takes(pooling, tmp_path):
    path = tmp_path / "a.safetensors"
    model = small(pooling=pooling, members=2, epochs=2).fit(TEXTS, LABELS, verbose=0)
    model.save(path)
    again = fg.TextClassifier.load(path)
    assert np.array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert again.predict(GOOD).tolist() == model.predict(GOOD).tolist()
    assert str(again.explain(GOOD[0])) == str(model.explain(GOOD[0]))


def test_the_temperature_is_that_of_overconfident_scores():
    random = np.random.default_rng(0)
    logits = random.normal(size=(20000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (p.cumsum(axis=1) < random.random((20000, 1))).sum(axis=1)
    step = TEMPERATURES[1] / TEMPERATURES[0]
    assert 4 / step**2 < best_temperature(4 * logits, targets) < 4 * step**2
    yes = (random.random((20000, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    assert 0.5 / step**2 < best_temperature(logits / 2, yes) < 0.5 * step**2


def test_probabilities_are_calibrated_on_what_was_held_out():
    random = np.random.default_rng(2)
    labels = [label if random.random() < 0.75 else "good" for label in LABELS * 4]
    held = TEXTS * 4, [label if random.random() < 0.75 else "good" for label in LABELS * 4]
    model = small(epochs=4).fit(TEXTS * 4, labels, validation_data=held, verbose=0)
    scores = model.decision_function(held[0])
    targets = (np.array(held[1]) == "good").astype(int)
    assert model.temperature_ == best_temperature(scores, targets)


def test_training_stops_early_and_keeps_the_best_weights():
    noise = np.random.default_rng(0).choice(["good", "bad"], 60).tolist()
    model = small(epochs=40, patience=2).fit(TEXTS, noise, verbose=0)
    losses = model.history_[0].history["val_calibrated_loss"]
    assert len(losses) < 40
    assert np.argmin(losses) == len(losses) - 3 or len(losses) == 3


def test_an_interrupted_fit_leaves_a_classifier_that_can_be_used(tmp_path):
    class Interrupt(fg.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 5:
                raise KeyboardInterrupt

    model = small(members=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(TEXTS, LABELS, callbacks=[Interrupt()], verbose=0)
    assert len(model.models) == 1
    assert [history.epoch for history in model.history_] == [[0, 1, 2, 3, 4]]
    assert model.score(TEXTS, LABELS) > 0.9
    model.save(tmp_path / "a.safetensors")
    again = fg.TextClassifier.load(tmp_path / "a.safetensors")
    assert np.array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_a_member_that_ended_in_its_first_epoch_does_not_count():
    class Interrupt(fg.callbacks.Callback):
        trained = 0

        def on_train_batch_end(self, batch, logs=None):
            if self.trained == 1:
                raise KeyboardInterrupt

        def on_train_end(self, logs=None):
            self.trained += 1

    model = small(members=3, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(TEXTS, LABELS, callbacks=[Interrupt()], verbose=0)
    assert len(model.models) == len(model.history_) == 1
    assert model.history_[0].epoch == [0, 1]
    assert model.predict_proba(GOOD).shape == (6, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"verbose": 9}, "verbose: expected 0, 1, 2 or 'auto', given 9"),
        ({"callbacks": 5}, "callbacks: expected a list of callbacks, given 5"),
        ({"callbacks": [5]}, r"callbacks\[0\]: expected a fastgru"),
        ({"validation_data": 5}, "validation_data: expected a tuple"),
        ({"validation_data": ([], [])}, "validation_data: texts: expected at least 1, given none"),
        ({"validation_data": (["a"], [7])}, "validation_data: labels: expected some of"),
    ],
)
def test_a_wrong_argument_leaves_what_was_learned_as_it_was(fitted, wrong, message):
    before = fitted.predict_proba(TEXTS)
    with pytest.raises((TypeError, ValueError), match=message):
        fitted.fit(["other words"] * 4, ["x", "y"] * 2, **{"verbose": 0} | wrong)
    assert fitted.classes_ == ["bad", "good"]
    assert np.array_equal(fitted.predict_proba(TEXTS), before)


@pytest.mark.parametrize(
    ("owner", "method"),
    [(fg.TextClassifier, "_ids"), (fg.Sequential, "build"), (Step, "__call__")],
)
def test_an_interrupt_before_the_end_of_an_epoch_leaves_the_old_classifier(
    owner, method, fitted, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = fitted.predict_proba(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            fitted.fit(["other words"] * 4, ["x", "y"] * 2, verbose=0)
    assert fitted.classes_ == ["bad", "good"]
    assert np.array_equal(fitted.predict_proba(TEXTS), before)


def test_reasons_compare_with_the_strongest_other_label_of_all_members():
    texts = ["red apple", "green pear", "blue sky", "grey sea"] * 4
    model = small(members=2, epochs=1).fit(texts, ["a", "b", "c", "d"] * 4, verbose=0)
    text = "red sea"
    x = model.ids([text])[0][None]
    for label, place in (("a", 0), ("d", 3)):
        others = model.decision_function([text])[0].argsort()[::-1].tolist()
        others.remove(place)
        own, other = (
            np.mean([explain.integrated_gradients(m, x, t)[0] for m in model.models], axis=0)
            for t in (place, others[0])
        )
        runners_up = {m.predict(x)[0, others].argmax() for m in model.models}
        assert len(runners_up) == 2  # else it would not matter
        got = model.explain(text, label).integrated_gradients
        np.testing.assert_allclose(got, own - other, atol=1e-6)


def test_words_are_found_before_their_case_is_changed(fitted):
    reason = fitted.explain("\u0130stanbul is a JOY")  # whose lower case has a letter more
    assert reason.words == ["\u0130stanbul", "is", "a", "JOY"]
    assert len(str(reason).splitlines()) == 6
    assert np.array_equal(fitted.predict_proba(["a JOY"]), fitted.predict_proba(["a joy"]))


def test_reasons_name_the_words_that_decide(fitted):
    reason = fitted.explain("It was a joy , really !")
    assert reason.words == ["It", "was", "a", "joy", ",", "really", "!"]
    assert reason.label == "good" and reason.probability > 0.5
    assert reason.words[int(reason.integrated_gradients.argmax())] == "joy"
    assert abs(reason.attention.sum() - 1) < 1e-5
    against = fitted.explain("It was a joy , really !", label="bad")
    np.testing.assert_allclose(
        against.integrated_gradients, -reason.integrated_gradients, atol=1e-5
    )
    assert len(str(reason).splitlines()) == 9
    reason = fitted.explain("<b>joy</b> & more")
    page = reason.html()
    assert page == reason._repr_html_()
    weights = [*reason.attention, *reason.integrated_gradients]
    assert re.findall(r'title="(.*?)"', page) == [f"{weight:+.3f}" for weight in weights]
    assert reason == reason and reason != fitted.explain("<b>joy</b> & more")
    assert "&lt;" in page and "&amp;" in page and "<b>joy" not in page
    assert page.count("<span") == page.count("</span>") == 2 * 10
    assert max(float(a) for a in re.findall(r",(\d\.\d\d)\)", page)) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.fit("a text", ["a"]), TypeError, "texts: expected a list of str"),
        (lambda m: m.fit({"a", "b"}, [0, 1]), TypeError, "texts: expected a list of str"),
        (lambda m: m.fit(["a", 3], [0, 1]), TypeError, r"texts\[1\]: expected a str, given 3"),
        (lambda m: m.fit(["a", " "], [0, 1]), ValueError, r"texts\[1\]: expected at least one wo"),
        (
            lambda m: m.fit(["a", "b\ud800"], [0, 1]),
            ValueError,
            r"texts\[1\]: expected Unicode text",
        ),
        (
            lambda m: m.fit(["a", "b"], [[1, 0], [1, 1]]),
            ValueError,
            r"labels: expected the labels of each text, given rows of 0 and 1; .* np.array",
        ),
        (
            lambda m: m.fit(["a", "b"], [[1, 0], [0, 1]]),
            ValueError,
            r"labels: expected the labels of each text, given rows of 0 and 1",
        ),
        (
            lambda m: m.fit(["a", "b"], [["x"], ["y", "x", "y"]]),
            ValueError,
            r"labels: expected each label once, given \['y', 'x', 'y'\]",
        ),
        (
            lambda m: m.fit(["a", "b"], [np.array([0, 1]), np.array([1, 1])]),
            TypeError,
            r"given array\(\[0, 1\]\); give np.array\(labels\)",
        ),
        (lambda m: m.fit(["a"], [0]), ValueError, "texts: expected at least 2, given 1"),
        (lambda m: m.fit(["a", "b"], [0]), ValueError, "labels: expected 2, one for each text"),
        (lambda m: m.fit(["a", "b"], [0, 0]), ValueError, "labels: expected 2 different ones"),
        (lambda m: m.fit(["a", "b"], "ab"), TypeError, "labels: expected a list"),
        (lambda m: m.fit(["a", "b"], [0, None]), TypeError, "labels: expected str, int, bool or"),
        (lambda m: m.fit(["a", "b"], np.array([[2], [0]])), ValueError, "expected 0 and 1 in"),
        (lambda m: m.fit(["a", "b"], {0, 1}), TypeError, "labels: expected a list .* given {0, 1}"),
        (lambda m: m.fit(["a", "b"], {"x": 1, "y": 2}), TypeError, "labels: expected a list"),
        (lambda m: m.fit(["a", "b"], [0, np.nan]), ValueError, "for each text, given NaN"),
        (
            lambda m: m.fit(["a", "b"], ["x", 1]),
            TypeError,
            "labels: expected all str, all bool or all numbers, given 'x' and 1",
        ),
        (lambda m: m.fit(["a", "b"], [True, 2.5]), TypeError, "all numbers, given True and 2.5"),
        (lambda m: m.fit(["a", "b"], [["x"], ["y", 1]]), TypeError, "given 'x' and 1"),
        (
            lambda m: small(min_count=3, ngrams=[], held_out=0).fit(["a", "b a"], [0, 1]),
            ValueError,
            "min_count: expected at most 2, .* given 3",
        ),
        (
            lambda m: m.fit(["a", "b"], [0, 1], validation_data=(["a"], [2])),
            ValueError,
            r"labels: expected some of \[0, 1\], given 2",
        ),
        (
            lambda m: m.fit(["a", "b"], [0, 1], validation_data=(["a"], [[1]])),
            ValueError,
            "labels: expected what fit was given, single",
        ),
        (lambda m: m.predict(["a"]), RuntimeError, "TextClassifier: call fit first"),
        (lambda m: small(pooling="mean"), ValueError, "pooling: expected one of attention"),
        (lambda m: small(ngrams=3), TypeError, "ngrams: expected a list of integers, given 3"),
    ],
)
def test_errors_say_what_was_expected(call, error, message):
    model = small()
    with pytest.raises(error, match=message):
        call(model)
    assert model.models == []


def test_the_score_of_no_texts_is_refused(fitted):
    for labels in ([], np.zeros((0, 2))):
        with pytest.raises(ValueError, match="texts: expected at least 1, given none"):
            fitted.score([], labels)


def test_an_explanation_of_an_unknown_label_is_refused(fitted):
    with pytest.raises(ValueError, match=r"label: expected one of \['bad', 'good'\], given 'ugl"):
        fitted.explain("a joy", label="ugly")


def test_the_command_line_trains_and_predicts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fg, "TextClassifier", Small)
    data, model = tmp_path / "a.tsv", tmp_path / "a.safetensors"
    rows = [f"{label}\t{text}" for text, label in zip(TEXTS, LABELS, strict=True)]
    data.write_text("\n".join(rows), encoding="utf-8")
    assert cli.main(["train", "classifier", str(data), str(model), "--seed", "3"]) == 0
    assert f"Saved to {model}" in capsys.readouterr().out
    data.write_text("a joy\n\na dull film\n")
    assert cli.main(["predict", str(model), str(data)]) == 0
    first, blank, last = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (first[0], blank, last[0]) == ("good", [""], "bad")
    assert all(0.5 < float(p) <= 1 for _, p in (first, last))
    data.write_text("a joy\n")
    assert cli.main(["predict", str(model), str(data), "--explain"]) == 0
    assert "integrated gradients" in capsys.readouterr().out
    for command, message in (
        (
            ["train", "classifier", str(data), "m"],
            "a.tsv, line 1: expected a label, a tab and a text, given 'a joy'",
        ),
        (["predict", str(data)], "a.tsv"),
        (["predict", str(tmp_path / "none")], "none"),
    ):
        assert cli.main(command) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("is_indicator", [False, True])
def test_the_command_line_prints_all_labels_that_were_chosen(is_indicator, tmp_path, capsys):
    labels = [["good", "long"], ["good"], ["long"], []] * 10
    if is_indicator:
        labels = np.array([["good" in some, "long" in some] for some in labels], np.int32)
    texts = ["a joy of a long film", "a joy", "a long film", "a film"] * 10
    model = Small(seed=0, epochs=25, held_out=0).fit(texts, labels, verbose=0)
    assert model.score(texts, labels) == 1
    model.save(tmp_path / "m")
    (tmp_path / "q").write_text("\n".join(texts[:4]))
    assert cli.main(["predict", str(tmp_path / "m"), str(tmp_path / "q")]) == 0
    good, long = ("0", "1") if is_indicator else ("good", "long")
    probabilities = model.predict_proba(texts[:4])
    both = sorted(zip(probabilities[0], (good, long), strict=True), reverse=True)
    assert capsys.readouterr().out.split("\n") == [
        "\t".join(f"{label}\t{p:.3f}" for p, label in both),
        f"{good}\t{probabilities[1, 0]:.3f}",
        f"{long}\t{probabilities[2, 1]:.3f}",
        "",
        "",
    ]


class Small(fg.TextClassifier):
    """What takes no time to train."""

    def __init__(self, **options):
        super().__init__(
            **{"units": 6, "members": 1, "learning_rate": 0.02, "epochs": 12} | options
        )


Small.__name__ = "TextClassifier"
