"""The pooling modules: each is its function with its options, alone and in a Sequential."""

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

SLIDING: dict[str, Any] = {
    "stride": (2, 1),
    "padding": ((1, 0), (0, 1)),
    "dilation": (1, 2),
    "ceil_mode": True,
}

# module, function, what the function takes after x
CASES = {
    "MaxPool": (lambda: nn.MaxPool((3, 2), **SLIDING), F.max_pool, {"window": (3, 2), **SLIDING}),
    "MaxPool with SAME": (
        lambda: nn.MaxPool(3, padding="SAME", return_indices=True),
        F.max_pool,
        {"window": 3, "padding": "SAME", "return_indices": True},
    ),
    "AvgPool": (
        lambda: nn.AvgPool((3, 2), count_include_pad=False, **SLIDING),
        F.avg_pool,
        {"window": (3, 2), "count_include_pad": False, **SLIDING},
    ),
    "LpPool": (lambda: nn.LpPool(1.5, (3, 2), **SLIDING), F.lp_pool, {"p": 1.5, "window": (3, 2), **SLIDING}),
    "AdaptiveAvgPool": (lambda: nn.AdaptiveAvgPool((3, 4)), F.adaptive_avg_pool, {"output_size": (3, 4)}),
    "AdaptiveMaxPool": (
        lambda: nn.AdaptiveMaxPool(4, return_indices=True),
        F.adaptive_max_pool,
        {"output_size": 4, "return_indices": True},
    ),
    "GlobalAvgPool": (nn.GlobalAvgPool, F.global_avg_pool, {}),
    "GlobalMaxPool": (lambda: nn.GlobalMaxPool(keepdims=True), F.global_max_pool, {"keepdims": True}),
    "SpatialPyramidPool": (
        lambda: nn.SpatialPyramidPool([1, (2, 3)]),
        F.spatial_pyramid_pool,
        {"levels": (1, (2, 3))},
    ),
}


@pytest.mark.parametrize(("make", "function", "options"), CASES.values(), ids=CASES)
def test_a_module_is_its_function_and_has_no_state(make, function, options):
    module, x = make(), normal(0, 2, 7, 9, 3)
    expected = function(jnp.asarray(x), **options)
    chex.assert_trees_all_equal(module(x), expected)
    graphdef, state = nnx.split(module)
    assert not jax.tree.leaves(state)
    chex.assert_trees_all_close(jax.jit(nnx.merge(graphdef, state))(x), expected, rtol=1e-6, atol=1e-6)


def test_other_ranks_take_tuples():
    series, volumes = normal(0, 2, 9, 3), normal(0, 2, 4, 5, 6, 3)
    chex.assert_trees_all_equal(nn.AvgPool((4,), stride=2)(series), F.avg_pool(series, (4,), stride=2))
    chex.assert_trees_all_equal(
        nn.SpatialPyramidPool([(2, 1, 2)])(volumes), F.spatial_pyramid_pool(volumes, [(2, 1, 2)])
    )


def test_indices_go_from_a_pool_to_its_inverse_in_a_sequential():
    x = jnp.asarray(normal(0, 2, 6, 8, 3))
    model = nnx.Sequential(nn.MaxPool((2, 4), return_indices=True), nn.MaxUnpool((6, 8)))
    y, indices = F.max_pool(x, (2, 4), return_indices=True)
    chex.assert_trees_all_equal(model(x), F.max_unpool(y, indices, (6, 8)))


def test_a_linear_layer_can_follow_a_pyramid_whatever_the_size():
    linear = nnx.Linear(15, 4, rngs=nnx.Rngs(0))
    model = nnx.Sequential(nn.MaxPool(2), nn.SpatialPyramidPool((1, 2)), linear)
    for size in [(12, 10), (7, 16)]:
        x = jnp.asarray(normal(0, 2, *size, 3))
        expected = linear(F.spatial_pyramid_pool(F.max_pool(x, 2), (1, 2)))
        chex.assert_trees_all_close(model(x), expected, rtol=1e-6, atol=1e-6)


wrong: Any = nn  # wrong types are the point here
WRONG: dict[str, tuple[Any, str]] = {
    "window 0": (lambda: nn.MaxPool(0), "^MaxPool: window must be at least 1, got 0"),
    "window of floats": (lambda: wrong.AvgPool((2.0, 2.0)), r"^AvgPool: window .* got \(2.0, 2.0\)"),
    "window with batch and channels": (lambda: nn.MaxPool((1, 2, 2, 1)), r"^MaxPool: window .*1 to 3 ints"),
    "stride 0": (lambda: nn.AvgPool(2, stride=0), "^AvgPool: stride must be at least 1, got 0"),
    "stride of another rank": (
        lambda: nn.MaxPool(2, stride=(2,)),
        r"^MaxPool: stride .* 2 ints .* got \(2,\)",
    ),
    "dilation 0": (lambda: nn.MaxPool(2, dilation=0), "^MaxPool: dilation must be at least 1, got 0"),
    "padding in lower case": (
        lambda: nn.AvgPool(2, padding="same"),
        '^AvgPool: padding .* did you mean "SAME"',
    ),
    "padding negative": (lambda: nn.LpPool(2, 2, padding=-1), "^LpPool: padding .* got -1"),
    "CAUSAL in 2-D": (lambda: nn.MaxPool(2, padding="CAUSAL"), '^MaxPool: padding "CAUSAL"'),
    "ceil_mode with SAME": (
        lambda: nn.MaxPool(2, padding="SAME", ceil_mode=True),
        "^MaxPool: ceil_mode=True needs padding as ints, got padding='SAME'",
    ),
    "p 0": (lambda: nn.LpPool(0, 2), "^LpPool: p must be positive and finite, got 0"),
    "p a string": (lambda: wrong.LpPool("2", 2), "^LpPool: p must be a Python number, got '2'"),
    "output_size 0": (lambda: nn.AdaptiveAvgPool((0, 2)), r"^AdaptiveAvgPool: output_size .* got \(0, 2\)"),
    "output_size None": (lambda: wrong.AdaptiveMaxPool(None), "^AdaptiveMaxPool: output_size .* got None"),
    "output_size of four": (lambda: nn.MaxUnpool((1, 2, 3, 4)), r"^MaxUnpool: output_size .*1 to 3 ints"),
    "levels an int": (
        lambda: wrong.SpatialPyramidPool(4),
        "^SpatialPyramidPool: levels must be a sequence .* got 4",
    ),
    "no levels": (lambda: nn.SpatialPyramidPool(()), r"^SpatialPyramidPool: levels must .* got \(\)"),
    "a level 0": (lambda: nn.SpatialPyramidPool((1, 0)), r"^SpatialPyramidPool: levels\[1\] .* got 0"),
    "levels of two ranks": (
        lambda: nn.SpatialPyramidPool((1, (2,))),
        r"^SpatialPyramidPool: levels must all .* got \(\(1, 1\), \(2,\)\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused_at_construction(make, message, unchecked):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_call_on_images_of_another_rank_says_so(unchecked):
    with pytest.raises(ValueError, match=r"max_pool: x .*2 spatial axes.* got shape \(7, 9, 3\).*x\[None\]"):
        nn.MaxPool(2)(normal(0, 7, 9, 3))
    with pytest.raises(ValueError, match=r"adaptive_avg_pool: x .* got shape \(2, 9, 3\)"):
        nn.AdaptiveAvgPool((3, 4))(normal(0, 2, 9, 3))
    with pytest.raises(TypeError, match="spatial_pyramid_pool: x must have a floating dtype, got uint8"):
        nn.SpatialPyramidPool((1, 2))(np.zeros((2, 7, 9, 3), np.uint8))
