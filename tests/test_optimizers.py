"""Optimizers: steps like their twins', clipping, state, and what they refuse."""

import copy
import math

import numpy as np
import pytest

from fastgru import optimizers, reference
from fastgru.errors import NonFiniteError
from fastgru.optimizers import SGD, Adam

SHAPES = [(3, 4), (7,), (2, 3, 5), (), (0, 2)]
RECIPES = [
    (SGD, {}),
    (SGD, {"learning_rate": 0.2, "momentum": 0.8}),
    (SGD, {"learning_rate": 0.2, "momentum": 0.8, "nesterov": True}),
    (Adam, {}),
    (Adam, {"learning_rate": 0.2, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3}),
]


def arrays(seed, dtype="float64"):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape), dtype) for shape in SHAPES]


def twin_run(kind, options, params, gradients):
    """Apply the updates in plain NumPy."""
    options = {"learning_rate": 0.01 if kind is SGD else 0.001, **options}
    result = []
    for i, param in enumerate(params):
        slots = [np.zeros_like(param)] * (1 if kind is SGD else 2)
        for step, grads in enumerate(gradients, 1):
            if kind is SGD:
                param, *slots = reference.sgd_update(param, grads[i], *slots, **options)
            else:
                param, *slots = reference.adam_update(param, grads[i], *slots, step, **options)
        result.append(param)
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), RECIPES)
def test_several_steps_are_those_of_the_twin(kind, options, dtype):
    params, gradients = arrays(0, dtype), [arrays(seed, dtype) for seed in (1, 2, 3)]
    exact = [[g.astype(float) for g in grads] for grads in gradients]
    want = twin_run(kind, options, [p.astype(float) for p in params], exact)
    optimizer, same = kind(**options), list(params)
    for grads in gradients:
        kept = [g.copy() for g in grads]
        assert optimizer.apply(params, grads) is None
        assert all((a == b).all() for a, b in zip(grads, kept, strict=True))
    assert optimizer.iterations == 3 and all(a is b for a, b in zip(params, same, strict=True))
    for got, expected in zip(params, want, strict=True):
        rtol = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("kind", "options"), RECIPES)
def test_it_finds_the_bottom_of_a_bowl(kind, options):
    options = {**options, "learning_rate": 0.1}
    optimizer, param = kind(**options), np.array([3.0, -2.0])
    for _ in range(400):
        optimizer.apply([param], [2 * param])
    assert np.abs(param).max() < 0.02


def test_gradients_may_be_read_only_strided_or_of_another_dtype():
    want, got = np.zeros((3, 4), "float32"), np.zeros((3, 4), "float32")
    grad = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    frozen = grad.astype(">f8")
    frozen.flags.writeable = False
    SGD(0.1).apply([want], [grad])
    for given in (frozen, np.asfortranarray(grad), grad.tolist()):
        got[:] = 0
        SGD(0.1).apply([got], [given])
        np.testing.assert_array_equal(got, want)


# ---- clipping


def test_clipvalue_limits_each_element():
    param = np.zeros(3)
    assert SGD(1.0, clipvalue=0.5).apply([param], [np.array([2.0, -3.0, 0.1])]) is None
    np.testing.assert_allclose(param, [-0.5, 0.5, -0.1])


def test_clipnorm_shortens_each_gradient():
    params, grads = arrays(0), arrays(1)
    want = [p - reference.clip_by_norm(g, 1.5) if g.size else p
            for p, g in zip(params, grads, strict=True)]  # fmt: skip
    norm = SGD(1.0, clipnorm=1.5).apply(params, grads)
    for got, expected in zip(params, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert norm == pytest.approx(math.sqrt(sum((g * g).sum() for g in grads)))


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_global_clipnorm_shortens_all_by_one_factor(limit):
    params, grads = arrays(0), arrays(1)
    clipped = reference.clip_by_global_norm(grads, limit)
    want = twin_run(Adam, {"epsilon": 0.1}, params, [clipped])
    norm = Adam(epsilon=0.1, global_clipnorm=limit).apply(params, grads)
    assert norm == pytest.approx(math.sqrt(sum((g * g).sum() for g in grads)))
    for got, expected in zip(params, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [None, "clipnorm", "global_clipnorm", "clipvalue"])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_gradient_that_is_not_finite_changes_nothing(kind, clip, bad):
    optimizer = kind(**({clip: 1.0} if clip else {}))
    params = arrays(0)
    optimizer.apply(params, arrays(1))
    before, state = [p.copy() for p in params], optimizer.get_state()
    grads = arrays(2)
    grads[2][1, 0, 4] = bad
    if clip == "clipvalue" and math.isinf(bad):  # clipping makes it finite
        assert optimizer.apply(params, grads) is None and np.isfinite(params[2]).all()
        return
    message = (
        "length of the gradients is" if clip in ("clipnorm", "global_clipnorm") else "gradient"
    )
    with pytest.raises(NonFiniteError, match=f"{message}.*; no weight was changed"):
        optimizer.apply(params, grads)
    assert all(map(np.array_equal, params, before))
    after = optimizer.get_state()
    assert after.keys() == state.keys() and all(np.array_equal(after[k], state[k]) for k in state)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("where", [0, 3, 18])
@pytest.mark.parametrize(("kind", "options"), RECIPES)
def test_an_update_that_is_too_large_is_noticed(kind, options, where, dtype):
    largest = np.finfo(dtype).max
    grad, param = np.zeros(19, dtype), np.zeros(19, dtype)
    grad[where], param[where] = -1, largest
    optimizer = kind(**{**options, "learning_rate": float(largest)})
    with pytest.raises(NonFiniteError, match="the update was too large; weights were changed"):
        optimizer.apply([np.zeros(2, dtype), param], [np.zeros(2, dtype), grad])
    assert np.isinf(param).tolist() == (np.arange(19) == where).tolist()


def test_a_square_that_is_infinite_is_noticed():
    """The param itself would stay where it is, for ever."""
    param = np.ones(3, "float32")
    with pytest.raises(NonFiniteError, match="the update was too large"):
        Adam().apply([param], [np.array([1, 1e30, 1], "float32")])
    assert np.isfinite(param).all()


# ---- state and config


@pytest.mark.parametrize("after", ["new", "used"])
@pytest.mark.parametrize(("kind", "options"), RECIPES)
def test_training_goes_on_from_a_state_as_if_never_stopped(kind, options, after):
    gradients = [arrays(seed, "float32") for seed in range(1, 6)]
    params, optimizer = arrays(0, "float32"), kind(**options)
    for grads in gradients[:2]:
        optimizer.apply(params, grads)
    optimizer.learning_rate = 0.05
    state, kept = optimizer.get_state(), [p.copy() for p in params]
    for grads in gradients[2:]:
        optimizer.apply(params, grads)

    again = optimizer if after == "used" else kind.from_config(optimizer.get_config())
    again.set_state(state)
    assert again.iterations == 2 and again.learning_rate == 0.05
    for grads in gradients[2:]:
        again.apply(kept, grads)
    for got, want in zip(kept, params, strict=True):
        np.testing.assert_array_equal(got, want)
    assert all(a == b if np.isscalar(a) else (a == b).all() for a, b in zip(
        optimizer.get_state().values(), again.get_state().values(), strict=True))  # fmt: skip


def test_the_state_has_names():
    optimizer = Adam()
    assert optimizer.get_state() == {"iterations": 0, "learning_rate": 0.001}
    optimizer.apply([np.zeros((2, 3)), np.zeros(5)], [np.zeros((2, 3)), np.zeros(5)])
    state = optimizer.get_state()
    assert list(state) == ["iterations", "learning_rate", "m.0", "m.1", "v.0", "v.1"]
    assert state["m.0"].shape == (2, 3) and state["v.1"].shape == (5,)
    state["m.0"][:] = 9
    assert not optimizer.get_state()["m.0"].any()
    optimizer.set_state(Adam().get_state())  # back to the very beginning
    assert optimizer.iterations == 0 and "m.0" not in optimizer.get_state()
    assert list(SGD(momentum=0.9).get_state()) == ["iterations", "learning_rate"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"iterations": None}, TypeError, r"state\['iterations'\]: expected an integer >= 0"),
        ({"iterations": True}, TypeError, r"state\['iterations'\]: .* >= 0, given True"),
        ({"iterations": -1}, ValueError, r"state\['iterations'\]: .* integer >= 0, given -1"),
        ({"iterations": 10**400}, ValueError, r"state\['iterations'\]: expected a number >= 0"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate: expected a number >= 0"),
        ({"speed.0": np.zeros(2)}, ValueError, r"state: expected m.0 ... m.n, v.0 .* for Adam"),
        ({"m.0": np.zeros(3)}, ValueError, "state: expected arrays like"),
        ({"m.0": np.zeros(2, int)}, TypeError, r"float64 in 'm.0', given int64"),
    ],
)
def test_a_wrong_state_changes_nothing(change, error, message):
    optimizer = Adam()
    optimizer.apply([np.zeros(2)], [np.ones(2)])
    before = optimizer.get_state()
    with pytest.raises(error, match=message):
        optimizer.set_state({**before, **change})
    after = optimizer.get_state()
    assert after.keys() == before.keys() and (after["m.0"] == before["m.0"]).all()


@pytest.mark.parametrize(("kind", "options"), [*RECIPES, (SGD, {"clipnorm": 2.0})])
def test_config_makes_the_same_optimizer(kind, options):
    config = kind(**options).get_config()
    assert config["name"] == kind.name
    assert kind.from_config(config).get_config() == config
    assert type(optimizers.get(config)) is kind and optimizers.get(config).get_config() == config
    assert {k: config[k] for k in options} == options


def test_defaults_are_those_of_keras():
    assert SGD().get_config() == {
        "name": "sgd", "learning_rate": 0.01, "momentum": 0.0, "nesterov": False,
        "clipnorm": None, "clipvalue": None, "global_clipnorm": None,
    }  # fmt: skip
    assert Adam().get_config() == {
        "name": "adam", "learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7,
        "clipnorm": None, "clipvalue": None, "global_clipnorm": None,
    }  # fmt: skip


# ---- names and numbers


def test_optimizers_are_known_by_name():
    assert type(optimizers.get("adam")) is Adam and type(optimizers.get("Adam")) is Adam
    assert type(optimizers.get("SGD")) is SGD
    optimizer = SGD()
    assert optimizers.get(optimizer) is optimizer
    with pytest.raises(ValueError, match="optimizer: expected one of adam, sgd, given 'adan'"):
        optimizers.get("adan")
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        optimizers.get("adamw")
    for wrong in (None, 0.1, {"learning_rate": 1}):
        with pytest.raises(TypeError, match="optimizer: expected one of adam, sgd"):
            optimizers.get(wrong)


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_lr_is_another_name_for_learning_rate(kind):
    assert kind(lr=0.25).learning_rate == kind(0.25).learning_rate == 0.25
    with pytest.raises(TypeError, match="lr: expected either learning_rate or its alias lr"):
        kind(learning_rate=0.1, lr=0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(-0.1), ValueError, "learning_rate: expected a number >= 0, given -0.1"),
        (lambda: SGD(math.nan), ValueError, "learning_rate: expected a number >= 0, given nan"),
        (lambda: SGD(10**400), ValueError, "learning_rate: expected a number >= 0, given 1000"),
        (lambda: SGD("fast"), TypeError, "learning_rate: expected a number >= 0, given 'fast'"),
        (lambda: SGD(momentum=1.0), ValueError, r"momentum: expected a number in \[0, 1\)"),
        (lambda: SGD(momentum=-0.1), ValueError, r"momentum: expected .* given -0.1"),
        (lambda: SGD(nesterov=1), TypeError, "nesterov: expected a bool, given 1"),
        (lambda: Adam(beta_1=1), ValueError, r"beta_1: expected a number in \[0, 1\), given 1"),
        (lambda: Adam(beta_2=-1), ValueError, "beta_2: expected"),
        (lambda: Adam(epsilon=0), ValueError, "epsilon: expected a number > 0, given 0"),
        (lambda: Adam(clipnorm=0), ValueError, "clipnorm: expected a number > 0, given 0"),
        (lambda: Adam(clipvalue=-1), ValueError, "clipvalue: expected a number > 0, given -1"),
        (lambda: Adam(global_clipnorm=True), TypeError, "global_clipnorm: expected a number > 0"),
        (
            lambda: Adam(clipnorm=1, clipvalue=2), ValueError,
            "at most one of them, given clipnorm=1, clipvalue=2",
        ),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_learning_rate_may_change_but_not_to_nonsense():
    optimizer = Adam()
    optimizer.learning_rate = np.float32(0.5)
    assert type(optimizer.learning_rate) is float and optimizer.learning_rate == 0.5
    with pytest.raises(ValueError, match="learning_rate: expected a number >= 0, given -1"):
        optimizer.learning_rate = -1
    assert optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("params", "grads", "error", "message"),
    [
        ([np.zeros(3)] * 2, [np.ones(3)], ValueError, "grads: expected 2 arrays, given 1"),
        ([np.zeros(3)], [np.ones(4)], ValueError, r"grads\[0\]: expected shape \(3,\), given \(4,"),
        ([np.zeros(3, int)], [np.ones(3)], TypeError, r"params\[0\]: expected .* given int64"),
        ([[0.0]], [np.ones(1)], TypeError, r"params\[0\]: expected an array of .* given list"),
        ([np.zeros((4, 4))[:, ::2]], [np.ones((4, 2))], ValueError, r"params\[0\]: .*C-contig"),
        ([np.zeros(3, ">f8")], [np.ones(3)], ValueError, r"params\[0\]: .* native byte order"),
        ([np.zeros(3), np.zeros(2)], [np.ones(3), "no"], ValueError, r"grads\[1\]: expected shape"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_change_nothing(params, grads, error, message):
    optimizer = Adam()
    with pytest.raises(error, match=message):
        optimizer.apply(params, grads)
    assert optimizer.iterations == 0 and not any(np.any(p) for p in params)


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_other_params_in_a_later_call_are_refused(kind):
    optimizer = kind()
    optimizer.apply([np.zeros(3)], [np.ones(3)])
    for other in (np.zeros(4), np.zeros(3, "float32")):
        with pytest.raises(ValueError, match="params: expected the arrays that this optimizer"):
            optimizer.apply([other], [np.ones_like(other)])
    assert optimizer.iterations == 1
    if kind is Adam:
        fresh = Adam()
        fresh.set_state(optimizer.get_state())
        with pytest.raises(ValueError, match=r"float64 \(3,\).*given \[float64 \(4,\)\]"):
            fresh.apply([np.zeros(4)], [np.ones(4)])


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_arrays_of_the_same_shapes_are_other_params(kind):
    optimizer, mine, other = kind(), [np.zeros(3)], [np.zeros(3)]
    optimizer.apply(mine, [np.ones(3)])
    for update in (optimizer.check, lambda params: optimizer.apply(params, [np.ones(3)])):
        with pytest.raises(ValueError, match="updated before, given others of the same shapes"):
            update(other)
    assert optimizer.iterations == 1 and not other[0].any()
    optimizer.apply(mine, [np.ones(3)])
    twin = copy.deepcopy(optimizer)  # of the state, for a copy of the params
    twin.apply(other, [np.ones(3)])
    assert twin.iterations == 3 and optimizer.iterations == 2
    optimizer.set_state(optimizer.get_state())
    optimizer.apply(other, [np.ones(3)])
    with pytest.raises(ValueError, match="others of the same shapes"):
        optimizer.apply(mine, [np.ones(3)])
