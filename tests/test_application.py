"""What the applications share."""

import numpy as np
import pytest

import fastgru as fg
from fastgru import saving
from fastgru.application import Application


class Doubler(Application):
    """Learns a factor and a dense layer."""

    def __init__(self, units=3):
        self.units, self.factor, self.layer = units, None, None

    def fit(self, factor):
        self.factor, self.layer = factor, fg.Dense(self.units, seed=5)
        self.layer.build((None, 4))
        return self

    def get_config(self):
        return {"units": self.units}

    def _layers(self):
        return [] if self.layer is None else [self.layer]

    def _assemble(self, layers):
        (self.layer,) = layers

    def _learned(self):
        return {"factor": self.factor}

    def _learn(self, learned):
        self.factor = float(learned["factor"])


class Other(Doubler):
    """The same under another name."""


def test_a_file_holds_settings_what_was_learned_and_weights(tmp_path):
    path = tmp_path / "a.safetensors"
    one = Doubler(units=2).fit(1.5)
    one.save(path)
    again = Doubler.load(path)
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert (again.units, again.factor) == (2, 1.5)
    assert np.array_equal(again.layer(x), one.layer(x))
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_it_shows_itself_by_the_settings_that_were_chosen():
    assert repr(Doubler()) == "Doubler()"
    assert repr(Doubler(units=2).fit(1.5)) == "Doubler(units=2)"
    for kind in (fg.TextClassifier, fg.LanguageModel, fg.Translator, fg.SpeechRecognizer):
        assert repr(kind()) == f"{kind.__name__}()"
    assert repr(fg.TextClassifier(16, ngrams=[3])) == "TextClassifier(units=16, ngrams=[3])"


def test_what_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(RuntimeError, match="Doubler: call fit first"):
        Doubler().save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    Doubler().fit(1).save(path)
    with pytest.raises(fg.FileFormatError, match="class: expected 'Other', given 'Doubler'"):
        Other.load(path)
    with pytest.raises(fg.FileFormatError, match="does not describe a model"):
        fg.load_model(path)
    for change in (
        {"settings": []},
        {"settings": {"mystery": 1}},
        {"learned": {}},
        {"layers": []},
        {"layers": [{"class": "os", "config": {}, "input_shape": [None, 4]}]},
    ):
        config, arrays = saving.load(path)
        saving.save(tmp_path / "b.safetensors", config | change, arrays)
        with pytest.raises(
            fg.FileFormatError, match=r"b\.safetensors: does not describe a Doubler"
        ):
            Doubler.load(tmp_path / "b.safetensors")
    config, arrays = saving.load(path)
    saving.save(tmp_path / "b.safetensors", config, arrays | {"dense.more": np.zeros(2)})
    with pytest.raises(
        fg.FileFormatError, match=r"arrays that belong to no layer: \['dense.more'\]"
    ):
        Doubler.load(tmp_path / "b.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(fg.FileFormatError):
        Doubler.load(path)
