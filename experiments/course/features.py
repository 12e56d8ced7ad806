"""Lessons on feature maps: what convolutions make of a photograph before anything is learned."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import image, new_figure
from course.page import Page
from course.photograph import cat

CHANNELS = (3, 6, 6, 6)
WINDOW = 5
SLOPE = 0.1


def three_random_convolutions(page: Page) -> None:
    """Three random convolutions with leaky ReLU on the photograph of a cat."""
    page.title("Three random convolutions look at a cat", "무작위 합성곱 세 층이 본 고양이")
    page.say(
        """Nothing is learned here: every weight is drawn at random. Yet the maps of the first layers are
        blurred, sharpened and edge-like versions of the photograph. An output channel c has a filter of
        its own, `w[..., c]`, as deep as the input has channels (D):""",
        """여기서는 아무것도 학습하지 않는다. 가중치는 모두 무작위로 뽑았다. 그런데도 특징 맵에는 흐려진
        사진, 선명해진 사진, 윤곽선만 남은 사진이 나타난다. 출력 채널 c마다 자기만의 필터 `w[..., c]`가
        있고, 필터의 깊이는 입력 채널 수 D와 같다.""",
    )
    page.formula(
        "y[i, j, c] = f(Σ_u Σ_v Σ_d w[u, v, d, c] · x[i + u, j + v, d])\n"
        "f(z) = max(z, 0.1 z)        w: (5, 5, D, C)"
    )
    x = F.avg_pool(jnp.asarray(cat(), jnp.float32)[None] / 255 - 0.5, 2)  # half the size, and centred on zero
    kernels = random_kernels(jax.random.key(0))
    maps = feature_maps(x, kernels)
    page.table(
        ("layer", "w: k × k × D × C", "weights", "y: H × W × C"),
        [
            ("x", "", "", _shape(x)),
            *(
                (f"conv {i}", " × ".join(map(str, k.shape)), f"{k.size:,}", _shape(y))
                for i, (k, y) in enumerate(zip(kernels, maps[1:], strict=True), 1)
            ),
        ],
    )
    page.equal("H = 150 - 3 · (5 - 1)", maps[-1].shape[1], stated=138)
    page.equal("W = 225 - 3 · (5 - 1)", maps[-1].shape[2], stated=213)
    page.equal("conv 2: 5 · 5 · 6 · 6", kernels[1].size, stated=900)
    page.equal("min f(z) / z", _least_slope(), stated=SLOPE, tolerance=1e-6)
    page.picture(
        "random_features",
        _draw(maps),
        """The photograph's three channels, and below them the six feature maps of each layer. All maps
        of a layer differ, because their filters do.""",
        """맨 위는 사진의 세 채널, 그 아래는 층마다 여섯 개씩인 특징 맵이다. 필터가 서로 다르므로 같은
        층의 특징 맵도 모두 다르다.""",
    )
    page.say(
        """A well-known tutorial copies one filter, `w[..., 0]`, into every output channel. Then all
        channels of a layer are the same map: as a matrix of pixels by channels it has rank 1, the next
        layer sees six copies of one number, and five of six filters are wasted. Even training cannot
        part them, for equal filters that are used alike get equal gradients: random weights are there to
        break this symmetry.""",
        """널리 알려진 어느 튜토리얼은 필터 하나(`w[..., 0]`)를 모든 출력 채널에 복사해 쓴다. 그러면 한
        층의 채널이 전부 같은 특징 맵이 된다. (픽셀 × 채널) 행렬로 보면 계수(rank)가 1이고, 다음 층은
        같은 값 여섯 개를 받을 뿐이며, 여섯 필터 가운데 다섯은 없는 것이나 마찬가지다. 필터가 똑같고
        쓰임새까지 같으면 기울기도 같으므로 학습을 해도 서로 달라지지 않는다. 가중치를 무작위로
        초기화하는 까닭이 바로 이 대칭을 깨는 데 있다.""",
    )
    copied = [jnp.broadcast_to(kernel[..., :1], kernel.shape) for kernel in kernels]
    collapsed = feature_maps(x, copied)
    page.equal("rank y, w[..., c]", _rank(maps[-1]), stated=6)
    page.equal("rank y, w[..., 0]", _rank(collapsed[-1]), stated=1)
    page.equal("max |y[..., c] - y[..., d]|, w[..., 0]", _spread(collapsed[-1]), 0, tolerance=1e-5)
    page.at_least("max |y[..., c] - y[..., d]|, w[..., c]", _spread(maps[-1]), 0.1)
    page.picture(
        "random_features_collapsed",
        _draw(collapsed),
        "The same layers with one filter for all channels: six times the same map.",
        "모든 채널에 같은 필터를 쓴 경우. 같은 특징 맵이 여섯 번 되풀이된다.",
    )


def random_kernels(key: Array) -> list[Array]:
    """Filters (window, window, channels in, channels out), drawn independently for every output channel."""
    # He et al. 2015, eq. 15: a leaky relu keeps (1 + slope^2) / 2 of the mean square; this makes up for it.
    he = jax.nn.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_in", "normal")
    return [
        he(key, (WINDOW, WINDOW, channels_in, channels_out))
        for key, (channels_in, channels_out) in zip(
            jax.random.split(key, len(CHANNELS) - 1), pairwise(CHANNELS), strict=True
        )
    ]


def feature_maps(x: Array, kernels: Sequence[Array]) -> list[Array]:
    """The input, and what follows each convolution and its leaky ReLU."""
    maps = [x]
    for kernel in kernels:
        maps.append(jax.nn.leaky_relu(F.conv(maps[-1], kernel), SLOPE))
    return maps


def _least_slope() -> float:
    z = jnp.array([-3.0, -0.5, 0.5, 3.0])
    return float((jax.nn.leaky_relu(z, SLOPE) / z).min())


def _rank(maps: Array) -> int:
    """The rank of the matrix (pixels, channels), up to rounding."""
    return int(np.linalg.matrix_rank(np.asarray(maps).reshape(-1, maps.shape[-1]), rtol=1e-4))


def _spread(maps: Array) -> float:
    """The largest difference between two channels at one pixel."""
    return float((maps.max(-1) - maps.min(-1)).max())


def _shape(x: Array) -> str:
    return " × ".join(map(str, x.shape[1:]))


def _draw(maps: Sequence[Array]) -> Figure:
    """A layer a row: the input's three channels and its colours, then the maps."""
    figure = new_figure(11, 5.6)
    grid = figure.subplots(len(maps), max(CHANNELS))
    for i, (row, layer) in enumerate(zip(grid, maps, strict=True)):
        for axes in row[layer.shape[-1] :]:
            axes.axis("off")
        for c in range(layer.shape[-1]):
            shown = np.asarray(layer[0, ..., c])
            # The outermost hundredths are cut off, so that a few bright pixels do not make the rest grey.
            low, high = np.percentile(shown, (1, 99))
            name = f"x, {'RGB'[c]}" if i == 0 else ""
            image(row[c], shown, title=name, limits=(float(low), float(high)))
        row[0].set_ylabel("x" if i == 0 else f"conv {i}", fontsize=11)
    image(grid[0, 3], np.asarray(maps[0][0]) + 0.5, title="x, RGB")
    return figure
