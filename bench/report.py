"""Turn results into the tables of the README: no number there is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELS = {"fastgru": "fastgru", "numpy": "NumPy"}


def label(contender: str) -> str:
    """Return a contender's name as people write it."""
    return LABELS.get(contender, contender)


def _digits(value: float) -> str:
    """Write three significant digits: 61.2, 1260, 129000 as 129,000."""
    if value >= 1000:
        step = 10 ** (len(str(int(value))) - 3)
        return f"{round(value / step) * step:,}"
    return f"{value:.3g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Align a Markdown table, so that it reads well in a terminal too; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def ratio(timings: dict[str, Any]) -> float | None:
    """Return how many times longer the fastest other contender takes than fastgru."""
    others = [timing["best_us"] for name, timing in timings.items() if name != "fastgru"]
    return min(others) / timings["fastgru"]["best_us"] if others else None


def machine_line(result: dict[str, Any]) -> str:
    """Say in one line what was measured on what."""
    m, rates = result["machine"], result["gflops"]
    threads = m["threads"]
    return (
        f"{m['cpu']}, {m['vector_bits']}-bit vectors, {threads} thread{'s' * (threads != 1)} "
        f"for every library; FMA peak {rates[f'fma_{threads}']:.0f} GFLOP/s. "
        f"fastgru {m['fastgru']}, Numba {m['numba']}, NumPy {m['numpy']} "
        f"({m['blas']['name']} {m['blas']['version']}, {rates['blas']:.0f} GFLOP/s), "
        f"Python {m['python']}, {m['system']}; {m['date'][:10]}."
    )


def command(result: dict[str, Any]) -> str:
    """Return the command that makes a result again."""
    quick = " --quick" * result["quick"]
    return f"python -m bench {result['bench']} --threads {result['machine']['threads']}{quick}"


def render_kernels(result: dict[str, Any]) -> str:
    """Render the cells of `bench.kernels`: best times of a call, and how far from the limit."""
    contenders, missing = result["contenders"], result["missing"]
    present = [name for name in contenders if name not in missing]
    versus = label(present[1]) if len(present) == 2 else "best other"
    header = ["B, T, I, H"]
    for question in ("inference", "training"):
        header += [f"{question} {label(name)} us" for name in contenders]
        header += [f"{versus} / fastgru", "of FMA peak"]
    rows = []
    for cell in result["cells"]:
        row = [", ".join(str(cell[d]) for d in "BTIH")]
        for question in ("inference", "training"):
            timings = cell[question]
            row += [
                _digits(timings[name]["best_us"]) if name in timings else "missing"
                for name in contenders
            ]
            times = ratio(timings)
            row += [
                f"{times:.1f}" if times else "-",
                f"{timings['fastgru']['peak_share']:.0%}",
            ]
        rows.append(row)
    unsettled = [
        f"{cell['name']} {question}"
        for cell in result["cells"]
        for question in ("inference", "training")
        if not all(timing["settled"] for timing in cell[question].values())
    ]
    notes = [
        "Best time of one call in microseconds, float32, all libraries in turn in one run, after "
        "a check that results agree. Training = forward, full backward, all gradients, weights "
        "packed anew.",
        machine_line(result),
    ]
    if unsettled:
        notes.append(f"The machine was busy; times did not settle in: {', '.join(unsettled)}.")
    if missing:
        notes.append(f"Not installed: {', '.join(map(label, missing))}.")
    return f"{_table(header, rows)}\n\n" + "\n".join(notes) + f"\nMade by `{command(result)}`."


RENDERERS = {"kernels": render_kernels}


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


def write_report(results: list[Path], readme: Path) -> None:
    """Rewrite the README's tables from the results; leave it alone unless all can be written.

    Raises
    ------
    ValueError
        If the README lacks the markers of a result.
    OSError
        If a result or the README cannot be read.
    """
    text = readme.read_text()
    for path in results:
        result = json.loads(path.read_text())
        name = result["bench"]
        text = replace_block(text, name, RENDERERS[name](result))
    readme.write_text(text)
