"""The rules of the house that a program can check."""

import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import fastgru
from fastgru import kernels

ROOT = pathlib.Path(fastgru.__file__).parent

# Which floor a room is on; imports go down, or stay in the room's own row.
FLOORS = {
    0: {"kernels", "reference", "_version", "errors", "files", "locks"},
    1: {
        "text", "data", "datasets", "initializers", "random", "saving", "validation", "arrays",
        "metrics",
    },  # fmt: skip
    2: {"layers", "recurrent", "losses", "optimizers"},
    3: {"progress", "model", "runtime"},
    4: {"cli"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def modules():
    return sorted(ROOT.rglob("*.py"))


def rooms_imported(path):
    """Return the rooms that a module imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fastgru":
            parts = (node.module or "").split(".")
            yield from [parts[1]] if len(parts) > 1 else [a.name for a in node.names]


def test_every_module_has_a_floor():
    rooms = {p.stem for p in ROOT.glob("*.py")} | {"kernels"}
    assert rooms - {"__init__"} == set(FLOOR)


def test_imports_go_down():
    for path in modules():
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in set(rooms_imported(path)):
            assert FLOOR[other] <= FLOOR[room], f"{room} imports {other}"


def test_the_reference_owes_nothing_to_what_it_judges():
    assert list(rooms_imported(ROOT / "reference.py")) == []
    importers = [p for p in modules() if "reference" in set(rooms_imported(p))]
    assert importers == []


def test_numba_is_imported_in_the_kernels_alone():
    for path in modules():
        if path.parent.name == "kernels" or path.name == "runtime.py":
            continue
        assert not re.search(r"^\s*(import|from) (numba|llvmlite)", path.read_text(), re.M), path


def test_import_is_quick_because_numba_and_scipy_come_later():
    code = "import sys, fastgru; print([m for m in ('numba', 'scipy', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_unpickled_or_evaluated():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, "module", None)]
                assert not {"pickle", "marshal", "shelve"} & set(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path


def test_no_kernel_uses_fastmath():
    for path in (ROOT / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                assert node.arg != "fastmath", path


def test_public_names_exist_and_are_documented():
    for name in fastgru.__all__:
        thing = getattr(fastgru, name)
        if not isinstance(thing, str):
            assert inspect.getdoc(thing), name
    for name in kernels.__all__:
        assert getattr(kernels, name) is not None


def test_public_docstrings_name_every_argument():
    for name in fastgru.__all__:
        thing = getattr(fastgru, name)
        if not inspect.isclass(thing) or issubclass(thing, Exception):
            continue
        text = inspect.getdoc(thing) or ""
        for argument in list(inspect.signature(thing.__init__).parameters)[1:]:
            if argument not in ("options",):
                assert re.search(rf"\b{argument}\b", text), f"{name}: {argument}"


def test_kernels_say_what_twin_they_have():
    for name in ("gru", "dense", "embedding", "softmax", "update"):
        module = importlib.import_module(f"fastgru.kernels.{name}")
        public = [n for n, home in kernels._HOME.items() if home == name]
        for function in (getattr(module, n) for n in public):
            text = inspect.getdoc(getattr(function, "py_func", function)) or ""
            if "forward" in getattr(function, "__name__", ""):
                assert re.search(r"Twin:\s+reference\.", text), function


def test_scratch_memory_lives_as_long_as_its_pointers():
    """Numba frees an array after its last use by name, while a kernel still holds its address."""
    for path in (ROOT / "kernels").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or not node.decorator_list:
                continue
            made = [
                n.targets[0].id
                for n in ast.walk(node)
                if isinstance(n, ast.Assign) and ast.unparse(n.value).startswith("np.empty(")
            ]
            if made:
                assert ast.unparse(node.body[-1]) == f"keep_alive({made[0]})", node.name
