"""The network of Translator and its twin in PyTorch learn alike."""

from __future__ import annotations

import numpy as np
import pytest

import fastgru as fg
from bench import translation

pytest.importorskip("torch")


def test_the_twin_has_the_same_losses():
    random = np.random.default_rng(0)

    def sentence(_):
        return " ".join(f"w{i}" for i in random.integers(15, size=random.integers(1, 7)))

    texts = list(map(sentence, range(40))), list(map(sentence, range(40)))
    settings = {"units": 7, "embedding": 5, "min_count": 1, "dropout": 0.0, "batch_size": 8}
    translator = fg.Translator(**settings, learning_rate=0.01, seed=0)
    ids = translator._prepare(translator._pairs(*texts), random)
    batches = list(translator._batches(*ids, random))
    measured = translation.compare(translator, batches, 50)
    losses = [found["losses"] for found in measured.values()]
    assert len(losses[0]) == 5 and losses[0][4] < losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-4)
