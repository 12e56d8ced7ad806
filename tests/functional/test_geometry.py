"""Sizes against what enumerating the windows gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcnn.functional as F
from jaxcnn import nn
from tests import reference

SPECS = ("SAME", "SAME_LOWER", "VALID", "CAUSAL")
axis = st.tuples(st.integers(1, 13), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))


@given(axis=axis, padding=st.one_of(st.sampled_from(SPECS), st.integers(0, 3)))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_output_size_counts_the_windows_of_one_axis(axis, padding):
    size, window, stride, dilation = ([value] for value in axis)
    padded = reference.pairs(padding, size, window, stride, dilation)
    expected = reference.output_size(size, window, stride, padded, dilation)
    if expected[0] < 1:
        with pytest.raises(ValueError, match="output_size"):
            F.output_size(tuple(size), tuple(window), stride=axis[2], padding=padding, dilation=axis[3])
    else:
        options = {"stride": axis[2], "padding": padding, "dilation": axis[3]}
        assert F.output_size(tuple(size), tuple(window), **options) == expected


@given(
    axes=st.lists(axis, min_size=2, max_size=3),
    padding=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3),
    ceil_mode=st.booleans(),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_output_size_with_a_value_per_axis(axes, padding, ceil_mode):
    size, window, stride, dilation = (tuple(values) for values in zip(*axes, strict=True))
    pads = tuple(padding[: len(axes)])
    expected = reference.output_size(size, window, stride, pads, dilation, ceil_mode)
    fits = all(
        low + n + high >= reference.reach(k, d)
        for (low, high), n, k, d in zip(pads, size, window, dilation, strict=True)
    )
    if fits:
        options = {"stride": stride, "padding": pads, "dilation": dilation, "ceil_mode": ceil_mode}
        assert F.output_size(size, window, **options) == expected


@pytest.mark.parametrize(
    "size, window, options, expected",
    [
        ((224, 192), (7, 7), {"stride": 2, "padding": 3}, (112, 96)),  # the ResNet stem
        ((13, 10), (3, 2), {"stride": (2, 3), "padding": (1, 0)}, (7, 3)),
        ((7, 6), (3, 2), {"stride": 2, "padding": "SAME"}, (4, 3)),
        ((7, 6), (3, 2), {"stride": 2, "padding": "VALID"}, (3, 3)),
        ((4, 9), (1, 2), {"stride": (5, 7)}, (1, 2)),  # a stride above the window
        ((10,), (3,), {"dilation": 2, "padding": "CAUSAL"}, (10,)),
        ((6, 5), (3, 2), {"stride": 2, "ceil_mode": True}, (3, 3)),
        (
            (5,),
            (2,),
            {"stride": 2, "padding": 1, "ceil_mode": True},
            (3,),
        ),  # the fourth window starts in the padding
    ],
)
def test_output_size_known_values(size, window, options, expected):
    assert F.output_size(size, window, **options) == expected


def test_exact_accepts_what_the_stride_divides_and_refuses_the_rest():
    assert F.output_size((9, 8), (3, 2), stride=2, exact=True) == (4, 4)
    with pytest.raises(ValueError, match="output_size.*stride"):
        F.output_size((9, 9), (3, 2), stride=2, exact=True)
    with pytest.raises(ValueError, match="output_size.*stride"):
        F.output_size((10, 8), (5, 2), stride=(3, 2), padding=((1, 2), (0, 0)), dilation=(2, 1), exact=True)


@given(axes=st.lists(axis, min_size=1, max_size=3), data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_conv_transpose_output_size_undoes_output_size(axes, data):
    size, window, stride, dilation = (tuple(values) for values in zip(*axes, strict=True))
    padding = tuple((data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in axes)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    forward = reference.output_size(size, window, stride, padding, dilation)
    if min(forward) < 1:
        return
    extra = tuple(
        (n + low + high - reference.reach(k, d)) % s
        for n, k, s, d, (low, high) in zip(size, window, stride, dilation, padding, strict=True)
    )
    assert F.conv_transpose_output_size(forward, window, output_padding=extra, **options) == size


@pytest.mark.parametrize(
    "size, window, options, expected",
    [
        ((5, 7), (4, 4), {"stride": 2, "padding": 1}, (10, 14)),  # DCGAN's doubling
        ((5, 7), (3, 2), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}, (10, 22)),
        ((5, 7), (3, 2), {"stride": 2, "padding": "SAME"}, (10, 14)),
        ((5, 7), (1, 2), {"stride": 3, "padding": "SAME"}, (15, 21)),  # a window below the stride
        ((5, 7), (3, 2), {"stride": 2, "padding": "SAME_LOWER"}, (10, 14)),
        ((5, 7), (3, 2), {"stride": 2, "padding": "VALID"}, (11, 14)),
        ((5,), (3,), {"dilation": 2}, (9,)),
    ],
)
def test_conv_transpose_output_size_known_values(size, window, options, expected):
    assert F.conv_transpose_output_size(size, window, **options) == expected


@pytest.mark.parametrize("padding", [*SPECS, 1, (2,), ((2, 1),)])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (3, 2)])
def test_every_function_that_slides_a_window_has_output_sizes_size(padding, stride, dilation):
    x = jnp.asarray(reference.normal(0, 1, 11, 2))
    kernel = jnp.asarray(reference.normal(1, 4, 2, 3))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    expected = F.output_size((11,), (4,), **options)
    assert F.conv(x, kernel, **options).shape == (1, *expected, 3)
    assert F.max_pool(x, (4,), **options).shape == (1, *expected, 2)
    assert F.avg_pool(x, (4,), **options).shape == (1, *expected, 2)


@pytest.mark.parametrize(
    "window, channels, options, expected",
    [
        ((3,), (4, 6), {}, 3 * 4 * 6 + 6),
        ((3, 2), (4, 6), {"bias": False}, 3 * 2 * 4 * 6),
        ((3, 2, 1), (4, 6), {"groups": 2}, 3 * 2 * 2 * 6 + 6),
        (7, (3, 64), {"bias": False}, 9408),  # an int is a square window: the ResNet stem
        (5, (1, 6), {}, 156),  # LeNet-5's C1
        (3, (144, 144), {"groups": 144}, 9 * 144 + 144),
    ],
)
def test_conv_parameter_count_is_the_size_of_the_arrays(window, channels, options, expected):
    count = F.conv_parameter_count(window, *channels, **options)
    assert type(count) is int and count == expected
    channels_in, channels_out = channels
    layer = nn.Conv(
        channels_in,
        channels_out,
        window,
        groups=options.get("groups", 1),
        use_bias=options.get("bias", True),
        rngs=nnx.Rngs(0),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))) == count


def test_sizes_are_python_integers():
    for size in (F.output_size((9, 8), (3, 2)), F.conv_transpose_output_size((9, 8), (3, 2))):
        assert isinstance(size, tuple) and all(type(n) is int for n in size)


def test_numpy_integers_are_integers():
    size, two = (np.int64(9), np.int32(8)), np.int64(2)
    assert F.output_size(size, (3, 2), stride=two) == (4, 4)
    x, kernel = jnp.asarray(reference.normal(0, 1, 9, 8, 2)), jnp.asarray(reference.normal(1, 3, 2, 2, 1))
    assert F.conv(x, kernel, stride=two, padding=np.int64(1)).shape == (1, 5, 5, 1)
