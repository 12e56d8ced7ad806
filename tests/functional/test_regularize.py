"""dropout and drop_path: how much they drop, what they keep, and that a split batch changes nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import jaxcnn.functional as F
from tests import reference

BOTH = pytest.mark.parametrize("drop", [F.dropout, F.drop_path])


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
def test_drop_path_drops_whole_examples(rate):
    x = offset_normal(4000, 3, 2, 2)
    y = np.asarray(F.drop_path(jax.random.key(0), x, rate))
    kept = y != 0
    example = kept[:, 0, 0, 0]
    np.testing.assert_array_equal(kept, np.broadcast_to(example[:, None, None, None], kept.shape))
    assert abs(example.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / 4000)
    np.testing.assert_allclose(y[example], np.asarray(x)[example] / (1 - rate), rtol=1e-6)


@BOTH
def test_the_expectation_is_the_input(drop):
    x = offset_normal(3, 4, 2)
    keys = jax.random.split(jax.random.key(1), 4000)
    mean = jnp.mean(jax.vmap(lambda key: drop(key, x, 0.3))(keys), axis=0)
    deviation = np.asarray(x) * np.sqrt(0.3 / 0.7 / 4000)
    assert (np.abs(np.asarray(mean - x)) < 5 * deviation).all()


@BOTH
def test_a_key_repeats_and_another_key_differs(drop):
    x = offset_normal(64, 5)
    first = drop(jax.random.key(0), x, 0.5)
    chex.assert_trees_all_equal(first, drop(jax.random.key(0), x, 0.5))
    assert (first != drop(jax.random.key(1), x, 0.5)).any()


@BOTH
def test_keys_of_the_old_style_are_keys(drop):
    x = offset_normal(6, 5)
    for old, new in [
        (jax.random.PRNGKey(3), jax.random.key(3)),
        (jax.random.split(jax.random.PRNGKey(3), 6), jax.random.split(jax.random.key(3), 6)),
    ]:
        chex.assert_trees_all_equal(drop(old, x, 0.5), drop(new, x, 0.5))


@BOTH
@pytest.mark.parametrize("rank", [2, 4])
def test_a_key_per_example_does_not_depend_on_the_batch(drop, rank):
    x = offset_normal(64, *(3, 4, 2, 3)[: rank - 1])
    keys = jax.random.split(jax.random.key(0), 64)
    y = drop(keys, x, 0.5)
    assert 0 < (y == 0).mean() < 1
    assert len(np.unique(np.asarray(y == 0).reshape(64, -1), axis=0)) > 1  # examples differ
    chex.assert_trees_all_equal(y[5:9], drop(keys[5:9], x[5:9], 0.5))
    chex.assert_trees_all_equal(y[::-1], drop(keys[::-1], x[::-1], 0.5))


@BOTH
def test_a_key_per_example_does_not_depend_on_devices(drop):
    x = offset_normal(8, 5, 3)
    keys = jax.random.split(jax.random.key(0), 8)
    y = drop(keys, x, 0.5)
    parts = jax.pmap(lambda keys, x: drop(keys, x, 0.5))(keys.reshape(4, 2), x.reshape(4, 2, 5, 3))
    chex.assert_trees_all_equal(parts.reshape(x.shape), y)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put((keys, x), NamedSharding(mesh, PartitionSpec("data")))
    chex.assert_trees_all_equal(jax.jit(lambda keys, x: drop(keys, x, 0.5))(*sharded), y)


@BOTH
@pytest.mark.parametrize("keys", ["one", "per example"])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_zero_and_one_are_exact_with_finite_gradients(drop, keys, rate):
    x = offset_normal(4, 3, 2)
    key = jax.random.key(0) if keys == "one" else jax.random.split(jax.random.key(0), 4)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(drop(key, x, rate) ** 2))(x)
    np.testing.assert_array_equal(drop(key, x, rate), x * (1 - rate))
    np.testing.assert_allclose(value, jnp.sum(x**2) * (1 - rate), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 2 * x * (1 - rate))


@BOTH
def test_the_gradient_is_the_mask(drop):
    x = offset_normal(32, 5)
    key = jax.random.key(0)
    gradient = jax.grad(lambda x: jnp.sum(drop(key, x, 0.25)))(x)
    np.testing.assert_allclose(gradient * x, drop(key, x, 0.25), rtol=1e-6)
    with jax.enable_x64(True):
        check_grads(jax.jit(lambda x: drop(key, jnp.sin(x), 0.25)), (x[:4].astype(jnp.float64),), order=1)


@BOTH
def test_a_dropped_infinity_or_nan_is_zero(drop):
    x = jnp.where(jnp.arange(64)[:, None] % 2 == 0, jnp.inf, jnp.full((64, 3), jnp.nan, jnp.float32))
    y = np.asarray(drop(jax.random.key(0), x, 0.5))
    assert (y == 0).any() and (y != 0).any()


@BOTH
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_the_dtype_is_kept(drop, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x = offset_normal(16, 3).astype(dtype)
        y = drop(jax.random.key(0), x, 0.3)
        assert y.dtype == dtype
        kept = np.asarray(y != 0)
    expected = np.asarray(x, np.float64)[kept] / 0.7
    np.testing.assert_allclose(
        np.asarray(y, np.float64)[kept], expected, rtol=2 * float(jnp.finfo(dtype).eps)
    )


@BOTH
def test_a_zero_batch_gives_a_zero_batch(drop):
    x = offset_normal(4, 3, 2)[:0]
    assert drop(jax.random.key(0), x, 0.5).shape == (0, 3, 2)
    assert drop(jax.random.split(jax.random.key(0), 4)[:0], x, 0.5).shape == (0, 3, 2)


class Variants(chex.TestCase):
    @chex.all_variants
    def test_each_drop_in_every_variant(self):
        x, key = offset_normal(8, 3, 2), jax.random.key(3)
        dropout, drop_path = (self.variant(lambda x, f=f: f(key, x, 0.5)) for f in (F.dropout, F.drop_path))
        chex.assert_trees_all_close(dropout(x), F.dropout(key, x, 0.5), rtol=1e-6)
        chex.assert_trees_all_close(drop_path(x), F.drop_path(key, x, 0.5), rtol=1e-6)
