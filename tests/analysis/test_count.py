"""Parameters and multiply-accumulates by hand."""

from typing import Any

import pytest
from flax import nnx

from jaxcnn.analysis import count_macs, count_parameters
from jaxcnn.models import create_model
from jaxcnn.nn import BatchNorm, Conv, Dropout
from tests.nn.filled import filled


def test_a_grouped_strided_convolution_and_a_linear_layer():
    class Net(nnx.Module):
        def __init__(self):
            self.conv = Conv(6, 8, (3, 5), stride=2, padding=1, groups=2, rngs=nnx.Rngs(0))
            self.norm = BatchNorm(8)
            self.linear = nnx.Linear(8, 5, rngs=nnx.Rngs(0))
            self.dropout = Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.dropout(self.linear(self.norm(self.conv(x))))

    net = Net()
    # 9 x 12 with padding 1: (9 + 2 - 3) // 2 + 1 = 5 rows, (12 + 2 - 5) // 2 + 1 = 5 columns.
    positions = 5 * 5
    assert count_parameters(net) == (15 * 3 * 8 + 8) + 2 * 8 + (8 * 5 + 5)
    assert count_macs(net, (2, 9, 12, 6)) == 2 * positions * (15 * 3 * 8 + 8 * 5)


def test_counting_leaves_the_model_as_it_is():
    model = filled(lambda: create_model("resnet20", num_classes=3, rngs=nnx.Rngs(0)))
    stats = model.stem.norm.mean[...]
    count_macs(model, (1, 8, 8, 3))
    assert (model.stem.norm.mean[...] == stats).all() and not model.stem.norm.use_running_average


def test_what_the_model_refuses_and_sizes_below_one_are_refused():
    model = nnx.eval_shape(lambda: create_model("lenet5", in_channels=3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="^LeNet5: x must have height and width 32 x 32, got 28 x 28"):
        count_macs(model, (1, 28, 28, 3))
    with pytest.raises(ValueError, match="^count_macs: input_shape must be at least 1, got 0"):
        count_macs(model, (0, 32, 32, 3))


def test_what_is_no_module_and_what_is_no_shape_are_refused(unchecked):
    model: Any = nnx.eval_shape(lambda: create_model("lenet5", rngs=nnx.Rngs(0)))
    wrongs: tuple[Any, ...] = (None, nnx.Linear, "lenet5")
    for wrong in wrongs:
        kind = type(wrong).__name__
        with pytest.raises(
            TypeError, match=f"^count_parameters: model must be a Flax NNX module, got {kind}"
        ):
            count_parameters(wrong)
        with pytest.raises(TypeError, match=f"^count_macs: model must be a Flax NNX module, got {kind}"):
            count_macs(wrong, (1, 32, 32, 3))
    with pytest.raises(TypeError, match="^count_macs: input_shape must be the shape of x, .* got 224"):
        count_macs(model, 224)  # pyright: ignore[reportArgumentType]
