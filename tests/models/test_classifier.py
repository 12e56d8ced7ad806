"""What every model promises: logits, taps, dtypes, gradients, and messages."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models import (
    VGG,
    AlexNet,
    AllConvNet,
    ConvNeXt,
    DenseNet,
    EfficientNet,
    GoogLeNet,
    InceptionV3,
    MNASNet,
    MobileNetV2,
    MobileNetV3,
    RegNet,
    ResNet,
    ShuffleNetV2,
    SqueezeNet,
    create_model,
)
from jaxcnn.models.efficientnet import Row
from jaxcnn.models.inception import grid35
from jaxcnn.models.mobilenet_v3 import SMALL
from jaxcnn.nn import BasicBlock
from tests.nn.filled import filled
from tests.reference import normal

# One small model of each family, and images for it.
TINY = (BasicBlock, (1, 1), (4, 8))
ROWS = (Row(1, 8, 1, 3, 1, fused=True), Row(2, 8, 2, 3, 2))
FAMILIES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "lenet5": (partial(create_model, "lenet5"), (32, 32, 1)),
    "mlp": (partial(create_model, "mlp", hidden=(16, 8), input_size=(9, 6)), (9, 6, 3)),
    "resnet": (partial(ResNet, *TINY), (33, 26, 3)),
    "cifar": (partial(ResNet, *TINY, small_images=True), (11, 8, 1)),
    "alexnet": (partial(AlexNet, channels=(4, 5, 6, 7, 8), hidden=9, dropout=0.0), (79, 64, 3)),
    "vgg": (partial(VGG, (1, 2), (4, 5), hidden=8, dropout=0.0), (18, 13, 3)),
    "squeezenet": (partial(SqueezeNet, 6, 3, ((1,), (2,)), dropout=0.0), (31, 22, 3)),
    "all_cnn": (partial(AllConvNet, channels=(4, 6), input_dropout=0.0, dropout=0.0), (21, 14, 3)),
    "googlenet": (partial(GoogLeNet, (((4,) * 6,),)), (33, 26, 3)),
    "inception": (
        partial(InceptionV3, {"5b": partial(grid35, behind_pool=4)}, aux_heads=False),
        (43, 36, 3),
    ),
    "mobilenet_v2": (partial(MobileNetV2, width=0.25, table=((1, 8, 1, 1), (2, 8, 2, 2))), (19, 14, 3)),
    "mobilenet_v3": (partial(MobileNetV3, SMALL[:2], 16), (19, 14, 3)),
    "mnasnet": (partial(MNASNet, 0.25, table=((2, 5, 8, 2, 2),)), (19, 14, 3)),
    "convnext": (partial(ConvNeXt, (1, 1), (4, 8)), (19, 14, 3)),
    "convnext_v2": (partial(ConvNeXt, (1, 1), (4, 8), grn=True), (19, 14, 3)),
    "densenet": (partial(DenseNet, (1, 2), 4), (33, 26, 3)),
    "efficientnet": (
        partial(EfficientNet, ROWS, 8, 12, drop_path=0.0, dropout=0.0),
        (18, 13, 3),
    ),
    "regnet": (partial(RegNet, (1, 1), (8, 16), 8, squeeze=0.25), (33, 26, 3)),
    "shufflenet_v2": (partial(ShuffleNetV2, (2,), (4, 8, 16)), (35, 22, 3)),
}
FAMILY = pytest.mark.parametrize(("build", "shape"), FAMILIES.values(), ids=FAMILIES)


features = nnx.jit(lambda model, x: model.features(x))


def make(build, shape, **options):
    return filled(lambda: build(num_classes=7, in_channels=shape[-1], rngs=nnx.Rngs(0), **options))


@FAMILY
def test_logits_are_the_last_feature_eager_and_jitted(build, shape):
    model, x = make(build, shape), normal(0, 3, *shape)
    model.eval()
    logits = model(x)
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
    graphdef, state = nnx.split(model)
    jitted = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(nnx.to_pure_dict(state), x)
    chex.assert_trees_all_close(jitted, logits, rtol=1e-4, atol=1e-4)
    everything = model.features(x)
    assert tuple(everything) == model.taps
    chex.assert_trees_all_equal(everything["logits"], logits)
    # Logits of one example do not depend on the others: no batch statistics in evaluation.
    chex.assert_trees_all_close(model(x[1:2]), logits[1:2], rtol=1e-4, atol=1e-4)


@FAMILY
def test_taps_are_chosen_by_name_and_a_tap_determines_what_follows(build, shape):
    model, x = make(build, shape), normal(0, 3, *shape)
    model.eval()
    first, last = model.taps[0], model.taps[-2]
    found = model.features(x, taps=(last, first))
    assert tuple(found) == (first, last)
    (_, logits) = model.stages()[-1]
    chex.assert_trees_all_equal(logits(found[last]), model(x))


def test_features_stop_at_the_last_tap():
    build, shape = FAMILIES["resnet"]
    model, x = make(build, shape), normal(0, 3, *shape)
    count = lambda taps: len(jax.make_jaxpr(lambda x: model.features(x, taps))(x).eqns)  # noqa: E731
    model.eval()
    assert count(("stem",)) < count(("layer1",)) < count(("logits",))


@FAMILY
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_variables(build, shape):
    full, half = make(build, shape), make(build, shape, dtype=jnp.bfloat16)
    x = normal(0, 3, *shape)
    for model in (full, half):
        model.eval()
    found = features(half, x)
    assert all(value.dtype == jnp.bfloat16 for value in found.values())
    assert all(
        leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(half, nnx.Param, nnx.BatchStat))
    )
    expected = np.asarray(features(full, x)["logits"])
    error = np.abs(np.asarray(found["logits"].astype(jnp.float32)) - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()
    # float32 is the default for images of any floating dtype.
    assert jax.eval_shape(full, jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32


@FAMILY
def test_every_parameter_has_a_gradient_in_training(build, shape):
    model = make(build, shape)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)
    x, weight = normal(0, 4, *shape), normal(1, 4, 7)

    @jax.jit
    def grads_of(params):
        return jax.grad(lambda p: (nnx.merge(graphdef, p, rest)(x) * weight).sum())(params)

    grads = grads_of(nnx.to_pure_dict(params))
    chex.assert_tree_all_finite(grads)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, nnx.to_pure_dict(params))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.abs(grad).max() > 0, path


@FAMILY
def test_a_model_is_made_in_training_mode_and_updates_its_statistics(build, shape):
    model = make(build, shape)
    stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    features(model, normal(0, 3, *shape))
    after = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    for old, new in zip(jax.tree.leaves(stats), jax.tree.leaves(after), strict=True):
        assert jnp.abs(old - new).min() > 0


@FAMILY
def test_wrong_images_are_refused_before_anything_runs(build, shape, unchecked):
    model = make(build, shape)
    name = type(model).__name__
    height, width, channels = shape
    with pytest.raises(ValueError, match=rf"^{name}: x must have {channels} channels .*got shape \(2, "):
        model(normal(0, 2, height, width, channels + 1))
    with pytest.raises(
        TypeError, match=f"^{name}: x must have a floating dtype, got uint8; convert it first"
    ):
        model(np.zeros((2, *shape), np.uint8))
    with pytest.raises(ValueError, match=f"^{name}: x must have shape .* a single image needs x.None."):
        model(normal(0, *shape))


@FAMILY
def test_unknown_taps_are_refused_before_anything_runs(build, shape, unchecked):
    model = make(build, shape)
    name = type(model).__name__
    with pytest.raises(ValueError, match=rf"^{name}: unknown taps \['layer9'\]; this model has .*, logits$"):
        model.features(normal(0, 2, *shape), taps=("logits", "layer9"))
    with pytest.raises(TypeError, match=rf"^{name}: taps must be a tuple of names, such as \('logits',\)"):
        model.features(normal(0, 2, *shape), taps="logits")


@FAMILY
@pytest.mark.parametrize("bad", [0, -3])
def test_sizes_below_one_are_refused(build, shape, bad, unchecked):
    with pytest.raises(ValueError, match=f": num_classes must be at least 1, got {bad}"):
        build(num_classes=bad, in_channels=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=f": in_channels must be at least 1, got {bad}"):
        build(num_classes=3, in_channels=bad, rngs=nnx.Rngs(0))


@FAMILY
def test_a_dtype_that_is_not_floating_is_refused(build, shape, unchecked):
    with pytest.raises(TypeError, match=": dtype must be a floating dtype or None, got "):
        build(num_classes=3, in_channels=3, dtype=jnp.int32, rngs=nnx.Rngs(0))
