"""Write the golden files: what other libraries compute for the same weights and inputs.

pip install torch keras librosa python_speech_features
KERAS_BACKEND=torch python tests/golden/make_golden.py

Features of sounds are those of librosa, and of python_speech_features where librosa does not do as
HTK does.

States and their gradients are numbered in the order of fastgru, which is Keras' own: h, then c of
an LSTM; in both directions first all of the forward layer, then all of the backward layer.
"""

import os
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
B, T, I, H = 3, 5, 4, 6
LENGTHS = np.array([5, 1, 3])
# Keras begins a masked first step with zeros, not with the initial state: there is none, in either
# direction.
MASK = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]], bool)
OPEN_ENDED = MASK & np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)


def inputs(seed, states, *shape_of_y):
    random = np.random.default_rng(seed)
    return {
        "x": random.normal(size=(B, T, I)),
        **{f"initial{i}": random.normal(size=(B, H)) for i in range(states)},
        "dy": random.normal(size=shape_of_y),
        **{f"dlast{i}": random.normal(size=(B, H)) for i in range(states)},
    }


def numbered(name, tensors):
    return {f"{name}{i}": tensor.detach().numpy() for i, tensor in enumerate(tensors)}


def from_torch(cell, bidirectional):
    """Return a module's results for packed sequences, and all its gradients."""
    import torch

    torch.manual_seed(0)
    module = getattr(torch.nn, cell)(
        I, H, batch_first=True, bidirectional=bidirectional, dtype=torch.float64
    )
    kinds, directions = (2 if cell == "LSTM" else 1), 1 + bidirectional
    arrays = inputs(1, kinds * directions, B, T, H * directions)
    x = torch.tensor(arrays["x"], requires_grad=True)
    initial = [
        torch.tensor(arrays[f"initial{i}"], requires_grad=True) for i in range(kinds * directions)
    ]
    stacked = [torch.stack(initial[kind::kinds]) for kind in range(kinds)]
    pack = torch.nn.utils.rnn.pack_padded_sequence
    packed = pack(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    out, last = module(packed, tuple(stacked) if kinds > 1 else stacked[0])
    last = last if kinds > 1 else [last]
    states = [last[kind][direction] for direction in range(directions) for kind in range(kinds)]
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    loss = (y * torch.tensor(arrays["dy"])).sum()
    for i, state in enumerate(states):
        loss = loss + (state * torch.tensor(arrays[f"dlast{i}"])).sum()
    loss.backward()
    return {
        **arrays,
        "lengths": LENGTHS,
        "y": y.detach().numpy(),
        "dx": x.grad.numpy(),
        **numbered("last", states),
        **numbered("dinitial", [h.grad for h in initial]),
        **{name: p.detach().numpy() for name, p in module.named_parameters()},
        **{f"d{name}": p.grad.numpy() for name, p in module.named_parameters()},
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


TORCH = {
    "torch_gru": {"cell": "GRU", "bidirectional": False},
    "torch_lstm": {"cell": "LSTM", "bidirectional": False},
    "torch_rnn": {"cell": "RNN", "bidirectional": False},
    "torch_gru_bidirectional": {"cell": "GRU", "bidirectional": True},
    "torch_lstm_bidirectional": {"cell": "LSTM", "bidirectional": True},
}
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


def all_golden():
    """Return name -> arrays of every golden file."""
    return {
        **{name: from_torch(**options) for name, options in TORCH.items()},
        **{name: from_keras(**options) for name, options in KERAS.items()},
        **{name: from_librosa(**options) for name, options in AUDIO.items()},
    }


if __name__ == "__main__":
    for name, arrays in all_golden().items():
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name)
