"""local_response_norm and global_response_norm against their formulas."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn.functional as F
from tests import reference


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_local_response_norm_is_its_formula(rank, size):
    x = 3 * reference.normal(0, 2, *(3, 4, 2)[:rank], 6)
    y = F.local_response_norm(jnp.asarray(x), size, alpha=0.7, beta=0.6, k=1.5)
    np.testing.assert_allclose(y, reference.local_response_norm(x, size, 0.7, 0.6, 1.5), rtol=1e-5)


def global_response_norm(x, scale, bias, eps):
    axes = tuple(range(1, x.ndim - 1))
    norm = np.sqrt((np.asarray(x, np.float64) ** 2).sum(axes, keepdims=True))
    return scale * x * norm / (norm.mean(-1, keepdims=True) + eps) + bias + x


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_response_norm_is_its_formula(rank):
    x = reference.normal(0, 2, *(3, 4, 2)[:rank], 6) * np.linspace(0, 3, 6, dtype=np.float32)
    scale, bias = reference.normal(1, 6), reference.normal(2, 6)
    y = F.global_response_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias), eps=0.1)
    np.testing.assert_allclose(y, global_response_norm(x, scale, bias, 0.1), rtol=1e-5, atol=1e-5)
    zeros = jnp.zeros(6)
    chex.assert_trees_all_equal(F.global_response_norm(x, zeros, zeros), jnp.asarray(x))


@pytest.mark.parametrize("silent", [1, 4])
def test_channels_of_zeros_have_finite_derivatives(silent):
    x = jnp.asarray(reference.normal(0, 1, 2, 1, 4)).at[..., :silent].set(0)
    scale, bias = jnp.asarray(reference.normal(1, 4)), jnp.asarray(reference.normal(2, 4))

    def loss(*arguments):
        return jnp.sin(F.global_response_norm(*arguments)).sum()

    chex.assert_tree_all_finite(jax.jit(jax.grad(loss, (0, 1, 2)))(x, scale, bias))
    chex.assert_tree_all_finite(jax.jit(jax.hessian(loss))(x, scale, bias))


def test_half_precision_energies_do_not_overflow():
    x = jnp.asarray(300 * reference.normal(0, 2, 8, 7, 6)).astype(jnp.float16)  # x^2 is above float16's range
    ones, zeros = jnp.ones(6), jnp.zeros(6)
    wide = np.asarray(x, np.float64)
    for y, expected in [
        (F.local_response_norm(x, alpha=1.0), reference.local_response_norm(wide, 5, 1.0, 0.75, 1.0)),
        (F.global_response_norm(x, ones, zeros), global_response_norm(wide, 1.0, 0.0, 1e-6)),
    ]:
        assert y.dtype == jnp.float16
        np.testing.assert_allclose(y, expected, rtol=1e-3)
