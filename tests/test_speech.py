"""Speech recognition: learning, transcribing, streaming, saving, and what bad input gets."""

import itertools
import struct

import numpy as np
import pytest

import fastgru as fg
from fastgru import audio, decoding
from fastgru.cli import main
from fastgru.step import Step

RATE = 8000
TONES = {"low": 300, "mid": 1000, "high": 2500}
SMALL = {
    "units": 16, "layers": 1, "bidirectional": False, "dropout": 0, "speeds": (1,), "masks": 0,
    "stack": 2, "learning_rate": 0.02, "batch_size": 4, "epochs": 25,
    "validation_split": 0, "seed": 0,
}  # fmt: skip


def spoken(text, seed):
    """Return a tone for each word, with silence between, of lengths that differ."""
    random = np.random.default_rng(seed)
    parts = []
    for word in text.split():
        time = np.arange(int(RATE * random.uniform(0.1, 0.2))) / RATE
        silence = 1e-4 * random.normal(size=int(RATE * random.uniform(0.05, 0.1)))
        loud = random.uniform(0.1, 0.5)
        parts += [silence, loud * np.sin(2 * np.pi * TONES[word] * time)]
    return np.concatenate([*parts, silence])


def utterances(count, seed):
    random = np.random.default_rng(seed)
    texts = [
        " ".join(random.choice(list(TONES), random.integers(1, 4)).tolist()) for _ in range(count)
    ]
    return [spoken(text, seed + i) for i, text in enumerate(texts)], texts


@pytest.fixture(scope="module")
def recognizer():
    return fg.SpeechRecognizer(**SMALL).fit(*utterances(48, 0), verbose=0)


@pytest.fixture(scope="module")
def both_ways():
    options = SMALL | {"bidirectional": True, "epochs": 12}
    return fg.SpeechRecognizer(**options).fit(*utterances(48, 0), verbose=0)


def test_words_are_recognised_one_by_one_and_connected(recognizer, both_ways):
    waves, texts = utterances(20, 1000)
    for each in (recognizer, both_ways):
        for beam_size in (1, 4):
            heard = each.transcribe(waves, beam_size=beam_size)
            assert fg.metrics.wer(texts, heard) < 0.1
        measured = each.evaluate(waves, texts, beam_size=4)
        assert measured["wer"] == fg.metrics.wer(texts, heard)
        assert measured["cer"] == fg.metrics.cer(texts, heard)
        assert measured["exact"] == np.mean([a == b for a, b in zip(texts, heard, strict=True)])


def test_letters_are_recognised_as_well_as_words():
    options = SMALL | {"level": "char", "stack": 1, "epochs": 40, "units": 24}
    waves, texts = utterances(48, 0)
    recognizer = fg.SpeechRecognizer(**options).fit(waves, texts, verbose=0)
    assert sorted(recognizer.vocabulary) == sorted({"", *"".join(texts)})
    assert recognizer.evaluate(waves, texts)["cer"] < 0.2


def test_a_language_model_of_letters_mends_what_is_misheard():
    options = SMALL | {"level": "char", "stack": 1, "epochs": 12, "units": 24}  # too few epochs
    recognizer = fg.SpeechRecognizer(**options).fit(*utterances(48, 0), verbose=0)
    small = {"units": 24, "embedding": 8, "dropout": 0, "steps": 24, "batch_size": 8, "epochs": 8}
    _, texts = utterances(300, 9000)
    model = fg.LanguageModel(**small, learning_rate=0.01, seed=0).fit(texts, verbose=0)
    held = utterances(30, 5000)
    alone = recognizer.evaluate(*held)
    fused = recognizer.evaluate(*held, language_model=model, lm_weight=0.6, bonus=0.5)
    assert alone["wer"] > 0.4 and fused["wer"] < 0.1


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_stream_gives_the_text_of_the_whole_however_it_is_cut(recognizer, beam_size):
    wave = spoken("low high mid high", 7)
    whole = recognizer.transcribe([wave], beam_size)[0]
    assert len(whole.split()) == 4
    stream = recognizer.stream(beam_size)
    random = np.random.default_rng(0)
    for _ in range(3):
        cuts = np.sort(random.integers(0, len(wave), 9))
        seen = [stream(chunk) for chunk in np.split(wave, cuts)]
        assert seen[-1] == stream.text == whole
        assert seen[0] != whole
        stream.reset()
        assert stream.text == ""


def test_streams_of_one_recognizer_do_not_disturb_each_other(recognizer):
    waves = [spoken("low high mid", 1), spoken("high high low", 2)]
    streams = [recognizer.stream(), recognizer.stream(beam_size=1)]
    chunks = [np.array_split(wave, 5) for wave in waves]
    for pair in zip(*chunks, strict=True):
        texts = [stream(chunk) for stream, chunk in zip(streams, pair, strict=True)]
    assert texts == [recognizer.transcribe([waves[0]])[0], recognizer.transcribe([waves[1]], 1)[0]]


def test_a_recording_is_read_the_same_alone_and_among_others(both_ways):
    waves, _ = utterances(9, 50)
    together = both_ways.log_probabilities(waves)
    for wave, scores in zip(waves, together, strict=True):
        assert np.array_equal(both_ways.log_probabilities([wave])[0], scores)
        assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)


def test_a_beam_sums_all_alignments_and_a_beam_of_one_takes_the_best(both_ways):
    wave = spoken("low mid", 3)
    scores = both_ways.log_probabilities([wave])[0]
    tokens = both_ways.vocabulary
    best = decoding.ctc_greedy(scores)
    assert both_ways.transcribe([wave], 1) == [" ".join(tokens[i] for i in best)]
    found = decoding.ctc_beam_search(scores, beam_size=5)[0].ids
    assert both_ways.transcribe([wave], 5) == [" ".join(tokens[i] for i in found)]


def model_that_wants(word, tokens):
    def step(ids, state):
        scores = np.full((len(ids), len(tokens)), -50.0)
        scores[:, tokens.index(word)] = 0
        return scores, state

    return {"language_model": step, "state": None, "start": np.zeros(1, np.int64)}


class Fusing:
    def fusion(self, outputs):
        assert outputs[0] == ""
        return model_that_wants("mid", outputs)


def test_a_language_model_has_its_say(recognizer):
    wave = spoken("low", 5)
    assert recognizer.transcribe([wave]) == ["low"]
    plain = model_that_wants("mid", recognizer.vocabulary)
    for options in (plain, {"language_model": Fusing()}):
        assert "low" not in recognizer.transcribe([wave], **options, lm_weight=2.0)[0]
        stream = recognizer.stream(**options, lm_weight=2.0)
        assert stream(wave) == recognizer.transcribe([wave], **options, lm_weight=2.0)[0]
        assert recognizer.transcribe([wave], **options, lm_weight=1e-6) == ["low"]


def test_a_language_model_of_words_tells_a_lines_first_word_from_the_others(recognizer):
    _, texts = utterances(60, 9000)
    small = {"units": 8, "dropout": 0, "steps": 8, "batch_size": 4, "epochs": 1, "seed": 0}
    model = fg.LanguageModel("word", **small).fit(texts, verbose=0)
    step, ids, state = recognizer._search(4, {"language_model": model})._model
    found = []
    for word in ("mid", "low", "low", "high"):
        log_probabilities, state = step(ids, state)
        assert log_probabilities.shape == (1, len(recognizer.vocabulary))
        ids = np.array([recognizer.vocabulary.index(word)])
        found.append(log_probabilities[0, ids[0]])
    np.testing.assert_allclose(found, model.log_probabilities("mid low low high"), rtol=1e-5)
    assert recognizer.transcribe([spoken("low", 5)], language_model=model, lm_weight=1e-6) == [
        "low"
    ]
    never_first = fg.LanguageModel("word", **small).fit(["mid low high low"] * 9, verbose=0)
    with pytest.raises(
        ValueError,
        match="language_model: expected a model that has seen each word .* expected known tokens",
    ):
        recognizer.transcribe([spoken("low", 5)], language_model=never_first)


def test_wav_files_are_read_and_resampled(recognizer, tmp_path):
    waves, _ = utterances(3, 20)
    paths = [tmp_path / f"{i}.wav" for i in range(3)]
    for path, wave in zip(paths, waves, strict=True):
        audio.write_wav(path, wave, RATE)
    assert recognizer.transcribe(paths) == recognizer.transcribe(waves)
    audio.write_wav(paths[0], audio.resample(waves[0], RATE, 22050), 22050)
    assert recognizer.transcribe([str(paths[0])]) == recognizer.transcribe(waves[:1])


def test_a_file_holds_all_it_takes(recognizer, both_ways, tmp_path):
    waves, _ = utterances(4, 30)
    for each in (recognizer, both_ways):
        path = tmp_path / "a.safetensors"
        each.save(path)
        again = fg.SpeechRecognizer.load(path)
        assert again.get_config() == each.get_config()
        assert again.vocabulary == each.vocabulary
        for a, b in zip(again.log_probabilities(waves), each.log_probabilities(waves), strict=True):
            assert np.array_equal(a, b)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(fg.FileFormatError):
        fg.SpeechRecognizer.load(path)


def test_a_seed_gives_the_same_recognizer_again():
    options = SMALL | {"epochs": 2, "speeds": (0.9, 1.1), "masks": 1, "dropout": 0.2}
    waves, texts = utterances(12, 0)
    scores = [
        fg.SpeechRecognizer(**options | {"seed": seed})
        .fit(waves, texts, verbose=0)
        .log_probabilities(waves[:1])[0]
        for seed in (3, 3, 4)
    ]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def ctc_of(recognizer, waves, texts):
    """Return the mean loss, one recording at a time."""
    loss, tokens = fg.losses.CTC(), recognizer.vocabulary
    return np.mean([
        loss([[tokens.index(word) for word in text.split()]], scores[None])[0]
        for text, scores in zip(texts, recognizer.log_probabilities(waves), strict=True)
    ])  # fmt: skip


def test_training_stops_with_the_weights_of_the_best_epoch():
    options = SMALL | {"epochs": 30, "patience": 2, "learning_rate": 0.5}
    held = utterances(6, 500)
    recognizer = fg.SpeechRecognizer(**options)
    recognizer.fit(*utterances(16, 0), validation_data=held, verbose=0)
    losses = recognizer.history.history["val_loss"]
    assert len(losses) < 30
    assert losses[-1] > min(losses)
    assert ctc_of(recognizer, *held) == pytest.approx(min(losses), rel=1e-4)


def test_an_interrupted_fit_leaves_the_best_weights():
    seen = []

    class Interrupt(fg.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if len(seen) == 8:
                raise KeyboardInterrupt
            seen.append(logs["val_loss"])

    recognizer = fg.SpeechRecognizer(**SMALL | {"learning_rate": 0.5, "patience": 100})
    held = utterances(6, 500)
    with pytest.raises(KeyboardInterrupt):
        recognizer.fit(*utterances(16, 0), validation_data=held, callbacks=[Interrupt()], verbose=0)
    assert min(seen) < seen[-1]
    assert ctc_of(recognizer, *held) == pytest.approx(min(seen), rel=1e-4)


@pytest.fixture
def once():
    """Return a recognizer that was trained for an epoch, for tests that change it."""
    return fg.SpeechRecognizer(**SMALL | {"epochs": 1}).fit(*utterances(4, 0), verbose=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"verbose": 9}, "verbose: expected 0, 1, 2 or 'auto', given 9"),
        ({"callbacks": 5}, "callbacks: expected a list of callbacks, given 5"),
        ({"callbacks": [5]}, r"callbacks\[0\]: expected a fastgru"),
        ({"validation_data": 5}, "validation_data: expected a tuple"),
        (
            {"validation_data": ([np.zeros(900)], ["high " * 500])},
            r"validation_data: transcripts\[0\]: expected at most",
        ),
    ],
)
def test_a_wrong_argument_leaves_what_was_learned_as_it_was(once, wrong, message):
    wave = spoken("low high", 3)
    vocabulary, [scores] = once.vocabulary, once.log_probabilities([wave])
    with pytest.raises((TypeError, ValueError), match=message):
        once.fit([wave], ["other words"], **{"verbose": 0} | wrong)
    assert once.vocabulary == vocabulary
    assert np.array_equal(once.log_probabilities([wave])[0], scores)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (fg.SpeechRecognizer, "_prior_of"),
        (fg.SpeechRecognizer, "_steps"),
        (fg.SpeechRecognizer, "_new_model"),
        (Step, "__call__"),
    ],
)
def test_an_interrupt_before_the_end_of_an_epoch_leaves_the_old_recognizer(
    owner, method, once, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    wave = spoken("low high", 3)
    vocabulary, [scores] = once.vocabulary, once.log_probabilities([wave])
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            once.fit([wave], ["other words"], verbose=0)
    assert once.vocabulary == vocabulary
    assert np.array_equal(once.log_probabilities([wave])[0], scores)


def test_a_transcript_that_is_too_long_is_named_by_its_own_place():
    waves, texts = utterances(10, 0)
    for i in range(10):
        wrong = [*texts[:i], "low " * 500, *texts[i + 1 :]]
        with pytest.raises(ValueError, match=rf"transcripts\[{i}\]: expected at most"):
            fg.SpeechRecognizer(**SMALL | {"validation_split": 0.3}).fit(waves, wrong, verbose=0)


def test_each_epoch_draws_speeds_and_hides_parts():
    seen = []

    class Watch(fg.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["loss"])

    options = SMALL | {"learning_rate": 1e-9, "epochs": 4}
    waves, texts = utterances(8, 0)
    for changes, distinct in (({}, 1), ({"speeds": (0.8, 1.25)}, 4), ({"masks": 3}, 4)):
        seen.clear()
        fg.SpeechRecognizer(**options | changes).fit(waves, texts, callbacks=[Watch()], verbose=0)
        assert len(set(np.round(seen, 3))) == distinct, changes


def test_silence_and_short_sounds_are_empty_texts(recognizer):
    assert recognizer.transcribe([np.zeros(10), np.zeros(0)]) == ["", ""]
    assert recognizer.transcribe([]) == []
    assert recognizer.stream()(np.zeros(5)) == ""


def test_bad_input_gets_errors_that_name_it(recognizer, both_ways, tmp_path):
    waves, texts = utterances(3, 0)
    fresh = fg.SpeechRecognizer(**SMALL)
    with pytest.raises(RuntimeError, match="call fit first"):
        fresh.transcribe(waves)
    with pytest.raises(RuntimeError, match="call fit first"):
        fresh.stream()
    for wrong, error, message in (
        ((waves, texts[:2]), ValueError, "transcripts: expected 3, as many as waves, given 2"),
        ((waves[0], texts), ValueError, r"waves\[0\]: expected a WAV file's path, or samples"),
        (("a.wav", texts), TypeError, "waves: expected a list"),
        ((waves, "low"), TypeError, "transcripts: expected a list"),
        ((waves, [1, 2, 3]), TypeError, r"transcripts\[0\]: expected a str, given 1"),
        ((waves, ["", " ", ""]), ValueError, "transcripts: expected at least one word"),
        (([waves[0], np.zeros(9)], texts[:2]), ValueError, r"waves\[1\]: expected 280 samples"),
        (([(w * 9000).astype(np.int16) for w in waves], texts), ValueError, "divide 16-bit"),
        (([waves[0] * np.nan], texts[:1]), ValueError, r"waves\[0\]: expected finite"),
        ((waves[:2] + [waves[2] * 32768], texts), ValueError, r"waves\[2\]: .* by 32768"),
        ((waves[:1], ["low " * 500]), ValueError, r"transcripts\[0\]: expected at most \d+ words"),
        (([tmp_path / "none.wav"], ["low"]), FileNotFoundError, "none.wav"),
    ):
        with pytest.raises(error, match=message):
            fresh.fit(*wrong, verbose=0)
        assert fresh.vocabulary == [""]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    with pytest.raises(fg.FileFormatError, match=r"broken\.wav: expected a WAV file"):
        recognizer.transcribe([broken])
    for value, message in ((np.nan, "expected finite"), (900, r"expected samples in \[-1, 1\]")):
        samples = np.array([0] * 999 + [value], np.float32).tobytes()
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
        content = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
        broken.write_bytes(struct.pack("<4sI", b"RIFF", len(content)) + content)
        with pytest.raises(ValueError, match=rf"waves\[0\], .*broken\.wav: {message}"):
            recognizer.transcribe([broken])
    with pytest.raises(TypeError, match="language_model: expected a function, .* given 5"):
        recognizer.transcribe(waves, language_model=5)
    with pytest.raises(ValueError, match="beam_size"):
        recognizer.transcribe(waves, beam_size=0)
    with pytest.raises(TypeError, match="expected bidirectional=False"):
        both_ways.stream()
    for options, message in (
        ({"level": "phone"}, "level: .*'phone'"),
        ({"features": "mel"}, "features"),
        ({"feature_options": {"n_mels": 4000}}, "n_mels"),
        ({"speeds": ()}, "speeds"),
        ({"speeds": [1, 0.001]}, r"speeds\[1\]: expected a number from 0.1 to 10, given 0.001"),
        ({"stack": 0}, "stack"),
        ({"dropout": 1}, "dropout"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            fg.SpeechRecognizer(**options)


def test_the_command_line_transcribes_files_and_standard_input(
    recognizer, tmp_path, capsys, monkeypatch
):
    model, sound = str(tmp_path / "model.safetensors"), tmp_path / "a.wav"
    recognizer.save(model)
    wave = spoken("low high", 3)
    audio.write_wav(sound, wave, RATE)
    expected = recognizer.transcribe([sound])[0]
    assert main(["transcribe", model, str(sound), str(sound)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{sound}\t{expected}"] * 2

    class Input:
        buffer = sound.open("rb")

    monkeypatch.setattr("sys.stdin", Input)
    assert main(["transcribe", model]) == 0
    assert capsys.readouterr().out == expected + "\n"
    Input.buffer.close()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    assert main(["transcribe", model, str(tmp_path / "none.wav"), str(broken), str(sound)]) == 1
    written, errors = capsys.readouterr()
    assert written == f"{sound}\t{expected}\n"
    assert [name in line for name, line in zip(("none.wav", "broken.wav"), errors.splitlines(),
                                               strict=True)] == [True, True]  # fmt: skip
    with broken.open("rb") as Input.buffer:
        assert main(["transcribe", model, "-"]) == 1
    assert "fastgru transcribe: standard input: expected a WAV" in capsys.readouterr().err


def test_the_command_line_trains_from_a_table(tmp_path, capsys):
    waves, texts = utterances(6, 0)
    lines = []
    for i, (wave, text) in enumerate(zip(waves, texts, strict=True)):
        audio.write_wav(tmp_path / f"{i}.wav", wave, RATE)
        lines.append(f"{i}.wav\t{text}\n")
    table, model = tmp_path / "train.tsv", tmp_path / "model.safetensors"
    table.write_text("".join(lines))
    assert main(["train", "speech", str(table), str(model), "--epochs", "1", "--seed", "0"]) == 0
    recognizer = fg.SpeechRecognizer.load(model)
    assert set(itertools.chain(*map(str.split, texts))) == set(recognizer.vocabulary[1:])
    options = "--forward --units 8 --epochs 1 --seed 0".split()
    assert main(["train", "speech", str(table), str(model), *options]) == 0
    expected = fg.speech.forward_settings() | {"units": 8, "epochs": 1}
    assert fg.SpeechRecognizer.load(model).get_config().items() >= expected.items()
    table.write_text("0.wav low\n")
    assert main(["train", "speech", str(table), str(model)]) == 1
    assert "train.tsv, line 1: expected a WAV file, a tab and a text" in capsys.readouterr().err
