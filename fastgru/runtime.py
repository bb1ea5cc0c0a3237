"""What this installation runs on, and compiling its kernels ahead of time."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastgru._version import __version__
from fastgru.validation import float_dtype


def warmup(dtypes: str | Iterable[str] = ("float32", "float64")) -> None:
    """Compile every kernel, or load it from the disk cache, so that no later call has to.

    Only a user's own compiled code is left to its first use.

    Parameters
    ----------
    dtypes : str or iterable of str
        The dtypes to compile for: ``"float32"``, ``"float64"``.

    Raises
    ------
    ValueError
        If another dtype is given.
    """
    from fastgru.kernels.threads import always_sharing

    # Not from `generator`: warming up must not change what a seeded program does later.
    random = np.random.default_rng(0)
    single = isinstance(dtypes, str) or not isinstance(dtypes, Iterable)
    wanted = [float_dtype(dtype) for dtype in ([dtypes] if single else dtypes)]
    for dtype, sharing in itertools.product(wanted, (False, True)):
        x = random.normal(size=(4, 3, 2)).astype(dtype)
        with always_sharing(sharing):
            _use_layers(x, {"dtype": dtype.name, "seed": 0})
            _use_training(np.ones((4, 3), dtype) / 3)
            _use_decoding(np.ones((4, 3), dtype) / 3)


def _use_layers(x: np.ndarray, options: dict[str, Any]) -> None:
    """Run every layer forward and backward on x (4, 3, 2), and what can be replayed again."""
    from fastgru import kernels
    from fastgru.attention import SCORES, Attention
    from fastgru.bags import EmbeddingBag
    from fastgru.layers import ACTIVATIONS, Dense, Embedding, Layer
    from fastgru.normalization import LayerNormalization
    from fastgru.pooling import GlobalAveragePooling1D, GlobalMaxPooling1D
    from fastgru.recurrent import CELLS, GRU

    def repeated(layer: Layer, x: np.ndarray) -> np.ndarray:
        with kernels.recorded() as noted:
            y, backward = layer.forward(x)
            backward(y)
        noted.prepare()
        noted.replay()
        return y

    layer: Layer
    kinds: list[tuple[Any, dict[str, Any]]] = [(kind, {}) for kind in CELLS.values()]
    for kind, own in [*kinds, (GRU, {"reset_after": False})]:
        # Code without a dropout, or a reset before, knows nothing of it: each has its kernels.
        y, backward = kind(70, recurrent_dropout=0.5, **own, **options).forward(x)
        backward(y)
        layer = kind(70, **own, **options)
        repeated(layer, x)
        layer(x, lengths=[1, 2, 3, 0])
        layer.stream(4)(x[:, 0])
    repeated(Embedding(9, 3, **options), np.arange(8))
    y, backward = EmbeddingBag(9, 3, **options).forward(np.arange(8).reshape(4, 2))
    backward(y)
    for activation in (*ACTIVATIONS, "softmax"):
        y = repeated(Dense(70, activation, **options), x)
    for score in SCORES:
        layer = Attention(score, **options)
        z, backward = layer.forward(x, lengths=[1, 2, 3, 0], query=x)
        backward(z)
    z, backward = LayerNormalization(**options).forward(y)
    backward(z)
    for pooling in (GlobalAveragePooling1D, GlobalMaxPooling1D):
        repeated(pooling(**options), y)


def _use_training(p: np.ndarray) -> None:
    """Run every loss, metric and optimizer on probabilities p (4, 3)."""
    from fastgru import kernels, losses, metrics, optimizers

    one_hot = np.eye(4, 3).astype(p.dtype)
    for name, target in (
        ("mse", one_hot),
        ("binary_crossentropy", one_hot),
        ("categorical_crossentropy", p),
        ("sparse_categorical_crossentropy", np.arange(4) % 3),
    ):
        loss = losses.get(name)
        loss(target, p)
        if loss.fused_activation:
            loss.fused(target, p)
        metrics.get("accuracy", loss).update(target, p)
    losses.CTC()([[1], [], [2], [1]], p[:, None])
    for optimizer in (
        optimizers.SGD(),
        optimizers.SGD(momentum=0.5, nesterov=True),
        optimizers.Adam(global_clipnorm=1.0),
        optimizers.Adam(clipnorm=1.0),
        optimizers.Adam(clipvalue=1.0),
        optimizers.RMSprop(centered=True, momentum=0.5),
        optimizers.SGD(use_ema=True, gradient_accumulation_steps=1),
    ):
        optimizer.apply([p.copy()], [p.copy()])
    kernels.clear(kernels.places_of([p.copy()], [p.copy()]))


def _use_decoding(scores: np.ndarray) -> None:
    """Run what chooses ids, on scores (4, 3)."""
    from fastgru import decoding

    decoding.sample(scores, generator=np.random.default_rng(0))
    log_probabilities = decoding.log_softmax(scores)
    decoding.ctc_beam_search(log_probabilities)
    decoding.beam_search(lambda ids, state: (log_probabilities[ids], state), None, [0], 2)


def configuration() -> dict[str, object]:
    """Return versions, CPU, vector width, threads and the folder of compiled kernels."""
    from fastgru import kernels
    from fastgru.kernels.jit import kernel_cache
    from fastgru.kernels.threads import get_num_threads
    from fastgru.kernels.width import SIMD_WIDTH

    return {
        "fastgru": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **kernels.versions(),
        "platform": platform.platform(),
        "float32 per vector": SIMD_WIDTH,
        "threads": get_num_threads(),
        "compiled kernels": str(kernel_cache() or "in memory only"),
    }


def show_config() -> None:
    """Print what this installation runs on."""
    for name, value in configuration().items():
        print(f"{name:20} {value}")
