"""What this CPU can do: how many float32 values one vector register holds, and scaling by 2^n."""

from __future__ import annotations

import os

WIDTHS = (4, 8, 16)


def _detect() -> int:
    override = os.environ.get("FASTGRU_SIMD_WIDTH")
    if override:
        if override not in map(str, WIDTHS):
            raise ValueError(f"FASTGRU_SIMD_WIDTH: expected 4, 8 or 16, given {override!r}")
        return int(override)
    features = _features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


def _features() -> dict[str, bool]:
    import llvmlite.binding as llvm

    return dict(llvm.get_host_cpu_features())


# Twice as many bytes as registers have is legal (LLVM splits the vectors), only slower.
SIMD_WIDTH = _detect()
# One instruction for x * 2^n; the two products that stand for it elsewhere give the same bits.
HAS_SCALEF = bool(_features().get("avx512f"))
