"""Run the benchmarks: `python -m bench [kernels] [--quick]`, then `python -m bench report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.common import (
    RESULTS,
    DisagreementError,
    default_threads,
    prepare_environment,
    write_json,
)
from bench.report import RENDERERS, write_report

README = Path(__file__).parent.parent / "README.md"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what", nargs="?", default="kernels", choices=[*RENDERERS, "report"],
        help="what to measure, or report: write the results into README.md",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    parser.add_argument("--cells", help="names of cells, separated by commas; default: all")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", type=Path, help="default: bench/results/NAME.json")
    parser.add_argument("--readme", type=Path, default=README, help="which file report rewrites")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error("--threads: expected a positive number")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    options = parse(arguments)
    path = options.json or RESULTS / "kernels.json"
    if options.what == "report":
        try:
            write_report([path], options.readme)
        except (OSError, ValueError) as error:
            print(f"bench report: {error}; nothing written", file=sys.stderr)
            return 1
        print(f"{options.readme} <- {path}")
        return 0
    prepare_environment(options.threads)
    from bench import kernels

    try:
        result = kernels.run(
            quick=options.quick,
            names=options.cells.split(",") if options.cells else None,
            threads=options.threads,
        )
    except (DisagreementError, ValueError) as error:
        print(f"bench {options.what}: {error}", file=sys.stderr)
        return 1
    write_json(result, path)
    print(RENDERERS[options.what](result))
    print(f"\n-> {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
