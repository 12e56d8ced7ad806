"""Looking inside a trained network: the image that a unit answers to most."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import image, new_figure
from course.page import Page
from course.training import Digits, accuracy, fit, load_digits
from jaxcnn import interpret, models


class Unit(NamedTuple):
    """A unit of a network, and what it answers to most: of all images, and of those it was trained with."""

    name: str
    maximum: np.ndarray
    reached: float
    best: np.ndarray
    reached_by_best: float


def what_a_unit_looks_for(page: Page) -> None:
    """Activation maximisation, held against a thousand training images."""
    page.title("What does a unit look for?", "유닛은 무엇을 찾고 있을까?")
    page.say(
        """A filter of the first layer can be looked at. Deeper in, a unit reads other units, and its weights
        say little. But it can be asked: which image do you answer to most? Begin with noise and climb
        the gradient of the unit's activation with respect to the pixels; the weights stay as they are.""",
        """첫 번째 층의 필터는 그대로 그려 보면 무엇을 찾는지 알 수 있다. 그러나 깊은 층의 유닛은 다른
        유닛의 출력을 읽으므로 가중치만 보아서는 알기 어렵다. 대신 이렇게 물어볼 수 있다. 어떤 이미지에
        가장 크게 반응하는가? 가중치는 고정한 채 잡음에서 출발하여, 유닛의 활성화가 커지는 쪽으로 픽셀을
        조금씩 바꾸어 나간다.""",
    )
    page.formula(
        "max_x  a(x) - w TV(x)      a(x) = mean_ij tap(x)[i, j, channel],  -1 ≤ x ≤ 1\n"
        "TV(x) = Σ |x[i+1, j] - x[i, j]| + |x[i, j+1] - x[i, j]|"
    )
    page.say(
        """Left alone the ascent ends in noise of a high frequency, which excites the unit and shows nothing.
        `interpret.maximize_activation` therefore shifts the image at random in each step (jitter), smooths
        it with a blur that shrinks to nothing, and charges for the differences between neighbours (total
        variation, TV). The network is a LeNet-5 that has learned the digits; the units are two feature
        maps of its second convolution and three logits.""",
        """그대로 두면 유닛은 강하게 반응하지만 사람 눈에는 아무것도 보이지 않는 고주파 잡음이 되고 만다.
        그래서 `interpret.maximize_activation`은 매 단계 이미지를 조금씩 무작위로 옮기고(jitter), 점점
        약해지는 블러로 다듬으며, 이웃한 픽셀의 차이에 벌점을 준다(총변동, TV). 신경망은 숫자를 학습한
        LeNet-5이고, 유닛은 두 번째 합성곱층의 특징 맵 두 개와 로짓 세 개이다.""",
    )
    train, test = (_in_the_middle(digits) for digits in load_digits())
    model, _ = fit(models.LeNet5(rngs=nnx.Rngs(0)), train, optax.adam(2e-3), steps=300)
    page.at_least("LeNet-5: accuracy", accuracy(model, test), 0.9)

    thousand = train.images[:1000]
    units = [
        _ask(model, tap, channel, thousand)
        for tap, channel in (("c3", 0), ("c3", 9), ("logits", 0), ("logits", 5), ("logits", 8))
    ]
    page.say(
        """No regulariser keeps the result from what it is for: each image found excites its unit more than
        any of 1,000 training images does, though its pixels stay in the same range.""",
        """이런 제약을 두고도 목적은 이루어진다. 픽셀의 범위가 같은데도, 찾아낸 이미지는 학습 이미지
        1,000장 가운데 그 어느 것보다 유닛을 더 크게 활성화한다.""",
    )
    for unit in units:
        page.at_least(f"{unit.name}: max a(x) ≥ max of 1,000", unit.reached, unit.reached_by_best)
    page.picture(
        "what_a_unit_looks_for",
        _draw(units),
        """Above: the image that was found, with its activation. Below: of 1,000 training images the one that
        excites the unit most.""",
        """위는 찾아낸 이미지와 그때의 활성화, 아래는 학습 이미지 1,000장 가운데 유닛이 가장 크게 반응하는
        것이다.""",
    )


def _in_the_middle(digits: Digits) -> Digits:
    """The digits in [-1, 1], 24x24 pixels amid 32x32, as LeNet-5 takes them."""
    large = F.resize(2 * digits.images - 1, (24, 24))
    return digits._replace(images=F.pad(large, 4, mode="constant", value=-1.0))


def _ask(model: models.LeNet5, tap: str, channel: int, images: Array) -> Unit:
    """What the unit answers to most, and what it answers to most among the images."""

    def activations(x: Array) -> Array:
        (values,) = interpret.feature_maps(model, x, (tap,)).values()
        return values[..., channel].reshape(len(x), -1).mean(1)

    found = interpret.maximize_activation(
        jax.random.key(0), model, tap, channel, shape=(32, 32), low=-1.0, high=1.0
    )
    of_images = activations(images)
    best = int(jnp.argmax(of_images))
    return Unit(
        f"{tap}[{channel}]",
        np.asarray(found[..., 0]),
        float(activations(found[None])[0]),
        np.asarray(images[best, ..., 0]),
        float(of_images[best]),
    )


def _draw(units: list[Unit]) -> Figure:
    """A column for each unit: the maximum above, the best training image below."""
    figure = new_figure(2.2 * len(units), 4.9)
    above, below = figure.subplots(2, len(units))
    for top, bottom, unit in zip(above, below, units, strict=True):
        image(top, unit.maximum, title=f"{unit.name}\n{unit.reached:.2f}", limits=(-1, 1))
        image(bottom, unit.best, title=f"{unit.reached_by_best:.2f}", limits=(-1, 1))
    return figure
