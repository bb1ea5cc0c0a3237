"""Reasons and attacks: gradients of what inference computes, completeness, limits kept."""

import numpy as np
import pytest

import fastgru as fg
from fastgru import explain, robust

LENGTHS = [5, 3]


def model_of(first, pool=None, out=3, activation="softmax", dtype="float64"):
    options = {"dtype": dtype, "seed": 3}
    layers = [
        *([] if first is None else [first]),
        fg.SpatialDropout1D(0.3, "steps", **options),
        fg.Bidirectional(fg.GRU(6, return_sequences=True, dropout=0.2, **options)),
        pool or fg.Attention(**options),
        fg.Dropout(0.4, **options),
        fg.Dense(out, activation, **options),
    ]
    return fg.Sequential(layers)


@pytest.fixture
def features(rng):
    return model_of(None), rng.normal(size=(2, 5, 4))


@pytest.fixture
def words(rng):
    first = fg.Embedding(9, 4, dtype="float64", embeddings_initializer="glorot_uniform", seed=1)
    return model_of(first), rng.integers(1, 9, (2, 5))


def logits(model, x, lengths=LENGTHS):
    return model.forward(x, lengths=lengths, logits=True)[0]


def test_forward_of_a_model_is_inference_and_its_gradient(features):
    model, x = features
    y, backward = model.forward(x, lengths=LENGTHS)
    assert np.array_equal(y, model.predict(x, lengths=LENGTHS))
    dy = np.random.default_rng(0).normal(size=y.shape)
    dx, step = backward(dy), 1e-6
    for place in [(0, 4, 1), (1, 0, 2), (1, 2, 3)]:
        moved = [x.copy(), x.copy()]
        for each, sign in zip(moved, (1, -1), strict=True):
            each[place] += sign * step
        high, low = (model.predict(each, lengths=LENGTHS) for each in moved)
        np.testing.assert_allclose(dx[place], ((high - low) * dy).sum() / (2 * step), rtol=1e-5)
    assert not dx[1, 3:].any()


@pytest.mark.parametrize("kind", ["features", "words"])
def test_integrated_gradients_are_complete(kind, request):
    model, x = request.getfixturevalue(kind)
    target = np.array([2, 0])
    weights = explain.integrated_gradients(model, x, target, steps=400, lengths=LENGTHS)
    assert weights.shape == x.shape and not weights[1, 3:].any()
    if kind == "features":
        vectors, rest = x, model
    else:
        vectors, rest = model.layers[0](x), fg.Sequential(model.layers[1:])
    rows = np.arange(2)
    difference = logits(rest, vectors)[rows, target] - logits(rest, 0 * vectors)[rows, target]
    np.testing.assert_allclose(weights.reshape(2, -1).sum(axis=1), difference, rtol=1e-4)
    assert np.abs(difference).min() > 1e-3


def test_saliency_is_the_size_of_the_gradient(features, words):
    model, x = features
    weights = explain.saliency(model, x, 1, lengths=LENGTHS)
    y, backward = model.forward(x, lengths=LENGTHS, logits=True)
    dy = np.zeros_like(y)
    dy[:, 1] = 1
    np.testing.assert_allclose(weights, np.abs(backward(dy)), rtol=1e-12)
    model, x = words
    assert explain.saliency(model, x).shape == x.shape


def test_occlusion_is_what_is_lost_with_a_step(features):
    model, x = features
    weights = explain.occlusion(model, x, 1, lengths=LENGTHS)
    blanked = x.copy()
    blanked[:, 2] = 0
    want = logits(model, x)[:, 1] - logits(model, blanked)[:, 1]
    np.testing.assert_allclose(weights[:, 2], want, rtol=1e-10)
    assert not weights[1, 3:].any() and weights[0].all()


@pytest.mark.parametrize(
    "pool",
    [
        fg.Attention,
        fg.GlobalAveragePooling1D,
        fg.GlobalMaxPooling1D,
        fg.GlobalMaxAveragePooling1D,
    ],
)
def test_shares_of_the_pooling_sum_to_one(pool, rng):
    model = model_of(None, pool(dtype="float64", seed=3))
    x = rng.normal(size=(2, 5, 4))
    weights = explain.attention(model, x, lengths=LENGTHS)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights >= 0).all() and not weights[1, 3:].any()
    sequences = model.layers[1](model.layers[0](x), lengths=LENGTHS)
    if pool in (fg.Attention, fg.GlobalAveragePooling1D):  # which are weighted averages
        want = np.einsum("bt,bti->bi", weights, sequences)
        np.testing.assert_allclose(want, model.layers[2](sequences, lengths=LENGTHS), rtol=1e-10)
    elif pool is fg.GlobalMaxPooling1D:
        first = np.bincount(sequences[0].argmax(axis=0), minlength=5) / 12
        np.testing.assert_allclose(weights[0], first)
    with pytest.raises(ValueError, match="expected an Attention or a pooling layer"):
        explain.attention(fg.Sequential([fg.Dense(2, dtype="float64")]), x)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gates_lead_from_state_to_state(reset_after, rng):
    layer = fg.GRU(6, reset_after=reset_after, dtype="float64", seed=3)
    model = fg.Sequential([layer, fg.Dense(2, dtype="float64")])
    x = rng.normal(size=(2, 5, 4))
    model.build(x.shape)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    gates = explain.gate_activations(model, x)
    np.testing.assert_allclose(gates["state"][:, -1], layer(x), rtol=1e-12)
    z, r, h = gates["update"], gates["reset"], gates["state"]
    before = np.concatenate([np.zeros((2, 1, 6)), h[:, :-1]], axis=1)
    kernel, recurrent, bias = layer.get_weights()
    W, U = kernel[:, 12:], recurrent[:, 12:]
    if reset_after:
        inside = x @ W + bias[0, 12:] + r * (before @ U + bias[1, 12:])
    else:
        inside = x @ W + bias[12:] + (r * before) @ U
    np.testing.assert_allclose(z * before + (1 - z) * np.tanh(inside), h, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="layer: expected one of gru, given 'gur'"):
        explain.gate_activations(model, x, layer="gur")


@pytest.mark.parametrize(
    "activation", ["hard_sigmoid", (lambda a: a / 2 + 0.5, lambda y: np.full_like(y, 0.5))]
)
def test_gates_are_those_of_the_layers_own_activation(activation, rng):
    options = {"return_sequences": True, "dtype": "float64", "seed": 3}
    layer = fg.GRU(6, recurrent_activation=activation, zero_output_for_mask=True, **options)
    model, x = fg.Sequential([layer]), rng.normal(size=(2, 5, 4))
    mask = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]], bool)
    gates = explain.gate_activations(model, x, mask=mask)
    z, r, h = gates["update"], gates["reset"], gates["state"]
    np.testing.assert_allclose(np.where(mask[..., None], h, 0), layer(x, mask=mask), rtol=1e-12)
    before = np.concatenate([np.zeros((2, 1, 6)), h[:, :-1]], axis=1)
    kernel, recurrent, bias = layer.get_weights()
    inside = x @ kernel[:, 12:] + bias[0, 12:] + r * (before @ recurrent[:, 12:] + bias[1, 12:])
    after = z * before + (1 - z) * np.tanh(inside)
    np.testing.assert_allclose(after[mask], h[mask], rtol=1e-9, atol=1e-12)


def test_gates_of_large_inputs_are_full_or_shut():
    model = fg.Sequential([fg.GRU(3, seed=3)])
    gates = explain.gate_activations(model, np.full((1, 2, 2), -1e6))
    for name in ("update", "reset"):
        assert set(gates[name].ravel().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "look",
    [
        explain.saliency,
        explain.occlusion,
        explain.attention,
        explain.gate_activations,
        lambda model, x: robust.pgd(model, x, [0, 1], 0.1),
    ],
)
def test_states_that_would_go_on_are_refused(look):
    layer = fg.GRU(2, stateful=True)
    model = compiled(fg.Sequential([layer, fg.Dense(2, "softmax")]))
    with pytest.raises(ValueError, match="gru: expected a layer that is not stateful"):
        look(model, np.ones((2, 3, 1)))


def test_mistakes_are_named(features):
    model, x = features
    with pytest.raises(ValueError, match="target: expected integers from 0 to 2, given 3"):
        explain.saliency(model, x, 3)
    for target in ([0, 1, 2], [1], [[0, 1]]):
        with pytest.raises(ValueError, match="target: expected an integer, or one for each of 2 r"):
            explain.saliency(model, x, target)
    with pytest.raises(ValueError, match=r"baseline: .* broadcasts to \(2, 5, 4\), given \(3,\)"):
        explain.integrated_gradients(model, x, baseline=np.zeros(3))
    with pytest.raises(TypeError, match="baseline: expected a finite number, given None"):
        explain.occlusion(model, x, baseline=None)
    with pytest.raises(TypeError, match="model: expected a Sequential"):
        explain.saliency(model.layers[1], x)
    every = fg.Sequential([fg.GRU(3, return_sequences=True, dtype="float64")])
    with pytest.raises(ValueError, match="expected outputs of shape"):
        explain.saliency(every, x)
    with pytest.raises(RuntimeError, match="compile"):
        robust.fgsm(model, x, [0, 1], 0.1)


# ---- attacks


def compiled(model):
    model.compile(fg.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("kind", ["features", "words"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("attack", [robust.fgsm, robust.pgd])
def test_attacks_make_the_loss_larger_and_keep_within_their_limit(kind, norm, attack, request):
    model, x = request.getfixturevalue(kind)
    compiled(model)
    y = np.array([1, 2])
    clean = attack(model, x, y, 0.0, norm=norm, lengths=LENGTHS)
    moved = attack(model, x, y, 0.2, norm=norm, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        own, change = clean[b, :n], moved[b, :n] - clean[b, :n]
        length = np.sqrt((change**2).sum() / (own**2).sum())
        np.testing.assert_allclose(length, 0.2, rtol=1e-2)
        if norm == "linf":
            assert np.abs(change).max() <= 0.2 * np.sqrt((own**2).mean()) * 1.0001
    assert not (moved - clean)[1, 3:].any()

    def loss(vectors):
        p = robust.predict_vectors(model, x, vectors, lengths=LENGTHS)
        return -np.log(p[[0, 1], y])

    assert (loss(moved) > loss(clean)).all()


def test_adversarial_training_adds_the_gradients_of_the_attacked_batch(rng):
    layers = [fg.GRU(6, dtype="float64", seed=3), fg.Dense(3, "softmax", dtype="float64", seed=3)]
    model = compiled(fg.Sequential(layers))
    x, y = rng.normal(size=(4, 5, 2)), np.array([0, 1, 2, 1])
    attacked = robust.fgsm(model, x, y, 0.3)
    want = 0
    for batch in (x, attacked):
        model.train_on_batch(batch, y)
        want = want + model.layers[0].grads["kernel"]
    history = model.fit(x, y, callbacks=[robust.AdversarialTraining(0.3)], verbose=0, shuffle=False)
    np.testing.assert_allclose(model.layers[0].grads["kernel"], want, rtol=1e-9)
    assert history.history["loss"][0] == pytest.approx(model.evaluate(x, y))
    assert model.adversary is None


def test_adversarial_training_is_refused_where_states_would_go_on_twice():
    model = fg.Sequential([fg.Bidirectional(fg.GRU(2, stateful=True)), fg.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="expected a layer that is not stateful"):
        model.fit(np.ones((2, 3, 1)), [0, 1], callbacks=[robust.AdversarialTraining()], verbose=0)


def test_adversarial_training_works_on_embeddings_and_makes_models_harder_to_mislead(rng):
    x = rng.integers(1, 9, (64, 6))
    y = (x < 5).sum(axis=1) > 3
    accuracies = []
    for callbacks in ([], [robust.AdversarialTraining(0.4)]):
        fg.set_random_seed(3)
        embedding = fg.Embedding(9, 6, mask_zero=True, seed=3)
        model = fg.Sequential([embedding, fg.GRU(8, seed=3), fg.Dense(1, "sigmoid", seed=3)])
        model.compile(fg.optimizers.Adam(0.02), "binary_crossentropy")
        model.fit(x, y, epochs=30, callbacks=callbacks, verbose=0)
        vectors = robust.pgd(model, x, y, 0.4)
        right = (robust.predict_vectors(model, x, vectors)[:, 0] > 0.5) == y
        accuracies.append(right.mean())
    assert accuracies[1] > accuracies[0] + 0.05


@pytest.mark.parametrize("kind", ["features", "words"])
def test_what_is_in_the_padding_has_no_effect(kind, request):
    model, x = request.getfixturevalue(kind)
    compiled(model)
    other, y, real = x.copy(), np.array([0, 2]), np.arange(5) < np.array(LENGTHS)[:, None]
    other[~real] = np.nan if kind == "features" else 99
    for look in (
        lambda x: explain.saliency(model, x, y, lengths=LENGTHS),
        lambda x: explain.integrated_gradients(model, x, y, lengths=LENGTHS),
        lambda x: robust.fgsm(model, x, y, 0.1, lengths=LENGTHS)[real],
    ):
        assert np.array_equal(look(x), look(other))


@pytest.mark.parametrize("kind", ["features", "words"])
def test_adversarial_training_leaves_the_padding_out(kind, request):
    other = request.getfixturevalue(kind)[1].copy()
    other[1, 3:] = np.nan if kind == "features" else 99
    results = []
    for x in (request.getfixturevalue(kind)[1], other):
        model = model_of(fg.Embedding(9, 4, seed=1) if kind == "words" else None, dtype="float32")
        model.compile("sgd", "sparse_categorical_crossentropy")
        callbacks = [robust.AdversarialTraining(0.3)]
        model.fit(x, [0, 2], lengths=LENGTHS, callbacks=callbacks, verbose=0, shuffle=False)
        results.append(model.get_weights())
    assert all(map(np.array_equal, *results))
