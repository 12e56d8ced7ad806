"""The instruction itself: what XLA:CPU compiles to a call of oneDNN."""

import json
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxcnn.lowering.convolution import Convolution


def call(conv: Convolution, x: Array, kernel: Array) -> Array:
    """The convolution of x (batch, *size, channels_in) with kernel (*window, group_in, channels_out)."""
    images = {
        "data": {"batch_dim": 0, "feature_dim": conv.rank + 1, "spatial_dims": [*range(1, conv.rank + 1)]}
    }
    filters = {
        "input_feature_dim": conv.rank,
        "output_feature_dim": conv.rank + 1,
        "spatial_dims": [*range(conv.rank)],
    }
    window = {
        "size": conv.window,
        "strides": conv.stride,
        "pad_left": [low for low, _ in conv.padding],
        "pad_right": [high for _, high in conv.padding],
        "window_dilations": conv.dilation,
    }
    config = {
        "dims": conv.rank + 2,
        "input": images,
        "kernel": {"filter": filters},
        "output": images,
        "window": window,
        "feature_groups": conv.groups,
    }
    y = (conv.batch, *conv.output, conv.channels_out)
    return _custom_call("__onednn$convolution", {"onednn_conv_config": config}, y, x, kernel)


def _custom_call(target: str, config: Any, y: tuple[int, ...], *operands: Array) -> Array:
    return jax.ffi.ffi_call(
        target,
        jax.ShapeDtypeStruct(y, np.float32),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps(config),
    )(*operands)
