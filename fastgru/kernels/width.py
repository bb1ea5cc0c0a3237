"""How many float32 values one vector register of this CPU holds."""

from __future__ import annotations

import os

WIDTHS = (4, 8, 16)


def _detect() -> int:
    override = os.environ.get("FASTGRU_SIMD_WIDTH")
    if override:
        if override not in map(str, WIDTHS):
            raise ValueError(f"FASTGRU_SIMD_WIDTH: expected 4, 8 or 16, given {override!r}")
        return int(override)
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


# Twice as many bytes as registers have is legal (LLVM splits the vectors), only slower.
SIMD_WIDTH = _detect()
