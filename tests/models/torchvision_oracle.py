"""torchvision's networks with random weights and running statistics, for comparison."""

from functools import cache
from typing import Any

import numpy as np
import pytest


@cache
def torchvision_models() -> Any:
    """torchvision.models, also beside a PyTorch for which it was not compiled; skips where there is none."""
    torch = pytest.importorskip("torch")
    # Without its C++ part torchvision still registers shape rules for two operators, which must be declared.
    for schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                   "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
        try:
            torch.library.define(f"torchvision::{schema.split('(')[0]}", schema[schema.index("("):])
        except RuntimeError:
            pass  # declared already, by the C++ part
    return pytest.importorskip("torchvision.models", exc_type=ImportError)


def oracle(name: str, seed: int = 0, **options: Any) -> Any:
    """One of torchvision's networks in evaluation mode, every entry of its state dict random.

    Args:
        name: torchvision's name.
        seed: of the random numbers.
        **options: of its constructor, such as num_classes.

    Returns:
        The torch module: He-normal kernels, gammas and variances around 1, the rest around 0.
    """
    import torch

    options = {"init_weights": False, **options} if name in ("googlenet", "inception_v3") else options
    with torch.device("meta"):
        model = torchvision_models().get_model(name, weights=None, **options)
    rng = np.random.default_rng(seed)
    values = {}
    for key, tensor in model.state_dict().items():
        shape, last = tuple(tensor.shape), key.rpartition(".")[2]
        if len(shape) == 0:  # num_batches_tracked
            value = np.zeros((), np.int64)
        elif last == "running_var" or (last == "weight" and len(shape) == 1) or last == "layer_scale":
            value = rng.uniform(0.7, 1.3, size=shape)
        elif last == "weight":
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = 0.2 * rng.normal(size=shape)
        values[key] = torch.from_numpy(np.asarray(value, np.float32 if shape else np.int64))
    model.load_state_dict(values, assign=True)
    return model.eval()
