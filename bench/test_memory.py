"""What is counted of memory, and that one array more would be seen."""

from __future__ import annotations

import numpy as np
import pytest

import fastgru.kernels
from bench import memory
from fastgru.kernels import arrays


def test_an_array_more_in_the_backward_pass_is_seen(monkeypatch):
    counted = memory.count("b32_mid")
    assert counted["kept_per_step"] == counted["kept_goal"] == 5 * 256
    spare = counted["dx_bytes"] + counted["one_more_bytes"]
    assert counted["dx_bytes"] <= counted["backward_bytes"] < spare

    backward = fastgru.kernels.gru_backward

    def wasteful(dy, dh_last, x, *rest):
        another = np.empty(x.shape, x.dtype)
        results = backward(dy, dh_last, x, *rest)
        del another
        return results

    monkeypatch.setattr(fastgru.kernels, "gru_backward", wasteful)
    for loans in (arrays._kept, arrays._loans):
        loans.clear()  # what the first count gave back
    assert memory.count("b32_mid")["backward_bytes"] >= spare


def test_peaks_are_measured_and_a_missing_peer_is_reported(monkeypatch):
    monkeypatch.setattr(memory, "CONTENDERS", ("fastgru", "numpy", "peer"))
    call = memory.processes.call

    def call_unless_absent(function, *arguments, **options):
        if arguments[0] == "peer":
            return {"missing": "No module named 'peer'"}
        return call(function, *arguments, **options)

    monkeypatch.setattr(memory.processes, "call", call_unless_absent)
    result = memory.run(quick=True, threads=1, names=["b32_mid"])
    (row,) = result["rows"]
    for question in ("inference", "training"):
        for contender in ("fastgru", "numpy"):
            assert row[question][contender]["bytes"] > row[question][contender]["results_bytes"]
    # 4H + H floats per step and row cannot hide.
    assert row["training"]["fastgru"]["bytes"] > 4 * 32 * 100 * 5 * 256
    assert "peer is missing: No module named 'peer'." in memory.table(result)


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="names: expected some of b32_mid, b128_mid; given b2"):
        memory.run(quick=True, threads=1, names=["b2"])
