"""Run the benchmarks: `python -m bench [NAME ...] [--quick]`, then `python -m bench report`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from bench.common import (
    RESULTS,
    DisagreementError,
    default_threads,
    prepare_environment,
    write_json,
)
from bench.registry import BENCHES, load
from bench.report import write_report

README = Path(__file__).parent.parent / "README.md"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", default=[],
        help=f"what to measure, by default all of {', '.join(BENCHES)}; or report: write the "
        "results into README.md",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="all of it within three minutes")
    parser.add_argument("--cells", help="names of rows, separated by commas; default: all")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of NAME.json")
    parser.add_argument("--readme", type=Path, default=README, help="which file report rewrites")
    options = parser.parse_args(arguments)
    options.names = options.names or list(BENCHES)
    if options.threads < 1:
        parser.error("--threads: expected a positive number")
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown and options.names != ["report"]:
        parser.error(
            f"NAME: expected some of {', '.join(BENCHES)}, or report alone; "
            f"given {', '.join(unknown)}"
        )
    if options.cells and len(options.names) > 1:
        parser.error("--cells: expected one NAME, whose rows they are")
    return options


def measure(name: str, options: argparse.Namespace) -> int:
    """Run one benchmark, write and print its result; return the exit status."""
    prepare_environment(options.threads)
    begin = time.perf_counter()
    bench = load(name)
    try:
        result = bench.run(
            quick=options.quick,
            threads=options.threads,
            names=options.cells.split(",") if options.cells else None,
        )
    except (DisagreementError, ValueError) as error:
        print(f"bench {name}: {error}", file=sys.stderr)
        return 1
    path = options.results / f"{name}.json"
    write_json(result, path)
    seconds = time.perf_counter() - begin
    print(f"{bench.table(result)}\n\n-> {path}, in {seconds:.0f} s\n", flush=True)
    return 0


def measure_all(options: argparse.Namespace) -> int:
    """Run each benchmark in a process of its own: no library meets the threads of another's."""
    failed = False
    for name in options.names:
        command = [sys.executable, "-m", "bench", name, "--threads", str(options.threads)]
        command += ["--results", str(options.results), *["--quick"] * options.quick]
        failed |= subprocess.run(command, check=False).returncode != 0
    return int(failed)


def report(options: argparse.Namespace) -> int:
    """Write all results into the README; return the exit status."""
    paths = [options.results / f"{name}.json" for name in BENCHES]
    try:
        applications = list((options.results / "applications").glob("*.json"))
        written = write_report([p for p in paths if p.exists()], options.readme, applications)
    except (OSError, ValueError, ImportError) as error:
        print(f"bench report: {error}; {options.readme} has not changed", file=sys.stderr)
        return 1
    print(f"{options.readme} <- {', '.join(written)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    options = parse(arguments)
    if options.names == ["report"]:
        return report(options)
    if len(options.names) == 1:
        return measure(options.names[0], options)
    return measure_all(options)


if __name__ == "__main__":
    sys.exit(main())
