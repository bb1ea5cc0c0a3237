"""What `fit`, `evaluate` and `predict` are given, batch by batch.

Each kind of data is a source: `Samples` (arrays, also such as are larger than memory), `Sequences`
(lists of different lengths, which are bucketed by length, padded and masked), `Batches` (what a
generator or another iterable gives) and `Streams` (long sequences, chunk by chunk). A source has

    batches(batch_size, random)     the batches of one pass, in a random order if random is given
    pieces()                        all of them as other batches, to be checked beforehand
    count, shape                    how many samples that makes, and the shape of x; or None
    carries                         whether the states of a batch go on in the next one
    columns                         lists or arrays of rows that tell these data from others
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from reprlib import repr as shortened
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastgru.validation import (
    array_of,
    non_negative,
    positive_int,
    real_dtype,
    row_lengths,
    shape_of,
    step_mask,
)

Random: TypeAlias = "np.random.Generator | None"

# Data are checked so many numbers at a time: they may be larger than memory, on a disk.
CHECKED_AT_ONCE = 2**18

# Sequences are sorted by length within so many batches: padding costs about a 128th of the range
# of lengths then, while most of a batch is still left to chance.
POOL = 64


class Place(NamedTuple):
    """Where the outputs of a batch belong.

    Attributes
    ----------
    rows : slice or array of int
        Which samples they are; a slice where batches come in the order of the samples.
    lengths : array of int (B,), optional
        How many steps of each output count, where the inputs were padded here.
    side : str, optional
        On which side of them the padding is, "post" or "pre".
    """

    rows: Any = slice(None)
    lengths: np.ndarray | None = None
    side: str | None = None


class Batch(NamedTuple):
    """What one step of training takes.

    Attributes
    ----------
    x : array (B, ...)
        Inputs, padded.
    y, weight : array, optional
        Targets, and how much samples (B,) or steps (B, T) count.
    mask : array of bool (B, T), optional
        False where a step is padding.
    place : Place
        Where its outputs belong.
    """

    x: np.ndarray
    y: Any = None
    weight: Any = None
    mask: np.ndarray | None = None
    place: Place = Place()


@contextlib.contextmanager
def named(argument: str) -> Iterator[None]:
    """Begin the errors inside with the argument that holds what they name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from error


# ---- arrays


def _array(name: str, value: Any) -> Any:
    """Return an array whose first axis is the batch, or what is read like one, row by row.

    What has a shape, a dtype and rows, such as a data set of h5py or zarr, is not read here. What
    pandas has is: its rows go by labels.
    """
    lazy = isinstance(getattr(value, "dtype", None), np.dtype) and hasattr(value, "__getitem__")
    if not lazy or isinstance(value, np.ndarray) or hasattr(value, "iloc"):
        value = array_of(name, value)
    else:
        real_dtype(name, value.dtype)
    if len(value.shape) == 0:
        raise ValueError(f"{name}: expected an array of samples, given one number")
    return value


def _read(array: Any, rows: Any) -> np.ndarray:
    """Return some rows, and read no others."""
    if type(array) is np.ndarray:  # the common case
        return array[rows] if isinstance(rows, slice) else array.take(rows, 0)
    if isinstance(array, Ragged):
        return array.padded(rows)[0]
    if isinstance(array, np.ndarray) or isinstance(rows, slice):
        return np.asarray(array[rows])
    # Files want rows in increasing order.
    order = np.argsort(rows)
    read = np.asarray(array[rows[order]])
    taken = np.empty_like(read)
    taken[order] = read
    return taken


class Samples:
    """Arrays with one row per sample.

    Parameters
    ----------
    x, y : array, or array-like with shape, dtype and rows
        Inputs and targets.
    sample_weight : array (N,) or (N, T), optional
        How much samples, or steps, count.
    mask : array of bool (N, T), optional
        False where a step is padding.
    lengths : array of int (N,), optional
        How many steps of each row count.
    label_padding : int, optional
        What targets with lengths of their own are padded with, for a loss that takes such.
    """

    carries = False

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        mask: Any = None,
        lengths: Any = None,
        label_padding: int | None = None,
    ) -> None:
        self.x = _array("x", x)
        self.y = y
        if y is not None:
            own_lengths = label_padding is not None and is_ragged(y)
            self.y = Ragged("y", y, label_padding or 0) if own_lengths else _array("y", y)
        self.weight = None if sample_weight is None else _array("sample_weight", sample_weight)
        self.mask = mask if mask is None or hasattr(mask, "dtype") else np.asarray(mask)
        self.lengths = lengths
        self.class_weight: dict[Any, float] = {}
        if mask is not None or lengths is not None:
            if len(self.shape) < 2:
                shape_of("x", self.x, ("batch", "steps"))
            if self.mask is not None:
                shape_of("mask", self.mask, self.shape[:2])
                step_mask(self.mask[:0], None, 0, self.shape[1])
            if lengths is not None:
                self.lengths = row_lengths(lengths, self.shape[0], self.shape[1])
        self._fit_together()

    def _fit_together(self) -> None:
        """Raise unless there is a target, and a weight, for each sample."""
        N = self.count
        if self.y is not None and len(self.y) != N:
            raise ValueError(f"y: expected {N} samples, as many as x, given {len(self.y)}")
        if self.weight is not None and len(self.weight) != N:
            raise ValueError(
                f"sample_weight: expected shape ({N},) or ({N}, steps), given {self.weight.shape}"
            )

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x."""
        return self.x.shape

    def batch(self, rows: Any = slice(None)) -> Batch:
        """Return some rows."""
        x, mask = self._inputs(rows)
        y = None if self.y is None else _read(self.y, rows)
        weight = None
        if self.weight is not None:
            weight = _read(self.weight, rows)
            fits = np.isfinite(weight) & (weight >= 0)
            if not fits.all():
                raise ValueError(
                    f"sample_weight: expected finite numbers >= 0, given {weight[~fits][0]}"
                )
        if self.class_weight:
            weight = _by_class(y, weight, self.class_weight)
        return Batch(x, y, weight, mask, self._place(rows))

    def _inputs(self, rows: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return some rows of x and their mask."""
        x = _read(self.x, rows)
        if self.mask is None and self.lengths is None:
            return x, None
        mask = None if self.mask is None else _read(self.mask, rows)
        lengths = None if self.lengths is None else self.lengths[rows]
        return x, step_mask(mask, lengths, *x.shape[:2])

    def _place(self, rows: Any) -> Place:
        return Place(rows)

    def batches(self, batch_size: int, random: Random = None) -> Iterator[Batch]:
        """Yield all rows, so many at a time; of no rows, one batch of none."""
        order = None if random is None else random.permutation(self.count)
        for start in range(0, max(self.count, 1), batch_size):
            rows = slice(start, start + batch_size)
            yield self.batch(rows if order is None else order[rows])

    def pieces(self) -> Iterator[Batch]:
        """Yield all rows, as many at a time as a check can take."""
        columns = [a for a in (self.x, self.y, self.weight) if a is not None]
        largest = max(math.prod(a.shape[1:]) for a in columns)
        return self.batches(max(1, CHECKED_AT_ONCE // max(1, largest)))

    @property
    def columns(self) -> list[Any]:
        """What there is one of for each sample."""
        columns = self.x, self.y, self.weight, self.mask
        return [column.rows if isinstance(column, Ragged) else column for column in columns]

    def split(self, share: float) -> tuple[Any, Any]:
        """Return the samples to train on, and a share of them, the last ones, for validation."""
        N = self.count
        kept = int(N * (1 - share))
        if not 0 < kept < N:
            raise ValueError(f"validation_split: {share} of {N} samples leaves one part empty")
        return self._part(slice(0, kept)), self._part(slice(kept, N))

    def _part(self, rows: slice) -> Any:
        part = copy.copy(self)
        for name in ("x", "y", "weight", "mask", "lengths"):
            column = getattr(self, name)
            setattr(part, name, None if column is None else _view(column, rows))
        return part


class _Part:
    """Some rows of what is read row by row."""

    def __init__(self, array: Any, rows: slice) -> None:
        self.array, self.start, self.dtype = array, rows.start, array.dtype
        self.shape = (rows.stop - rows.start, *array.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self.array[self.start + start : self.start + stop]
        return self.array[self.start + rows]


def _view(column: Any, rows: slice) -> Any:
    """Return some rows of a column without reading them."""
    return column[rows] if isinstance(column, (np.ndarray, Ragged)) else _Part(column, rows)


def checked_classes(class_weight: Any) -> dict[Any, float]:
    """Return weights of classes, or raise unless they are a dict of numbers >= 0."""
    if class_weight is None:
        return {}
    if not isinstance(class_weight, dict):
        raise TypeError(f"class_weight: expected a dict class -> weight, given {class_weight!r}")
    for label in class_weight:
        number = isinstance(label, (int, float, np.integer, np.floating))
        if not number or label < 0 or label % 1:
            raise (ValueError if number else TypeError)(
                f"class_weight: expected classes, integers >= 0, as keys, given {label!r}"
            )
    return {k: non_negative(f"class_weight[{k!r}]", v) for k, v in class_weight.items()}


def _by_class(y: Any, weight: np.ndarray | None, class_weight: dict[Any, float]) -> np.ndarray:
    """Return the samples' weights times those of their classes."""
    if y.ndim > 2:
        raise ValueError(f"class_weight: expected one label per sample, given y of {y.shape}")
    if y.ndim == 1 or y.shape[1] == 1:
        labels = y.reshape(len(y))
    elif np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
        labels = y.argmax(axis=1)
    else:
        raise ValueError(f"class_weight: expected one-hot rows or one label each, given {y.shape}")
    fractions = (labels != np.rint(labels)) & ~np.isnan(labels)
    if fractions.any():
        raise ValueError(
            f"class_weight: expected classes, integers, as y, given {labels[fractions][0]}"
        )
    factors = np.ones(len(y))
    for label, value in class_weight.items():
        factors[labels == label] = value
    if weight is None:
        return factors
    return factors.reshape(-1, *[1] * (weight.ndim - 1)) * weight


# ---- lists of sequences


def is_ragged(value: Any) -> bool:
    """Return whether something is a list of sequences of different lengths."""
    if isinstance(value, np.ndarray):  # as some data sets of Keras are
        return value.dtype == object and value.ndim == 1 and is_ragged(list(value))
    if not isinstance(value, (list, tuple)):
        return False
    try:
        return len({len(row) for row in value}) > 1
    except TypeError:
        return False


def padded(
    rows: Sequence[np.ndarray], lengths: np.ndarray, fill: float = 0, side: str = "post"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return arrays (T_i, ...) as one (B, T, ...), and its mask; None where T is all their length.

    Parameters
    ----------
    rows : list of arrays
        Of one dtype and one shape of a step.
    lengths : array of int (B,)
        Their lengths.
    fill : number
        What the padding holds.
    side : "post" or "pre"
        Whether the padding is behind the steps or before them.
    """
    T = int(lengths.max(initial=0))
    if lengths.min(initial=T) == T:
        return np.stack(rows), None
    mask = np.arange(T) < lengths[:, None]
    if side == "pre":
        mask = mask[:, ::-1]
    array = np.full((len(rows), T, *rows[0].shape[1:]), fill, rows[0].dtype)
    array[mask] = np.concatenate(rows)
    return array, mask


class Ragged:
    """Arrays (T_i, ...) of different lengths, of one dtype and one shape of a step.

    Parameters
    ----------
    name : str
        What errors call them.
    rows : list of arrays or lists
        The arrays; they are not copied.
    fill, side
        As in `padded`.
    """

    def __init__(self, name: str, rows: Any, fill: float = 0, side: str = "post") -> None:
        self.name, self.fill, self.side = name, fill, side
        self.rows = [array_of(f"{name}[{i}]", row) for i, row in enumerate(rows)]
        filled = [row for row in self.rows if row.size]
        step = filled[0].shape[1:] if filled else ()
        dtype = np.result_type(*{row.dtype for row in filled}) if filled else np.dtype(np.int64)
        for i, row in enumerate(self.rows):
            if row.ndim and not len(row):
                self.rows[i] = np.zeros((0, *step), dtype)  # of an empty list nothing is known
            elif row.ndim == 0 or row.shape[1:] != step:
                shape_of(f"{name}[{i}]", row, ("steps", *step))
            elif row.dtype != dtype:
                self.rows[i] = row.astype(dtype)
        self.lengths = np.array([len(row) for row in self.rows], int)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all of them would have if they were padded."""
        step = self.rows[0].shape[1:] if self.rows else ()
        return (len(self.rows), int(self.lengths.max(initial=0)), *step)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> Ragged:
        part = copy.copy(self)
        part.rows, part.lengths = self.rows[rows], self.lengths[rows]
        return part

    def padded(self, rows: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return some of them as one array, and its mask: see `padded`."""
        some = self.rows[rows] if isinstance(rows, slice) else [self.rows[i] for i in rows]
        return padded(some, self.lengths[rows], self.fill, self.side)


class Sequences(Samples):
    """Sequences of different lengths: ids (T_i,) or features (T_i, I).

    Parameters
    ----------
    x : list of arrays or lists
        The inputs.
    y : array (N, ...) or list of arrays, optional
        Targets: one for each sequence, or for each of its steps.
    sample_weight : array (N,) or list of arrays (T_i,), optional
        How much sequences, or steps, count.
    side_of : callable
        Tells for the shape of x on which side outputs are padded: "post", "pre", or None if a
        sequence has one output alone.
    label_padding : int, optional
        What targets with lengths of their own are padded with, for a loss that takes such.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        side_of: Callable[[tuple[int, ...]], str | None],
        label_padding: int | None = None,
    ) -> None:
        self.x = Ragged("x", x)
        self.mask, self.class_weight = None, {}
        self.lengths: Any = self.x.lengths
        self.side = side_of(self.shape)
        self.weight = None
        if y is None or (self.side is None and not is_ragged(y)):
            self.y = None if y is None else _array("y", y)
        elif label_padding is None:
            self.y = self._steps("y", y)
        else:
            self.y = Ragged("y", y, label_padding)
        if is_ragged(sample_weight):
            self.weight = self._steps("sample_weight", sample_weight)
        elif sample_weight is not None:
            self.weight = _array("sample_weight", sample_weight)
        self._fit_together()

    def _steps(self, name: str, rows: Any) -> Ragged:
        """Return what there is one of for each step, or raise."""
        if self.side is None:
            raise ValueError(
                f"{name}: expected one row for each sequence, whose steps have no outputs, "
                f"given {shortened(rows)}"
            )
        column = Ragged(name, rows, side=self.side)
        for i, (given, wanted) in enumerate(zip(column.lengths, self.lengths, strict=False)):
            if given != wanted:
                raise ValueError(
                    f"{name}[{i}]: expected {wanted} steps, as many as x[{i}], given {given}"
                )
        return column

    def _inputs(self, rows: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Return some sequences, padded to the longest of them, and their mask."""
        return self.x.padded(rows)

    def _place(self, rows: Any) -> Place:
        return Place(rows, None if self.side is None else self.lengths[rows], self.side)

    def batches(self, batch_size: int, random: Random = None) -> Iterator[Batch]:
        """Yield batches of sequences of about the same length."""
        order = np.arange(self.count) if random is None else random.permutation(self.count)
        chosen = []
        for start in range(0, self.count, POOL * batch_size):
            pool = order[start : start + POOL * batch_size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            chosen += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        if random is not None:
            chosen = [chosen[i] for i in random.permutation(len(chosen))]
        return map(self.batch, chosen)


# ---- batches that come one by one


def is_iterable(x: Any, y: Any = None, lists: bool = True) -> bool:
    """Return whether x gives batches, targets included, and is no array or list of samples.

    Parameters
    ----------
    x, y
        As given to `fit`; with a y, x holds inputs.
    lists : bool
        Whether a list is one of batches.
    """
    if y is not None or hasattr(x, "shape") or isinstance(x, (str, bytes, dict)):
        return False
    if isinstance(x, (list, tuple)):
        return lists
    indexed = hasattr(x, "__getitem__") and hasattr(x, "__len__")
    return callable(x) or indexed or isinstance(x, Iterable)


class Batches:
    """Batches (x, y) or (x, y, sample_weight) that come one by one.

    Parameters
    ----------
    given : generator, iterable, function that returns one, or sequence of batches
        Where they come from. What has a length and is indexed, such as Keras' PyDataset, is asked
        for its batches in a random order, and told where a pass has ended (`on_epoch_end`). What
        can be read once only does not begin anew.
    sources : callable
        Makes a source of one batch.
    accept : callable
        Raises unless a batch fits.
    steps : int, optional
        How many batches make a pass; by default all.
    steps_name : str
        What errors call `steps`.
    passes : int
        How often they are wanted.
    goes_on : bool
        Whether a pass of so many steps begins where the last one has ended.
    targets : bool
        Whether a batch is a tuple with a target, and not inputs alone.
    """

    carries = False
    count = None
    shape = None
    columns = ()

    def __init__(
        self,
        given: Any,
        sources: Callable[..., Samples],
        accept: Callable[[Batch], None],
        *,
        steps: Any = None,
        steps_name: str = "steps",
        passes: int = 1,
        goes_on: bool = False,
        targets: bool = True,
    ) -> None:
        self.given, self.sources, self.accept, self.targets = given, sources, accept, targets
        self.steps = None if steps is None else positive_int(steps_name, steps)
        self.class_weight: dict[Any, float] = {}
        once = isinstance(given, Iterator)
        self.goes_on, self.begins_anew = goes_on or once, goes_on and not once
        self._running: Iterator[Any] | None = None
        # How many batches it has given, and from where its order was drawn.
        self._read = 0
        self._order: Any = None
        if once and steps is None and passes > 1:
            raise ValueError(
                f"{steps_name}: expected a positive integer with an iterator, which can be read "
                f"once, for {passes} epochs, given None. A function that makes an iterator would "
                "do, too."
            )

    def get_state(self) -> dict[str, Any]:
        """Return where the next batch is, for a pass that begins where the last one has ended."""
        return {"read": self._read, "order": self._order}

    def set_state(self, state: dict[str, Any]) -> None:
        """Let the next pass begin where `get_state` was called, of batches given anew."""
        self._running, self._read, self._order = None, int(state["read"]), state["order"]

    def _begin(self, random: Random, first: int = 0) -> Iterator[Any]:
        """Return the batches but for the first ones."""
        self._read = first
        self._order = None if random is None else random.bit_generator.state
        given = self.given
        if callable(given) and not hasattr(given, "__getitem__"):
            given = given()
        if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
            return itertools.islice(given, first, None)
        order = range(len(given)) if random is None else random.permutation(len(given))
        return (given[int(i)] for i in order[first:])

    def _items(self, random: Random) -> Iterator[Any]:
        if self.steps is None:
            yield from self._begin(random)
            return
        if not self.goes_on:
            self._running = self._begin(random)
        elif self._running is None:
            if random is not None and self._order is not None:
                random.bit_generator.state = self._order
            self._running = self._begin(random, self._read)
        for _ in range(self.steps):
            item = next(self._running, self)
            if item is self and self.begins_anew:
                self._running = self._begin(random)
                item = next(self._running, self)
            if item is self:
                return
            self._read += 1
            yield item

    def batches(self, batch_size: int, random: Random = None) -> Iterator[Batch]:
        """Yield the batches of one pass, in the sizes that they have."""
        number = 0
        for number, item in enumerate(self._items(random), 1):
            with named(f"batch {number}"):
                batch = self._batch(item)
                self.accept(batch)
            yield batch
        if number < (self.steps or 1):
            wanted = "at least one batch" if self.steps is None else f"{self.steps} batches"
            raise ValueError(f"x: expected {wanted}, given {number or 'none'}")
        if hasattr(self.given, "on_epoch_end"):
            self.given.on_epoch_end()

    def pieces(self) -> Iterator[Batch]:
        """Yield nothing: each batch is checked when it comes."""
        return iter(())

    def _batch(self, item: Any) -> Batch:
        if not self.targets:
            return self.sources(item[0] if isinstance(item, tuple) else item).batch()
        if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
            raise TypeError(
                f"expected a tuple (x, y) or (x, y, sample_weight), given {shortened(item)}"
            )
        source = self.sources(*item)
        source.class_weight = self.class_weight
        return source.batch()


# ---- long sequences, chunk by chunk


class _Cut(NamedTuple):
    """The part of an array that one stream reads."""

    array: Any
    start: int
    stop: int
    row: tuple[int, ...] = ()

    def read(self, start: int, steps: int) -> np.ndarray:
        start = min(self.start + start, self.stop)
        return np.asarray(self.array[self.row + (slice(start, min(start + steps, self.stop)),)])


class Streams:
    """Long sequences side by side, a chunk of each at a time, whose states go on to the next one.

    Parameters
    ----------
    x, y : array (L, ...), array (N, L, ...), or list of arrays (L_i, ...)
        Inputs and a target for each step. One long sequence is cut into `batch_size` streams; of
        several, each is a stream. Only what a chunk needs is read.
    steps : int
        How many steps a chunk has.
    batch_size : int
        How many streams one long sequence is cut into.
    rank : int
        How many axes a batch of inputs has: that tells one sequence from several.
    """

    carries = True

    def __init__(self, x: Any, y: Any, steps: Any, batch_size: Any, rank: int) -> None:
        self.steps = positive_int("steps", steps)
        batch_size = positive_int("batch_size", batch_size)
        if is_ragged(x):
            x, y = Ragged("x", x), Ragged("y", y)
            cuts = [[_Cut(row, 0, len(row)) for row in column.rows] for column in (x, y)]
        else:
            x, y = _array("x", x), _array("y", y)
            if len(x.shape) not in (rank - 1, rank):
                one = ("steps", "inputs")[: rank - 1]
                shape_of("x", x, one if len(x.shape) < rank else ("streams", *one))
            kind = _cuts_of_one if len(x.shape) < rank else _cuts_of_rows
            cuts = [kind(name, column, batch_size) for name, column in (("x", x), ("y", y))]
        self.x, self.y = cuts
        lengths, given = ([cut.stop - cut.start for cut in column] for column in cuts)
        if lengths != given:
            raise ValueError(
                f"y: expected a target for each of {sum(lengths)} steps of x, given {sum(given)}"
            )
        if not any(lengths):
            raise ValueError("x: expected at least one step, given none")
        self.lengths = np.array(lengths)
        step = x.shape[2:] if len(x.shape) == rank else x.shape[1:]
        self.shape = (len(lengths), max(lengths), *step)

    @property
    def columns(self) -> list[Any]:
        """The first steps of each stream."""
        return [[cut.read(0, self.steps) for cut in column] for column in (self.x, self.y)]

    @property
    def count(self) -> int:
        """The number of chunks of all streams."""
        return len(self.x) * -(-self.shape[1] // self.steps)

    def batches(self, batch_size: int = 0, random: Random = None) -> Iterator[Batch]:
        """Yield one chunk of all streams after the other; their sizes and order are given."""
        for start in range(0, self.shape[1], self.steps):
            lengths = np.clip(self.lengths - start, 0, self.steps)
            x, mask = padded([cut.read(start, self.steps) for cut in self.x], lengths)
            y, _ = padded([cut.read(start, self.steps) for cut in self.y], lengths)
            yield Batch(x, y, None, mask)

    def pieces(self) -> Iterator[Batch]:
        """Yield all chunks, for a check."""
        return self.batches()


def _cuts_of_one(name: str, array: Any, count: int) -> list[_Cut]:
    """Cut an array (L, ...) into streams of one length, but for the last ones."""
    L = len(array)
    size = -(-L // count)
    return [_Cut(array, min(i * size, L), min((i + 1) * size, L)) for i in range(count)]


def _cuts_of_rows(name: str, array: Any, count: int) -> list[_Cut]:
    """Return the rows of an array (N, L, ...)."""
    if len(array.shape) < 2:
        shape_of(name, array, ("streams", "steps"))
    return [_Cut(array, 0, array.shape[1], (i,)) for i in range(len(array))]


# ---- outputs


def joined(parts: Sequence[np.ndarray], places: Sequence[Place]) -> Any:
    """Return the outputs of batches in the order of the samples.

    An array if they are of one shape, or else, where inputs were padded here, a list of arrays
    without the padding.
    """
    order = None
    if not isinstance(places[0].rows, slice):
        order = np.argsort(np.concatenate([place.rows for place in places]))
    is_even = all(place.lengths is None for place in places)
    if parts[0].ndim == 2 or (is_even and len({part.shape[1:] for part in parts}) == 1):
        together = np.concatenate(parts)
        return together if order is None else together[order]
    rows = [row for part, place in zip(parts, places, strict=True) for row in _rows(part, place)]
    return rows if order is None else [rows[i] for i in order]


def _rows(part: np.ndarray, place: Place) -> list[np.ndarray]:
    if place.lengths is None:
        return list(part)
    pairs = zip(part, place.lengths, strict=True)
    if place.side == "pre":
        return [row[len(row) - n :] for row, n in pairs]
    return [row[:n] for row, n in pairs]
