"""The summary reads like Keras'."""

import numpy as np
import pytest

import fastgru as fg
from fastgru import summary

WANTED = """\
Model: "small"
┏━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━┓
┃ Layer (type)          ┃ Output Shape ┃ Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━┩
│ embedding (Embedding) │ (None, 7, 6) │   5,400 │
├───────────────────────┼──────────────┼─────────┤
│ gru (GRU)             │ (None, 4)    │     144 │
├───────────────────────┼──────────────┼─────────┤
│ last (Dense)          │ (None, 1)    │       5 │
└───────────────────────┴──────────────┴─────────┘
 Total params: 5,549 (21.68 KB)
 Trainable params: 5,549 (21.68 KB)
 Non-trainable params: 0 (0.00 B)
"""


def small():
    layers = [fg.Embedding(900, 6, input_length=7), fg.GRU(4), fg.Dense(1, name="last")]
    return fg.Sequential(layers, name="small")


def test_it_is_the_table_of_keras(capsys):
    small().summary()
    assert capsys.readouterr().out == WANTED
    lines = []
    small().summary(print_fn=lines.append)
    assert "\n".join(lines) + "\n" == WANTED and capsys.readouterr().out == ""


def test_weights_that_are_not_trained_are_counted_apart():
    model = small()
    model.layers[0].trainable = False
    assert summary.lines_of(model)[-3:] == [
        " Total params: 5,549 (21.68 KB)",
        " Trainable params: 149 (596.00 B)",
        " Non-trainable params: 5,400 (21.09 KB)",
    ]


def test_float64_takes_twice_the_space():
    model = fg.Sequential([fg.Dense(3, dtype="float64")])
    model.build((None, 2))
    assert " Total params: 9 (72.00 B)" in summary.lines_of(model)


def test_where_boxes_cannot_be_written_there_are_signs():
    for line in WANTED.splitlines():
        assert summary.plain(line, "utf-8") == summary.plain(line, None) == line
        signs = summary.plain(line, "ascii")
        assert signs.isascii() and len(signs) == len(line)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.00 B"), (1023, "1023.00 B"), (1024, "1.00 KB"), (2**40, "1.00 TB"), (2**60, "1048576")],
)
def test_sizes_are_told_in_units_of_1024(size, text):
    assert summary.size_text(size).startswith(text)


def test_a_model_that_is_not_built_has_a_summary(capsys):
    model = fg.Sequential([fg.GRU(3)])
    model.summary()
    assert "not built" in capsys.readouterr().out
    model.predict(np.zeros((1, 2, 5)))
    model.summary()
    assert "(None, 3)" in capsys.readouterr().out
