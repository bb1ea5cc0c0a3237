"""Sizes of installations, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import size
from bench.processes import ROOT


def test_what_is_measured_is_what_fastgru_depends_on():
    text = (ROOT / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert tuple(re.findall(r'"(\w+)', block)) == size.REQUIREMENTS["fastgru"]


def test_quick_uses_no_network(monkeypatch):
    monkeypatch.setattr(size, "_pip", None)
    result = size.run(quick=True, threads=1)
    assert set(result["missing"]) == set(size.REQUIREMENTS) and not result["sizes"]
    assert "PyTorch is missing: needs the network" in size.table(result)


def test_wheels_and_files_are_counted(monkeypatch):
    def pip(command, *arguments):
        if command == "download":
            folder = Path(arguments[arguments.index("--dest") + 1])
            folder.mkdir()
            (folder / "tqdm-4.0-py3-none-any.whl").write_bytes(b"x" * 1000)
        else:
            folder = Path(arguments[arguments.index("--target") + 1])
            (folder / "tqdm").mkdir(parents=True)
            (folder / "tqdm" / "a.py").write_bytes(b"x" * 3000)
            (folder / "tqdm" / "b.py").write_bytes(b"x" * 500)
            assert arguments[-1].endswith("tqdm-4.0-py3-none-any.whl")

    monkeypatch.setattr(size, "_pip", pip)
    result = size.run(quick=False, threads=1, names=["fastgru"])
    assert result["sizes"]["fastgru"] == {
        "download_bytes": 1000,
        "installed_bytes": 3500,
        "packages": ["tqdm-4.0"],
    }
    assert "tqdm-4.0" in size.table(result)


def test_a_package_that_cannot_be_had_is_missing(monkeypatch):
    def pip(*arguments):
        raise OSError("No matching distribution found")

    monkeypatch.setattr(size, "_pip", pip)
    result = size.run(quick=False, threads=1, names=["jax"])
    assert result["missing"] == {"jax": "No matching distribution found"}
    assert "| JAX " in size.table(result) and " missing |" in size.table(result)


def test_pip_tells_why_it_failed():
    with pytest.raises(OSError, match="nothing"):
        size._pip("install", "--no-index", "nothing-of-this-name")
