"""Grouped convolution, one group after the other.

    y[..., run g] = conv(x[..., run g], kernel[..., run g])

XLA:CPU compiles a grouped convolution to a scalar loop, but each group alone is an ordinary convolution, for
which it has fast code. The groups are brought to the front and mapped over: one loop body however many there
are. No group is padded with zeros to make a larger one, so what is infinite in one group stays there.
"""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.lowering.convolution import Convolution

Lower = Callable[[Convolution, Array, Array], Array]


def forward(conv: Convolution, x: Array, kernel: Array, lower: Lower) -> Array:
    """The convolution of x with kernel (*window, group_in, channels_out)."""
    part = replace(conv, channels_in=conv.group_in, channels_out=conv.group_out, groups=1)
    groups = _groups_first(x, conv.groups), _groups_first(kernel, conv.groups)
    return _groups_last(lax.map(lambda group: lower(part, *group), groups))


def kernel_gradient(conv: Convolution, x: Array, dy: Array, lower: Lower) -> Array:
    """The gradient (*window, group_in, channels_out) of conv's kernel; `lower` gives that of one group."""
    part = replace(conv, channels_in=conv.group_in, channels_out=conv.group_out, groups=1)
    groups = _groups_first(x, conv.groups), _groups_first(dy, conv.groups)
    return _groups_last(lax.map(lambda group: lower(part, *group), groups))


def _groups_first(array: Array, groups: int) -> Array:
    """(..., channels) as (groups, ..., channels of one group)."""
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, -1), -2, 0)


def _groups_last(array: Array) -> Array:
    array = jnp.moveaxis(array, 0, -2)
    return array.reshape(*array.shape[:-2], -1)
