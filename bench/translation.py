"""`Translator` beside its twin in PyTorch: same network, weights, batches; time and loss of a step.

python -m bench.translation PREFIX --source de --target en

The files are those of examples/translation.py. Both take turns of so many steps, so that what else
the machine does meets both. Dropout differs in its draws alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import default_threads, machine, prepare_environment

TURN = 10  # steps


def ours(translator: Any, steps: int) -> Callable[[Any], float]:
    """Return a function that trains the translator on a batch and returns the loss."""
    from fastgru import optimizers, schedules
    from fastgru.layers import Dropout
    from fastgru.translation import CLIP, EPSILON

    rate = schedules.PolynomialDecay(translator.learning_rate, steps, 0.0)
    optimizer = optimizers.Adam(rate, epsilon=EPSILON, global_clipnorm=CLIP)
    dropout = Dropout(translator.dropout, seed=0) if translator.dropout else None
    return lambda batch: translator._train(batch, dropout, optimizer)


def twin(translator: Any, steps: int) -> Callable[[Any], float]:
    """Return the same in PyTorch, with a copy of the weights."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    H, rate = translator.units, translator.dropout
    source, encoder, bridge, decoder, attention, combine, output = (
        [torch.tensor(w) for w in layer.get_weights()] for layer in translator._layers()
    )

    def gru(*directions: list[torch.Tensor]) -> nn.GRU:
        module = nn.GRU(
            directions[0][0].shape[0], H, batch_first=True, bidirectional=len(directions) > 1
        )
        for suffix, weights in zip(("", "_reverse"), directions, strict=False):
            # Keras' order of the gates is z, r, n.
            z, r, n = zip(*(torch.split(w, H, dim=-1) for w in weights), strict=True)
            kernel, recurrent, bias = (
                torch.cat(gates, dim=-1) for gates in zip(r, z, n, strict=True)
            )
            for name, value in (
                ("weight_ih", kernel.T), ("weight_hh", recurrent.T),
                ("bias_ih", bias[0]), ("bias_hh", bias[1]),
            ):  # fmt: skip
                getattr(module, f"{name}_l0{suffix}").data.copy_(value)
        return module

    def linear(kernel: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
        module = nn.Linear(*kernel.shape, bias=bias is not None)
        module.weight.data.copy_(kernel.T)
        if bias is not None:
            module.bias.data.copy_(bias)
        return module

    net = nn.ModuleDict({
        "source": nn.Embedding.from_pretrained(source[0], freeze=False),
        "encoder": gru(encoder[:3], encoder[3:]),
        "bridge": linear(*bridge),
        "decoder": gru(decoder),
        "attention": linear(*attention),
        "combine": linear(*combine),
        "output": linear(*output),
    })  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=translator.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def train(batch: Any) -> float:
        x, y, labels, mask, lengths = (
            torch.tensor(np.ascontiguousarray(a))
            for a in (batch.sources, batch.inputs, batch.labels, batch.mask, batch.lengths)
        )
        x = F.dropout(net["source"](x), rate)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        packed, ends = net["encoder"](packed)
        memory = F.dropout(nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0], rate)
        state = torch.tanh(net["bridge"](torch.cat(list(ends), dim=1)))
        y = F.dropout(F.embedding(y, net["output"].weight), rate)
        hidden, _ = net["decoder"](y, state[None])
        scores = net["attention"](hidden) @ memory.transpose(1, 2)
        outside = torch.arange(memory.shape[1]) >= lengths[:, None]
        weights = scores.masked_fill(outside[:, None], -torch.inf).softmax(dim=-1)
        both = torch.cat([hidden, weights @ memory], dim=-1)[mask]
        logits = net["output"](F.dropout(torch.tanh(net["combine"](both)), rate))
        loss = F.cross_entropy(logits, labels, label_smoothing=translator.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.item()

    return train


def compare(translator: Any, batches: list[Any], steps: int) -> dict[str, Any]:
    """Train both by turns; return the times and losses of all steps."""
    contenders = {"fastgru": ours(translator, steps), "pytorch": twin(translator, steps)}
    measured: dict[str, Any] = {name: {"seconds": [], "losses": []} for name in contenders}
    for start in range(0, len(batches), TURN):
        for name, train in contenders.items():
            for batch in batches[start : start + TURN]:
                begin = time.perf_counter()
                measured[name]["losses"].append(train(batch))
                measured[name]["seconds"].append(time.perf_counter() - begin)
    return measured


def main() -> None:
    """Read the files, compare, and print what a step takes."""
    parser = argparse.ArgumentParser(prog="python -m bench.translation", description=__doc__)
    parser.add_argument("data", metavar="PREFIX")
    parser.add_argument("--source", default="de")
    parser.add_argument("--target", default="en")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    prepare_environment(options.threads)

    import numpy as np
    import torch

    import fastgru as fg

    sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
    from translation import sentences

    torch.set_num_threads(options.threads)
    translator = fg.Translator(batch_size=64, seed=0)
    pairs = sentences(options.data, "train", (options.source, options.target))
    ids = translator._prepare(translator._pairs(*pairs), np.random.default_rng(0))
    batches = list(translator._batches(*ids, np.random.default_rng(0)))
    measured = compare(translator, batches[: options.steps], translator.epochs * len(batches))
    for name, found in measured.items():
        warm = found["seconds"][TURN:]
        median = statistics.median(warm)
        print(
            f"{name}: {median:.3f} s a step, {3600 / (median * len(batches)):.1f} epochs an hour, "
            f"loss of the last {TURN} steps {statistics.mean(found['losses'][-TURN:]):.3f}"
        )
    print(json.dumps({"machine": machine(options.threads), **measured}))


if __name__ == "__main__":
    main()
