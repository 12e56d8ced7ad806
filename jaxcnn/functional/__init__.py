"""Pure functions on images, channels last: `import jaxcnn.functional as F`."""

from jaxcnn.functional.adaptive import adaptive_avg_pool, adaptive_max_pool, spatial_pyramid_pool
from jaxcnn.functional.conv import conv, conv_transpose, depthwise_conv, separable_conv
from jaxcnn.functional.deform import deform_conv
from jaxcnn.functional.geometry import conv_parameter_count, conv_transpose_output_size, output_size
from jaxcnn.functional.losses import multiclass_svm_loss, softmax_cross_entropy, softmax_focal_loss
from jaxcnn.functional.norm import (
    batch_norm,
    batch_stats,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    standardize_kernel,
)
from jaxcnn.functional.padding import pad
from jaxcnn.functional.patches import conv_as_matmul, dense_to_conv, extract_patches, fold_patches
from jaxcnn.functional.pool import avg_pool, global_avg_pool, global_max_pool, lp_pool, max_pool, max_unpool
from jaxcnn.functional.regularize import channel_dropout, drop_block, drop_path, dropout
from jaxcnn.functional.resample import grid_sample, pixel_shuffle, pixel_unshuffle, resize
from jaxcnn.functional.response_norm import global_response_norm, local_response_norm
from jaxcnn.functional.signal import autocorrelate, convolve, cross_correlate

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "autocorrelate",
    "avg_pool",
    "batch_norm",
    "batch_stats",
    "channel_dropout",
    "conv",
    "conv_as_matmul",
    "conv_parameter_count",
    "conv_transpose",
    "conv_transpose_output_size",
    "convolve",
    "cross_correlate",
    "deform_conv",
    "dense_to_conv",
    "depthwise_conv",
    "drop_block",
    "drop_path",
    "dropout",
    "extract_patches",
    "fold_patches",
    "global_avg_pool",
    "global_max_pool",
    "global_response_norm",
    "grid_sample",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "multiclass_svm_loss",
    "output_size",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "resize",
    "rms_norm",
    "separable_conv",
    "softmax_cross_entropy",
    "softmax_focal_loss",
    "spatial_pyramid_pool",
    "standardize_kernel",
]
