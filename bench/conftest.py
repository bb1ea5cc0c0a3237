"""Equal threads for all libraries, set before NumPy is imported: as when `bench` runs alone."""

import sys

from bench import common

if "numpy" not in sys.modules:
    common.prepare_environment(common.default_threads())
