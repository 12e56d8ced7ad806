"""How networks became deep: shortcuts for the gradient, maps that are kept, small kernels in a row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import BLUE, ORANGE, new_figure, numbers, window
from course.page import Page
from jaxcnn import models, nn

DEPTH, CHANNELS = 50, 16


def plain_against_residual(page: Page) -> None:
    """What is left of the gradient fifty layers down, with and without a shortcut."""
    page.title("Plain against residual", "일반 신경망과 잔차 신경망")
    page.say(
        """Fifty 3x3 convolutions in a row, each behind a ReLU, with weights of variance 1 / fan-in. How
        much of the gradient that reaches the last layer arrives at the first? A ReLU lets half of it pass
        and the weights keep its size, so every layer multiplies the norm by about 1/√2 (somewhat less,
        because a part is lost in the padding): after 49 layers some billionths are left. In a residual
        network the derivative of x + f(x) is 1 + f'(x): the gradient also takes the shortcut, and does not
        vanish.""",
        """3x3 합성곱층을 50개 쌓는다. 층마다 ReLU를 먼저 거치고, 가중치의 분산은 1 / fan-in으로 둔다.
        마지막 층의 기울기 가운데 얼마가 첫 번째 층까지 전해질까? 가중치는 기울기의 크기를 유지하지만
        ReLU가 절반을 막으므로, 층 하나를 지날 때마다 노름에 약 1/√2이 곱해진다(패딩에서 일부를 잃으므로
        실제로는 이보다 조금 작다). 49개 층을 지나면 10억 분의 몇만 남는다. 잔차 신경망에서 x + f(x)의
        미분은 1 + f'(x)이다. 기울기가 지름길로도 그대로 흘러가므로 사라지지 않는다.""",
    )
    page.formula("plain: x ← f(x)        residual: x ← x + f(x)        f(x) = conv(ReLU(x))")
    lecun, he = nnx.initializers.lecun_normal(), nnx.initializers.he_normal()
    plain = _gradient_norms(lecun)
    residual = _gradient_norms(lecun, shortcut=True)
    plain_he = _gradient_norms(he)
    page.at_most("plain: |∂L/∂x(1)| / |∂L/∂x(50)|", plain[0], 1e-6)
    page.equal("plain: (|∂L/∂x(1)| / |∂L/∂x(50)|)^(1/49) ≈ 1/√2", plain[0] ** (1 / 49), 0.7, tolerance=0.08)
    page.at_least("residual: |∂L/∂x(1)| / |∂L/∂x(50)|", residual[0], 1)

    page.say(
        """Two other cures are older. He's weights, of variance 2 / fan-in, make up for the half that the
        ReLU takes: a few per cent are left. With batch normalisation in every layer the gradient of the
        plain network does not vanish either: it explodes, to thousands of times what it was. He et al.
        (2015) trained their plain networks with batch normalisation, and said that vanishing gradients
        were probably not why those with more layers were worse. And a bare shortcut is not enough: each
        sum adds to the variance, so the gradient grows. Both together, which is what a ResNet has, keep it
        within a factor of ten.""",
        """이보다 먼저 나온 해결책도 두 가지 있다. 하나는 분산을 2 / fan-in으로 두는 He 초기화이다. ReLU가
        막는 절반을 보충해 주므로 기울기가 몇 퍼센트는 남는다. 다른 하나는 배치 정규화이다. 층마다 배치
        정규화를 넣으면 일반 신경망에서도 기울기가 사라지지 않는다. 오히려 수천 배로 폭발한다. He
        등(2015)의 일반 신경망도 배치 정규화를 쓴 것이었고, 그래서 논문은 층을 늘릴 때 성능이 나빠지는
        원인이 기울기 소실은 아닐 것이라고 했다. 한편 잔차 연결만으로도 충분하지 않다. 더할 때마다 분산이
        커져서 기울기도 점점 커지기 때문이다. ResNet처럼 잔차 연결과 배치 정규화를 함께 쓰면 기울기의
        변화가 열 배 안팎에 머문다.""",
    )
    plain_norm = _gradient_norms(lecun, norm=True)
    residual_norm = _gradient_norms(lecun, norm=True, shortcut=True)
    page.at_least("plain, He: |∂L/∂x(1)| / |∂L/∂x(50)|", plain_he[0], 0.01)
    page.at_least("plain, BN: |∂L/∂x(1)| / |∂L/∂x(50)|", plain_norm[0], 100)
    page.at_least("residual, BN: |∂L/∂x(1)| / |∂L/∂x(50)|", residual_norm[0], 1)
    page.at_most("residual, BN: |∂L/∂x(1)| / |∂L/∂x(50)|", residual_norm[0], 20)
    page.picture(
        "plain_against_residual",
        _draw_gradients(
            {
                "f(x) = conv(ReLU(x))": {"plain": plain, "plain, He": plain_he, "residual": residual},
                "f(x) = conv(ReLU(BN(x)))": {"plain": plain_norm, "residual": residual_norm},
            }
        ),
        """The norm of the gradient at each layer, relative to the last, before any training. Logarithmic
        axis: each line of the grid is a factor of 100.""",
        """학습 전 각 층에 도달하는 기울기의 노름을 마지막 층에 대한 비로 나타낸 것. 로그 축이며, 눈금 한
        칸이 100배이다.""",
    )


def concatenation_against_addition(page: Page) -> None:
    """DenseNet's concatenation makes the maps more and more, ResNet's addition keeps their number."""
    page.title("Concatenation against addition", "이어 붙이기와 더하기")
    page.say(
        """A residual block adds its result to its input: both need the same number of channels, and the sum
        has it too. A layer of DenseNet puts its result beside its input instead: everything found so far
        stays as it is, and each layer reads all of it and adds only a few maps, the growth rate k. In the
        first dense block of DenseNet-121 there are 64 maps at first, and six layers with k = 32. Here the
        network runs, on an image.""",
        """잔차 블록은 결과를 입력에 더한다. 따라서 둘의 채널 수가 같아야 하고, 더한 결과의 채널 수도
        그대로이다. DenseNet의 층은 결과를 입력 옆에 이어 붙인다. 앞에서 찾은 특징이 그대로 남고, 층마다 그
        전부를 읽어 특징 맵을 몇 장씩만 보탠다. 이렇게 보태는 장수를 성장률 k라고 한다. DenseNet-121의 첫
        번째 밀집 블록은 특징 맵 64장에서 시작하며 k = 32인 층이 여섯 개 있다. 신경망에 이미지를 넣고
        실제로 확인해 보자.""",
    )
    page.formula("ResNet: x ← x + f(x)        DenseNet: x ← [x, f(x)]        c(l) = c(0) + k l")
    dense = _channels("densenet121", ("max_pool", "block1", "transition1"))
    residual = _channels("resnet18", ("max_pool", "layer1"))
    page.equal("DenseNet-121, c(0)", dense["max_pool"], stated=64)
    page.equal("64 + 6·32", dense["block1"], stated=256)
    page.equal("ResNet-18, c(0)", residual["max_pool"], stated=64)
    page.equal("ResNet-18, x + f(x)", residual["layer1"], stated=64)

    page.say(
        """So that it does not go on like this, a 1x1 convolution behind each block halves the number of maps:
        a weighted sum of 256 maps at each position, 128 times. A 1x1 convolution helps within the layers
        too. The last layer of DenseNet-121 reads 992 maps. Before its 3x3 convolution, a 1x1 reduces them to
        4 k = 128, and the layer has little more than half the weights.""",
        """채널이 끝없이 늘어나지 않도록 블록마다 뒤에 1x1 합성곱을 두어 채널 수를 반으로 줄인다. 위치마다
        특징 맵 256장의 가중합을 128가지로 구하는 것이다. 1x1 합성곱은 층 안에서도 쓰인다. DenseNet-121의
        마지막 층은 특징 맵 992장을 읽는데, 3x3 합성곱 앞에 1x1 합성곱을 두어 4 k = 128장으로 줄인다.
        그러면 가중치가 절반을 조금 넘는 수준으로 줄어든다.""",
    )
    page.equal("256 / 2", dense["transition1"], stated=128)
    network = _without_weights("densenet121")
    last = network.blocks[-1][-1]
    page.equal("1·1·256·128", network.transitions[0].conv.kernel.size, stated=32_768)
    page.equal("512 + 15·32", last.squeeze.conv.kernel.shape[-2], stated=992)
    page.equal(
        "1·1·992·128 + 3·3·128·32", last.squeeze.conv.kernel.size + last.grow.conv.kernel.size, stated=163_840
    )
    page.equal("3·3·992·32", F.conv_parameter_count(3, 992, 32, bias=False), stated=285_696)
    page.picture(
        "concatenation_against_addition",
        _draw_channels(),
        """The channels that each layer of DenseNet-121 reads (left) and each block of ResNet-34 gives
        (right). Where DenseNet drops a 1x1 convolution halves them; ResNet's grow only from one stage to
        the next.""",
        """왼쪽은 DenseNet-121의 각 층이 읽는 채널 수, 오른쪽은 ResNet-34의 각 블록이 내놓는 채널 수이다.
        DenseNet에서 뚝 떨어지는 곳이 1x1 합성곱으로 반을 줄인 자리이다. ResNet의 채널 수는 다음 단계로
        넘어갈 때만 늘어난다.""",
    )


def two_small_against_one_large(page: Page) -> None:
    """Two 3x3 convolutions see what one 5x5 sees, with fewer weights."""
    page.title("Two 3x3 against one 5x5", "3x3 두 번과 5x5 한 번")
    page.say(
        """One element behind two 3x3 convolutions depends on 5x5 pixels: 3, and one more on each side. It is
        measured here: with kernels full of ones, the gradient of the middle element counts on how many paths
        each pixel reaches it, and is 0 where there is none.""",
        """3x3 합성곱을 두 번 거친 값 하나는 픽셀 5x5개에 좌우된다. 3개에서 양쪽으로 하나씩 늘어나기
        때문이다. 실제로 재 보자. 커널을 모두 1로 채우고 가운데 값의 기울기를 구하면, 각 픽셀에서 그 값까지
        이르는 경로의 수가 나온다. 경로가 없는 픽셀의 기울기는 0이다.""",
    )
    page.formula("r = 1 + n (k - 1)")
    paths = {windows: _paths(windows) for windows in ((3, 3), (5,), (3, 3, 3), (7,))}
    for windows, expression, stated in (
        ((3, 3), "1 + 2·(3 - 1)", 5),
        ((5,), "1 + 1·(5 - 1)", 5),
        ((3, 3, 3), "1 + 3·(3 - 1)", 7),
        ((7,), "1 + 1·(7 - 1)", 7),
    ):
        page.equal(expression, int(np.any(paths[windows] > 0, axis=0).sum()), stated)
    page.picture(
        "two_small_against_one_large",
        _draw_paths(paths),
        """The paths from each pixel to the middle element; framed: the receptive field. Small kernels in a
        row favour its middle.""",
        """각 픽셀에서 가운데 값에 이르는 경로의 수. 테두리 안이 수용 영역이다. 작은 커널을 거듭하면 가운데
        픽셀의 영향이 커진다.""",
    )

    page.say(
        """What does it cost, with C channels everywhere? Two 3x3 kernels have 18 C² weights and one 5x5 has
        25 C²; three have 27 C² against the 49 C² of a 7x7. As many multiplications are saved at each
        position. And between the small ones there is room for another ReLU, so that together they
        are more than one linear filter. VGG is built on this argument.""",
        """비용은 어떨까? 채널 수가 어디서나 C라면 3x3 커널 둘의 가중치는 18 C²개, 5x5 하나는 25 C²개이다.
        3x3 셋은 27 C²개, 7x7 하나는 49 C²개이다. 위치마다 하는 곱셈도 같은 비율로 줄어든다. 게다가 작은
        합성곱 사이에는 ReLU를 한 번 더 넣을 수 있어서, 선형 필터 하나로는 나타낼 수 없는 것까지 나타낸다.
        VGG가 바로 이 생각으로 만든 신경망이다.""",
    )
    for windows, expression, stated in (
        ((3, 3), "2·3²·64² = 18·64²", 73_728),
        ((5,), "5²·64² = 25·64²", 102_400),
        ((3, 3, 3), "3·3²·64² = 27·64²", 110_592),
        ((7,), "7²·64² = 49·64²", 200_704),
    ):
        layers = [nn.Conv(64, 64, size, use_bias=False, rngs=nnx.Rngs(0)) for size in windows]
        page.equal(expression, sum(layer.kernel.size for layer in layers), stated)


def _gradient_norms(
    kernel_init: nnx.Initializer, *, shortcut: bool = False, norm: bool = False, seed: int = 0
) -> np.ndarray:
    """The norm of the gradient that reaches the input of each layer, divided by that of the last."""
    weights, images, target = jax.random.split(jax.random.key(seed), 3)
    shape = (8, 8, 8, CHANNELS)
    x, direction = jax.random.normal(images, shape), jax.random.normal(target, shape)
    kernels = [
        kernel_init(key, (3, 3, CHANNELS, CHANNELS), jnp.float32) for key in jax.random.split(weights, DEPTH)
    ]

    def loss(nudges: list[Array], kernels: list[Array], x: Array) -> Array:
        for nudge, kernel in zip(nudges, kernels, strict=True):
            x = x + nudge  # the gradient with respect to a nudge of zero is that which arrives here
            mean, variance, _ = F.batch_stats(x)
            y = F.conv(nnx.relu(F.batch_norm(x, mean, variance) if norm else x), kernel, padding=1)
            x = x + y if shortcut else y
        return jnp.sum(direction * x)

    gradients = jax.jit(jax.grad(loss))([jnp.zeros(shape)] * DEPTH, kernels, x)
    norms = np.array([float(jnp.linalg.norm(gradient.ravel())) for gradient in gradients])
    return norms / norms[-1]


def _channels(name: str, taps: tuple[str, ...]) -> dict[str, int]:
    """The channels of some stages of a network that runs on an image of noise."""

    @jax.jit  # so that only the layers up to the last tap are made and run
    def run(image: Array) -> dict[str, Array]:
        return models.create_model(name, rngs=nnx.Rngs(0)).features(image, taps)

    maps = run(jax.random.normal(jax.random.key(0), (1, 64, 48, 3)))
    return {tap: maps[tap].shape[-1] for tap in taps}


def _without_weights(name: str) -> Any:
    """A network whose weights are only shapes."""
    return nnx.eval_shape(lambda: models.create_model(name, rngs=nnx.Rngs(0)))


def _paths(windows: tuple[int, ...], pixels: int = 9) -> np.ndarray:
    """The gradient of the middle element behind convolutions with kernels of ones."""

    def middle(image: Array) -> Array:
        x = image[None, :, :, None]
        for size in windows:
            x = F.conv(x, jnp.ones((size, size, 1, 1)), padding=size // 2)
        return x[0, pixels // 2, pixels // 2, 0]

    return np.rint(np.asarray(jax.grad(middle)(jnp.ones((pixels, pixels)))))


def _draw_gradients(panels: dict[str, dict[str, np.ndarray]]) -> Figure:
    """A panel for each f, a line for each network."""
    styles = {"plain": (BLUE, "-"), "plain, He": (BLUE, "--"), "residual": (ORANGE, "-")}
    figure = new_figure(11, 4.4)
    grid = figure.subplots(1, 2, sharey=True)
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        for name, norms in lines.items():
            colour, style = styles[name]
            axes.semilogy(range(1, DEPTH + 1), norms, color=colour, linestyle=style, linewidth=2, label=name)
        axes.set(xlabel="layer", xticks=(1, 10, 20, 30, 40, 50), yticks=10.0 ** np.arange(-8, 5, 2))
        axes.set_title(title, fontsize=11)
        _plain(axes)
        axes.legend(frameon=False, loc="lower right")
    grid[0].set_ylabel(f"|∂L/∂x(l)| / |∂L/∂x({DEPTH})|")
    return figure


def _draw_channels() -> Figure:
    """The channels by layer of DenseNet-121, beside those by block of ResNet-34."""
    dense, residual = _without_weights("densenet121"), _without_weights("resnet34")
    panels = (
        [layer.squeeze.conv.kernel.shape[-2] for block in dense.blocks for layer in block],
        [block.branch[-1].conv.kernel.shape[-1] for stage in residual.layers for block in stage],
    )
    figure = new_figure(11, 3.9)
    grid = figure.subplots(1, 2, sharey=True)
    for axes, channels, colour in zip(grid, panels, (BLUE, ORANGE), strict=True):
        axes.bar(range(1, len(channels) + 1), channels, color=colour, width=0.8)
        axes.set(yticks=(64, 128, 256, 512, 1024), xlim=(0, len(channels) + 1))
        _plain(axes)
    grid[0].set_title("DenseNet-121: [x, f(x)]", fontsize=11)
    grid[0].set(xlabel="layer", ylabel="c", xticks=(1, 6, 18, 42, 58))
    grid[1].set_title("ResNet-34: x + f(x)", fontsize=11)
    grid[1].set(xlabel="block", xticks=(1, 3, 7, 13, 16))
    return figure


def _draw_paths(paths: dict[tuple[int, ...], np.ndarray]) -> Figure:
    """The paths from every pixel of a patch, the receptive field framed."""
    figure = new_figure(13, 3.6)
    for axes, (windows, count) in zip(figure.subplots(1, len(paths)), paths.items(), strict=True):
        numbers(axes, count, title=", ".join(f"{size}x{size}" for size in windows), size=7.5)
        rows, columns = (np.flatnonzero(count.any(axis)) for axis in (1, 0))
        window(axes, rows[0], columns[0], len(rows), len(columns))
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
