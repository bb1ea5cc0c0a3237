"""Recurrent layers compute what the operators of ONNX do in ONNX Runtime (forward only)."""

import numpy as np
import pytest
from test_golden import close, golden_file, make_golden

import fastgru as fg

CASES = 120
# The place of each gate of an operator among those of Keras: z r n, and i f g o.
GATES = {"RNN": [0], "GRU": [0, 1, 2], "LSTM": [0, 2, 3, 1]}
CELLS = {"RNN": "SimpleRNN", "GRU": "GRU", "LSTM": "LSTM"}


def layer_of(options, dtype):
    """Return a layer like an operator of ONNX, whose output is zero behind the end of a row."""
    op, (_, _, I, H) = options["op"], options["sizes"]
    settings = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
    if op == "GRU":
        settings["reset_after"] = options["linear_before_reset"] == 1
    if op == "RNN":
        settings["activation"] = options["activations"][0].lower()
    settings["go_backwards"] = options["direction"] == "reverse"
    layer = getattr(fg, CELLS[op])(H, dtype=dtype, **settings)
    layer = fg.Bidirectional(layer) if options["direction"] == "bidirectional" else layer
    layer.build((None, None, I))
    return layer


def weights_of(options, golden):
    """Return the weights of an operator in the layout of Keras."""
    op, order = options["op"], GATES[options["op"]]

    def arranged(columns):
        return np.concatenate([np.split(columns, len(order), axis=-1)[i] for i in order], axis=-1)

    weights = []
    for W, R, B in zip(golden["W"], golden["R"], golden["B"], strict=True):
        biases = arranged(B.reshape(2, -1))
        has_two = op == "GRU" and options["linear_before_reset"]
        weights += [arranged(W.T), arranged(R.T), biases if has_two else biases.sum(axis=0)]
    return weights


def check_operator(options, golden, dtype):
    """Compare output and last states."""
    layer = layer_of(options, dtype)
    layer.set_weights(weights_of(options, golden))
    states = ["h", "c"] if options["op"] == "LSTM" else ["h"]
    directions = len(golden["W"])
    given = [golden[f"initial_{name}"][i] for i in range(directions) for name in states]
    options_of_call = {"lengths": options["lengths"]}
    if options["initial"]:
        options_of_call["initial_state"] = given if len(given) > 1 else given[0]
    y, *last = layer(np.swapaxes(golden["X"], 0, 1), **options_of_call)
    if options["direction"] == "reverse":
        y = y[:, ::-1]  # in the order of the input, as that of ONNX
    want = np.concatenate([*np.moveaxis(golden["Y"], 1, 0)], axis=-1)
    close(np.swapaxes(y, 0, 1), want, "float32", "Y")
    wanted = [golden[f"Y_{name}"][i] for i in range(directions) for name in states]
    for i, (got, state) in enumerate(zip(last, wanted, strict=True)):
        close(got, state, "float32", f"last state {i}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", make_golden.ONNX)
def test_layers_agree_with_golden_files_of_onnxruntime(name, dtype):
    check_operator(make_golden.ONNX[name], golden_file(name), dtype)


@pytest.mark.parametrize("seed", range(CASES))
def test_random_layers_agree_with_onnxruntime_where_it_is_installed(seed):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    options = make_golden.onnx_case(seed, largest=33)
    check_operator(options, make_golden.from_onnxruntime(**options), "float32")


def test_the_random_cases_are_of_all_kinds():
    cases = [make_golden.onnx_case(seed, largest=33) for seed in range(CASES)]
    kinds = {(c["op"], c.get("linear_before_reset"), c["direction"], c["initial"]) for c in cases}
    assert len(kinds) == 4 * 3 * 2
    with_lengths = {(c["op"], c["direction"]) for c in cases if c["lengths"] is not None}
    assert len(with_lengths) == 3 * 3


@pytest.mark.parametrize("name", make_golden.ONNX)
def test_a_swap_of_gates_or_steps_would_be_noticed(name):
    options, golden = make_golden.ONNX[name], golden_file(name)
    check_operator(options, golden, "float64")
    for wrong in ({"R": golden["R"][:, ::-1]}, {"X": golden["X"][::-1]}):
        with pytest.raises(AssertionError, match="Y"):
            check_operator(options, golden | wrong, "float64")
