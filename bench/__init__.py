"""Benchmarks: how fast the kernels are, measured beside NumPy. Run `python -m bench`."""
