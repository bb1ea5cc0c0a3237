"""Steps one at a time: the bits of the sequence, no allocation, clear refusals."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastgru as fg


def built(layer, inputs):
    layer.build((None, None, inputs))
    return layer


def bits(arrays):
    return [np.asarray(a).tobytes() for a in arrays]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [fg.LSTM, fg.SimpleRNN])
@pytest.mark.parametrize("units", [1, 7, 33])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_steps_of_other_cells_give_the_bits_of_the_sequence(kind, batch, units, dtype, rng):
    layer = kind(
        units, return_sequences=True, return_state=True, dtype=dtype,
        activation="softplus" if units == 7 else "tanh",
    )  # fmt: skip
    x = rng.normal(size=(batch, 6, 13)).astype(dtype)
    y, *last = layer(x)
    step = layer.stream(batch)
    assert bits(step(x[:, t]) for t in range(6)) == bits(y[:, t] for t in range(6))
    states = step.state if isinstance(step.state, list) else [step.state]
    assert bits(states) == bits(last)
    step.reset()
    assert step(x[:, 0]).tobytes() == y[:, 0].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("units", [1, 7, 16, 33, 130])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_the_steps_of_a_gru_give_the_bits_of_the_sequence(batch, units, reset_after, dtype, rng):
    layer = fg.GRU(
        units, reset_after=reset_after, return_sequences=True, dtype=dtype,
        activation="softplus" if units == 7 else "tanh",
    )  # fmt: skip
    x = rng.normal(size=(batch, 6, 13)).astype(dtype)
    y = layer(x)
    step = layer.stream(batch)
    assert bits(step(x[:, t]) for t in range(6)) == bits(y[:, t] for t in range(6))
    assert step.state.tobytes() == y[:, -1].tobytes()


@pytest.mark.parametrize("kind", [fg.GRU, fg.LSTM, fg.SimpleRNN])
def test_many_streams_share_threads_and_keep_their_bits(kind, rng, threads):
    layer = kind(40 if kind is not fg.SimpleRNN else 90, return_sequences=True)
    x = rng.normal(size=(1000, 3, 9)).astype(np.float32)
    y = layer(x)
    threads.set_num_threads(2)
    step = layer.stream(1000)
    assert bits(step(x[:, t]) for t in range(3)) == bits(y[:, t] for t in range(3))


def test_a_step_takes_and_gives_the_axis_of_the_batch_or_not(rng):
    step = built(fg.GRU(5), 3).stream()
    x = rng.normal(size=3).astype(np.float32)
    first = step(x).copy()
    assert first.shape == (5,)
    step.reset()
    assert step(x[None]).shape == (1, 5)
    assert np.array_equal(step.state[0], first)


def test_the_returned_array_is_used_again_and_reset_forgets():
    step = built(fg.GRU(5), 3).stream()
    y = step(np.ones(3, np.float32))
    before = y.copy()
    assert step(np.ones(3, np.float32)) is y and not np.array_equal(y, before)
    step.reset()
    assert not step.state.any()
    assert np.array_equal(step(np.ones(3, np.float32)), before)


def test_the_state_can_be_set(rng):
    layer = built(fg.GRU(5), 3)
    x, h0 = (rng.normal(size=(2, n)).astype(np.float32) for n in (3, 5))
    step = layer.stream(2)
    step.state[...] = h0
    assert step(x).tobytes() == layer(x[:, None], initial_state=h0).tobytes()


@pytest.mark.parametrize("last", ["softmax", "gelu", "sigmoid", None])
def test_a_whole_model_can_be_streamed(last, rng):
    model = fg.Sequential(
        [
            fg.Embedding(30, 6),
            fg.GRU(9, return_sequences=True),
            fg.Dropout(0.5),
            fg.Dense(8, "relu"),
            fg.LSTM(7, return_sequences=True),
            fg.SimpleRNN(5, return_sequences=True),
            fg.Dense(4, last),
        ]
    )
    ids = rng.integers(0, 30, (3, 5))
    y = model.predict(ids)
    step = model.stream(3)
    assert bits(step(ids[:, t]) for t in range(5)) == bits(y[:, t] for t in range(5))
    assert [np.shape(state) for state in step.state] == [(3, 9), (2, 3, 7), (3, 5)]
    step.reset()
    assert step(ids[:, 0]).tobytes() == y[:, 0].tobytes()
    one = model.stream()
    assert one(int(ids[0, 0])).tobytes() == y[0, 0].tobytes()


def memory_of(step, x, steps):
    """Return by how many bytes memory grew over so many steps, and at most within one."""

    def run(n):
        for _ in range(n):
            step(x)

    run(10)
    tracemalloc.start()
    try:
        run(10)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        run(steps)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


@pytest.mark.parametrize("kind", [fg.GRU, fg.LSTM, fg.SimpleRNN])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_allocates_nothing(batch, kind, rng):
    step = built(kind(64), 32).stream(batch)
    grown, within = memory_of(step, rng.normal(size=(batch, 32)).astype(np.float32), 1000)
    # Python's own tuples and numbers come and go: less than one array's header at a time.
    assert grown < 200 and within < 400


@pytest.mark.parametrize(
    "make",
    [
        lambda: fg.Dense(5, "softmax"),
        lambda: fg.TimeDistributed(fg.Dense(5)),
        lambda: fg.Activation("tanh"),
        lambda: fg.Dropout(0.5),
        lambda: fg.LayerNormalization(),
        lambda: fg.Masking(),
    ],
    ids=["softmax", "TimeDistributed", "Activation", "Dropout", "LayerNormalization", "Masking"],
)
@pytest.mark.parametrize("shape", [(1, 8192), (8192, 1)])
def test_a_step_of_other_layers_allocates_no_array(shape, make, rng):
    step = built(make(), shape[1]).stream(shape[0])
    grown, within = memory_of(step, rng.normal(size=shape).astype(np.float32), 100)
    # An array of a byte for each number of the input, or for each row, would be seen.
    assert grown < 200 and within < 1500


def test_streams_of_one_layer_are_apart_and_may_run_in_threads(rng):
    layer = fg.GRU(33, return_sequences=True)
    x = rng.normal(size=(4, 50, 8)).astype(np.float32)
    y = layer(x)
    wrong = []

    def work(i):
        step = layer.stream()
        for t in range(50):
            if step(x[i, t]).tobytes() != y[i, t].tobytes():
                wrong.append((i, t))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert wrong == []


def test_a_stream_keeps_the_weights_it_was_made_with(rng):
    layer = built(fg.GRU(5), 3)
    x = rng.normal(size=3).astype(np.float32)
    step = layer.stream()
    before = step(x).copy()
    layer.set_weights([w + 1 for w in layer.get_weights()])
    step.reset()
    assert np.array_equal(step(x), before)
    assert not np.array_equal(layer.stream()(x), before)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(4, np.float32), ValueError, r"gru: x: expected shape \(1, 3\), given \(4,\)"),
        (np.zeros((2, 3), np.float32), ValueError, r"expected shape \(1, 3\), given \(2, 3\)"),
        (np.zeros((), np.float32), ValueError, r"expected shape \(1, 3\), given \(\)"),
        (["a", "b", "c"], TypeError, "x: expected real numbers"),
        (np.zeros(3, np.complex64), TypeError, "x: expected real numbers"),
    ],
)
def test_an_input_that_does_not_fit_leaves_the_state(x, error, message):
    step = built(fg.GRU(5), 3).stream()
    step([1.0, 2.0, 3.0])
    before = step.state.copy()
    with pytest.raises(error, match=message):
        step(x)
    assert np.array_equal(step.state, before)


def test_ids_that_do_not_fit_are_refused_before_any_state_moves():
    model = fg.Sequential([fg.Embedding(10, 4, mask_zero=True), fg.GRU(3)])
    step = model.stream()
    step(3)
    before = step.state[0].copy()
    for ids, message in ((10, "0 to 9, given 10"), (-1, "given -1"), (0, "0 is padding")):
        with pytest.raises(ValueError, match=message):
            step(np.array([ids]))
    with pytest.raises(TypeError, match="fractions"):
        step(1.5)
    assert np.array_equal(step.state[0], before)


def test_what_cannot_be_streamed_says_so():
    with pytest.raises(ValueError, match="gru: expected a built layer"):
        fg.GRU(3).stream()
    with pytest.raises(ValueError, match="go_backwards: expected False"):
        built(fg.GRU(3, go_backwards=True), 2).stream()
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match="batch_size: expected a positive integer"):
            built(fg.GRU(3), 2).stream(batch_size)
    with pytest.raises(TypeError, match="Bidirectional cannot work step by step, .* no end"):
        built(fg.Bidirectional(fg.LSTM(3)), 2).stream()
    with pytest.raises(TypeError, match="cannot work step by step"):
        built(fg.Layer(), 2).stream()


CELLS = [fg.GRU, fg.LSTM, fg.SimpleRNN]


@pytest.mark.parametrize("kind", CELLS)
def test_compiled_code_can_run_steps_and_sequences(kind, rng):
    import numba

    layer = built(kind(5, return_sequences=True), 3)
    x = rng.normal(size=(20, 3)).astype(np.float32)
    step = layer.stream()
    advance, arguments, run, memory = step.compiled

    @numba.njit
    def steps(x, arguments, place):
        for t in range(len(x)):
            place[0] = x[t]
            advance(*arguments)

    @numba.njit
    def sequence(x, memory, y):
        run(*memory, x, y)

    steps(x[:12], arguments, step.x)
    want = layer(x[None])
    assert step.y[0].tobytes() == want[0, 11].tobytes()
    y = np.empty((1, 8, 5), np.float32)
    sequence(x[None, 12:].copy(), memory, y)
    assert y.tobytes() == want[:, 12:].tobytes()
    assert step.y[0].tobytes() == want[0, -1].tobytes()
    assert step(x[0]).tobytes() == layer(np.concatenate([x, x[:1]])[None])[0, -1].tobytes()
    sequence(np.empty((1, 0, 3), np.float32), memory, np.empty((1, 0, 5), np.float32))
    with pytest.raises(ValueError, match="x, y: expected shapes"):
        sequence(np.empty((1, 2, 4), np.float32), memory, np.empty((1, 2, 5), np.float32))


def test_the_compiled_functions_of_a_layer_are_those_of_its_cell(rng):
    from fastgru import kernels

    functions = {
        fg.GRU: (kernels.gru_stream, kernels.gru_sequence),
        fg.LSTM: (kernels.lstm_stream, kernels.lstm_sequence),
        fg.SimpleRNN: (kernels.simple_rnn_stream, kernels.simple_rnn_sequence),
    }
    for kind, pair in functions.items():
        compiled = built(kind(5), 3).stream().compiled
        assert (compiled.kernel, compiled.sequence) == pair
        layer = built(kind(4), 3)
        weights = layer.packed(False, layer._pack)
        opened = kernels.open_stream(2, weights, gates=layer.GATES, states=len(layer.STATES))
        opened.x[...] = rng.normal(size=(2, 3))
        kernels.stream_runner(pair[0], opened)()
        assert opened.h.tobytes() == layer(opened.x[:, None]).tobytes()
        assert (opened.c is None) == (kind is not fg.LSTM)


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
def test_compiled_code_can_run_a_dense_layer(activation, rng):
    from fastgru.kernels import dense_rows

    layer = built(fg.Dense(4, activation), 3)
    step = layer.stream(2)
    assert step.compiled.kernel is dense_rows and step.compiled.sequence is None
    step.x[...] = x = rng.normal(size=(2, 3))
    step.compiled.kernel(*step.compiled.arguments)
    assert step.y.tobytes() == layer(x).tobytes()
    assert built(fg.Dense(4, "softmax"), 3).stream().compiled is None


@pytest.mark.parametrize("kind", CELLS)
def test_a_compiled_sequence_of_many_rows_has_the_bits_of_the_layer(kind, rng):
    layer = kind(33, return_sequences=True)
    x = rng.normal(size=(50, 4, 9)).astype(np.float32)
    want = layer(x)
    step, y = layer.stream(50), np.empty((50, 4, 33), np.float32)
    step.compiled.sequence(*step.compiled.memory, x, y)
    assert y.tobytes() == want.tobytes()


def test_a_short_step_counts_no_references_to_arrays_that_it_has_kept():
    # Numba's record of an array ends with the call that it was given to, and the block goes on.
    layer = fg.GRU(8)
    layer.build((None, None, 3))
    block, arguments = layer.stream()._run.kept
    place, record, data = 2, 0, 4  # of the first argument, in words; of what, in an array
    assert block[place + record] == 0
    assert block[place + data] == arguments[0].__array_interface__["data"][0]
