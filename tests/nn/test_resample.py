"""Resize, PixelShuffle and PixelUnshuffle: each is its function with its options."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxcnn.functional as F
import jaxcnn.nn
from jaxcnn import nn
from tests.reference import normal

wrong: Any = jaxcnn.nn  # wrong types are the point there

# module, function, what the function takes after x
CASES = {
    "Resize": (lambda: nn.Resize((9, 5)), F.resize, {"size": (9, 5)}),
    "Resize, int": (
        lambda: nn.Resize(3, method="bicubic", antialias=True),
        F.resize,
        {"size": 3, "method": "bicubic", "antialias": True},
    ),
    "Resize, corners": (
        lambda: nn.Resize([9, 5], align_corners=True),
        F.resize,
        {"size": (9, 5), "align_corners": True},
    ),
    "Resize, scale": (
        lambda: nn.Resize((9, 5), method="nearest", scale=[1.6, 0.9]),
        F.resize,
        {"size": (9, 5), "method": "nearest", "scale": (1.6, 0.9)},
    ),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), F.pixel_shuffle, {"factor": 2}),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(3), F.pixel_unshuffle, {"factor": 3}),
}


@pytest.mark.parametrize(("make", "function", "options"), CASES.values(), ids=CASES)
def test_a_module_is_its_function_and_has_no_state(make, function, options):
    module, x = make(), normal(0, 2, 6, 6, 4)
    expected = function(jnp.asarray(x), **options)
    chex.assert_trees_all_equal(module(x), expected)
    graphdef, state = nnx.split(module)
    assert not jax.tree.leaves(state)
    chex.assert_trees_all_close(jax.jit(nnx.merge(graphdef, state))(x), expected, rtol=1e-6, atol=1e-6)


def test_other_ranks_take_tuples():
    series = normal(0, 2, 9, 4)
    chex.assert_trees_all_equal(nn.Resize((5,), scale=0.6)(series), F.resize(series, (5,), scale=0.6))
    chex.assert_trees_all_equal(nn.PixelShuffle(2)(series), F.pixel_shuffle(series, 2))


WRONG = {
    "size 0": (lambda: nn.Resize((4, 0)), r"^Resize: size must be at least 1, got \(4, 0\)"),
    "size None": (
        lambda: wrong.Resize(None),
        "^Resize: size must be an int or a tuple of 1 to 3 ints, got None",
    ),
    "method": (lambda: nn.Resize(4, method="linear"), "^Resize: method .* got 'linear'; \"bilinear\""),
    "align_corners": (
        lambda: nn.Resize(4, method="nearest", align_corners=True),
        "^Resize: align_corners=True needs .* got method='nearest'",
    ),
    "scale": (lambda: nn.Resize(4, scale=(1.0, -1.0)), r"^Resize: scale must be .* got \(1.0, -1.0\)"),
    "factor 0": (lambda: nn.PixelShuffle(0), "^PixelShuffle: factor must be at least 1, got 0"),
    "factor a float": (lambda: wrong.PixelUnshuffle(2.0), "^PixelUnshuffle: factor must be an int, got 2.0"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused_at_construction(make, message, unchecked):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
