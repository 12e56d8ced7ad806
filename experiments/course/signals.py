"""Convolution and correlation by definition, and which of them a network computes."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import course.drawing as draw
import jaxcnn.functional as F
from course.page import Page


def two_signals(page: Page) -> None:
    """Convolution, cross-correlation and autocorrelation of two short signals, term by term."""
    page.title(
        "Convolution, cross-correlation and autocorrelation", "합성곱, 교차상관, 자기상관: 정의대로 계산하기"
    )
    page.say(
        """All three slide one signal along another, multiply what lies face to face, and add up the
        products. They differ in one point: convolution turns the sliding signal round first,
        cross-correlation leaves it as it is, and autocorrelation lets a signal slide along itself.""",
        """세 연산 모두 한 신호를 다른 신호 위로 밀면서 마주 보는 값끼리 곱해 더한다. 다른 점은
        하나뿐이다. 합성곱은 미는 신호를 먼저 뒤집고, 교차상관은 뒤집지 않으며, 자기상관은 신호를 자기
        자신 위로 민다.""",
    )
    page.formula(
        "convolution        (f * g)[n] = Σ f[k] g[n - k]    F.convolve(f, g)\n"
        "cross-correlation  (g ⋆ f)[n] = Σ g[k] f[k + n]    F.cross_correlate(f, g)\n"
        "autocorrelation    (f ⋆ f)[n] = Σ f[k] f[k + n]    F.autocorrelate(f)"
    )
    f, g = jnp.array([1.0, 2.0, 3.0, 1.0]), jnp.array([2.0, 1.0, -1.0])
    page.formula("f = (1, 2, 3, 1)    g = (2, 1, -1)")

    convolution = F.convolve(f, g)  # n = 0 ... 5
    page.equal("(f * g)[0] = 1·2", float(convolution[0]), stated=2)
    page.equal("(f * g)[1] = 1·1 + 2·2", float(convolution[1]), stated=5)
    page.equal("(f * g)[2] = 1·(-1) + 2·1 + 3·2", float(convolution[2]), stated=7)
    page.equal("(f * g)[3] = 2·(-1) + 3·1 + 1·2", float(convolution[3]), stated=3)
    page.equal("(f * g)[4] = 3·(-1) + 1·1", float(convolution[4]), stated=-2)
    page.equal("(f * g)[5] = 1·(-1)", float(convolution[5]), stated=-1)

    correlation = F.cross_correlate(f, g)  # n = -2 ... 3
    page.equal("(g ⋆ f)[-2] = (-1)·1", float(correlation[0]), stated=-1)
    page.equal("(g ⋆ f)[-1] = 1·1 + (-1)·2", float(correlation[1]), stated=-1)
    page.equal("(g ⋆ f)[0] = 2·1 + 1·2 + (-1)·3", float(correlation[2]), stated=1)
    page.equal("(g ⋆ f)[1] = 2·2 + 1·3 + (-1)·1", float(correlation[3]), stated=6)
    page.equal("(g ⋆ f)[2] = 2·3 + 1·1", float(correlation[4]), stated=7)
    page.equal("(g ⋆ f)[3] = 2·1", float(correlation[5]), stated=2)

    autocorrelation = F.autocorrelate(f)  # n = -3 ... 3
    page.equal("(f ⋆ f)[0] = 1² + 2² + 3² + 1²", float(autocorrelation[3]), stated=15)
    page.equal("(f ⋆ f)[1] = 1·2 + 2·3 + 3·1", float(autocorrelation[4]), stated=11)
    page.equal("(f ⋆ f)[2] = 1·3 + 2·1", float(autocorrelation[5]), stated=5)
    page.equal("(f ⋆ f)[3] = 1·1", float(autocorrelation[6]), stated=1)
    page.picture(
        "two_signals",
        _sliding_figure(np.asarray(f), np.asarray(g), convolution, correlation, autocorrelation),
        """f stands still on the top line; each line below it is one n, with its sum on the right.
        Convolution slides g turned round, cross-correlation slides g as it is.""",
        """맨 윗줄의 f는 그대로 두고 아래로 한 줄 내려갈 때마다 n이 하나씩 늘어난다. 오른쪽 끝이 그
        n에서의 합이다. 합성곱에서는 뒤집힌 g가, 교차상관에서는 원래의 g가 움직인다.""",
    )

    page.say(
        """Only convolution is commutative: it does not matter which of the two signals is turned round.
        Exchanging the two in a cross-correlation reverses the result: `(f ⋆ g)[n] = (g ⋆ f)[-n]`.
        Autocorrelation is therefore symmetric, and it is largest at n = 0, where every value meets
        itself: by the Cauchy-Schwarz inequality no other shift can give more than the energy Σ f².""",
        """교환법칙이 성립하는 것은 합성곱뿐이다. 어느 쪽을 뒤집어도 결과가 같다. 교차상관에서 두 신호를
        맞바꾸면 결과의 순서가 뒤집힌다. 즉 `(f ⋆ g)[n] = (g ⋆ f)[-n]`이다. 그래서 자기상관은 좌우
        대칭이고, 모든 값이 자기 자신과 만나는 n = 0에서 가장 크다. 코시-슈바르츠 부등식에 따라 얼마를
        밀든 에너지 Σ f²을 넘을 수 없다.""",
    )
    page.equal("max |(f * g) - (g * f)|", _gap(convolution, F.convolve(g, f)), stated=0)
    page.equal("max |(g ⋆ f) - (f ⋆ g)|", _gap(correlation, F.cross_correlate(g, f)), stated=8)
    page.equal("max |(g ⋆ f)[n] - (f ⋆ g)[-n]|", _gap(correlation, F.cross_correlate(g, f)[::-1]), stated=0)
    page.equal("max |(f ⋆ f)[n] - (f ⋆ f)[-n]|", _gap(autocorrelation, autocorrelation[::-1]), stated=0)
    page.equal("argmax of (f ⋆ f)", float(jnp.argmax(autocorrelation)) - 3, stated=0)


def which_one_networks_use(page: Page) -> None:
    """Deep learning's convolution is the cross-correlation, and learning does not mind."""
    page.title("Which of them does a network compute?", "딥러닝의 합성곱은 사실 교차상관이다")
    page.say(
        """A convolutional layer does not turn its kernel round: what every deep learning library calls
        convolution, `F.conv` included, is the cross-correlation. In two dimensions, turning round means
        by 180°, upside down and left to right. With the kernel turned beforehand, `F.conv` gives the
        convolution of mathematics.""",
        """합성곱층은 커널을 뒤집지 않는다. `F.conv`를 비롯해 딥러닝 라이브러리가 합성곱이라고 부르는 것은
        모두 교차상관이다. 2차원에서 뒤집는다는 것은 상하와 좌우를 모두 뒤집는 것, 즉 180° 돌리는 것이다.
        커널을 미리 뒤집어서 `F.conv`에 넣으면 수학에서 말하는 합성곱이 나온다.""",
    )
    page.formula(
        "F.conv       y[i, j] = Σ x[i + u, j + v] w[u, v]\n"
        "convolution  y[i, j] = Σ x[i - u, j - v] w[u, v]  =  F.conv(x, flip(w))"
    )
    x = jnp.array([[1, 0, 2, 1, 0], [0, 3, 1, 0, 2], [2, 1, 0, 1, 1], [0, 2, 1, 3, 0]], jnp.float32)
    w = jnp.array([[1, 2], [0, -1]], jnp.float32)
    as_it_is = F.conv(x[None, ..., None], w[..., None, None])[0, ..., 0]
    turned = F.conv(x[None, ..., None], jnp.flip(w)[..., None, None])[0, ..., 0]
    page.equal("F.conv(x, w)[0, 0] = 1·1 + 0·2 + 0·0 + 3·(-1)", float(as_it_is[0, 0]), stated=-2)
    page.equal("F.conv(x, flip(w))[0, 0] = 1·(-1) + 0·0 + 0·2 + 3·1", float(turned[0, 0]), stated=2)
    page.equal(
        "max |F.conv(x, w) - F.cross_correlate(x, w)|",
        _gap(as_it_is, F.cross_correlate(x, w, mode="valid")),
        stated=0,
    )
    page.equal(
        "max |F.conv(x, flip(w)) - F.convolve(x, w)|",
        _gap(turned, F.convolve(x, w, mode="valid")),
        stated=0,
    )
    page.picture(
        "flipped_kernel",
        _flip_figure(x, w, as_it_is, turned),
        """Above, F.conv with w as it is: the cross-correlation. Below, with w turned by 180°: the
        convolution. The frame is the window of the first result.""",
        """위는 w를 그대로 쓴 F.conv로, 교차상관이다. 아래는 w를 180° 돌린 것으로, 합성곱이다. 테두리는 첫
        번째 출력값을 계산하는 자리이다.""",
    )

    page.say(
        """Nobody misses the turn, because the kernel is learned. Let a layer imitate a true convolution
        with w from examples: gradient descent finds the kernel turned round, and the outputs are the
        same. Had the layer turned its kernel itself, it would have found w.""",
        """그래도 아무 문제가 없는 것은 커널을 학습하기 때문이다. w로 계산한 진짜 합성곱을 합성곱층이 흉내
        내도록 학습시키면, 경사 하강법은 뒤집힌 w를 찾아내고 출력은 똑같아진다. 층이 스스로 커널을
        뒤집었다면 w를 그대로 찾았을 것이다.""",
    )
    images = jax.random.normal(jax.random.key(0), (8, 12, 12))
    targets = jax.vmap(lambda image: F.convolve(image, w, mode="valid"))(images)

    @jax.jit
    def step(kernel):
        def loss(kernel):
            return jnp.mean((F.conv(images[..., None], kernel)[..., 0] - targets) ** 2)

        return kernel - 0.25 * jax.grad(loss)(kernel)

    learned = jnp.zeros((2, 2, 1, 1))
    for _ in range(50):
        learned = step(learned)
    learned = learned[..., 0, 0]
    page.equal("learned[0, 0] = w[1, 1]", float(learned[0, 0]), stated=-1, tolerance=1e-4)
    page.equal("learned[0, 1] = w[1, 0]", float(learned[0, 1]), stated=0, tolerance=1e-4)
    page.equal("learned[1, 0] = w[0, 1]", float(learned[1, 0]), stated=2, tolerance=1e-4)
    page.equal("learned[1, 1] = w[0, 0]", float(learned[1, 1]), stated=1, tolerance=1e-4)


def one_window_three_channels(page: Page) -> None:
    """What one number of a feature map is the sum of, and how the window moves on."""
    page.title("One window over three channels", "채널이 세 개일 때 창 하나에서 일어나는 계산")
    page.say(
        """An image has three channels, so a filter has three kernels, one for each. Every kernel is laid
        on its own channel, multiplied and summed; the three sums and one bias are added to a single
        number. A filter gives one feature map, however many channels it reads.""",
        """입력 이미지의 채널이 세 개이면 필터도 채널마다 하나씩, 커널 세 개로 이루어진다. 각 커널을 자기
        채널 위에 놓고 곱해서 더한 다음, 세 합과 편향 하나를 모두 더하면 숫자 하나가 나온다. 입력 채널이
        몇 개든 필터 하나에서 나오는 특징 맵은 하나이다.""",
    )
    page.formula("y[i, j] = b + Σ x[i + u, j + v, c] w[u, v, c]   (u, v = 0, 1, 2;  c = 0, 1, 2)")
    x, w = jnp.stack(CHANNELS, axis=-1)[None], jnp.stack(KERNELS, axis=-1)[..., None]
    each = [F.conv(x[..., c : c + 1], w[:, :, c : c + 1])[0, 0, 0, 0] for c in range(3)]
    page.equal("channel 1: 1·1 + 2·2 + 2·1", float(each[0]), stated=7)
    page.equal("channel 2: 3·2 + 2·3 + 3·1", float(each[1]), stated=15)
    page.equal("channel 3: 3·2 + 1·1 + 3·(-1)", float(each[2]), stated=4)
    page.equal("7 + 15 + 4", float(F.conv(x, w)[0, 0, 0, 0]), stated=26)
    page.equal("7 + 15 + 4 + 1", float(F.conv(x, w, jnp.array([1.0]))[0, 0, 0, 0]), stated=27)
    page.picture(
        "three_channels",
        _channels_figure([float(value) for value in each]),
        """Three channels with the window at their first place, the three kernels of one filter, the three
        sums, and the bias b = 1.""",
        """세 채널의 첫 번째 자리에 놓인 창과 필터 하나를 이루는 커널 세 개, 채널별 합, 그리고 편향 b = 1.""",
    )

    page.say(
        """Then the window moves on, by the stride, and the same kernel gives the next number: nine places
        in a 5x5 image, nine numbers.""",
        """그다음 창을 스트라이드만큼 옮겨 같은 커널로 다음 숫자를 계산한다. 5x5 이미지에는 창을 놓을
        자리가 아홉 곳이므로 숫자도 아홉 개가 나온다.""",
    )
    picture = jnp.array(
        [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]], jnp.float32
    )
    kernel = jnp.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], jnp.float32)
    y = F.conv(picture[None, ..., None], kernel[..., None, None])[0, ..., 0]
    for (i, j), stated in np.ndenumerate([[4, 3, 4], [2, 4, 3], [2, 3, 4]]):
        page.equal(f"y[{i}, {j}]", float(y[i, j]), stated=float(stated))
    page.picture(
        "sliding_kernel",
        _frames_figure(np.asarray(picture), np.asarray(kernel), np.asarray(y)),
        """Nine frames, k = 3 and s = 1: the window on the image, the kernel's weights small in its
        corners, and the output as far as it is known.""",
        """k = 3, s = 1일 때의 아홉 장면. 이미지 위에 놓인 창과 각 칸 구석에 작게 적힌 커널의 가중치,
        그리고 그때까지 채워진 출력이다.""",
    )


CHANNELS = [
    jnp.array([[1, 0, 2, 1], [0, 2, 1, 0], [2, 1, 0, 3], [1, 0, 2, 1]], jnp.float32),
    jnp.array([[0, 3, 1, 2], [2, 1, 0, 0], [1, 0, 3, 1], [0, 2, 1, 1]], jnp.float32),
    jnp.array([[3, 1, 0, 1], [0, 1, 2, 0], [1, 2, 3, 0], [1, 1, 0, 2]], jnp.float32),
]
KERNELS = [
    jnp.array([[1, 0, 0], [0, 2, 0], [1, 0, 0]], jnp.float32),
    jnp.array([[0, 2, 0], [3, 0, 0], [0, 0, 1]], jnp.float32),
    jnp.array([[2, 0, 0], [0, 1, 0], [0, 0, -1]], jnp.float32),
]


def _gap(one: ArrayLike, other: ArrayLike) -> float:
    return float(jnp.max(jnp.abs(jnp.asarray(one) - jnp.asarray(other))))


def _sliding_figure(f: np.ndarray, g: np.ndarray, *sums_of_each: Array) -> Figure:
    figure = draw.new_figure(12.5, 5.8)
    above, below = figure.subplots(2, 3, height_ratios=(2, 1))
    cases = [
        (r"$(f * g)[n] = \sum f[k]\, g[n-k]$", g[::-1], 0),
        (r"$(g \star f)[n] = \sum g[k]\, f[k+n]$", g, 1 - len(g)),
        (r"$(f \star f)[n] = \sum f[k]\, f[k+n]$", f, 1 - len(f)),
    ]
    for top, bottom, (title, sliding, first), each in zip(above, below, cases, sums_of_each, strict=True):
        sums = np.asarray(each)
        _staircase(top, f, sliding, first, sums)
        top.set_title(title, fontsize=13)
        n = np.arange(len(sums)) + first
        bottom.axhline(0, color=draw.EDGE, linewidth=1)
        bottom.stem(n, sums, linefmt=draw.BLUE, basefmt=" ")
        for place, value in zip(n, sums, strict=True):
            above_or_below = 8 if value >= 0 else -16
            bottom.annotate(
                f"{value:g}", (place, value), (0, above_or_below), textcoords="offset points", ha="center"
            )
        bottom.set(xlabel="n", xticks=n, ylim=(-7, 19))
        bottom.spines[["top", "right"]].set_visible(False)
    return figure


def _staircase(axes: Axes, f: np.ndarray, sliding: np.ndarray, first: int, sums: np.ndarray) -> None:
    """The signal on top, below it the sliding one at every n, and the sum of the products beside it."""
    margin = len(sliding) - 1
    places = len(sums)
    grid = np.full((places + 1, places + margin), np.nan)
    grid[0, margin : margin + len(f)] = f
    for n in range(places):
        grid[n + 1, n : n + len(sliding)] = sliding
    draw.numbers(axes, grid, size=10)
    draw.window(axes, 0, margin, 1, len(f), colour=draw.BLUE)
    for column in (margin, margin + len(f)):
        axes.plot([column, column], [1, places + 1], color=draw.BLUE, linewidth=0.9, linestyle=":", zorder=0)
    for n, value in enumerate(sums):
        axes.text(-0.4, n + 1.5, f"n = {n + first}", ha="right", va="center", fontsize=9)
        axes.text(places + margin + 0.4, n + 1.5, f"{value:g}", va="center", fontsize=12, fontweight="bold")
    axes.text(-0.4, 0.5, "f", ha="right", va="center", fontsize=11)
    axes.text(places + margin + 0.4, 0.5, r"$\Sigma$", va="center", fontsize=12)
    axes.set_xlim(-2.6, places + margin + 1.8)


def _flip_figure(x: ArrayLike, w: ArrayLike, as_it_is: ArrayLike, turned: ArrayLike) -> Figure:
    figure = draw.new_figure(9.6, 6.2)
    rows = figure.subplots(2, 5, width_ratios=(5, 0.8, 2, 0.8, 4))
    lines = [
        (w, as_it_is, "w", r"cross-correlation  $w \star x$"),
        (np.flip(np.asarray(w)), turned, "flip(w)", r"convolution  $w * x$"),
    ]
    for row, (kernel, y, name, title) in zip(rows, lines, strict=True):
        draw.numbers(row[0], x, title="x")
        draw.window(row[0], 0, 0, 2, 2)
        draw.sign(row[1], r"$\star$")
        draw.numbers(row[2], kernel, title=name)
        draw.window(row[2], 0, 0, 2, 2)
        draw.sign(row[3], "=")
        draw.numbers(row[4], y, title=title)
        draw.window(row[4], 0, 0, 1, 1)
    return figure


def _channels_figure(sums: list[float]) -> Figure:
    figure = draw.new_figure(9.6, 7.4)
    rows = figure.subplots(3, 6, width_ratios=(4.2, 0.7, 3.2, 0.7, 1.2, 3))
    for c, row in enumerate(rows):
        draw.numbers(row[0], CHANNELS[c], title=f"x[:, :, {c}]", largest=4)
        draw.window(row[0], 0, 0, 3, 3)
        draw.sign(row[1], r"$\odot$")
        draw.numbers(row[2], KERNELS[c], title=f"w[:, :, {c}]", largest=4)
        row[2].set_ylim(3.6, -0.6)  # squares as large as those of x
        draw.sign(row[3], r"$\Sigma$ =")
        draw.sign(row[4], f"{sums[c]:g}", size=26)
        draw.blank(row[5])
    sum_of_all = f"{' + '.join(f'{value:g}' for value in sums)} = {sum(sums):g}"
    draw.sign(rows[1, 5], f"{sum_of_all}\n\n{sum(sums):g} + b = {sum(sums) + 1:g}", size=15)
    return figure


def _frames_figure(x: np.ndarray, kernel: np.ndarray, y: np.ndarray) -> Figure:
    figure = draw.new_figure(12, 8.2)
    frames = figure.subplots(3, 6, width_ratios=(5, 3) * 3)
    known = np.full(y.shape, np.nan)
    for number, (i, j) in enumerate(product(range(3), range(3))):
        left, right = frames[i, 2 * j], frames[i, 2 * j + 1]
        known[i, j] = y[i, j]
        draw.numbers(left, x, title=f"{number + 1}", largest=3)
        draw.window(left, i, j, 3, 3)
        for (a, b), weight in np.ndenumerate(kernel):
            left.text(
                j + b + 0.97,
                i + a + 0.95,
                f"×{weight:g}",
                ha="right",
                va="bottom",
                fontsize=6.5,
                color=draw.ORANGE,
            )
        draw.numbers(right, np.zeros(y.shape), text="")
        draw.numbers(right, known, title="y", largest=8)
        draw.window(right, i, j, 1, 1)
    return figure
