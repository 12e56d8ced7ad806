"""Why images are read by convolutions: the weights of a neuron, and what happens when the image moves."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import BLUE, INK, ORANGE, image, new_figure
from course.page import Page
from course.training import Digits, accuracy, fit, load_digits
from jaxcnn import models, nn
from jaxcnn.analysis import count_parameters

SHIFTS = range(7)  # pixels; further out the feature maps would be cut at the edge of the canvas
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


class Anywhere(nnx.Module):
    """Three convolutions, and of each feature map only its largest value, wherever that is."""

    def __init__(self, *, rngs: nnx.Rngs):
        he = nnx.initializers.he_normal()
        self.convs = nnx.List(
            nn.Conv(channels_in, channels_out, window, padding=window // 2, kernel_init=he, rngs=rngs)
            for channels_in, channels_out, window in ((1, 8, 5), (8, 16, 5), (16, 64, 5))
        )
        self.output = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """The logits of images of any size."""
        for conv in self.convs[:2]:
            x = F.max_pool(nnx.relu(conv(x)), 2)
        return self.output(F.global_max_pool(nnx.relu(self.convs[2](x))))


def why_not_fully_connected(page: Page) -> None:
    """What a fully connected network pays for an image, and what it loses when the image moves."""
    page.title("Why not fully connected?", "왜 완전 연결 신경망을 쓰지 않을까?")
    page.say(
        """A neuron of a fully connected layer has a weight for every value of the image. For small images
        that is affordable; for those of ImageNet one neuron has 150,528 weights, and a layer needs many. The
        neuron of a convolution reads one window, and all positions share its weights, whatever the size
        of the image.""",
        """완전 연결층의 뉴런은 입력 이미지의 값 하나하나마다 가중치를 가진다. 작은 이미지라면 감당할
        만하지만, ImageNet 크기의 이미지에서는 뉴런 하나에만 가중치가 150,528개이고 한 층에는 이런 뉴런이
        많이 필요하다. 합성곱층의 뉴런은 창 하나만 들여다보며, 그 가중치를 모든 위치에서 함께 쓴다.
        그래서 이미지가 아무리 커도 가중치의 수는 그대로다.""",
    )
    for size, stated in ((32, 3_072), (224, 150_528)):
        one_neuron = models.MLP(hidden=(1,), input_size=(size, size), in_channels=3, rngs=nnx.Rngs(0))
        page.equal(f"{size}·{size}·3", one_neuron.hidden[0].kernel.size, stated)
    page.equal("5·5·3", nn.Conv(3, 1, 5, rngs=nnx.Rngs(0)).kernel.size, stated=75)

    page.say(
        """Three networks learn the same 1,437 handwritten digits, each drawn 16x16 in the middle of a canvas
        of 32x32: a fully connected one (MLP), LeNet-5 with about as many parameters, and a small CNN whose
        last feature maps go through a global max pooling (GMP). Then the 360 test digits are moved by a few
        pixels. The canvas is wide enough, so nothing is cut off, and no network has ever seen a shifted
        digit.""",
        """세 신경망에 똑같은 손글씨 숫자 1,437장을 학습시킨다. 숫자는 32x32 캔버스 한가운데에 16x16 크기로
        그렸다. 첫째는 완전 연결 신경망(MLP), 둘째는 매개변수 수가 비슷한 LeNet-5, 셋째는 마지막 특징 맵에
        전역 최대 풀링(GMP)을 하는 작은 CNN이다. 그런 다음 테스트용 숫자 360장을 몇 픽셀씩 옮겨 본다.
        캔버스가 넉넉하므로 잘려 나가는 부분은 없고, 어느 신경망도 옮겨진 숫자를 본 적이 없다.""",
    )
    train, test = load_digits()
    networks: dict[str, nnx.Module] = {
        "MLP": models.MLP(hidden=(64,), input_size=(32, 32), in_channels=1, rngs=nnx.Rngs(0)),
        "LeNet-5": models.LeNet5(rngs=nnx.Rngs(0)),
        "CNN + GMP": Anywhere(rngs=nnx.Rngs(0)),
    }
    reached = {name: _learn_and_move(model, train, test) for name, model in networks.items()}
    page.equal("MLP: (32·32 + 1)·64 + (64 + 1)·10", count_parameters(networks["MLP"]), stated=66_250)
    page.equal("LeNet-5: parameters", count_parameters(networks["LeNet-5"]), stated=61_706)
    page.table(
        ("network", "parameters", *(f"{shift} px" for shift in SHIFTS)),
        [
            (name, f"{count_parameters(networks[name]):,}", *(f"{share:.3f}" for share in shares))
            for name, shares in reached.items()
        ],
    )
    page.picture(
        "shifted_digits",
        _draw_digits(test),
        "Test digits on the canvas, moved to the right by 0, 1, 2, 3 and 6 pixels.",
        "캔버스에 놓인 테스트용 숫자를 오른쪽으로 0, 1, 2, 3, 6픽셀씩 옮긴 모습.",
    )
    page.at_least("MLP, 0 px", reached["MLP"][0], 0.88)
    page.at_least("LeNet-5, 0 px", reached["LeNet-5"][0], 0.92)
    page.at_most("MLP, 3 px", reached["MLP"][3], 0.4)
    page.at_most("LeNet-5, 3 px", reached["LeNet-5"][3], 0.4)
    page.at_least("CNN + GMP, 3 px", reached["CNN + GMP"][3], 0.8)
    page.say(
        """With about as many parameters LeNet-5 makes fewer mistakes than the MLP. But it falls as fast when
        the digits move, though it is often said that CNNs do not mind. A convolution is equivariant: when
        the digit moves, its feature maps move along, and nothing more. The dense layers behind
        them have a weight for each position, just as the MLP has. Only the pooling over all positions makes
        the answer invariant. What the third network still loses comes from its two 2x2 poolings: moved by 4
        pixels, the digit lies in their windows as before and the accuracy is back.""",
        """매개변수 수가 비슷해도 LeNet-5가 MLP보다 덜 틀린다. 하지만 숫자가 움직이면 LeNet-5도 MLP만큼
        빠르게 무너진다. CNN은 이동에 강하다고들 하지만 늘 그런 것은 아니다. 합성곱의 성질은 등변성이다.
        숫자가 움직이면 특징 맵도 따라 움직인다는 것, 거기까지만 보장한다. 그 뒤에 놓인 완전 연결층은 MLP와
        마찬가지로 위치마다 다른 가중치를 곱한다. 결과를 이동에 불변하게 만드는 것은 모든 위치를 한데
        모으는 풀링이다. 세 번째 신경망이 조금씩 잃는 정확도는 두 번의 2x2 풀링 때문이다. 4픽셀을 옮기면
        숫자가 풀링 창 안에서 다시 원래와 같은 자리에 놓이므로 정확도도 되돌아온다.""",
    )
    page.picture(
        "accuracy_against_shift",
        _draw_accuracy(reached),
        "Test accuracy against the shift in pixels, the mean over four directions; dotted: guessing.",
        """픽셀 단위의 이동 거리에 따른 테스트 정확도. 네 방향의 평균이며, 점선은 무작위로 찍었을 때의
        정확도이다.""",
    )


def _learn_and_move(model: nnx.Module, train: Digits, test: Digits) -> list[float]:
    """The test accuracy of the trained model for each shift, the mean over the four directions."""
    trained, _ = fit(model, _on_canvas(train), optax.adam(3e-3), steps=220)
    return [
        float(np.mean([accuracy(trained, _on_canvas(test, shift * dy, shift * dx)) for dy, dx in DIRECTIONS]))
        for shift in SHIFTS
    ]


def _on_canvas(digits: Digits, down: int = 0, right: int = 0) -> Digits:
    """The digits doubled to 16x16 on a canvas of 32x32, moved by so many pixels from its middle."""
    padding = ((8 + down, 8 - down), (8 + right, 8 - right))
    return digits._replace(images=F.pad(F.resize(digits.images, (16, 16)), padding))


def _draw_digits(test: Digits) -> Figure:
    """One row a digit, one column a shift."""
    examples = [int(jnp.argmax(test.labels == label)) for label in (3, 5, 8)]
    shifts = (0, 1, 2, 3, 6)
    figure = new_figure(9, 5.6)
    for j, shift in enumerate(shifts):
        moved = _on_canvas(test, 0, shift).images
        for i, example in enumerate(examples):
            axes = figure.add_subplot(len(examples), len(shifts), i * len(shifts) + j + 1)
            image(axes, moved[example, ..., 0], title=f"{shift} px" if i == 0 else "", limits=(0, 1))
            axes.axvline(16, color=ORANGE, linewidth=1)
    return figure


def _draw_accuracy(reached: dict[str, list[float]]) -> Figure:
    """A line for each network."""
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    for (name, shares), colour, marker in zip(reached.items(), ("#8a8a8a", BLUE, ORANGE), "s^o", strict=True):
        axes.plot(SHIFTS, shares, color=colour, marker=marker, linewidth=2)
        axes.annotate(
            name,
            (SHIFTS[-1], shares[-1]),
            xytext=(8, {"MLP": 5, "LeNet-5": -14}.get(name, -3)),
            textcoords="offset points",
            color=colour,
            fontsize=11,
        )
    axes.axhline(0.1, color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="px", ylabel="accuracy", xlim=(-0.2, 7.6), ylim=(0, 1.02), xticks=SHIFTS)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
