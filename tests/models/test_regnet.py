"""RegNet: the stages that follow from its parameters, shapes, options, initialisation, messages."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.regnet import REGNETS, RegNet, RegNetBlock, regnet, stages_of
from jaxcnn.pretrained.names.regnet import timm, torchvision
from tests.nn.filled import filled
from tests.reference import normal

# Depths and widths as the paper prints them, but for the two networks whose ties torchvision rounds up.
STAGES = {
    "regnet_x_400mf": ((1, 2, 7, 12), (32, 64, 160, 400)),  # 384 in the paper
    "regnet_x_800mf": ((1, 3, 7, 5), (64, 128, 288, 672)),
    "regnet_x_1_6gf": ((2, 4, 10, 2), (72, 168, 408, 912)),
    "regnet_x_3_2gf": ((2, 6, 15, 2), (96, 192, 432, 1008)),
    "regnet_x_8gf": ((2, 5, 15, 1), (80, 240, 720, 1920)),
    "regnet_x_16gf": ((2, 6, 13, 1), (256, 512, 896, 2048)),
    "regnet_x_32gf": ((2, 7, 13, 1), (336, 672, 1344, 2520)),
    "regnet_y_400mf": ((1, 3, 6, 6), (48, 104, 208, 440)),
    "regnet_y_800mf": ((1, 3, 8, 2), (64, 144, 320, 784)),  # 64, 128, 320, 768 in the paper
    "regnet_y_1_6gf": ((2, 6, 17, 2), (48, 120, 336, 888)),
    "regnet_y_3_2gf": ((2, 5, 13, 1), (72, 216, 576, 1512)),
    "regnet_y_8gf": ((2, 4, 10, 1), (224, 448, 896, 2016)),
    "regnet_y_16gf": ((2, 4, 11, 1), (224, 448, 1232, 3024)),
    "regnet_y_32gf": ((2, 5, 12, 1), (232, 696, 1392, 3712)),
}


def tiny(**options: Any):
    return RegNet((1, 2), (8, 16), 8, num_classes=5, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("name", STAGES)
def test_stages_follow_from_five_parameters(name):
    depth, w_0, w_a, w_m, group_width, squeeze = REGNETS[name]
    assert stages_of(depth, w_0, w_a, w_m, group_width) == STAGES[name]
    assert squeeze == (0.25 if "_y_" in name else 0)


def test_a_slope_of_zero_is_one_stage():
    assert stages_of(5, 24, 0.0, 2.0, 8) == ((5,), (24,))


def test_feature_maps_of_regnet_x_400mf():
    model = nnx.eval_shape(lambda: regnet("regnet_x_400mf", rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 65, 96, 3))), model)
    assert {name: maps[name].shape[1:] for name in model.taps} == {
        "stem": (33, 48, 32),
        "stage1": (17, 24, 32),
        "stage2": (9, 12, 64),
        "stage3": (5, 6, 160),
        "stage4": (3, 3, 400),
        "avg_pool": (400,),
        "logits": (1000,),
    }
    assert [blocks[0].grouped.conv.groups for blocks in model.layers] == [2, 4, 10, 25]
    assert all(block.excite is None for blocks in model.layers for block in blocks)


def test_a_stage_narrower_than_the_group_width_is_one_group():
    model = nnx.eval_shape(lambda: RegNet((1, 1), (8, 32), 16, rngs=nnx.Rngs(0)))
    assert [blocks[0].grouped.conv.groups for blocks in model.layers] == [1, 2]


def test_the_excitation_squeezes_to_a_quarter_of_the_blocks_input():
    model = nnx.eval_shape(lambda: tiny(squeeze=0.25))
    squeezed = [block.excite.reduce.kernel.shape for blocks in model.layers for block in blocks]
    assert squeezed == [(1, 1, 8, 8), (1, 1, 16, 2), (1, 1, 16, 4)]


def test_a_projection_stands_where_the_shape_changes_alone():
    model = nnx.eval_shape(tiny)
    strides = [
        None if b.projection is None else b.projection.conv.stride for layer in model.layers for b in layer
    ]
    assert strides == [(2, 2), (2, 2), None]


def test_drop_path_rates_grow_linearly_with_depth():
    model = nnx.eval_shape(lambda: tiny(drop_path=0.4))
    blocks = [block for layer in model.layers for block in layer]
    rates = [0.0 if block.drop_path is None else block.drop_path.rate for block in blocks]
    np.testing.assert_allclose(rates, [0, 0.2, 0.4])
    without = nnx.eval_shape(lambda: RegNet((2,), (8,), 8, rngs=nnx.Rngs(params=0)))
    assert all(block.drop_path is None for block in without.layers[0])


def test_a_dropped_branch_leaves_the_shortcut():
    block = filled(lambda: RegNetBlock(8, 8, 4, squeeze=0.25, drop_path=1.0, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 7, 5, 8)
    np.testing.assert_array_equal(block(x), np.maximum(x, 0))


def test_initialisation():
    block = RegNetBlock(64, 128, 16, rngs=nnx.Rngs(0))
    # He's rule on the fan-out; the one of a kernel (3, 3, 16, 128) of 8 groups is 9 * 128, as in torchvision.
    np.testing.assert_allclose(jnp.std(block.expand.conv.kernel[...]), np.sqrt(2 / 128), rtol=0.03)
    np.testing.assert_allclose(jnp.std(block.grouped.conv.kernel[...]), np.sqrt(2 / (9 * 128)), rtol=0.03)
    output = RegNet((1,), (64,), 8, num_classes=200, rngs=nnx.Rngs(0)).output
    np.testing.assert_allclose(jnp.std(output.kernel[...]), 0.01, rtol=0.03)


def test_any_image_size():
    model = nnx.eval_shape(tiny)
    model.eval()
    assert nnx.eval_shape(lambda model: model(jnp.zeros((2, 1, 2, 3))), model).shape == (2, 5)


def test_timm_names_the_same_layers():
    model = nnx.eval_shape(lambda: tiny(squeeze=0.25))
    theirs, ours = dict(torchvision(model)), dict(timm(model))
    assert [id(layer) for layer in theirs.values()] == [id(layer) for layer in ours.values()]
    assert ours["s2.b1.downsample.conv"] is theirs["trunk_output.block2.block2-0.proj.0"]
    assert ours["s2.b2.conv2.bn"] is theirs["trunk_output.block2.block2-1.f.b.1"]
    assert ours["s1.b1.se.fc2"] is theirs["trunk_output.block1.block1-0.f.se.fc2"]
    assert ours["head.fc"] is theirs["fc"]


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError, match=r"^regnet: unknown name 'regnet_z_400mf'; did you mean .regnet_[xy]_400m"
    ):
        regnet("regnet_z_400mf", rngs=nnx.Rngs(0))
    for depths in ((), (2, 0), (1,)):
        with pytest.raises(
            ValueError, match=r"^RegNet: depths and widths must have one positive int for each s"
        ):
            RegNet(depths, (8, 16), 8, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError,
        match="^RegNetBlock: group_width must divide channels_out, got group_width=8, channels_out=12$",
    ):
        RegNet((1,), (12,), 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^RegNet: group_width must be at least 1, got 0"):
        RegNet((1,), (8,), 0, rngs=nnx.Rngs(0))
    for parameters in ((0, 8, 8.0, 2.0, 8), (3, 7, 8.0, 2.0, 8), (3, 8, -1.0, 2.0, 8), (3, 8, 8.0, 1.0, 8)):
        with pytest.raises(
            ValueError, match="^stages_of: depth must be at least 1, w_0 at least 8, w_a at least "
        ):
            stages_of(*parameters)
    with pytest.raises(ValueError, match="^DropPath: rate must be a Python number in"):
        nnx.eval_shape(lambda: tiny(drop_path=1.5))
