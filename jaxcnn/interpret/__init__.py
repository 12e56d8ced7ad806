"""What a model sees: functions of a model that give arrays; `jaxcnn.interpret.plots` draws each."""

from jaxcnn.interpret.feature_maps import feature_maps, first_filters
from jaxcnn.interpret.grad_cam import grad_cam
from jaxcnn.interpret.gradients import integrated_gradients, saliency, smooth_grad
from jaxcnn.interpret.maximize import maximize_activation
from jaxcnn.interpret.nearest import nearest_images
from jaxcnn.interpret.occlusion import occlusion
from jaxcnn.interpret.receptive_field import effective_receptive_field
from jaxcnn.interpret.rectifiers import deconvnet, guided_backpropagation

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
