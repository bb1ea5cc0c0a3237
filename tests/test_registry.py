"""Whatever the library knows by a name has a row in the tests."""

import ast
from pathlib import Path

import cases
import pytest
import test_layers
import test_losses
import test_optimizers
import test_reference
import test_streaming
import test_update

from fastgru import kernels
from fastgru.initializers import INITIALIZERS
from fastgru.kernels.names import ACTIVATIONS
from fastgru.losses import LOSSES
from fastgru.metrics import METRICS
from fastgru.optimizers import OPTIMIZERS
from fastgru.registry import LAYERS
from fastgru.regularizers import REGULARIZERS

TESTS = Path(__file__).parent


def words_of(file):
    """Return all string constants of a file of tests, in lower case."""
    nodes = ast.walk(ast.parse((TESTS / file).read_text(encoding="utf-8")))
    return {n.value.lower() for n in nodes if isinstance(n, ast.Constant) and type(n.value) is str}


def called_in_tests():
    """Return the names of all functions that tests call."""
    for path in TESTS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                yield getattr(node.func, "id", None) or node.func.attr
    yield from (f"{kind}_crossentropy" for kind in test_update.KINDS)
    for cell in {case.cell for case in cases.CASES if case.cell}:
        yield from (f"pack_{cell.name}", f"{cell.name}_forward", f"{cell.name}_backward")
    for kind in test_streaming.CELLS:
        yield from (f"{kind.CELL}_stream", f"{kind.CELL}_sequence")


def without_a_row():
    """Return what is known by name and tested nowhere."""
    rows = {
        "activation": {case.name.split("-")[0] for case in cases.ACTIVATION_CASES}
        & set(test_reference.SCALAR),
        "layer": {type(make()).__name__ for make in test_layers.EXAMPLES},
        "loss": words_of("test_losses.py"),
        "class of losses": {
            type(case.values[0]) for case in (*test_losses.CASES, *test_losses.SEQUENCE_CASES)
        },
        "optimizer": words_of("test_optimizers.py"),
        "class of optimizers": {kind for kind, _ in test_optimizers.RECIPES},
        "metric": words_of("test_metrics.py"),
        "initializer": words_of("test_initializers.py"),
        "regularizer": words_of("test_regularizers.py"),
        "kernel": set(called_in_tests()),
    }
    known = {
        "activation": ACTIVATIONS,
        "layer": LAYERS,
        "loss": LOSSES,
        "class of losses": LOSSES.values(),
        "optimizer": OPTIMIZERS,
        "class of optimizers": OPTIMIZERS.values(),
        "metric": METRICS,
        "initializer": INITIALIZERS,
        "regularizer": REGULARIZERS,
        "kernel": [name for name in kernels.__all__ if name != "ACTIVATIONS"],
    }
    return [f"{kind} {name}" for kind in known for name in known[kind] if name not in rows[kind]]


def test_every_name_has_a_row():
    assert without_a_row() == []


@pytest.mark.parametrize(
    ("registry", "found"),
    [
        (LAYERS, ["layer new_thing"]),
        (LOSSES, ["loss new_thing", "class of losses kind"]),
        (OPTIMIZERS, ["optimizer new_thing", "class of optimizers kind"]),
        (METRICS, ["metric new_thing"]),
        (INITIALIZERS, ["initializer new_thing"]),
        (REGULARIZERS, ["regularizer new_thing"]),
    ],
)
def test_a_name_without_a_row_is_found(registry, found, monkeypatch):
    monkeypatch.setitem(registry, "new_thing", "kind")
    assert without_a_row() == found


def test_a_kernel_or_an_activation_without_a_row_is_found(monkeypatch):
    monkeypatch.setattr(kernels, "__all__", [*kernels.__all__, "new_thing_forward"])
    monkeypatch.setitem(globals(), "ACTIVATIONS", (*ACTIVATIONS, "new_thing"))
    assert without_a_row() == ["activation new_thing", "kernel new_thing_forward"]
