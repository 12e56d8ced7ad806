"""One call of each pure function, for the tests that hold for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcnn.functional as F
from tests import reference


class Call(NamedTuple):
    """A function of float arrays, of which the first `per_example` have the batch in front."""

    function: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    per_example: int = 1


def call(function: Callable[..., Any], *shapes: tuple[int, ...], per_example: int = 1) -> Call:
    arrays = [reference.normal(seed, *shape, dtype=np.float64) for seed, shape in enumerate(shapes)]
    return Call(function, tuple(arrays), per_example)


def distinct(function: Callable[..., Any], *shape: int) -> Call:
    """Values far apart: a maximum does not change hands under a finite difference."""
    size = int(np.prod(shape))
    return Call(function, (np.random.default_rng(0).permutation(size).reshape(shape) / 8 - size / 16,))


def positive(call: Call, *places: int) -> Call:
    """The same with the arrays at these places positive."""
    arrays = [np.abs(a) + 0.5 if place in places else a for place, a in enumerate(call.arrays)]
    return call._replace(arrays=tuple(arrays))


KEY = jax.random.key(3)
LABELS = np.array([[0, 2, 1], [3, 3, 0]], np.int32)
PLACES = np.random.default_rng(1).permutation(20)[:18].reshape(2, 3, 3).astype(np.int32)

CALLS = {
    "conv": call(
        lambda x, k, b: F.conv(x, k, b, stride=(1, 2), padding=1, dilation=(2, 1)),
        (2, 6, 5, 3),
        (2, 3, 3, 4),
        (4,),
    ),
    "conv, 1-D causal": call(lambda x, k: F.conv(x, k, padding="CAUSAL"), (2, 7, 3), (3, 3, 2)),
    "conv, 3-D grouped": call(
        lambda x, k: F.conv(x, k, padding="SAME", groups=2), (2, 3, 4, 5, 4), (2, 1, 3, 2, 4)
    ),
    "conv, reflect": call(
        lambda x, k: F.conv(x, k, padding=1, padding_mode="reflect"), (2, 4, 5, 2), (2, 3, 2, 3)
    ),
    "depthwise_conv": call(lambda x, k: F.depthwise_conv(x, k, padding=1), (2, 5, 4, 3), (3, 2, 1, 6)),
    "separable_conv": call(F.separable_conv, (2, 5, 4, 2), (2, 3, 1, 4), (1, 1, 4, 3)),
    "conv_transpose": call(
        lambda x, k, b: F.conv_transpose(x, k, b, stride=(2, 1), padding=1, output_padding=(1, 0)),
        (2, 4, 3, 4),
        (3, 2, 2, 4),
        (2,),
    ),
    "conv_as_matmul": call(
        lambda x, k, b: F.conv_as_matmul(x, k, b, stride=(2, 1), padding=1), (2, 5, 4, 2), (3, 2, 2, 3), (3,)
    ),
    "deform_conv": call(
        lambda x, offset, mask, k, b: F.deform_conv(x, offset, k, mask, b, stride=(1, 2), padding=1),
        (2, 5, 6, 4),
        (2, 5, 4, 2, 6, 2),
        (2, 5, 4, 2, 6),
        (3, 2, 4, 3),
        (3,),
        per_example=3,
    ),
    "extract_patches": call(lambda x: F.extract_patches(x, (2, 3), stride=(1, 2), padding=1), (2, 4, 5, 3)),
    "fold_patches": call(lambda p: F.fold_patches(p, (4, 5), (2, 3), stride=(1, 2)), (2, 3, 2, 18)),
    "dense_to_conv": call(lambda k: F.dense_to_conv(k, (2, 3)), (24, 5)),
    "convolve": call(F.convolve, (7,), (3,)),
    "cross_correlate": call(lambda f, g: F.cross_correlate(f, g, mode="same"), (4, 5), (3, 2)),
    "autocorrelate": call(F.autocorrelate, (6,)),
    "pad": call(lambda x: F.pad(x, ((1, 2), (0, 1)), mode="reflect"), (2, 4, 3, 2)),
    "max_pool": distinct(lambda x: F.max_pool(x, (3, 2), stride=(2, 1), padding=1), 2, 5, 4, 3),
    "max_pool, dilated": distinct(
        lambda x: F.max_pool(x, 2, stride=1, dilation=(2, 1), padding=1), 2, 5, 4, 3
    ),
    "max_pool, with indices": distinct(
        lambda x: F.max_pool(x, 2, ceil_mode=True, return_indices=True)[0], 2, 5, 4, 3
    ),
    "avg_pool": call(lambda x: F.avg_pool(x, (3, 2), stride=2, padding=1, ceil_mode=True), (2, 6, 5, 3)),
    "lp_pool": call(lambda x: F.lp_pool(x, 3, (2, 3), stride=1), (2, 5, 4, 3)),
    "max_unpool": call(
        lambda x: F.max_unpool(x, np.broadcast_to(PLACES, (len(x), 2, 3, 3)), (4, 5)), (2, 2, 3, 3)
    ),
    "adaptive_avg_pool": call(lambda x: F.adaptive_avg_pool(x, (2, 3)), (2, 5, 7, 3)),
    "adaptive_max_pool": distinct(lambda x: F.adaptive_max_pool(x, (2, 3)), 2, 5, 7, 3),
    "spatial_pyramid_pool": distinct(lambda x: F.spatial_pyramid_pool(x, (1, 2)), 2, 5, 4, 3),
    "global_avg_pool": call(F.global_avg_pool, (2, 5, 4, 3)),
    "global_max_pool": distinct(F.global_max_pool, 2, 5, 4, 3),
    "batch_stats": call(lambda x: F.batch_stats(x)[:2], (3, 4, 2, 3)),
    "batch_norm": positive(call(F.batch_norm, (2, 3, 4, 3), (3,), (3,), (3,), (3,)), 2),
    "layer_norm": call(lambda x, s, b: F.layer_norm(x, s, b, axes=(-2, -1)), (2, 4, 3, 5), (3, 5), (3, 5)),
    "group_norm": call(lambda x, s, b: F.group_norm(x, 2, s, b), (2, 4, 3, 4), (4,), (4,)),
    "instance_norm": call(F.instance_norm, (2, 4, 3, 2), (2,), (2,)),
    "rms_norm": call(F.rms_norm, (2, 4, 3, 5), (5,)),
    "local_response_norm": call(lambda x: F.local_response_norm(x, 3, alpha=0.5), (2, 3, 4, 5)),
    "global_response_norm": call(F.global_response_norm, (2, 3, 4, 5), (5,), (5,)),
    "standardize_kernel": call(F.standardize_kernel, (3, 2, 4, 5)),
    "resize": call(lambda x: F.resize(x, (7, 3)), (2, 5, 4, 2)),
    "resize, bicubic with antialias": call(
        lambda x: F.resize(x, (3, 6), method="bicubic", antialias=True), (2, 7, 4, 2)
    ),
    "grid_sample": call(
        lambda x, grid: F.grid_sample(x, grid, padding_mode="border"),
        (2, 5, 4, 3),
        (2, 3, 4, 2),
        per_example=2,
    ),
    "pixel_shuffle": call(lambda x: F.pixel_shuffle(x, 2), (2, 3, 4, 8)),
    "pixel_unshuffle": call(lambda x: F.pixel_unshuffle(x, 2), (2, 4, 6, 3)),
    "dropout": call(lambda x: F.dropout(KEY, x, 0.4), (2, 5, 4, 3)),
    "channel_dropout": call(lambda x: F.channel_dropout(KEY, x, 0.4), (2, 3, 4, 6)),
    "drop_path": call(lambda x: F.drop_path(KEY, x, 0.4), (4, 3, 4, 2)),
    "drop_block": call(lambda x: F.drop_block(KEY, x, 0.3, (2, 3)), (2, 6, 7, 3)),
    "softmax_cross_entropy": positive(
        call(lambda x, w: F.softmax_cross_entropy(x, LABELS, smoothing=0.1, weights=w), (2, 3, 5), (2, 3)), 1
    ),
    "softmax_focal_loss": call(lambda x: F.softmax_focal_loss(x, LABELS, ignore_label=3), (2, 3, 5)),
    "multiclass_svm_loss": call(lambda x: F.multiclass_svm_loss(x, LABELS), (2, 3, 5)),
}

NAMES = {entry: entry.split(",")[0] for entry in CALLS}
