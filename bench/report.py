"""Turn results into the tables and plots of the README: no number there is typed by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.registry import load

LABELS = {
    "fastgru": "fastgru",
    "pytorch": "PyTorch",
    "pytorch_gru": "PyTorch nn.GRU",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "jax": "JAX",
    "keras": "Keras",
    "numpy": "NumPy",
}


# ---- for the tables of the benchmarks


def label(contender: str) -> str:
    """Return a contender's name as people write it."""
    return LABELS.get(contender, contender)


def digits(value: float) -> str:
    """Write three significant digits: 61.2, 1260, 129000 as 129,000."""
    if value >= 1000:
        step = 10 ** (len(str(int(value))) - 3)
        return f"{round(value / step) * step:,}"
    return f"{value:.3g}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Align a Markdown table, so that it reads well in a terminal too; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def machine_line(result: dict[str, Any]) -> str:
    """Say in one line what was measured on what, and with which versions.

    Those of the libraries in "contenders" but not in "missing", where a result has these; and the
    rates of the machine's limits, where it has "gflops".
    """
    m, rates = result["machine"], result.get("gflops", {})
    threads = m["threads"]
    present = [c for c in result.get("contenders", ()) if c not in result.get("missing", ())]
    libraries = [f"{label(c)} {m['versions'][c]}" for c in present if c in m["versions"]]
    peak, blas = rates.get(f"fma_{threads}"), rates.get("blas")
    return (
        f"{m['cpu']}, {m['vector_bits']}-bit vectors, {threads} thread{'s' * (threads != 1)}"
        + (f"; FMA peak {peak:.0f} GFLOP/s" if peak else "")
        + f". fastgru {m['fastgru']}, Numba {m['numba']}, NumPy {m['numpy']} "
        f"({m['blas']['name']} {m['blas']['version']}"
        + (f", {blas:.0f} GFLOP/s" if blas else "")
        + "), "
        + "".join(f"{library}, " for library in libraries)
        + f"Python {m['python']}, {m['system']}; {m['date'][:10]}."
    )


def missing_line(result: dict[str, Any]) -> str:
    """Say which contenders could not be measured, and why; nothing if all could."""
    missing = result["missing"]
    return " ".join(f"{label(name)} is missing: {why}." for name, why in missing.items())


def command_line(result: dict[str, Any]) -> str:
    """Say which command makes a result again."""
    quick = " --quick" * result["quick"]
    threads = result["machine"]["threads"]
    return f"Made by `python -m bench {result['bench']} --threads {threads}{quick}`."


# ---- the applications

# What a row of their table is made of, as the examples write it with --json.
APPLICATION_KEYS = ("application", "data", "parameters", "seconds", "quality", "reference")


def application_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of one file: a JSON object, or a list of them.

    Each has "application" and "data", text; "parameters" and the "seconds" of training, numbers;
    "quality", and "reference" with its source, text. A "note" goes below the table.

    Raises
    ------
    ValueError
        If one lacks a key.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows = rows if isinstance(rows, list) else [rows]
    for row in rows:
        missing = [key for key in APPLICATION_KEYS if key not in row]
        if missing:
            raise ValueError(f"{path}: expected the keys {', '.join(missing)}")
    return rows


def applications_table(paths: list[Path]) -> str:
    """Render what applications reach on their data, beside what others do."""
    header = ["application", "data", "parameters", "seconds to train", "quality", "reference"]
    rows = [row for path in sorted(paths) for row in application_rows(path)]
    cells = [
        [
            row["application"],
            row["data"],
            f"{row['parameters']:,}",
            digits(row["seconds"]),
            row["quality"],
            row["reference"],
        ]
        for row in rows
    ]
    notes = [f"{row['application']}, {row['data']}: {row['note']}" for row in rows if "note" in row]
    return "\n".join([markdown(header, cells), *(f"\n{note}" for note in notes)])


# ---- the README


def replace_block(text: str, name: str, block: str) -> str:
    """Put a block between the markers of its name.

    Raises
    ------
    ValueError
        If the text has no such pair of markers.
    """
    begin, end = f"<!-- bench:{name} -->", "<!-- /bench -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"expected the markers {begin} and {end}")
    return f"{head}{begin}\n{block}\n{end}{tail}"


def write_report(results: list[Path], readme: Path, applications: list[Path]) -> list[str]:
    """Rewrite the README's tables, and the plots beside the results; return the names.

    Nothing is written to the README unless all tables and plots could be made. `applications` are
    files of rows for one table, see `application_rows`.

    Raises
    ------
    ValueError
        If the README lacks the markers of a result, or an application's file lacks a key.
    OSError
        If a result or the README cannot be read.
    ImportError
        If there is something to plot, and no matplotlib.
    """
    text = readme.read_text()
    names = []
    for path in results:
        result = json.loads(path.read_text())
        name = result["bench"]
        bench = load(name)
        block = bench.table(result)
        if hasattr(bench, "plot"):
            image = path.with_suffix(".png")
            bench.plot(result, image)
            link = Path(os.path.relpath(image, readme.parent)).as_posix()
            block += f"\n\n![{name}]({link})"
        text = replace_block(text, name, block)
        names.append(name)
    if applications:
        text = replace_block(text, "applications", applications_table(applications))
        names.append("applications")
    readme.write_text(text)
    return names
