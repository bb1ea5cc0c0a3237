"""Stacks of recurrent layers compute what PyTorch's do: outputs, last states and all gradients."""

import numpy as np
import pytest
from test_golden import close, golden_file, make_golden, numbered

import fastgru as fg
from fastgru.recurrent import listed

CASES = 200


def stack_of(options, dtype, zero_output):
    """Return a model of the layers that a module of PyTorch has."""
    cell = {"RNN": "SimpleRNN"}.get(options["cell"], options["cell"])
    _, _, I, H = options.get("sizes", (0, 0, make_golden.I, make_golden.H))
    settings = {"return_sequences": True, "return_state": True, "dtype": dtype}
    settings |= {"zero_output_for_mask": zero_output}
    if "nonlinearity" in options:
        settings["activation"] = options["nonlinearity"]
    layers = [getattr(fg, cell)(H, **settings) for _ in range(options.get("num_layers", 1))]
    if options["bidirectional"]:
        layers = [fg.Bidirectional(layer) for layer in layers]
    model = fg.Sequential(layers)
    model.build((None, None, I))
    return model


def pairs_of(options):
    """Yield a layer's number, the name of its weight, and PyTorch's: two biases may be one here."""
    for i in range(options.get("num_layers", 1)):
        sides = {"": f"l{i}"}
        if options["bidirectional"]:
            sides = {"forward_": f"l{i}", "backward_": f"l{i}_reverse"}
        for prefix, suffix in sides.items():
            yield i, f"{prefix}kernel", [f"weight_ih_{suffix}"]
            yield i, f"{prefix}recurrent_kernel", [f"weight_hh_{suffix}"]
            biases = [f"bias_ih_{suffix}", f"bias_hh_{suffix}"]
            if options["cell"] == "GRU":
                yield i, f"{prefix}bias", biases[:1]
                yield i, f"{prefix}recurrent_bias", biases[1:]
            else:  # two biases that are only ever added
                yield i, f"{prefix}bias", biases


def check_stack(options, golden, dtype, zero_output=False):
    """Compare with a module of PyTorch: gates in the order of fastgru, weights transposed."""
    layers = stack_of(options, dtype, zero_output).layers
    for i, ours, theirs in pairs_of(options):
        layers[i].params[ours][...] = sum(golden[w].T for w in theirs)
    lengths = options.get("lengths", make_golden.LENGTHS)
    B, T, _ = golden["x"].shape
    real = np.arange(T) < (np.full(B, T) if lengths is None else lengths)[:, None]
    real = real[..., None]

    initial, dlast = numbered(golden, "initial"), numbered(golden, "dlast")
    share = len(initial) // len(layers)  # of states that belong to one layer
    parts = [slice(i, i + share) for i in range(0, len(initial), share)]
    begins = options.get("initial", True)
    y, last, backwards = golden["x"], [], []
    for layer, part in zip(layers, parts, strict=True):
        state = {"initial_state": initial[part]} if begins else {}
        (y, *states), backward = layer.forward(y, lengths=lengths, **state)
        last += states
        backwards.append(backward)
    # PyTorch's outputs are zero behind the end of a sequence.
    close(y if zero_output else y * real, golden["y"], dtype, "y")

    dy, dinitial = golden["dy"] if zero_output else golden["dy"] * real, []
    for backward, part in reversed(list(zip(backwards, parts, strict=True))):
        dy = backward(dy, dlast[part])
        if begins:
            dy, dstates = dy
            dinitial = [*listed(dstates), *dinitial]
    close(dy, golden["dx"], dtype, "dx")
    for name, some in (("last", last), ("dinitial", dinitial)):
        for i, (got, want) in enumerate(zip(some, numbered(golden, name), strict=True)):
            close(got, want, dtype, f"{name}{i}")
    for i, ours, theirs in pairs_of(options):
        for w in theirs:
            close(layers[i].grads[ours], golden[f"d{w}"].T, dtype, f"gradient of {w}")


def check_model(options, golden, dtype):
    """Compare what a model predicts, which begins with zeros, with a module of PyTorch."""
    model = stack_of(options, dtype, zero_output=True)
    for i, ours, theirs in pairs_of(options):
        model.layers[i].params[ours][...] = sum(golden[w].T for w in theirs)
    y, last = model.predict(golden["x"], lengths=options["lengths"], return_states=True)
    close(y, golden["y"], dtype, "y")
    for i, (got, want) in enumerate(zip(last, numbered(golden, "last"), strict=True)):
        close(got, want, dtype, f"last{i}")


@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", make_golden.TORCH)
def test_stacks_agree_with_golden_files_of_pytorch(name, dtype, zero_output):
    check_stack(make_golden.TORCH[name], golden_file(name), dtype, zero_output)


@pytest.mark.parametrize("name", make_golden.TORCH)
def test_pytorch_agrees_where_it_is_installed(name):
    pytest.importorskip("torch")
    options = make_golden.TORCH[name]
    check_stack(options, make_golden.from_torch(**options), "float64")


@pytest.mark.parametrize("seed", range(CASES))
def test_random_stacks_agree_with_pytorch_where_it_is_installed(seed):
    pytest.importorskip("torch")
    options = make_golden.torch_case(seed, largest=33)
    golden = make_golden.from_torch(**options)
    for dtype in ("float32", "float64"):
        check_stack(options, golden, dtype, zero_output=bool(seed % 2))
        if not options["initial"]:
            check_model(options, golden, dtype)


@pytest.mark.parametrize("seed", range(20))
def test_stacks_with_many_rows_agree_with_pytorch_where_it_is_installed(seed):
    pytest.importorskip("torch")
    options = make_golden.torch_case(seed, largest=33)
    rows = 145 + 13 * seed  # run in blocks
    options["sizes"] = rows, *options["sizes"][1:]
    if options["lengths"] is not None:
        options["lengths"] = np.resize(options["lengths"], rows)
    check_stack(options, make_golden.from_torch(**options), "float32", zero_output=bool(seed % 2))


def test_the_random_cases_are_of_all_kinds():
    cases = [make_golden.torch_case(seed, largest=33) for seed in range(CASES)]
    kinds = {
        (c["cell"], c.get("nonlinearity"), c["bidirectional"], c["num_layers"], c["initial"])
        for c in cases
    }
    assert len(kinds) == 4 * 2 * 3 * 2
    assert {c["lengths"] is None for c in cases} == {False, True}
    assert 1 in {c["sizes"][1] for c in cases}


def agrees(options, golden):
    try:
        check_stack(options, golden, "float64")
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("name", ["torch_lstm_bidirectional", "torch_case_45", "torch_case_66"])
def test_what_is_wrong_in_a_stack_would_be_noticed(name):
    options, golden = make_golden.TORCH[name], golden_file(name)
    assert agrees(options, golden)
    first, second = "weight_hh_l0", "weight_hh_l0_reverse"
    assert not agrees(options, golden | {first: golden[second], second: golden[first]})
    assert not agrees(options, golden | {"dlast0": golden["dlast0"] + 1e-3})
    assert not agrees(options | {"lengths": None}, golden)
    assert not agrees(options, golden | {"initial0": golden["initial0"] + 1e-3})
