"""The toolkit from other code: a module inside Flax Linen, the functions with a plain dict of arrays."""

from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxcnn.functional as F
from jaxcnn import nn
from tests.reference import normal

# Images of stripes: class 0 varies from row to row, class 1 from column to column.
LABELS = np.arange(32) % 2
STRIPES = np.where(LABELS[:, None, None] == 0, np.arange(8)[:, None] % 2, np.arange(6) % 2) - 0.5
IMAGES = (STRIPES[..., None] + 0.3 * normal(0, 32, 8, 6, 1)).astype(np.float32)


def test_a_block_inside_a_linen_module_trains():
    class LinenNet(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            x = nnx.bridge.ToLinen(nn.ConvNormAct, args=(1, 8, 3), kwargs={"stride": 2}, name="block")(x)
            return flax.linen.Dense(2, name="head")(x.mean(axis=(1, 2)))

    net = LinenNet()
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES)
    assert jax.tree.map(jnp.shape, variables["params"])["block"]["conv"] == {"kernel": (3, 3, 1, 8)}
    optimizer = optax.sgd(0.3, momentum=0.9)

    @jax.jit
    def step(params, rest, opt_state):
        def loss(params):
            logits, updated = net.apply(
                {"params": params, **rest}, IMAGES, mutable=["batch_stats", "BatchStat"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), updated

        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), {**rest, **updated}, opt_state, value

    rest, params = dict(variables), variables["params"]
    rest.pop("params")
    opt_state, losses = optimizer.init(params), []
    for _ in range(20):
        params, rest, opt_state, loss = step(params, rest, opt_state)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]


def test_a_linen_wrapped_module_computes_what_the_module_computes():
    wrapped = nnx.bridge.ToLinen(nn.Conv, args=(1, 4, (3, 5)), kwargs={"padding": "SAME"})
    y, variables = jax.jit(wrapped.init_with_output)(jax.random.key(0), IMAGES)
    params: Any = variables["params"]
    expected = F.conv(IMAGES, params["kernel"], params["bias"], padding="SAME")
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_cnn_of_plain_functions_and_a_dict_of_arrays_trains():
    def init(key):
        he = jax.nn.initializers.he_normal()
        k1, k2, k3 = jax.random.split(key, 3)
        return {
            "conv1": {"kernel": he(k1, (3, 3, 1, 8)), "bias": jnp.zeros(8)},
            "conv2": {"kernel": he(k2, (3, 3, 8, 8)), "bias": jnp.zeros(8)},
            "head": he(k3, (8, 2)),
        }

    def model(params, x):
        x = jax.nn.relu(F.conv(x, **params["conv1"], padding=1))
        x = F.max_pool(x, 2)
        x = jax.nn.relu(F.conv(x, **params["conv2"], padding=1))
        return F.global_avg_pool(x) @ params["head"]

    @jax.jit
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(model(params, IMAGES), LABELS).mean()

    optimizer = optax.sgd(0.3, momentum=0.9)

    @jax.jit
    def step(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    params = jax.jit(init)(jax.random.key(0))
    opt_state = optimizer.init(params)
    first = float(loss(params))
    for _ in range(20):
        params, opt_state, _ = step(params, opt_state)
    assert float(loss(params)) < 0.3 * first
    assert (np.asarray(jax.jit(model)(params, IMAGES)).argmax(axis=-1) == LABELS).all()
