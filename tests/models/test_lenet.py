"""LeNet-5: the paper's shapes and its layers in torch."""

import numpy as np
import pytest
from flax import nnx

from jaxcnn.models import LeNet5
from tests.nn.filled import filled
from tests.reference import normal


def test_feature_maps_have_the_papers_shapes():
    model = filled(lambda: LeNet5(num_classes=10, in_channels=1, rngs=nnx.Rngs(0)))
    shapes = {name: value.shape for name, value in model.features(normal(0, 2, 32, 32, 1)).items()}
    assert shapes == {
        "c1": (2, 28, 28, 6),
        "s2": (2, 14, 14, 6),
        "c3": (2, 10, 10, 16),
        "s4": (2, 5, 5, 16),
        "c5": (2, 1, 1, 120),
        "f6": (2, 84),
        "logits": (2, 10),
    }
    assert LeNet5.input_size == (32, 32)


def test_logits_are_torchs():
    torch = pytest.importorskip("torch")
    model = filled(lambda: LeNet5(num_classes=5, in_channels=2, rngs=nnx.Rngs(0)))
    x = normal(0, 3, 32, 32, 2)

    def tensor(variable):
        return torch.from_numpy(np.array(variable[...]))

    def squash(a):
        return 1.7159 * torch.tanh(2 * a / 3)

    def conv(layer, x):
        return squash(
            torch.nn.functional.conv2d(x, tensor(layer.kernel).permute(3, 2, 0, 1), tensor(layer.bias))
        )

    def linear(layer, x):
        return x @ tensor(layer.kernel) + tensor(layer.bias)

    mean = torch.nn.AvgPool2d(2)
    y = mean(conv(model.c1, torch.from_numpy(x).permute(0, 3, 1, 2)))
    y = conv(model.c5, mean(conv(model.c3, y)))
    y = linear(model.output, squash(linear(model.f6, y.flatten(1))))
    np.testing.assert_allclose(model(x), y.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(28, 28), (32, 31), (64, 64)])
def test_another_size_is_refused_with_both_sizes(size):
    model = nnx.eval_shape(lambda: LeNet5(rngs=nnx.Rngs(0)))
    message = f"^LeNet5: x must have height and width 32 x 32, got {size[0]} x {size[1]} "
    with pytest.raises(ValueError, match=message):
        model(normal(0, 2, *size, 1))
