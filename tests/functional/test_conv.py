"""conv and its relatives against loops and their adjoints, and the programs they become."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxcnn.functional as F
from tests import reference

SPECS = ("SAME", "SAME_LOWER", "VALID")
drawn = functools.partial(settings, deadline=None, derandomize=True)


@st.composite
def convolutions(draw, specs=SPECS, max_size=6):
    """Sizes and options of a convolution that has at least one output."""
    rank = draw(st.integers(1, 3))

    def values(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    window, stride = values(1, 3), values(1, 4)
    dilation = values(1, 2) if draw(st.booleans()) else (1,) * rank
    padding = draw(st.sampled_from([*specs, "pairs"]))
    if padding == "pairs":
        padding = tuple(zip(values(0, 2), values(0, 2), strict=True))
    least = [reference.reach(k, d) for k, d in zip(window, dilation, strict=True)]
    size = tuple(draw(st.integers(n, max(n, max_size))) for n in least)
    return (
        size,
        window,
        draw(st.sampled_from([1, 2, 3])),
        dict(stride=stride, padding=padding, dilation=dilation),
    )


def resolved(size, window, options) -> dict[str, Any]:
    """The options with the padding as pairs, as the reference wants them."""
    pads = reference.pairs(options["padding"], size, window, options["stride"], options["dilation"])
    return options | {"padding": pads}


def operands(size, window, groups, *, width=2, out=2, dtype: Any = np.float32):
    """x, kernel and bias of a convolution from `width` to `out` channels per group."""
    x = reference.normal(0, 2, *size, width * groups, dtype=dtype)
    kernel = reference.normal(1, *window, width, out * groups, dtype=dtype)
    return x, kernel, reference.normal(2, out * groups, dtype=dtype)


def widest(groups, stride) -> Any:
    """float64, but where XLA:CPU aborts on some shapes: float64 with groups and a dilated input."""
    return np.float32 if groups > 1 and max(stride) > 1 else np.float64


def tolerance(dtype) -> dict[str, Any]:
    return {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}


def transposed_size(size, window, extra, options):
    """The size of conv_transpose's result; a padding wide enough makes it empty."""
    axes = zip(size, window, extra, options["stride"], options["padding"], options["dilation"], strict=True)
    return [(n - 1) * s + reference.reach(k, d) - sum(pad) + e for n, k, e, s, pad, d in axes]


# conv


@given(convolutions())
@drawn(max_examples=50)
def test_conv_equals_the_loops(case):
    size, window, groups, options = case
    x, kernel, bias = operands(size, window, groups, out=1 + groups % 2)
    conv = jax.jit(functools.partial(F.conv, groups=groups, **options))
    expected = reference.conv(x, kernel, bias, groups=groups, **resolved(size, window, options))
    np.testing.assert_allclose(conv(x, kernel, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "symmetric", "edge", "circular"])
@pytest.mark.parametrize(
    "size, window, padding",
    [((7,), (3,), ((2, 1),)), ((5, 6), (2, 3), ((1, 0), (2, 3))), ((4, 3, 5), (2, 3, 1), "SAME")],
)
def test_padding_modes_fill_what_zeros_would(size, window, padding, mode):
    x, kernel, bias = operands(size, window, 2)
    options = {"stride": (2,) * len(size), "padding": padding, "dilation": (1,) * len(size)}
    y = F.conv(*map(jnp.asarray, (x, kernel, bias)), groups=2, padding_mode=mode, **options)
    expected = reference.conv(x, kernel, bias, groups=2, mode=mode, **resolved(size, window, options))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [2, (2, 2), ((2, 2), (2, 2))])
def test_integer_options_mean_every_axis(padding):
    x, kernel, _ = (jnp.asarray(a) for a in operands((9, 7), (3, 2), 1))
    y = F.conv(x, kernel, stride=2, padding=padding, dilation=2)
    expected = F.conv(x, kernel, stride=(2, 2), padding=((2, 2), (2, 2)), dilation=(2, 2))
    chex.assert_trees_all_equal(y, expected)


def test_the_default_padding_is_none():
    x, kernel, _ = (jnp.asarray(a) for a in operands((6, 5), (3, 2), 1))
    chex.assert_trees_all_equal(F.conv(x, kernel), F.conv(x, kernel, padding="VALID"))
    assert F.conv(x, kernel).shape == (2, 4, 4, 2)


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_causal_output_never_sees_later_inputs(dilation):
    x, kernel, bias = operands((12,), (4,), 1)
    conv = functools.partial(F.conv, padding="CAUSAL", dilation=dilation)
    y = conv(*map(jnp.asarray, (x, kernel, bias)))
    options = {"stride": (1,), "padding": "CAUSAL", "dilation": (dilation,)}
    expected = reference.conv(x, kernel, bias, **resolved((12,), (4,), options))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    later = x.copy()
    later[:, 7:] += 1.0
    changed = np.any(conv(*map(jnp.asarray, (later, kernel, bias))) != y, axis=(0, 2))
    np.testing.assert_array_equal(changed, np.arange(12) >= 7)


def test_it_is_cross_correlation_not_convolution():
    x = jnp.asarray([1.0, 2.0, 4.0, 8.0], jnp.float32).reshape(1, 4, 1)
    kernel = jnp.asarray([1.0, 10.0], jnp.float32).reshape(2, 1, 1)
    np.testing.assert_array_equal(F.conv(x, kernel).ravel(), [21.0, 42.0, 84.0])


@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
def test_depthwise_conv_filters_each_channel_alone(stride):
    x, bias = reference.normal(0, 2, 7, 6, 3), reference.normal(2, 6)
    kernel = reference.normal(1, 3, 2, 1, 6)  # two outputs per channel
    options = {"stride": stride, "padding": ((1, 0), (1, 1)), "dilation": (2, 1)}
    y = F.depthwise_conv(*map(jnp.asarray, (x, kernel, bias)), **options)
    strides: dict[str, Any] = {"stride": stride if isinstance(stride, tuple) else (stride, stride)}
    for channel in range(3):
        out = slice(2 * channel, 2 * channel + 2)
        one = reference.conv(
            x[..., channel : channel + 1], kernel[..., out], bias[out], **(options | strides)
        )
        np.testing.assert_allclose(y[..., out], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size, window", [((9,), (3,)), ((7, 6), (3, 2)), ((4, 5, 3), (2, 3, 1))])
def test_separable_conv_is_depthwise_then_pointwise(size, window):
    x, bias = reference.normal(0, 2, *size, 3), reference.normal(3, 4)
    depthwise = reference.normal(1, *window, 1, 6)
    pointwise = reference.normal(2, *(1 for _ in window), 6, 4)
    options = {"stride": (2,) * len(size), "padding": "SAME", "dilation": (1,) * len(size)}
    y = F.separable_conv(*map(jnp.asarray, (x, depthwise, pointwise, bias)), **options)
    middle = reference.conv(x, depthwise, groups=3, **resolved(size, window, options))
    expected = middle @ pointwise.reshape(6, 4).astype(np.float64) + bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


# conv_transpose


def draw_output_padding(data, options):
    """As torch: smaller than the stride or the dilation."""
    most = [max(s, d) - 1 for s, d in zip(options["stride"], options["dilation"], strict=True)]
    return tuple(data.draw(st.integers(0, n)) for n in most)


@given(convolutions(specs=("VALID",), max_size=4), st.data())
@drawn(max_examples=40)
def test_conv_transpose_equals_scattering(case, data):
    size, window, groups, options = case
    options = resolved(size, window, options)
    extra = draw_output_padding(data, options)
    assume(min(transposed_size(size, window, extra, options)) >= 1)
    x, kernel, bias = operands(size, window, groups)
    transposed = functools.partial(F.conv_transpose, output_padding=extra, groups=groups, **options)
    y = jax.jit(transposed)(x, kernel, bias)
    expected = reference.conv_transpose(x, kernel, bias, output_padding=extra, groups=groups, **options)
    assert y.shape[1:-1] == F.conv_transpose_output_size(size, window, output_padding=extra, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "spec, size, window, stride, dilation",
    [
        *((spec, (5,), (3,), (2,), (1,)) for spec in (*SPECS, "CAUSAL")),
        *((spec, (4, 3), (1, 2), (3, 4), (1, 1)) for spec in SPECS),
        *((spec, (3, 4), (3, 4), (1, 2), (2, 1)) for spec in SPECS),
    ],
)
def test_a_named_padding_is_the_adjoint_on_size_times_stride(spec, size, window, stride, dilation):
    x, kernel, _ = operands(size, window, 2)
    options = {"stride": stride, "padding": spec, "dilation": dilation}
    y = jax.jit(functools.partial(F.conv_transpose, groups=2, **options))(x, kernel)
    if spec != "VALID":
        assert y.shape[1:-1] == tuple(np.multiply(size, stride))
    a = reference.normal(3, *y.shape)
    forward = reference.conv(a, kernel, groups=2, **resolved(a.shape[1:-1], window, options))
    np.testing.assert_allclose(np.vdot(forward, x), np.vdot(a, y), rtol=1e-4, atol=1e-4)


@given(convolutions(specs=SPECS))
@drawn(max_examples=30)
def test_conv_transpose_is_the_adjoint_of_conv(case):
    size, window, groups, options = case
    dtype = widest(groups, options["stride"])
    with jax.enable_x64(True):
        a, kernel, _ = map(jnp.asarray, operands(size, window, groups, out=3, dtype=dtype))
        pads = resolved(size, window, options)
        extra = tuple(
            (n + low + high - reference.reach(k, d)) % s
            for n, k, s, d, (low, high) in zip(
                size, window, pads["stride"], pads["dilation"], pads["padding"], strict=True
            )
        )

        @jax.jit
        def there_and_back(a, kernel):
            forward = F.conv(a, kernel, groups=groups, **options)
            b = jnp.asarray(reference.normal(3, *forward.shape, dtype=dtype))
            return forward, b, F.conv_transpose(b, kernel, groups=groups, output_padding=extra, **pads)

        forward, b, back = map(np.asarray, there_and_back(a, kernel))
    assert back.shape == a.shape
    np.testing.assert_allclose(np.vdot(forward, b), np.vdot(a, back), **tolerance(dtype))


def test_conv_transpose_is_the_gradient_of_conv():
    size, window = (9, 8), (3, 2)
    x, kernel, _ = map(jnp.asarray, operands(size, window, 2))
    options = {"stride": (2, 3), "padding": ((1, 0), (1, 2)), "dilation": (1, 2), "groups": 2}
    y, vjp = jax.vjp(lambda x: F.conv(x, kernel, **options), x)
    back = F.conv_transpose(y, kernel, output_padding=(1, 2), **options)
    np.testing.assert_allclose(back, vjp(y)[0], rtol=1e-5, atol=1e-5)


# What a pure function promises

CALLS = {
    "conv": functools.partial(F.conv, padding=1, padding_mode="reflect", groups=2, stride=2),
    "causal": lambda x, k, b: F.conv(x[:, 0], k[0], b, padding="CAUSAL", groups=2, dilation=2),
    "conv_transpose": functools.partial(
        F.conv_transpose, padding=1, groups=2, stride=2, output_padding=(1, 0), dilation=(1, 2)
    ),
    "depthwise": lambda x, k, b: F.depthwise_conv(x, k[:, :, :1], b, padding="SAME"),
}


def call_operands(dtype: Any = np.float32, channels=4):
    return tuple(
        jnp.asarray(a)
        for a in operands((5, 6), (3, 2), 2, width=channels // 2, out=channels // 2, dtype=dtype)
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_jaxpr_holds_exactly_one_convolution(name):
    jaxpr = str(jax.make_jaxpr(CALLS[name])(*call_operands()))
    assert jaxpr.count("conv_general_dilated[") == 1


@pytest.mark.parametrize("mode", ["zeros", "reflect", "symmetric", "edge", "circular"])
@pytest.mark.parametrize("padding", ["SAME", ((2, 0), (1, 1))])
def test_padding_modes_add_no_convolution(mode, padding):
    x, kernel, bias = call_operands()
    conv = functools.partial(F.conv, padding=padding, padding_mode=mode, groups=2)
    assert str(jax.make_jaxpr(conv)(x, kernel, bias)).count("conv_general_dilated[") == 1


@pytest.mark.parametrize("call", [F.conv, F.conv_transpose], ids=["conv", "conv_transpose"])
def test_precision_reaches_the_convolution(call):
    x, kernel, _ = call_operands()
    jaxpr = str(jax.make_jaxpr(functools.partial(call, groups=2, precision="highest"))(x, kernel))
    assert jaxpr.count("HIGHEST") == 2  # one for each operand
    assert "HIGHEST" not in str(jax.make_jaxpr(functools.partial(call, groups=2))(x, kernel))


def test_zero_padding_is_the_convolutions_own():
    x, kernel, bias = call_operands()
    jaxpr = str(jax.make_jaxpr(functools.partial(F.conv, padding=1, groups=2))(x, kernel, bias))
    assert " pad[" not in jaxpr  # no padded copy of x


class Variants(chex.TestCase):
    @chex.all_variants
    def test_every_function_in_every_variant(self):
        arguments = call_operands()
        for name, call in CALLS.items():
            with self.subTest(name):
                chex.assert_trees_all_close(
                    self.variant(call)(*arguments), call(*arguments), rtol=1e-5, atol=1e-5
                )


@pytest.mark.parametrize("name", CALLS)
def test_vmap_over_x_over_the_kernel_and_over_both(name):
    call = jax.jit(CALLS[name])
    x, kernel, bias = call_operands()
    xs = jnp.stack([x, x[::-1] * 2, x + 1])
    kernels = jnp.stack([kernel, kernel[::-1], kernel * 3])
    loops = {
        (0, None, None): [call(x, kernel, bias) for x in xs],
        (None, 0, None): [call(x, kernel, bias) for kernel in kernels],
        (0, 0, None): [call(x, kernel, bias) for x, kernel in zip(xs, kernels, strict=True)],
    }
    for axes, expected in loops.items():
        arguments = xs if axes[0] == 0 else x, kernels if axes[1] == 0 else kernel, bias
        y = jax.vmap(call, in_axes=axes)(*arguments)
        np.testing.assert_allclose(y, jnp.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CALLS)
def test_pmap_and_a_sharded_batch_agree_with_one_device(name):
    call = CALLS[name]
    _, kernel, bias = call_operands()
    x = jnp.asarray(reference.normal(5, 8, 5, 6, 4))

    def value_and_gradient(x, kernel, bias):
        y = call(x, kernel, bias)
        return y, jax.grad(lambda kernel: jnp.sum(call(x, kernel, bias) ** 2))(kernel)

    y, gradient = jax.jit(value_and_gradient)(x, kernel, bias)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    shared = jax.device_put((kernel, bias), NamedSharding(mesh, PartitionSpec()))
    result = jax.jit(value_and_gradient)(sharded, *shared)
    chex.assert_trees_all_close(result, (y, gradient), rtol=1e-4, atol=1e-4)
    parts, gradients = jax.pmap(value_and_gradient, in_axes=(0, None, None))(
        x.reshape(4, 2, *x.shape[1:]), kernel, bias
    )
    chex.assert_trees_all_close(
        (parts.reshape(y.shape), gradients.sum(0)), (y, gradient), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(F.conv, groups=2),
        functools.partial(F.conv_transpose, groups=2),
        lambda x, k, b, **options: F.depthwise_conv(x, k[:, :, :1], b, **options),
    ],
    ids=["conv", "conv_transpose", "depthwise"],
)
def test_preferred_element_type_is_the_results_and_the_accumulators(call):
    x, kernel, bias = (a.astype(jnp.bfloat16) for a in call_operands())
    y = call(x, kernel, bias, preferred_element_type=jnp.float32, precision="highest")
    assert y.dtype == jnp.float32
    exact = call(*(a.astype(jnp.float32) for a in (x, kernel, bias)))
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)


def test_separable_conv_keeps_xs_dtype_between_its_two_convolutions():
    x, kernel, bias = (a.astype(jnp.bfloat16) for a in call_operands())
    depthwise, pointwise = kernel[:, :, :1], kernel[:1, :1].repeat(2, 2)
    y = F.separable_conv(x, depthwise, pointwise, bias, preferred_element_type=jnp.float32)
    middle = F.depthwise_conv(x, depthwise)
    assert y.dtype == jnp.float32 and middle.dtype == jnp.bfloat16
    expected = reference.conv(
        middle.astype(jnp.float32),
        pointwise.astype(jnp.float32),
        bias.astype(jnp.float32),
        **resolved((3, 5), (1, 1), {"stride": (1, 1), "padding": "VALID", "dilation": (1, 1)}),
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_conv_in_a_scan():
    x, kernel, bias = call_operands()
    step = functools.partial(F.conv, padding="SAME", groups=2)
    looped, _ = jax.lax.scan(lambda x, k: (step(x, k, bias), None), x, jnp.stack([kernel, kernel[::-1]]))
    np.testing.assert_allclose(looped, step(step(x, kernel, bias), kernel[::-1], bias), rtol=1e-4, atol=1e-4)
