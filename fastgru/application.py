"""What the applications share: one file that holds all it takes to use them elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

from fastgru import saving
from fastgru.history import History
from fastgru.layers import Layer
from fastgru.registry import describe, reading, restore

Own = TypeVar("Own", bound="Application")


class Application:
    """A model with all that leads from raw input to an answer.

    A subclass defines what it was made with (`get_config`), what fitting has learned beside weights
    (`_learned`, `_learn`), and the layers that it is put together from (`_layers`, `_assemble`).
    All settings have defaults. `history` is that of the last fit; one of several networks defines
    `_epochs` instead.
    """

    history: History

    # ---- what a kind of application defines

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make such an application again, as JSON can hold them."""
        raise TypeError(f"{type(self).__name__} does not define get_config")

    def _layers(self) -> list[Layer]:
        """Return all layers, each once, in the same order every time; none before it is fitted."""
        raise TypeError(f"{type(self).__name__} does not define _layers")

    def _assemble(self, layers: list[Layer]) -> None:
        """Put the layers that `_layers` returned, or copies of them, together."""
        raise TypeError(f"{type(self).__name__} does not define _assemble")

    def _learned(self) -> dict[str, Any]:
        """Return what was learned beside weights, such as a vocabulary; JSON can hold it."""
        return {}

    def _learn(self, learned: dict[str, Any]) -> None:
        """Take over what `_learned` returned; called before `_assemble`."""

    # ---- what all of them share

    def __repr__(self) -> str:
        """Return the class and the settings that are not those of the default."""
        plain = type(self)().get_config()
        changed = [f"{k}={v!r}" for k, v in self.get_config().items() if v != plain[k]]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _fitted(self) -> None:
        """Raise unless there is a model."""
        if not self._layers():
            name = type(self).__name__
            raise RuntimeError(f"{name}: call fit first, or {name}.load")

    def _epochs(self) -> int:
        """Return how many epochs the last fit has finished."""
        return len(self.history.epoch)

    @contextlib.contextmanager
    def _learning(self) -> Iterator[None]:
        """Leave all as it was where what is done inside ends before an epoch of it is complete.

        Be it by an error or by Ctrl-C: what training begins with is no better than what was there.
        Attributes may be set inside, to begin with an empty `history`, but what they hold may not
        be changed.
        """
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            if not self._epochs():
                self.__dict__ = before
            raise

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that it takes to use it elsewhere to one ``.safetensors`` file.

        Parameters
        ----------
        path : str or os.PathLike
            The file to write or to replace, as a whole or not at all. Its folder must exist.

        Raises
        ------
        RuntimeError
            If it is not fitted.
        """
        self._fitted()
        described, arrays = describe(self._layers())
        config = {
            "class": type(self).__name__,
            "settings": self.get_config(),
            "learned": self._learned(),
            "layers": described,
        }
        saving.save(path, config, arrays)

    @classmethod
    def load(cls: type[Own], path: str | os.PathLike[str]) -> Own:
        """Read what `save` wrote; nothing in a file is ever executed.

        Parameters
        ----------
        path : str or os.PathLike
            The file.

        Raises
        ------
        FileFormatError
            If the file is damaged, or holds something else.
        FileNotFoundError
            If there is no such file.
        """
        config, arrays = saving.load(path)
        with reading(path, f"a {cls.__name__}"):
            if config["class"] != cls.__name__:
                raise ValueError(f"class: expected {cls.__name__!r}, given {config['class']!r:.40}")
            application = cls(**config["settings"])
            layers = restore(config["layers"], arrays)
            if arrays:
                raise ValueError(f"arrays that belong to no layer: {sorted(arrays)}")
            application._learn(config["learned"])
            application._assemble(layers)
        return application
