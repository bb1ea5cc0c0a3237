import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgru.data import pad_sequences

SIDES = st.sampled_from(["pre", "post"])
RAGGED = [[1], [2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0, 0, 1], [0, 2, 3], [4, 5, 6]]),
        ({"padding": "post"}, [[1, 0, 0], [2, 3, 0], [4, 5, 6]]),
        ({"value": -1}, [[-1, -1, 1], [-1, 2, 3], [4, 5, 6]]),
        ({"maxlen": 2}, [[0, 1], [2, 3], [5, 6]]),
        ({"maxlen": 2, "truncating": "post"}, [[0, 1], [2, 3], [4, 5]]),
        ({"maxlen": 4, "padding": "post"}, [[1, 0, 0, 0], [2, 3, 0, 0], [4, 5, 6, 0]]),
        ({"maxlen": 0}, [[], [], []]),
    ],
)
def test_padding_and_truncating_as_keras(options, expected):
    batch = pad_sequences(RAGGED, **options)
    np.testing.assert_array_equal(batch, expected)
    assert batch.dtype == np.int32 and batch.flags.c_contiguous


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=5),
    st.integers(0, 3),
    st.none() | st.integers(0, 8),
    SIDES,
    SIDES,
)
def test_every_step_is_where_it_belongs(lists, n_features, maxlen, padding, truncating):
    # Steps of n_features numbers, 10 t + feature; n_features = 0 stands for plain ids.
    features = np.arange(n_features) if n_features else 0
    sequences = [np.array([10 * t + features for t in steps], "float32") for steps in lists]
    batch = pad_sequences(sequences, maxlen, "float32", padding, truncating, value=-7)
    length = max(map(len, lists)) if maxlen is None else maxlen
    shape = (n_features,) if n_features and any(lists) else ()
    assert batch.shape == (len(lists), length, *shape)
    for row, steps in zip(batch, lists, strict=True):
        cut = max(len(steps) - length, 0)
        steps = steps[cut:] if truncating == "pre" else steps[: len(steps) - cut]
        gap = [None] * (length - len(steps))
        for got, t in zip(row, gap + steps if padding == "pre" else steps + gap, strict=True):
            expected = np.full(shape, -7) if t is None else 10 * t + features
            np.testing.assert_array_equal(got, expected)


def test_empty_sequences_become_padding():
    np.testing.assert_array_equal(pad_sequences([[], [5]], value=2), [[2], [5]])
    assert pad_sequences([[], []]).shape == (2, 0)
    assert pad_sequences([[], [[1, 2]]]).shape == (2, 1, 2)
    assert pad_sequences([], maxlen=3).shape == (0, 3)


def test_an_array_is_a_sequence_of_its_rows():
    rows = np.arange(1, 7).reshape(2, 3)
    np.testing.assert_array_equal(pad_sequences(rows, maxlen=2), [[2, 3], [5, 6]])
    np.testing.assert_array_equal(pad_sequences(tuple(rows)), rows)


def test_sequences_are_not_changed_and_not_shared():
    sequence = np.array([1, 2, 3], np.int32)
    pad_sequences([sequence])[:] = 9
    assert sequence.tolist() == [1, 2, 3]


def test_strings_can_be_padded_as_objects():
    batch = pad_sequences([["a"], ["bb", "c"]], dtype=object, value="pad")
    assert batch.tolist() == [["pad", "a"], ["bb", "c"]]


def test_floats_may_be_rounded_and_whole_floats_be_ids():
    assert pad_sequences([[0.1]], dtype="float32")[0, 0] == np.float32(0.1)
    assert np.isnan(pad_sequences([[], [1.0]], dtype="float32", value=np.nan)[0, 0])
    assert pad_sequences([[1.0, 2.0]]).tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
@pytest.mark.parametrize("number", [0.5, np.nan, np.inf, 2.0**70, 2**70, "word", None])
def test_a_number_that_dtype_cannot_hold_is_refused(dtype, number):
    with pytest.raises(ValueError, match=f"sequences\\[1\\] to hold values of dtype {dtype}"):
        pad_sequences([[1], [1, number]], dtype=dtype)
    with pytest.raises(ValueError, match=f"value to hold values of dtype {dtype}"):
        pad_sequences(RAGGED, dtype=dtype, value=number)


def test_integers_that_would_wrap_around_are_refused():
    with pytest.raises(ValueError, match="dtype uint8, given -1"):
        pad_sequences(RAGGED, dtype="uint8", value=-1)
    with pytest.raises(ValueError, match="dtype int32"):
        pad_sequences([np.array([2**32 + 1])])
    with pytest.raises(ValueError, match="dtype float32, given 1e\\+39"):
        pad_sequences(RAGGED, dtype="float32", value=1e39)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "left"}, "expected padding 'pre' or 'post', given 'left'"),
        ({"truncating": None}, "expected truncating 'pre' or 'post', given None"),
        ({"maxlen": -1}, "expected maxlen >= 0 or None, given -1"),
        ({"maxlen": 2.5}, "expected maxlen >= 0 or None, given 2.5"),
        ({"dtype": "foo"}, "expected a dtype, given 'foo'"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(RAGGED, **options)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ("text", "expected sequences to be a list of sequences, given 'text'"),
        (7, "expected sequences to be a list of sequences, given 7"),
        ((s for s in RAGGED), "expected sequences to be a list of sequences"),
        ([[1], 2], r"expected sequences\[1\] to be a sequence, given 2"),
        ([[1], "text"], r"sequences\[1\]"),
        ([[[1], [2, 3]]], r"sequences\[0\]"),
        ([[[1, 2]], [[1, 2, 3]]], r"steps of shape \(2,\).*sequences\[1\] of shape \(1, 3\)"),
        ([[1], [[2]]], r"steps of shape \(\).*sequences\[1\] of shape \(1, 1\)"),
        ([], "at least one sequence, or maxlen"),
    ],
)
def test_wrong_sequences_are_named(sequences, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences)
