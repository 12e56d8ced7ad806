"""The random modules: their modes, their keys, and batches that are split."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn import nn
from tests.reference import normal


def drop_block(rate, *, rngs):
    return nn.DropBlock(rate, 2, rngs=rngs)


MODULES = {
    "Dropout": nn.Dropout,
    "ChannelDropout": nn.ChannelDropout,
    "DropBlock": drop_block,
    "DropPath": nn.DropPath,
}
FUNCTIONS = {
    "Dropout": F.dropout,
    "ChannelDropout": F.channel_dropout,
    "DropBlock": lambda key, x, rate: F.drop_block(key, x, rate, 2),
    "DropPath": F.drop_path,
}
EACH = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


def two_layers(make, rate=0.5):
    return nnx.Sequential(make(rate, rngs=nnx.Rngs(0)), make(rate, rngs=nnx.Rngs(1)))


@pytest.mark.parametrize("name", MODULES)
def test_call_k_is_the_function_of_the_key_folded_with_k(name):
    module, function = MODULES[name](0.4, rngs=nnx.Rngs(3)), FUNCTIONS[name]
    key, x = module.key[...], normal(0, 6, 4, 3, 2)
    for call in range(3):
        expected = function(jax.random.fold_in(key, call), x, 0.4)
        chex.assert_trees_all_equal(module(x), expected)
    assert module.count[...] == 3


@EACH
def test_state_is_an_rng_key_and_an_rng_count(make):
    module = make(0.4, rngs=nnx.Rngs(dropout=3))
    assert isinstance(module.key, nnx.RngKey) and isinstance(module.count, nnx.RngCount)
    assert not jax.tree.leaves(nnx.state(module, nnx.Param))
    other = make(0.4, rngs=nnx.Rngs(dropout=3))
    x = normal(0, 6, 4, 3, 2)
    chex.assert_trees_all_equal(module(x), other(x))


@EACH
def test_evaluation_passes_x_and_counts_nothing(make):
    module, x = make(0.5, rngs=nnx.Rngs(0)), normal(0, 6, 4, 3, 2)
    module.eval()
    chex.assert_trees_all_equal(module(x), jnp.asarray(x))
    assert module.count[...] == 0
    module.train()
    assert (module(x) == 0).any()


@pytest.mark.parametrize("make", [nn.Dropout, nn.DropPath])
def test_half_the_values_are_dropped_and_the_mean_stays(make):
    module, x = make(0.5, rngs=nnx.Rngs(0)), np.full((4000, 2), 3.0, np.float32)
    y = module(x)
    assert set(np.unique(y)) == {0.0, 6.0}
    np.testing.assert_allclose(y.mean(), 3.0, rtol=0.05)


@EACH
def test_one_key_per_example_makes_a_batch_independent_of_its_split(make):
    model, x = two_layers(make), normal(0, 8, 5, 4, 3)
    keys = jax.random.split(jax.random.key(5), 8)
    nn.set_random_keys(model, keys)
    whole = model(x)
    pieces = []
    for start in range(0, 8, 2):
        nn.set_random_keys(model, keys[start : start + 2])
        pieces.append(model(x[start : start + 2]))
    chex.assert_trees_all_equal(jnp.concatenate(pieces), whole)
    order = np.array([5, 0, 7, 2])
    nn.set_random_keys(model, keys[order])
    chex.assert_trees_all_equal(model(x[order]), whole[order])


def test_set_random_keys_reaches_every_random_module():
    model = nnx.Sequential(*(make(0.5, rngs=nnx.Rngs(0)) for make in MODULES.values()))
    nn.set_random_keys(model, jax.random.key(5))
    layers: Any = model.layers
    for position, layer in enumerate(layers):
        expected = jax.random.key_data(jax.random.fold_in(jax.random.key(5), position))
        chex.assert_trees_all_equal(jax.random.key_data(layer.key[...]), expected)


def test_set_random_keys_folds_in_the_position_and_resets_the_count():
    model, x = two_layers(nn.Dropout), normal(0, 4, 6)
    model(x)
    keys = jax.random.split(jax.random.key(5), 4)
    nn.set_random_keys(model, keys)
    layers: Any = model.layers
    for position, layer in enumerate(layers):
        expected = jnp.stack([jax.random.fold_in(key, position) for key in keys])
        chex.assert_trees_all_equal(
            jax.random.key_data(layer.key[...]), jax.random.key_data(expected), strict=True
        )
        assert (layer.count[...], layer.count[...].dtype) == (0, jnp.uint32)
    first = model(x)
    assert (first != model(x)).any()  # the count goes on
    nn.set_random_keys(model, keys)
    chex.assert_trees_all_equal(model(x), first)


def test_set_random_keys_takes_one_key_for_the_whole_batch():
    model, x = two_layers(nn.Dropout), normal(0, 4, 50)
    nn.set_random_keys(model, jax.random.key(5))
    y = model(x)
    inner = F.dropout(jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 0), x, 0.5)
    outer = F.dropout(jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 1), 0), inner, 0.5)
    chex.assert_trees_all_equal(y, outer)


def test_set_random_keys_inside_a_plain_jit_and_a_pmap():
    model, x = two_layers(nn.Dropout), normal(0, 8, 5)
    keys = jax.random.split(jax.random.key(5), 8)
    graphdef, state = nnx.split(model)
    state = nnx.to_pure_dict(state)

    def apply(keys, x):
        inner = nnx.merge(graphdef, state)
        nn.set_random_keys(inner, keys)
        return inner(x)

    whole = apply(keys, x)
    chex.assert_trees_all_equal(jax.jit(apply)(keys, x), whole)
    devices = jax.device_count()
    split = jax.pmap(apply)(keys.reshape(devices, -1), x.reshape(devices, -1, 5))
    chex.assert_trees_all_equal(np.reshape(split, x.shape), np.asarray(whole))


def test_set_random_keys_leaves_a_model_without_randomness_alone():
    model = nn.ConvNormAct(2, 3, 3, rngs=nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(model))
    nn.set_random_keys(model, jax.random.key(0))
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(model)), before)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), "0.5"])
def test_a_rate_that_is_no_probability_is_refused(name, rate, unchecked):
    with pytest.raises(ValueError, match=rf"^{name}: rate must be a Python number in \[0, 1\], got "):
        MODULES[name](rate, rngs=nnx.Rngs(0))


def test_a_block_that_is_no_window_is_refused(unchecked):
    wrong: Any = {(0, 2): "at least 1", (1, 2, 3, 4): "1 to 3 ints", "3x3": "1 to 3 ints", 2.0: "1 to 3 ints"}
    for block, expected in wrong.items():
        with pytest.raises((ValueError, TypeError), match=f"^DropBlock: block must be .*{expected}, got "):
            nn.DropBlock(0.1, block, rngs=nnx.Rngs(0))
    module = nn.DropBlock(0.1, 5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^drop_block: block must fit .* \(4, 6\) of x, got \(5, 5\)"):
        module(normal(0, 2, 4, 6, 3))


def test_set_random_keys_refuses_what_is_no_key(unchecked):
    model = two_layers(nn.Dropout)
    seed: Any = 0
    with pytest.raises(TypeError, match="^set_random_keys: key must come from jax.random.key, got int"):
        nn.set_random_keys(model, seed)
    with pytest.raises(TypeError, match="^set_random_keys: key must come from jax.random.key, got float32"):
        nn.set_random_keys(model, jax.numpy.zeros(2))
    with pytest.raises(ValueError, match=r"^set_random_keys: keys .* got shape \(2, 3\)"):
        nn.set_random_keys(model, jax.random.split(jax.random.key(0), (2, 3)))


def test_a_number_of_keys_that_is_not_the_batch_is_refused(unchecked):
    model = two_layers(nn.Dropout)
    nn.set_random_keys(model, jax.random.split(jax.random.key(0), 4))
    with pytest.raises(ValueError, match=r"one for each of the 3 examples, got keys of shape \(4,\)"):
        model(normal(0, 3, 5))
