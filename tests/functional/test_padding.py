"""pad against np.pad."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import jaxcnn.functional as F
from tests import reference

MODES = ("zeros", "constant", "reflect", "symmetric", "edge", "circular")


@given(
    data=st.data(),
    size=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_pad_equals_numpy(data, size, mode):
    most = {n: n - 1 if mode == "reflect" else n for n in size}
    sides = tuple(tuple(data.draw(st.integers(0, most[n])) for _ in "lh") for n in size)
    x = reference.normal(0, 2, *size, 3)
    value = 2.5 if mode == "constant" else 0.0
    y = F.pad(jnp.asarray(x), sides, mode=mode, value=value)
    np.testing.assert_array_equal(y, reference.pad(x, sides, mode, value))


@pytest.mark.parametrize("padding", [2, (2, 2), ((2, 2), (2, 2))])
def test_an_integer_pads_every_side_of_every_axis(padding):
    x = reference.normal(0, 2, 5, 4, 3)
    np.testing.assert_array_equal(F.pad(jnp.asarray(x), padding), reference.pad(x, ((2, 2), (2, 2))))


@pytest.mark.parametrize("mode", MODES)
def test_a_tuple_of_integers_has_one_per_axis(mode):
    x = reference.normal(0, 2, 5, 4, 3)
    y = F.pad(jnp.asarray(x), (3, 1), mode=mode)
    np.testing.assert_array_equal(y, reference.pad(x, ((3, 3), (1, 1)), mode))


def test_zeros_ignores_no_padding_and_keeps_the_input():
    x = jnp.asarray(reference.normal(0, 2, 5, 4, 3))
    chex.assert_trees_all_equal(F.pad(x, 0), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.uint8])
@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad_keeps_the_dtype(dtype, mode):
    x = jnp.arange(24).reshape(1, 4, 6, 1).astype(dtype)
    value = 3 if mode == "constant" else 0
    y = F.pad(x, ((1, 2), (0, 3)), mode=mode, value=value)
    assert y.dtype == dtype
    expected = reference.pad(np.asarray(x, np.float64), ((1, 2), (0, 3)), mode, value)
    np.testing.assert_array_equal(np.asarray(y, np.float64), expected)


def test_gradients_of_every_mode():
    def pad(x):
        return [F.pad(x, ((2, 1), (0, 2)), mode=mode) for mode in MODES]

    with jax.enable_x64(True):
        x = jnp.asarray(reference.normal(0, 1, 4, 3, 2, dtype=np.float64))
        check_grads(jax.jit(pad), (x,), order=1)  # a linear function


@pytest.mark.parametrize("mode", MODES)
def test_jit_vmap_and_a_zero_batch(mode):
    def pad(x):
        return F.pad(x, ((1, 2), (3, 0)), mode=mode)

    x = jnp.asarray(reference.normal(0, 3, 4, 5, 2))
    chex.assert_trees_all_equal(jax.jit(pad)(x), pad(x), jax.vmap(lambda x: pad(x[None])[0])(x))
    assert pad(x[:0]).shape == (0, 7, 8, 2)
