"""The operations of benchmark_grid.py as layers of Flax NNX, Haiku, Equinox and Keras on JAX.

A layer's own parameters are replaced by the operands given, so that all libraries compute the same numbers.
What a library lacks, or defines otherwise (the border of an average pool, say), is None.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from benchmark_grid import Function, Operation
from flax import nnx


def in_flax(operation: Operation) -> Function | None:
    """The operation as a Flax NNX layer."""
    o, rank = operation, len(operation.size)
    pads: Any
    pads, strides = [(o.padding, o.padding)] * rank, (o.stride,) * rank
    # Flax's is the padding of the dilated input.
    transposed_pads = [(n - 1 - o.padding, n - 1 - o.padding) for n in o.window]

    def layer(make: Callable[..., Any], *names: str) -> Function:
        def call(x, *parameters):
            made = make(rngs=nnx.Rngs(0))
            for name, value in zip(names, parameters, strict=True):
                setattr(made, name, nnx.Param(value))
            return made(x)

        return call

    convolution = {"strides": strides, "kernel_dilation": o.dilation, "use_bias": False}
    channels = (o.channels, o.outputs, o.window)
    match o.kind:
        case "conv":
            convolution |= {"padding": pads, "feature_group_count": o.groups}
            return layer(partial(nnx.Conv, *channels, **convolution), "kernel")
        case "conv_transpose":
            convolution |= {"padding": transposed_pads, "transpose_kernel": True}
            return layer(partial(nnx.ConvTranspose, *channels, **convolution), "kernel")
        case "max_pool":
            return partial(nnx.max_pool, window_shape=o.window, strides=strides, padding=pads)
        case "avg_pool":
            return partial(nnx.avg_pool, window_shape=o.window, strides=strides, padding=pads)
        case "batch_norm":
            make = partial(nnx.BatchNorm, o.channels, use_running_average=False, epsilon=1e-5)
            return layer(make, "scale", "bias")
        case "group_norm":
            make = partial(nnx.GroupNorm, o.channels, num_groups=o.groups, epsilon=1e-5)
            return layer(make, "scale", "bias")
        case "layer_norm":
            return layer(partial(nnx.LayerNorm, o.channels, epsilon=1e-5), "scale", "bias")
    return None


def in_haiku(operation: Operation) -> Function | None:
    """The operation as a Haiku module."""
    o, rank, hk = operation, len(operation.size), import_module("haiku")
    pads = [(o.padding, o.padding)] * rank

    def module(make: Callable[[], Any], *names: str) -> Function:
        transformed = hk.without_apply_rng(hk.transform_with_state(lambda x: make()(x)))

        def call(x, *parameters):
            state = jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                jax.eval_shape(transformed.init, jax.random.key(0), x)[1],
            )
            return transformed.apply({"layer": dict(zip(names, parameters, strict=True))}, state, x)[0]

        return call

    affine = ("scale", "offset")
    norm = {"create_scale": True, "create_offset": True, "name": "layer"}
    convolution = {"stride": o.stride, "with_bias": False, "data_format": "channels_last", "name": "layer"}
    match o.kind:
        case "conv":
            convolution |= {"rate": o.dilation, "padding": pads, "feature_group_count": o.groups}
            return module(lambda: hk.ConvND(rank, o.outputs, o.window, **convolution), "w")
        case "conv_transpose":  # a kernel that is not flipped
            make = partial(hk.ConvNDTranspose, rank, o.outputs, o.window, padding="SAME", **convolution)
            function = module(make, "w")
            return lambda x, kernel: function(x, jnp.flip(kernel, range(rank)))
        case "max_pool" if not o.padding:
            window, strides = (1, *o.window, 1), (1, *([o.stride] * rank), 1)
            return partial(hk.max_pool, window_shape=window, strides=strides, padding="VALID")
        case "batch_norm":
            function = module(
                lambda: partial(hk.BatchNorm(decay_rate=0.9, **norm), is_training=True), *affine
            )
            return lambda x, scale, bias: function(x, *(jnp.reshape(p, (1, 1, 1, -1)) for p in (scale, bias)))
        case "group_norm":
            return module(lambda: hk.GroupNorm(o.groups, **norm), *affine)
        case "layer_norm":
            return module(lambda: hk.LayerNorm(-1, **norm), *affine)
    return None


def in_equinox(operation: Operation) -> Function | None:
    """The operation as an Equinox module, which takes one image, channels first: vmapped over the batch."""
    o, rank, eqx = operation, len(operation.size), import_module("equinox")

    def module(make: Callable[..., Any], *names: str) -> Function:
        made = make()

        def call(x, *parameters):
            filled = made
            for name, value in zip(names, parameters, strict=True):
                filled = eqx.tree_at(lambda layer, name=name: getattr(layer, name), filled, value)
            return jax.vmap(filled)(x)

        return call

    place = {"stride": o.stride, "padding": o.padding}
    convolution = place | {"dilation": o.dilation, "groups": o.groups, "use_bias": False}
    channels = (o.channels, o.outputs, o.window)
    match o.kind:
        case "conv":
            return module(
                lambda: eqx.nn.Conv(rank, *channels, **convolution, key=jax.random.key(0)), "weight"
            )
        case "conv_transpose":  # a kernel that is not flipped, (out, in, *window)
            make = partial(eqx.nn.ConvTranspose, rank, *channels, **convolution, key=jax.random.key(0))
            function = module(make, "weight")
            return lambda x, kernel: function(x, jnp.flip(kernel, range(2, rank + 2)).swapaxes(0, 1))
        case "max_pool":
            return module(lambda: getattr(eqx.nn, f"MaxPool{rank}d")(o.window, **place))
        case "avg_pool":
            return module(lambda: getattr(eqx.nn, f"AvgPool{rank}d")(o.window, **place))
        case "group_norm":
            return module(lambda: eqx.nn.GroupNorm(o.groups, o.channels), "weight", "bias")
    return None


def in_keras(operation: Operation) -> Function | None:
    """The operation as Keras layers on JAX; "same" is another padding where there is a stride."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    o, rank, keras = operation, len(operation.size), import_module("keras")
    layers = keras.layers

    def layer(made: Any, pad: Any = None, **call: Any) -> Function:
        shape = (o.batch, *o.size, o.channels)
        made.build(shape if pad is None else pad.compute_output_shape(shape))
        states = [variable.value for variable in made.non_trainable_variables]

        def function(x, *parameters):
            x = x if pad is None else pad(x)
            return made.stateless_call(list(parameters), states, x, **call)[0]

        return function

    convolution = {"strides": o.stride, "dilation_rate": o.dilation, "use_bias": False}
    match o.kind:
        case "conv" if o.stride == 1:
            conv = getattr(layers, f"Conv{rank}D")
            return layer(conv(o.outputs, o.window, padding="same", groups=o.groups, **convolution))
        case "conv":
            conv = layers.Conv2D(o.outputs, o.window, groups=o.groups, **convolution)
            return layer(conv, layers.ZeroPadding2D(o.padding))
        case "conv_transpose":
            return layer(layers.Conv2DTranspose(o.outputs, o.window, padding="same", **convolution))
        case "max_pool" if not o.padding:
            return layer(layers.MaxPooling2D(o.window, o.stride))
        case "global_avg_pool":
            return layer(layers.GlobalAveragePooling2D())
        case "batch_norm":
            return layer(layers.BatchNormalization(epsilon=1e-5), training=True)
        case "group_norm":
            return layer(layers.GroupNormalization(o.groups, epsilon=1e-5))
        case "layer_norm":
            return layer(layers.LayerNormalization(epsilon=1e-5))
        case "resize":
            return layer(layers.UpSampling2D(2, interpolation="bilinear"))
    return None


class Peer(NamedTuple):
    """A library that some users have: the module to import, how it writes an operation, its layout."""

    module: str
    function: Callable[[Operation], Function | None]
    channels_first: bool = False


PEERS = {
    "Flax": Peer("flax", in_flax),
    "Haiku": Peer("haiku", in_haiku),
    "Equinox": Peer("equinox", in_equinox, channels_first=True),
    "Keras": Peer("keras", in_keras),
}
