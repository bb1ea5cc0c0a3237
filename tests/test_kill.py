"""A training run that is killed and started again, over and over, ends with the same bits."""

import json
import random
import shutil
import signal
import sys
import time

import pytest
from children import finish, start

TRAIN = """
import json, sys
import numpy as np
import fastgru as fg
from fastgru.callbacks import BackupAndRestore, CSVLogger, EarlyStopping, ModelCheckpoint

folder = sys.argv[1]
fg.set_random_seed(7)
data = np.random.default_rng(0)
x = data.normal(size=(90, 12, 3)).astype("float32")
y = (x[:, :, 0].sum(axis=1, keepdims=True) > 0).astype(int)
model = fg.Sequential(
    [
        fg.GRU(24, return_sequences=True), fg.Dropout(0.3), fg.Bidirectional(fg.GRU(16)),
        fg.Dropout(0.2), fg.Dense(1, "sigmoid"),
    ]
)
model.compile(fg.optimizers.Adam(0.003), "binary_crossentropy", ["accuracy"])
callbacks = [
    EarlyStopping(patience=6, restore_best_weights=True),
    CSVLogger(f"{folder}/log.csv"),
    ModelCheckpoint(f"{folder}/best.safetensors", save_best_only=True),
    BackupAndRestore(f"{folder}/backup.safetensors", save_freq=3),
]
model.predict(x[:2])
print("training", flush=True)
history = model.fit(
    x, y, batch_size=8, epochs=40, validation_split=0.2, weight_noise=0.02, verbose=0,
    callbacks=callbacks,
)
model.save(f"{folder}/final.safetensors")
with open(f"{folder}/history.json", "w") as file:
    json.dump([history.epoch, history.history], file)
print("done", flush=True)
"""


def begin(folder):
    """Start training in a folder; return when it has come to `fit`."""
    child = start("-c", TRAIN, str(folder))
    assert child.stdout.readline() == "training\n", child.communicate()[1]
    return child


def results(folder):
    """Return the bytes of all files that a finished run leaves."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, kills):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    child = begin(whole)
    before = time.perf_counter()
    finish(child)
    # Some of a run: several kills come before its end, and some of them while it writes.
    longest = (time.perf_counter() - before) / 4
    want = results(whole)
    assert set(want) == {"log.csv", "best.safetensors", "final.safetensors", "history.json"}
    assert len(json.loads(want["history.json"])[0]) > 7

    moments = random.Random(kills)
    killed = runs = 0
    while killed < kills or runs == 0:
        if not folder.exists():
            folder.mkdir()
        child = begin(folder)
        if killed < kills:
            time.sleep(moments.uniform(0, longest))
            child.kill()
            child.communicate()
        else:
            finish(child)
        if child.returncode == -signal.SIGKILL:
            killed += 1
            continue
        assert child.returncode == 0
        runs += 1
        assert results(folder) == want
        shutil.rmtree(folder)
