"""Lessons on how much of the image a unit sees."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from course.drawing import ORANGE, blank, new_figure, window
from course.page import Page
from jaxcnn import analysis, interpret, models, nn
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.resnet import ResNet
from jaxcnn.models.vgg import VGG

# The last layer of each stage: its name in the papers, its path in the model.
STAGES = {
    "alexnet": {f"pool{i}": f"max_pool{i}" for i in (1, 2, 5)},
    "vgg16": {
        **{f"pool{i}": f"max_pool{i}" for i in (1, 2, 3, 4)},
        "conv5_3": "groups.4.2.conv",
        "pool5": "max_pool5",
    },
    "resnet18": {f"layer{i}": f"layers.{i - 1}.1.branch.1.conv" for i in (1, 2, 3, 4)},
    "resnet50": {f"layer{i}": f"layers.{i - 1}.{n - 1}.branch.2.conv" for i, n in enumerate((3, 4, 6, 3), 1)},
}
SIDE = 224


def receptive_fields(page: Page) -> None:
    """How much of the image a unit sees: in theory, and in effect."""
    page.title("How much of the image does a unit see?", "한 유닛은 이미지를 얼마나 넓게 볼까?")
    page.say(
        """The receptive field of a unit is the part of the image that can change its value. A window of
        k taps adds k - 1 steps, and a step of layer l is as many pixels wide as all strides before it
        multiply to:""",
        """어떤 유닛의 값에 영향을 줄 수 있는 입력 영역을 그 유닛의 수용 영역(receptive field)이라 한다.
        크기 k인 창은 수용 영역을 k - 1칸만큼 넓힌다. 이때 l번째 층의 한 칸은 앞선 모든 층의
        스트라이드를 곱한 만큼의 픽셀에 해당한다.""",
    )
    page.formula("r[l] = r[l-1] + (k[l] - 1) · j[l-1]        j[l] = j[l-1] · s[l]        r[0] = j[0] = 1")
    page.equal("3×3, 3×3: 1 + 2 + 2", receptive_field([(3, 1), (3, 1)]), stated=5)
    page.equal("3×3, 3×3, 3×3: 1 + 2 + 2 + 2", receptive_field([(3, 1)] * 3), stated=7)
    page.equal("3×3 (s = 2), 3×3: 1 + 2 + 2 · 2", receptive_field([(3, 2), (3, 1)]), stated=7)

    page.say(
        "`analysis.summarize` follows the same rule through a whole model. Stage by stage:",
        "`analysis.summarize`는 같은 규칙을 모델 전체에 적용한다. 단계별로 보면 다음과 같다.",
    )
    seen = {name: theoretical(name) for name in STAGES}
    page.table(
        ("model", "layer", "r", "j"),
        [(name, layer, *map(str, seen[name][layer])) for name in STAGES for layer in STAGES[name]],
    )
    page.equal("AlexNet, pool5", seen["alexnet"]["pool5"].pixels, stated=195)
    page.equal("VGG-16, conv5_3", seen["vgg16"]["conv5_3"].pixels, stated=196)
    page.equal("VGG-16, pool5", seen["vgg16"]["pool5"].pixels, stated=212)
    page.equal("ResNet-18, layer4", seen["resnet18"]["layer4"].pixels, stated=435)
    page.equal("ResNet-50, layer4, 3×3 s = 2", seen["resnet50"]["layer4"].pixels, stated=427)
    page.equal("ResNet-50, layer4, 1×1 s = 2", receptive_field(_resnet50_of_the_paper()), stated=483)
    page.say(
        """For ResNet-50 one reads 483: that is the network of the paper, which halves the map in the
        first 1×1 convolution of a block, so that the 3×3 one behind it already takes steps of twice the
        width. torchvision's network, which is this package's too, halves in the 3×3 convolution: 427.
        Beyond 224 the field is larger than the usual image.""",
        """ResNet-50의 수용 영역은 흔히 483이라고 한다. 이는 블록의 첫 1×1 합성곱에서 크기를 반으로
        줄이는 논문의 구조에서 나온 값으로, 뒤따르는 3×3 합성곱의 한 칸이 이미 두 배로 넓어져 있다.
        torchvision과 이 패키지의 ResNet-50은 3×3 합성곱에서 크기를 줄이므로 427이다. 224를 넘는 수용
        영역은 보통 쓰는 입력 이미지보다 크다.""",
    )

    page.say(
        """In theory all these pixels count alike. In effect they do not: a pixel in the middle reaches
        the unit over many paths, one at the border over a single one. The gradient of the central unit
        with respect to the pixels shows it (Luo et al. 2016). It reaches exactly as far as the formula
        says, but most of it lies in the middle. Measured on networks with random weights and 16 channels
        in every layer, with images of noise of 224×224:""",
        """이론상으로는 수용 영역 안의 픽셀이 모두 같은 자격을 갖지만, 실제 영향력은 다르다. 가운데
        픽셀에서 유닛으로 가는 경로는 아주 많은 반면 가장자리 픽셀에서는 하나뿐이기 때문이다. 가운데
        유닛을 픽셀로 미분한 기울기를 보면 이를 확인할 수 있다(Luo 외 2016). 기울기는 공식이 말하는
        범위까지 정확히 닿지만 대부분 가운데에 몰려 있다. 다음은 가중치가 무작위이고 모든 층의 채널을
        16개로 줄인 신경망에 224×224 잡음 이미지를 넣어 잰 값이다.""",
    )
    fields = []
    for name, model, layers in small_networks():
        for layer in layers:
            field = interpret.effective_receptive_field(
                jax.random.key(0), model, layer, shape=(SIDE, SIDE), images=8
            )
            fields.append(measure(f"{name}, {layer}", np.asarray(field)))
    stated = {
        "ResNet-18, layer2": 99,
        "ResNet-18, layer3": 211,
        "VGG-16, conv4_3": 92,
        "VGG-16, conv5_3": 196,
    }
    for field in fields:
        page.equal(f"{field.name}: dy/dx ≠ 0", field.reach, stated[field.name])
    for field in fields:
        page.at_most(f"{field.name}: 50 % / r", field.half / field.reach, 0.5)
    page.picture(
        "receptive_fields",
        _draw(fields),
        """The gradient of the central unit. Dashed: the theoretical receptive field. Solid: the square
        that holds half of the gradient. Training widens it, but the middle keeps the largest share.""",
        """가운데 유닛의 기울기. 점선은 이론상의 수용 영역이고, 실선은 기울기의 절반이 들어 있는
        정사각형이다. 학습하면 실선이 넓어지지만 가운데의 비중이 가장 크다는 점은 변하지 않는다.""",
    )


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """The pixels along an axis that a unit sees, through layers of (window, stride)."""
    field = step = 1
    for k, stride in layers:
        field += (k - 1) * step
        step *= stride
    return field


class Seen(NamedTuple):
    """What one unit of a layer sees along an axis, and how far the fields of two neighbours are apart."""

    pixels: int
    step: int


def theoretical(name: str) -> dict[str, Seen]:
    """The receptive field of each stage of a model."""
    model = nnx.eval_shape(lambda: models.create_model(name, rngs=nnx.Rngs(0)))  # allocates nothing
    rows = {row.path: row for row in analysis.summarize(model, (1, 224, 224, 3)).rows}
    found = {}
    for layer, path in STAGES[name].items():
        field, stride = rows[path].receptive_field, rows[path].stride
        assert field and stride  # every layer of STAGES is called
        found[layer] = Seen(field[0], int(stride[0]))
    return found


def _resnet50_of_the_paper() -> list[tuple[int, int]]:
    """Its windows and strides; the first block of layers 2 to 4 has its stride in the first convolution."""
    layers = [(7, 2), (3, 2)]
    for layer, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            layers += [(1, 2 if layer > 0 and block == 0 else 1), (3, 1), (1, 1)]
    return layers


def small_networks() -> list[tuple[str, Classifier, tuple[str, ...]]]:
    """ResNet-18 and VGG-16 with 16 channels in every layer, and the stages to look at."""
    # zero_init would begin every branch with a zero: what a new network sees would be its shortcuts alone.
    resnet = ResNet(
        nn.BasicBlock, (2, 2, 2, 2), (16, 16, 16, 16), zero_init=False, num_classes=10, rngs=nnx.Rngs(0)
    )
    vgg = VGG((2, 2, 3, 3, 3), (16, 16, 16, 16, 16), hidden=8, num_classes=10, rngs=nnx.Rngs(0))
    return [
        ("ResNet-18", resnet, ("layer2", "layer3")),
        ("VGG-16", vgg, ("conv4_3", "conv5_3")),
    ]


class Measured(NamedTuple):
    """An effective receptive field.

    Along an axis `reach` pixels from `first` on are not zero; half of the sum is in the middle `half`.
    """

    name: str
    field: np.ndarray
    first: int
    reach: int
    half: float


def measure(name: str, field: np.ndarray) -> Measured:
    """The sides of the square that the field fills, and of the one around its middle with half of the sum."""
    reached = np.flatnonzero(field.sum(0))
    first, last = int(reached[0]), int(reached[-1])
    rows, columns = np.indices(field.shape)
    middle = (first + last) / 2
    distance = np.maximum(abs(rows - middle), abs(columns - middle)).ravel()
    order = np.argsort(distance)
    held = np.cumsum(field.ravel()[order], dtype=float)
    half = 2 * float(distance[order][np.searchsorted(held, held[-1] / 2)]) + 1
    return Measured(name, field, first, last - first + 1, half)


def _draw(fields: Sequence[Measured]) -> Figure:
    """Each field in its image, with the two squares."""
    figure = new_figure(8, 8.5)
    for axes, field in zip(figure.subplots(2, 2).flat, fields, strict=True):
        # The square root lets the faint part show.
        norm = PowerNorm(0.5, 0.0, float(field.field.max()))
        axes.imshow(field.field, cmap="gray", norm=norm, extent=(0.0, SIDE, SIDE, 0.0))
        blank(axes, f"{field.name}:  r = {field.reach},  50 % = {field.half:.0f}")
        window(axes, field.first, field.first, field.reach, field.reach, colour="#7fb2e5", dashed=True)
        inner = field.first + (field.reach - field.half) / 2
        window(axes, inner, inner, field.half, field.half, colour=ORANGE)
    return figure
