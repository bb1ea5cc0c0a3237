"""Python in a process of its own, for tests that end one, or need another environment."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def start(*arguments, cwd=TESTS.parent, **environment):
    """Start Python in a folder of the package and the tests' modules, with more environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    path = os.pathsep.join([str(TESTS), str(cwd), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": path} | {k: str(v) for k, v in environment.items()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=300):
    """Wait for a child; return what it printed, or fail with all that it said."""
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, output + errors
    return output
