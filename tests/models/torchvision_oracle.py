"""torchvision's networks with random weights and running statistics, for comparison."""

import importlib.util
from functools import cache
from typing import Any

import numpy as np
import pytest
from benchmark_models import import_torchvision


@cache
def torchvision_models() -> Any:
    """torchvision.models; skips the test where there is none."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    return import_torchvision().models


def empty(name: str, **options: Any) -> Any:
    """One of torchvision's networks without values, which take long to draw and are replaced."""
    torch = pytest.importorskip("torch")

    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}
    # RegNet's constructor computes its widths with tensors, which needs their values.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return torchvision_models().get_model(name, weights=None, **options)


def oracle(name: str, seed: int = 0, **options: Any) -> Any:
    """One of torchvision's networks in evaluation mode, every entry of its state dict random.

    Args:
        name: torchvision's name.
        seed: of the random numbers.
        **options: of its constructor, such as num_classes.

    Returns:
        The torch module: He-normal kernels, gammas and variances around 1, the rest around 0, but
        the residual branches of mobile networks and RegNets a fifth of that.
    """
    torch = pytest.importorskip("torch")

    model = empty(name, **options)
    rng = np.random.default_rng(seed)
    values = model.state_dict()  # it also says which version of MNASNet it is of
    for key, tensor in list(values.items()):
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
    # Fifty residual blocks of random weights turn one rounding into other logits: PyTorch in float32 differs
    # from itself in float64 by two fifths. Trained branches are small beside what they are added to.
    for block in model.modules():
        if getattr(block, "use_res_connect", False):  # MobileNets and EfficientNets
            last_norm = block.block[-1][1] if hasattr(block, "block") else block.conv[-1]
        elif type(block).__name__ == "ResBottleneckBlock":  # RegNet
            last_norm = block.f.c[1]
        else:
            continue
        for parameter in last_norm.parameters():
            parameter.data *= 0.2
    return model.eval()
