"""Pictures of what the functions of jaxcnn.interpret return, each under the name of its function.

Every function returns a matplotlib Figure, which a notebook shows and figure.savefig(path) writes. Images are
taken as they are displayed: uint8, or floats in [0, 1]; what was normalised is brought back before.
"""

from jaxcnn.interpret.plots.attribution import (
    deconvnet,
    grad_cam,
    guided_backpropagation,
    integrated_gradients,
    occlusion,
    saliency,
    smooth_grad,
)
from jaxcnn.interpret.plots.field import effective_receptive_field
from jaxcnn.interpret.plots.images import feature_maps, first_filters, maximize_activation, nearest_images

__all__ = [
    "deconvnet",
    "effective_receptive_field",
    "feature_maps",
    "first_filters",
    "grad_cam",
    "guided_backpropagation",
    "integrated_gradients",
    "maximize_activation",
    "nearest_images",
    "occlusion",
    "saliency",
    "smooth_grad",
]
