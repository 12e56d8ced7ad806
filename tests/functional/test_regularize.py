"""The random functions: how much they drop, what they keep, and that a split batch changes nothing."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxcnn.functional as F
from tests import reference

INDEPENDENT = {"dropout": F.dropout, "drop_path": F.drop_path, "channel_dropout": F.channel_dropout}
DROPS = INDEPENDENT | {"drop_block": lambda key, x, rate: F.drop_block(key, x, rate, (2,) * (x.ndim - 2))}
EACH = pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
EACH_INDEPENDENT = pytest.mark.parametrize("drop", INDEPENDENT.values(), ids=INDEPENDENT)


def offset_normal(*shape):
    """Numbers none of which is zero, so that a zero was dropped."""
    return jnp.asarray(2 + np.abs(reference.normal(0, *shape)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_drops_that_part_and_scales_the_rest(rate):
    x = offset_normal(100, 40, 5, 5)
    y = np.asarray(F.dropout(jax.random.key(0), x, rate))
    kept = y != 0
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(kept.mean() - (1 - rate)) < 4 * deviation
    np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / (1 - rate), rtol=1e-6)
    # elements of one example, one position and one channel fall alone
    for axis in range(4):
        rates = kept.mean(tuple(a for a in range(4) if a != axis))
        assert ((rates > 0) & (rates < 1)).all()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_drop_path_drops_whole_examples_and_channel_dropout_whole_channels(rank, rate):
    x = offset_normal(500, *(3, 2, 2)[:rank], 8)
    for drop, independent in [(F.drop_path, (0,)), (F.channel_dropout, (0, rank + 1))]:
        y = np.asarray(drop(jax.random.key(0), x, rate))
        kept = y != 0
        decisions = kept.any(tuple(axis for axis in range(x.ndim) if axis not in independent), keepdims=True)
        np.testing.assert_array_equal(kept, np.broadcast_to(decisions, kept.shape))
        deviation = np.sqrt(rate * (1 - rate) / decisions.size)
        assert abs(decisions.mean() - (1 - rate)) < 4 * deviation
        np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / (1 - rate), rtol=1e-6)


def made_of_blocks(dropped, block):
    """Whether every dropped element of (*size) lies in a block that was dropped as a whole."""
    covered = np.zeros_like(dropped)
    for start in np.ndindex(*(n - b + 1 for n, b in zip(dropped.shape, block, strict=True))):
        window = tuple(slice(p, p + b) for p, b in zip(start, block, strict=True))
        if dropped[window].all():
            covered[window] = True
    return (covered == dropped).all()


@pytest.mark.parametrize(
    "size, block", [((9,), (4,)), ((7, 6), (3, 3)), ((7, 6), (2, 4)), ((4, 5, 3), (2, 1, 3))]
)
def test_drop_block_drops_blocks_and_scales_each_example(size, block):
    x = offset_normal(6, *size, 4)
    y = np.asarray(F.drop_block(jax.random.key(0), x, 0.3, block))
    dropped = y == 0
    for example, channel in itertools.product(range(6), range(4)):
        assert made_of_blocks(dropped[example, ..., channel], block)
    assert len(np.unique(dropped.reshape(6, -1), axis=0)) > 1  # examples differ
    assert (dropped != dropped[..., :1]).any()  # and so do channels
    for example in range(6):
        kept = ~dropped[example]
        expected = np.asarray(x)[example][kept] * kept.size / kept.sum()
        np.testing.assert_allclose(y[example][kept], expected, rtol=1e-6)


@pytest.mark.parametrize("size, block", [((7,), (3,)), ((5, 7), (2, 4)), ((4, 5, 3), (2, 3, 1))])
def test_drop_block_starts_blocks_with_probability_gamma(size, block):
    x = offset_normal(4000, *size, 5)
    dropped = np.asarray(F.drop_block(jax.random.key(0), x, 0.2, block) == 0)
    places = [n - b + 1 for n, b in zip(size, block, strict=True)]
    gamma = 0.2 * np.prod(size) / (np.prod(block) * np.prod(places))
    inner = tuple(b - 1 for b in block)  # the first element that every place of a block can cover
    for place, probability in [
        ((0,) * len(size), gamma),  # only by the block that starts there
        (tuple(n - 1 for n in size), gamma),
        (inner, 1 - (1 - gamma) ** np.prod(block)),
    ]:
        deviation = np.sqrt(probability * (1 - probability) / 20000)
        assert abs(dropped[:, *place].mean() - probability) < 4 * deviation


def test_drop_block_of_single_elements_is_dropout_and_of_the_whole_image_channel_dropout():
    x = offset_normal(2000, 3, 4, 5)
    single, whole = (np.asarray(F.drop_block(jax.random.key(0), x, 0.4, b)) == 0 for b in (1, (3, 4)))
    assert abs(single.mean() - 0.4) < 4 * np.sqrt(0.24 / x.size)
    np.testing.assert_array_equal(whole, np.broadcast_to(whole[:, :1, :1], x.shape))
    assert abs(whole.mean() - 0.4) < 4 * np.sqrt(0.24 / 10000)


def test_an_example_that_drop_block_drops_as_a_whole_is_zero():
    x = offset_normal(20, 3, 4, 1)
    y, gradient = jax.value_and_grad(lambda x: F.drop_block(jax.random.key(0), x, 0.5, (3, 4)).sum())(x)
    assert np.isfinite(y) and set(np.unique(gradient)) == {0.0, 1.0}
    for block in [1, (3, 4)]:  # where no blocks overlap, a rate of 1 drops everything
        assert (F.drop_block(jax.random.key(0), x, 1, block) == 0).all()


def test_an_integer_block_is_square_for_a_batch_of_images():
    x, key = offset_normal(4, 6, 5, 3), jax.random.key(2)
    chex.assert_trees_all_equal(F.drop_block(key, x, 0.3, 2), F.drop_block(key, x, 0.3, (2, 2)))


@EACH_INDEPENDENT
def test_the_expectation_is_the_input(drop):
    x = offset_normal(3, 2, 4, 2)
    keys = jax.random.split(jax.random.key(1), 4000)
    mean = jnp.mean(jax.vmap(lambda key: drop(key, x, 0.3))(keys), axis=0)
    deviation = np.asarray(x) * np.sqrt(0.3 / 0.7 / 4000)
    assert (np.abs(np.asarray(mean - x)) < 5 * deviation).all()


@EACH
def test_a_key_repeats_and_another_key_differs(drop):
    x = offset_normal(64, 5, 2)
    first = drop(jax.random.key(0), x, 0.5)
    chex.assert_trees_all_equal(first, drop(jax.random.key(0), x, 0.5))
    assert (first != drop(jax.random.key(1), x, 0.5)).any()


@EACH
def test_keys_of_the_old_style_are_keys(drop):
    x = offset_normal(6, 5, 2)
    for old, new in [
        (jax.random.PRNGKey(3), jax.random.key(3)),
        (jax.random.split(jax.random.PRNGKey(3), 6), jax.random.split(jax.random.key(3), 6)),
    ]:
        chex.assert_trees_all_equal(drop(old, x, 0.5), drop(new, x, 0.5))


@EACH
def test_a_key_per_example_does_not_depend_on_the_batch(drop):
    x = offset_normal(64, 3, 4, 2)
    keys = jax.random.split(jax.random.key(0), 64)
    y = drop(keys, x, 0.5)
    assert 0 < (y == 0).mean() < 1
    assert len(np.unique(np.asarray(y == 0).reshape(64, -1), axis=0)) > 1  # examples differ
    chex.assert_trees_all_equal(y[5:9], drop(keys[5:9], x[5:9], 0.5))
    chex.assert_trees_all_equal(y[::-1], drop(keys[::-1], x[::-1], 0.5))


@EACH
def test_a_key_per_example_does_not_depend_on_devices(drop):
    x = offset_normal(8, 5, 3)
    keys = jax.random.split(jax.random.key(0), 8)
    y = drop(keys, x, 0.5)
    parts = jax.pmap(lambda keys, x: drop(keys, x, 0.5))(keys.reshape(4, 2), x.reshape(4, 2, 5, 3))
    chex.assert_trees_all_equal(parts.reshape(x.shape), y)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put((keys, x), NamedSharding(mesh, PartitionSpec("data")))
    chex.assert_trees_all_equal(jax.jit(lambda keys, x: drop(keys, x, 0.5))(*sharded), y)


@EACH_INDEPENDENT
@pytest.mark.parametrize("keys", ["one", "per example"])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_zero_and_one_are_exact_with_finite_gradients(drop, keys, rate):
    x = offset_normal(4, 3, 2)
    key = jax.random.key(0) if keys == "one" else jax.random.split(jax.random.key(0), 4)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(drop(key, x, rate) ** 2))(x)
    np.testing.assert_array_equal(drop(key, x, rate), x * (1 - rate))
    np.testing.assert_allclose(value, jnp.sum(x**2) * (1 - rate), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 2 * x * (1 - rate))


def test_drop_block_at_rate_zero_keeps_everything():
    x = offset_normal(4, 3, 2)
    chex.assert_trees_all_equal(F.drop_block(jax.random.key(0), x, 0, (2,)), x)


@EACH
def test_the_gradient_is_the_mask(drop):
    x = offset_normal(32, 5, 2)
    key = jax.random.key(0)
    gradient = jax.grad(lambda x: jnp.sum(drop(key, x, 0.25)))(x)
    np.testing.assert_allclose(gradient * x, drop(key, x, 0.25), rtol=1e-6)


@EACH
def test_a_dropped_infinity_or_nan_is_zero(drop):
    x = jnp.where(jnp.arange(64)[:, None, None] % 2 == 0, jnp.inf, jnp.full((64, 4, 3), jnp.nan, jnp.float32))
    y = np.asarray(drop(jax.random.key(0), x, 0.5))
    assert (y == 0).any() and (y != 0).any()


@EACH_INDEPENDENT
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_scaled_with_one_rounding(drop, dtype):
    x = offset_normal(16, 2, 3).astype(dtype)
    y = drop(jax.random.key(0), x, 0.3)
    kept = np.asarray(y != 0)
    expected = np.asarray(x, np.float64)[kept] / 0.7
    np.testing.assert_allclose(
        np.asarray(y, np.float64)[kept], expected, rtol=2 * float(jnp.finfo(dtype).eps)
    )


def test_drop_block_counts_what_it_keeps_beyond_half_precision():
    x = jnp.ones((1, 300, 250, 1), jnp.float16)  # 75,000 elements, above float16's range
    y = np.asarray(F.drop_block(jax.random.key(0), x, 0.3, 7), np.float64)
    np.testing.assert_allclose(y.mean(), 1, rtol=1e-3)
