"""Adaptive and pyramid pooling against loops, and against plain pooling where the windows are equal."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcnn.functional as F
from tests import reference


@st.composite
def sizes(draw):
    """Spatial sizes of the input and of the output, which may be the larger one."""
    rank = draw(st.integers(1, 3))
    return tuple(tuple(draw(st.integers(1, 7)) for _ in range(rank)) for _ in range(2))


def first_largest(cell):
    """Of (elements, batch, 2) values and positions those of the first largest element."""
    return cell[cell[..., 0].argmax(axis=0), np.arange(cell.shape[1])]


@given(sizes())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_adaptive_pools_equal_the_loops(case):
    size, output = case
    x = np.round(reference.normal(0, 2, *size, 2))  # many ties
    mean, (largest, indices) = jax.jit(
        lambda x: (F.adaptive_avg_pool(x, output), F.adaptive_max_pool(x, output, return_indices=True))
    )(x)
    expected = reference.adaptive_pool(x, output, functools.partial(np.mean, axis=0))
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    plane = np.broadcast_to(np.arange(np.prod(size)).reshape(size), x.shape[:-1])
    for c in range(2):
        pairs = reference.adaptive_pool(np.stack([x[..., c], plane], axis=-1), output, first_largest)
        np.testing.assert_array_equal(largest[..., c], pairs[..., 0])
        np.testing.assert_array_equal(indices[..., c], pairs[..., 1])
    assert indices.dtype == jnp.int32


def test_windows_of_equal_size_are_plain_pooling():
    x = np.round(reference.normal(0, 2, 6, 8, 3))  # many ties
    chex.assert_trees_all_close(F.adaptive_avg_pool(x, (3, 2)), F.avg_pool(x, (2, 4)), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(
        F.adaptive_max_pool(x, (3, 2), return_indices=True), F.max_pool(x, (2, 4), return_indices=True)
    )
    chex.assert_trees_all_equal(F.adaptive_max_pool(x, (6, 8)), jnp.asarray(x))
    chex.assert_trees_all_close(
        F.adaptive_avg_pool(x, 1)[:, 0, 0], F.global_avg_pool(x), rtol=1e-5, atol=1e-6
    )
    chex.assert_trees_all_equal(F.adaptive_max_pool(x, 1)[:, 0, 0], F.global_max_pool(x))


def test_the_gradient_of_a_mean_is_shared_and_that_of_a_maximum_goes_to_the_first():
    x = jnp.array([2.0, 1.0, 2.0, 2.0, 0.0]).reshape(1, 5, 1)
    weight = jnp.array([1.0, 10.0, 100.0]).reshape(1, 3, 1)  # of the elements 0 and 1, 1 to 3, 3 and 4
    mean = jax.grad(lambda x: (F.adaptive_avg_pool(x, (3,)) * weight).sum())(x)
    largest = jax.grad(lambda x: (F.adaptive_max_pool(x, (3,)) * weight).sum())(x)
    third = 10 / 3
    np.testing.assert_allclose(mean.ravel(), [0.5, 0.5 + third, third, third + 50, 50], rtol=1e-6)
    np.testing.assert_array_equal(largest.ravel(), [1, 0, 10, 100, 0])


@pytest.mark.parametrize("size", [(5, 7), (3, 2), (8, 4)])
def test_a_pyramid_is_its_levels_one_after_the_other_cell_by_cell(size):
    x = reference.normal(0, 2, *size, 3)
    y = np.asarray(F.spatial_pyramid_pool(x, (2, (1, 3), 1)))
    assert y.shape == (2, (4 + 3 + 1) * 3)
    start = 0
    for level in [(2, 2), (1, 3), (1, 1)]:
        cells = reference.adaptive_pool(x, level, functools.partial(np.max, axis=0))
        for position, cell in enumerate(np.ndindex(*level)):
            for c in range(3):
                np.testing.assert_array_equal(y[:, start + position * 3 + c], cells[(slice(None), *cell, c)])
        start += int(np.prod(level)) * 3


def test_a_pyramid_in_other_ranks_takes_tuples():
    for size in [(9,), (4, 3, 5)]:
        x, rank = reference.normal(0, 2, *size, 3), len(size)
        y = F.spatial_pyramid_pool(x, [(2,) * rank, (1,) * rank])
        finest = np.asarray(F.adaptive_max_pool(x, (2,) * rank)).reshape(2, -1)
        np.testing.assert_array_equal(y, np.concatenate([finest, F.global_max_pool(x)], axis=1))
