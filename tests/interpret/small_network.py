"""A small network with all that the methods meet: as jaxcnn has it, and forward and backward in NumPy."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn.models.classifier import Classifier, Stage
from jaxcnn.nn import BatchNorm, Conv, Dropout
from tests.nn.filled import filled
from tests.reference import normal

SIZE = (8, 6)
MAPS = (4, 3)  # after the pooling
CLASSES = np.array([2, 0])


class SmallNet(Classifier):
    """conv - norm - relu - max pool - conv - relu6 - dropout - fully connected, a branch after the pool."""

    def __init__(self, *, rngs):
        super().__init__(num_classes=4, in_channels=3, dtype=None)
        self.conv1 = Conv(3, 4, 3, padding=1, rngs=rngs)
        self.norm = BatchNorm(4)
        self.conv2 = Conv(4, 5, 3, padding=1, rngs=rngs)
        self.dropout = Dropout(0.5, rngs=rngs)
        self.output = nnx.Linear(5 * MAPS[0] * MAPS[1], 4, rngs=rngs)

    def stages(self):
        return [
            ("conv1", lambda x: nnx.relu(self.norm(self.conv1(x)))),
            ("pool", lambda x: F.max_pool(x, 2)),
            ("conv2", lambda x: nnx.relu6(self.conv2(x))),
            ("flatten", lambda x: x.reshape(x.shape[0], -1)),
            ("logits", lambda x: self.output(self.dropout(x))),
        ]

    def branches(self) -> dict[str, Stage]:
        return {"pool": ("side", F.global_avg_pool)}


def small_net():
    """In training mode; images of normal numbers times 3 reach both ends of relu6."""
    return filled(lambda: SmallNet(rngs=nnx.Rngs(0)))


def images():
    return 3 * normal(1, 2, *SIZE, 3)


class Linear(Classifier):
    """Logits that are linear in the pixels."""

    def __init__(self, *, dtype=None, rngs):
        super().__init__(num_classes=4, in_channels=2, dtype=dtype)
        self.output = nnx.Linear(5 * 3 * 2, 4, dtype=self.dtype, rngs=rngs)

    def stages(self):
        return [("logits", lambda x: self.output(x.reshape(x.shape[0], -1)))]


def linear_net(dtype=None):
    return filled(lambda: Linear(dtype=dtype, rngs=nnx.Rngs(0)))


def snapshot(model):
    """All that could change in a model: its values and its modes."""
    values = [
        np.array(leaf) for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    ]
    return values, (model.norm.use_running_average, model.dropout.deterministic)


def is_unchanged(model, before):
    values, modes = snapshot(model)
    same = all((now == then).all() for now, then in zip(values, before[0], strict=True))
    return same and modes == before[1] == (False, False)


# Ways back through a rectifier: from its input a and the gradient g after it, with its ceiling.
def plain(a, g, ceiling):
    return g * ((a > 0) & (a < ceiling))


def guided(a, g, ceiling):
    return np.where((a > 0) & (a < ceiling) & (g > 0), g, 0)


def deconvolved(a, g, ceiling):
    return np.where(g > 0, g, 0)


class InNumPy:
    """The small network in evaluation, float64, and its gradients by the chain rule."""

    def __init__(self, model):
        get = lambda variable: np.asarray(variable[...], np.float64)  # noqa: E731
        self.kernels = [get(model.conv1.kernel), get(model.conv2.kernel)]
        self.biases = [get(model.conv1.bias), get(model.conv2.bias)]
        self.gain = get(model.norm.scale) / np.sqrt(get(model.norm.var) + model.norm.eps)
        self.shift = get(model.norm.bias) - self.gain * get(model.norm.mean)
        self.dense, self.dense_bias = get(model.output.kernel), get(model.output.bias)

    def forward(self, x):
        x = np.asarray(x, np.float64)
        self.a1 = (_conv(x, self.kernels[0]) + self.biases[0]) * self.gain + self.shift
        batch, height, width, channels = self.a1.shape
        blocks = np.maximum(self.a1, 0).reshape(batch, height // 2, 2, width // 2, 2, channels)
        self.blocks = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, channels, 4)
        self.a2 = _conv(self.blocks.max(-1), self.kernels[1]) + self.biases[1]
        self.maps = np.clip(self.a2, 0, 6)
        return self.maps.reshape(batch, -1) @ self.dense + self.dense_bias

    def logits(self, x, classes):
        return self.forward(x)[np.arange(len(x)), classes]

    def gradient_of_maps(self, classes):
        """At the images of the last `forward`."""
        return self.dense.T[classes].reshape(self.maps.shape)

    def gradient(self, x, classes, rule=plain):
        self.forward(x)
        g = rule(self.a2, self.gradient_of_maps(classes), 6)
        g = _conv_back(g, self.kernels[1])
        winners = np.eye(4)[self.blocks.argmax(-1)] * g[..., None]  # of equals the first, row by row
        batch, rows, columns, channels, _ = winners.shape
        g = winners.reshape(batch, rows, columns, channels, 2, 2).transpose(0, 1, 4, 2, 5, 3)
        g = rule(self.a1, g.reshape(self.a1.shape), np.inf)
        return _conv_back(g * self.gain, self.kernels[0])


def _conv(x, kernel):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def _conv_back(g, kernel):
    height, width = g.shape[1:3]
    padded = np.zeros((len(g), height + 2, width + 2, kernel.shape[2]))
    for i in range(3):
        for j in range(3):
            padded[:, i : i + height, j : j + width] += g @ kernel[i, j].T
    return padded[:, 1:-1, 1:-1]


def in_torch(model):
    """The same network in PyTorch, its rectifiers modules, taking and giving NumPy's layout."""
    torch: Any = pytest.importorskip("torch")
    tensor = lambda variable: torch.from_numpy(np.array(variable[...]))  # noqa: E731
    conv1, conv2 = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 5, 3, padding=1)
    norm = torch.nn.BatchNorm2d(4, eps=model.norm.eps)
    dense = torch.nn.Linear(5 * MAPS[0] * MAPS[1], 4)
    with torch.no_grad():
        for theirs, ours in ((conv1, model.conv1), (conv2, model.conv2)):
            theirs.weight.copy_(tensor(ours.kernel).permute(3, 2, 0, 1))
            theirs.get_parameter("bias").copy_(tensor(ours.bias))
        for name, ours in (
            ("weight", "scale"),
            ("bias", "bias"),
            ("running_mean", "mean"),
            ("running_var", "var"),
        ):
            getattr(norm, name).copy_(tensor(getattr(model.norm, ours)))
        dense.weight.copy_(tensor(model.output.kernel).T)
        dense.bias.copy_(tensor(model.output.bias))

    class ChannelsLast(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1)

    return torch.nn.Sequential(
        conv1, norm, torch.nn.ReLU(), torch.nn.MaxPool2d(2), conv2, torch.nn.ReLU6(), ChannelsLast(), dense
    ).eval()
