"""Decoding: every search against all that there is to find, every draw against its distribution."""

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgru as fg
from fastgru import kernels, reference
from fastgru.decoding import (
    CTCBeamSearch,
    beam_search,
    ctc_beam_search,
    ctc_greedy,
    log_softmax,
    reorder,
    sample,
)

# ---- sampling


def drawn(logits, uniforms, temperature=1.0, top_k=None, top_p=1.0, penalty=1.0, previous=None):
    """Return the ids of the kernel and of its twin for the same numbers."""
    B, V = logits.shape
    previous = np.empty((B, 0), np.int64) if previous is None else previous
    a = (temperature, top_k or V, top_p, penalty, previous, uniforms)
    return kernels.sample_ids(logits, *a), reference.sample_ids(logits.astype(np.float64), *a)


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(0, 9)),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([None, 1, 2, 5, 40]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    penalty=st.sampled_from([1.0, 1.3, 4.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_ids_are_those_of_the_reference(sizes, temperature, top_k, top_p, penalty, seed):
    rng = np.random.default_rng(seed)
    B, V, N = sizes
    logits = rng.normal(size=(B, V)) * 3
    logits[:, 1:][rng.random((B, V - 1)) < 0.1] = -np.inf
    previous = rng.integers(-2, V + 2, (B, N))
    got, want = drawn(logits, rng.random(B), temperature, top_k, top_p, penalty, previous)
    assert got.tolist() == want.tolist()


def test_many_ids_in_float32_are_those_of_the_reference(rng):
    # Sums of 10,000 weights in float32 may fall on the other side of a number once in a while.
    for options in ({}, {"top_k": 50}, {"top_p": 0.9}, {"top_k": 3000, "top_p": 0.7}):
        logits = rng.normal(size=(20, 10_000)).astype(np.float32) * 2
        got, want = drawn(logits, rng.random(20), **options)
        assert np.count_nonzero(got == want) >= 19


def test_equal_scores_are_told_apart_by_their_place(rng):
    logits = np.repeat(rng.permutation(7) * 1.0, 3)[rng.permutation(21)][None]
    for u in np.linspace(0, 0.999, 11):
        for options in ({"top_k": 4}, {"top_p": 0.6}, {"top_k": 8, "top_p": 0.5}):
            got, want = drawn(logits, np.array([u]), **options)
            assert got.tolist() == want.tolist()
    assert sample(np.array([[1.0, 3.0, 3.0, 2.0]]), temperature=0).tolist() == [1]


def shares(logits, n=20_000, **options):
    """Return how often each id is drawn."""
    generator = np.random.default_rng(0)
    ids = sample(np.tile(logits, (n, 1)), generator=generator, **options)
    return np.bincount(ids, minlength=len(logits)) / n


def test_ids_are_drawn_with_the_probabilities_of_the_softmax(rng):
    logits = rng.normal(size=6)
    for temperature in (0.5, 1.0, 2.0):
        p = np.exp(logits / temperature)
        got = shares(logits, temperature=temperature)
        np.testing.assert_allclose(got, p / p.sum(), atol=0.015)


def test_top_k_and_top_p_leave_the_rest_out():
    logits = np.log([0.05, 0.5, 0.15, 0.3])
    np.testing.assert_allclose(shares(logits, top_k=2), [0, 0.625, 0, 0.375], atol=0.015)
    # 0.5 and 0.3 hold 0.8; for more than that the next one is needed.
    np.testing.assert_allclose(shares(logits, top_p=0.79), [0, 0.625, 0, 0.375], atol=0.015)
    want = np.array([0, 0.5, 0.15, 0.3]) / 0.95
    np.testing.assert_allclose(shares(logits, top_p=0.81), want, atol=0.015)
    # Of the two that top_k leaves, the first holds 0.625.
    np.testing.assert_allclose(shares(logits, top_k=2, top_p=0.6), [0, 1, 0, 0])
    np.testing.assert_allclose(shares(logits, top_k=1), [0, 1, 0, 0])


def test_repetition_is_punished_on_both_sides_of_zero_and_once():
    logits = np.array([[2.0, -1.0, 1.5, -np.inf]])
    assert sample(logits, 0, repetition_penalty=2, previous=[[0, 0, 3]]).tolist() == [2]
    assert sample(logits, 0, repetition_penalty=2, previous=[[0, 2, -1]]).tolist() == [0]
    assert sample(logits, 0, repetition_penalty=1.2, previous=[[0, 0, 0]]).tolist() == [0]
    below = np.array([[-1.0, -1.5]])
    assert sample(below, 0, repetition_penalty=2, previous=[[0]]).tolist() == [1]


def test_the_seed_decides_and_rows_draw_one_number_each(rng):
    logits = rng.normal(size=(5, 30)).astype(np.float32)
    first, second = (sample(logits, generator=np.random.default_rng(3)) for _ in range(2))
    assert first.tolist() == second.tolist()
    generator = np.random.default_rng(3)
    one_by_one = [sample(row[None], generator=generator)[0] for row in logits]
    assert first.tolist() == one_by_one
    fg.set_random_seed(4)
    first = sample(logits)
    fg.set_random_seed(4)
    assert first.tolist() == sample(logits).tolist()


def test_cold_and_distant_scores_are_drawn_without_overflow():
    for logits in ([0.0, 1.0], [0.0, 1e30], [-3e38, 3e38], [-np.inf, -1e30]):
        for temperature in (1e-300, 1e-40, 1e-9):
            for dtype in (np.float32, np.float64):
                assert sample(np.array([logits], dtype), temperature).tolist() == [1]


def test_what_must_not_be_drawn_is_never_drawn():
    logits = np.array([[-np.inf, 0.0, -np.inf]])
    for u in (0.0, 0.5, 1 - 2**-53):
        for options in ({}, {"top_k": 2}, {"top_p": 0.99}):
            assert drawn(logits, np.array([u]), **options)[0].tolist() == [1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"logits": [0.0, 1.0]}, ValueError, r"logits: expected shape \(B, V\), given \(2,\)"),
        ({"logits": np.empty((1, 0))}, ValueError, "logits: expected one id or more"),
        ({"logits": [[0.0, np.nan]]}, ValueError, "logits: expected finite .* row 0 with NaN"),
        ({"logits": [[0, 0], [0, np.inf]]}, ValueError, "given row 1 with NaN, inf"),
        ({"logits": [[-np.inf, -np.inf]]}, ValueError, "nothing but -inf"),
        ({"logits": [[0.0, np.nan]], "temperature": 0}, ValueError, "row 0 with NaN"),
        ({"temperature": -1}, ValueError, "temperature: expected a number >= 0"),
        ({"top_k": 0}, ValueError, "top_k: expected a positive integer"),
        ({"top_p": 0}, ValueError, "top_p: expected a number > 0"),
        ({"top_p": 1.5}, ValueError, r"top_p: expected a number in \(0, 1\], given 1.5"),
        ({"repetition_penalty": 0}, ValueError, "repetition_penalty: expected a number > 0"),
        ({"previous": [[0.5]]}, TypeError, "previous: expected integers"),
        ({"previous": [[0], [1]]}, ValueError, r"previous: expected shape \(1, N\)"),
    ],
)
def test_draws_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        sample(**{"logits": [[0.0, 1.0]], **options})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 3, 8, 17, 1000])
def test_log_probabilities_are_those_of_the_reference(size, dtype, rng, threads):
    logits = (rng.normal(size=(5, size)) * 9).astype(dtype)
    logits[1, 1:] = -np.inf
    got = np.empty_like(logits)
    kernels.log_softmax_forward(logits, got)
    with np.errstate(divide="ignore"):
        want = reference.log_softmax(logits.astype(np.float64))
    np.testing.assert_allclose(got, want, rtol=2 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    assert log_softmax(logits[2]).tobytes() == got[2].tobytes()
    threads.set_num_threads(2)
    assert log_softmax(logits.reshape(5, 1, size)).tobytes() == got.tobytes()


def test_log_probabilities_are_of_something():
    for shape in ((), (3, 0)):
        with pytest.raises(ValueError, match=r"logits: expected shape \(\.\.\., V\)"):
            log_softmax(np.zeros(shape))


# ---- beam search


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    V=st.integers(1, 9),
    count=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_candidates_are_those_of_the_reference(lengths, V, count, seed):
    rng = np.random.default_rng(seed)
    # Few different values, so that many are equal.
    log_probabilities = rng.integers(-3, 0, (sum(lengths), V)).astype(np.float32)
    log_probabilities[rng.random(log_probabilities.shape) < 0.1] = -np.inf
    log_probabilities[rng.random(log_probabilities.shape) < 0.1] = np.nan
    sums, ends = rng.integers(-2, 1, sum(lengths)) / 2, np.cumsum([0, *lengths])
    got = kernels.top_candidates(log_probabilities, sums, ends, count)
    want = reference.top_candidates(log_probabilities, sums, ends, count)
    for ours, theirs in zip(got, want, strict=True):
        assert np.array_equal(ours, theirs)


def test_candidates_have_the_same_bits_for_any_number_of_threads(rng, threads):
    log_probabilities = np.log(rng.random((9, 50))).astype(np.float32)
    arguments = log_probabilities, -rng.random(9), np.array([0, 3, 4, 9]), 7
    alone = kernels.top_candidates(*arguments)
    threads.set_num_threads(2)
    together = kernels.top_candidates(*arguments)
    assert [a.tobytes() for a in alone] == [a.tobytes() for a in together]


V, END = 4, 2


class Decoder:
    """A random recurrent decoder: what comes next depends on all ids before, and the sentence."""

    def __init__(self, rng, sentences, sharpness=1.0):
        self.h0 = rng.normal(size=(sentences, 5))
        self.recurrent = rng.normal(size=(5, 5))
        self.inputs = rng.normal(size=(V, 5)) * 2
        self.outputs = rng.normal(size=(5, V)) * sharpness
        self.steps = 0

    def __call__(self, ids, state):
        self.steps += 1
        h, sentence = state["h"], state["sentence"]
        # Row by row: a product of matrices has other bits for other numbers of rows.
        h = np.array(
            [np.tanh(row @ self.recurrent + self.inputs[i]) for row, i in zip(h, ids, strict=True)]
        )
        logits = np.array([row @ self.outputs for row in h])
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        attention = np.stack([sentence, ids], axis=1)
        return log_probabilities, {"h": h, "sentence": sentence}, attention

    def state(self, *sentences):
        rows = list(sentences) or list(range(len(self.h0)))
        return {"h": self.h0[rows], "sentence": np.array(rows)}

    def search(self, *sentences, **options):
        state = self.state(*sentences)
        return beam_search(self, state, np.ones(len(state["h"]), int), END, **options)

    def everything(self, sentence, longest):
        """Return ids (with the end) and sum of every complete sequence of a sentence."""
        stack = [([], 0.0, self.state(sentence))]
        while stack:
            ids, total, state = stack.pop()
            if ids and (ids[-1] == END or len(ids) == longest):
                yield ids, total
                continue
            p, state, _ = self(np.array([ids[-1] if ids else 1]), state)
            stack += [([*ids, j], total + p[0, j], state) for j in range(V)]


def score(ids, total, alpha, normalization):
    return total / (len(ids) if normalization == "length" else (5 + len(ids)) / 6) ** alpha


def without_end(ids):
    return [i for i in ids if i != END]


@pytest.mark.parametrize("normalization", ["length", "wu"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(alpha, normalization, rng):
    decoder = Decoder(rng, 3)
    options = {"length_penalty": alpha, "normalization": normalization, "max_length": 4}
    found = decoder.search(beam_size=300, n_best=12, **options)
    for s, hypotheses in enumerate(found):
        everything = [
            (score(ids, total, alpha, normalization), without_end(ids))
            for ids, total in decoder.everything(s, 4)
        ]
        assert len(everything) == 1 + 3 + 9 + 27 * 4
        everything.sort(reverse=True)
        assert [h.ids for h in hypotheses] == [ids for _, ids in everything[:12]]
        want = [value for value, _ in everything[:12]]
        np.testing.assert_allclose([h.score for h in hypotheses], want, rtol=1e-12)


def test_a_beam_of_one_is_greedy(rng):
    lengths = set()
    for _ in range(20):
        decoder = Decoder(rng, 1, sharpness=3)
        [[best]] = decoder.search(beam_size=1, max_length=7)
        ids, last, state = [], 1, decoder.state(0)
        while len(ids) < 7 and last != END:
            p, state, _ = decoder(np.array([last]), state)
            last = int(p.argmax())
            ids.append(last)
        assert best.ids == without_end(ids)
        lengths.add(len(ids))
    assert len(lengths) > 3 and 7 in lengths


@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_sentences_are_searched_alike_in_any_batch(beam_size, rng, threads):
    decoder = Decoder(rng, 7, sharpness=2)
    longest = rng.integers(1, 12, 7)
    together = decoder.search(beam_size=beam_size, max_length=longest)
    threads.set_num_threads(2)
    order = rng.permutation(7)
    shuffled = decoder.search(*order, beam_size=beam_size, max_length=longest[order])
    for s, [best] in enumerate(together):
        [[alone]] = decoder.search(s, beam_size=beam_size, max_length=int(longest[s]))
        [other] = shuffled[order.tolist().index(s)]
        assert best.ids == alone.ids == other.ids
        assert best.score == alone.score == other.score
        assert len(best.ids) <= longest[s]


def test_a_wider_beam_is_no_worse_here_and_n_best_are_the_first_of_more(rng):
    decoder = Decoder(rng, 1)
    some = [decoder.search(beam_size=k, max_length=6)[0][0].score for k in (1, 4, 300)]
    assert some == sorted(some)
    [three], [one] = (decoder.search(beam_size=300, n_best=n, max_length=4) for n in (3, 1))
    assert len(three) == 3 and three[0].ids == one[0].ids
    assert [h.score for h in three] == sorted([h.score for h in three], reverse=True)


def test_attention_comes_with_the_ids_it_led_to(rng):
    decoder = Decoder(rng, 3)
    for s, [best] in enumerate(decoder.search(beam_size=4, max_length=6)):
        # The rows of this decoder hold the sentence and the id before.
        assert best.attention[:, 0].tolist() == [s] * len(best.ids)
        assert best.attention[:, 1].tolist() == [1, *best.ids][: len(best.ids)]


def test_a_step_may_use_its_arrays_again(rng):
    decoder = Decoder(rng, 1)
    options = {"start": [1], "end": V, "beam_size": 1, "max_length": 6}  # an end that never comes
    [[want]] = beam_search(decoder, decoder.state(0), **options)
    arrays = [np.empty((1, V)), np.empty((1, 5)), np.empty((1, 2), int)]

    def step(ids, state):
        p, state, attention = decoder(ids, state)
        for array, new in zip(arrays, (p, state["h"], attention), strict=True):
            array[...] = new
        return arrays[0], {"h": arrays[1], "sentence": state["sentence"]}, arrays[2]

    [[got]] = beam_search(step, decoder.state(0), **options)
    assert got.ids == want.ids and len(set(got.ids)) > 1
    assert np.array_equal(got.attention, want.attention)


def test_the_search_stops_once_no_hypothesis_can_win():
    certain = np.full((V, V), np.log(0.001))
    certain[:, END] = np.log(0.997)
    steps = []

    def step(ids, state):
        steps.append(len(ids))
        return certain[ids], state

    [[best]] = beam_search(step, None, [0], END, beam_size=3, length_penalty=0.0)
    assert best.ids == [] and steps == [1]
    steps.clear()
    # Divided by 100 ids, log(0.001) is better than log(0.997) is by itself: it might still win.
    beam_search(step, None, [0], END, beam_size=3, max_length=10_000)
    assert len(steps) > 1


def test_an_end_of_low_rank_does_not_end_a_beam():
    # The end is always second best: greedy search never takes it, two hypotheses do.
    p = np.log(np.tile([0.6, 0.05, 0.3, 0.05], (V, 1)))
    [[greedy]] = beam_search(lambda i, s: (p[i], s), None, [0], END, beam_size=1, max_length=5)
    assert greedy.ids == [0] * 5
    found = beam_search(
        lambda i, s: (p[i], s), None, [0], END, beam_size=2, max_length=5, length_penalty=0
    )
    assert found[0][0].ids == []


@pytest.mark.parametrize("beam_size", [2, 3])
def test_poor_ends_do_not_keep_a_beam_from_the_end_of_the_best(beam_size):
    # 0 1 2 ... 7 and the end, each almost certain; the end comes second all the way.
    sure = np.full((9, 9), 0.001)
    sure[:, 8] = 0.012
    sure[np.arange(9), (np.arange(9) + 1) % 9] = 0.98
    sure = np.log(sure / sure.sum(axis=1, keepdims=True))
    [[best]] = beam_search(lambda i, s: (sure[i], s), None, [0], 8, beam_size=beam_size)
    assert best.ids == [1, 2, 3, 4, 5, 6, 7]


def test_no_sentences_have_no_translations():
    assert beam_search(lambda i, s: (np.zeros((0, V)), s), None, np.zeros(0, int), END) == []


def test_states_of_any_kind_are_reordered():
    a = np.arange(6).reshape(3, 2)
    got = reorder({"a": a, "b": [a, (None, a)]}, np.array([2, 0]))
    assert got["a"].tolist() == [[4, 5], [0, 1]]
    assert got["b"][1][0] is None and got["b"][1][1].tolist() == got["b"][0].tolist()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": 1}, ValueError, r"start: expected shape \(B,\), given \(\)"),
        ({"start": [0.5]}, TypeError, "start: expected integers"),
        ({"beam_size": 0}, ValueError, "beam_size: expected a positive integer"),
        (
            {"n_best": 3, "beam_size": 2},
            ValueError,
            "n_best: expected at most beam_size, 2, given 3",
        ),
        ({"max_length": 0}, ValueError, "max_length: expected a positive integer"),
        ({"max_length": [0]}, ValueError, "max_length: expected integers above 0, given 0"),
        ({"max_length": [1, 2]}, ValueError, r"max_length: expected shape \(1,\)"),
        ({"length_penalty": -1}, ValueError, "length_penalty: expected a number >= 0"),
        ({"normalization": "lengths"}, ValueError, "normalization: .* Did you mean 'length'"),
        ({"step": lambda i, s: np.zeros((1, V))}, TypeError, "step: expected to return"),
        ({"step": lambda i, s: (np.zeros(V), s)}, ValueError, r"step: expected shape \(1, V\)"),
        ({"step": lambda i, s: (np.full((1, V), np.nan), s)}, ValueError, "NaN .* sentence 0"),
    ],
)
def test_searches_that_cannot_be_are_refused(options, error, message):
    def step(ids, state):
        return np.zeros((len(ids), V)), state

    with pytest.raises(error, match=message):
        beam_search(**{"step": step, "state": None, "start": [1], "end": END, **options})


# ---- CTC


def collapse(path, blank):
    merged = [new for new, _ in itertools.groupby(path)]
    return tuple(i for i in merged if i != blank)


def everything_ctc(log_probabilities, blank):
    """Return ids -> log-probability, summed over all paths."""
    T, outputs = log_probabilities.shape
    found = {}
    for path in itertools.product(range(outputs), repeat=T):
        ids = collapse(path, blank)
        total = log_probabilities[np.arange(T), path].sum()
        found[ids] = np.logaddexp(found.get(ids, -np.inf), total)
    return found


def random_frames(rng, T, outputs):
    logits = rng.normal(size=(T, outputs)) * 1.5
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def check_all(got, want):
    """Compare hypotheses with all that there are, the best first."""
    best = sorted(want, key=want.get, reverse=True)
    assert [tuple(h.ids) for h in got] == best[: len(got)]
    np.testing.assert_allclose([h.score for h in got], [want[ids] for ids in best[: len(got)]])


@pytest.mark.parametrize(("T", "outputs", "blank"), [(1, 3, 0), (5, 3, 0), (6, 3, 2), (4, 4, 1)])
def test_a_wide_ctc_beam_finds_all_sequences_with_all_their_paths(T, outputs, blank, rng):
    frames = random_frames(rng, T, outputs)
    want = everything_ctc(frames, blank)
    got = ctc_beam_search(frames, blank=blank, beam_size=1000, n_best=1000)
    assert len(got) == len(want)
    check_all(got, want)
    assert np.logaddexp.reduce([h.score for h in got]) == pytest.approx(0, abs=1e-12)


def bigram_model(rng, outputs):
    """Return a step and its table: what comes next depends on the last two ids."""
    table = random_frames(rng, (outputs + 1) ** 2, outputs)

    def step(ids, state):
        return table[(outputs + 1) * ids + state], ids

    return step, table


@pytest.mark.parametrize(("lm_weight", "bonus"), [(0.8, 0.0), (0.3, 1.5), (2.0, -0.5)])
def test_a_language_model_and_a_bonus_count_for_whole_sequences(lm_weight, bonus, rng):
    frames = random_frames(rng, 5, 4)
    step, table = bigram_model(rng, 4)
    want = {}
    for ids, total in everything_ctc(frames, 0).items():
        history = [4, 4, *ids]
        rows = [5 * last + before for before, last in itertools.pairwise(history)]
        said = sum(table[row, new] for row, new in zip(rows, ids, strict=False))
        want[ids] = total + lm_weight * said + bonus * len(ids)
    got = ctc_beam_search(
        frames, beam_size=1000, n_best=20, language_model=step, state=np.array([4]), start=[4],
        lm_weight=lm_weight, bonus=bonus,
    )  # fmt: skip
    check_all(got, want)


def test_a_bonus_needs_no_language_model(rng):
    frames = random_frames(rng, 5, 3)
    want = {ids: p + 0.7 * len(ids) for ids, p in everything_ctc(frames, 0).items()}
    check_all(ctc_beam_search(frames, beam_size=1000, n_best=9, bonus=0.7), want)


def test_a_narrow_ctc_beam_keeps_the_best_of_what_it_had(rng):
    # A textbook version: prefixes in a dict, one id after the other.
    for _ in range(10):
        frames = random_frames(rng, 12, 5)
        beam = {(): (0.0, -np.inf)}
        for frame in frames:
            new = {}
            for ids, (blank, last) in beam.items():
                for j in range(5):
                    to = ids if j in (0, *ids[-1:]) else (*ids, j)
                    a, b = new.get(to, (-np.inf, -np.inf))
                    either = np.logaddexp(blank, last)
                    if j == 0:
                        new[to] = np.logaddexp(a, either + frame[0]), b
                    elif j in ids[-1:]:
                        new[to] = a, np.logaddexp(b, last + frame[j])
                        longer = (*ids, j)
                        c, d = new.get(longer, (-np.inf, -np.inf))
                        new[longer] = c, np.logaddexp(d, blank + frame[j])
                    else:
                        new[to] = a, np.logaddexp(b, either + frame[j])
            kept = sorted(new, key=lambda ids: np.logaddexp(*new[ids]), reverse=True)[:4]
            beam = {ids: new[ids] for ids in kept}
        got = ctc_beam_search(frames, beam_size=4, n_best=4)
        check_all(got, {ids: np.logaddexp(*pair) for ids, pair in beam.items()})


def test_frames_may_come_in_chunks(rng):
    frames = random_frames(rng, 11, 4).astype(np.float32)
    step, _ = bigram_model(rng, 4)
    options = {"language_model": step, "state": np.array([4]), "start": [4], "n_best": 3}
    whole = [(h.ids, h.score) for h in ctc_beam_search(frames, **options)]
    search = CTCBeamSearch(**options)
    for chunk in np.split(frames, [0, 1, 5, 5, 9]):
        found = search(chunk)
    assert [(h.ids, h.score) for h in found] == whole
    search.reset()
    assert [(h.ids, h.score) for h in search(frames)] == whole


def test_sequences_that_fell_out_of_the_beam_are_forgotten(rng):
    search = CTCBeamSearch()
    search(random_frames(rng, 200, 6))
    kept = set()
    for prefix in search._beam:
        while prefix is not None:
            kept.add(id(prefix))
            prefix = prefix.before
    gc.collect()
    alive = {id(thing) for thing in gc.get_objects() if type(thing) is type(search._beam[0])}
    assert alive == kept


def test_no_frames_say_nothing():
    [best] = ctc_beam_search(np.zeros((0, 3)))
    assert (best.ids, best.score) == ([], 0.0)
    assert ctc_greedy(np.zeros((0, 3))) == []


@pytest.mark.parametrize("blank", [0, 2])
def test_greedy_merges_repetitions_and_drops_blanks(blank, rng):
    paths = rng.integers(0, 3, (50, 9))
    for path in paths:
        frames = rng.random((9, 3)) / 2
        frames[np.arange(9), path] = 1
        want = list(collapse(path.tolist(), blank))
        assert ctc_greedy(frames, blank) == want
        first, rest = frames[:4], frames[4:]
        got = ctc_greedy(first, blank) + ctc_greedy(rest, blank, previous=int(path[3]))
        assert got == want


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"log_probabilities": [0.0]}, ValueError, r"log_probabilities: expected shape \(T, V\)"),
        ({"log_probabilities": [[0.0, np.nan, 0.0]]}, ValueError, "given NaN or inf"),
        ({"log_probabilities": [[-np.inf] * 3]}, ValueError, "in which no sequence goes on"),
        ({"blank": 3}, ValueError, "blank: expected one of 3 outputs, given 3"),
        ({"blank": -1}, ValueError, "blank: expected an integer >= 0"),
        ({"n_best": 9}, ValueError, "n_best: expected at most beam_size, 8, given 9"),
        ({"lm_weight": 0}, ValueError, "lm_weight: expected a number > 0"),
        ({"bonus": np.inf}, ValueError, "bonus: expected a finite number"),
        (
            {"language_model": lambda i, s: (np.zeros((1, 4)), s), "start": [0]},
            ValueError,
            r"language_model: expected shape \(1, 3\), given \(1, 4\)",
        ),
        (
            {"language_model": lambda i, s: (np.zeros((1, 3)), s)},
            (ValueError, TypeError),
            "start: ",
        ),
    ],
)
def test_ctc_searches_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        ctc_beam_search(**{"log_probabilities": np.zeros((2, 3)), **options})


def test_the_blank_of_greedy_is_one_of_the_outputs():
    for blank, message in ((3, "expected one of 3 outputs, given 3"), (-1, "expected an integer")):
        with pytest.raises(ValueError, match=f"blank: {message}"):
            ctc_greedy(np.zeros((2, 3)), blank)
