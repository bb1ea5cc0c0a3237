"""What training measured, as numbers and as a picture."""

from __future__ import annotations

import os
from typing import Any


class History:
    """What `fit` measured.

    Attributes
    ----------
    history : dict
        Name -> list with one number per epoch: ``loss``, the metrics, and both with ``val_``.
    epoch : list of int
        The epochs, counted from 0.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def add(self, epoch: int, measured: dict[str, float]) -> None:
        """Note what one epoch measured."""
        self.epoch.append(epoch)
        for name, value in measured.items():
            self.history.setdefault(name, []).append(value)

    def plot(self, path: str | os.PathLike[str] | None = None) -> None:
        """Draw the loss and each metric over the epochs, those of the validation beside them.

        Parameters
        ----------
        path : str or os.PathLike, optional
            The picture to write, in the format that its ending names; by default it is shown.

        Raises
        ------
        ValueError
            If there is no epoch to draw.
        ModuleNotFoundError
            If matplotlib is not installed; the message says how to install it.
        """
        if not self.epoch:
            raise ValueError("history: expected at least one epoch to draw, given none")
        try:
            import matplotlib.pyplot as plt
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'plot: expected matplotlib, found none; pip install "fastgru[plot]"'
            ) from error

        names = list(dict.fromkeys(name.removeprefix("val_") for name in self.history))
        size = (4.5 * len(names), 3.5)
        # A figure for a file needs no screen, and none of pyplot's memory.
        figure: Any = plt.figure(figsize=size) if path is None else Figure(figsize=size)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for key, label in ((name, "training"), (f"val_{name}", "validation")):
                values = self.history.get(key, [])
                # A measure that a callback began later than the rest belongs to the last epochs.
                epochs = [epoch + 1 for epoch in self.epoch[len(self.epoch) - len(values) :]]
                if values:
                    axes.plot(epochs, values, marker="." if len(values) < 30 else "", label=label)
            axes.set(xlabel="epoch", title=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            if len(axes.lines) > 1:
                axes.legend()
        figure.tight_layout()
        if path is None:
            plt.show()
        else:
            figure.savefig(path, dpi=150)
