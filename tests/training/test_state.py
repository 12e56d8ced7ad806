from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcnn.nn import set_random_keys
from jaxcnn.training.state import TrainState, create_train_state


def test_the_parts_hold_what_the_model_holds(small_net):
    model = small_net()
    _, state = create_train_state(model, optax.adam(1e-3))
    np.testing.assert_array_equal(state.params["conv"]["kernel"], model.conv.kernel[...])
    np.testing.assert_array_equal(state.params["norm"]["scale"], model.norm.scale[...])
    np.testing.assert_array_equal(state.batch_stats["norm"]["var"], model.norm.var[...])
    assert set(state.params) == {"conv", "norm", "linear"} and set(state.batch_stats) == {"norm"}
    assert state.step.dtype == np.int32 and state.step == 0


def test_merge_rebuilds_the_model_with_the_arrays_it_is_given(small_net, make_batch):
    model = small_net()
    merge, state = create_train_state(model, optax.sgd(0.1))
    x = make_batch(4)["image"]
    model.eval()
    merged = merge(jax.tree.map(lambda p: 2 * p, state.params), state.batch_stats)
    merged.eval()
    for variable in jax.tree.leaves(
        nnx.state(model, nnx.Param), is_leaf=lambda v: isinstance(v, nnx.Variable)
    ):
        variable[...] = 2 * variable[...]
    np.testing.assert_array_equal(merged(x), model(x))


def test_merge_leaves_its_random_keys_alone(small_net):
    merge, state = create_train_state(small_net(), optax.sgd(0.1))
    keys = jax.random.split(jax.random.key(1), 4)
    set_random_keys(merge(state.params, state.batch_stats), keys)
    model: Any = merge(state.params, state.batch_stats)
    assert model.dropout.key[...].shape == ()


def test_a_state_is_a_tree_of_four_named_parts(small_net):
    _, state = create_train_state(small_net(), optax.sgd(0.1, momentum=0.9))
    paths = {jax.tree_util.keystr(path[:1]) for path, _ in jax.tree.leaves_with_path(state)}
    assert paths == {".step", ".params", ".batch_stats", ".opt_state"}
    assert isinstance(jax.eval_shape(lambda s: s, state), TrainState)


def test_a_variable_that_training_would_lose_is_refused():
    model: Any = nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    model.seen = nnx.Cache(np.zeros(3, np.float32))
    with pytest.raises(
        ValueError, match=r"create_train_state: model.seen is a variable of type Cache, expected"
    ):
        create_train_state(model, optax.sgd(0.1))
