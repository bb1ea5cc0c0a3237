"""The command ``fastgru``: what it runs on, and compiling ahead of time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import fastgru


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="fastgru", description=fastgru.__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=fastgru.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="print versions, CPU, threads and the kernels' folder")
    warmup = commands.add_parser("warmup", help="compile all kernels now, into the disk cache")
    warmup.add_argument(
        "--dtype", action="append", choices=("float32", "float64"), help="default: both"
    )
    options = parser.parse_args(arguments)
    if options.command == "info":
        fastgru.show_config()
    else:
        start = time.perf_counter()
        fastgru.warmup(options.dtype or ("float32", "float64"))
        print(f"All kernels are compiled: {time.perf_counter() - start:.1f} s.")
        fastgru.show_config()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
