"""The layers by their names, and what files hold of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastgru.errors import FileFormatError
from fastgru.layers import Layer
from fastgru.masking import Masking
from fastgru.wrappers import INNER, TimeDistributed

LAYERS: dict[str, type[Layer]] = INNER | {c.__name__: c for c in (Masking, TimeDistributed)}


def config_of(what: str, instance: Any, known: Iterable[type]) -> dict[str, Any]:
    """Return the config of an instance of a known class, from which it can be made again.

    Parameters
    ----------
    what : str
        What errors call it.
    instance : Layer, Optimizer, Loss or Metric
    known : iterable of classes
        Those that a reader knows.

    Raises
    ------
    ValueError
        If it is of another class.
    """
    if type(instance) not in known:
        raise ValueError(
            f"{what}: expected instances of fastgru's own classes, which load_model knows, given "
            f"one of {type(instance).__name__!r}"
        )
    return instance.get_config()


def describe(layers: Iterable[Layer]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return what `restore` makes the same layers of: a JSON list, and the weights by name.

    Parameters
    ----------
    layers : iterable of Layer
        Different ones, with different names, all built.

    Raises
    ------
    ValueError
        If one is not built, or of a class that `LAYERS` does not know.
    """
    described: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for layer in layers:
        if not layer.built:
            raise ValueError(f"{layer.name}: expected a built layer, given one without weights")
        described.append(
            {
                "class": type(layer).__name__,
                "config": config_of("layers", layer, LAYERS.values()),
                "input_shape": list(layer.input_shape or ()),
            }
        )
        arrays |= {f"{layer.name}.{name}": array for name, array in layer.weights().items()}
    return described, arrays


def restore(described: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> list[Layer]:
    """Make layers from what `describe` returned, and take their weights out of `arrays`.

    Parameters
    ----------
    described : list of dict
    arrays : dict of str to array

    Raises
    ------
    ValueError, LookupError, TypeError
        If it does not describe layers, or a weight is missing or of another size.
    """
    layers = []
    for each in described:
        layer = LAYERS[each["class"]].from_config(each["config"])
        shape = tuple(each["input_shape"])
        weights = {}
        # All sizes are compared before anything is allocated for them.
        for name, expected in layer.weight_shapes(shape).items():
            weights[name] = arrays.pop(f"{layer.name}.{name}")
            if weights[name].shape != expected or weights[name].dtype != layer.dtype:
                raise ValueError(
                    f"{layer.name}.{name}: expected {layer.dtype} {expected}, "
                    f"given {weights[name].dtype} {weights[name].shape}"
                )
        layer.build(shape, weights)
        layers.append(layer)
    return layers


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Raise FileFormatError for whatever goes wrong with what a file holds.

    Parameters
    ----------
    path : str or os.PathLike
        The file, for the message.
    what : str
        What it should describe, with its article.
    """
    try:
        yield
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise FileFormatError(f"{os.fspath(path)}: does not describe {what}: {reason}") from error
