"""Language models: what they learn, write and tell, and what they refuse."""

import copy
import io
import math
import sys

import numpy as np
import pytest

import fastgru as fg
from fastgru import decoding, language, reference
from fastgru.cli import main
from fastgru.step import Step

TEXT = "".join(f"the {a} {b} on the {c}.\n" for a in ("cat", "dog") for b in ("sat", "lay")
               for c in ("mat", "bed", "rug")) * 12  # fmt: skip
SMALL = {"units": 17, "embedding": 7, "steps": 11, "batch_size": 5, "epochs": 3, "seed": 0}


def fitted(text=TEXT, **options):
    return fg.LanguageModel(**SMALL | options).fit(text, verbose=0)


@pytest.fixture(scope="module")
def characters():
    return fitted(layers=2, epochs=6)


@pytest.fixture(scope="module")
def words():
    return fitted(level="word", embedding=17, tied=True, num_words=9, learning_rate=0.02, epochs=8)


def logits_of(model, ids):
    """Compute the logits (T, V) of ids by the reference, from the weights that files hold."""
    *below, output = model._layers()
    kernel, bias = (w.astype(np.float64) for w in output.get_weights())
    x = kernel.T[ids] * 17**0.5 if model.tied else below.pop(0).weights()["embeddings"][ids]
    x = x[None].astype(np.float64)
    for gru in below:
        weights = [gru.weights()[n].astype(np.float64) for n in ("kernel", "recurrent_kernel")]
        biases = [gru.weights()[n].astype(np.float64) for n in ("bias", "recurrent_bias")]
        h0 = np.zeros((1, gru.units))
        x = reference.gru_forward(x, None, h0, *weights, *biases)[0]
    return x[0] @ kernel + bias


@pytest.mark.parametrize("which", ["characters", "words"])
def test_log_probabilities_are_those_of_the_reference_over_the_whole_text(
    which, request, monkeypatch
):
    model = request.getfixturevalue(which)
    text = "the dog lay on the cat.\nthe mat sat on the bed"
    ids = model._ids("text", text)
    expected = decoding.log_softmax(logits_of(model, ids[:-1]))[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(model.log_probabilities(text), expected, atol=2e-5)
    whole = model.log_probabilities(text)
    monkeypatch.setattr(language, "STEPS_AT_ONCE", 4)
    np.testing.assert_array_equal(model.log_probabilities(text), whole)  # states are carried on


@pytest.mark.parametrize("which", ["characters", "words"])
def test_measures_follow_from_the_log_probabilities(which, request):
    model = request.getfixturevalue(which)
    text = "the cat sat on the dog.\n" * 10
    values = model.log_probabilities(text).astype(np.float64)
    measured = model.evaluate(text)
    assert measured["nats"] == pytest.approx(-values.mean())
    assert model.perplexity(text) == measured["perplexity"] == pytest.approx(
        math.exp(-values.mean())
    )  # fmt: skip
    assert measured["unknown"] == 0
    assert model.bits_per_character(text) == pytest.approx(-values.sum() / math.log(2) / len(text))


def test_unknown_words_are_spelled_in_the_bits_and_one_token_of_the_rest():
    model = fitted("aa b aa b\naab " * 40, level="word", num_words=2, epochs=1)
    assert [model._id(word) is not None for word in (" b", " aa", "aa")] == [1, 1, 0]
    text = " b b aab!"
    measured, values = model.evaluate(text), model.log_probabilities(text)
    # The words seen: "aa", " b", " aa", "\n", "aab"; and one count for all characters never seen.
    a, b, space, end, other = (np.log2(n / 17) for n in (6, 2, 2, 5, 1 / 0x110000))
    spelled = -(space + 2 * a + b + end) - (other + end)
    assert measured["unknown"] == 2 / 4
    assert measured["nats"] == pytest.approx(-values.mean(dtype=np.float64))
    assert measured["bits_per_character"] == pytest.approx(
        (spelled - values.sum(dtype=np.float64) / math.log(2)) / len(text)
    )


def test_knowing_fewer_words_makes_no_text_shorter():
    text, other = TEXT[: len(TEXT) // 2], TEXT[-300:]
    bits = [
        fitted(text, level="word", num_words=n, epochs=20, learning_rate=0.02).bits_per_character(
            other
        )
        for n in (1, 5, 50)
    ]
    assert bits[0] > bits[1] + 0.1 > bits[2] + 0.2


def test_any_word_can_be_spelled_and_all_together_have_the_probability_1():
    model = fitted("a b a b", level="word", min_count=1, epochs=1, validation_split=0)
    letters = [math.exp(-model._spelled([c])) for c in (" ", "a", "b")]
    end = math.exp(-model._spelled([""]))
    never = math.exp(-model._spelled(["!"])) * (sys.maxunicode + 1)
    assert (sum(letters) + never) / end + end == pytest.approx(1)


def test_the_last_val_loss_is_what_evaluate_gives_of_the_same_part():
    model = fg.LanguageModel(**SMALL).fit(TEXT[:3000], TEXT[3000:], verbose=0)
    history = model.history.history
    assert model.evaluate(TEXT[3000:])["nats"] == pytest.approx(min(history["val_loss"]), abs=1e-5)
    assert history["val_loss"][-1] < history["val_loss"][0] < math.log(model._size)


def test_training_learns_the_text():
    model = fitted(units=32, dropout=0.0, epochs=25, learning_rate=0.01)
    assert model.perplexity(TEXT) < 1.5
    assert model.generate("the cat ", length=8, temperature=0) in ("sat on t", "lay on t")


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_central_differences(tied, rng):
    options = {"embedding": 6 if tied else 3, "tied": tied, "units": 6, "layers": 2}
    model = fitted("abcab\n" * 20, dtype="float64", dropout=0.0, epochs=1, **options)
    stack = model._model
    x = rng.integers(1, model._size, (2, 4))
    y = rng.integers(1, model._size, (2, 4))
    output, _, backwards = stack._forward(x, None, True)
    _, dy = stack.loss.fused(y, output)
    for layer in stack._different:
        layer.zero_gradients()
    for backward in reversed(backwards):
        dy = backward(dy)
    for layer in model._layers():
        for name, array in layer.weights().items():
            for place in rng.integers(array.size, size=3):
                flat, value, nats = array.reshape(-1), array.flat[place], []
                for step in (1e-6, -1e-6):
                    flat[place] = value + step
                    stack._changed()
                    nats.append(stack.evaluate(x, y))
                flat[place] = value
                stack._changed()
                slope = (nats[0] - nats[1]) / 2e-6
                assert layer.grads[name].flat[place] == pytest.approx(slope, abs=1e-7), name


def test_a_tied_model_has_one_matrix_less_and_trains_it(words):
    apart = fitted(level="word", embedding=17, num_words=9, epochs=1)
    assert apart.count_params() - words.count_params() == apart._size * 17
    model = copy.deepcopy(words)
    model._model.compile("adam", model._model.loss)
    model._model.fit_stream([1, 2, 3, 4], [2, 3, 4, 5], verbose=0)
    kernel = model._output.weights()["kernel"]
    assert not np.array_equal(kernel, words._output.weights()["kernel"])
    np.testing.assert_allclose(model._embedding(np.array([[4]]))[0, 0], kernel[:, 4] * 17**0.5)


# ---- writing


@pytest.mark.parametrize("which", ["characters", "words"])
def test_a_stream_gives_the_tokens_of_generate_one_by_one(which, request):
    model = request.getfixturevalue(which)
    tokens = list(model.stream("the", length=30, seed=3))
    assert len(tokens) == 30
    assert "".join(tokens) == model.generate("the", length=30, seed=3)
    assert model.generate("the", length=30, seed=4) != "".join(tokens)
    assert model.generate("the", length=0) == ""
    assert set(tokens) <= set(language.split(TEXT, model.level))


@pytest.mark.parametrize("which", ["characters", "words"])
def test_generation_draws_from_what_the_model_says_of_the_whole_text_before(which, request):
    """By the logits of the reference, without the ids that stand for no token."""
    model = request.getfixturevalue(which)
    options = {"temperature": 0.7, "top_k": 4, "top_p": 0.9}
    text = model.generate("the dog", length=12, seed=5, **options)
    ids, generator = model._ids("prompt", "the dog"), fg.random.generator(5)
    for token in language.split(text, model.level):
        logits = logits_of(model, ids)[-1:]
        logits[:, : model._never] = -np.inf
        [i] = decoding.sample(logits, generator=generator, **options)
        assert model._tokenizer.index_word[i] == token
        ids = np.append(ids, i)


def test_the_penalty_looks_back_over_a_window_of_the_prompt_and_the_text(characters):
    options = {"temperature": 0, "repetition_penalty": 3.0}
    text = characters.generate("dog on ", length=25, penalty_window=4, **options)
    ids = characters._ids("prompt", "dog on ")
    for token in text:
        logits = characters.step(ids[-1:], characters._run(ids[None, :-1])[1])[0].copy()
        logits = logits_of(characters, ids)[-1:]
        logits[:, :1] = -np.inf
        [i] = decoding.sample(logits, previous=ids[None, -4:], **options)
        assert characters._tokenizer.index_word[i] == token
        ids = np.append(ids, i)
    assert text != characters.generate("dog on ", length=25, temperature=0)


def test_a_text_ends_where_stop_says(characters):
    text = characters.generate("the cat", length=500, seed=0)
    assert "\n" in text
    assert characters.generate("the cat", 500, seed=0, stop="\n") == text.partition("\n")[0]


def test_a_word_ends_a_text_with_and_without_the_space_before_it(words):
    text = words.generate("the", length=100, seed=1)
    first = text.index(" on")
    assert words.generate("the", length=100, seed=1, stop="on") == text[:first]
    assert words.generate("the", length=100, seed=1, stop=" on") == text[:first]
    assert words.generate("the", length=100, seed=1, stop=".") == text.partition(".")[0]
    assert "the" in language.split(text) and " the" in language.split(text)
    whole = words.generate("", length=100, seed=1)
    assert words.generate("", length=100, seed=1, stop=" the") == whole.partition(" the")[0]
    assert words.generate("", length=100, seed=1, stop="the") == ""


def test_a_space_at_the_end_of_a_prompt_begins_the_next_word(words):
    options = {"length": 40, "temperature": 2.0}
    for seed in range(20):
        text = words.generate("the cat ", seed=seed, **options)
        assert not text.startswith((" ", ".", "\n")) and "  " not in text
    assert words.generate("the cat ", length=9, temperature=0) == words.generate(
        "the cat", length=9, temperature=0
    ).removeprefix(" ")
    assert words.generate(" ", length=1, seed=0) in words.generate(" ", length=9, seed=0)
    with_space, without = dict(words.predict_next("the ", 99)), dict(words.predict_next("the", 99))
    assert sum(with_space.values()) == pytest.approx(1)
    spaced = {token[1:]: p for token, p in without.items() if token[0] == " "}
    assert with_space == pytest.approx(
        {token: p / sum(spaced.values()) for token, p in spaced.items()}, rel=1e-4
    )
    alone = fitted("a\nb\n" * 50, level="word", epochs=1)  # knows no word with a space
    assert len(alone.generate(" ", length=3, seed=0)) == 3


def test_what_comes_next_is_listed_by_its_probability(characters):
    best = characters.predict_next("the ca", n=4)
    probabilities = np.exp(
        decoding.log_softmax(logits_of(characters, characters._ids("", "the ca"))[-1])
    )
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)
    for token, p in best:
        assert p == pytest.approx(probabilities[characters._tokenizer.word_index[token]], abs=1e-5)
    assert len(characters.predict_next("the ca", n=1000)) == characters._size - 1


# ---- as a step of searches


def test_steps_tell_what_log_probabilities_tell(characters):
    ids = characters._ids("text", "the mat")
    state, values = None, []
    for old, new in zip(ids[:-1], ids[1:], strict=True):
        kept = copy.deepcopy(state)
        scores, after = characters.step(np.array([old, 3]), state)
        if state is not None:
            assert all(np.array_equal(a, b) for a, b in zip(kept, state, strict=True))
        values.append(scores[0, new])
        state = after
    np.testing.assert_allclose(values, characters.log_probabilities("the mat"), atol=1e-6)


def test_beam_search_scores_texts_as_the_model_does(characters):
    start, end = np.array([characters._start]), characters._tokenizer.word_index["\n"]
    options = {"max_length": 60, "length_penalty": 0}
    [[best]] = decoding.beam_search(characters.step, None, start, end, **options)
    text = "".join(characters._tokenizer.index_word[i] for i in best.ids) + "\n"
    assert best.score == pytest.approx(characters.log_probabilities(text).sum(), abs=1e-3)


def test_a_recognizer_is_helped_to_what_it_cannot_tell(characters):
    outputs = ["", *sorted(set(TEXT))]
    frames = np.full((7, len(outputs)), -9.0)
    for t, alike in enumerate(["t", "h", "e", " ", "c", "oa", "t"]):
        for n, token in enumerate(alike):  # the first one a little more than the second
            frames[t, outputs.index(token)] = -0.1 * n
    frames = decoding.log_softmax(frames)

    def texts(**model):
        found = decoding.ctc_beam_search(frames, beam_size=8, n_best=8, **model)
        return {"".join(outputs[i] for i in best.ids): best.score for best in found}

    alone, helped = texts(), texts(**characters.fusion(outputs))
    assert (next(iter(alone)), next(iter(helped))) == ("the cot", "the cat")
    total = characters.log_probabilities("the cat").sum()
    assert helped["the cat"] == pytest.approx(alone["the cat"] + total, abs=1e-3)


# ---- fitting


def test_equal_seeds_give_equal_bits_and_others_do_not(characters):
    again, other = fitted(layers=2, epochs=6), fitted(layers=2, epochs=6, seed=1)
    assert characters.log_probabilities(TEXT).tobytes() == again.log_probabilities(TEXT).tobytes()
    assert not np.array_equal(characters.log_probabilities("the"), other.log_probabilities("the"))


def test_a_list_of_texts_is_lines(characters):
    lines = TEXT.splitlines()
    model = fitted(lines, layers=2, epochs=6)
    assert (
        model.log_probabilities(lines[:2]).tobytes()
        == characters.log_probabilities(TEXT[: len(lines[0]) + len(lines[1]) + 2]).tobytes()
    )


def test_words_joined_are_the_text_again():
    for text in (TEXT, "  It isn't\tgood -- “is it”?\n\n ‘No’, she said: well-made _x_ 3.5\r\n"):
        tokens = language.split(text)
        assert "".join(tokens) == text
        assert "".join(language.split(text[: len("".join(tokens[:9]))])) == "".join(tokens[:9])


def test_there_is_no_third_level():
    with pytest.raises(ValueError, match="level: expected one of character, word"):
        language.split("the cat", "words")


def test_half_a_surrogate_pair_is_a_character_like_any(tmp_path):
    model = fitted("ab\udc80cd" * 20, epochs=1)
    model.save(tmp_path / "model.safetensors")
    again = fg.LanguageModel.load(tmp_path / "model.safetensors")
    assert np.array_equal(again.log_probabilities("b\udc80"), model.log_probabilities("b\udc80"))


def test_rare_words_are_unknown_and_never_written(words):
    assert words._size == 11
    assert "<unk>" not in words.generate(length=300, seed=1, temperature=2.0)
    assert np.array_equal(words.log_probabilities(" zebra"), words.log_probabilities(" quagga"))


def test_words_seen_once_teach_what_to_expect_of_words_never_seen():
    names = [f"x{i}" for i in range(60)]
    text = "".join(f"my name is {name}.\n" for name in names)
    options = {"level": "word", "epochs": 30, "learning_rate": 0.02, "dropout": 0.0}
    model, naive = fitted(text, **options), fitted(text, min_count=1, **options)
    assert model._size == 2 + 5 and naive._size > 2 + 5 + 50
    line = "my name is zebra.\n"
    assert np.exp(model.log_probabilities(line)[3]) > 0.8
    assert np.exp(naive.log_probabilities(line)[3]) < 0.1
    assert "<unk>" not in model.generate(length=100, seed=0)
    assert fg.LanguageModel(**model.get_config()).min_count == 2
    assert fg.LanguageModel(**naive.get_config()).min_count == 1


def test_a_text_may_begin_where_new_lines_are_too_rare_to_be_known():
    model = fitted("a b c d e f g h\n" + "a b c d e f g h " * 30, level="word", num_words=3)
    assert model.generate(length=5, seed=0)
    with pytest.raises(ValueError, match="stop: expected a known word, given"):
        model.generate(stop="\n")


def test_training_stops_early_and_keeps_the_best_epoch(monkeypatch):
    rising = iter([2.0, 1.5, 1.6, 1.7, 1.8])
    kept = []

    def evaluate(self, data, batch_size, verbose=0):
        kept.append(self.get_weights())
        return {"loss": next(rising)}

    monkeypatch.setattr(fg.Sequential, "_evaluate", evaluate)
    model = fitted(epochs=9, patience=2)
    assert model.history.history["val_loss"] == [2.0, 1.5, 1.6, 1.7]
    for best, own in zip(kept[1], model._model.get_weights(), strict=True):
        assert np.array_equal(best, own)


def test_an_interrupted_fit_says_so_and_keeps_the_best_model(monkeypatch):
    train, count, kept = Step.__call__, [0], []

    def interrupted(self, *arguments, **options):
        count[0] += 1
        if count[0] == 150:
            kept.append(self._model().get_weights())
            raise KeyboardInterrupt
        return train(self, *arguments, **options)

    monkeypatch.setattr(Step, "__call__", interrupted)
    model = fg.LanguageModel(**SMALL | {"epochs": 1000})
    with pytest.raises(KeyboardInterrupt):
        model.fit(TEXT, verbose=0)
    losses = model.history.history["val_loss"]
    assert len(losses) > 1
    assert model.evaluate(TEXT[-int(0.1 * len(TEXT)) :])["nats"] == pytest.approx(
        min(losses), abs=0.02
    )
    assert not all(map(np.array_equal, kept[0], model._model.get_weights()))
    assert len(model.generate(length=5)) == 5


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (fg.LanguageModel, "_ids"),
        (fg.LanguageModel, "_build"),
        (fg.LanguageModel, "_assemble"),
        (fg.Sequential, "compile"),
        (Step, "__call__"),
    ],
)
def test_an_interrupt_before_the_end_of_an_epoch_leaves_the_old_model(owner, method, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    model = fitted(epochs=1)
    text = model.generate("the", 9, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.fit("0123456789" * 20, verbose=0)
    assert len(model.history.epoch) == 1
    assert model.generate("the", 9, seed=1) == text


def test_short_texts_get_fewer_streams():
    model = fitted("abcab\n" * 4, validation_split=0.0, steps=8, batch_size=64)
    assert "val_loss" not in model.history.history
    assert model.perplexity("abcab") < 7


# ---- files


def test_recurrent_dropout_is_that_of_the_layers_and_is_saved(tmp_path):
    plain, dropping = (fitted(layers=2, recurrent_dropout=rate) for rate in (0.0, 0.4))
    assert plain.history.history["loss"] != dropping.history.history["loss"]
    dropping.save(tmp_path / "model.safetensors")
    again = fg.LanguageModel.load(tmp_path / "model.safetensors")
    assert again.recurrent_dropout == 0.4
    assert [layer.recurrent_dropout for layer in again._recurrent] == [0.4, 0.4]
    assert again.generate(length=20, seed=1) == dropping.generate(length=20, seed=1)


@pytest.mark.parametrize("which", ["characters", "words"])
def test_a_saved_model_does_what_it_did(which, request, tmp_path):
    model = request.getfixturevalue(which)
    model.save(tmp_path / "a.safetensors")
    again = fg.LanguageModel.load(tmp_path / "a.safetensors")
    assert again.get_config() == model.get_config()
    assert again.log_probabilities(TEXT).tobytes() == model.log_probabilities(TEXT).tobytes()
    assert again.generate(length=40, seed=2) == model.generate(length=40, seed=2)
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_files_with_other_layers_are_refused(characters, tmp_path):
    from fastgru import saving

    path = tmp_path / "a.safetensors"
    characters.save(path)
    config, arrays = saving.load(path)
    for change in (
        {"settings": config["settings"] | {"layers": 1}},
        {"learned": {"tokens": fitted("abcd\n" * 9, epochs=1)._learned()["tokens"]}},
        {"learned": {"tokens": "{}"}},
    ):
        saving.save(path, config | change, dict(arrays))
        with pytest.raises(fg.FileFormatError, match="does not describe a LanguageModel"):
            fg.LanguageModel.load(path)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"level": "words"}, ValueError, "level: expected one of character, word.*'word'"),
        ({"units": 0}, ValueError, "units: expected a positive integer, given 0"),
        ({"tied": True, "embedding": 3}, ValueError, "embedding: expected 256.*tied, given 3"),
        ({"dropout": 1.0}, ValueError, "dropout: expected a number in"),
        ({"recurrent_dropout": 1.0}, ValueError, "recurrent_dropout: expected a number in"),
        ({"min_count": 0}, ValueError, "min_count: expected a positive integer"),
        ({"steps": 1.5}, TypeError, "steps: expected a positive integer"),
        ({"validation_split": 1}, ValueError, "validation_split: expected a number in"),
        ({"seed": -1}, ValueError, "seed: expected"),
    ],
)
def test_settings_out_of_range_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        fg.LanguageModel(**options)


def test_what_is_no_text_is_refused_and_changes_nothing(characters):
    before = characters.log_probabilities("the").tobytes()
    for text, error, message in (
        ("", ValueError, "text: expected at least one character, given an empty text"),
        ("a", ValueError, "text: expected 2 characters or more to learn from, given 1"),
        (7, TypeError, "text: expected a str or a list of str, given 7"),
        (["a", 7], TypeError, r"text\[1\]: expected a str, given 7"),
        ([], ValueError, "text: expected at least one character"),
    ):
        with pytest.raises(error, match=message):
            characters.fit(text)
    with pytest.raises(ValueError, match="text: expected a word seen min_count = 2 times or more"):
        fg.LanguageModel("word").fit("no word is seen again")
    with pytest.raises(ValueError, match="validation_text: expected at least one"):
        characters.fit("abc", "")
    with pytest.raises(ValueError, match="verbose: expected"):
        characters.fit("abc", verbose=7)
    assert characters.log_probabilities("the").tobytes() == before


def test_what_it_has_never_seen_is_refused(characters, words):
    message = r"expected characters that fit has seen, given \['Q', '€'\]"
    with pytest.raises(ValueError, match=f"prompt: {message}"):
        characters.generate("the €Q")
    with pytest.raises(ValueError, match=f"text: {message}"):
        characters.perplexity("the €Q")
    with pytest.raises(ValueError, match="stop: expected a known character, given 'Q'"):
        characters.generate("the", stop="Q")
    with pytest.raises(ValueError, match=r"outputs: expected known tokens, given \['Q'\]"):
        characters.fusion(["", "t", "Q"])
    with pytest.raises(ValueError, match="outputs: expected known tokens"):
        words.fusion(["", " rug", "."])  # seen, but too rare to be known


def test_how_to_draw_is_checked_before_the_first_token(characters):
    for options, message in (
        ({"temperature": -1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"length": -1}, "length"),
        ({"penalty_window": 0}, "penalty_window"),
    ):
        with pytest.raises(ValueError, match=f"{message}: expected"):
            characters.stream("the", **options)


def test_what_is_not_fitted_says_so():
    model = fg.LanguageModel()
    for use in (model.generate, model.predict_next, lambda: model.perplexity("a"),
                lambda: model.step(np.array([0])), lambda: model.fusion([""])):  # fmt: skip
        with pytest.raises(RuntimeError, match="LanguageModel: call fit first"):
            use()


# ---- the command line


def test_the_command_learns_from_a_file_and_writes(tmp_path, monkeypatch, capsys):
    model, text = tmp_path / "m.safetensors", tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    settings = ["--units", "9", "--epochs", "1", "--seed", "3"]
    drawing = ["--length", "12", "--top-k", "3", "--seed", "4"]
    assert main(["generate", str(model), "the", "--train", str(text), *settings]) == 0
    written, progress = capsys.readouterr()
    loaded = fg.LanguageModel.load(model)
    assert (loaded.units, loaded.seed) == (9, 3)
    assert written == "the" + loaded.generate("the", 500, seed=3) + "\n"
    assert "Epoch 1/1" in progress
    assert main(["generate", str(model), "the", *drawing]) == 0
    written = capsys.readouterr().out
    assert written == "the" + loaded.generate("the", 12, top_k=3, seed=4) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the\n")))
    assert main(["generate", str(model), "-", *drawing]) == 0
    assert capsys.readouterr().out == written
    assert main(["generate", str(model), *drawing[2:], "--stop", r"\n"]) == 0
    assert capsys.readouterr().out == loaded.generate("", 500, top_k=3, seed=4, stop="\n") + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["generate", str(tmp_path / "n.safetensors"), "--train", "-", *settings]) == 0
    assert (tmp_path / "n.safetensors").read_bytes() == model.read_bytes()
    capsys.readouterr()
    other = tmp_path / "o.safetensors"
    assert main(["train", "language", str(text), str(other), *settings]) == 0
    assert other.read_bytes() == model.read_bytes()
    assert capsys.readouterr().out == f"Saved to {other}. Use it: fastgru generate {other} PROMPT\n"


def test_the_command_stops_before_words_and_continues_behind_spaces(words, tmp_path, capsys):
    words.save(tmp_path / "m")
    command = ["generate", str(tmp_path / "m"), "--temperature", "0"]
    whole = "the cat" + words.generate("the cat", 8, temperature=0)
    assert " the" in whole
    assert main([*command, "the cat ", "--length", "8"]) == 0
    assert capsys.readouterr().out == whole + "\n"
    for stop in ("the", " the"):
        assert main([*command, "the cat", "--stop", stop]) == 0
        assert capsys.readouterr().out == whole.partition(" the")[0] + "\n"
    assert main([*command, "the cat", "--stop", "horse"]) == 1
    assert "stop: expected a known word, given 'horse'" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    for arguments, message in (
        ([str(tmp_path / "none.safetensors")], "No such file"),
        ([__file__], "expected a fastgru file"),
        (["m.safetensors", "-", "--train", "-"], "expected either the text to learn from or the"),
        (["m.safetensors", "--units", "9"], "--units: expected beside --train only"),
    ):
        assert main(["generate", *arguments]) == 1
        assert message in capsys.readouterr().err
