"""Write the golden files: what other libraries compute for the same weights and inputs.

pip install torch keras librosa python_speech_features onnx onnxruntime
KERAS_BACKEND=torch python tests/golden/make_golden.py

Features of sounds are those of librosa, and of python_speech_features where librosa does not do as
HTK does.

States and their gradients are numbered in the order of fastgru, which is Keras' own: h, then c of
an LSTM; in both directions first all of the forward layer, then all of the backward layer.
"""

import os
import pathlib
from functools import partial

import numpy as np

HERE = pathlib.Path(__file__).parent
B, T, I, H = 3, 5, 4, 6
LENGTHS = np.array([5, 1, 3])
# Keras begins a masked first step with zeros, not with the initial state: there is none, in either
# direction.
MASK = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]], bool)
OPEN_ENDED = MASK & np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)


def inputs(seed, states, *shape_of_y, sizes=(B, T, I, H)):
    random = np.random.default_rng(seed)
    B, T, I, H = sizes
    return {
        "x": random.normal(size=(B, T, I)),
        **{f"initial{i}": random.normal(size=(B, H)) for i in range(states)},
        "dy": random.normal(size=shape_of_y),
        **{f"dlast{i}": random.normal(size=(B, H)) for i in range(states)},
    }


def numbered(name, tensors):
    return {f"{name}{i}": tensor.detach().numpy() for i, tensor in enumerate(tensors)}


def from_torch(
    cell,
    bidirectional,
    num_layers=1,
    sizes=(B, T, I, H),
    lengths=LENGTHS,
    initial=True,
    seed=0,
    **options,
):
    """Return a module's results, for packed sequences where there are lengths, and all gradients.

    States are those of the first layer, then those of the second, and so on.
    """
    import torch

    torch.manual_seed(seed)
    B, T, I, H = sizes
    module = getattr(torch.nn, cell)(
        I, H, num_layers, batch_first=True, bidirectional=bidirectional, dtype=torch.float64,
        **options,
    )  # fmt: skip
    kinds, directions = (2 if cell == "LSTM" else 1), 1 + bidirectional
    places = num_layers * directions
    arrays = inputs(seed + 1, kinds * places, B, T, H * directions, sizes=sizes)
    out = x = torch.tensor(arrays["x"], requires_grad=True)
    given = [torch.tensor(arrays[f"initial{i}"], requires_grad=True) for i in range(kinds * places)]
    stacked = [torch.stack(given[kind::kinds]) for kind in range(kinds)]
    if lengths is not None:
        pack = torch.nn.utils.rnn.pack_padded_sequence
        out = pack(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    begin = (tuple(stacked) if kinds > 1 else stacked[0]) if initial else None
    y, last = module(out, begin)
    last = last if kinds > 1 else [last]
    states = [last[kind][place] for place in range(places) for kind in range(kinds)]
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
    loss = (y * torch.tensor(arrays["dy"])).sum()
    for i, state in enumerate(states):
        loss = loss + (state * torch.tensor(arrays[f"dlast{i}"])).sum()
    loss.backward()
    return {
        **arrays,
        "y": y.detach().numpy(),
        "dx": x.grad.numpy(),
        **numbered("last", states),
        **(numbered("dinitial", [h.grad for h in given]) if initial else {}),
        **{name: p.detach().numpy() for name, p in module.named_parameters()},
        **{f"d{name}": p.grad.numpy() for name, p in module.named_parameters()},
    }


def torch_case(seed, largest):
    """Return options of `from_torch` drawn for a seed, with sizes up to the largest."""
    random = np.random.RandomState(seed)  # which is the same in every NumPy
    cell, nonlinearity = [("GRU", None), ("LSTM", None), ("RNN", "tanh"), ("RNN", "relu")][
        random.randint(4)
    ]
    sizes = tuple(int(size) for size in random.randint(1, largest + 1, 4))
    lengths = random.randint(1, sizes[1] + 1, sizes[0])
    return {
        "cell": cell,
        "bidirectional": bool(random.randint(2)),
        "num_layers": int(random.randint(1, 4)),
        "sizes": sizes,
        "lengths": lengths if random.randint(3) else None,
        "initial": bool(random.randint(2)),
        "seed": seed,
        **({"nonlinearity": nonlinearity} if nonlinearity else {}),
    }


def from_keras(cell, merge_mode=None, return_sequences=True, **options):
    """Return a layer's results for a mask that has holes, and all its gradients."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(2)
    options |= {"return_sequences": return_sequences, "return_state": True, "dtype": "float64"}
    layer = getattr(keras.layers, cell)(H, **options)
    states, width = (2 if cell == "LSTM" else 1), H
    mask = OPEN_ENDED[:, ::-1].copy() if options.get("go_backwards") else OPEN_ENDED
    if merge_mode:
        layer = keras.layers.Bidirectional(layer, merge_mode=merge_mode, dtype="float64")
        states, width, mask = 2 * states, width * (1 + (merge_mode == "concat")), MASK
    arrays = inputs(2, states, B, *[T] * return_sequences, width)
    layer.build((B, T, I))
    random = np.random.default_rng(3)
    weights = [random.normal(size=w.shape) / 2 for w in layer.weights]
    layer.set_weights(weights)
    x = torch.tensor(arrays["x"], requires_grad=True)
    initial = [torch.tensor(arrays[f"initial{i}"], requires_grad=True) for i in range(states)]
    y, *last = layer(x, mask=torch.tensor(mask), initial_state=initial, training=True)
    loss = (y * torch.tensor(arrays["dy"])).sum()
    for i, state in enumerate(last):
        loss = loss + (state * torch.tensor(arrays[f"dlast{i}"])).sum()
    loss.backward()
    return {
        **arrays,
        "mask": mask,
        "y": y.detach().numpy(),
        "dx": x.grad.numpy(),
        **numbered("last", last),
        **numbered("dinitial", [h.grad for h in initial]),
        **{f"w{i}": w for i, w in enumerate(weights)},
        **{f"dw{i}": w.value.grad.numpy() for i, w in enumerate(layer.weights)},
    }


def from_onnxruntime(op, direction, sizes, lengths=None, initial=True, seed=0, **attributes):
    """Return what an operator of ONNX computes in float32, for its weights."""
    import onnx
    import onnxruntime

    random = np.random.default_rng(seed)
    B, T, I, H = sizes
    gates, directions = {"RNN": 1, "GRU": 3, "LSTM": 4}[op], 1 + (direction == "bidirectional")
    shapes = {
        "X": (T, B, I),
        "W": (directions, gates * H, I),
        "R": (directions, gates * H, H),
        "B": (directions, 2 * gates * H),
        "initial_h": (directions, B, H),
        "initial_c": (directions, B, H),
    }
    if op != "LSTM":
        del shapes["initial_c"]
    # Larger weights would make rounding errors grow from step to step.
    arrays = {
        k: random.normal(size=v, scale=v[-1] ** -0.5 if k in "WR" else 0.5).astype(np.float32)
        for k, v in shapes.items()
    }
    feeds = {k: v for k, v in arrays.items() if initial or not k.startswith("initial")}
    if lengths is not None:
        feeds["sequence_lens"] = np.array(lengths, np.int32)
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c")
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (op == "LSTM")]
    make = onnx.helper
    node = make.make_node(
        op, [name if name in feeds else "" for name in order[: len(shapes) + 1]], outputs,
        hidden_size=H, direction=direction, **attributes,
    )  # fmt: skip
    types = {name: make.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    graph = make.make_graph(
        [node],
        op,
        [make.make_tensor_value_info(n, types[n], array.shape) for n, array in feeds.items()],
        [make.make_tensor_value_info(n, types["X"], None) for n in outputs],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return arrays | dict(zip(outputs, session.run(outputs, feeds), strict=True))


def onnx_case(seed, largest):
    """Return options of `from_onnxruntime` drawn for a seed, with sizes up to the largest."""
    random = np.random.RandomState(seed)
    op, options = [
        ("GRU", {"linear_before_reset": 0}),
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {}),
        ("RNN", {"activations": ["Tanh"]}),
        ("RNN", {"activations": ["Relu"]}),
    ][random.randint(5)]
    direction = ["forward", "reverse", "bidirectional"][random.randint(3)]
    if direction == "bidirectional" and op == "RNN":
        options = {"activations": 2 * options["activations"]}
    sizes = tuple(int(size) for size in random.randint(1, largest + 1, 4))
    lengths = random.randint(1, sizes[1] + 1, sizes[0])
    return {
        "op": op,
        "direction": direction,
        "sizes": sizes,
        "lengths": lengths if random.randint(3) else None,
        "initial": bool(random.randint(2)),
        "seed": seed,
        **options,
    }


def from_librosa(sample_rate, window_ms, hop_ms, n_fft, n_mels, fmin, fmax, scale, window):
    """Return filters, log-mel energies, MFCCs and their slopes of a noise that swells."""
    import librosa
    import python_speech_features

    n = sample_rate // 8
    samples = np.random.default_rng(4).normal(size=n) * np.linspace(0, 0.3, n)
    size, hop = window_ms * sample_rate // 1000, hop_ms * sample_rate // 1000
    filters = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=scale == "htk",
        norm="slaney" if scale == "slaney" else None, dtype=np.float64,
    )  # fmt: skip
    # librosa puts the window into the middle of the transform.
    before = (n_fft - size) // 2
    spectrum = librosa.stft(
        np.pad(samples, (before, n_fft - size - before)), n_fft=n_fft, hop_length=hop,
        win_length=size, window=window, center=False, dtype=np.complex128,
    )  # fmt: skip
    log_mel = np.log(filters @ np.abs(spectrum) ** 2)
    mfcc = librosa.feature.mfcc(S=log_mel, n_mfcc=12).T
    return {
        "samples": samples,
        "filters": filters.T,
        "log_mel": log_mel.T,
        "mfcc": mfcc,
        "liftered": python_speech_features.lifter(mfcc, 22),
        "deltas": python_speech_features.delta(mfcc, 3),
    }


STEPS = 7


def training():
    """Return two params and their gradients in several steps."""
    random = np.random.default_rng(4)
    shapes = [(3, 4), (5,)]
    return {
        **{f"initial{i}": random.normal(size=shape) for i, shape in enumerate(shapes)},
        **{
            f"grad{step}_{i}": random.normal(size=shape)
            for step in range(STEPS)
            for i, shape in enumerate(shapes)
        },
    }


def optimized_by_torch(optimizer, **options):
    """Return two params after each step of an optimizer."""
    import torch

    arrays = training()
    params = [torch.nn.Parameter(torch.tensor(arrays[f"initial{i}"])) for i in range(2)]
    stepper = getattr(torch.optim, optimizer)(params, **options)
    after = {}
    for step in range(STEPS):
        for i, param in enumerate(params):
            param.grad = torch.tensor(arrays[f"grad{step}_{i}"])
        stepper.step()
        after |= {f"param{step}_{i}": p.detach().numpy().copy() for i, p in enumerate(params)}
    return {**arrays, **after}


def optimized_by_keras(optimizer, learning_rate, **options):
    """Return two params after each step of an optimizer, and at last their averages."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    keras.config.set_floatx("float64")
    if isinstance(learning_rate, tuple):
        name, settings = learning_rate
        learning_rate = getattr(keras.optimizers.schedules, name)(**settings)
    arrays = training()
    params = [keras.Variable(arrays[f"initial{i}"], dtype="float64") for i in range(2)]
    stepper = getattr(keras.optimizers, optimizer)(learning_rate, **options)
    after = {}
    for step in range(STEPS):
        stepper.apply([torch.tensor(arrays[f"grad{step}_{i}"]) for i in range(2)], params)
        after |= {f"param{step}_{i}": keras.ops.convert_to_numpy(p) for i, p in enumerate(params)}
        after = {name: array.copy() for name, array in after.items()}
    stepper.finalize_variable_values(params)
    final = {f"final{i}": keras.ops.convert_to_numpy(p) for i, p in enumerate(params)}
    return {**arrays, **after, **final}


def from_keras_stateful(cell, **options):
    """Return what a stateful layer gives for two batches and, after a reset, the second again.

    PyTorch refuses gradients there, since Keras changes the state in place.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    keras.config.set_floatx("float64")
    layer = getattr(keras.layers, cell)(
        H, return_sequences=True, stateful=True, dtype="float64", **options
    )
    random = np.random.default_rng(5)
    x0, x1 = random.normal(size=(2, B, T, I))
    layer.build((B, T, I))
    weights = [random.normal(size=w.shape) / 2 for w in layer.trainable_weights]
    for variable, values in zip(layer.trainable_weights, weights, strict=True):
        variable.assign(values)
    y0, y1 = layer(torch.tensor(x0)), layer(torch.tensor(x1))
    layer.reset_state()
    again = layer(torch.tensor(x1))
    return {
        "x0": x0,
        "x1": x1,
        **numbered("y", [y0, y1, again]),
        **{f"w{i}": w for i, w in enumerate(weights)},
    }


def from_keras_layers(*described, queried=False):
    """Return the results of layers one on top of the other, for a mask that has holes."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    keras.config.set_floatx("float64")
    random = np.random.default_rng(4)
    arrays = {"x": random.normal(size=(B, T, I)), "mask": MASK}
    if described[0][0] == "Masking":
        arrays["x"][~MASK] = PADDING
    layers = [layer_of(keras.layers, name, dict(options)) for name, options in described]
    x = torch.tensor(arrays["x"], requires_grad=True)
    inputs, y, mask = [x], x, torch.tensor(MASK)
    if queried:
        arrays["query"] = random.normal(size=(B, 2, I))
        inputs.append(torch.tensor(arrays["query"], requires_grad=True))
        y, mask = [inputs[1], x], [None, mask]
    weights = []
    for layer in layers:
        layer.build([tuple(a.shape) for a in y] if queried else tuple(y.shape))
        values = [random.normal(size=w.shape) for w in layer.weights]
        layer.set_weights(values)
        weights += zip(values, layer.weights, strict=True)
        y = layer(y, mask=mask) if TAKES_A_MASK[type(layer).__name__] else layer(y)
    arrays["dy"] = random.normal(size=tuple(y.shape))
    (y * torch.tensor(arrays["dy"])).sum().backward()
    return {
        **arrays,
        "y": y.detach().numpy(),
        **numbered("d", [tensor.grad for tensor in inputs]),
        **{f"w{i}": value for i, (value, _) in enumerate(weights)},
        **{f"dw{i}": w.value.grad.numpy() for i, (_, w) in enumerate(weights)},
    }


def layer_of(module, name, options):
    """Return a layer of Keras or fastgru; TimeDistributed has a Dense inside."""
    kind = getattr(module, name)
    if name == "TimeDistributed":
        return kind(module.Dense(**options, dtype="float64"))
    return kind(**options, dtype="float64")


PADDING = 0.5
TAKES_A_MASK = {
    "Activation": False,
    "AdditiveAttention": True,
    "Attention": True,
    "GlobalAveragePooling1D": True,
    "GlobalMaxPooling1D": False,
    "LayerNormalization": False,
    "Masking": False,
    "TimeDistributed": True,
}
KERAS_LAYERS = {
    "keras_normalization": [("LayerNormalization", {"epsilon": 0.01})],
    "keras_average_pooling": [("GlobalAveragePooling1D", {})],
    "keras_max_pooling": [("GlobalMaxPooling1D", {})],
    "keras_masking": [
        ("Masking", {"mask_value": PADDING}),
        ("TimeDistributed", {"units": H, "activation": "tanh"}),
        ("Activation", {"activation": "softmax"}),
        ("GlobalAveragePooling1D", {}),
    ],
}
KERAS_ATTENTION = {
    "keras_dot_attention": [("Attention", {})],
    "keras_additive_attention": [("AdditiveAttention", {})],
}
# Small cases of all cells, among them two of a single step.
TORCH_SEEDS = (0, 1, 2, 6, 9, 12, 19, 29, 45, 64, 66, 79)
TORCH = {
    "torch_gru": {"cell": "GRU", "bidirectional": False},
    "torch_lstm": {"cell": "LSTM", "bidirectional": False},
    "torch_rnn": {"cell": "RNN", "bidirectional": False},
    "torch_gru_bidirectional": {"cell": "GRU", "bidirectional": True},
    "torch_lstm_bidirectional": {"cell": "LSTM", "bidirectional": True},
    **{f"torch_case_{seed}": torch_case(seed, largest=6) for seed in TORCH_SEEDS},
}
ONNX_SEEDS = (6, 28, 30, 45, 50, 60)
ONNX = {f"onnx_case_{seed}": onnx_case(seed, largest=6) for seed in ONNX_SEEDS}
KERAS = {
    "keras_reset_after": {"cell": "GRU", "reset_after": True},
    "keras_reset_before": {"cell": "GRU", "reset_after": False},
    "keras_backwards": {"cell": "GRU", "go_backwards": True},
    "keras_activations": {
        "cell": "GRU",
        "activation": "softplus",
        "recurrent_activation": "hard_sigmoid",
    },
    "keras_lstm": {"cell": "LSTM"},
    "keras_lstm_backwards": {
        "cell": "LSTM",
        "go_backwards": True,
        "activation": "elu",
        "recurrent_activation": "hard_sigmoid",
    },
    "keras_simple_rnn": {"cell": "SimpleRNN", "use_bias": False},
    "keras_gru_bidirectional": {"cell": "GRU", "merge_mode": "concat"},
    "keras_lstm_bidirectional": {"cell": "LSTM", "merge_mode": "mul"},
    "keras_lstm_last": {"cell": "LSTM", "merge_mode": "concat", "return_sequences": False},
    "keras_simple_rnn_last": {
        "cell": "SimpleRNN",
        "merge_mode": "ave",
        "return_sequences": False,
    },
    "keras_gru_zero_output": {"cell": "GRU", "zero_output_for_mask": True},
    "keras_lstm_zero_output": {"cell": "LSTM", "zero_output_for_mask": True, "go_backwards": True},
    "keras_simple_rnn_zero_output": {"cell": "SimpleRNN", "zero_output_for_mask": True},
}
STATEFUL = {
    "keras_gru_stateful": {"cell": "GRU"},
    "keras_lstm_stateful": {"cell": "LSTM"},
    "keras_simple_rnn_stateful": {"cell": "SimpleRNN"},
}
AUDIO = {
    "librosa_htk": {
        "sample_rate": 8000,
        "window_ms": 25,
        "hop_ms": 10,
        "n_fft": 256,
        "n_mels": 23,
        "fmin": 100,
        "fmax": 3800,
        "scale": "htk",
        "window": "hamming",
    },
    "librosa_slaney": {
        "sample_rate": 16000,
        "window_ms": 32,
        "hop_ms": 8,
        "n_fft": 512,
        "n_mels": 40,
        "fmin": 0,
        "fmax": 8000,
        "scale": "slaney",
        "window": "hann",
    },
}


def ctc_from_torch():
    """Return CTC losses, with empty targets, repeated labels and a row of too few frames."""
    import torch

    random = np.random.default_rng(4)
    logits = random.normal(size=(6, 9, 5)) * 2
    blank, counts, lengths = 2, np.array([0, 1, 4, 4, 3, 4]), np.array([4, 1, 9, 8, 7, 3])
    labels = random.choice([0, 1, 3, 4], size=(6, 4))
    labels[2], labels[3] = [1, 1, 1, 0], [3, 0, 0, 4]
    x = torch.tensor(logits, requires_grad=True)
    values = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(labels),
        torch.tensor(lengths),
        torch.tensor(counts),
        blank=blank,
        reduction="none",
    )
    values[torch.isfinite(values)].sum().backward()
    return {
        "x": logits,
        "labels": labels,
        "counts": counts,
        "lengths": lengths,
        "blank": np.array(blank),
        "values": values.detach().numpy(),
        "dx": x.grad.numpy(),
    }


LOSS_OPTIONS = {  # a file's key: Keras' class, options, kind of target
    "mse": ("MeanSquaredError", {}, "numbers"),
    "mae": ("MeanAbsoluteError", {}, "numbers"),
    "huber": ("Huber", {"delta": 0.7}, "numbers"),
    "binary": ("BinaryCrossentropy", {"label_smoothing": 0.2}, "shares"),
    "binary_logits": (
        "BinaryCrossentropy", {"label_smoothing": 0.2, "from_logits": True}, "shares",
    ),
    "categorical": ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "one_hot"),
    "categorical_logits": (
        "CategoricalCrossentropy", {"label_smoothing": 0.1, "from_logits": True}, "one_hot",
    ),
    "sparse": ("SparseCategoricalCrossentropy", {"ignore_class": 1}, "labels"),
    "sparse_logits": (
        "SparseCategoricalCrossentropy", {"ignore_class": 1, "from_logits": True}, "labels",
    ),
    "ctc": ("CTC", {}, "sequences"),
}  # fmt: skip


def losses_from_keras():
    """Return losses and their gradients, of outputs (B, T, I) with temporal weights."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    keras.config.set_floatx("float64")
    random = np.random.default_rng(5)
    labels = random.integers(0, I, (B, T))
    arrays = {
        "logits": random.normal(size=(B, T, I)),
        "probabilities": random.dirichlet(np.ones(I), (B, T)),
        "weights": random.uniform(size=(B, T)),
        "numbers": random.normal(size=(B, T, I)),
        "shares": random.uniform(size=(B, T, I)),
        "one_hot": np.eye(I)[labels],
        "labels": labels,
        "sequences": np.array([[1, 1], [3, 0], [2, 3]]),  # Keras pads with the blank, 0
    }
    for key, (kind, options, target) in LOSS_OPTIONS.items():
        needs = target in ("numbers", "sequences") or options.get("from_logits")
        output = torch.tensor(arrays["logits" if needs else "probabilities"], requires_grad=True)
        weights = torch.tensor(arrays["weights"][:, 0] if kind == "CTC" else arrays["weights"])
        loss = getattr(keras.losses, kind)(dtype="float64", **options)
        value = loss(torch.tensor(arrays[target]), output, sample_weight=weights)
        value.backward()
        arrays |= {f"{key}_value": value.detach().numpy(), f"{key}_dy": output.grad.numpy()}
    logits = torch.tensor(arrays["logits"].reshape(-1, I), requires_grad=True)
    value = torch.nn.functional.cross_entropy(
        logits, torch.tensor(labels.reshape(-1)), label_smoothing=0.3
    )
    value.backward()
    arrays["smoothed_value"] = value.detach().numpy()
    arrays["smoothed_dy"] = logits.grad.numpy().reshape(B, T, I)
    return arrays


def metrics_from_keras():
    """Return metrics of two batches with weights."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    random = np.random.default_rng(6)
    target = random.integers(0, 2, (2, 40))
    arrays = {
        "target": target,
        "output": np.clip(random.normal(0.4 + 0.2 * target, 0.25), 0, 1)[..., None],
        "weights": random.uniform(size=(2, 40)),
        "classes": random.integers(0, 7, (2, 40)),
        "scores": random.dirichlet(np.ones(7), (2, 40)),
    }
    made = keras.metrics
    binary = {
        "precision": made.Precision(thresholds=0.6),
        "recall": made.Recall(thresholds=0.6),
        "auc": made.AUC(num_thresholds=20001),
    }
    for name, metric in binary.items():
        for t, y, w in zip(target, arrays["output"], arrays["weights"], strict=True):
            metric.update_state(t[:, None], y, sample_weight=w)
        arrays[name] = np.array(float(metric.result()))
    f1 = made.F1Score(average="micro", threshold=0.3)
    top_k = made.SparseTopKCategoricalAccuracy(k=3)
    for t, y, w in zip(arrays["classes"], arrays["scores"], arrays["weights"], strict=True):
        f1.update_state(np.eye(7)[t], y)
        top_k.update_state(t, y, sample_weight=w)
    return arrays | {
        "f1": np.array(float(f1.result())),
        "top_k": np.array(float(top_k.result())),
    }


OTHERS = {
    "torch_ctc": ctc_from_torch,
    "keras_losses": losses_from_keras,
    "keras_metrics": metrics_from_keras,
}


TINY = 1e-30  # an epsilon that does not show: PyTorch has it in another place
OPTIMIZED_BY_TORCH = {
    "torch_adamw": {
        "optimizer": "AdamW", "lr": 0.1, "betas": (0.8, 0.9), "eps": TINY, "weight_decay": 0.3,
    },
    "torch_rmsprop": {
        "optimizer": "RMSprop", "lr": 0.1, "alpha": 0.8, "eps": TINY, "momentum": 0.7,
        "centered": True,
    },
}  # fmt: skip
OPTIMIZED_BY_KERAS = {
    "keras_sgd": {
        "optimizer": "SGD", "momentum": 0.7, "nesterov": True, "clipvalue": 0.8,
        "weight_decay": 0.3, "learning_rate": (
            "ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.5}
        ),
    },
    "keras_rmsprop": {
        "optimizer": "RMSprop", "rho": 0.8, "epsilon": 1e-3, "global_clipnorm": 1.5,
        "weight_decay": 0.3, "learning_rate": (
            "PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 5, "power": 2.0}
        ),
    },
    "keras_rmsprop_centered": {
        "optimizer": "RMSprop", "rho": 0.8, "momentum": 0.7, "centered": True, "epsilon": 1e-3,
        "learning_rate": (
            "ExponentialDecay",
            {
                "initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.5,
                "staircase": True,
            },
        ),
    },
    "keras_adam": {
        "optimizer": "Adam", "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "clipnorm": 1.5,
        "gradient_accumulation_steps": 3, "learning_rate": (
            "CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 5, "alpha": 0.2}
        ),
    },
    "keras_adamw": {
        "optimizer": "AdamW", "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.3,
        "use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 3, "learning_rate": (
            "CosineDecay",
            {
                "initial_learning_rate": 0.01, "decay_steps": 4, "warmup_target": 0.1,
                "warmup_steps": 2,
            },
        ),
    },
}  # fmt: skip


# What makes each golden file. The tests compare each of these, and make them anew where they can.
MAKERS = {
    **OTHERS,
    **{name: partial(from_torch, **options) for name, options in TORCH.items()},
    **{name: partial(from_onnxruntime, **options) for name, options in ONNX.items()},
    **{name: partial(from_keras, **options) for name, options in KERAS.items()},
    **{name: partial(from_keras_stateful, **options) for name, options in STATEFUL.items()},
    **{name: partial(from_keras_layers, *layers) for name, layers in KERAS_LAYERS.items()},
    **{
        name: partial(from_keras_layers, *layers, queried=True)
        for name, layers in KERAS_ATTENTION.items()
    },
    **{name: partial(from_librosa, **options) for name, options in AUDIO.items()},
    **{name: partial(optimized_by_torch, **o) for name, o in OPTIMIZED_BY_TORCH.items()},
    **{name: partial(optimized_by_keras, **o) for name, o in OPTIMIZED_BY_KERAS.items()},
}


if __name__ == "__main__":
    for name, make in MAKERS.items():
        np.savez_compressed(HERE / f"{name}.npz", **make())
        print(name)
