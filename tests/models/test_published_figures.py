"""Parameters and multiply-accumulates against the figures that torchvision publishes."""

import pytest
from flax import nnx

from jaxcnn.__main__ import count, read_counts
from jaxcnn.analysis import count_parameters
from jaxcnn.models import create_model, list_models

# Parameters; GMACs of one image, rounded to 1e-3; the image's height and width.
FIGURES = {
    "alexnet": (61_100_840, 0.714, 224),
    "convnext_tiny": (28_589_128, 4.456, 224),
    "convnext_small": (50_223_688, 8.684, 224),
    "convnext_base": (88_591_464, 15.355, 224),
    "convnext_large": (197_767_336, 34.361, 224),
    "densenet121": (7_978_856, 2.834, 224),
    "densenet161": (28_681_000, 7.728, 224),
    "densenet169": (14_149_480, 3.36, 224),
    "densenet201": (20_013_928, 4.291, 224),
    "efficientnet_b0": (5_288_548, 0.386, 224),
    "efficientnet_b1": (7_794_184, 0.687, 240),
    "efficientnet_b2": (9_109_994, 1.088, 288),
    "efficientnet_b3": (12_233_232, 1.827, 300),
    "efficientnet_b4": (19_341_616, 4.394, 380),
    "efficientnet_b5": (30_389_784, 10.266, 456),
    "efficientnet_b6": (43_040_704, 19.068, 528),
    "efficientnet_b7": (66_347_960, 37.746, 600),
    "efficientnet_v2_s": (21_458_488, 8.366, 384),
    "efficientnet_v2_m": (54_139_356, 24.582, 480),
    "efficientnet_v2_l": (118_515_272, 56.08, 480),
    "googlenet": (6_624_904, 1.498, 224),
    "inception_v3": (27_161_264, 5.713, 299),
    "mnasnet0_5": (2_218_512, 0.104, 224),
    "mnasnet0_75": (3_170_208, 0.215, 224),
    "mnasnet1_0": (4_383_312, 0.314, 224),
    "mnasnet1_3": (6_282_256, 0.526, 224),
    "mobilenet_v2": (3_504_872, 0.301, 224),
    "mobilenet_v3_large": (5_483_032, 0.217, 224),
    "mobilenet_v3_small": (2_542_856, 0.057, 224),
    "regnet_y_400mf": (4_344_144, 0.402, 224),
    "regnet_y_800mf": (6_432_512, 0.834, 224),
    "regnet_y_1_6gf": (11_202_430, 1.612, 224),
    "regnet_y_3_2gf": (19_436_338, 3.176, 224),
    "regnet_y_8gf": (39_381_472, 8.473, 224),
    "regnet_y_16gf": (83_590_140, 15.912, 224),
    "regnet_y_32gf": (145_046_770, 32.28, 224),
    "regnet_x_400mf": (5_495_976, 0.414, 224),
    "regnet_x_800mf": (7_259_656, 0.8, 224),
    "regnet_x_1_6gf": (9_190_136, 1.603, 224),
    "regnet_x_3_2gf": (15_296_552, 3.177, 224),
    "regnet_x_8gf": (39_572_648, 7.995, 224),
    "regnet_x_16gf": (54_278_536, 15.941, 224),
    "regnet_x_32gf": (107_811_560, 31.736, 224),
    "resnet18": (11_689_512, 1.814, 224),
    "resnet34": (21_797_672, 3.664, 224),
    "resnet50": (25_557_032, 4.089, 224),
    "resnet101": (44_549_160, 7.801, 224),
    "resnet152": (60_192_808, 11.514, 224),
    "resnext50_32x4d": (25_028_904, 4.23, 224),
    "resnext101_32x8d": (88_791_336, 16.414, 224),
    "resnext101_64x4d": (83_455_272, 15.46, 224),
    "wide_resnet50_2": (68_883_240, 11.398, 224),
    "wide_resnet101_2": (126_886_696, 22.753, 224),
    "shufflenet_v2_x0_5": (1_366_792, 0.04, 224),
    "shufflenet_v2_x1_0": (2_278_604, 0.145, 224),
    "shufflenet_v2_x1_5": (3_503_624, 0.296, 224),
    "shufflenet_v2_x2_0": (7_393_996, 0.583, 224),
    "squeezenet1_0": (1_248_424, 0.819, 224),
    "squeezenet1_1": (1_235_496, 0.349, 224),
    "vgg11": (132_863_336, 7.609, 224),
    "vgg11_bn": (132_868_840, 7.609, 224),
    "vgg13": (133_047_848, 11.308, 224),
    "vgg13_bn": (133_053_736, 11.308, 224),
    "vgg16": (138_357_544, 15.47, 224),
    "vgg16_bn": (138_365_992, 15.47, 224),
    "vgg19": (143_667_240, 19.632, 224),
    "vgg19_bn": (143_678_248, 19.632, 224),
}

# Of networks that torchvision does not have, with ten classes or a thousand: the papers' figures to their
# precision, or those of the authors' code.
OTHERS = {
    "lenet5": 61_706,
    "mlp": 669_706,
    "all_cnn_c": 1_369_738,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "regnet_y_128gf": 644_812_894,
    "efficientnet_lite0": 4_652_008,
    "convnextv2_atto": 3_708_400,
    "convnextv2_femto": 5_233_240,
    "convnextv2_pico": 9_066_280,
    "convnextv2_nano": 15_623_800,
    "convnextv2_tiny": 28_635_496,
    "convnextv2_base": 88_717_800,
    "convnextv2_large": 197_956_840,
    "convnextv2_huge": 660_289_640,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_parameters_and_macs_are_the_published_ones_and_those_of_the_table(name):
    counts = count(name)
    if name in FIGURES:
        parameters, gmacs, size = FIGURES[name]
        assert (counts.height, counts.width, counts.channels) == (size, size, 3)
        assert counts.macs / 1e9 == pytest.approx(gmacs, rel=1e-2, abs=6e-4)
    else:
        parameters = OTHERS[name]
    assert counts.parameters == parameters
    assert counts in read_counts()


def test_every_published_figure_belongs_to_a_model():
    assert set(list_models()) == set(FIGURES) | set(OTHERS)


def test_googlenet_and_inception_are_counted_as_torchvision_counts_them():
    for name, aux_heads, parameters in (("googlenet", True, 13_004_888), ("inception_v3", False, 23_834_568)):
        model = nnx.eval_shape(lambda: create_model(name, aux_heads=aux_heads, rngs=nnx.Rngs(0)))  # noqa: B023
        assert count_parameters(model) == parameters
