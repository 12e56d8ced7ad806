"""Which rewrite compiles a convolution: the first row of a table whose condition holds.

There is a table for convolutions of images (forward ones and gradients of their input) and one for gradients
of kernels. The conditions are thresholds measured on CPU (docs/performance.md says how).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.lowering import depthwise, dots, grouped, onednn, planes, transposed, volumetric
from jaxcnn.lowering.convolution import Convolution, channels_last
from jaxcnn.lowering.images import crop, cropped


class Choice(NamedTuple):
    """A rewrite, when it is taken and why."""

    name: str
    condition: Callable[[Convolution], bool]
    rewrite: Callable[[Convolution, Array, Array], Array]
    reason: str


def lower(conv: Convolution, x: Array, kernel: Array) -> Array:
    """A convolution of channels-last arrays, by the rewrite chosen for it."""
    if conv.is_kernel_gradient:
        return _as_kernel_gradient(conv, x, kernel)
    if not conv.is_spread:
        conv, x = crop(conv, x)
    return choose(conv).rewrite(conv, x, kernel)


def lower_kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, group_in, channels_out) of conv's kernel, by the rewrite chosen for it."""
    conv, x = crop(conv, x)
    return choose_for_kernel_gradient(conv).rewrite(conv, x, dy)


def chosen(conv: Convolution) -> Choice:
    """The row by which `lower` compiles a convolution."""
    if not conv.is_kernel_gradient:
        return choose(conv if conv.is_spread else cropped(conv))
    if not conv.is_spread:
        return choose_for_kernel_gradient(cropped(conv.differentiated()))
    if max(conv.dilation) == 1:
        return choose_for_kernel_gradient(cropped(transposed.exchanged(conv)))
    return _BOTH_SPREAD


def choose(conv: Convolution) -> Choice:
    """The first row of the table for convolutions that holds."""
    return next(row for row in CONVOLUTIONS if row.condition(conv))


def choose_for_kernel_gradient(conv: Convolution) -> Choice:
    """The first row of the table for gradients of kernels that holds."""
    return next(row for row in KERNEL_GRADIENTS if row.condition(conv))


def _as_kernel_gradient(conv: Convolution, x: Array, kernel: Array) -> Array:
    images, dy = jnp.swapaxes(x, 0, -1), jnp.moveaxis(kernel, -2, 0)
    if not conv.is_spread:
        gradient = lower_kernel_gradient(conv.differentiated(), images, dy)
    elif max(conv.dilation) == 1:
        of = transposed.exchanged(conv)
        gradient = transposed.exchanged_back(of, lower_kernel_gradient(of, dy, images))
    else:
        return conv.as_it_is(x, kernel)
    return jnp.moveaxis(gradient, -2, 0)


def _kernel_gradient_as_it_is(conv: Convolution, x: Array, dy: Array) -> Array:
    gradient = lax.conv_general_dilated(
        jnp.swapaxes(x, 0, -1),
        jnp.moveaxis(dy, 0, -2),
        conv.dilation,
        conv.padding,
        rhs_dilation=conv.stride,
        dimension_numbers=channels_last(conv.rank),
        batch_group_count=conv.groups,
        precision=conv.precision,
    )
    return jnp.moveaxis(gradient, 0, -2)


def _is_one_product(conv: Convolution) -> bool:
    return conv.groups == 1 and conv.taps == 1


def _is_depthwise(conv: Convolution) -> bool:
    return conv.groups > 1 and conv.group_in == 1


def _has_few_channels_a_group(conv: Convolution) -> bool:
    few = 1 < conv.groups and conv.taps * conv.group_in <= planes.PRODUCTS
    return few and not conv.partitioned


def _is_grouped_and_strided(conv: Convolution) -> bool:
    return conv.groups > 1 and max(conv.stride) > 1


def _is_grouped(conv: Convolution) -> bool:
    return conv.groups > 1


def _is_volume(conv: Convolution) -> bool:
    return conv.groups == 1 and conv.rank == 3


def _has_small_or_padded_images(conv: Convolution) -> bool:
    few_positions = (
        conv.batch * math.prod(conv.output) <= 512 and min(conv.channels_in, conv.channels_out) >= 256
    )
    return few_positions or dots.share_of_padding(conv) > 0.4


def _is_best_in_onednn(conv: Convolution) -> bool:
    fills_no_vector = conv.groups == 1 and conv.channels_out < 8
    return onednn.fits(conv) and not fills_no_vector


def _has_gradient_best_in_onednn(conv: Convolution) -> bool:
    is_line = conv.groups == 1 and conv.rank == 1
    return onednn.fits_kernel_gradient(conv) and not is_line


def _always(conv: Convolution) -> bool:
    return True


_PHASES = "phases"
_TAP_PHASES = "taps by phase"
_MATRIX = "one matrix product"
_SHIFTED = "shifted products"
_SHIFTED_PLANES = "shifted planes"
_VOLUME = "plane by plane"
_TAPS = "a matrix product a tap"
_GROUPS = "group by group"
_ONEDNN = "oneDNN's convolution"
_XLA = "XLA's own"

CONVOLUTIONS = (
    Choice(
        _PHASES,
        lambda conv: conv.is_spread,
        partial(transposed.forward, lower=lower),
        "zeros between the elements of x would be multiplied: one convolution a phase has none",
    ),
    Choice(_MATRIX, _is_one_product, dots.forward, "one tap is a matrix product over the channels"),
    Choice(
        _ONEDNN,
        _is_best_in_onednn,
        onednn.forward,
        "the fastest code known for it: JAX carries it, and XLA has an instruction for it",
    ),
    Choice(
        _SHIFTED,
        _is_depthwise,
        depthwise.forward,
        "one channel a group: an elementwise loop over shifted slices, where XLA has a scalar one",
    ),
    Choice(
        _SHIFTED_PLANES,
        _has_few_channels_a_group,
        planes.forward,
        "few channels a group: the same loop with positions, not channels, next to each other",
    ),
    Choice(
        _GROUPS,
        _is_grouped,
        partial(grouped.forward, lower=lower),
        "each group alone is a dense convolution, for which XLA has fast code",
    ),
    Choice(
        _VOLUME,
        _is_volume,
        partial(volumetric.forward, lower=lower),
        "XLA has fast code for two spatial axes only",
    ),
    Choice(
        _TAPS,
        _has_small_or_padded_images,
        dots.forward,
        "small images, or much padding: products per tap are large, and none is with padding",
    ),
    Choice(
        _XLA,
        _always,
        Convolution.as_it_is,
        "dense, few positions are padding: XLA's code is the fastest known",
    ),
)

KERNEL_GRADIENTS = (
    Choice(
        _ONEDNN,
        _has_gradient_best_in_onednn,
        onednn.kernel_gradient,
        "a convolution whose window is as large as the images: the fastest code known for it",
    ),
    Choice(_MATRIX, _is_one_product, dots.kernel_gradient, "one tap is a matrix product over the positions"),
    Choice(
        _SHIFTED,
        _is_depthwise,
        depthwise.kernel_gradient,
        "one channel a group: all taps in one pass over x and dy, where XLA has a scalar loop",
    ),
    Choice(
        _TAP_PHASES,
        _is_grouped_and_strided,
        partial(transposed.kernel_gradient, lower=lower_kernel_gradient),
        "taps that read the same every stride-th position have the gradient of a kernel without stride",
    ),
    Choice(
        _GROUPS,
        _is_grouped,
        partial(grouped.kernel_gradient, lower=lower_kernel_gradient),
        "each group alone is a dense convolution, for which XLA has fast code",
    ),
    Choice(
        _VOLUME,
        _is_volume,
        partial(volumetric.kernel_gradient, lower=lower_kernel_gradient),
        "XLA has fast code for two spatial axes only",
    ),
    Choice(
        _TAPS,
        _has_small_or_padded_images,
        dots.kernel_gradient,
        "small images, or much padding: products per tap are large, and none is with padding",
    ),
    Choice(
        _XLA,
        _always,
        _kernel_gradient_as_it_is,
        "dense, few positions are padding: XLA's code is the fastest known",
    ),
)

_BOTH_SPREAD = Choice(
    _XLA, _always, Convolution.as_it_is, "zeros between the elements of x and of dy: no better form is known"
)
