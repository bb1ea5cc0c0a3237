"""From scores to sequences: sampling, beam search, and the decoding of CTC outputs.

What language models, translators and recognizers share. No choice depends on the batch it is made
in, nor on the number of threads; of equal scores the first one counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from fastgru import kernels, random
from fastgru.validation import (
    finite,
    non_negative,
    non_negative_int,
    numbers,
    one_of,
    positive,
    positive_int,
    shape_of,
)

# ids (N,), state -> log-probabilities (N, V), state, and perhaps rows of attention (N, S)
Step = Callable[[np.ndarray, Any], Sequence[Any]]

NOTHING = np.empty((1, 0), np.int64)


def sample(
    logits: Any,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    previous: Any = None,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """Draw the next id of each row.

    Parameters
    ----------
    logits : array (B, V)
        Scores; log-probabilities are such. -inf for what must not be drawn.
    temperature : float
        What the scores are divided by: below 1 the likely becomes more likely. 0 takes the largest
        score and draws nothing.
    top_k : int, optional
        Draw among so many of the most probable only.
    top_p : float
        Draw among the most probable only that together have this probability, in (0, 1]; after
        `top_k`, of what that left.
    repetition_penalty : float
        What the scores of previous ids are divided by where they are above 0, and multiplied by
        elsewhere. 1 for none, above 1 against repetitions.
    previous : array of int (B, N), optional
        Those ids; negative ones do not count, so that rows may be of different lengths.
    generator : numpy.random.Generator, optional
        Where the random numbers come from, one for each row; by default `set_random_seed`'s.

    Returns
    -------
    array (B,) int64
        The ids. Equal numbers drawn give equal ids in any batch.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, or a row of scores is no distribution.

    References
    ----------
    Holtzman et al., "The curious case of neural text degeneration", 2020 (`top_p`); Fan et al.,
    "Hierarchical neural story generation", 2018 (`top_k`); Keskar et al., "CTRL", 2019 (the
    penalty, which there divides scores below 0, too, and so rewards them).

    Examples
    --------
    >>> sample([[0.1, 2.0, 0.3]], temperature=0)
    array([1])
    >>> sample([[0.1, 2.0, 0.3]], temperature=0, repetition_penalty=10, previous=[[1]])
    array([2])
    """
    scores = _scores("logits", logits, ("B", "V"))
    B, V = scores.shape
    if not V:
        raise ValueError(f"logits: expected one id or more, given shape {scores.shape}")
    if top_k is not None:
        top_k = positive_int("top_k", top_k)
    if not 0 < positive("top_p", top_p) <= 1:
        raise ValueError(f"top_p: expected a number in (0, 1], given {top_p!r}")
    if previous is None:
        seen = NOTHING if B == 1 else np.empty((B, 0), np.int64)
    else:
        seen = _ids("previous", previous, (B, "N"))
    if generator is None:
        generator = random.generator()
    return kernels.sample_ids(
        scores,
        non_negative("temperature", temperature),
        top_k or V,
        top_p,
        positive("repetition_penalty", repetition_penalty),
        seen,
        generator.random(B),
    )


def _ids(name: str, value: Any, shape: tuple[Any, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, given {array.dtype}")
    shape_of(name, array, shape)
    return kernels.as_kernel_array(array, np.int64)


def log_softmax(logits: Any) -> np.ndarray:
    """Turn scores into log-probabilities, as the searches want them.

    Parameters
    ----------
    logits : array (..., V)
        Scores, V > 0.

    Returns
    -------
    array (..., V)
        float32 if the scores are, else float64. A row depends on its own scores alone.

    Examples
    --------
    >>> np.exp(log_softmax([0.0, np.log(3.0)])).round(6).tolist()
    [0.25, 0.75]
    """
    scores = _scores("logits", logits)
    if not scores.ndim or not scores.shape[-1]:
        raise ValueError(f"logits: expected shape (..., V) with V > 0, given {scores.shape}")
    rows = scores.reshape(-1, scores.shape[-1])
    y = kernels.aligned_empty(rows.shape, rows.dtype)
    kernels.log_softmax_forward(rows, y)
    return y.reshape(scores.shape)


def _scores(name: str, value: Any, shape: tuple[Any, ...] | None = None) -> np.ndarray:
    """Return an array as the kernels want it: float32 if it is that, else float64."""
    dtype = getattr(value, "dtype", None)
    array = numbers(name, value, dtype if dtype == np.float32 else np.dtype(np.float64))
    if shape is not None:
        shape_of(name, array, shape)
    return array


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A sequence that was found.

    Parameters
    ----------
    ids : list of int
        The ids, without the start and the end.
    score : float
        What it was chosen by: higher is better.
    attention : array (len(ids), S) or None
        The rows that came with the ids.
    """

    ids: list[int]
    score: float
    attention: np.ndarray | None = None


def reorder(state: Any, rows: np.ndarray) -> Any:
    """Return a state whose row i is the row `rows[i]` of the one given.

    Parameters
    ----------
    state : array, None, or a list, tuple or dict of states
        Arrays have a row for each hypothesis.
    rows : array (N,) of int
        Which rows, in which order.
    """
    if state is None:
        return None
    if isinstance(state, dict):
        return {name: reorder(part, rows) for name, part in state.items()}
    if isinstance(state, (list, tuple)):
        parts = [reorder(part, rows) for part in state]
        return parts if isinstance(state, list) else tuple(parts)
    return state[rows]


class _Node(NamedTuple):
    """The last id of a sequence, with those before it: sequences share their beginnings."""

    before: _Node | None
    id: int
    attention: np.ndarray | None = None

    def sequence(self) -> list[_Node]:
        nodes = []
        node: _Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.before
        return nodes[::-1]


NORMALIZATIONS: dict[str, Callable[[int, float], float]] = {
    "length": lambda length, alpha: length**alpha,
    "wu": lambda length, alpha: ((5 + length) / 6) ** alpha,
}


def beam_search(
    step: Step,
    state: Any,
    start: Any,
    end: int,
    *,
    beam_size: int = 5,
    max_length: Any = 100,
    length_penalty: float = 1.0,
    normalization: str = "length",
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Search for the most probable sequences, for many sentences at once.

    A hypothesis is complete when it ends with `end` or is `max_length` long. In each step the
    `beam_size` best continuations of a sentence's hypotheses are found; those that end are
    complete, and the `beam_size` best of the others live on. The search of a sentence ends once
    none that lives could become better than the `n_best` complete ones; with `beam_size` complete
    ones, once none is better so far. A beam of 1 is greedy search.

    Formula of a score: the sum of the log-probabilities over n ids, the end one of them, divided by
    n^a (``"length"``) or ((5 + n) / 6)^a (``"wu"``), with a the `length_penalty`.

    Parameters
    ----------
    step : callable
        ``step(ids, state)`` with the last ids (N,) of N hypotheses returns log-probabilities
        (N, V) of the next one and the next state, and may return rows of attention (N, S) as well.
        N changes; a row's results must not depend on the other rows.
    state : array, None, or a list, tuple or dict of states
        What `step` takes at first, with a row for each sentence. What stays the same for a sentence
        need not be copied from hypothesis to hypothesis: hold the sentences' numbers
        ``np.arange(B)`` in the state, and look the rest up by them.
    start : array of int (B,)
        The id that `step` takes first.
    end : int
        The id that ends a sequence.
    beam_size : int
        How many hypotheses of a sentence are followed.
    max_length : int, or array of int (B,)
        At which length a hypothesis is complete in any case, the end included.
    length_penalty : float
        The exponent a >= 0; 0 compares sums, which favours short sequences.
    normalization : {"length", "wu"}
        See above.
    n_best : int
        How many hypotheses to return at most, not above `beam_size`.

    Returns
    -------
    list of list of Hypothesis
        For each sentence the best ones, the best first: the same for any batch.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, or a sentence has no sequence with a probability above 0.

    References
    ----------
    Wu et al., "Google's neural machine translation system", 2016, section 7 (``"wu"``).

    Examples
    --------
    >>> pairs = np.log([[0.4, 0.6, 1e-9], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8]])
    >>> [[best]] = beam_search(lambda ids, state: (pairs[ids], state), None, [0], end=2)
    >>> best.ids
    [1]
    """
    ids = _ids("start", start, ("B",))
    end, B = non_negative_int("end", end), len(ids)
    beam_size, n_best = positive_int("beam_size", beam_size), positive_int("n_best", n_best)
    if n_best > beam_size:
        raise ValueError(f"n_best: expected at most beam_size, {beam_size}, given {n_best}")
    if np.ndim(max_length):
        longest = _ids("max_length", max_length, (B,)).tolist()
    else:
        longest = [positive_int("max_length", max_length)] * B
    if min(longest, default=1) < 1:
        raise ValueError(f"max_length: expected integers above 0, given {min(longest)}")
    alpha = non_negative("length_penalty", length_penalty)
    norm = NORMALIZATIONS[one_of("normalization", normalization, NORMALIZATIONS)]

    complete: list[list[tuple[float, _Node]]] = [[] for _ in range(B)]
    alive = list(range(B))  # the sentences still searched, whose rows follow each other
    nodes: Sequence[_Node | None] = [None] * B
    sums, ends = np.zeros(B), np.arange(B + 1)
    for length in itertools.count(1):
        if not alive:
            break
        log_probabilities, state, attention = _stepped(step, ids, state)
        # Each hypothesis ends in one way only: so many hold beam_size that do not end.
        found = kernels.top_candidates(log_probabilities, sums, ends, 2 * beam_size)
        still, kept, counts = [], [], [0]
        for s, *candidates in zip(alive, *(array.tolist() for array in found), strict=True):
            is_last = length == longest[s]
            living: list[tuple[float, int, _Node]] = []
            for rank, (value, row, token) in enumerate(zip(*candidates, strict=True)):
                if row < 0 or len(living) == beam_size:
                    break
                node = _Node(nodes[row], token, None if attention is None else attention[row])
                if token != end:
                    living.append((value, row, node))
                if is_last if token != end else rank < beam_size:
                    complete[s].append((value / norm(length, alpha), node))
            complete[s].sort(key=lambda scored: -scored[0])
            if is_last or not living:
                continue
            # Sums only fall: divided by the most, this is the best that could become of any. With
            # a whole beam of complete ones, those that live must be better as they are.
            enough = len(complete[s]) >= beam_size
            limit = living[0][0] / norm(length if enough else longest[s], alpha)
            if len(complete[s]) >= n_best and complete[s][n_best - 1][0] >= limit:
                continue
            still.append(s)
            kept += living
            counts.append(len(kept))
        alive, ends = still, np.array(counts)
        sums = np.array([value for value, _, _ in kept])
        nodes = [node for _, _, node in kept]
        ids = np.array([node.id for _, _, node in kept], np.int64)
        if alive:
            state = reorder(state, np.array([row for _, row, _ in kept]))
    return [_hypotheses(s, some[:n_best], end) for s, some in enumerate(complete)]


def _stepped(step: Step, ids: np.ndarray, state: Any) -> tuple[np.ndarray, Any, Any]:
    """Return log-probabilities (N, V), a state, and rows of attention or None."""
    results = step(ids, state)
    if not isinstance(results, (tuple, list)) or len(results) not in (2, 3):
        raise TypeError(
            "step: expected to return log-probabilities and a state, and no more but "
            f"attention, given {type(results).__name__}"
        )
    # A copy, for the step may use its array again.
    attention = np.array(results[2]) if len(results) == 3 else None
    return _scores("step", results[0], (len(ids), "V")), results[1], attention


def _hypotheses(s: int, scored: list[tuple[float, _Node]], end: int) -> list[Hypothesis]:
    if not scored:
        raise ValueError(
            "step: expected log-probabilities, given NaN or -inf for every sequence of "
            f"sentence {s}"
        )
    hypotheses = []
    for score, last in scored:
        nodes = [node for node in last.sequence() if node.id != end]
        rows = [node.attention for node in nodes]
        attention = None
        if last.attention is not None:
            attention = np.array(rows).reshape(len(rows), *last.attention.shape)
        hypotheses.append(Hypothesis([node.id for node in nodes], score, attention))
    return hypotheses


# ---- CTC: an output for each frame, most of them blank


def ctc_greedy(log_probabilities: Any, blank: int = 0, previous: int | None = None) -> list[int]:
    """Take the most probable output of each frame; merge repetitions, then leave blanks out.

    Parameters
    ----------
    log_probabilities : array (T, V)
        Scores of the outputs; the largest of a frame counts.
    blank : int
        Which output is the blank.
    previous : int, optional
        The most probable output of the frame before the first, if a stream goes on.

    Returns
    -------
    list of int

    Raises
    ------
    ValueError, TypeError
        If they are no scores with a blank.

    References
    ----------
    Graves et al., "Connectionist temporal classification", 2006, section 3.2 ("best path").

    Examples
    --------
    >>> ctc_greedy(np.eye(3)[[0, 1, 1, 0, 1, 2]])
    [1, 1, 2]
    """
    scores = _frames(log_probabilities, non_negative_int("blank", blank))
    best = [-1 if previous is None else previous, *scores.argmax(axis=1).tolist()]
    return [new for old, new in itertools.pairwise(best) if new not in (old, blank)]


def _frames(value: Any, blank: int) -> np.ndarray:
    """Return the scores of frames (T, V), or raise if no output is the blank."""
    frames = _scores("log_probabilities", value, ("T", "V"))
    if blank >= frames.shape[1]:
        raise ValueError(f"blank: expected one of {frames.shape[1]} outputs, given {blank}")
    return frames


class _Prefix:
    """A sequence of ids in a tree of such, with what a language model says after it."""

    def __init__(self, before: _Prefix | None, id: int, score: float) -> None:
        self.before, self.id, self.score = before, id, score
        # Those that are in the beam, or that one in it begins with; all others are forgotten.
        self.after: WeakValueDictionary[int, _Prefix] = WeakValueDictionary()
        self.gain: Any = None  # what each id would add to the score (V,), once known
        self.state: Any = None

    def followed_by(self, id: int, gain: float) -> _Prefix:
        """Return the sequence with one id more, the one there is if there is one."""
        longer = self.after.get(id)
        if longer is None:
            longer = self.after[id] = _Prefix(self, id, self.score + float(gain))
        return longer

    def ids(self) -> list[int]:
        ids = []
        prefix: _Prefix | None = self
        while prefix is not None and prefix.before is not None:
            ids.append(prefix.id)
            prefix = prefix.before
        return ids[::-1]


class CTCBeamSearch:
    """Search for the most probable sequences of ids, summed over all their alignments to frames.

    Called with the log-probabilities of the first frames, then with those of the next: the result
    is that of all frames at once.

    Formula of a score: log P(ids | frames) + lm_weight log P_lm(ids) + bonus n, for n ids.

    Parameters
    ----------
    blank : int
        Which output is the blank.
    beam_size : int
        How many sequences are kept after each frame.
    language_model : callable, optional
        ``step(ids, state)`` as `beam_search` has it, for one row: with the last id (1,) it returns
        log-probabilities (1, V) of the next one and a state, and leaves the old state as it is.
        Its ids are those of the outputs; what it says of the blank does not count.
    state, start
        The state and the id (1,) that the language model takes first.
    lm_weight : float
        How much the language model counts.
    bonus : float
        What each id adds, against the language model's liking for few.
    n_best : int
        How many sequences to return at most, not above `beam_size`.

    References
    ----------
    Graves et al., "Connectionist temporal classification", 2006; Hannun et al., "First-pass large
    vocabulary continuous speech recognition using bi-directional recurrent DNNs", 2014,
    algorithm 1.

    Examples
    --------
    >>> frames = np.log([[0.6, 0.4], [0.6, 0.4]])
    >>> ctc_greedy(frames)
    []
    >>> search = CTCBeamSearch()
    >>> [best] = search(frames)
    >>> best.ids, round(float(np.exp(best.score)), 2)
    ([1], 0.64)
    """

    def __init__(
        self,
        blank: int = 0,
        beam_size: int = 8,
        language_model: Step | None = None,
        state: Any = None,
        start: Any = None,
        lm_weight: float = 1.0,
        bonus: float = 0.0,
        n_best: int = 1,
    ) -> None:
        self.blank = non_negative_int("blank", blank)
        self.beam_size = positive_int("beam_size", beam_size)
        self.n_best = positive_int("n_best", n_best)
        if self.n_best > self.beam_size:
            raise ValueError(f"n_best: expected at most beam_size, {beam_size}, given {n_best}")
        self.lm_weight, self.bonus = positive("lm_weight", lm_weight), finite("bonus", bonus)
        self._model: tuple[Step, np.ndarray, Any] | None = None
        if language_model is not None:
            self._model = language_model, _ids("start", start, (1,)), state
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._beam = [_Prefix(None, -1, 0.0)]
        # Of the alignments that end with a blank, and of those that end with the last id.
        self._blank, self._id = np.zeros(1), np.full(1, -np.inf)

    def __call__(self, log_probabilities: Any) -> list[Hypothesis]:
        """Take frames (T, V), any number; return the best sequences so far, the best first.

        Raises
        ------
        ValueError, TypeError
            If they are no log-probabilities with a blank, or no sequence has any probability.
        """
        frames = _frames(log_probabilities, self.blank)
        if not (frames < np.inf).all():
            raise ValueError("log_probabilities: expected such, given NaN or inf")
        for frame in frames.astype(np.float64):
            self._advance(frame)
        scores = np.logaddexp(self._blank, self._id)
        return [
            Hypothesis(prefix.ids(), float(score) + prefix.score)
            for prefix, score in zip(self._beam[: self.n_best], scores, strict=False)
        ]

    def _advance(self, frame: np.ndarray) -> None:
        beam, V = self._beam, len(frame)
        last = np.array([prefix.id for prefix in beam])
        score = np.array([prefix.score for prefix in beam])
        either = np.logaddexp(self._blank, self._id)
        blank = either + frame[self.blank]
        same = np.where(last >= 0, self._id + frame[last], -np.inf)
        grown = either[:, None] + frame
        grown[:, self.blank] = -np.inf
        # Only after a blank is an id that is the last one a new one.
        repeated = np.flatnonzero(last >= 0)
        grown[repeated, last[repeated]] = self._blank[repeated] + frame[last[repeated]]
        place = {id(prefix): i for i, prefix in enumerate(beam)}
        for i, prefix in enumerate(beam):
            before = place.get(id(prefix.before))
            if before is not None:  # what it grows into is in the beam already
                same[i] = np.logaddexp(same[i], grown[before, prefix.id])
                grown[before, prefix.id] = -np.inf
        gain = np.broadcast_to([self._gain(prefix, V) for prefix in beam], grown.shape)
        places = np.arange(len(beam))
        stays = np.logaddexp(blank, same) + score, places, np.full(len(beam), -1)
        ends = np.array([0, len(beam)])
        found = kernels.top_candidates(grown + gain, score, ends, self.beam_size)
        value, row, token = (np.append(a, b[0]) for a, b in zip(stays, found, strict=True))
        best = np.argsort(-value, kind="stable")[: self.beam_size]
        best = best[value[best] > -np.inf]
        if not best.size:
            raise ValueError(
                "log_probabilities: expected some above -inf, given a frame in which no sequence "
                "goes on"
            )
        row, token = row[best], token[best]
        fresh = token >= 0
        self._blank = np.where(fresh, -np.inf, blank[row])
        self._id = np.where(fresh, grown[row, token], same[row])
        self._beam = [
            beam[i].followed_by(j, gain[i, j]) if is_new else beam[i]
            for i, j, is_new in zip(row.tolist(), token.tolist(), fresh, strict=True)
        ]

    def _gain(self, prefix: _Prefix, V: int) -> Any:
        """Return what each id would add to the score of a prefix, (V,) or (1,) if all the same."""
        if self._model is None:
            return np.array([self.bonus])
        if prefix.gain is None:
            step, start, first = self._model
            ids, state = (
                (start, first)
                if prefix.before is None
                else (np.array([prefix.id]), prefix.before.state)
            )
            log_probabilities, prefix.state, _ = _stepped(step, ids, state)
            shape_of("language_model", log_probabilities, (1, V))
            prefix.gain = self.lm_weight * log_probabilities[0].astype(np.float64) + self.bonus
        return prefix.gain


def ctc_beam_search(log_probabilities: Any, **options: Any) -> list[Hypothesis]:
    """Search for the most probable sequences of ids for the frames of one utterance.

    Parameters
    ----------
    log_probabilities : array (T, V)
        Of the outputs in each frame.
    **options
        Those of `CTCBeamSearch`, which takes frames as they come in.

    Returns
    -------
    list of Hypothesis
        The best ones, the best first.
    """
    return CTCBeamSearch(**options)(log_probabilities)
