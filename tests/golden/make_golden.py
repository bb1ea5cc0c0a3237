"""Write the golden files: what PyTorch and Keras compute for the same weights and inputs.

pip install torch keras && KERAS_BACKEND=torch python tests/golden/make_golden.py
"""

import os
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
B, T, I, H = 3, 5, 4, 6
LENGTHS = np.array([5, 1, 3])


def inputs(seed):
    random = np.random.default_rng(seed)
    return {
        "x": random.normal(size=(B, T, I)),
        "h0": random.normal(size=(B, H)),
        "dy": random.normal(size=(B, T, H)),
        "dlast": random.normal(size=(B, H)),
    }


def from_torch():
    """Return a GRU with packed sequences, its outputs and all its gradients."""
    import torch

    torch.manual_seed(0)
    arrays = inputs(1)
    module = torch.nn.GRU(I, H, batch_first=True, dtype=torch.float64)
    x = torch.tensor(arrays["x"], requires_grad=True)
    h0 = torch.tensor(arrays["h0"], requires_grad=True)
    pack = torch.nn.utils.rnn.pack_padded_sequence
    packed = pack(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    out, last = module(packed, h0[None])
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    real = torch.tensor(np.arange(T) < LENGTHS[:, None])[..., None]
    loss = (y * torch.tensor(arrays["dy"]) * real).sum()
    (loss + (last[0] * torch.tensor(arrays["dlast"])).sum()).backward()
    return {
        **arrays,
        "lengths": LENGTHS,
        "y": y.detach().numpy(),
        "last": last[0].detach().numpy(),
        "dx": x.grad.numpy(),
        "dh0": h0.grad.numpy(),
        **{name: p.detach().numpy() for name, p in module.named_parameters()},
        **{f"d{name}": p.grad.numpy() for name, p in module.named_parameters()},
    }


def from_keras(reset_after, **options):
    """Return a GRU with a mask that has holes, its outputs and all its gradients."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    import torch

    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(2)
    arrays = inputs(2)
    layer = keras.layers.GRU(
        H, reset_after=reset_after, return_sequences=True, dtype="float64", **options
    )
    layer.build((B, T, I))
    random = np.random.default_rng(3)
    weights = [random.normal(size=w.shape) / 2 for w in layer.weights]
    layer.set_weights(weights)
    mask = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]], bool)
    if options.get("go_backwards"):
        mask = mask[:, ::-1].copy()
    x = torch.tensor(arrays["x"], requires_grad=True)
    h0 = torch.tensor(arrays["h0"], requires_grad=True)
    y = layer(x, mask=torch.tensor(mask), initial_state=h0, training=True)
    (y * torch.tensor(arrays["dy"])).sum().backward()
    return {
        **arrays,
        "mask": mask,
        "y": y.detach().numpy(),
        "dx": x.grad.numpy(),
        "dh0": h0.grad.numpy(),
        **{f"w{i}": w for i, w in enumerate(weights)},
        **{f"dw{i}": w.value.grad.numpy() for i, w in enumerate(layer.weights)},
    }


KERAS = {
    "keras_reset_after": {"reset_after": True},
    "keras_reset_before": {"reset_after": False},
    "keras_backwards": {"reset_after": True, "go_backwards": True},
    "keras_activations": {
        "reset_after": True,
        "activation": "softplus",
        "recurrent_activation": "hard_sigmoid",
    },
}


def all_golden():
    """Return name -> arrays of every golden file."""
    return {"torch": from_torch(), **{name: from_keras(**o) for name, o in KERAS.items()}}


if __name__ == "__main__":
    for name, arrays in all_golden().items():
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name)
