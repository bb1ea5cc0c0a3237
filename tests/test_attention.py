"""Attention: weights and gradients of every score, masks, queries, and clear refusals."""

import numpy as np
import pytest
import test_layers

import fastgru as fg
from fastgru import reference

F64 = {"dtype": "float64", "seed": 3}
B, S, T, I_, Q, U = 4, 2, 5, 3, 6, 7
LENGTHS = [5, 0, 2, 3]
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1]], bool)

# Options, and the shape of the query.
KINDS = {
    "pooling": ({"units": U}, None),
    "additive": ({"units": U}, (B, S, Q)),
    "additive, one query": ({"units": U}, (B, Q)),
    "general": ({"score": "general"}, (B, S, Q)),
    "general, one query": ({"score": "general"}, (B, Q)),
    "dot": ({"score": "dot"}, (B, S, I_)),
    "dot, one query": ({"score": "dot"}, (B, I_)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def example(kind, dtype="float64", **options):
    """Return a layer with random weights, values and a query."""
    random = np.random.default_rng(1)
    own, shape = KINDS[kind]
    layer = fg.Attention(**own, **options, dtype=dtype, seed=3)
    x = random.normal(size=(B, T, I_)).astype(dtype)
    query = None if shape is None else random.normal(size=shape).astype(dtype)
    layer(x, query=query)
    layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    return layer, x, query


def expected(layer, x, mask, query):
    """Return the output and the weights of the reference, in the shapes of the layer."""
    params = dict(layer.weights())
    queries = query if query is None or query.ndim == 3 else query[:, None]
    if layer.score == "additive":
        keys = x @ params["kernel"] + params["bias"]
        projected = np.zeros((len(x), 1, keys.shape[2]))
        if queries is not None:
            projected = queries @ params["query_kernel"]
        scores = reference.additive_scores(projected, keys, params["scale"])
    else:
        projected = queries @ params.get("query_kernel", np.eye(x.shape[2]))
        scores = reference.dot_scores(projected, x)
    results = reference.attend(scores, x, mask)
    one = query is None or query.ndim == 2
    return [result[:, 0] if one else result for result in results]


@every_kind
@pytest.mark.parametrize("steps", [{}, {"lengths": LENGTHS}, {"mask": MASK}])
def test_output_and_weights_are_those_of_the_reference(kind, steps):
    layer, x, query = example(kind, return_weights=True)
    mask = np.arange(T) < np.array(LENGTHS)[:, None] if "lengths" in steps else steps.get("mask")
    want = expected(layer, x, mask, query)
    for got in (layer(x, query=query, **steps), layer.forward(x, query=query, **steps)[0]):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    sums = got[1].sum(axis=-1)
    real = np.ones(B, bool) if mask is None else mask.any(axis=1)
    np.testing.assert_allclose(sums[real], 1, rtol=1e-12)
    assert not got[0][~real].any() and not got[1][~real].any()


@every_kind
@pytest.mark.parametrize("return_weights", [False, True])
@pytest.mark.parametrize("steps", [{}, {"lengths": LENGTHS}, {"mask": MASK}])
def test_gradients_are_central_differences(kind, return_weights, steps):
    layer, x, query = example(kind, return_weights=return_weights)
    random = np.random.default_rng(5)
    outputs, backward = layer.forward(x, query=query, **steps)
    outputs = outputs if return_weights else [outputs]
    gradients = [random.normal(size=y.shape) for y in outputs]
    got = backward(*gradients)
    pairs = {"x": (got, x)}
    if query is not None:
        pairs = {"x": (got[0], x), "query": (got[1], query)}
    pairs |= {name: (layer.grads[name], param) for name, param in layer.params.items()}
    assert ("query_kernel" in pairs) == (query is not None and layer.score != "dot")
    for name, (gradient, array) in pairs.items():
        want = test_layers.numeric(layer, x, gradients, array, query=query, **steps)
        np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-8, err_msg=name)


def test_one_of_the_gradients_may_be_missing():
    layer, x, query = example("general", return_weights=True)
    (y, weights), backward = layer.forward(x, query=query)
    first = backward(None, np.ones_like(weights))
    _, backward = layer.forward(x, query=query)
    second = backward(np.zeros_like(y), [np.ones_like(weights)])
    assert all(map(np.array_equal, first, second))


@every_kind
@both_dtypes
def test_padding_is_invisible_whatever_it_holds_and_however_long_it_is(kind, dtype):
    layer, x, query = example(kind, dtype)
    lengths = np.array([2, 0, 3, 3])
    random = np.random.default_rng(2)
    shape = (B, I_) if query is None or query.ndim == 2 else (B, S, I_)
    dy = random.normal(size=shape).astype(dtype)
    results = []
    for padding, steps in ((0, 3), (np.nan, 5), (np.inf, 12), (1e30, 40)):
        mask = np.arange(steps) < lengths[:, None]
        values = np.full((B, steps, I_), padding, dtype)
        values[mask] = x[np.arange(T) < lengths[:, None]]
        before = values.copy()
        layer.zero_gradients()
        y, backward = layer.forward(values, lengths=lengths, query=query)
        got = backward(dy)
        dx, *dquery = got if isinstance(got, tuple) else (got,)
        assert not dx[~mask].any() and np.array_equal(values, before, equal_nan=True)
        results.append([y, dx[mask], *dquery, *layer.get_gradients()])
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))


@every_kind
@both_dtypes
def test_neither_the_batch_nor_the_threads_change_a_bit(kind, dtype, threads):
    layer, x, query = example(kind, dtype)
    results = []
    for n in (1, 2, 3):
        threads.set_num_threads(n)
        layer.zero_gradients()
        y, backward = layer.forward(x, lengths=LENGTHS, query=query)
        got = backward(np.ones_like(y))
        results.append([y, *(got if isinstance(got, tuple) else [got]), *layer.get_gradients()])
    assert all(map(np.array_equal, results[0], results[1]))
    assert all(map(np.array_equal, results[0], results[2]))
    rows = results[0][: 2 + (query is not None)]
    for b in range(B):
        part = None if query is None else query[b : b + 1]
        y, backward = layer.forward(x[b : b + 1], lengths=LENGTHS[b : b + 1], query=part)
        got = backward(np.ones_like(y))
        for one, all_rows in zip(
            [y, *(got if isinstance(got, tuple) else [got])], rows, strict=True
        ):
            assert np.array_equal(one[0], all_rows[b])


@pytest.mark.parametrize("kind", ["additive", "general", "dot"])
@both_dtypes
def test_queries_one_at_a_time_have_the_bits_of_all_together(kind, dtype):
    layer, x, query = example(kind, dtype, return_weights=True)
    y, weights = layer(x, lengths=LENGTHS, query=query)
    attend = layer.over(x, lengths=LENGTHS)
    assert all(map(np.array_equal, attend(query), (y, weights)))
    for s in range(S):
        assert all(map(np.array_equal, attend(query[:, s]), (y[:, s], weights[:, s])))
        assert all(
            map(np.array_equal, layer(x, lengths=LENGTHS, query=query[:, s]), attend(query[:, s]))
        )


@every_kind
@pytest.mark.parametrize("empty", ["batch", "steps", "queries"])
def test_empty_axes_go_through(kind, empty):
    layer, x, query = example(kind, return_weights=True)
    if empty == "batch":
        x, query = x[:0], None if query is None else query[:0]
    elif empty == "steps":
        x = x[:, :0]
    elif query is not None and query.ndim == 3:
        query = query[:, :0]
    (y, weights), backward = layer.forward(x, query=query)
    shape = x.shape[:1] if query is None else query.shape[:-1]
    assert y.shape == (*shape, I_) and weights.shape == (*shape, x.shape[1])
    got = backward(np.ones_like(y))
    dx, *dquery = got if isinstance(got, tuple) else (got,)
    assert dx.shape == x.shape and all(d.shape == query.shape for d in dquery)
    if empty != "queries":
        assert not y.any() and not any(g.any() for g in layer.get_gradients())


@every_kind
def test_any_layout_of_values_and_query_gives_the_same_bits(kind):
    layer, x, query = example(kind, "float32")
    want, backward = layer.forward(x, query=query)
    dy = np.ones_like(want)
    want_back = backward(dy)

    def others(array):
        frozen = array.copy()
        frozen.flags.writeable = False
        strided = np.repeat(np.repeat(array, 2, axis=0), 2, axis=-1)[::2, ..., ::2]
        return frozen, strided, np.asfortranarray(array), array.astype(">f4"), array.astype(float)

    for i, values in enumerate(others(x)):
        given = None if query is None else others(query)[i]
        y, backward = layer.forward(values, query=given)
        got = backward(others(dy)[i])
        assert np.array_equal(y, want)
        pairs = (got, want_back) if isinstance(got, tuple) else ((got,), (want_back,))
        assert all(map(np.array_equal, *pairs))


def test_a_query_at_the_first_call_says_its_size_and_files_keep_it(tmp_path):
    layer = fg.Attention(seed=0)
    layer(np.ones((2, 3, 4)), query=np.ones((2, 5)))
    assert layer.query_dim == 5 and layer.params["query_kernel"].shape == (5, 4)
    again = fg.Attention.from_config(layer.get_config())
    again.build((None, None, 4))
    assert list(again.params) == ["kernel", "query_kernel", "bias", "scale"]
    pooling = fg.Attention()
    pooling(np.ones((2, 3, 4)))
    assert list(pooling.params) == ["kernel", "bias", "scale"]


def test_a_model_with_attention_learns_where_to_look_saves_itself_and_shows_its_weights(tmp_path):
    random = np.random.default_rng(0)
    x = random.integers(2, 9, (200, 12))
    places = random.integers(0, 12, 200)
    x[np.arange(200), places] = random.integers(0, 2, 200)  # the only word that matters
    y = x[np.arange(200), places]
    fg.set_random_seed(0)
    model = fg.Sequential(
        [fg.Embedding(9, 8), fg.Attention(return_weights=True), fg.Dense(1, "sigmoid")]
    )
    model.compile(fg.optimizers.Adam(0.03), "binary_crossentropy", ["accuracy"])
    history = model.fit(x, y, epochs=30, verbose=0)
    assert history.history["accuracy"][-1] > 0.99
    output, (weights,) = model.predict(x, return_states=True)
    assert (weights.argmax(axis=1) == places).mean() > 0.95
    model.save(tmp_path / "m.safetensors")
    again, (same,) = fg.load_model(tmp_path / "m.safetensors").predict(x, return_states=True)
    assert np.array_equal(output, again) and np.array_equal(weights, same)


def test_masks_reach_attention_through_a_model():
    x = np.array([[3, 4, 0, 0], [5, 0, 0, 0]])
    model = fg.Sequential([fg.Embedding(9, 8, mask_zero=True), fg.Attention(return_weights=True)])
    _, (weights,) = model.predict(x, return_states=True)
    assert np.array_equal(weights > 0, x > 0)


@pytest.mark.parametrize("kind", ["dot", "dot, one query"])
def test_pytorch_agrees_where_it_is_installed(kind):
    torch = pytest.importorskip("torch")
    layer, x, query = example(kind)
    real = MASK.copy()
    real[1, 2] = True  # there PyTorch gives NaN
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, query)]
    values, asked = tensors
    asked = asked if asked.ndim == 3 else asked[:, None]
    y = torch.nn.functional.scaled_dot_product_attention(
        asked, values, values, torch.tensor(real)[:, None].expand(-1, asked.shape[1], -1), scale=1.0
    )
    y = y.reshape(*query.shape[:-1], I_)
    dy = np.random.default_rng(0).normal(size=y.shape)
    (y * torch.tensor(dy)).sum().backward()
    got, backward = layer.forward(x, mask=real, query=query)
    np.testing.assert_allclose(got, y.detach(), rtol=1e-10)
    for gradient, tensor in zip(backward(dy), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-10, atol=1e-12)


X, ASKED = np.zeros((B, T, I_)), np.zeros((B, S, Q))


def pooled():
    layer = fg.Attention()
    layer(X)
    return layer


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: fg.Attention("luong"), ValueError, "score: expected one of additive, dot, gen"),
        (lambda: fg.Attention(units=0), ValueError, "units: expected a positive integer, given 0"),
        (lambda: fg.Attention(query_dim=-1), ValueError, "query_dim: expected a positive integer"),
        (lambda: fg.Attention()(X[0]), ValueError, r"attention: x: .*x\[None\]"),
        (lambda: fg.Attention()(X, lengths=[6, 0, 0, 0]), ValueError, "lengths: expected values"),
        (lambda: fg.Attention()(X, mask=X[..., 0]), TypeError, "mask: expected an array of bool"),
        (lambda: fg.Attention("dot")(X), ValueError, r"query: expected shape \(4, 3\) or .*None"),
        (lambda: fg.Attention("dot")(X, query=ASKED), ValueError, r"query: .*given \(4, 2, 6\)"),
        (lambda: fg.Attention("general")(X), ValueError, "query_dim: expected a positive integer"),
        (lambda: fg.Attention()(X, query=ASKED[:3]), ValueError, r"query: .*\(4, queries, 6\)"),
        (lambda: fg.Attention()(X, query=1.0), ValueError, r"query: .*given \(\)"),
        (lambda: fg.Attention()(X, query="now"), TypeError, "query: expected real numbers"),
        (lambda: pooled()(X, query=ASKED), ValueError, r"query: expected none.*\(4, 2, 6\)"),
        (lambda: pooled()(X[..., :2]), ValueError, r"x: expected shape \(batch, steps, 3\)"),
        (lambda: pooled().forward(X)[1](X), ValueError, r"dy: expected shape \(4, 3\)"),
        (lambda: fg.Attention().build((None, 4)), ValueError, r"\(batch, steps, inputs\)"),
        (lambda: fg.Attention().stream(), TypeError, "cannot work step by step"),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_backward_runs_once():
    y, backward = pooled().forward(X)
    backward(y)
    with pytest.raises(RuntimeError, match="backward was called before"):
        backward(y)
