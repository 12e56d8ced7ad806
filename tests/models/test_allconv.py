"""All-CNN-C: the paper's shapes, its layers in torch, its dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.allconv import AllConvNet
from tests.nn.filled import filled
from tests.reference import normal


def small(**options: Any) -> AllConvNet:
    return AllConvNet(channels=(4, 6), num_classes=5, rngs=nnx.Rngs(0), **options)


def test_feature_maps_have_the_papers_shapes():
    x = jnp.zeros((2, 32, 32, 3))
    found = nnx.eval_shape(lambda: AllConvNet(rngs=nnx.Rngs(0)).features(x))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "conv1": (32, 32, 96),
        "conv2": (32, 32, 96),
        "conv3": (16, 16, 96),
        "conv4": (16, 16, 192),
        "conv5": (16, 16, 192),
        "conv6": (8, 8, 192),
        "conv7": (6, 6, 192),
        "conv8": (6, 6, 192),
        "conv9": (6, 6, 10),
        "logits": (10,),
    }


def test_the_parameters_are_those_of_the_papers_layers():
    layers = [
        (9, 3, 96),
        (9, 96, 96),
        (9, 96, 96),
        (9, 96, 192),
        *[(9, 192, 192)] * 3,
        (1, 192, 192),
        (1, 192, 10),
    ]
    model = nnx.eval_shape(lambda: AllConvNet(rngs=nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == sum((taps * fan_in + 1) * fan_out for taps, fan_in, fan_out in layers) == 1_369_738


def test_logits_are_torchs():
    torch = pytest.importorskip("torch")
    model = filled(small)
    model.eval()
    x = normal(0, 3, 21, 14, 3)
    y = torch.from_numpy(x).permute(0, 3, 1, 2)
    paddings, strides = (1, 1, 1, 1, 1, 1, 0, 0, 0), (1, 1, 2, 1, 1, 2, 1, 1, 1)
    for conv, padding, stride in zip((*model.convs, model.output), paddings, strides, strict=True):
        kernel, bias = (torch.from_numpy(np.array(value[...])) for value in (conv.kernel, conv.bias))
        y = torch.relu(torch.nn.functional.conv2d(y, kernel.permute(3, 2, 0, 1), bias, stride, padding))
    np.testing.assert_allclose(model(x), y.mean(dim=(2, 3)).numpy(), rtol=1e-4, atol=1e-4)


def test_dropout_acts_on_the_images_in_training_alone():
    model = filled(lambda: small(input_dropout=1.0, dropout=0.0))
    x = normal(0, 2, 12, 9, 3)
    relu_of_bias = np.maximum(np.asarray(model.convs[0].bias[...]), 0)
    np.testing.assert_array_equal(
        model.features(x, ("conv1",))["conv1"], np.broadcast_to(relu_of_bias, (2, 12, 9, 4))
    )
    model.eval()
    assert np.asarray(model.features(x, ("conv1",))["conv1"]).std(axis=(1, 2)).max() > 0.1


def test_dropout_acts_after_the_convolutions_of_stride_2_in_training_alone():
    model = filled(lambda: small(input_dropout=0.0, dropout=1.0))
    x = normal(0, 2, 12, 9, 3)
    zero = [name for name, value in model.features(x).items() if not value.any()]
    assert zero == ["conv3", "conv6"]
    model.eval()
    assert all(value.any() for value in model.features(x).values())


def test_the_default_rates_are_the_papers_and_none_needs_no_dropout_stream():
    model = nnx.eval_shape(lambda: AllConvNet(rngs=nnx.Rngs(0)))
    assert model.input_dropout is not None and model.input_dropout.rate == 0.2
    assert [dropout.rate for dropout in model.dropouts] == [0.5, 0.5]
    without = nnx.eval_shape(lambda: AllConvNet(input_dropout=0.0, dropout=0.0, rngs=nnx.Rngs(params=0)))
    assert not jax.tree.leaves(nnx.state(without, nnx.RngState))


def test_kernels_start_by_hes_rule_on_the_fan_in():
    model = nnx.jit(lambda: AllConvNet(channels=(32,), num_classes=200, rngs=nnx.Rngs(0)))()
    for conv, fan_in in ((model.convs[1], 9 * 32), (model.convs[4], 32), (model.output, 32)):
        np.testing.assert_allclose(conv.kernel[...].std(), np.sqrt(2 / fan_in), rtol=0.06)


@pytest.mark.parametrize(("size", "fits"), [((9, 9), True), ((8, 12), False), ((12, 8), False)])
def test_the_smallest_images(size, fits):
    model = nnx.eval_shape(small)
    run = lambda: nnx.eval_shape(lambda model: model(jnp.zeros((2, *size, 3))), model)  # noqa: E731
    if fits:
        assert run().shape == (2, 5)
    else:
        with pytest.raises(ValueError, match=r"^conv: window \(3, 3\) .* of spatial axis \d, "):
            run()


def test_errors_name_the_argument(unchecked):
    with pytest.raises(ValueError, match="^AllConvNet: channels must be one int or more, got none$"):
        AllConvNet(channels=(), rngs=nnx.Rngs(0))
    for rates in ({"dropout": 1.5}, {"input_dropout": -1.0}):
        with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
            nnx.eval_shape(lambda rates=rates: small(**rates))
