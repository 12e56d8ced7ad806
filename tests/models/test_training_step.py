"""A training step of every architecture, in float32 and bfloat16."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcnn.models import create_model, list_models
from jaxcnn.nn import set_random_keys
from jaxcnn.training.state import create_train_state
from jaxcnn.training.step import softmax_cross_entropy, train_step
from tests.nn.filled import filled
from tests.reference import normal

# The smallest member of every family, and the smallest images that still have several pixels at its end.
MEMBERS = {
    "alexnet": (95, 79),
    "all_cnn_c": (24, 18),
    "convnext_tiny": (64, 96),
    "convnextv2_atto": (64, 96),
    "densenet121": (64, 48),
    "efficientnet_b0": (64, 48),
    "efficientnet_v2_s": (64, 48),
    "googlenet": (64, 48),
    "inception_v3": (107, 107),
    "lenet5": (32, 32),
    "mlp": (28, 28),
    "mnasnet0_5": (64, 48),
    "mobilenet_v2": (64, 48),
    "mobilenet_v3_small": (64, 48),
    "regnet_y_400mf": (64, 48),
    "resnet18": (64, 48),
    "resnet20": (24, 16),
    "shufflenet_v2_x0_5": (64, 48),
    "squeezenet1_1": (64, 48),
    "vgg11_bn": (64, 48),
}
DTYPES = (jnp.float32, jnp.bfloat16)

optimizer = optax.sgd(1e-3, momentum=0.9)


def build(name, dtype, classes=7):
    return create_model(name, num_classes=classes, dtype=dtype, rngs=nnx.Rngs(0))


def step_of(merge):
    return partial(
        train_step,
        merge=merge,
        optimizer=optimizer,
        loss=softmax_cross_entropy,
        set_random_keys=set_random_keys,
    )


def batch_of(size, count=4):
    return {
        "image": normal(0, count, *size, 3),
        "target": np.eye(7, dtype=np.float32)[np.arange(count) % 7],
        "index": np.arange(count, dtype=np.int32),
    }


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_step_is_finite_and_changes_every_parameter(name, dtype):
    model = filled(lambda: build(name, dtype))
    merge, state = create_train_state(model, optimizer)
    operands = (state, batch_of(MEMBERS[name]), jax.random.key(0))
    # One step: what compiles fast is faster than what runs fast.
    step = jax.jit(step_of(merge)).lower(*operands).compile({"xla_backend_optimization_level": "0"})
    after, metrics = step(*operands)
    chex.assert_tree_all_finite((metrics, after))
    chex.assert_trees_all_equal_shapes_and_dtypes(after.params, state.params)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), state.params, after.params)
    # Biases before a batch normalisation and dead relus keep still; a graph that is cut would keep most.
    assert np.mean(jax.tree.leaves(moved)) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(list_models()) - set(MEMBERS)))
def test_a_step_in_bfloat16_has_float32_parameters_and_statistics(name):
    model = nnx.eval_shape(lambda: build(name, jnp.bfloat16))
    graphdef, *states = nnx.split(model, nnx.Param, ...)
    params, rest = map(nnx.to_pure_dict, states)

    def loss(params, rest, x):
        model = nnx.merge(graphdef, params, rest)
        logits = model(x)
        assert logits.dtype == jnp.bfloat16 and logits.shape == (2, 7)
        return logits.astype(jnp.float32).mean(), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    x = jax.ShapeDtypeStruct((2, 64, 48, 3), jnp.float32)
    gradients, statistics = jax.eval_shape(jax.grad(loss, has_aux=True), params, rest, x)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((gradients, statistics)))
