"""The ResNets against the same networks written in torch.nn, with random weights and running statistics."""

from functools import partial

import numpy as np
import pytest
from flax import nnx

from jaxcnn.models import ResNet, cifar_resnet
from jaxcnn.models.resnet import resnet
from jaxcnn.nn import BasicBlock
from tests.nn.filled import filled
from tests.reference import normal


def torch_resnet(torch, depths, channels, *, num_classes, cifar):
    """A ResNet of basic blocks: with projections, or with CIFAR's stem and padded shortcuts."""
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            self.conv1 = tnn.Conv2d(cin, cout, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(cout)
            self.conv2 = tnn.Conv2d(cout, cout, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(cout)
            self.stride, self.extra = stride, cout - cin
            if not cifar and (stride != 1 or cin != cout):
                self.conv3 = tnn.Conv2d(cin, cout, 1, stride, bias=False)
                self.bn3 = tnn.BatchNorm2d(cout)

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if hasattr(self, "conv3"):
                return torch.relu(y + self.bn3(self.conv3(x)))
            x = x[:, :, :: self.stride, :: self.stride]
            return torch.relu(y + torch.cat([x, torch.zeros_like(x)[:, : self.extra]], dim=1))

    stem = (
        [tnn.Conv2d(3, channels[0], 3, 1, 1, bias=False)]
        if cifar
        else [tnn.Conv2d(3, channels[0], 7, 2, 3, bias=False)]
    )
    stem += [tnn.BatchNorm2d(channels[0]), tnn.ReLU()]
    if not cifar:
        stem.append(tnn.MaxPool2d(3, 2, 1))
    blocks, current = [], channels[0]
    for layer, (depth, width) in enumerate(zip(depths, channels, strict=True)):
        for position in range(depth):
            blocks.append(Block(current, width, 2 if layer and not position else 1))
            current = width
    return tnn.Sequential(
        *stem, *blocks, tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Linear(current, num_classes)
    )


def copy_to_torch(torch, ours, theirs):
    """Copy by the order of the layers: stem, then each block's convolutions, its projection last."""
    layers = [ours.stem]
    for blocks in ours.layers:
        for block in blocks:
            layers += [*block.branch, *([block.projection] if block.projection is not None else [])]
    convs = [module for module in theirs.modules() if isinstance(module, torch.nn.Conv2d)]
    norms = [module for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d)]

    def tensor(variable):
        return torch.from_numpy(np.array(variable[...]))

    with torch.no_grad():
        for layer, conv, norm in zip(layers, convs, norms, strict=True):
            conv.weight.copy_(tensor(layer.conv.kernel).permute(3, 2, 0, 1))
            norm.weight.copy_(tensor(layer.norm.scale))
            norm.bias.copy_(tensor(layer.norm.bias))
            norm.running_mean.copy_(tensor(layer.norm.mean))
            norm.running_var.copy_(tensor(layer.norm.var))
        theirs[-1].weight.copy_(tensor(ours.output.kernel).T)
        theirs[-1].bias.copy_(tensor(ours.output.bias))


CASES = {
    "resnet18": (partial(resnet, "resnet18"), (2, 2, 2, 2), (64, 128, 256, 512), False, (2, 65, 50, 3)),
    "resnet20": (
        lambda **options: cifar_resnet(20, **options),
        (3, 3, 3),
        (16, 32, 64),
        True,
        (2, 27, 18, 3),
    ),
}


@pytest.mark.parametrize(("build", "depths", "channels", "cifar", "shape"), CASES.values(), ids=CASES)
def test_logits_are_torchs_in_evaluation_and_in_training(build, depths, channels, cifar, shape):
    torch = pytest.importorskip("torch")
    ours = filled(lambda: build(num_classes=11, rngs=nnx.Rngs(0)))
    theirs = torch_resnet(torch, depths, channels, num_classes=11, cifar=cifar)
    copy_to_torch(torch, ours, theirs)
    x = normal(0, *shape)
    tx = torch.from_numpy(x).permute(0, 3, 1, 2)
    forward = nnx.jit(lambda model, x: model(x))
    with torch.no_grad():
        ours.eval()
        expected = theirs.eval()(tx).numpy()
        np.testing.assert_allclose(forward(ours, x), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        ours.train()
        expected = theirs.train()(tx).numpy()
        np.testing.assert_allclose(forward(ours, x), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        last = [module for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
        norm = ours.layers[-1][-1].branch[-1].norm
        np.testing.assert_allclose(norm.mean[...], last.running_mean.numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.var[...], last.running_var.numpy(), rtol=1e-3, atol=1e-4)


def test_small_images_take_the_stem_without_pooling():
    model = nnx.eval_shape(lambda: resnet("resnet18", num_classes=10, small_images=True, rngs=nnx.Rngs(0)))
    assert "max_pool" not in model.taps
    assert model.stem.conv.kernel.shape == (3, 3, 3, 64)
    assert model.stem.conv.stride == (1, 1)


def test_drop_path_rates_grow_linearly_with_depth():
    model = nnx.eval_shape(lambda: cifar_resnet(14, drop_path=0.4, rngs=nnx.Rngs(0)))
    blocks = [block for layer in model.layers for block in layer]
    rates = [0.0 if block.drop_path is None else block.drop_path.rate for block in blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.4, 6))
    without = nnx.eval_shape(lambda: cifar_resnet(14, rngs=nnx.Rngs(params=0)))
    assert all(block.drop_path is None for layer in without.layers for block in layer)


def test_the_last_gamma_of_every_block_starts_at_zero():
    model = ResNet(BasicBlock, (1, 2), (4, 8), num_classes=3, rngs=nnx.Rngs(0))
    for layer in model.layers:
        for block in layer:
            first, last = (part.norm.scale[...] for part in block.branch)
            assert (first == 1).all() and (last == 0).all()
    as_the_paper = cifar_resnet(8, rngs=nnx.Rngs(0)).layers[0][0].branch[-1].norm.scale[...]
    assert (as_the_paper == 1).all()
    model.eval()
    x = np.abs(normal(0, 2, 3, 5, 8))
    np.testing.assert_array_equal(model.layers[1][1](x), x)  # the block begins as its shortcut


def test_errors_name_the_argument(unchecked):
    with pytest.raises(ValueError, match='^resnet: unknown name .resnet51.; did you mean "resnet'):
        resnet("resnet51", rngs=nnx.Rngs(0))
    for depth in (2, 18, 21, 0, -4):
        with pytest.raises(ValueError, match=rf"^cifar_resnet: depth must be 6n \+ 2 .*got {depth}$"):
            cifar_resnet(depth, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"^ResNet: depths and channels must .* got depths=\(2, 2\), channels=\(8,\)"
    ):
        ResNet(BasicBlock, (2, 2), (8,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^ResNet: depths and channels must have one positive int"):
        ResNet(BasicBlock, (2, 0), (8, 16), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^DropPath: rate must be a Python number in"):
        nnx.eval_shape(lambda: cifar_resnet(8, drop_path=1.5, rngs=nnx.Rngs(0)))
