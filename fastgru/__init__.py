"""Gated recurrent networks on CPUs, at the speed of the hardware.

>>> import numpy as np
>>> import fastgru as fg
>>> fg.set_random_seed(0)
>>> model = fg.Sequential([fg.Embedding(100, 16), fg.GRU(8), fg.Dense(1, activation="sigmoid")])
>>> model.predict(np.array([[3, 14, 15], [9, 26, 5]])).shape
(2, 1)
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from fastgru import (
    audio,
    callbacks,
    data,
    datasets,
    decoding,
    explain,
    initializers,
    language,
    losses,
    metrics,
    optimizers,
    regularizers,
    robust,
    schedules,
    speech,
    text,
    translation,
)
from fastgru._version import __version__
from fastgru.attention import Attention
from fastgru.bags import EmbeddingBag
from fastgru.classification import TextClassifier
from fastgru.data import pad_sequences
from fastgru.elementwise import Activation, SpatialDropout1D
from fastgru.errors import FileFormatError, NonFiniteError
from fastgru.history import History
from fastgru.language import LanguageModel
from fastgru.layers import Dense, Dropout, Embedding, Layer
from fastgru.masking import Masking
from fastgru.model import Sequential, load_model
from fastgru.normalization import LayerNormalization
from fastgru.pooling import (
    GlobalAveragePooling1D,
    GlobalMaxAveragePooling1D,
    GlobalMaxPooling1D,
)
from fastgru.random import set_random_seed
from fastgru.recurrent import GRU, LSTM, Bidirectional, SimpleRNN
from fastgru.runtime import show_config, warmup
from fastgru.speech import SpeechRecognizer
from fastgru.text import Tokenizer
from fastgru.translation import Translator
from fastgru.wrappers import TimeDistributed

__all__ = [
    "GRU",
    "LSTM",
    "Activation",
    "Attention",
    "Bidirectional",
    "Dense",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "FileFormatError",
    "GlobalAveragePooling1D",
    "GlobalMaxAveragePooling1D",
    "GlobalMaxPooling1D",
    "History",
    "LanguageModel",
    "Layer",
    "LayerNormalization",
    "Masking",
    "NonFiniteError",
    "Sequential",
    "SimpleRNN",
    "SpatialDropout1D",
    "SpeechRecognizer",
    "TextClassifier",
    "TimeDistributed",
    "Tokenizer",
    "Translator",
    "__version__",
    "audio",
    "callbacks",
    "data",
    "datasets",
    "decoding",
    "explain",
    "get_num_threads",
    "initializers",
    "language",
    "load_model",
    "losses",
    "metrics",
    "optimizers",
    "pad_sequences",
    "regularizers",
    "robust",
    "schedules",
    "set_num_threads",
    "set_random_seed",
    "show_config",
    "speech",
    "text",
    "translation",
    "warmup",
]


def get_num_threads() -> int:
    """Return how many threads the kernels may use."""
    from fastgru import kernels

    return kernels.get_num_threads()


def set_num_threads(n: int) -> None:
    """Set how many threads the kernels may use; no bit of a result depends on it.

    Raises
    ------
    ValueError
        If `n` is not a positive integer.
    """
    from fastgru import kernels

    kernels.set_num_threads(n)


if not TYPE_CHECKING:  # for which any name would exist

    def _say_names(module: ModuleType) -> None:
        """Let a module say which names there are, where one is asked for that does not exist."""
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        ]

        def __getattr__(name: str) -> None:
            from fastgru.validation import one_of

            try:
                one_of(module.__name__, name, names)
            except ValueError as error:
                raise AttributeError(str(error), name=name) from None

        module.__getattr__ = __getattr__

    for _module in (
        sys.modules[__name__],
        audio, callbacks, data, datasets, decoding, explain, initializers, language, losses,
        metrics, optimizers, regularizers, robust, schedules, speech, text, translation,
    ):  # fmt: skip
        _say_names(_module)
