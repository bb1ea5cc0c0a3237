"""What `fit` can do beside training: stop early, keep the best, write a log, survive a crash.

>>> import numpy as np
>>> import fastgru as fg
>>> model = fg.Sequential([fg.Dense(1, seed=0)])
>>> model.compile("sgd", "mse")
>>> x = np.arange(12.0).reshape(6, 2)
>>> stop = fg.callbacks.EarlyStopping("loss", min_delta=1e9, patience=2)
>>> len(model.fit(x / 12, x[:, 0], epochs=9, verbose=0, callbacks=[stop]).epoch)
3
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from typing import Any

from fastgru import saving
from fastgru.errors import FileFormatError
from fastgru.files import path_of, remove_leftovers
from fastgru.progress import checked, chosen
from fastgru.validation import (
    boolean,
    finite,
    fraction,
    non_negative,
    non_negative_int,
    one_of,
    positive_int,
)

Logs = dict[str, Any]


class Callback:
    """What is told where training is; a callback of your own is a subclass.

    Attributes
    ----------
    model : Sequential
        What is trained, from `on_train_begin` on. ``self.model.stop_training = True`` ends `fit`
        after this batch or epoch.
    reads_batch_logs : bool
        Whether `on_train_batch_end` looks at its logs. Where no callback does, they are empty, and
        the metrics are not asked after every batch.

    Examples
    --------
    >>> class Print(Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    """

    model: Any = None
    reads_batch_logs = True
    _run: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin; `logs` is empty."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """End, also where training was interrupted; `logs` are those of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Begin an `epoch`, counted from 0; `logs` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """End an `epoch`; what is added to its `logs` comes into the history."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Begin a `batch`, counted from 0 in its epoch; `logs` is empty."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """End a `batch`; `logs` are the means over the epoch so far."""

    def get_state(self) -> dict[str, Any]:
        """Return what `BackupAndRestore` shall keep: what changes while training."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to the `state` that `get_state` returned; called after `on_train_begin`."""


class LambdaCallback(Callback):
    """Call functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end, on_train_batch_begin, on_train_batch_end : callable, optional
        Functions of (number, logs); see the methods of the same names of `Callback`.
    on_train_begin, on_train_end : callable, optional
        Functions of (logs).

    Examples
    --------
    >>> shout = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
    ) -> None:
        for name, function in list(locals().items()):
            if name.startswith("on_") and function is not None:
                if not callable(function):
                    raise TypeError(f"{name}: expected a function, given {function!r}")
                setattr(self, name, function)


class ProgressBar(Callback):
    """Show how training goes; `fit` adds one by itself unless its `verbose` is 0.

    Parameters
    ----------
    verbose : "auto", 0, 1 or 2
        0 silent, 1 a bar whose place a line takes when the epoch ends, 2 the lines alone; "auto" is
        1 in a terminal or a notebook, else 2.
    """

    reads_batch_logs = False

    def __init__(self, verbose: Any = "auto") -> None:
        self.verbose = checked(verbose)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Choose how to show it."""
        self._show = chosen(self.verbose, self._run.epochs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Draw an empty bar, or one of what is left of the epoch after a restart."""
        self._samples, size = self._run.samples, self._run.size
        self._show.begin(epoch, None if size is None else size - self._samples)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Move the bar."""
        before, self._samples = self._samples, self._run.samples
        self._show.advance(self._samples - before, self._run.results)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Show what the epoch measured."""
        self._show.end(logs or {})

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Leave the screen tidy."""
        self._show.close()


# ---- callbacks that watch one measure

_LESS_IS_BETTER = {"loss", "error", "mse", "mae", "perplexity", "wer", "cer"}
_MORE_IS_BETTER = {"acc", "accuracy", "top", "precision", "recall", "f1", "auc", "bleu"}


class _Monitor(Callback):
    """Watch one measure of the epochs."""

    _kept: tuple[str, ...] = ("best",)

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor: expected the name of a measure, given {monitor!r}")
        self.monitor = monitor
        self.mode = one_of("mode", mode, ("auto", "min", "max"))
        self.min_delta = abs(finite("min_delta", min_delta))
        words = set(monitor.split("_"))
        if self.mode == "auto":
            less, more = words & _LESS_IS_BETTER, words & _MORE_IS_BETTER
            if bool(less) == bool(more):
                raise ValueError(
                    "mode: expected 'min' or 'max' for a measure that does not say which is "
                    f"better, given mode='auto', monitor={monitor!r}"
                )
            self.mode = "min" if less else "max"
        self.best: float | None = None

    def get_state(self) -> dict[str, Any]:
        """Return what the epochs so far have left."""
        return {name: getattr(self, name) for name in self._kept}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from the `state` that `get_state` returned."""
        for name in self._kept:
            setattr(self, name, state[name])

    def _value(self, logs: Logs | None) -> float:
        logs = logs or {}
        return logs[one_of("monitor", self.monitor, logs)]

    def _is_better(self, value: float, than: float | None) -> bool:
        """Return whether a value is better by more than `min_delta`; NaN is worse than all."""
        if than is None or math.isnan(than):
            return not math.isnan(value)
        gain = than - value if self.mode == "min" else value - than
        return gain > self.min_delta


class EarlyStopping(_Monitor):
    """Stop when a measure has not become better for some epochs.

    Parameters
    ----------
    monitor : str
        A name in the history.
    min_delta : float
        What is not better by more than this is not better.
    patience : int
        Stop at the so manyth epoch in a row that is not better.
    verbose : int
        Whether to print that it has stopped.
    mode : "auto", "min" or "max"
        Whether less or more is better; by default the measure's name says it.
    baseline : float, optional
        Epochs that are not better than this do not count as better.
    restore_best_weights : bool
        Whether to leave the model with the weights of the best epoch, also when training was
        interrupted, instead of those of the last.
    start_from_epoch : int
        The first epoch that is looked at.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; from `fit`, if there is no such measure.

    Source: keras.callbacks.EarlyStopping.
    """

    _kept = ("best", "best_epoch", "best_weights", "wait", "stopped_epoch")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = non_negative_int("patience", patience)
        self.verbose = verbose
        self.baseline = None if baseline is None else finite("baseline", baseline)
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = non_negative_int("start_from_epoch", start_from_epoch)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget an earlier training."""
        self.best = self.best_weights = None
        self.wait = self.best_epoch = self.stopped_epoch = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Look at what the epoch measured, and maybe stop."""
        value = self._value(logs)
        if epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self._is_better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._is_better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Restore the best weights."""
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate by a factor when a measure has not become better for some epochs.

    The rate that an epoch was trained with comes into the history as ``learning_rate``.

    Parameters
    ----------
    monitor : str
        A name in the history.
    factor : float
        In [0, 1).
    patience : int
        Reduce at the so manyth epoch in a row that is not better.
    verbose : int
        Whether to print each new rate.
    mode : "auto", "min" or "max"
        Whether less or more is better; by default the measure's name says it.
    min_delta : float
        What is not better by more than this is not better.
    cooldown : int
        How many epochs to wait after a reduction before counting again.
    min_lr : float
        The least rate.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; from `fit`, if there is no such measure, or the optimizer's
        learning rate is a schedule.

    Source: keras.callbacks.ReduceLROnPlateau.
    """

    _kept = ("best", "wait", "cooldown_counter")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = fraction("factor", factor)
        self.patience = non_negative_int("patience", patience)
        self.verbose = verbose
        self.cooldown = non_negative_int("cooldown", cooldown)
        self.min_lr = non_negative("min_lr", min_lr)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget an earlier training."""
        if self.model is not None:
            optimizer = self.model.optimizer
            optimizer.learning_rate = optimizer.learning_rate  # which a schedule refuses
        self.best = None
        self.wait = self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Look at what the epoch measured, and maybe reduce the rate."""
        logs = {} if logs is None else logs
        optimizer = self.model.optimizer
        rate = non_negative("learning_rate", optimizer.learning_rate)
        logs["learning_rate"] = rate
        value = self._value(logs)
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_better(value, self.best):
            self.best, self.wait = value, 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate {optimizer.learning_rate:g}")


# ---- callbacks that write files


def _frequency(save_freq: Any) -> Any:
    """Return "epoch" or a number of batches, or raise."""
    return save_freq if save_freq == "epoch" else positive_int("save_freq", save_freq)


class ModelCheckpoint(_Monitor):
    """Save the model after every epoch, after some batches, or when it is the best so far.

    Files are written as a whole or not at all, as `Sequential.save` does.

    Parameters
    ----------
    filepath : str or os.PathLike
        The file to write. It may name the epoch, counted from 1, the batch and measures:
        ``"model-{epoch:02d}-{val_loss:.2f}.safetensors"``. Missing folders are made.
    monitor : str
        A name in the history, for `save_best_only`.
    verbose : int
        Whether to print what is written.
    save_best_only : bool
        Whether to write only what is better than all before.
    save_weights_only : bool
        Whether to leave out the optimizer's state, which is twice as large as the weights for Adam.
        `load_model` reads the file all the same.
    mode : "auto", "min" or "max"
        Whether less or more is better; by default the measure's name says it.
    save_freq : "epoch" or int
        After every epoch, or after so many batches.
    initial_value_threshold : float, optional
        What the first file has to be better than.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; from `fit`, if there is no such measure.

    Source: keras.callbacks.ModelCheckpoint.
    """

    _kept = ("best", "_batches")

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        self.filepath = path_of("filepath", filepath)
        self.verbose = verbose
        self.save_best_only = boolean("save_best_only", save_best_only)
        self.save_weights_only = boolean("save_weights_only", save_weights_only)
        self.save_freq = _frequency(save_freq)
        if initial_value_threshold is not None:
            self.best = finite("initial_value_threshold", initial_value_threshold)
        self.reads_batch_logs = save_freq != "epoch"
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save after some batches."""
        self._batches += 1
        if self.save_freq != "epoch" and self._batches % self.save_freq == 0:
            self._save(logs, epoch=self._run.epoch + 1, batch=batch + 1)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save after an epoch."""
        if self.save_freq == "epoch":
            self._save(logs, epoch=epoch + 1)

    def _save(self, logs: Logs | None, **numbers: int) -> None:
        if self.save_best_only:
            value = self._value(logs)
            if not self._is_better(value, self.best):
                return
            self.best = value
        known = {**(logs or {}), **numbers}
        try:
            path = self.filepath.format(**known)
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"filepath: expected names of {', '.join(known)}, given {self.filepath!r}"
            ) from error
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self.model.save(path, include_optimizer=not self.save_weights_only)
        if self.verbose:
            print(f"Epoch {numbers['epoch']}: saved {path}")


class CSVLogger(Callback):
    """Write what every epoch measured as a row of a text file.

    Parameters
    ----------
    filename : str or os.PathLike
        The file; its folder must exist. The first column is the epoch, counted from 0; the others
        are named in the first row and in alphabetical order.
    separator : str
        What stands between columns: one character.
    append : bool
        Whether to go on with a file that is there, instead of replacing it.

    Notes
    -----
    A row is on the disk when its epoch ends. A run that goes on from a backup also goes on in this
    file, behind the last epoch of the backup.

    Source: keras.callbacks.CSVLogger.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.filename = path_of("filename", filename)
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"separator: expected one character, given {separator!r}")
        self.separator = separator
        self.append = boolean("append", append)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin with a file of no size, or with the one that is there."""
        self._columns: list[str] = []
        there = self.append and os.path.exists(self.filename)
        self._size = os.path.getsize(self.filename) if there else 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write a row."""
        logs = logs or {}
        # Opened for each row, so that nothing is open where a run is interrupted.
        mode = "r+" if os.path.exists(self.filename) else "w"
        with open(self.filename, mode, newline="", encoding="utf-8") as file:
            size = min(self._size, os.fstat(file.fileno()).st_size)
            file.truncate(size)
            file.seek(size)
            writer = csv.writer(file, delimiter=self.separator)
            if not self._columns:
                self._columns = sorted(logs)
                if size == 0:
                    writer.writerow(["epoch", *self._columns])
            writer.writerow([epoch, *(logs.get(name, "NA") for name in self._columns)])
            file.flush()
            os.fsync(file.fileno())
            self._size = os.fstat(file.fileno()).st_size

    def get_state(self) -> dict[str, Any]:
        """Return how much has been written."""
        return {"columns": self._columns, "size": self._size}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on behind the last row of the `state` that `get_state` returned."""
        self._columns, self._size = list(state["columns"]), int(state["size"])


class BackupAndRestore(Callback):
    """Make a run of `fit` survive a crash: started again, it goes on where the last backup was.

    A program that is killed at any moment and started again ends with the same bits, in weights
    and history, as one that was never killed. For that the backup holds the weights, the
    optimizer's state, the epoch and the place in its order of batches, how far iterables were read
    that epochs go on in (`steps_per_epoch`), the sums of loss and metrics so far, every random
    generator of the library and of the layers, the history, and the state of the other callbacks
    (`Callback.get_state`).

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, one ``.safetensors``. Missing folders are made.
    save_freq : "epoch" or int
        After every epoch, or after so many batches.
    delete_checkpoint : bool
        Whether to remove the file when training has ended by itself. (After Ctrl-C it stays.)

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; from `fit`, if the backup is that of another model, other data
        or other arguments of `fit`. (`epochs` may be another number.)
    FileFormatError
        From `fit`, if the file is damaged or not a backup.

    Notes
    -----
    The file is written as a whole or not at all: what is there is always a whole backup. Data are
    compared by their sizes and by some of their rows. Iterables are not: they have to give the same
    batches again, an iterator from its first one on, as the new run leaves out what the old one has
    trained on. Random numbers that do not come from this library, such as NumPy's global ones, are
    not part of it, nor is what a callback of your own keeps without telling in
    `Callback.get_state`.

    Source: keras.callbacks.BackupAndRestore, which does not keep the place in an epoch, the random
    generators, the history or the callbacks.

    Examples
    --------
    >>> backup = BackupAndRestore("run.safetensors", save_freq=100)
    """

    reads_batch_logs = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        save_freq: Any = "epoch",
        delete_checkpoint: bool = True,
    ) -> None:
        self.path = os.path.abspath(path_of("path", path))
        self.save_freq = _frequency(save_freq)
        self.delete_checkpoint = boolean("delete_checkpoint", delete_checkpoint)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Go on from the backup, if there is one."""
        self._batches = 0
        self._description: dict[str, Any] = {}
        remove_leftovers(self.path)
        if not os.path.exists(self.path):
            return
        config, arrays = saving.load(self.path)
        try:
            if config["class"] != "Backup":
                raise ValueError(f"class: expected 'Backup', given {config['class']!r}")
            kept = config["description"]
            state = saving.unpack(config["state"], arrays)
            if not self.model.layers[0].built:
                self.model.build(tuple(state["input_shape"]))
            given = self._run.description()
            different = [name for name in given if given[name] != kept[name]]
            if not different:
                self._run.set_state(state)
        except (
            ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
        ) as error:  # fmt: skip
            reason = f"{type(error).__name__}: {error!s:.200}"
            raise FileFormatError(f"{self.path}: does not describe a backup: {reason}") from error
        if different:
            name = different[0]
            raise ValueError(
                f"{name}: expected {kept[name]!r:.300}, as in the backup {self.path!r} that this "
                f"run would go on from, given {given[name]!r:.300}. Remove the file to begin anew."
            )

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save after some batches."""
        self._batches += 1
        if self.save_freq != "epoch" and self._batches % self.save_freq == 0:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save after an epoch."""
        if self.save_freq == "epoch":
            self._save()

    def _save(self) -> None:
        if not self._description:  # which looks at the data, and does not change
            self._description = self._run.description()
        state, arrays = saving.pack(self._run.get_state())
        config = {"class": "Backup", "description": self._description, "state": state}
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        saving.save(self.path, config, arrays)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Remove the backup of a run that has ended by itself."""
        if self._run.finished and self.delete_checkpoint and os.path.exists(self.path):
            os.remove(self.path)
