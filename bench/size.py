"""How much has to be downloaded and installed: fastgru's dependencies beside other libraries.

Each is installed with all that it depends on into a temporary folder. This uses the network, so
`--quick` leaves it out. What cannot be had is missing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.common import machine
from bench.report import command_line, digits, label, machine_line, markdown, missing_line

REQUIREMENTS = {
    "fastgru": ("numba", "numpy", "safetensors", "scipy", "tqdm"),
    "pytorch": ("torch==2.13.0", "numpy"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow",),
}
LABELS = {"tensorflow": "TensorFlow with Keras"}
TIMEOUT_S = 1800


def _pip(*arguments: str) -> None:
    """Run pip; raise `OSError` with its last line if it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise OSError("".join(last).removeprefix("ERROR: ") or f"pip ended with {done.returncode}")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def measure(requirements: Iterable[str]) -> dict[str, Any]:
    """Download wheels and install them; return their bytes and the packages' names."""
    with tempfile.TemporaryDirectory() as folder:
        wheels, target = Path(folder, "wheels"), Path(folder, "target")
        _pip("download", "--only-binary", ":all:", "--dest", str(wheels), *requirements)
        files = sorted(map(str, wheels.glob("*.whl")))
        _pip("install", "--no-index", "--no-deps", "--no-compile", "--target", str(target), *files)
        return {
            "download_bytes": sum(path.stat().st_size for path in _files(wheels)),
            "installed_bytes": sum(path.stat().st_size for path in _files(target)),
            "packages": ["-".join(Path(file).name.split("-")[:2]) for file in files],
        }


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Measure all, or those named; return what JSON can hold."""
    names = list(REQUIREMENTS) if names is None else list(names)
    if unknown := [name for name in names if name not in REQUIREMENTS]:
        known = ", ".join(REQUIREMENTS)
        raise ValueError(f"names: expected some of {known}; given {', '.join(unknown)}")
    missing: dict[str, str] = {}
    sizes = {}
    for name in names:
        try:
            if quick:
                raise OSError("needs the network, which --quick does not use")
            sizes[name] = measure(REQUIREMENTS[name])
        except (OSError, subprocess.TimeoutExpired) as error:
            missing[name] = str(error)
    return {
        "bench": "size",
        "machine": machine(threads),
        "quick": quick,
        "names": names,
        "missing": missing,
        "sizes": sizes,
    }


def table(result: dict[str, Any]) -> str:
    """Render megabytes, with all dependencies."""
    header = ["with all dependencies", "download MB", "installed MB", "packages"]
    rows = []
    for name in result["names"]:
        size = result["sizes"].get(name)
        cells = ["missing"] * 3
        if size:
            cells = [digits(size[key] / 1e6) for key in ("download_bytes", "installed_bytes")]
            cells.append(str(len(size["packages"])))
        rows.append([LABELS.get(name, label(name)), *cells])
    versions = [package for size in result["sizes"].values() for package in size["packages"]]
    notes = [
        "Wheels for this system, and the files in them; bytecode is not counted.",
        f"Measured: {', '.join(sorted(set(versions)))}." if versions else "",
        machine_line(result),
        missing_line(result),
        command_line(result),
    ]
    return "\n".join([markdown(header, rows), "", *filter(None, notes)])
