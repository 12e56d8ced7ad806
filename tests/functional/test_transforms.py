"""What every pure function keeps: derivatives of any order, jit, vmap, pmap, dtypes, an empty batch.

CALLS holds one call of each function; a function that is missing there fails the first test.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn.functional as F
from tests import reference

FORMULAS = {"output_size", "conv_transpose_output_size", "conv_parameter_count"}  # ints to ints
SIGNALS = {"convolve", "cross_correlate", "autocorrelate"}  # no batch axis
PARAMETERS = {"standardize_kernel", "dense_to_conv"}  # a kernel, no batch axis either
LOSSES = {"softmax_cross_entropy", "softmax_focal_loss", "multiclass_svm_loss"}  # a scalar for the batch
STATISTICS = {"batch_stats"}  # the batch is summed


class Call(NamedTuple):
    """A function of float arrays, of which the first `per_example` have the batch in front."""

    function: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    per_example: int = 1


def call(function: Callable[..., Any], *shapes: tuple[int, ...], per_example: int = 1) -> Call:
    arrays = [reference.normal(seed, *shape, dtype=np.float64) for seed, shape in enumerate(shapes)]
    return Call(function, tuple(arrays), per_example)


def distinct(function: Callable[..., Any], *shape: int) -> Call:
    """Values far apart: a maximum does not change hands under a finite difference."""
    size = int(np.prod(shape))
    return Call(function, (np.random.default_rng(0).permutation(size).reshape(shape) / 8 - size / 16,))


KEY = jax.random.key(3)
LABELS = np.array([[0, 2, 1], [3, 3, 0]], np.int32)
PLACES = np.random.default_rng(1).permutation(20)[:18].reshape(2, 3, 3).astype(np.int32)

CALLS = {
    "conv": call(
        lambda x, k, b: F.conv(x, k, b, stride=(1, 2), padding=1, dilation=(2, 1)),
        (2, 6, 5, 3),
        (2, 3, 3, 4),
        (4,),
    ),
    "conv, 1-D causal": call(lambda x, k: F.conv(x, k, padding="CAUSAL"), (2, 7, 3), (3, 3, 2)),
    "conv, 3-D grouped": call(
        lambda x, k: F.conv(x, k, padding="SAME", groups=2), (2, 3, 4, 5, 4), (2, 1, 3, 2, 4)
    ),
    "conv, reflect": call(
        lambda x, k: F.conv(x, k, padding=1, padding_mode="reflect"), (2, 4, 5, 2), (2, 3, 2, 3)
    ),
    "depthwise_conv": call(lambda x, k: F.depthwise_conv(x, k, padding=1), (2, 5, 4, 3), (3, 2, 1, 6)),
    "separable_conv": call(F.separable_conv, (2, 5, 4, 2), (2, 3, 1, 4), (1, 1, 4, 3)),
    "conv_transpose": call(
        lambda x, k, b: F.conv_transpose(x, k, b, stride=(2, 1), padding=1, output_padding=(1, 0)),
        (2, 4, 3, 4),
        (3, 2, 2, 4),
        (2,),
    ),
    "conv_as_matmul": call(
        lambda x, k, b: F.conv_as_matmul(x, k, b, stride=(2, 1), padding=1), (2, 5, 4, 2), (3, 2, 2, 3), (3,)
    ),
    "deform_conv": call(
        lambda x, offset, mask, k, b: F.deform_conv(x, offset, k, mask, b, stride=(1, 2), padding=1),
        (2, 5, 6, 4),
        (2, 5, 4, 2, 6, 2),
        (2, 5, 4, 2, 6),
        (3, 2, 4, 3),
        (3,),
        per_example=3,
    ),
    "extract_patches": call(lambda x: F.extract_patches(x, (2, 3), stride=(1, 2), padding=1), (2, 4, 5, 3)),
    "fold_patches": call(lambda p: F.fold_patches(p, (4, 5), (2, 3), stride=(1, 2)), (2, 3, 2, 18)),
    "dense_to_conv": call(lambda k: F.dense_to_conv(k, (2, 3)), (24, 5)),
    "convolve": call(F.convolve, (7,), (3,)),
    "cross_correlate": call(lambda f, g: F.cross_correlate(f, g, mode="same"), (4, 5), (3, 2)),
    "autocorrelate": call(F.autocorrelate, (6,)),
    "pad": call(lambda x: F.pad(x, ((1, 2), (0, 1)), mode="reflect"), (2, 4, 3, 2)),
    "max_pool": distinct(lambda x: F.max_pool(x, (3, 2), stride=(2, 1), padding=1), 2, 5, 4, 3),
    "max_pool, dilated": distinct(
        lambda x: F.max_pool(x, 2, stride=1, dilation=(2, 1), padding=1), 2, 5, 4, 3
    ),
    "max_pool, with indices": distinct(
        lambda x: F.max_pool(x, 2, ceil_mode=True, return_indices=True)[0], 2, 5, 4, 3
    ),
    "avg_pool": call(lambda x: F.avg_pool(x, (3, 2), stride=2, padding=1, ceil_mode=True), (2, 6, 5, 3)),
    "lp_pool": call(lambda x: F.lp_pool(x, 3, (2, 3), stride=1), (2, 5, 4, 3)),
    "max_unpool": call(
        lambda x: F.max_unpool(x, np.broadcast_to(PLACES, (len(x), 2, 3, 3)), (4, 5)), (2, 2, 3, 3)
    ),
    "adaptive_avg_pool": call(lambda x: F.adaptive_avg_pool(x, (2, 3)), (2, 5, 7, 3)),
    "adaptive_max_pool": distinct(lambda x: F.adaptive_max_pool(x, (2, 3)), 2, 5, 7, 3),
    "spatial_pyramid_pool": distinct(lambda x: F.spatial_pyramid_pool(x, (1, 2)), 2, 5, 4, 3),
    "global_avg_pool": call(F.global_avg_pool, (2, 5, 4, 3)),
    "global_max_pool": distinct(F.global_max_pool, 2, 5, 4, 3),
    "batch_stats": call(lambda x: F.batch_stats(x)[:2], (3, 4, 2, 3)),
    "batch_norm": call(
        lambda x, mean, var, s, b: F.batch_norm(x, mean, jnp.exp(var), s, b),
        (2, 3, 4, 3),
        (3,),
        (3,),
        (3,),
        (3,),
    ),
    "layer_norm": call(lambda x, s, b: F.layer_norm(x, s, b, axes=(-2, -1)), (2, 4, 3, 5), (3, 5), (3, 5)),
    "group_norm": call(lambda x, s, b: F.group_norm(x, 2, s, b), (2, 4, 3, 4), (4,), (4,)),
    "instance_norm": call(F.instance_norm, (2, 4, 3, 2), (2,), (2,)),
    "rms_norm": call(F.rms_norm, (2, 4, 3, 5), (5,)),
    "local_response_norm": call(lambda x: F.local_response_norm(x, 3, alpha=0.5), (2, 3, 4, 5)),
    "global_response_norm": call(F.global_response_norm, (2, 3, 4, 5), (5,), (5,)),
    "standardize_kernel": call(F.standardize_kernel, (3, 2, 4, 5)),
    "resize": call(lambda x: F.resize(x, (7, 3)), (2, 5, 4, 2)),
    "resize, bicubic with antialias": call(
        lambda x: F.resize(x, (3, 6), method="bicubic", antialias=True), (2, 7, 4, 2)
    ),
    "grid_sample": call(
        lambda x, g: F.grid_sample(x, jnp.tanh(g), padding_mode="border"),
        (2, 5, 4, 3),
        (2, 3, 4, 2),
        per_example=2,
    ),
    "pixel_shuffle": call(lambda x: F.pixel_shuffle(x, 2), (2, 3, 4, 8)),
    "pixel_unshuffle": call(lambda x: F.pixel_unshuffle(x, 2), (2, 4, 6, 3)),
    "dropout": call(lambda x: F.dropout(KEY, x, 0.4), (2, 5, 4, 3)),
    "channel_dropout": call(lambda x: F.channel_dropout(KEY, x, 0.4), (2, 3, 4, 6)),
    "drop_path": call(lambda x: F.drop_path(KEY, x, 0.4), (4, 3, 4, 2)),
    "drop_block": call(lambda x: F.drop_block(KEY, x, 0.3, (2, 3)), (2, 6, 7, 3)),
    "softmax_cross_entropy": call(
        lambda x, w: F.softmax_cross_entropy(x, LABELS, smoothing=0.1, weights=jnp.exp(w)), (2, 3, 5), (2, 3)
    ),
    "softmax_focal_loss": call(lambda x: F.softmax_focal_loss(x, LABELS, ignore_label=3), (2, 3, 5)),
    "multiclass_svm_loss": call(lambda x: F.multiclass_svm_loss(x, LABELS), (2, 3, 5)),
}
NAMES = {entry: entry.split(",")[0] for entry in CALLS}
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
