"""Tasks that are learned only where gradients reach far back, each beside a twin that cannot."""

import numpy as np
import pytest

import fastgru as fg
from fastgru.kernels import threads


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    # The bits are those of any number, and the work is too small to be shared.
    monkeypatch.setattr(threads, "_num_threads", 1)


class Truncated(fg.GRU):
    """A wrong twin: gradients end after some steps."""

    STEPS = 4

    def forward(self, x, mask=None, lengths=None, initial_state=None):
        state, outputs, backwards = np.zeros((len(x), self.units), np.float32), [], []
        for start in range(0, x.shape[1], self.STEPS):
            (y, state), backward = super().forward(
                x[:, start : start + self.STEPS], initial_state=state, with_states=True
            )
            outputs.append(y)
            backwards.append(backward)

        def backward(dy, with_dx=True):
            if self.return_sequences:
                parts = np.split(dy, range(self.STEPS, dy.shape[1], self.STEPS), axis=1)
            else:
                parts = [np.zeros_like(dy)] * (len(backwards) - 1) + [dy]
            dx = [back(part)[0] for back, part in zip(backwards, parts, strict=True)]
            return np.concatenate(dx, axis=1)

        return (np.concatenate(outputs, axis=1) if self.return_sequences else y), backward


def slow_to_forget(shape, random):
    """Begin with update gates that keep most of the state: the second third, of r, z, n."""
    return np.repeat([0.0, 2.0, 0.0], shape[0] // 3)


# ---- the adding problem (Hochreiter and Schmidhuber 1997), T = 200


def sums(random, batch, steps=200):
    """Return sequences of a number and a mark, and the sum of the two numbers that are marked."""
    x = np.zeros((batch, steps, 2), np.float32)
    x[:, :, 0] = random.uniform(size=(batch, steps))
    for low, high in ((0, steps // 2), (steps // 2, steps)):
        x[np.arange(batch), random.integers(low, high, batch), 1] = 1
    return x, (x[:, :, 0] * x[:, :, 1]).sum(axis=1, keepdims=True)


def error_of_sums(kind, batches):
    """Return the mean squared error on new sequences after so many batches, or once it is small."""
    random = np.random.default_rng(0)
    recurrent = kind(24, bias_initializer=slow_to_forget, seed=1)
    model = fg.Sequential([recurrent, fg.Dense(1, seed=2)])
    model.compile(fg.optimizers.Adam(0.01, global_clipnorm=1.0), "mse")
    held = sums(random, 500)
    for _ in range(0, batches, 50):
        for _ in range(50):
            model.train_on_batch(*sums(random, 32))
        error = model.evaluate(*held, verbose=0)
        if error < 0.005:
            break
    return error


def test_the_adding_problem_is_learned_over_200_steps():
    assert error_of_sums(fg.GRU, 1500) < 0.01


def test_truncated_gradients_do_not_learn_the_adding_problem():
    # Always to answer 1 gives an error of 1 / 6.
    assert error_of_sums(Truncated, 350) > 0.05


# ---- copy memory (Arjovsky, Shah and Bengio 2016)

SYMBOLS, COPIED, DELAY = 4, 3, 40


def copies(random, batch):
    """Return some symbols, a pause and a sign to begin, and the symbols behind that."""
    x = np.zeros((batch, COPIED + DELAY + COPIED), int)
    y = np.zeros_like(x)
    x[:, :COPIED] = y[:, -COPIED:] = random.integers(1, 1 + SYMBOLS, (batch, COPIED))
    x[:, -COPIED] = SYMBOLS + 1
    return x, y


def share_of_copies(kind, batches):
    """Return the share of symbols that are right after so many batches, or once all are."""
    random = np.random.default_rng(0)
    recurrent = kind(32, return_sequences=True, bias_initializer=slow_to_forget, seed=1)
    layers = [fg.Embedding(SYMBOLS + 2, 8, seed=3), recurrent, fg.Dense(SYMBOLS + 1, seed=2)]
    model = fg.Sequential(layers)
    loss = fg.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(fg.optimizers.Adam(0.01, global_clipnorm=1.0), loss)
    x, y = copies(random, 500)
    for _ in range(0, batches, 50):
        for _ in range(50):
            model.train_on_batch(*copies(random, 32))
        right = (model.predict(x).argmax(axis=-1) == y)[:, -COPIED:].mean()
        if right == 1:
            break
    return right


def test_what_was_seen_before_a_pause_is_copied():
    assert share_of_copies(fg.GRU, 2000) > 0.99


def test_truncated_gradients_do_not_learn_to_copy():
    assert share_of_copies(Truncated, 500) < 0.5  # a guess is right in one of 4 cases


# ---- reversed sequences, with attention

LENGTH, WORDS = 12, 10


class Reader:
    """Read a sequence, then write what the attention finds in it."""

    def __init__(self, with_dquery=True):
        self.with_dquery = with_dquery
        self.source = fg.Embedding(WORDS, 16, seed=1)
        self.target = fg.Embedding(WORDS + 1, 16, seed=2)
        self.encoder = fg.GRU(32, return_sequences=True, return_state=True, seed=3)
        self.decoder = fg.GRU(32, return_sequences=True, seed=4)
        self.attention = fg.Attention("general", query_dim=32, seed=5)
        self.output = fg.Dense(WORDS, seed=6)
        self.layers = list(vars(self).values())[1:]
        self.loss = fg.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.optimizer = fg.optimizers.Adam(0.01, global_clipnorm=1.0)

    def logits(self, x, before):
        """Return logits, and the way back, for the words that come before those wanted."""
        read, source = self.source.forward(x)
        (values, last), encoder = self.encoder.forward(read)
        written, target = self.target.forward(before)
        states, decoder = self.decoder.forward(written, initial_state=last)
        found, attention = self.attention.forward(values, query=states)
        logits, output = self.output.forward(np.concatenate([found, states], axis=-1))

        def backward(dlogits):
            dfound, dstates = np.split(output(dlogits), 2, axis=-1)
            dvalues, dquery = attention(np.ascontiguousarray(dfound))
            dwritten, dlast = decoder(dstates + dquery * self.with_dquery)
            target(dwritten)
            source(encoder(dvalues, dlast))

        return logits, backward

    def train(self, x, y):
        before = np.concatenate([np.full((len(x), 1), WORDS), y[:, :-1]], axis=1)
        logits, backward = self.logits(x, before)
        _, dlogits = self.loss(y, logits)
        backward(dlogits)
        pairs = [pair for layer in self.layers for pair in layer.pairs()]
        params, grads = [p for p, _ in pairs], [g for _, g in pairs]
        self.optimizer.apply(params, grads)
        for layer in self.layers:
            layer.changed()
        for grad in grads:
            grad.fill(0)

    def write(self, x):
        """Return the words that are written, each given those that were written before it."""
        before = np.full((len(x), 1), WORDS)
        for _ in range(x.shape[1]):
            words = self.logits(x, before)[0].argmax(axis=-1)
            before = np.concatenate([before, words[:, -1:]], axis=1)
        return before[:, 1:]


def share_of_reversals(reader, batches):
    """Return the share of sequences that are reversed without a mistake."""
    random = np.random.default_rng(0)
    held = random.integers(0, WORDS, (300, LENGTH))
    for _ in range(0, batches, 100):
        for _ in range(100):
            x = random.integers(0, WORDS, (64, LENGTH))
            reader.train(x, x[:, ::-1])
        right = (reader.write(held) == held[:, ::-1]).all(axis=1).mean()
        if right == 1:
            break
    return right


def test_sequences_are_reversed_with_attention_without_a_mistake():
    assert share_of_reversals(Reader(), 2000) == 1


def test_queries_without_gradients_do_not_learn_to_reverse():
    assert share_of_reversals(Reader(with_dquery=False), 500) < 0.9
