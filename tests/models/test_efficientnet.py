"""What is special to the EfficientNets: stages, scaling, TensorFlow's padding, the names of their weights."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.efficientnet import EFFICIENTNETS, EfficientNet, FusedMBConv, Row, efficientnet
from jaxcnn.nn import BatchNorm
from jaxcnn.pretrained.layers import entries
from jaxcnn.pretrained.names import efficientnet as names
from tests.nn.filled import filled
from tests.reference import normal

ROWS = (Row(2, 8, 1, 3, 1), Row(2, 12, 4, 5, 2))


@cache
def abstract(name):
    return nnx.eval_shape(lambda: efficientnet(name, rngs=nnx.Rngs(0)))


def tiny(rows=ROWS, **options):
    return EfficientNet(rows, 8, 16, num_classes=5, rngs=nnx.Rngs(0), **options)


def blocks_of(model):
    return [block for stage in model.layers for block in stage]


def keys(scheme, model):
    return {entry.key: entry.shape for entry in entries(scheme(model))}


def test_there_is_a_tap_at_every_resolution():
    x = jax.ShapeDtypeStruct((2, 97, 66, 3), np.float32)
    found = nnx.eval_shape(lambda model, x: model.features(x), abstract("efficientnet_b0"), x)
    assert {tap: value.shape[1:] for tap, value in found.items()} == {
        "stem": (49, 33, 32),
        "stage1": (49, 33, 16),
        "stage2": (25, 17, 24),
        "stage3": (13, 9, 40),
        "stage4": (7, 5, 80),
        "stage5": (7, 5, 112),
        "stage6": (4, 3, 192),
        "stage7": (4, 3, 320),
        "head": (4, 3, 1280),
        "avg_pool": (1280,),
        "logits": (1000,),
    }


def test_channels_and_depths_are_scaled_as_in_section_3_3():
    # The figures of the paper's B7: 2.0 times the channels, 3.1 times the depth, rounded up.
    rows = EFFICIENTNETS["efficientnet_b7"].rows
    assert [row.channels for row in rows] == [32, 48, 80, 160, 224, 384, 640]
    assert [row.depth for row in rows] == [4, 7, 7, 10, 10, 13, 4]
    assert [row[2:] for row in rows] == [row[2:] for row in EFFICIENTNETS["efficientnet_b0"].rows]
    assert EFFICIENTNETS["efficientnet_b7"].stem_channels == 64
    assert EFFICIENTNETS["efficientnet_b7"].head_channels == 2560


@pytest.mark.parametrize(
    ("name", "eps", "momentum", "dropout"),
    [
        ("efficientnet_b4", 1e-5, 0.9, 0.4),
        ("efficientnet_b5", 1e-3, 0.99, 0.4),
        ("efficientnet_v2_m", 1e-3, 0.9, 0.3),
        ("efficientnet_lite0", 1e-3, 0.99, 0.2),
    ],
)
def test_normalisation_and_dropout_are_those_of_the_published_networks(name, eps, momentum, dropout):
    architecture = EFFICIENTNETS[name]
    assert architecture.dropout == dropout
    model = nnx.eval_shape(lambda: tiny((*ROWS, Row(1, 8, 2, 3, 1, True)), **architecture.options))
    norms = [module for _, module in nnx.iter_graph(model) if isinstance(module, BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, momentum)}


def test_dropout_is_the_networks_own_unless_given():
    dropout = abstract("efficientnet_b0").dropout
    assert dropout is not None
    assert dropout.rate == 0.2
    without = nnx.eval_shape(
        lambda: efficientnet("efficientnet_b0", dropout=0.0, drop_path=0.0, rngs=nnx.Rngs(params=0))
    )
    assert without.dropout is None
    assert all(block.drop_path is None for block in blocks_of(without))


def test_lite0_has_4652008_parameters_and_no_squeeze_and_excitation():
    model = abstract("efficientnet_lite0")
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 4_652_008
    assert all(block.excite is None for block in blocks_of(model))
    assert model.stem.activation is nnx.relu6
    assert blocks_of(model)[-1].depthwise.activation is nnx.relu6


def test_squeeze_is_a_quarter_of_what_a_block_starts_from():
    model = nnx.eval_shape(lambda: EfficientNet((*ROWS, Row(1, 2, 3, 3, 1)), 3, 16, rngs=nnx.Rngs(0)))
    squeezed = [block.excite.reduce.kernel.shape[-2:] for block in blocks_of(model)]
    assert squeezed == [(3, 1), (8, 2), (32, 2), (48, 3), (36, 3)]


def test_drop_path_rates_grow_linearly_and_only_shortcuts_have_them():
    rows = (Row(2, 8, 1, 3, 1, True), Row(3, 12, 4, 3, 2))
    blocks = blocks_of(nnx.eval_shape(lambda: tiny(rows, drop_path=0.5)))
    rates = [0 if block.drop_path is None else block.drop_path.rate for block in blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0, 0.3, 0.4])  # the third one changes the shape


def test_initial_weights():
    rows = (Row(1, 32, 4, 3, 2), Row(1, 32, 2, 3, 1, True))
    model = EfficientNet(rows, 32, 512, squeeze=False, rngs=nnx.Rngs(0))
    for layer in (model.layers[0][0].depthwise, model.layers[1][0].expand, model.head):
        *window, _, channels_out = layer.conv.kernel.shape
        expected = np.sqrt(2 / (np.prod(window) * channels_out))
        assert np.std(layer.conv.kernel[...]) == pytest.approx(expected, rel=0.1)
    kernel = np.abs(model.output.kernel[...])
    limit = 1 / np.sqrt(1000)
    assert 0.99 * limit < kernel.max() <= limit
    assert kernel.mean() == pytest.approx(limit / 2, rel=0.02)
    assert model.output.bias is not None
    np.testing.assert_array_equal(model.output.bias[...], 0)


@pytest.mark.parametrize("shape", [(2, 9, 14, 6), (2, 8, 7, 6)])
@pytest.mark.parametrize(
    ("channels_out", "expanded", "stride"), [(6, 6, 1), (6, 18, 1), (5, 6, 2), (5, 24, 2)]
)
def test_fused_block_is_two_convolutions_and_a_shortcut(shape, channels_out, expanded, stride):
    torch = pytest.importorskip("torch")
    block = filled(lambda: FusedMBConv(6, channels_out, expanded=expanded, stride=stride, rngs=nnx.Rngs(0)))
    block.eval()
    x = normal(0, *shape)

    def conv_norm(layer, y, **options):
        kernel = torch.from_numpy(np.array(layer.conv.kernel[...])).permute(3, 2, 0, 1)
        y = torch.nn.functional.conv2d(y, kernel, **options)
        mean, var, scale, bias = (
            torch.from_numpy(np.array(getattr(layer.norm, part)[...]))
            for part in ("mean", "var", "scale", "bias")
        )
        return torch.nn.functional.batch_norm(y, mean, var, scale, bias, eps=1e-5)

    tx = torch.from_numpy(x).permute(0, 3, 1, 2)
    expected = torch.nn.functional.silu(conv_norm(block.expand, tx, stride=stride, padding=1))
    assert (block.project is None) == (expanded == 6)
    if block.project is not None:
        expected = conv_norm(block.project, expected)
    if stride == 1 and channels_out == 6:
        expected = expected + tx
    np.testing.assert_allclose(block(x), expected.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "border"), [((32, 24), (0, 1)), ((33, 27), (1, 1))], ids=["even", "odd"])
def test_same_padding_is_tensorflows(size, border):
    """At stride 2 an even size has its border below and to the right only, where torch has it all around."""
    tensorflow, torch_like = filled(lambda: tiny(padding="SAME")), filled(tiny)
    x = normal(0, 2, *size, 3)
    expected = jax.lax.conv_general_dilated(
        jnp.pad(x, ((0, 0), border, border, (0, 0))),
        tensorflow.stem.conv.kernel[...],
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(tensorflow.stem.conv(x), expected, rtol=1e-5, atol=1e-5)
    difference = np.abs(expected - torch_like.stem.conv(x)).max()
    assert (difference < 1e-5) == (border == (1, 1))
    for block in blocks_of(tensorflow):
        assert block.depthwise.conv.padding == "SAME"
    fused = nnx.eval_shape(lambda: tiny((Row(1, 8, 2, 3, 2, True),), padding="SAME"))
    assert fused.layers[0][0].expand.conv.padding == "SAME"


def test_timm_names():
    b1, v2 = keys(names.timm, abstract("efficientnet_b1")), keys(names.timm, abstract("efficientnet_v2_s"))
    expected = {
        "conv_stem.weight": (32, 3, 3, 3),
        "bn1.running_var": (32,),
        "blocks.0.1.conv_dw.weight": (16, 1, 3, 3),
        "blocks.0.1.se.conv_reduce.weight": (4, 16, 1, 1),
        "blocks.0.1.conv_pw.weight": (16, 16, 1, 1),
        "blocks.0.1.bn2.weight": (16,),
        "blocks.1.0.conv_pw.weight": (96, 16, 1, 1),
        "blocks.1.0.conv_dw.weight": (96, 1, 3, 3),
        "blocks.1.0.se.conv_expand.bias": (96,),
        "blocks.1.0.conv_pwl.weight": (24, 96, 1, 1),
        "blocks.1.0.bn1.weight": (96,),
        "blocks.1.0.bn3.weight": (24,),
        "conv_head.weight": (1280, 320, 1, 1),
        "bn2.bias": (1280,),
        "classifier.weight": (1000, 1280),
    }
    assert {key: b1[key] for key in expected} == expected
    expected = {
        "blocks.0.1.conv.weight": (24, 24, 3, 3),
        "blocks.0.1.bn1.weight": (24,),
        "blocks.1.0.conv_exp.weight": (96, 24, 3, 3),
        "blocks.1.0.bn1.weight": (96,),
        "blocks.1.0.conv_pwl.weight": (48, 96, 1, 1),
        "blocks.1.0.bn2.weight": (48,),
        "blocks.3.0.conv_pw.weight": (256, 64, 1, 1),
    }
    assert {key: v2[key] for key in expected} == expected
    assert "blocks.0.0.conv_pwl.weight" not in v2
    assert "blocks.0.0.se.conv_reduce.weight" not in v2


def test_efficientnet_pytorch_names_belong_to_models_with_tensorflows_padding():
    lite = keys(names.efficientnet_pytorch, abstract("efficientnet_lite0"))
    expected = {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_bn0.running_mean": (32,),
        "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
        "_blocks.0._bn2.weight": (16,),
        "_blocks.1._expand_conv.weight": (96, 16, 1, 1),
        "_blocks.1._bn0.weight": (96,),
        "_blocks.15._project_conv.weight": (320, 1152, 1, 1),
        "_conv_head.weight": (1280, 320, 1, 1),
        "_bn1.weight": (1280,),
        "_fc.bias": (1000,),
    }
    assert {key: lite[key] for key in expected} == expected
    assert "_blocks.0._expand_conv.weight" not in lite
    assert not keys(names.efficientnet_pytorch, abstract("efficientnet_b0"))
    assert not keys(names.efficientnet_pytorch, abstract("efficientnet_v2_s"))


@pytest.mark.parametrize("scheme", [names.torchvision, names.timm, names.efficientnet_pytorch])
def test_names_reach_every_parameter_once(scheme):
    model = nnx.eval_shape(lambda: tiny(padding="SAME"))
    found = list(entries(scheme(model)))
    assert len({entry.key for entry in found}) == len(found)
    variables = [leaf for _, leaf in nnx.iter_graph(model) if isinstance(leaf, nnx.Param | nnx.BatchStat)]
    assert {id(entry.variable) for entry in found} == {id(leaf) for leaf in variables}


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError, match=r"^efficientnet: unknown name 'efficientnet_b8'; did you mean .*efficientnet_lite0"
    ):
        efficientnet("efficientnet_b8", rngs=nnx.Rngs(0))
    for rows in ((), (Row(0, 8, 1, 3, 1),), (Row(1, 8, 1, 3, 0),)):
        with pytest.raises(ValueError, match="^EfficientNet: rows must have positive ints for every stage"):
            tiny(rows)
    with pytest.raises(ValueError, match="^EfficientNet: drop_path must be"):
        tiny(drop_path=1.5)
    with pytest.raises(ValueError, match="^Dropout: rate must be"):
        nnx.eval_shape(lambda: tiny(dropout=-0.5))
