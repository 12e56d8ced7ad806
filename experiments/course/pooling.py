"""Pooling: what it keeps, what it filters out, and what it replaces at the end of a network."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from matplotlib.figure import Figure

import course.drawing as draw
import jaxcnn.functional as F
from course.page import Page
from jaxcnn import nn


def max_and_average(page: Page) -> None:
    """The two poolings on a matrix that can be worked out by hand."""
    page.title("Max pooling and average pooling", "최대 풀링과 평균 풀링")
    page.say(
        """A pooling window covers a part of one map and leaves a single number of it: the largest value,
        or the mean. It works on every channel by itself and has nothing to learn.""",
        """풀링은 특징 맵의 일부를 창으로 덮고 숫자 하나만 남긴다. 가장 큰 값을 남기면 최대 풀링, 평균을
        남기면 평균 풀링이다. 채널마다 따로 계산하며, 학습할 매개변수가 없다.""",
    )
    x = jnp.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], jnp.float32)
    largest = F.max_pool(x[None, ..., None], 2)[0, ..., 0]
    mean = F.avg_pool(x[None, ..., None], 2)[0, ..., 0]
    page.equal("max(1, 1, 5, 6)", float(largest[0, 0]), stated=6)
    page.equal("max(2, 4, 7, 8)", float(largest[0, 1]), stated=8)
    page.equal("max(3, 2, 1, 2)", float(largest[1, 0]), stated=3)
    page.equal("max(1, 0, 3, 4)", float(largest[1, 1]), stated=4)
    page.equal("(1 + 1 + 5 + 6) / 4", float(mean[0, 0]), stated=3.25)
    page.equal("(2 + 4 + 7 + 8) / 4", float(mean[0, 1]), stated=5.25)
    page.equal("(3 + 2 + 1 + 2) / 4", float(mean[1, 0]), stated=2)
    page.equal("(1 + 0 + 3 + 4) / 4", float(mean[1, 1]), stated=2)
    page.equal("parameters of nn.MaxPool(2)", _parameters(nn.MaxPool(2)), stated=0)
    page.equal("parameters of nn.AvgPool(2)", _parameters(nn.AvgPool(2)), stated=0)

    page.say(
        """Backwards the two differ as well. The gradient of max pooling goes to the winner of each window
        alone; average pooling shares it out, a quarter to each of four.""",
        """역전파에서도 다르다. 최대 풀링의 기울기는 각 창에서 뽑힌 원소에만 그대로 전달되고, 평균 풀링의
        기울기는 네 원소에 4분의 1씩 똑같이 나뉜다.""",
    )
    to_winner = jax.grad(lambda x: F.max_pool(x[None, ..., None], 2).sum())(x)
    shared = jax.grad(lambda x: F.avg_pool(x[None, ..., None], 2).sum())(x)
    page.equal("max: ∂y / ∂x[1, 1]  (x = 6)", float(to_winner[1, 1]), stated=1)
    page.equal("max: ∂y / ∂x[1, 0]  (x = 5)", float(to_winner[1, 0]), stated=0)
    page.equal("avg: ∂y / ∂x[1, 1]", float(shared[1, 1]), stated=0.25)
    page.picture(
        "max_and_average",
        _pooling_figure(x, [("max", largest, to_winner), ("avg", mean, shared)]),
        "2x2 windows with stride 2, the largest and the mean of each, and where the gradient of y goes.",
        "2x2 창, 스트라이드 2. 창마다 최댓값과 평균을 구한 결과와, 각 원소로 흘러가는 y의 기울기이다.",
    )


def aliasing(page: Page) -> None:
    """Why a map must be smoothed before elements are left out."""
    page.title("Pooling as a low-pass filter", "저역 통과 필터로서의 풀링과 에일리어싱")
    page.say(
        """To keep every fourth element only, which is what stride 4 does, is to sample more coarsely. A
        pattern finer than two of the new elements can then no longer be shown; it does not vanish, but
        comes back as a coarse pattern that was never there. This is aliasing. A cosine with 60 periods in
        256 elements has only 64 samples left: it looks exactly like one with 64 - 60 = 4 periods, at full
        strength.""",
        """스트라이드 4처럼 네 개마다 하나씩만 남기는 것은 더 성기게 표본을 뽑는 일이다. 그러면 새 간격의
        두 배보다 촘촘한 무늬는 제대로 나타낼 수 없다. 문제는 이런 무늬가 사라지는 것이 아니라, 원래 없던
        굵은 무늬로 둔갑해 나타난다는 점이다. 이를 에일리어싱이라 한다. 원소 256개 안에서 60번 진동하는
        코사인은 표본이 64개만 남으면 64 - 60 = 4번 진동하는 코사인과 구별할 수 없으며, 진폭도 그대로이다.""",
    )
    page.formula("|H(f)| = |sin(π k f) / (k sin(π f))|        k = 4, f = 60 / 256")
    cosine = jnp.cos(2 * jnp.pi * 60 * jnp.arange(256.0) / 256)[None, :, None]
    around = F.pad(cosine, ((0, 3),), mode="circular")  # a full window at every element
    subsampled = cosine[:, ::4]
    averaged = F.avg_pool(cosine, (4,))
    twice = F.avg_pool(F.avg_pool(around, (4,), stride=1), (4,))
    maximum = F.max_pool(cosine, (4,))
    response = float(abs(np.sin(np.pi * 4 * 60 / 256) / (4 * np.sin(np.pi * 60 / 256))))
    page.equal("x[::4]: periods", _strongest(subsampled), stated=4)
    page.equal("x[::4]: amplitude", _amplitude(subsampled, 4), stated=1, tolerance=1e-4)
    page.equal("avg: amplitude = |H(60 / 256)|", _amplitude(averaged, 4), stated=response, tolerance=1e-4)
    page.equal("avg, avg: amplitude = |H|²", _amplitude(twice, 4), stated=response**2, tolerance=1e-4)

    page.say(
        """Average pooling takes the mean first, which is a low-pass filter: only 7% of the false pattern
        is left, and half a per cent when it is averaged twice. A slow cosine of 4 periods passes almost
        unharmed. Max pooling is no such filter: what it gives of the fast cosine still swings. Zhang
        (2019) therefore blurs behind max pooling, and networks become steadier under shifts of the image.""",
        """평균 풀링은 표본을 뽑기 전에 평균을 내므로 저역 통과 필터 역할을 한다. 가짜 무늬는 7%만 남고,
        평균을 두 번 내면 0.5%로 줄어든다. 4번 진동하는 느린 코사인은 거의 그대로 통과한다. 최대 풀링은
        이런 필터가 아니어서 빠른 코사인을 넣으면 출력이 여전히 출렁인다. 그래서 Zhang(2019)은 최대 풀링
        뒤에 블러(blur) 필터를 넣었고, 그 결과 이미지를 조금 옮겨도 신경망의 출력이 덜 흔들리게 되었다.""",
    )
    slow = F.avg_pool(jnp.cos(2 * jnp.pi * 4 * jnp.arange(256.0) / 256)[None, :, None], (4,))
    page.at_most("avg: amplitude, 60 periods", _amplitude(averaged, 4), 0.08)
    page.at_least("avg: amplitude, 4 periods", _amplitude(slow, 4), 0.99)
    page.at_least("max: largest - smallest, 60 periods", float(maximum.max() - maximum.min()), 0.25)
    page.picture(
        "low_pass",
        _signals_figure(cosine, subsampled, averaged, twice),
        """Left: 60 periods, and what is left of them with s = 4. Right: how much of each frequency the
        mean of k elements lets through; everything right of the dotted line, 1 / (2s) for s = 4, turns
        into a false pattern.""",
        """왼쪽: 60번 진동하는 신호와, s = 4로 줄인 뒤 남은 신호. 오른쪽: 원소 k개의 평균이 주파수마다
        얼마나 통과시키는지 보여 준다. 점선(s = 4일 때 1 / (2s))보다 오른쪽에 있는 성분은 모두 가짜 무늬가
        된다.""",
    )
    page.picture(
        "aliasing",
        _rings_figure(),
        """Rings that become finer outwards, reduced with s = 4. Only the rings in the middle are real:
        the others are false, and nearly gone after averaging.""",
        """바깥으로 갈수록 촘촘해지는 고리를 s = 4로 줄였다. 가운데 고리만 진짜이고 나머지는 가짜
        무늬이다. 평균을 내면 거의 사라진다.""",
    )


def global_pooling(page: Page) -> None:
    """One number for each map, instead of a dense layer over all of them."""
    page.title("Global pooling instead of flatten", "펼치기(flatten) 대신 전역 풀링")
    page.say(
        """Behind its last convolution a network has maps, say 7x7x512, and needs 1,000 scores. Flattened,
        these are 25,088 inputs for a dense layer; in VGG-16 the first dense layer alone, 25,088 to 4,096,
        holds 102,764,544 of the network's 138 million parameters. Global pooling takes one number of each
        map, its mean or its maximum, and leaves 512 inputs.""",
        """마지막 합성곱층을 지나면, 예를 들어 7x7x512 특징 맵에서 점수 1,000개를 뽑아야 한다. 한 줄로
        펼치면 완전 연결층의 입력이 25,088개가 된다. VGG-16에서는 25,088개를 4,096개로 잇는 첫 완전 연결층
        하나가 전체 매개변수 1억 3,800만 개 가운데 102,764,544개를 차지한다. 전역 풀링은 특징 맵마다
        평균이나 최댓값 하나만 남기므로 입력이 512개로 줄어든다.""",
    )
    page.formula("flatten  y = W x.reshape(-1) + b\nGAP      y = W mean(x) + b\nGMP      y = W max(x) + b")
    page.equal("7·7·512", jnp.zeros((1, 7, 7, 512)).reshape(1, -1).shape[1], stated=25_088)
    page.equal("7·7·512·4,096 + 4,096", _dense_parameters(25_088, 4_096), stated=102_764_544)
    page.equal("7·7·512·1,000 + 1,000", _dense_parameters(25_088, 1_000), stated=25_089_000)
    page.equal("512·1,000 + 1,000", _dense_parameters(512, 1_000), stated=513_000)
    page.equal("parameters of nn.GlobalAvgPool()", _parameters(nn.GlobalAvgPool()), stated=0)
    page.equal("parameters of nn.GlobalMaxPool()", _parameters(nn.GlobalMaxPool()), stated=0)

    page.say(
        """The mean of a map exists whatever its size: the same network takes larger images. Flatten is
        tied to the one size that it was built for.""",
        """평균은 특징 맵의 크기가 얼마든 구할 수 있으므로, 같은 신경망에 더 큰 이미지도 넣을 수 있다.
        펼치기를 쓴 신경망은 처음에 정한 크기의 이미지만 받는다.""",
    )
    for height, width, flat in ((7, 7, 25_088), (10, 13, 66_560)):
        maps = jnp.ones((1, height, width, 512))
        page.equal(f"GAP, {height}x{width}x512", F.global_avg_pool(maps).shape[-1], stated=512)
        page.equal(f"GMP, {height}x{width}x512", F.global_max_pool(maps).shape[-1], stated=512)
        page.equal(f"flatten, {height}x{width}x512", maps.reshape(1, -1).shape[1], stated=flat)

    page.say(
        """Network in Network (Lin and others, 2013) goes one step further: let the last convolution have
        as many channels as there are classes, and the means of its maps are the logits, which softmax
        turns into probabilities. No dense layer is left, and each map shows where its class was seen. For
        a mean the order does not matter: a 1x1 convolution before it is a dense layer behind it.""",
        """Network in Network(Lin 등, 2013)은 한 걸음 더 나아간다. 마지막 합성곱층의 채널 수를 클래스 수와
        같게 하면 각 맵의 평균이 곧 로짓이고, 소프트맥스를 거치면 확률이 된다. 완전 연결층이 하나도 남지
        않으며, 각 맵은 그 클래스가 어디에서 보였는지 알려 준다. 평균은 선형이므로 순서를 바꾸어도 된다.
        1x1 합성곱을 한 뒤 평균을 내나, 평균을 낸 뒤 완전 연결층을 지나나 결과는 같다.""",
    )
    keys = jax.random.split(jax.random.key(0))
    maps = jax.random.normal(keys[0], (1, 6, 8, 32))
    weights = jax.random.normal(keys[1], (32, 10)) / 8
    logits = F.global_avg_pool(F.conv(maps, weights[None, None]))
    page.equal("Σ softmax", float(jax.nn.softmax(logits).sum()), stated=1, tolerance=1e-5)
    behind = F.global_avg_pool(maps) @ weights
    page.equal(
        "max |GAP(conv1x1(x)) - dense(GAP(x))|", float(jnp.abs(logits - behind).max()), 0, tolerance=1e-5
    )

    page.say(
        """It does not matter either where in the map the object is. Moved by three elements, it has the
        same mean and the same maximum, and so the same probabilities; a dense layer over the flattened
        maps has other weights there.""",
        """물체가 맵의 어디에 있는지도 상관없다. 세 칸 옮겨도 평균과 최댓값이 같으므로 확률도 같다. 반면
        맵을 펼쳐서 잇는 완전 연결층은 자리마다 가중치가 달라 결과가 바뀐다.""",
    )
    here = _class_maps()
    there = jnp.roll(here, (3, 3), axis=(1, 2))
    dense = jax.random.normal(jax.random.key(2), (9 * 9 * 3, 3)) / 4
    mean_moves = jnp.abs(F.global_avg_pool(here) - F.global_avg_pool(there)).max()
    largest_moves = jnp.abs(F.global_max_pool(here) - F.global_max_pool(there)).max()
    dense_moves = jnp.abs((here - there).reshape(1, -1) @ dense).max()
    page.equal("GAP: max |y - y moved|", float(mean_moves), stated=0, tolerance=1e-6)
    page.equal("GMP: max |y - y moved|", float(largest_moves), stated=0, tolerance=1e-6)
    page.at_least("flatten + dense: max |y - y moved|", float(dense_moves), 0.5)
    page.picture(
        "global_pooling",
        _class_maps_figure(here, there, dense),
        """Three class maps, the object in the upper left and then moved to the lower right. GAP and GMP
        with softmax give the same probabilities, flatten + dense gives others.""",
        """클래스별 특징 맵 셋. 위는 물체가 왼쪽 위에 있을 때, 아래는 오른쪽 아래로 옮겼을 때이다. GAP와
        GMP에 소프트맥스를 취하면 확률이 그대로이지만, flatten + dense는 달라진다.""",
    )


def _parameters(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def _dense_parameters(inputs: int, outputs: int) -> int:
    """Of a real dense layer, by its shapes alone: no 400 MB are allocated for it."""
    return _parameters(nnx.eval_shape(lambda: nnx.Linear(inputs, outputs, rngs=nnx.Rngs(0))))


def _strongest(signal: Array) -> int:
    """The number of periods of the strongest cosine in a signal (1, size, 1)."""
    return int(jnp.argmax(jnp.abs(jnp.fft.rfft(signal[0, :, 0]))))


def _amplitude(signal: Array, periods: int) -> float:
    """The amplitude of the cosine with so many periods in a signal (1, size, 1)."""
    return float(2 * jnp.abs(jnp.fft.rfft(signal[0, :, 0]))[periods] / signal.shape[1])


def _class_maps() -> Array:
    """Three maps of 9x9: at one place a strong answer of the first class and weaker ones of the others."""
    row, column = jnp.meshgrid(jnp.arange(9.0), jnp.arange(9.0), indexing="ij")
    blob = jnp.exp(-((row - 2) ** 2) - (column - 2) ** 2)
    blob = jnp.where(blob > 1e-3, blob, 0.0)  # inside the map, here and moved
    return jnp.stack([9 * blob, 5 * blob, 3 * blob], axis=-1)[None]


def _pooling_figure(x: Array, kinds: list[tuple[str, Array, Array]]) -> Figure:
    figure = draw.new_figure(10, 6.2)
    rows = figure.subplots(2, 5, width_ratios=(4, 0.9, 2, 0.9, 4))
    for row, (name, y, gradient) in zip(rows, kinds, strict=True):
        draw.numbers(row[0], x, title="x", size=12)
        draw.sign(row[1], f"{name}\n$\\rightarrow$", size=14)
        draw.numbers(row[2], y, title="y", largest=8, size=12)
        row[2].set_ylim(3.1, -1.1)  # squares as large as those of x
        draw.blank(row[3])
        draw.numbers(row[4], gradient, title=r"$\partial\, \Sigma y\, /\, \partial x$", largest=1.6, size=12)
        for i in (0, 2):
            for j in (0, 2):
                for axes in (row[0], row[4]):
                    draw.window(axes, i, j, 2, 2)
    return figure


def _signals_figure(cosine: Array, subsampled: Array, averaged: Array, twice: Array) -> Figure:
    figure = draw.new_figure(12, 5.4)
    signals = figure.subplot_mosaic(
        [["x", "H"], ["s", "H"], ["a", "H"], ["t", "H"]], width_ratios=(1.7, 1), sharex=False
    )
    lines = [
        ("x", cosine, 1, "x:  cos, 60 / 256"),
        ("s", subsampled, 4, "x[::4]"),
        ("a", averaged, 4, "avg k = 4, s = 4"),
        ("t", twice, 4, "avg k = 4, s = 1;  avg k = 4, s = 4"),
    ]
    for name, signal, stride, title in lines:
        axes = signals[name]
        n = np.arange(signal.shape[1]) * stride
        axes.plot(n, signal[0, :, 0], ".-", markersize=3, linewidth=0.8, color=draw.BLUE)
        axes.set(xlim=(0, 255), ylim=(-1.2, 1.2), yticks=[-1, 0, 1])
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    axes = signals["H"]
    f = np.linspace(1e-4, 0.5, 500)
    mean_of_2, mean_of_4 = (np.abs(np.sin(np.pi * k * f) / (k * np.sin(np.pi * f))) for k in (2, 4))
    axes.plot(f, mean_of_2, color="#888888", linestyle="--", label="avg k = 2")
    axes.plot(f, mean_of_4, color=draw.BLUE, label="avg k = 4")
    axes.plot(f, mean_of_4**2, color=draw.ORANGE, label="avg k = 4, avg k = 4")
    axes.axvline(1 / 8, color="black", linestyle=":", linewidth=1)
    axes.plot([60 / 256] * 2, [_amplitude(averaged, 4), _amplitude(twice, 4)], "ko", markersize=5)
    axes.set(xlabel="f", xlim=(0, 0.5), ylim=(0, 1.02), title="|H(f)|")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _rings_figure() -> Figure:
    """cos(a r²): its local frequency grows with r, up to 0.5 at the edge's middle."""
    size = 256
    place = jnp.arange(float(size)) - (size - 1) / 2
    rings = jnp.cos(jnp.pi * (place[:, None] ** 2 + place[None, :] ** 2) / size)[None, ..., None]
    smooth = F.avg_pool(F.pad(rings, ((1, 2), (1, 2)), mode="edge"), 4, stride=1)
    figure = draw.new_figure(12, 5.2)
    panels = figure.subplot_mosaic(
        [["x", "x", "s", "m"], ["x", "x", "a", "t"]], width_ratios=(1, 1, 1, 1), height_ratios=(1, 1)
    )
    pictures = [
        ("x", rings, "x  (256 x 256)"),
        ("s", rings[:, ::4, ::4], "x[::4, ::4]  (64 x 64)"),
        ("m", F.max_pool(rings, 4), "max k = 4, s = 4"),
        ("a", F.avg_pool(rings, 4), "avg k = 4, s = 4"),
        ("t", F.avg_pool(smooth, 4), "avg, avg"),
    ]
    for name, picture, title in pictures:
        draw.image(panels[name], picture[0, ..., 0], title=title, limits=(-1, 1))
    return figure


def _class_maps_figure(here: Array, there: Array, dense: Array) -> Figure:
    figure = draw.new_figure(12, 5)
    rows = figure.subplots(2, 6, width_ratios=(1, 1, 1, 0.9, 0.9, 0.9))
    for row, maps in zip(rows, (here, there), strict=True):
        for c in range(3):
            draw.image(row[c], maps[0, ..., c], title=f"x[:, :, {c}]", limits=(0, 9))
        answers = {
            "GAP": F.global_avg_pool(maps),
            "GMP": F.global_max_pool(maps),
            "flatten + dense": maps.reshape(1, -1) @ dense,
        }
        for axes, (name, logits) in zip(row[3:], answers.items(), strict=True):
            axes.bar(range(3), jax.nn.softmax(logits)[0], color=draw.ORANGE if "dense" in name else draw.BLUE)
            axes.set(ylim=(0, 1), xticks=range(3), yticks=[0, 0.5, 1])
            axes.set_title(f"softmax, {name}", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
    return figure
