"""Optimizers: steps like their twins', clipping, state, and what they refuse."""

import copy
import math

import numpy as np
import pytest

from fastgru import optimizers, reference
from fastgru.errors import NonFiniteError
from fastgru.optimizers import SGD, Adam, AdamW, CosineDecay, ExponentialDecay, RMSprop

SHAPES = [(3, 4), (7,), (2, 3, 5), (), (0, 2)]
RECIPES = [
    (SGD, {}),
    (SGD, {"learning_rate": 0.2, "momentum": 0.8}),
    (SGD, {"learning_rate": 0.2, "momentum": 0.8, "nesterov": True}),
    (Adam, {}),
    (Adam, {"learning_rate": 0.2, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3}),
    (AdamW, {"learning_rate": 0.2, "weight_decay": 0.3}),
    (RMSprop, {}),
    (RMSprop, {"learning_rate": 0.2, "rho": 0.7, "momentum": 0.8, "epsilon": 1e-3}),
    (RMSprop, {"centered": True, "epsilon": 1e-3}),
    (RMSprop, {"centered": True, "momentum": 0.5, "epsilon": 1e-3, "weight_decay": 0.3}),
    (SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.3}),
]
KINDS = [SGD, RMSprop, Adam, AdamW]
DEFAULTS = {
    "weight_decay": None, "clipnorm": None, "clipvalue": None, "global_clipnorm": None,
    "use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None,
    "gradient_accumulation_steps": None,
}  # fmt: skip


def arrays(seed, dtype="float64"):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape), dtype) for shape in SHAPES]


def twin_run(kind, options, params, gradients):
    """Apply the updates in plain NumPy."""
    options = {"learning_rate": 0.01 if kind is SGD else 0.001, **options}
    if kind is AdamW:
        options.setdefault("weight_decay", 0.004)
    update, n = {
        SGD: (reference.sgd_update, 1),
        RMSprop: (reference.rmsprop_update, 3),
        Adam: (reference.adam_update, 2),
        AdamW: (reference.adam_update, 2),
    }[kind]
    result = []
    for i, param in enumerate(params):
        slots = [np.zeros_like(param)] * n
        for step, grads in enumerate(gradients, 1):
            steps = [step] if update is reference.adam_update else []
            param, *slots = update(param, grads[i], *slots, *steps, **options)
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
    # The steps of RMSprop do not become shorter by themselves.
    rate = ExponentialDecay(0.1, 100, 0.2) if kind is RMSprop else 0.1
    optimizer, param = kind(**{**options, "learning_rate": rate}), np.array([3.0, -2.0])
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


@pytest.mark.parametrize("steps", [None, 2])
def test_clearing_sets_the_gradients_to_zero_and_nothing_else(steps):
    optimizer, twin = (Adam(gradient_accumulation_steps=steps) for _ in range(2))
    params, kept = arrays(0), arrays(0)
    for seed in (1, 2, 3, 4):
        gradients = [np.full_like(p, np.nan) for p in params]
        optimizer.clearing(params, gradients)()
        assert all(not g.any() for g in gradients)
        for g, values in zip(gradients, arrays(seed), strict=True):
            g += values
        optimizer.apply(params, gradients)
        twin.apply(kept, arrays(seed))
    for param, other in zip(params, kept, strict=True):
        assert param.tobytes() == other.tobytes()
    with pytest.raises(ValueError, match="grads: expected 5 arrays, given 4"):
        optimizer.clearing(params, gradients[1:])
    with pytest.raises(ValueError, match="grads: expected C-contiguous, writable arrays of"):
        optimizer.clearing(params, [g.astype("float32") for g in gradients])


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
@pytest.mark.parametrize("kind", KINDS)
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
    # The decay of what is infinite is infinite, too, and their difference NaN.
    optimizer = kind(**{**options, "learning_rate": float(largest), "weight_decay": 0.0})
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
    adam = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    for optimizer, own in (
        (SGD(), {"name": "sgd", "learning_rate": 0.01, "momentum": 0.0, "nesterov": False}),
        (Adam(), {"name": "adam", **adam}),
        (AdamW(), {"name": "adamw", **adam, "weight_decay": 0.004}),
        (RMSprop(), {
            "name": "rmsprop", "learning_rate": 0.001, "rho": 0.9, "momentum": 0.0,
            "epsilon": 1e-7, "centered": False,
        }),
    ):  # fmt: skip
        assert optimizer.get_config() == {**DEFAULTS, **own}


# ---- names and numbers


def test_optimizers_are_known_by_name():
    assert type(optimizers.get("adam")) is Adam and type(optimizers.get("Adam")) is Adam
    assert type(optimizers.get("SGD")) is SGD and type(optimizers.get("rmsprop")) is RMSprop
    assert type(optimizers.get("AdamW")) is AdamW is type(optimizers.get("adamw"))
    optimizer = SGD()
    assert optimizers.get(optimizer) is optimizer
    with pytest.raises(ValueError, match="expected one of adam, adamw, rmsprop, sgd, given 'adan'"):
        optimizers.get("adan")
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        optimizers.get("adams")
    for wrong in (None, 0.1, {"learning_rate": 1}):
        with pytest.raises(TypeError, match="optimizer: expected one of adam, adamw, rmsprop, sgd"):
            optimizers.get(wrong)


@pytest.mark.parametrize("kind", KINDS)
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
        (lambda: RMSprop(rho=1), ValueError, r"rho: expected a number in \[0, 1\), given 1"),
        (lambda: RMSprop(momentum=1), ValueError, r"momentum: expected a number in \[0, 1\)"),
        (lambda: RMSprop(epsilon=0), ValueError, "epsilon: expected a number > 0, given 0"),
        (lambda: RMSprop(centered=0), TypeError, "centered: expected a bool, given 0"),
        (lambda: AdamW(weight_decay=None), TypeError, "weight_decay: .* >= 0, given None"),
        (lambda: SGD(weight_decay=-0.1), ValueError, "weight_decay: expected a number >= 0"),
        (lambda: SGD(use_ema=1), TypeError, "use_ema: expected a bool, given 1"),
        (lambda: SGD(ema_momentum=1.1), ValueError, r"ema_momentum: .* \[0, 1\], given 1.1"),
        (
            lambda: SGD(ema_overwrite_frequency=0), ValueError,
            "ema_overwrite_frequency: expected a positive integer, given 0",
        ),
        (
            lambda: SGD(gradient_accumulation_steps=2.0), TypeError,
            "gradient_accumulation_steps: expected a positive integer, given 2.0",
        ),
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


@pytest.mark.parametrize("kind", KINDS)
def test_other_params_in_a_later_call_are_refused(kind):
    optimizer = kind()
    optimizer.apply([np.zeros(3)], [np.ones(3)])
    for other in (np.zeros(4), np.zeros(3, "float32")):
        with pytest.raises(ValueError, match="params: expected the arrays that this optimizer"):
            optimizer.apply([other], [np.ones_like(other)])
    assert optimizer.iterations == 1
    if kind is not SGD:
        fresh = kind()
        fresh.set_state(optimizer.get_state())
        with pytest.raises(ValueError, match=r"float64 \(3,\).*given \[float64 \(4,\)\]"):
            fresh.apply([np.zeros(4)], [np.ones(4)])


@pytest.mark.parametrize("kind", KINDS)
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


# ---- schedules


RATE = CosineDecay(0.1, 4, warmup_target=0.5, warmup_steps=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_sets_the_rate_of_each_step(kind):
    params, want = arrays(0), arrays(0)
    optimizer, plain = kind(RATE), kind()
    for step in range(8):
        assert optimizer.learning_rate == RATE(step)
        plain.learning_rate = RATE(step)
        optimizer.apply(params, arrays(step))
        plain.apply(want, arrays(step))
    for got, expected in zip(params, want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_schedule_goes_on_where_the_state_was():
    optimizer, params = SGD(RATE, gradient_accumulation_steps=2), arrays(0)
    for step in range(3):
        optimizer.apply(params, arrays(step))
    assert "learning_rate" not in optimizer.get_state()
    again = optimizers.get(optimizer.get_config())
    again.set_state(optimizer.get_state())
    assert again.learning_rate == optimizer.learning_rate == RATE(3)  # it counts batches


def test_any_function_is_a_schedule():
    optimizer, param = SGD(lambda step: 1.0 / (step + 1)), np.zeros(1)
    for _ in range(3):
        optimizer.apply([param], [np.ones(1)])
    assert param[0] == -(1 + 1 / 2 + 1 / 3)
    optimizer.learning_rate = lambda step: -1.0
    before = param.copy()
    with pytest.raises(ValueError, match=r"learning_rate\(3\): expected a number >= 0, given -1.0"):
        optimizer.apply([param], [np.ones(1)])
    assert param == before and optimizer.iterations == 3


def test_a_number_does_not_take_the_place_of_a_schedule():
    optimizer = Adam(RATE)
    message = "learning_rate: expected another schedule in place of one, given 0.1"
    with pytest.raises(TypeError, match=message):
        optimizer.learning_rate = 0.1
    with pytest.raises(TypeError, match=message):
        optimizer.set_state({"iterations": 2, "learning_rate": 0.1})
    assert (
        optimizer.iterations == 0 and optimizer.get_config()["learning_rate"] == RATE.get_config()
    )
    optimizer.learning_rate = ExponentialDecay(0.1, 10, 0.5)
    assert optimizer.learning_rate == 0.1


# ---- the mean of several batches


@pytest.mark.parametrize("clip", [{}, {"clipnorm": 1.0}, {"clipvalue": 0.3}])
@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_gradients_are_one_update_by_their_mean(kind, clip):
    options = {"weight_decay": 0.1, "use_ema": True, **clip}
    optimizer = kind(gradient_accumulation_steps=3, **options)
    plain, params, want = kind(**options), arrays(0), arrays(0)
    for update in range(2):
        gradients = [arrays(10 + 3 * update + i) for i in range(3)]
        for i, grads in enumerate(gradients):
            before = [p.copy() for p in params]
            norm = optimizer.apply(params, grads)
            assert all(map(np.array_equal, params, before)) == (i < 2)
        means = [sum(grads) / 3 for grads in zip(*gradients, strict=True)]
        length = plain.apply(want, means)
        assert (length is None) == ("clipnorm" not in clip)
        assert norm == (length and pytest.approx(length, rel=1e-12))
        assert optimizer.iterations == plain.iterations == update + 1
        for got, expected in zip(params, want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12)
    state, twin = optimizer.get_state(), plain.get_state()
    for name in twin:
        np.testing.assert_allclose(state[name], twin[name], rtol=1e-12, err_msg=name)


def test_a_bad_gradient_among_those_to_accumulate_changes_nothing():
    optimizer, params = Adam(gradient_accumulation_steps=2), arrays(0)
    optimizer.apply(params, arrays(1))
    before = optimizer.get_state()
    grads = arrays(2)
    grads[0][1, 2] = np.inf
    with pytest.raises(NonFiniteError, match="a gradient is NaN or infinite; no weight was"):
        optimizer.apply(params, grads)
    after = optimizer.get_state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    optimizer.apply(params, arrays(2))
    assert optimizer.iterations == 1


def test_the_mean_of_large_gradients_does_not_overflow():
    optimizer, param = SGD(1.0, gradient_accumulation_steps=4), np.zeros(1, "float32")
    for _ in range(4):
        optimizer.apply([param], [np.full(1, 3e38, "float32")])
    assert param[0] == np.float32(-3e38)


# ---- moving averages


def test_the_moving_average_begins_with_the_first_params():
    optimizer, params = SGD(0.1, use_ema=True, ema_momentum=0.8), arrays(0)
    averages = None
    for step in range(4):
        optimizer.apply(params, arrays(step))
        averages = [
            p.copy() if averages is None else reference.average_update(a, p, 0.8, 0.2)
            for p, a in zip(params, averages or params, strict=True)
        ]
    for i, average in enumerate(averages):
        np.testing.assert_allclose(optimizer.get_state()[f"average.{i}"], average, rtol=1e-12)
    before = [p.copy() for p in params]
    optimizer.swap(params)
    for got, expected in zip(params, averages, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    optimizer.swap(params)
    assert all(map(np.array_equal, params, before))
    optimizer.finalize(params)
    for i, got in enumerate(params):
        np.testing.assert_array_equal(got, optimizer.get_state()[f"average.{i}"])


def test_averages_overwrite_the_params_as_often_as_asked():
    optimizer, param = SGD(1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3), [0.0]
    param, seen = np.array(param), []
    for _ in range(4):
        optimizer.apply([param], [np.ones(1)])
        seen.append(float(param[0]))
    # averages: -1, -1.5, -2.25, which is written, (-2.25 - 3.25) / 2
    assert seen == [-1, -2, -2.25, -3.25] and optimizer.get_state()["average.0"] == [-2.75]


@pytest.mark.parametrize("options", [{}, {"use_ema": True}])
def test_params_without_an_average_stay_as_they_are(options):
    optimizer, params = SGD(gradient_accumulation_steps=2, **options), arrays(0)
    optimizer.apply(params, arrays(1))  # no update yet
    before = [p.copy() for p in params]
    optimizer.finalize(params)
    optimizer.swap(params)
    assert all(map(np.array_equal, params, before))


def test_averages_belong_to_their_params():
    optimizer, params = SGD(use_ema=True), arrays(0)
    optimizer.apply(params, arrays(1))
    for use in (optimizer.finalize, optimizer.swap):
        with pytest.raises(ValueError, match="params: expected the arrays that this optimizer"):
            use(arrays(0))


# ---- all together


EVERYTHING = {
    "weight_decay": 0.1, "global_clipnorm": 2.0, "use_ema": True, "ema_momentum": 0.7,
    "ema_overwrite_frequency": 2, "gradient_accumulation_steps": 3,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", range(8))
def test_everything_goes_on_from_a_state_bit_for_bit(kind, stop):
    optimizer, params = kind(RATE, **EVERYTHING), arrays(0, "float32")
    for step in range(stop):
        optimizer.apply(params, arrays(step, "float32"))
    state, kept = optimizer.get_state(), [p.copy() for p in params]
    again = optimizers.get(optimizer.get_config())
    again.set_state(state)
    for step in range(stop, 14):
        optimizer.apply(params, arrays(step, "float32"))
        again.apply(kept, arrays(step, "float32"))
    assert all(map(np.array_equal, params, kept))
    state, other = optimizer.get_state(), again.get_state()
    assert list(state) == list(other)
    assert all(np.array_equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("gathered", [3, -1, None])
def test_a_state_with_too_many_batches_is_refused(gathered):
    optimizer, params = Adam(**EVERYTHING), arrays(0)
    optimizer.apply(params, arrays(1))
    with pytest.raises((ValueError, TypeError), match=r"state\['gathered'\]: expected"):
        optimizer.set_state({**optimizer.get_state(), "gathered": gathered})
    assert optimizer.get_state()["gathered"] == 1


def test_constant_gradients_leave_no_negative_variance():
    """Rounding puts v - mean^2 below zero, and its root would be NaN."""
    param = np.zeros(1, "float32")
    optimizer = RMSprop(1e-3, centered=True)
    for _ in range(300):
        optimizer.apply([param], [np.full(1, 123.456, "float32")])
    v, mean = (optimizer.get_state()[f"{name}.0"] for name in ("v", "mean"))
    assert np.isfinite(param).all() and abs(v - mean * mean)[0] < 0.1
