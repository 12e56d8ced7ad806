"""Weighted sums along an axis against the matrix that they are, and their transposes on many devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcnn.functional as F
from jaxcnn.functional.taps import Taps, taps_of, weighted_sum

# The second output reads one element twice, the third has a weight of 0; nothing reads the last element.
TAPS = taps_of(np.array([[0, 1], [2, 2], [1, 3], [0, 3]]), np.array([[0.5, 2], [1, -3], [4, 0], [1.5, 7]]), 5)


def matrix(taps: Taps) -> np.ndarray:
    dense = np.zeros((len(taps.positions), taps.size), np.float32)
    for output, row in enumerate(taps.positions):
        for position, weight in zip(row, taps.weights[output], strict=True):
            dense[output, position] += weight
    return dense


def test_the_transposed_taps_are_the_transposed_matrix():
    np.testing.assert_array_equal(matrix(TAPS.transposed), matrix(TAPS).T)
    np.testing.assert_array_equal(matrix(TAPS.transposed.transposed), matrix(TAPS))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_sum_its_transpose_and_its_batches_are_matrix_products(axis):
    random = np.random.default_rng(0)
    x = jnp.asarray(np.moveaxis(random.normal(size=(5, 3, 2)), 0, axis), jnp.float32)
    dy = np.moveaxis(random.normal(size=(4, 3, 2)).astype(np.float32), 0, axis)

    def product(dense, array):
        return np.moveaxis(np.tensordot(dense, array, (1, axis)), 0, axis)

    y, pull = jax.vjp(lambda x: weighted_sum(x, TAPS, axis=axis), x)
    np.testing.assert_allclose(y, product(matrix(TAPS), x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pull(dy)[0], product(matrix(TAPS).T, dy), rtol=1e-6, atol=1e-6)
    for place in range(4):
        both = jnp.stack([x, 2 * x], place)
        rows = jax.jit(jax.vmap(lambda x: weighted_sum(x, TAPS, axis=axis), place, place))(both)
        np.testing.assert_allclose(rows, np.stack([y, 2 * y], place), rtol=1e-6, atol=1e-6)


def test_what_has_weight_0_or_is_not_read_reaches_nothing():
    x = jnp.array([1.0, 2.0, 3.0, np.nan, np.inf])
    y = np.asarray(weighted_sum(x, TAPS, axis=0))
    np.testing.assert_array_equal(np.isnan(y), [False, False, False, True])
    dy = np.array([1.0, 1.0, np.inf, 1.0], np.float32)
    (dx,) = jax.vjp(lambda x: weighted_sum(x, TAPS, axis=0), x)[1](dy)
    np.testing.assert_array_equal(dx, [2.0, np.inf, -2.0, 7.0, 0.0])


def test_resizing_has_no_scatter_in_its_gradient():
    x = jnp.ones((2, 5, 6, 3))
    program = jax.jit(jax.grad(lambda x: F.resize(x, (10, 4)).sum())).lower(x).as_text()
    assert "scatter" not in program


def scaled(weight, x):
    return jnp.sin(F.resize(x * weight, (12, 7), method="bicubic")).sum()


@pytest.mark.parametrize("explicit", [False, True])
def test_a_mesh_divides_the_batch_without_gathering_it(explicit):
    x = np.random.default_rng(0).normal(size=(8, 6, 5, 3)).astype(np.float32)
    weight = jnp.float32(1.3)
    expected = jax.jit(jax.grad(scaled, (0, 1)))(weight, x)
    axis_type = AxisType.Explicit if explicit else AxisType.Auto
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        on_devices = jax.device_put(x, NamedSharding(mesh, P("data")))
        program = jax.jit(jax.grad(scaled, 1)).lower(weight, on_devices).compile()
        text = program.as_text()
        assert text is not None and "all-gather" not in text
        np.testing.assert_allclose(program(weight, on_devices), expected[1], rtol=1e-5, atol=1e-5)


def test_shard_map_sums_the_gradient_of_what_is_replicated():
    x = np.random.default_rng(0).normal(size=(8, 6, 5, 3)).astype(np.float32)
    weight = jnp.float32(1.3)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    gradients = jax.shard_map(
        jax.grad(scaled, (0, 1)), mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P("data"))
    )
    for ours, theirs in zip(jax.jit(gradients)(weight, x), jax.grad(scaled, (0, 1))(weight, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
