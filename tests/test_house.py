"""The rules of the house that a program can check."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys

import numpy as np

import fastgru
from fastgru import kernels, reference

ROOT = pathlib.Path(fastgru.__file__).parent

# Which floor a room is on; imports go down, or stay in the room's own row.
FLOORS = {
    0: {"kernels", "reference", "_version", "errors", "files", "locks"},
    1: {
        "text",
        "audio",
        "data",
        "datasets",
        "initializers",
        "random",
        "regularizers",
        "saving",
        "schedules",
        "validation",
        "arrays",
        "batches",
        "metrics",
    },  # fmt: skip
    2: {
        "streaming",
        "custom",
        "layers",
        "recurrent",
        "attention",
        "bags",
        "elementwise",
        "masking",
        "normalization",
        "pooling",
        "tied",
        "wrappers",
        "losses",
        "optimizers",
    },
    3: {
        "decoding",
        "history",
        "progress",
        "summary",
        "callbacks",
        "run",
        "replay",
        "step",
        "registry",
        "model",
        "application",
        "explain",
        "robust",
        "classification",
        "speech",
        "translation",
        "runtime",
    },
    4: {"language"},
    5: {"cli", "__main__"},
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
        if path.parent.name == "kernels":
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


def public():
    """Return name -> every public module, class and function, once."""
    things = {}
    for name in fastgru.__all__:
        thing = getattr(fastgru, name)
        things[name] = thing
        if inspect.ismodule(thing):
            own = {n: t for n, t in vars(thing).items() if not n.startswith("_")}
            for n, t in own.items():
                if getattr(t, "__module__", None) == thing.__name__ and t not in things.values():
                    things[f"{name}.{n}"] = t
    return {name: thing for name, thing in things.items() if callable(thing)}


def undocumented(name, function, *texts):
    """Return the arguments of a function that no text names."""
    text = "\n".join(filter(None, texts))
    for argument, kind in inspect.signature(function).parameters.items():
        if argument not in ("self", "cls") and kind.kind not in (kind.VAR_KEYWORD,):
            if not re.search(rf"\b{argument}\b", text):
                yield f"{name}: {argument}"


def test_public_names_exist_and_are_documented():
    for name in fastgru.__all__:
        thing = getattr(fastgru, name)
        if not isinstance(thing, str):
            assert inspect.getdoc(thing), name
    for name in kernels.__all__:
        assert getattr(kernels, name) is not None


def test_public_docstrings_name_every_argument():
    missing = []
    for name, thing in public().items():
        if not inspect.isclass(thing):
            missing += undocumented(name, thing, thing.__doc__)
        elif not issubclass(thing, Exception):
            # What a class and its base say of an argument goes for all methods, and what a call
            # says for the other ways to call.
            shared = [c.__doc__ for c in thing.__mro__[:-1]]
            if thing.__init__ is not object.__init__:
                missing += undocumented(name, thing.__init__, *shared)
            shared.append(inspect.getdoc(thing.__call__) if "__call__" in dir(thing) else "")
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                if not method.startswith("_"):
                    missing += undocumented(f"{name}.{method}", function, function.__doc__, *shared)
    assert missing == []


# What is in these files moves or describes arrays, or calls kernels, and computes nothing.
PLUMBING = "arrays", "names", "recording", "threads"


def kernel_functions():
    """Return name -> every public function of the kernels, as Python."""
    functions = {name: getattr(kernels, name) for name in kernels.__all__}
    return {n: getattr(f, "py_func", f) for n, f in functions.items() if callable(f)}


def test_docstrings_of_kernels_name_every_argument():
    found = [undocumented(name, f, f.__doc__) for name, f in kernel_functions().items()]
    assert [missing for some in found for missing in some] == []


def test_docstrings_of_kernels_have_a_formula_a_source_and_a_twin():
    helpers = [n for n, home in kernels._HOME.items() if home in PLUMBING]
    helpers += [n for n in kernels.__all__ if re.match("pack_|open_|places_|.*_runner$", n)]
    for name, function in kernel_functions().items():
        if name in helpers:
            continue
        text = inspect.getdoc(function)
        assert re.search(r"Source:?\s", text), name
        assert re.search(r"Twin:\s+\S", text), name
        for twin in re.findall(r"Twin:\s+reference\.(\w+)", text):
            assert hasattr(reference, twin), f"{name}: {twin}"
        if re.search("forward|backward|update|step|entropy", name):
            assert re.search(r"Formula\b|In the forward pass this was:", text), name


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


# ---- the README


def fenced(language):
    """Return the blocks of one language in the README."""
    text = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    assert blocks
    return blocks


def test_commands_of_the_readme_are_single_lines():
    for block in fenced("sh"):
        assert block.count("\n") == 1 and "\\\n" not in block, block


def test_python_of_the_readme_compiles_and_uses_names_that_exist():
    for block in fenced("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and re.match(r"fg\.\w+(\.\w+)?$", ast.unparse(node)):
                thing = fastgru
                for name in ast.unparse(node).split(".")[1:]:
                    thing = getattr(thing, name)
        compile(block, "README.md", "exec")


def test_the_layer_alone_of_the_readme_runs():
    x = np.random.default_rng(0).normal(size=(3, 5, 4))
    dy = np.random.default_rng(1).normal(size=(3, 5, 64))
    names = {"fg": fastgru, "x": x, "lengths": [5, 0, 2], "dy": dy}
    exec(fenced("python")[1], names)
    assert names["dx"].shape == x.shape
    assert all(gradient.any() for gradient in names["layer"].grads.values())


def test_files_and_folders_that_the_readme_names_exist():
    text = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:fastgru|tests|bench|examples)/[\w/.]*)`", text):
        assert (ROOT.parent / name).exists(), name
    for name in re.findall(r"`(_\w+)`", text):
        assert any(re.search(rf"\b{name}\b", p.read_text()) for p in modules()), name
