"""All benchmarks by name: one module per question, and what such a module has.

``run(*, quick, threads, names=None)`` verifies, then measures, and returns a dict that JSON can
hold: "bench" is the name here, "machine" what `common.machine` returned, "quick" as given; `names`
picks some rows. ``table(result)`` renders that as Markdown, every number from the dict.
``plot(result, path)``, which a module may have, draws it as PNG and imports matplotlib itself.
"""

from __future__ import annotations

import importlib
from types import ModuleType

BENCHES = {
    "kernels": "bench.kernels",
    "train": "bench.train",
    "stream": "bench.stream",
    "cells": "bench.cells",
    "startup": "bench.startup",
    "scaling": "bench.scaling",
    "memory": "bench.memory",
    "busy": "bench.busy",
    "callers": "bench.callers",
    "size": "bench.size",
    "bounds": "bench.bounds",
}


def load(name: str) -> ModuleType:
    """Import the module of a benchmark, and with it NumPy: see `common.prepare_environment`."""
    return importlib.import_module(BENCHES[name])
