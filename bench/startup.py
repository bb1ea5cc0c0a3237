"""How long a program waits for its first results: import, inference, training step.

Every sample is a whole process. The import is timed inside; all else from starting the interpreter
until the result arrives here. The model is one for sentences, large enough for its kernels to run
in parallel, so that all is compiled or loaded that a user's first batch needs. Checked are the
results against NumPy, that an empty cache is filled, and that nothing is added to a full one.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.common import DisagreementError, check_close, machine
from bench.processes import finish, start
from bench.report import command_line, digits, machine_line, markdown, missing_line

TIMEOUT_S = 300
B, T, V, I, H = 32, 100, 6000, 64, 128

_BATCH = f"ids = np.random.default_rng(0).integers(1, {V}, ({B}, {T}))\n"
_TARGET = f"target = (np.arange({B}) % 2).astype('float32')\n"
_FASTGRU = f"""\
import json, time
begin = time.perf_counter()
import fastgru as fg
import_s = time.perf_counter() - begin
import numpy as np
{_BATCH}{_TARGET}
fg.set_random_seed(0)
model = fg.Sequential([fg.Embedding({V}, {I}), fg.GRU({H}), fg.Dense(1, "sigmoid")])
"""
_PYTORCH = f"""\
import json, time
begin = time.perf_counter()
import torch
import_s = time.perf_counter() - begin
import numpy as np
{_BATCH}{_TARGET}
torch.manual_seed(0)
embedding, gru = torch.nn.Embedding({V}, {I}), torch.nn.GRU({I}, {H}, batch_first=True)
dense, target = torch.nn.Linear({H}, 1), torch.from_numpy(target)
def predict():
    return torch.sigmoid(dense(gru(embedding(torch.from_numpy(ids)))[1][0]))[:, 0]
"""
_TELL = "print(json.dumps([import_s, result]), flush=True)\n"

PROGRAMS = {
    ("fastgru", "import"): "import json, time; begin = time.perf_counter(); import fastgru\n"
    "import_s = time.perf_counter() - begin; result = None\n",
    ("fastgru", "inference"): _FASTGRU + "result = model.predict(ids)[:, 0].tolist()\n",
    ("fastgru", "training"): _FASTGRU
    + "model.compile('adam', 'binary_crossentropy')\n"
    + "result = float(np.ravel(model.train_on_batch(ids, target))[0])\n",
    ("pytorch", "import"): "import json, time; begin = time.perf_counter(); import torch\n"
    "import_s = time.perf_counter() - begin; result = None\n",
    ("pytorch", "inference"): _PYTORCH + "with torch.no_grad(): result = predict().tolist()\n",
    ("pytorch", "training"): _PYTORCH
    + "adam = torch.optim.Adam([*embedding.parameters(), *gru.parameters(), *dense.parameters()])\n"
    + "loss = torch.nn.functional.binary_cross_entropy(predict(), target)\n"
    + "loss.backward(); adam.step(); result = loss.item()\n",
}


class Question(NamedTuple):
    """What to measure: the program, whether its cache is empty, and the goal in seconds."""

    name: str
    program: str
    cold: bool
    goal_s: float


QUESTIONS = (
    Question("import", "import", False, 0.3),
    Question("first inference, empty cache", "inference", True, 5.0),
    Question("first training step, empty cache", "training", True, 12.0),
    Question("first inference", "inference", False, 0.8),
    Question("first training step", "training", False, 1.2),
)
RUNS = {"quick": {True: 1, False: 2}, "full": {True: 3, False: 10}}  # by cold


class Sample(NamedTuple):
    """One process: seconds of its import, seconds to its result, and the result."""

    import_s: float
    total_s: float
    result: Any


def measure(library: str, program: str, threads: int, cache: Path) -> Sample:
    """Run a program in a new process; raise if it fails or does not end."""
    code = PROGRAMS[library, program] + _TELL
    begin = time.perf_counter()
    process = start("-c", code, threads=threads, FASTGRU_CACHE_DIR=str(cache))
    assert process.stdout is not None
    line = process.stdout.readline()
    total_s = time.perf_counter() - begin
    finish(process, TIMEOUT_S)
    import_s, result = json.loads(line)
    return Sample(import_s, total_s, result)


def expected(program: str) -> np.ndarray:
    """Return what a program must print, by NumPy in float64 from the weights of the same seed."""
    import fastgru as fg
    from fastgru import reference

    fg.set_random_seed(0)
    ids = np.random.default_rng(0).integers(1, V, (B, T))
    model = fg.Sequential([fg.Embedding(V, I), fg.GRU(H), fg.Dense(1, "sigmoid")])
    model.build((B, T))
    embedding, gru, dense = (
        {name: array.astype(np.float64) for name, array in layer.params.items()}
        for layer in model.layers
    )
    x, h0 = embedding["embeddings"][ids], np.zeros((B, H))
    weights = (gru[k] for k in ("kernel", "recurrent_kernel", "bias", "recurrent_bias"))
    y, _ = reference.gru_forward(x, None, h0, *weights)
    p = 1 / (1 + np.exp(-(y[:, -1] @ dense["kernel"] + dense["bias"])))[:, 0]
    if program == "inference":
        return p
    return np.array(-np.log(np.where(np.arange(B) % 2, p, 1 - p)).mean())


def verify(program: str, sample: Sample) -> None:
    """Raise unless the result is the right one."""
    if program != "import":
        got = np.asarray(sample.result, np.float32)
        check_close(f"first {program}", got, expected(program), terms=T * H)


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def seconds(question: Question, library: str, threads: int, cache: Path) -> float:
    """Return what one process took; raise if its result is wrong, or it compiled unasked."""
    if question.cold:
        shutil.rmtree(cache, ignore_errors=True)
    before = _files(cache)
    sample = measure(library, question.program, threads, cache)
    if library == "fastgru":
        verify(question.program, sample)
        if question.cold != (_files(cache) != before):
            state = "an empty cache did not grow" if question.cold else "a full cache grew"
            raise DisagreementError(f"{question.name}: {state}")
    return sample.import_s if question.program == "import" else sample.total_s


def run(*, quick: bool, threads: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Measure all questions, or those named, in turns; return what JSON can hold."""
    known = {question.name: question for question in QUESTIONS}
    names = list(known) if names is None else list(names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names: expected some of {', '.join(known)}; given {', '.join(unknown)}")
    libraries, missing = ["fastgru"], {}
    try:
        import torch  # noqa: F401

        libraries.append("pytorch")
    except ImportError as error:
        missing["pytorch"] = str(error)
    runs = RUNS["quick" if quick else "full"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            question = known[name]
            # No other library has a cache to fill.
            contenders = ["fastgru"] if question.cold else libraries
            # What an empty cache was filled with is the full one of the questions that follow.
            cache = Path(folder, question.program)
            if not question.cold:
                for library in contenders:
                    measure(library, question.program, threads, cache)
            turns = [
                [seconds(question, library, threads, cache) for library in contenders]
                for _ in range(runs[question.cold])
            ]
            row: dict[str, Any] = {**question._asdict()}
            for library, taken in zip(contenders, zip(*turns, strict=True), strict=True):
                row[library] = {
                    "best_s": round(min(taken), 4),
                    "median_s": round(statistics.median(taken), 4),
                    "samples": len(taken),
                }
            row["met"] = row["fastgru"]["best_s"] <= question.goal_s
            rows.append(row)
    return {
        "bench": "startup",
        "machine": machine(threads),
        "quick": quick,
        "contenders": ["fastgru", "pytorch"],
        "missing": missing,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Render the times beside their goals."""
    header = ["seconds", "fastgru best", "median", "goal", "met", "PyTorch best", "median"]
    rows = []
    for row in result["rows"]:
        cells = [digits(row["fastgru"][key]) for key in ("best_s", "median_s")]
        cells += [f"{row['goal_s']:g}", "yes" if row["met"] else "no"]
        if "pytorch" in result["missing"]:
            cells += ["missing"] * 2
        else:
            peer = row.get("pytorch")
            cells += [digits(peer[key]) if peer else "-" for key in ("best_s", "median_s")]
        rows.append([row["name"], *cells])
    notes = [
        "Import: of `import fastgru` or `import torch` alone. All else: whole processes, from the "
        f"start of the interpreter to the result of Embedding({V}, {I}), GRU({H}), Dense(1) on "
        f"{B} sentences of {T} words; the training step with Adam.",
        machine_line(result),
        missing_line(result),
        command_line(result),
    ]
    return "\n".join([markdown(header, rows), "", *filter(None, notes)])
