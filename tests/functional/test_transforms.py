"""What every pure function keeps: derivatives of any order, jit, vmap, pmap, dtypes, an empty batch.

A function that is missing in CALLS fails the first test.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn.functional as F
from tests import reference
from tests.calls import CALLS, NAMES

FORMULAS = {"output_size", "conv_transpose_output_size", "conv_parameter_count"}  # ints to ints
SIGNALS = {"convolve", "cross_correlate", "autocorrelate"}  # no batch axis
PARAMETERS = {"standardize_kernel", "dense_to_conv"}  # a kernel, no batch axis either
LOSSES = {"softmax_cross_entropy", "softmax_focal_loss", "multiclass_svm_loss"}  # a scalar for the batch
STATISTICS = {"batch_stats"}  # the batch is summed
RANDOM = {"dropout", "channel_dropout", "drop_path", "drop_block"}  # one key, one draw for the whole batch
BATCHED = [e for e, name in NAMES.items() if name not in SIGNALS | PARAMETERS | LOSSES | STATISTICS]
ALONE = [e for e in BATCHED if NAMES[e] not in RANDOM]


def float32(entry: str) -> list[np.ndarray]:
    return [array.astype(np.float32) for array in CALLS[entry].arrays]


def leaves(result: Any) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def test_every_function_is_called():
    assert set(NAMES.values()) | FORMULAS == set(F.__all__)


@pytest.mark.parametrize("entry", CALLS)
def test_derivatives_to_the_third_order(entry):
    function, arrays, _ = CALLS[entry]

    def loss(arrays):  # not linear, so that the second derivative of a linear function is not zero
        return sum((jnp.sin(leaf) + leaf**2 / 3).sum() for leaf in leaves(function(*arrays)))

    def derivatives(arrays, direction):
        def along(value):
            return lambda arrays: jax.jvp(value, (arrays,), (direction,))[1]

        def product(gradient):
            return sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))

        forward, reverse = along(loss), lambda arrays: product(jax.grad(loss)(arrays))
        return {
            "value": loss(arrays),
            "forward": forward(arrays),
            "reverse": reverse(arrays),
            "forward over reverse": along(reverse)(arrays),
            "reverse over reverse": product(jax.grad(reverse)(arrays)),
            "forward over forward": along(forward)(arrays),
            "third": along(along(reverse))(arrays),
        }

    with jax.enable_x64(True):
        arrays = tuple(map(jnp.asarray, arrays))
        direction = tuple(jnp.asarray(reference.normal(9, *a.shape, dtype=np.float64)) for a in arrays)
        compiled = jax.jit(derivatives)
        step = 1e-6

        def moved(sign):
            return tuple(a + sign * step * d for a, d in zip(arrays, direction, strict=True))

        here, above, below = (compiled(at, direction) for at in (arrays, moved(1), moved(-1)))
        measured = {name: (above[name] - below[name]) / (2 * step) for name in here}
    close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(here["forward"], measured["value"], **close)
    np.testing.assert_allclose(here["reverse"], here["forward"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(here["forward over reverse"], measured["reverse"], **close)
    for other in ("reverse over reverse", "forward over forward"):
        np.testing.assert_allclose(here[other], here["forward over reverse"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(here["third"], measured["forward over reverse"], **close)


@pytest.mark.parametrize("entry", CALLS)
def test_jit_and_vmap_give_what_the_call_gives(entry):
    function, arrays = CALLS[entry].function, float32(entry)
    expected = function(*arrays)
    compiled = jax.jit(function)
    chex.assert_trees_all_close(compiled(*arrays), expected, rtol=2e-5, atol=2e-6)
    # Over one array at a time: a second call with the array scaled must be the second row.
    for place, array in enumerate(arrays):
        both = [np.stack([array, array * 0.5]) if i == place else a for i, a in enumerate(arrays)]
        rows = jax.jit(jax.vmap(function, [0 if i == place else None for i in range(len(arrays))]))(*both)
        other = compiled(*[array * 0.5 if i == place else a for i, a in enumerate(arrays)])
        chex.assert_trees_all_close(jax.tree.map(lambda r: r[0], rows), expected, rtol=2e-5, atol=2e-6)
        chex.assert_trees_all_close(jax.tree.map(lambda r: r[1], rows), other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("entry", ALONE)
def test_an_example_does_not_see_the_others_and_pmap_agrees(entry):
    function, _, per_example = CALLS[entry]
    arrays = float32(entry)

    def one(*arrays):
        return function(*[a[None] for a in arrays[:per_example]], *arrays[per_example:])[0]

    axes = tuple(0 if place < per_example else None for place in range(len(arrays)))
    expected = jax.jit(function)(*arrays)
    chex.assert_trees_all_close(jax.pmap(one, in_axes=axes)(*arrays), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-5), ("bfloat16", 4e-2), ("float16", 5e-3)])
@pytest.mark.parametrize("entry", CALLS)
def test_each_dtype_is_kept_and_right(entry, dtype, tolerance):
    function = CALLS[entry].function
    rounded = [jnp.asarray(array).astype(dtype) for array in float32(entry)]
    with jax.enable_x64(NAMES[entry] not in RANDOM):  # with x64 the same key draws other numbers
        exact = leaves(jax.jit(function)(*[jnp.asarray(np.asarray(array, np.float64)) for array in rounded]))
    result = leaves(jax.jit(function)(*rounded))
    for ours, theirs in zip(result, exact, strict=True):
        wide = NAMES[entry] in LOSSES | STATISTICS  # sums stay in float32
        assert ours.dtype == ("float32" if wide else dtype)
        scale = max(float(np.abs(theirs).max()), 1.0)
        np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, rtol=0, atol=tolerance * scale)
    gradients = jax.eval_shape(
        jax.grad(lambda arrays: sum(leaf.sum() for leaf in leaves(function(*arrays)))), rounded
    )
    assert {gradient.dtype for gradient in gradients} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("entry", BATCHED)
def test_an_empty_batch_stays_empty(entry):
    function, _, per_example = CALLS[entry]
    arrays = float32(entry)
    empty = [a[:0] for a in arrays[:per_example]]
    rest = arrays[per_example:]

    def loss_and_result(x):
        y = function(x, *empty[1:], *rest)
        return (y**2).sum(), y

    (value, y), gradient = jax.jit(jax.value_and_grad(loss_and_result, has_aux=True))(empty[0])
    assert value == 0 and gradient.shape == empty[0].shape
    assert y.shape == (0, *jax.eval_shape(function, *arrays).shape[1:])


@pytest.mark.parametrize("entry", ALONE)
def test_nan_comes_out_of_the_example_it_goes_into(entry):
    function, arrays = CALLS[entry].function, float32(entry)
    arrays[0][0] = np.nan
    y = np.asarray(jax.jit(function)(*arrays))
    assert np.isnan(y[0]).any() and not np.isnan(y[1:]).any()
