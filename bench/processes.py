"""Python in fresh processes, for questions about one: its start, its memory, its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import THREAD_VARIABLES

ROOT = Path(__file__).parent.parent
# FASTGRU_NUM_THREADS would hold for the workers of pools too, which have one thread by default.
VARIABLES = [name for name in THREAD_VARIABLES if name != "FASTGRU_NUM_THREADS"]


class ChildError(RuntimeError):
    """A child process failed, was killed, or did not end in time."""


def start(*arguments: str, threads: int, **environment: str) -> subprocess.Popen[str]:
    """Start Python with all libraries set to some threads, and with more environment."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # An installed package has its bytecode beside it, which pip has written.
    left_out = "FASTGRU_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"
    inherited = {k: v for k, v in os.environ.items() if k not in left_out}
    settings = {name: str(threads) for name in VARIABLES}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=inherited | {"PYTHONPATH": path} | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float) -> str:
    """Wait for a child; return what it printed, or raise `ChildError` with all that it said."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise ChildError(f"not done after {timeout:g} s: {output}{errors}") from None
    if process.returncode != 0:
        raise ChildError(f"ended with {process.returncode}: {output}{errors}")
    return output


def start_call(
    function: Callable[..., Any], *arguments: Any, threads: int, **environment: str
) -> subprocess.Popen[str]:
    """Start a process that calls a function of a module; see `result_of`."""
    code = (
        f"import json, sys; from {function.__module__} import {function.__name__} as function; "
        "print(json.dumps(function(*json.loads(sys.argv[1]))))"
    )
    return start("-c", code, json.dumps(arguments), threads=threads, **environment)


def result_of(process: subprocess.Popen[str], timeout: float) -> Any:
    """Return what the function of `start_call` returned; whatever it printed before is ignored."""
    return json.loads(finish(process, timeout).splitlines()[-1])


def call(
    function: Callable[..., Any], *arguments: Any, threads: int, timeout: float, **environment: str
) -> Any:
    """Call a function of a module in a process of its own; arguments and result are JSON."""
    return result_of(start_call(function, *arguments, threads=threads, **environment), timeout)


def resident_bytes(peak: bool = False) -> int:
    """Return how much memory this process occupies, or did at most since `forget_peak`."""
    key = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} in /proc/self/status")


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5")
