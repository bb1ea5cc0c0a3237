"""Fast kernels: functions of arrays. Numba is imported when the first one is asked for."""

from __future__ import annotations

import importlib
from typing import Any

# Where each public name lives. Importing this package stays quick: `import numba` takes 0.3 s.
_HOME = {
    "ACTIVATIONS": "names",
    "activation_backward": "activations",
    "activation_forward": "activations",
    "additive_scores_backward": "attention",
    "additive_scores_forward": "attention",
    "as_kernel_array": "arrays",
    "aligned_empty": "arrays",
    "attend_backward": "attention",
    "attend_forward": "attention",
    "average_pool_backward": "pooling",
    "average_pool_forward": "pooling",
    "bag_backward": "embedding",
    "bag_forward": "embedding",
    "ctc_loss": "ctc",
    "dense_backward": "dense",
    "dense_forward": "dense",
    "dense_rows": "dense",
    "pack_dense": "packing",
    "dot_scores_backward": "attention",
    "dot_scores_forward": "attention",
    "embedding_backward": "embedding",
    "embedding_forward": "embedding",
    "gru_backward": "gru",
    "gru_forward": "gru",
    "gru_step": "gru",
    "pack_gru": "gru",
    "gru_sequence": "stream",
    "gru_stream": "stream",
    "lstm_sequence": "stream",
    "lstm_stream": "stream",
    "open_stream": "stream",
    "simple_rnn_sequence": "stream",
    "simple_rnn_stream": "stream",
    "stream_runner": "stream",
    "lstm_backward": "lstm",
    "lstm_forward": "lstm",
    "pack_lstm": "lstm",
    "max_pool_backward": "pooling",
    "max_pool_forward": "pooling",
    "normalization_backward": "normalization",
    "normalization_forward": "normalization",
    "pack_simple_rnn": "simple_rnn",
    "simple_rnn_backward": "simple_rnn",
    "simple_rnn_forward": "simple_rnn",
    "sample_ids": "sampling",
    "top_candidates": "sampling",
    "perform": "recording",
    "recorded": "recording",
    "replay": "recording",
    "get_num_threads": "threads",
    "set_num_threads": "threads",
    "binary_crossentropy": "softmax",
    "categorical_crossentropy": "softmax",
    "log_softmax_forward": "softmax",
    "softmax_backward": "softmax",
    "softmax_forward": "softmax",
    "sparse_categorical_crossentropy": "softmax",
    "adam_update": "update",
    "all_finite": "update",
    "average_update": "update",
    "clear": "update",
    "places_of": "update",
    "rmsprop_update": "update",
    "sgd_update": "update",
    "sums_of_squares": "update",
}
__all__ = sorted(_HOME)


def versions() -> dict[str, str]:
    """Return the versions of what compiles the kernels."""
    import llvmlite
    import numba

    return {"numba": numba.__version__, "llvmlite": llvmlite.__version__}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on its first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
