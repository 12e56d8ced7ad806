"""Layers of other libraries give the same values inside accelerate(), and are rewritten there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn
from tests.reference import normal

X = normal(0, 2, 9, 8, 6)


def check(loss, *arrays):
    """The gradient of a loss of parameters and images, inside and outside."""
    with jaxcnn.accelerate():
        lowered = jax.jit(jax.grad(loss)).lower(*arrays)
        found = lowered.compile()(*arrays)
    assert "stablehlo.convolution" not in lowered.as_text()
    with jaxcnn.accelerate(False):
        expected = jax.jit(jax.grad(loss))(*arrays)
    leaves = jax.tree.leaves(expected)
    assert leaves and all(np.abs(leaf).max() > 0 for leaf in leaves)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max()), found, expected
    )


def test_flax_nnx():
    layer = nnx.Conv(6, 12, (3, 3), strides=2, feature_group_count=6, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    check(lambda state, x: jnp.tanh(nnx.merge(graph, state)(x)).sum(), state, X)


def test_haiku():
    hk = pytest.importorskip("haiku")
    layer = hk.transform(lambda x: hk.DepthwiseConv2D(2, 3, padding="SAME")(x))
    parameters = layer.init(jax.random.key(0), X)
    check(lambda parameters, x: jnp.tanh(layer.apply(parameters, None, x)).sum(), parameters, X)


def test_equinox():
    eqx = pytest.importorskip("equinox")
    layer = eqx.nn.Conv2d(6, 6, 3, groups=6, padding=1, key=jax.random.key(0))
    arrays, rest = eqx.partition(layer, eqx.is_array)

    def loss(arrays, x):
        return jnp.tanh(jax.vmap(eqx.combine(arrays, rest))(x)).sum()

    check(loss, arrays, np.moveaxis(X, -1, 1))
