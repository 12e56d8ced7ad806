"""DenseNet: shapes, what a dense block keeps, dropout, initialisation, PyTorch's names, messages."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.densenet import DenseLayer, DenseNet, densenet
from jaxcnn.nn import Dropout
from jaxcnn.pretrained.names.densenet import torchvision, torchvision_old
from tests.nn.filled import filled
from tests.reference import normal

call = nnx.jit(lambda layer, x: layer(x))


def tiny(**options):
    return DenseNet((2, 3), 4, 6, num_classes=5, rngs=nnx.Rngs(0), **options)


def test_feature_maps():
    model = nnx.eval_shape(lambda: DenseNet((2, 3, 1), 8, rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 61, 96, 3))), model)
    # A layer adds 8 channels, a transition halves them; the stem rounds sizes up.
    assert {name: maps[name].shape[1:] for name in model.taps} == {
        "stem": (31, 48, 16),
        "max_pool": (16, 24, 16),
        "block1": (16, 24, 32),
        "transition1": (8, 12, 16),
        "block2": (8, 12, 40),
        "transition2": (4, 6, 20),
        "block3": (4, 6, 28),
        "norm": (4, 6, 28),
        "avg_pool": (28,),
        "logits": (1000,),
    }


def test_a_layer_reads_every_map_before_it_and_adds_its_own_behind_them():
    model, x = filled(tiny), normal(0, 2, 21, 30, 3)
    model.eval()
    found = nnx.jit(lambda model, x: model.features(x, ("transition1", "block2")))(model, x)
    maps = np.asarray(found["transition1"])
    for layer in model.blocks[1]:
        maps = np.concatenate([maps, call(layer, maps)], axis=-1)
    assert maps.shape == (2, 3, 4, 7 + 3 * 4)
    np.testing.assert_allclose(found["block2"], maps, rtol=1e-4, atol=1e-5)


def test_dropout_ends_each_dense_layer():
    count = lambda model: sum(isinstance(module, Dropout) for _, module in nnx.iter_modules(model))  # noqa: E731
    assert count(nnx.eval_shape(lambda: tiny())) == 0
    assert count(nnx.eval_shape(lambda: tiny(dropout=0.2))) == 5
    layer = filled(lambda: DenseLayer(6, 4, dropout=0.5, rngs=nnx.Rngs(0)))
    x = normal(0, 3, 9, 7, 6)
    y = np.asarray(call(layer, x))
    assert 0.4 < (y == 0).mean() < 0.6
    layer.dropout.eval()
    np.testing.assert_allclose(y[y != 0], 2 * np.asarray(call(layer, x))[y != 0], rtol=1e-5)


def test_convolutions_start_by_hes_rule_on_the_fan_in():
    layer = DenseLayer(128, 32, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(jnp.std(layer.squeeze.conv.kernel[...]), np.sqrt(2 / 128), rtol=0.03)
    np.testing.assert_allclose(jnp.std(layer.grow.conv.kernel[...]), np.sqrt(2 / (9 * 128)), rtol=0.03)


def test_the_published_files_have_a_point_before_a_layers_number():
    model = nnx.eval_shape(tiny)
    new, old = list(torchvision(model)), list(torchvision_old(model))
    pattern = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])$")
    assert [pattern.sub(r"\1\2", name) for name, _ in old] == [name for name, _ in new]
    assert all(a is b for (_, a), (_, b) in zip(old, new, strict=True))
    assert "features.denseblock2.denselayer3.norm.1" in dict(old)


def test_the_smallest_image():
    model = nnx.eval_shape(tiny)
    model.eval()
    shape = lambda *size: nnx.eval_shape(lambda model: model(jnp.zeros((2, *size, 3))), model).shape  # noqa: E731
    assert shape(5, 5) == (2, 5)
    with pytest.raises(
        ValueError, match="^DenseNet: transition1 cannot halve maps of 1 x 2; images must be at least 5 x 5"
    ):
        shape(4, 5)


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError, match=r"^densenet: unknown name 'densenet101'; did you mean .densenet201."
    ):
        densenet("densenet101", rngs=nnx.Rngs(0))
    for depths in ((), (2, 0)):
        with pytest.raises(
            ValueError, match=r"^DenseNet: depths must have a positive int for each block, got"
        ):
            DenseNet(depths, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^DenseNet: growth must be at least 1, got 0"):
        DenseNet((1,), 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        nnx.eval_shape(lambda: tiny(dropout=1.5))
