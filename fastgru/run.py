"""One call of `fit`: where it is, who follows it, and all that its next batch depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from fastgru import random
from fastgru.batches import Batches
from fastgru.callbacks import BackupAndRestore, Callback, ProgressBar
from fastgru.history import History
from fastgru.layers import Layer

# Data are compared by so many rows, evenly spaced: they may be larger than memory, on a disk.
COMPARED_ROWS = 1024

States: TypeAlias = dict[int, list[np.ndarray]]  # of layers that have some, by their place


def checked_callbacks(callbacks: Any) -> list[Callback]:
    """Return the callbacks of a list, or raise."""
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks: expected a list of callbacks, given {callbacks!r}")
    for i, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks[{i}]: expected a fastgru.callbacks.Callback, given {callback!r}"
            )
    return list(callbacks)


class WeightNoise:
    """Gaussian noise on all trainable weights while one batch goes forward and backward.

    ``add`` keeps a copy of the weights, and ``remove`` puts back its bits, also where an interrupt
    has left the way between the two, or `remove` itself, half done.

    Source: Jim, Giles and Horne 1996, "An analysis of noise in recurrent neural networks"; Graves
    2011, "Practical variational inference for neural networks", with a fixed deviation.
    """

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation
        self.random = random.generator()
        self._clean: list[tuple[np.ndarray, np.ndarray]] = []
        self._layers: list[Layer] = []

    def add(self, layers: list[Layer], params: list[np.ndarray]) -> None:
        """Add noise to the params of some layers."""
        self._layers = layers
        self._clean = [(param, param.copy()) for param in params]
        for param in params:
            drawn = self.random.standard_normal(param.shape, param.dtype.type)
            param += param.dtype.type(self.deviation) * drawn
        self._changed()

    def remove(self) -> None:
        """Put the params back as they were, if there is noise on them."""
        for param, clean in self._clean:
            param[...] = clean
        if self._clean:
            self._changed()
        self._clean = []

    def _changed(self) -> None:
        for layer in self._layers:
            layer.changed()


class Run:
    """One call of `fit`. As a context it tells the callbacks when training begins and ends.

    Parameters
    ----------
    model : Sequential
        What is trained.
    callbacks : list of Callback
        Who follows.
    verbose : 0, 1, 2 or "auto"
        See `ProgressBar`.
    epoch, epochs : int
        The first epoch, counted from 0, and the number behind the last.
    weight_noise : float
        See `WeightNoise`.
    settings : dict
        Other arguments of `fit` that the order of the batches depends on.
    data : dict of sources
        What is trained on and validated with (see `fastgru.batches`), by the names of the arguments
        of `fit`; the first is what is trained on.

    Attributes
    ----------
    states : dict or None
        The last states of the layers that have some, by their place, where they go on in the next
        batch.
    """

    def __init__(
        self,
        model: Any,
        callbacks: list[Callback],
        verbose: Any,
        epoch: int,
        epochs: int,
        weight_noise: float,
        settings: dict[str, Any],
        data: dict[str, Any],
    ) -> None:
        self.model = model
        self.epoch, self.epochs = epoch, epochs
        self.random = random.generator()
        self.noise = WeightNoise(weight_noise) if weight_noise else None
        self.history = model.history = History()
        self.finished = False
        model.stop_training = False
        self._settings = {**settings, "weight_noise": weight_noise}
        self._data = data
        self._carries = next(iter(data.values())).carries
        self._begin_epoch()

        backups = [c for c in callbacks if isinstance(c, BackupAndRestore)]
        bars = [c for c in callbacks if isinstance(c, ProgressBar)]
        if not bars and verbose != 0:
            bars = [ProgressBar(verbose)]
        self._own = [c for c in callbacks if c not in backups and c not in bars]
        self._watching, self._backups = [*self._own, *bars], backups
        # Backups come last: they keep what the others have made of an event.
        self._everyone = everyone = [*self._watching, *backups]
        self._batch_begin = [c for c in everyone if _defines(c, "on_train_batch_begin")]
        self._batch_end = [c for c in everyone if _defines(c, "on_train_batch_end")]
        self._reads_logs = any(c.reads_batch_logs for c in self._batch_end)
        for callback in everyone:
            callback.model, callback._run = model, self

    def _begin_epoch(self) -> None:
        self.batch = self.samples = self.count = 0
        self.total = 0.0
        self.states: States | None = {} if self._carries else None
        self._order = self.random.bit_generator.state
        self._positions = {name: source.get_state() for name, source in self._read_on()}

    def _read_on(self) -> list[tuple[str, Batches]]:
        """Return the data in which an epoch may begin where the last one has ended."""
        return [(name, data) for name, data in self._data.items() if isinstance(data, Batches)]

    # ---- events

    def __enter__(self) -> Run:
        """Begin."""
        for callback in self._everyone:
            callback.on_train_begin({})
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """End, also when training was interrupted."""
        if self.noise is not None:
            self.noise.remove()
        self.finished = kind is None
        logs = {name: values[-1] for name, values in self.history.history.items()}
        for callback in self._everyone:
            callback.on_train_end(dict(logs))
        self._data = {}  # which callbacks, that know this run, shall not keep alive

    def __iter__(self) -> Iterator[int]:
        """Yield the epochs that are left; the first one may have been begun before."""
        while self.epoch < self.epochs and (self.batch or not self.model.stop_training):
            yield self.epoch

    def epoch_begin(self, size: int | None) -> None:
        """Begin an epoch of so many samples, or go on with it; None if nobody knows how many."""
        self.size = size
        if not self.batch:
            self.model._reset()
        for callback in self._everyone:
            callback.on_epoch_begin(self.epoch, {})

    def batch_begin(self) -> None:
        """Begin a batch."""
        for callback in self._batch_begin:
            callback.on_train_batch_begin(self.batch, {})

    def batch_end(self, loss: float, count: int, samples: int) -> None:
        """End a batch of so many samples with its loss, which is the mean of so many values."""
        number = self.batch
        self.batch += 1
        self.samples += samples
        self.count += count
        self.total += loss * count
        if self._batch_end:
            logs = self.results() if self._reads_logs else {}
            for callback in self._batch_end:
                callback.on_train_batch_end(number, logs)

    def epoch_end(self, measured: dict[str, float]) -> None:
        """End an epoch with what it measured, and what callbacks add to that."""
        number = self.epoch
        self.epoch += 1
        self._begin_epoch()
        for callback in self._watching:
            callback.on_epoch_end(number, measured)
        self.history.add(number, measured)
        for callback in self._backups:
            callback.on_epoch_end(number, measured)

    def results(self) -> dict[str, float]:
        """Return the mean loss and the metrics of the epoch so far."""
        return self.model._results(self.total, self.count)

    # ---- all that the next batch depends on

    def get_state(self) -> dict[str, Any]:
        """Return all that the rest of the run depends on, but for the data; weights uncopied."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "samples": self.samples,
            "count": self.count,
            "total": self.total,
            "stopped": self.model.stop_training,
            "history": {"epoch": self.history.epoch, "history": self.history.history},
            "random": {
                "global": random.get_state(),
                # The order of an epoch is drawn again, and its first batches are left out.
                "order": self._order,
                "noise": _state_of(self.noise.random if self.noise is not None else None),
            },
            # Where in iterables the epoch has begun.
            "positions": self._positions,
            "states": [[place, *states] for place, states in (self.states or {}).items()],
            "layers": [_layer_state(layer) for layer in _layers(self.model.layers)],
            "input_shape": self.model.layers[0].input_shape,
            "weights": {layer.name: dict(layer.weights()) for layer in self.model.layers},
            "optimizer": self.model.optimizer.get_state(),
            "metrics": [metric.get_state() for metric in self.model.metrics],
            "callbacks": [callback.get_state() for callback in self._own],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where `get_state` was called, maybe in another process.

        Raises
        ------
        ValueError, TypeError, LookupError, AttributeError
            If it is not the state of such a run.
        """
        drawn = state["random"]
        for name in ("epoch", "batch", "samples", "count"):
            setattr(self, name, int(state[name]))
        self.total = float(state["total"])
        self.model.stop_training = bool(state["stopped"])
        self.history.epoch = list(state["history"]["epoch"])
        self.history.history = {n: list(v) for n, v in state["history"]["history"].items()}
        for layer in self.model.layers:
            layer.weights().update(state["weights"][layer.name])
            layer.changed()
        self.model.optimizer.set_state(state["optimizer"])
        self.model.optimizer.check(self.model._weights()[0])
        for metric, own in zip(self.model.metrics, state["metrics"], strict=True):
            metric.set_state(own)
        for callback, own in zip(self._own, state["callbacks"], strict=True):
            callback.set_state(own)
        if self.states is not None:
            self.states = {int(place): list(states) for place, *states in state["states"]}
        self._positions = state["positions"]
        for name, source in self._read_on():
            source.set_state(self._positions[name])
        self._order = drawn["order"]
        self.random.bit_generator.state = drawn["order"]
        if self.noise is not None:
            self.noise.random.bit_generator.state = drawn["noise"]
        for layer, own in zip(_layers(self.model.layers), state["layers"], strict=True):
            _set_layer_state(layer, own)
        random.set_state(drawn["global"])

    def description(self) -> dict[str, Any]:
        """Return what has to be the same where a run goes on."""
        weights = {
            f"{layer.name}.{name}": f"{array.dtype} {array.shape}"
            for layer in self.model.layers
            for name, array in layer.weights().items()
        }
        return {
            **self._settings,
            "optimizer": type(self.model.optimizer).__name__,
            "metrics": [metric.name for metric in self.model.metrics],
            "callbacks": [type(callback).__name__ for callback in self._own],
            "weights": weights,
            **{name: _fingerprint(source) for name, source in self._data.items()},
        }


def _defines(callback: Callback, event: str) -> bool:
    """Return whether a callback has a method of its own, or a function, for an event."""
    own = getattr(callback, event)
    return getattr(own, "__func__", own) is not getattr(Callback, event)


def _state_of(generator: np.random.Generator | None) -> Any:
    return None if generator is None else generator.bit_generator.state


def _layers(value: Any) -> Iterator[Layer]:
    """Yield some layers and the layers that they hold, in a fixed order."""
    if isinstance(value, Layer):
        yield value
        value = list(vars(value).values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _layers(item)


def _generators(layer: Layer) -> list[np.random.Generator]:
    return [each for each in vars(layer).values() if isinstance(each, np.random.Generator)]


def _layer_state(layer: Layer) -> dict[str, Any]:
    """Return what training changes in a layer beside its weights: what it draws and carries on."""
    return {
        "random": [_state_of(each) for each in _generators(layer)],
        "carried": getattr(layer, "_carried", None),
    }


def _set_layer_state(layer: Layer, state: dict[str, Any]) -> None:
    for each, own in zip(_generators(layer), state["random"], strict=True):
        each.bit_generator.state = own
    if hasattr(layer, "_carried"):
        layer._carried = state["carried"]


def _fingerprint(source: Any) -> str:
    """Return text that differs for other data: sizes and a checksum of some rows."""
    if source is None:
        return "none"
    digest, sizes = hashlib.sha256(), []
    for array in source.columns:
        if not hasattr(array, "__len__") or not hasattr(array, "__getitem__"):
            sizes.append("none" if array is None else type(array).__name__)
            continue
        sizes.append(f"{len(array)} rows")
        if len(array):
            count = min(len(array), COMPARED_ROWS)
            for row in np.linspace(0, len(array) - 1, count).astype(int):
                values = np.asarray(array[row])
                digest.update(f"{values.dtype} {values.shape}".encode() + values.tobytes())
    return f"{', '.join(sizes)}, checksum {digest.hexdigest()[:16]}"
