"""Which rewrite compiles a convolution: the first row of a table whose condition holds.

There is a table for convolutions of images (forward ones and gradients of their input) and one for gradients
of kernels, both for convolutions in normal form, and one for convolutions with zeros between the elements of
x. The conditions are thresholds measured on CPU (docs/performance.md says how), and limits of how much is
written out: a convolution or a gradient is at most 300 operations of StableHLO.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.lowering import depthwise, grouped, matmul, onednn, planes, transposed, volumetric
from jaxcnn.lowering.convolution import Convolution, channels_last
from jaxcnn.lowering.normal_form import normal_form

Table = tuple["Choice", ...]


class Choice(NamedTuple):
    """A rewrite, when it is taken and why."""

    name: str
    condition: Callable[[Convolution], bool]
    rewrite: Callable[[Convolution, Array, Array], Array]
    reason: str


def lower(conv: Convolution, x: Array, kernel: Array) -> Array:
    """A convolution of channels-last arrays, by the rewrite chosen for it."""
    if _is_grouped_product(conv):
        return conv.unchanged(x, kernel)
    if conv.is_kernel_gradient:
        return _as_kernel_gradient(conv, x, kernel)
    if conv.is_lhs_dilated:
        return _first(LHS_DILATED, conv).rewrite(conv, x, kernel)
    form = normal_form(conv)
    if form is None:
        return jnp.zeros((conv.batch, *conv.output, conv.channels_out), x.dtype)
    rewrite = _first(CONVOLUTIONS, form.conv).rewrite
    return form.y(rewrite(form.conv, form.x(x), form.kernel(kernel)))


def lower_kernel_gradient(conv: Convolution, x: Array, dy: Array) -> Array:
    """The gradient (*window, group_in, channels_out) of conv's kernel, by the rewrite chosen for it."""
    form = normal_form(conv, of_gradient=True)
    if form is None:
        return jnp.zeros((*conv.window, conv.group_in, conv.channels_out), x.dtype)
    rewrite = _first(KERNEL_GRADIENTS, form.conv).rewrite
    return form.kernel_gradient(rewrite(form.conv, form.x(x), form.dy(dy)))


def lowering_of(conv: Convolution) -> tuple[str, str]:
    """The name of the rewrite by which `lower` compiles a convolution, and the reason."""
    if _is_grouped_product(conv):
        return _XLA, "no spatial axes, and groups: no better form is known"
    if not conv.is_kernel_gradient:
        return _named(LHS_DILATED if conv.is_lhs_dilated else CONVOLUTIONS, conv)
    if not conv.is_lhs_dilated:
        return _named(KERNEL_GRADIENTS, conv.differentiated())
    if max(conv.dilation) == 1:
        return _named(KERNEL_GRADIENTS, transposed.exchanged(conv))
    return _XLA, "zeros between the elements of x and of dy: no better form is known"


def _named(table: Table, conv: Convolution) -> tuple[str, str]:
    if table is not LHS_DILATED:
        form = normal_form(conv, of_gradient=table is KERNEL_GRADIENTS)
        if form is None:
            return "zeros", "everything that it reads is padding"
        conv = form.conv
    row = _first(table, conv)
    # What is written out phase by phase may be inside the box each.
    ask = {id(CONVOLUTIONS): onednn.why_not, id(KERNEL_GRADIENTS): onednn.why_no_kernel_gradient}
    why_not = None if row.name in (_ONEDNN, _MATRIX) else ask.get(id(table), onednn.why_never)(conv)
    return row.name, f"{row.reason}; no oneDNN: {why_not}" if why_not else row.reason


def _first(table: Table, conv: Convolution) -> Choice:
    return next(row for row in table if row.condition(conv))


def _as_kernel_gradient(conv: Convolution, x: Array, kernel: Array) -> Array:
    images, dy = jnp.swapaxes(x, 0, -1), jnp.moveaxis(kernel, -2, 0)
    if not conv.is_lhs_dilated:
        gradient = lower_kernel_gradient(conv.differentiated(), images, dy)
    elif max(conv.dilation) == 1:
        of = transposed.exchanged(conv)
        gradient = transposed.exchanged_back(of, lower_kernel_gradient(of, dy, images))
    else:
        return conv.unchanged(x, kernel)
    return jnp.moveaxis(gradient, -2, 0)


def _kernel_gradient_unchanged(conv: Convolution, x: Array, dy: Array) -> Array:
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


def _is_grouped_product(conv: Convolution) -> bool:
    return conv.rank == 0 and max(conv.groups, conv.batch_groups) > 1


def _is_one_product(conv: Convolution) -> bool:
    return conv.groups == 1 and conv.taps == 1


def _is_one_product_best_in_xla(conv: Convolution) -> bool:
    # Where the channels become fewer, XLA's product of the transposed images is half as fast as oneDNN's.
    narrows = conv.channels_in > conv.channels_out
    return _is_one_product(conv) and not (narrows and onednn.why_no_kernel_gradient(conv) is None)


def _has_few_channels_a_group(conv: Convolution) -> bool:
    few = 1 < conv.groups and conv.taps * conv.group_in * conv.copies <= planes.PRODUCTS
    return few and not conv.partitioned


def _is_grouped_and_strided(conv: Convolution) -> bool:
    few = math.prod(conv.stride) * conv.copies <= 4 and conv.taps * conv.copies <= TAPS
    return conv.groups > 1 and max(conv.stride, default=1) > 1 and few


def _is_volume(conv: Convolution) -> bool:
    return conv.groups == 1 and conv.rank == 3 and conv.window[0] * conv.copies <= PLANES


def _has_small_or_padded_images(conv: Convolution) -> bool:
    if conv.taps * conv.copies > TAPS:
        return False
    few_positions = (
        conv.batch * math.prod(conv.output) <= 512 and min(conv.channels_in, conv.channels_out) >= 256
    )
    return few_positions or matmul.share_of_padding(conv) > 0.4


def _has_few_outputs(conv: Convolution) -> bool:
    few = conv.groups == 1 and conv.channels_out < 8 and conv.channels_in >= 16
    return few and conv.taps * conv.copies <= 9


def _reads_x_once(conv: Convolution) -> bool:
    once = all(w == 1 or n == 1 for w, n in zip(conv.window, conv.output, strict=True))
    return conv.groups == 1 and once and 1 < conv.taps * conv.copies <= TAPS


def _is_best_in_onednn(conv: Convolution) -> bool:
    fills_no_vector = conv.groups == 1 and conv.channels_out < 8 <= conv.channels_in
    # It writes the kernel in another order first.
    is_mostly_kernel = conv.batch * math.prod(conv.output) <= 64 and conv.taps * conv.group_in > 2**12
    return not (fills_no_vector or is_mostly_kernel) and onednn.why_not(conv) is None


def _has_gradient_best_in_onednn(conv: Convolution) -> bool:
    is_short_line = conv.groups == 1 and conv.rank == 1 and conv.taps < 32
    return not is_short_line and onednn.why_no_kernel_gradient(conv) is None


def _has_phases_alike(conv: Convolution) -> bool:
    many = not _has_few_phases(conv)
    fill_a_vector = conv.groups == 1 and conv.channels_out < 8
    are_products = all(w <= p for w, p in zip(conv.window, conv.lhs_dilation, strict=True))
    return transposed.phases_are_alike(conv) and (many or fill_a_vector or are_products)


def _is_best_unchanged(conv: Convolution) -> bool:
    return conv.groups == 1 and conv.channels_out == 1 and conv.batch_groups == 1


def _has_few_phases(conv: Convolution) -> bool:
    if conv.batch_groups > 1 or conv.taps > TAPS_OF_PHASES or transposed.phases(conv) > TAPS:
        return False
    # With groups, what a phase takes beside its taps is more.
    return transposed.phases_with_taps(conv) <= (PHASES if conv.groups == 1 else 4)


def _always(conv: Convolution) -> bool:
    return True


PHASES = 16  # parts that are written out, each with a convolution of its own
PLANES, TAPS = 6, 36  # the same of planes of a volume, and of taps
TAPS_OF_PHASES = 225  # of phases that are written out: more may need loops inside loops

_PHASES = "phases"
_ALL_PHASES = "all phases at once"
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
    Choice(_MATRIX, _is_one_product, matmul.forward, "one tap is a matrix product over the channels"),
    Choice(
        _TAPS,
        _has_few_outputs,
        matmul.forward,
        "few channels out: the other codes leave most of a vector empty",
    ),
    Choice(
        _ONEDNN,
        _is_best_in_onednn,
        onednn.forward,
        "the fastest code known for it: JAX carries it, and XLA has an instruction for it",
    ),
    Choice(
        _SHIFTED,
        lambda conv: conv.is_depthwise,
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
        lambda conv: conv.groups > 1,
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
        matmul.forward,
        "small images, or much padding: products per tap are large, and none is with padding",
    ),
    Choice(
        _XLA,
        _always,
        Convolution.unchanged,
        "dense, few positions are padding: XLA's code is the fastest known",
    ),
)

KERNEL_GRADIENTS = (
    Choice(
        _MATRIX,
        _is_one_product_best_in_xla,
        matmul.kernel_gradient,
        "one tap is a matrix product over the positions",
    ),
    Choice(
        _TAPS,
        _reads_x_once,
        matmul.kernel_gradient,
        "every element of x is read by one tap: nothing is read twice",
    ),
    Choice(
        _ONEDNN,
        _has_gradient_best_in_onednn,
        onednn.kernel_gradient,
        "a convolution whose window is as large as the images: the fastest code known for it",
    ),
    Choice(
        _SHIFTED,
        lambda conv: conv.is_depthwise,
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
        lambda conv: conv.groups > 1,
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
        matmul.kernel_gradient,
        "small images, or much padding: products per tap are large, and none is with padding",
    ),
    Choice(
        _XLA,
        _always,
        _kernel_gradient_unchanged,
        "dense, few positions are padding: XLA's code is the fastest known",
    ),
)

LHS_DILATED = (
    Choice(
        _ALL_PHASES,
        _has_phases_alike,
        partial(transposed.all_phases, lower=lower),
        "zeros between the elements of x would be multiplied: one convolution has the phases for channels",
    ),
    Choice(_XLA, _is_best_unchanged, Convolution.unchanged, "one channel out: a phase fills no vector"),
    Choice(
        _PHASES,
        _has_few_phases,
        partial(transposed.phase_by_phase, lower=lower),
        "zeros between the elements of x would be multiplied: one convolution a phase has none",
    ),
    Choice(_XLA, _always, Convolution.unchanged, "too many phases to write out"),
)
