"""Pure functions on images, channels last: `import jaxcnn.functional as F`."""

from jaxcnn.functional.conv import conv, conv_transpose, depthwise_conv, separable_conv
from jaxcnn.functional.geometry import conv_transpose_output_size, output_size
from jaxcnn.functional.norm import batch_norm, batch_stats, group_norm, instance_norm, layer_norm
from jaxcnn.functional.padding import pad
from jaxcnn.functional.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from jaxcnn.functional.regularize import drop_path, dropout
from jaxcnn.functional.signal import autocorrelate, convolve, cross_correlate

__all__ = [
    "autocorrelate",
    "avg_pool",
    "batch_norm",
    "batch_stats",
    "conv",
    "conv_transpose",
    "conv_transpose_output_size",
    "convolve",
    "cross_correlate",
    "depthwise_conv",
    "drop_path",
    "dropout",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "max_pool",
    "output_size",
    "pad",
    "separable_conv",
]
