"""Output sizes and padding."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import course.drawing as draw
import jaxcnn.functional as F
from course.page import Page
from jaxcnn import nn


def output_sizes(page: Page) -> None:
    """How large the output of a convolution and of a pooling is."""
    page.title("How large is the output?", "출력의 크기는 어떻게 정해질까?")
    page.say(
        """A window of k elements has its first place at the left end of the padded input and moves on by
        the stride s as long as it fits. Counting its places gives the size of the output; the brackets
        round down.""",
        """크기가 k인 창은 패딩을 더한 입력의 왼쪽 끝에서 출발하여, 입력을 벗어나지 않는 동안 스트라이드
        s만큼씩 옮겨 간다. 창이 놓이는 자리의 수가 곧 출력의 크기이다. ⌊ ⌋는 소수점 아래를 버린다는
        뜻이다.""",
    )
    page.formula("O = ⌊(I + 2p - k) / s⌋ + 1        F.output_size(I, k, stride=s, padding=p)")
    page.say("A 3x3 kernel on a 7x7 image:", "7x7 이미지에 3x3 커널을 쓰면 다음과 같다.")
    image, kernel = jnp.ones((1, 7, 7, 1)), jnp.ones((3, 3, 1, 1))
    page.equal("(7 - 3) / 1 + 1", _side(F.conv(image, kernel, stride=1)), stated=5)
    page.equal("(7 - 3) / 2 + 1", _side(F.conv(image, kernel, stride=2)), stated=3)
    page.equal("(7 + 2·1 - 3) / 1 + 1", _side(F.conv(image, kernel, padding=1)), stated=7)

    page.say(
        """Stride 3 does not fit: the formula without its brackets gives 2.33. The window finds two
        places, and the last row and column are read by nobody. The course refuses such a stride, and so
        does `exact=True`; without it the size is rounded down in silence, as in PyTorch.""",
        """스트라이드 3은 맞지 않는다. 버림을 하지 않으면 2.33이 나온다. 창은 두 자리에만 놓이고, 마지막
        행과 열은 어느 창에도 들어가지 않는다. 강의에서는 이런 스트라이드를 쓸 수 없다고 하는데, jaxcnn도
        `exact=True`를 주면 오류를 낸다. 주지 않으면 PyTorch처럼 말없이 소수점 아래를 버린다.""",
    )
    page.equal("(7 - 3) / 3 + 1", (image.shape[1] - kernel.shape[0]) / 3 + 1, stated=2.33, tolerance=0.005)
    page.equal("⌊(7 - 3) / 3⌋ + 1", _side(F.conv(image, kernel, stride=3)), stated=2)
    influence = jax.grad(lambda x: F.conv(x, kernel, stride=3).sum())(image)
    page.equal("7 - 2·3", float((influence.sum((0, 1, 3)) == 0).sum()), stated=1)
    page.formula(f"F.output_size(7, 3, stride=3, exact=True)\n{_refusal(7, 3, stride=3)}")
    page.picture(
        "output_sizes",
        _strides_figure(),
        """Seven elements and every place of a window of three. Stride 3 leaves the last element unread:
        its third window would hang over the edge. One element of padding on both sides gives seven
        places.""",
        """원소 일곱 개와, 크기 3인 창이 놓이는 모든 자리. 스트라이드가 3이면 세 번째 창이 밖으로 나가므로
        마지막 원소는 읽히지 않는다. 양쪽에 하나씩 패딩을 더하면 자리가 일곱 곳이 된다.""",
    )

    page.say(
        """A 3x3 kernel with stride 1 and padding 1 keeps every size; in general p = (k - 1) / 2 does, for
        odd k.""",
        """3x3 커널에 스트라이드 1, 패딩 1을 쓰면 크기가 그대로 유지된다. 일반적으로 k가 홀수일 때 p = (k
        - 1) / 2이면 크기가 변하지 않는다.""",
    )
    for size in (28, 56, 224):
        page.equal(f"({size} + 2·1 - 3) / 1 + 1", F.output_size(size, 3, padding=1), stated=size)
    page.equal("(28 + 2·2 - 5) / 1 + 1", F.output_size(28, 5, padding=2), stated=28)

    page.say(
        "A filter spans all channels and gives one map. N filters on 28x28x1 give 26x26xN, here with N = 16.",
        """필터 하나는 입력의 모든 채널을 덮고 특징 맵 하나를 낸다. 28x28x1에 필터 N개를 쓰면 26x26xN이
        된다. 여기서는 N = 16이다.""",
    )
    maps = nn.Conv(1, 16, 3, rngs=nnx.Rngs(0))(jnp.zeros((1, 28, 28, 1)))
    page.equal("(28 - 3) / 1 + 1", _side(maps), stated=26)
    page.equal("N", maps.shape[-1], stated=16)

    page.say(
        """Ten 5x5 filters with padding 2 on 32x32x3. A filter is three channels deep, so it has 5·5·3 =
        75 weights, and a bias.""",
        """32x32x3에 5x5 필터 열 개를 패딩 2로 쓴다. 필터의 깊이는 입력 채널 수와 같은 3이므로 필터 하나의
        가중치는 5·5·3 = 75개이고, 여기에 편향이 하나씩 붙는다.""",
    )
    layer = nn.Conv(3, 10, 5, padding=2, rngs=nnx.Rngs(0))
    maps = layer(jnp.zeros((1, 32, 32, 3)))
    page.equal("(32 + 2·2 - 5) / 1 + 1", _side(maps), stated=32)
    page.equal("filters", maps.shape[-1], stated=10)
    page.equal("5·5·3·10", layer.kernel[...].size, stated=750)
    page.equal("(5·5·3 + 1)·10", sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer))), stated=760)

    page.say(
        """Pooling follows the same formula and leaves the channels alone. With a 2x2 window and stride 2,
        height and width are halved.""",
        """풀링의 출력 크기도 같은 공식으로 구하며 채널 수는 변하지 않는다. 2x2 창에 스트라이드가 2이면
        높이와 너비가 반으로 줄어든다.""",
    )
    pooled = F.max_pool(jnp.zeros((1, 224, 224, 64)), 2)
    page.equal("(224 - 2) / 2 + 1", _side(pooled), stated=112)
    page.equal("channels, pooled", pooled.shape[-1], stated=64)

    page.say(
        """A 26x26 map is pooled to 5x5 by a 5x5 window with stride 5, which leaves the last row and
        column unread. A 6x6 window with stride 5 reads everything, and that is what adaptive pooling,
        asked for 5x5, chooses by itself.""",
        """26x26 특징 맵은 5x5 창, 스트라이드 5로 풀링하면 5x5가 되지만 마지막 행과 열이 남는다. 6x6 창에
        스트라이드 5이면 빠짐없이 읽는다. 출력 크기를 5x5로 지정한 적응형(adaptive) 풀링도 바로 이 창을
        고른다.""",
    )
    maps = jax.random.normal(jax.random.key(0), (1, 26, 26, 4))
    page.equal("⌊(26 - 5) / 5⌋ + 1", _side(F.max_pool(maps, 5)), stated=5)
    page.equal("(26 - 6) / 5 + 1", _side(F.max_pool(maps, 6, stride=5)), stated=5)
    adaptive = F.adaptive_max_pool(maps, 5)
    page.equal("adaptive", _side(adaptive), stated=5)
    difference = jnp.abs(adaptive - F.max_pool(maps, 6, stride=5)).max()
    page.equal("max |adaptive - (k = 6, s = 5)|", float(difference), stated=0)


def padding_kinds(page: Page) -> None:
    """How much to pad, and with what."""
    page.title("How much padding, and of what?", "패딩은 얼마나, 무엇으로 채울까?")
    page.say(
        """Three amounts have names. Valid adds nothing, and the window stays on the image. Same adds what
        keeps the size. Full adds so much that the window touches the image with one corner only: every
        place where the two overlap.""",
        """패딩의 양에는 세 가지 이름이 있다. valid는 아무것도 더하지 않아 창이 이미지 안에만 놓인다.
        same은 출력 크기가 입력과 같아지는 만큼 더한다. full은 창이 한 귀퉁이만 걸쳐도 되도록, 즉
        조금이라도 겹치는 자리를 모두 쓰도록 더한다.""",
    )
    page.formula(
        "valid  p = 0            O = I - k + 1\n"
        "same   p = (k - 1) / 2  O = I\n"
        "full   p = k - 1        O = I + k - 1"
    )
    image, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))
    page.equal("valid: 5 - 3 + 1", _side(F.conv(image, kernel, padding="VALID")), stated=3)
    page.equal("same: 5 + 2·1 - 3 + 1", _side(F.conv(image, kernel, padding="SAME")), stated=5)
    page.equal("full: 5 + 2·2 - 3 + 1", _side(F.conv(image, kernel, padding=2)), stated=7)
    page.picture(
        "padding_amounts",
        _amounts_figure(),
        """I = 5, k = 3. The blue square is the image, grey is padding; the frames are the first and the
        last place of the window.""",
        """I = 5, k = 3. 파란 부분이 이미지, 회색이 패딩이고, 테두리는 창의 첫 자리와 마지막 자리이다.""",
    )

    page.say(
        """What is added is a choice, too. Zeros are the rule and cost nothing, but they draw a dark frame
        round the image. Reflect mirrors the image at its outermost elements, replicate repeats those, and
        circular goes on at the opposite side, as on a torus.""",
        """무엇으로 채울지도 정해야 한다. 보통은 0으로 채우며 따로 드는 비용이 없지만, 이미지에 검은
        테두리를 두르는 셈이 된다. reflect는 가장자리 원소를 축으로 이미지를 거울처럼 비추고, replicate는
        가장자리 값을 되풀이하며, circular는 도넛 표면처럼 반대쪽 끝에서 이어진다.""",
    )
    row = jnp.array([1.0, 2.0, 3.0, 4.0])
    page.formula(
        "\n".join(
            f"{name:<10} {left} | {middle} | {right}"
            for name, mode in MODES.items()
            for left, middle, right in [_parts(F.pad(row[None, :, None], ((2, 2),), mode=mode)[0, :, 0])]
        )
    )
    padded = {name: F.pad(MATRIX[None, ..., None], 2, mode=mode)[0, ..., 0] for name, mode in MODES.items()}
    page.equal("zeros: y[0, 0]", float(padded["zeros"][0, 0]), stated=0)
    page.equal("reflect: y[0, 0] = x[2, 2]", float(padded["reflect"][0, 0]), stated=11)
    page.equal("replicate: y[0, 0] = x[0, 0]", float(padded["replicate"][0, 0]), stated=1)
    page.equal("circular: y[0, 0] = x[1, 2]", float(padded["circular"][0, 0]), stated=7)
    page.picture(
        "padding_kinds",
        _kinds_figure(padded),
        "p = 2. The frame is the image of 3 x 4 elements; around it, in grey, what each mode adds.",
        "p = 2. 테두리 안이 3 x 4 이미지이고, 회색은 각 방식이 채운 값이다.",
    )


MODES = {"zeros": "zeros", "reflect": "reflect", "replicate": "edge", "circular": "circular"}
MATRIX = jnp.arange(1.0, 13.0).reshape(3, 4)


def _side(maps: Array) -> int:
    """Height and width, which are equal in this lesson."""
    height, width = maps.shape[1:3]
    if height != width:
        raise ValueError(f"_side: expected a square map, got {maps.shape}")
    return height


def _refusal(size: int, window: int, *, stride: int) -> str:
    """The error with which a stride that does not fit is refused."""
    try:
        fits = F.output_size(size, window, stride=stride, exact=True)
    except ValueError as error:
        return f"ValueError: {error}"
    return f"{fits}"


def _parts(padded: Array) -> list[str]:
    cells = [f"{value:g}" for value in padded]
    return [" ".join(part) for part in (cells[:2], cells[2:-2], cells[-2:])]


def _strides_figure() -> Figure:
    figure = draw.new_figure(11, 5.4)
    panels = figure.subplots(2, 2).ravel()
    for axes, (stride, padding) in zip(panels, [(1, 0), (2, 0), (3, 0), (1, 1)], strict=True):
        _places(axes, 7, 3, stride, padding)
    return figure


def _places(axes: Axes, size: int, window: int, stride: int, padding: int) -> None:
    """One axis of the image, and below it every window, each on a line of its own."""
    elements = np.full(size + 2 * padding, np.nan)
    elements[:padding] = elements[padding + size :] = 0
    elements[padding : padding + size] = np.arange(1, size + 1)
    cells = np.stack([np.full(len(elements), np.nan), elements, np.full(len(elements), np.nan)])
    draw.numbers(axes, cells[1:2], largest=2.5 * size)
    for column in (*range(padding), *range(padding + size, len(elements))):
        axes.add_patch(Rectangle((column, 0), 1, 1, facecolor=draw.PADDING, edgecolor=draw.EDGE))
        axes.text(column + 0.5, 0.5, "0", ha="center", va="center", color="#888888", fontsize=11)
    count = F.output_size(size, window, stride=stride, padding=padding)
    for number in range(count):
        first = number * stride
        bar = Rectangle(
            (first + 0.08, 1.25 + 0.62 * number), window - 0.16, 0.46, facecolor=draw.BLUE, alpha=0.75
        )
        axes.add_patch(bar)
        axes.text(
            first + window / 2, 1.48 + 0.62 * number, f"{number + 1}", ha="center", va="center", color="white"
        )
    exact = (size + 2 * padding - window) / stride + 1
    if exact != count:
        beyond = (count * stride + 0.08, 1.25 + 0.62 * count)
        axes.add_patch(
            Rectangle(beyond, window - 0.16, 0.46, fill=False, edgecolor=draw.ORANGE, linestyle="--")
        )
        axes.text(
            count * stride + window / 2, beyond[1] + 0.23, "?", ha="center", va="center", color=draw.ORANGE
        )
        draw.window(axes, 0, size - 1, 1, 1)
    axes.set(xlim=(-0.3, 9.3), ylim=(6.1, -0.2))
    answer = f"{count}" if exact == count else f"{exact:.2f}"
    axes.set_title(
        f"I = {size}, k = {window}, s = {stride}, p = {padding}:  O = {answer}", fontsize=11, loc="left"
    )


def _amounts_figure() -> Figure:
    figure = draw.new_figure(11, 4.2)
    for axes, (name, padding) in zip(
        draw.in_a_row(figure, (9, 9, 9)), {"valid": 0, "same": 1, "full": 2}.items(), strict=True
    ):
        size = 5 + 2 * padding
        grid = np.zeros((size, size))
        grid[padding : padding + 5, padding : padding + 5] = 1
        draw.numbers(axes, grid, largest=2, padding=padding, text="")
        draw.window(axes, 0, 0, 3, 3)
        draw.window(axes, size - 3, size - 3, 3, 3, dashed=True)
        axes.set(xlim=(padding - 2.1, padding + 7.1), ylim=(padding + 7.1, padding - 2.1))
        draw.blank(axes, f"{name}: p = {padding}, O = {size - 2}")
    return figure


def _kinds_figure(padded: dict[str, Array]) -> Figure:
    figure = draw.new_figure(9.6, 8.2)
    for axes, (name, matrix) in zip(figure.subplots(2, 2).ravel(), padded.items(), strict=True):
        draw.numbers(axes, matrix, title=name, padding=2)
        draw.window(axes, 2, 2, *MATRIX.shape)
    return figure
