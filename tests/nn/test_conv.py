"""Convolution modules: their parameters, and that they are their functions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn import nn
from tests.nn.filled import filled
from tests.reference import normal

CONV_CASES = {
    "one axis, causal": ((7, 6), 5, (3,), {"padding": "CAUSAL", "dilation": 2}),
    "two axes": ((8, 6, 4), 6, (3, 2), {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2}),
    "int window": ((8, 6, 4), 6, 3, {"padding": 1, "padding_mode": "reflect", "use_bias": False}),
    "SAME": ((8, 6, 4), 6, (4, 3), {"padding": "SAME", "stride": 2}),
    "three axes": ((5, 4, 6, 2), 4, (3, 2, 3), {"padding": (1, 0, 1), "groups": 2}),
}

TRANSPOSE_CASES = {
    "one axis": ((5, 6), 4, (4,), {"stride": 2, "padding": 1}),
    "two axes": ((4, 5, 6), 4, (3, 4), {"stride": (2, 3), "padding": ((1, 0), (0, 2)), "groups": 2}),
    "output padding": ((4, 5, 6), 4, 3, {"stride": 3, "padding": 1, "output_padding": (2, 1)}),
    "SAME": ((4, 5, 6), 4, 3, {"stride": 2, "padding": "SAME", "use_bias": False}),
}


def function_options(options):
    return {name: value for name, value in options.items() if name != "use_bias"}


def jitted(module, x):
    """The way of the train step: a pure dict through a plain jax.jit."""
    graphdef, state = nnx.split(module)
    return jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))(nnx.to_pure_dict(state), x)


@pytest.mark.parametrize(("shape", "channels", "window", "options"), CONV_CASES.values(), ids=CONV_CASES)
def test_conv_is_its_function_of_its_parameters(shape, channels, window, options):
    conv = filled(lambda: nn.Conv(shape[-1], channels, window, **options, rngs=nnx.Rngs(0)))
    x = normal(0, 2, *shape)
    bias = None if conv.bias is None else conv.bias[...]
    expected = F.conv(x, conv.kernel[...], bias, **function_options(options))
    chex.assert_trees_all_close(conv(x), expected, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(jitted(conv, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "channels", "window", "options"), TRANSPOSE_CASES.values(), ids=TRANSPOSE_CASES
)
def test_conv_transpose_is_its_function_of_its_parameters(shape, channels, window, options):
    up = filled(lambda: nn.ConvTranspose(shape[-1], channels, window, **options, rngs=nnx.Rngs(0)))
    x = normal(0, 2, *shape)
    bias = None if up.bias is None else up.bias[...]
    expected = F.conv_transpose(x, up.kernel[...], bias, **function_options(options))
    chex.assert_trees_all_close(up(x), expected, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(jitted(up, x), expected, rtol=1e-5, atol=1e-5)


SEPARABLE_CASES = {
    "one axis, causal": ((7, 6), (3,), {"padding": "CAUSAL", "dilation": 2}),
    "two filters a channel": (
        (8, 6, 4),
        (3, 2),
        {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "multiplier": 2},
    ),
    "three axes": (
        (5, 4, 6, 2),
        (3, 2, 3),
        {"padding": (1, 0, 1), "padding_mode": "edge", "use_bias": False},
    ),
}


@pytest.mark.parametrize(("shape", "window", "options"), SEPARABLE_CASES.values(), ids=SEPARABLE_CASES)
def test_separable_conv_is_its_function_of_its_parameters(shape, window, options):
    conv = filled(lambda: nn.SeparableConv(shape[-1], 5, window, **options, rngs=nnx.Rngs(0)))
    x = normal(0, 2, *shape)
    kernels = conv.depthwise_kernel[...], conv.pointwise_kernel[...]
    between = shape[-1] * options.get("multiplier", 1)
    assert [kernel.shape for kernel in kernels] == [(*window, 1, between), (*(1 for _ in window), between, 5)]
    bias = None if conv.bias is None else conv.bias[...]
    of_function = {name: value for name, value in options.items() if name not in ("use_bias", "multiplier")}
    expected = F.separable_conv(x, *kernels, bias, **of_function)
    chex.assert_trees_all_close(conv(x), expected, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(jitted(conv, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2, "use_bias": False}]
)
def test_deform_conv_is_its_function_of_its_parameters(options):
    deform = filled(lambda: nn.DeformConv(4, 6, (3, 2), **options, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 7, 6, 4)
    sliding = {name: value for name, value in options.items() if name in ("stride", "padding", "dilation")}
    output = F.output_size((7, 6), (3, 2), **sliding)
    offset, mask = normal(1, 2, *output, 2, 6, 2), normal(2, 2, *output, 2, 6)
    bias = None if deform.bias is None else deform.bias[...]
    for modulation in (None, mask):
        expected = F.deform_conv(x, offset, deform.kernel[...], modulation, bias, **function_options(options))
        chex.assert_trees_all_close(deform(x, offset, modulation), expected, rtol=1e-6, atol=1e-6)


def test_deform_conv_casts_all_but_the_offset():
    deform = filled(lambda: nn.DeformConv(4, 6, 3, padding=1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    x, offset, mask = normal(0, 2, 7, 6, 4), normal(1, 2, 7, 6, 1, 9, 2), normal(2, 2, 7, 6, 1, 9)
    half = [jnp.asarray(array, jnp.bfloat16) for array in (x, deform.kernel[...], mask, deform.bias[...])]
    expected = F.deform_conv(half[0], offset, *half[1:], padding=1)
    chex.assert_trees_all_equal(deform(x, offset, mask), expected)
    assert expected.dtype == jnp.bfloat16


def test_conv_transpose_is_the_adjoint_of_the_conv_with_the_same_options():
    options = {"stride": (2, 1), "padding": (1, 2), "groups": 2, "use_bias": False}
    conv = filled(lambda: nn.Conv(4, 6, (3, 5), **options, rngs=nnx.Rngs(0)))
    up = filled(lambda: nn.ConvTranspose(6, 4, (3, 5), **options, rngs=nnx.Rngs(1)))
    assert up.kernel.shape == conv.kernel.shape == (3, 5, 2, 6)
    up.kernel[...] = conv.kernel[...]
    a, b = normal(0, 2, 9, 7, 4), normal(1, 2, 5, 7, 6)
    np.testing.assert_allclose(jnp.vdot(conv(a), b), jnp.vdot(a, up(b)), rtol=1e-5)


def test_parameters_are_float32_with_the_documented_shapes():
    conv = filled(lambda: nn.Conv(6, 9, (3, 5), groups=3, rngs=nnx.Rngs(0)))
    assert (conv.kernel.shape, conv.kernel.dtype) == ((3, 5, 2, 9), jnp.float32)
    assert (conv.bias.shape, conv.bias.dtype) == ((9,), jnp.float32)
    up = filled(lambda: nn.ConvTranspose(6, 9, 4, groups=3, use_bias=False, rngs=nnx.Rngs(0)))
    assert (up.kernel.shape, up.kernel.dtype, up.bias) == ((4, 4, 3, 6), jnp.float32, None)


@pytest.mark.parametrize("make", [nn.Conv, nn.ConvTranspose])
def test_initial_kernel_keeps_the_variance_of_the_sum(make):
    kernel = make(64, 32, 3, rngs=nnx.Rngs(3)).kernel[...]
    np.testing.assert_allclose(kernel.std(), (3 * 3 * 64) ** -0.5, rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=1e-3)


def test_kernel_init_and_the_params_stream_are_used():
    kernel_init = jax.nn.initializers.he_normal()
    conv = nn.Conv(2, 3, 3, kernel_init=kernel_init, rngs=nnx.Rngs(params=5))
    expected = kernel_init(nnx.Rngs(params=5).params(), (3, 3, 2, 3), jnp.float32)
    chex.assert_trees_all_equal(conv.kernel[...], expected)


@pytest.mark.parametrize("make", [nn.Conv, nn.ConvTranspose])
def test_dtype_is_of_the_computation_alone(make):
    x = normal(0, 2, 6, 5, 4)
    full = filled(lambda: make(4, 8, 3, rngs=nnx.Rngs(0)))
    half = filled(lambda: make(4, 8, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert half.kernel.dtype == half.bias.dtype == jnp.float32
    assert full(x).dtype == jnp.float32
    assert half(x).dtype == jnp.bfloat16
    # Without dtype x decides; with it, x is cast.
    chex.assert_trees_all_equal(full(jnp.asarray(x, jnp.bfloat16)), half(x))
    np.testing.assert_allclose(half(x).astype(jnp.float32), full(x), atol=0.05)


def test_modules_are_abstract_under_eval_shape_and_pass_jit_as_pytrees():
    abstract = nnx.eval_shape(lambda: nn.Conv(3, 8, 3, rngs=nnx.Rngs(0)))
    assert isinstance(abstract.kernel.get_value(), jax.ShapeDtypeStruct)
    conv = filled(lambda: nn.Conv(3, 8, [3, 5], padding=[1, 2], rngs=nnx.Rngs(0)))
    x = normal(0, 2, 6, 5, 3)
    chex.assert_trees_all_close(jax.jit(lambda conv, x: conv(x))(conv, x), conv(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [nn.Conv, nn.ConvTranspose])
def test_every_parameter_has_a_gradient(make):
    graphdef, params = nnx.split(filled(lambda: make(4, 6, 3, groups=2, rngs=nnx.Rngs(0))))
    x = normal(0, 2, 6, 5, 4)
    grads = jax.grad(lambda p: jnp.square(nnx.merge(graphdef, p)(x)).sum())(nnx.to_pure_dict(params))
    chex.assert_tree_all_finite(grads)
    assert all(jnp.abs(grad).min() > 0 for grad in jax.tree.leaves(grads))


CONSTRUCTOR_ERRORS = [
    ((0, 8, 3), {}, ValueError, "channels_in must be at least 1, got 0"),
    ((3, -8, 3), {}, ValueError, "channels_out must be at least 1, got -8"),
    ((3, 8.0, 3), {}, TypeError, "channels_out must be an int, got 8.0"),
    ((4, 6, 3), {"groups": 0}, ValueError, "groups must be at least 1, got 0"),
    ((4, 6, 3), {"groups": 4}, ValueError, "groups must divide channels_out, got groups=4, channels_out=6"),
    ((6, 4, 3), {"groups": 4}, ValueError, "groups must divide channels_in, got groups=4, channels_in=6"),
    ((3, 8, 0), {}, ValueError, "window must be at least 1, got "),
    ((3, 8, (3, 3, 3, 3)), {}, ValueError, "window must be an int or a tuple of 1 to 3 ints"),
    ((3, 8, ()), {}, (ValueError, TypeError), "window must be an int or a tuple of 1 to 3 ints"),
    ((3, 8, "3"), {}, (ValueError, TypeError), "window must be an int or a tuple"),
    ((3, 8, 3), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ((3, 8, 3), {"dilation": (1, 2, 3)}, ValueError, "dilation must be an int or a tuple of 2 ints"),
    ((3, 8, 3), {"padding": -1}, ValueError, "padding must not be negative"),
    ((3, 8, 3), {"dtype": jnp.int32}, TypeError, "dtype must be a floating dtype or None"),
]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), CONSTRUCTOR_ERRORS)
@pytest.mark.parametrize("make", [nn.Conv, nn.ConvTranspose, nn.SeparableConv, nn.DeformConv])
def test_constructor_errors_name_module_and_argument(make, arguments, options, error, message, unchecked):
    if make is nn.SeparableConv and "groups" in options:
        return
    if make is nn.DeformConv:
        message = message.replace("1 to 3 ints", "2 ints")
    with pytest.raises(error, match=f"^{make.__name__}: {message}"):
        make(*arguments, **options, rngs=nnx.Rngs(0))


def test_constructor_errors_of_one_module_only(unchecked):
    with pytest.raises(ValueError, match="^Conv: padding_mode must be one of .*got 'replicate'"):
        nn.Conv(3, 8, 3, padding_mode="replicate", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^ConvTranspose: output_padding must be at least 0, got -1"):
        nn.ConvTranspose(3, 8, 3, output_padding=-1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^SeparableConv: multiplier must be at least 1, got 0"):
        nn.SeparableConv(3, 8, 3, multiplier=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^DeformConv: window must be an int or a tuple of 2 ints"):
        nn.DeformConv(3, 8, (3,), rngs=nnx.Rngs(0))
    deform = filled(lambda: nn.DeformConv(3, 8, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match="^DeformConv: mask must be a JAX or NumPy array, got list"):
        deform(normal(0, 2, 8, 6, 3), normal(0, 2, 6, 4, 1, 9, 2), [1.0])


@pytest.mark.parametrize("make", [nn.Conv, nn.ConvTranspose, nn.SeparableConv])
def test_call_errors(make, unchecked):
    module = filled(lambda: make(3, 8, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match=f"^{make.__name__}: x must have a floating dtype, got uint8"):
        module(np.zeros((2, 8, 6, 3), np.uint8))
    with pytest.raises(TypeError, match=f"^{make.__name__}: x must be a JAX or NumPy array, got list"):
        module([[1.0]])
    with pytest.raises(ValueError, match="channels"):
        module(normal(0, 2, 8, 6, 4))
