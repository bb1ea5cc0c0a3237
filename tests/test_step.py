"""One step of training: whose gradients it takes."""

import numpy as np
import pytest

import fastgru as fg
from fastgru import step
from fastgru.robust import AdversarialTraining
from fastgru.tied import TiedEmbedding

V, B, T = 11, 3, 5


def shared_dense():
    dense = fg.Dense(6, seed=3)
    return [fg.Embedding(V, 6, seed=1), dense, fg.TimeDistributed(dense), fg.GRU(2, seed=4)]


def shared_cell():
    cell = fg.GRU(6, return_sequences=True, seed=1)
    return [
        fg.Embedding(V, 6, seed=1),
        cell,
        fg.SimpleRNN(6, return_sequences=True),
        cell,
        fg.GRU(2),
    ]


def tied():
    output = fg.Dense(V, "softmax", seed=1)
    output.build((None, None, 6))
    return [TiedEmbedding(output), fg.LSTM(6, return_sequences=True, seed=2), output]


def frozen():
    layers = [fg.Embedding(V, 6, seed=1), fg.GRU(6, return_sequences=True), fg.LSTM(4), fg.Dense(2)]
    layers[2].trainable = False
    return layers


def regularized():
    rules = {"kernel_regularizer": "l2", "bias_regularizer": "l1"}
    return [fg.Embedding(V, 6, seed=1), fg.GRU(6, seed=2, **rules), fg.Dense(2, seed=3, **rules)]


def usual():
    both = fg.Bidirectional(fg.GRU(4, return_sequences=True, seed=2))
    return [fg.Embedding(V, 6, seed=1), both, fg.GRU(4, seed=3), fg.Dense(2, seed=4)]


def gradients(model):
    return {
        id(gradient): gradient.copy()
        for layer in model.layers
        for gradient in (layer.grads.values() if layer.trainable else ())
    }


@pytest.mark.parametrize("make", [shared_dense, shared_cell, tied, frozen, regularized, usual])
@pytest.mark.parametrize("adversarial", [False, True])
def test_gradients_are_those_of_the_last_batch_alone(make, adversarial, rng, monkeypatch):
    """They are what forward, backward and penalties add to zeros, whatever was there before."""
    monkeypatch.setattr(step, "REPEATS", 2)
    model = fg.Sequential(make())
    model.compile(fg.optimizers.SGD(0.0), "mse")
    if adversarial:
        model.adversary = Unmoved()
    shape = model.predict(np.zeros((B, T), int)).shape
    for _ in range(6):
        x, y = rng.integers(0, V, (B, T)), rng.normal(size=shape)
        for layer in model.layers:
            for gradient in layer.grads.values():
                gradient[...] = 1e9
        model.train_on_batch(x, y)
        got = gradients(model)
        for layer in model.layers:
            layer.zero_gradients()
        output, backward = model.forward(x)
        dy = model.loss(y, output)[1]
        backward(dy)
        if adversarial:
            model.forward(x)[1](dy)
        for layer in dict.fromkeys(model.layers):
            layer.penalty(with_gradients=True)
        for key, want in gradients(model).items():
            np.testing.assert_allclose(got[key], want, rtol=1e-5, atol=1e-7)


class Decoder(fg.Layer):
    """A layer of a user's, which adds to the gradients of another one."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def output_shape(self, input_shape):
        return (*input_shape[:-1], self.encoder.weights()["kernel"].shape[0])

    def forward(self, x, mask=None, lengths=None, initial_state=None):
        x, kernel = np.asarray(x, self.dtype), self.encoder.weights()["kernel"]
        self.build(x.shape)

        def backward(dy, with_dx=True):
            self.encoder.grads["kernel"] += dy.T @ x
            return dy @ kernel

        return x @ kernel.T, backward


def test_gradients_that_a_users_layer_adds_are_kept(rng):
    encoder = fg.Dense(3, "tanh", seed=1)
    encoder.build((None, 6))
    model = fg.Sequential([encoder, Decoder(encoder)])
    model.compile(fg.optimizers.SGD(0.0), "mse")
    x = rng.normal(size=(8, 6)).astype(np.float32)
    for _ in range(3):
        model.train_on_batch(x, x)
    got = encoder.grads["kernel"].copy()
    encoder.zero_gradients()
    y, backward = model.forward(x)
    backward(model.loss(x, y)[1])
    np.testing.assert_allclose(got, encoder.grads["kernel"], rtol=1e-5)


class Unmoved(AdversarialTraining):
    """An adversary who does nothing, so that the second pass is the first one again."""

    def shift(self, model, batch, dvectors):
        return np.zeros_like(dvectors)
