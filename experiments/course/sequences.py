"""Lessons on signals with one axis: windows of several sizes, and what is kept of each."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import BLUE, ORANGE, new_figure
from course.page import Page
from course.training import Digits, accuracy, fit, smooth
from jaxcnn import nn

WINDOWS = (3, 5, 7, 9)
EPOCHS, BATCH_SIZE = 12, 100


class SeveralWindows(nnx.Module):
    """A branch for each window size; the largest value of every channel, wherever it is; one dense layer."""

    def __init__(self, windows: Sequence[int], *, layers: int, channels: int, rngs: nnx.Rngs):
        self.branches = nnx.List(
            nnx.List(
                nn.ConvNormAct(1 if layer == 0 else channels, channels, (window,), rngs=rngs)
                for layer in range(layers)
            )
            for window in windows
        )
        self.output = nnx.Linear(len(windows) * channels, 10, rngs=rngs)

    def maps(self, x: Array) -> list[Array]:
        """The feature maps (batch, length, channels) of each branch."""
        maps = [x] * len(self.branches)
        for i, branch in enumerate(self.branches):
            for layer in branch:
                maps[i] = layer(maps[i])
        return maps

    def __call__(self, x: Array) -> Array:
        """The logits of signals (batch, length, 1)."""
        return self.output(jnp.concatenate([F.global_max_pool(maps) for maps in self.maps(x)], axis=-1))


def several_windows(page: Page) -> None:
    """Several window sizes and a global max pooling, on signals."""
    page.title("Several window sizes at once", "여러 크기의 창을 한꺼번에")
    page.say(
        """Nobody knows beforehand how long the motif is that tells one sequence from another.
        DeepConv-DTI (Lee, Keum and Nam 2019) therefore reads a protein with windows of several sizes
        side by side. Of each filter only the largest response along the sequence is kept, by a global
        max pooling: it says whether the motif occurs, and not where. One dense layer decides.""",
        """서열을 구별해 주는 모티프의 길이는 미리 알 수 없다. 그래서 DeepConv-DTI(Lee, Keum, Nam 2019)는
        크기가 다른 여러 창으로 단백질 서열을 나란히 읽는다. 그리고 전역 최대 풀링으로 필터마다 서열
        전체에서 가장 큰 반응 하나만 남긴다. 모티프가 어디에 있는지는 버리고, 있는지 없는지만 보는
        셈이다. 판단은 마지막 완전 연결층이 한다.""",
    )
    page.formula(
        "x (40, 1)  ->  conv k = 3, 5, 7, 9  ->  max  ->  concat  ->  dense (10)\n"
        "z[k, c] = max_i ReLU(BN(Σ_j w[k, c, j] x[i + j]))"
    )
    page.say(
        """The data are MNIST-1D (Greydanus 2020): ten digit-like curves, shifted, scaled, sheared, made
        noisy and sampled at 40 points; 4,000 to train and 1,000 to test, all generated. The published
        CNN reaches 0.94. Here there is neither augmentation nor a validation set to choose the best
        epoch with: AdamW, 12 epochs, the weights of the last step.""",
        """데이터는 MNIST-1D(Greydanus 2020)이다. 숫자를 닮은 열 가지 곡선을 옮기고, 늘이고, 기울이고,
        잡음을 더한 뒤 40개 점에서 표본을 뽑은 것으로, 학습용 4,000개와 테스트용 1,000개를 그 자리에서
        만들어 낸다. 논문의 CNN은 정확도 0.94를 얻었다. 여기서는 데이터 증강을 쓰지 않고, 가장 좋은
        에폭을 골라내지도 않는다. AdamW로 12 에폭을 학습한 뒤 마지막 가중치를 그대로 쓴다.""",
    )
    train, test = _mnist_1d()
    page.equal("train", len(train.labels), stated=4000)
    page.equal("test", len(test.labels), stated=1000)
    page.equal("len(x)", test.images.shape[1], stated=40)

    rows, found = [], {}
    for layers, channels in ((1, 64), (2, 32)):
        model, losses = _train(train, layers, channels)
        found[layers] = model, losses, accuracy(model, test)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        reach = ", ".join(str(layers * (window - 1) + 1) for window in WINDOWS)
        rows.append((str(layers), str(channels), reach, f"{parameters:,}", f"{found[layers][2]:.3f}"))
    page.table(("conv", "channels / k", "r", "parameters", "accuracy"), rows)
    page.at_least("MNIST-1D: test accuracy", found[2][2], 0.93)
    page.say(
        """One layer, as in DeepConv-DTI, comes to about the published accuracy. A second one in every
        branch doubles what a unit sees and brings the error to about half, with half the channels.""",
        """DeepConv-DTI처럼 합성곱을 한 층만 두어도 논문과 비슷한 정확도가 나온다. 가지마다 한 층을 더
        쌓으면 채널 수를 반으로 줄여도 한 유닛이 보는 범위가 두 배쯤 넓어지고, 오류는 절반 정도로
        줄어든다.""",
    )
    page.picture(
        "several_windows",
        _draw_branches(found[1][0], test),
        """Left: test signals. Right of each, for every window size, the feature maps of the one-layer
        network, a channel a row; the mark in each row is its maximum, all that the pooling lets through
        (the rows are in the order of their marks). The marks gather where the curve bends most, and they
        move with it.""",
        """왼쪽은 테스트 신호이고, 오른쪽은 한 층짜리 신경망의 특징 맵을 창 크기별로 그린 것이다. 한
        행이 한 채널이다. 행마다 찍힌 점이 최댓값의 자리이며, 풀링을 통과하는 것은 이 값뿐이다(행은 점의
        위치 순서로 늘어놓았다). 점은 곡선이 크게 꺾이는 자리에 모이고, 곡선이 움직이면 함께 움직인다.""",
    )
    page.picture(
        "several_windows_training",
        _draw_training(found),
        "The training loss of the two networks, and what they reach on the test signals.",
        "두 신경망의 학습 손실과, 테스트 신호에서 얻은 정확도.",
    )


def _mnist_1d() -> tuple[Digits, Digits]:
    """MNIST-1D as its paper makes it."""
    try:  # here and not above: it imports requests, and only this lesson needs it
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise ImportError(
            f"several_windows: MNIST-1D is made by mnist1d; pip install mnist1d ({error})"
        ) from error
    made = make_dataset(get_dataset_args())
    train, test = (
        Digits(jnp.asarray(made[x][..., None], jnp.float32), jnp.asarray(made[y], jnp.int32))
        for x, y in (("x", "y"), ("x_test", "y_test"))
    )
    return train, test


def _train(train: Digits, layers: int, channels: int, seed: int = 0) -> tuple[SeveralWindows, np.ndarray]:
    """The trained network and the loss of every step."""
    steps = EPOCHS * len(train.labels) // BATCH_SIZE
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 4e-3, 0.1), weight_decay=1e-2)
    model = SeveralWindows(WINDOWS, layers=layers, channels=channels, rngs=nnx.Rngs(seed))
    return fit(model, train, optimizer, steps=steps, batch_size=BATCH_SIZE, seed=seed)


def _draw_branches(model: SeveralWindows, test: Digits) -> Figure:
    """Signals, and the feature maps of each window size with the place of every channel's maximum."""
    labels = (0, 4, 7)
    chosen = np.array([int(np.argmax(test.labels == label)) for label in labels])
    signals = test.images[chosen]
    branches = [np.asarray(maps) for maps in model.maps(signals)]
    figure = new_figure(11, 6.6)
    grid = figure.subplots(len(labels), 1 + len(WINDOWS), width_ratios=(1.1, *[1.0] * len(WINDOWS)))
    for row, (label, axes) in enumerate(zip(labels, grid, strict=True)):
        axes[0].plot(np.asarray(signals[row, :, 0]), color=BLUE, linewidth=1.6)
        axes[0].set(xlim=(-0.5, 39.5), ylabel=f"y = {label}", yticks=[])
        axes[0].spines[["top", "right", "left"]].set_visible(False)
        for panel, maps, window in zip(axes[1:], branches, WINDOWS, strict=True):
            # Channels in the order of the place of their maximum; one that never responds has none.
            responses = maps[row].T[maps[row].max(0) > 0]
            responses = responses[np.argsort(responses.argmax(1), kind="stable")]
            panel.imshow(responses / responses.max(1, keepdims=True), cmap="Greys", aspect="auto", vmax=1.6)
            panel.plot(responses.argmax(1), np.arange(len(responses)), ".", color=ORANGE, markersize=5)
            panel.set(yticks=[])
            if row == 0:
                panel.set_title(f"k = {window}", fontsize=11)
        for panel in axes:
            panel.set_xticks([0, 10, 20, 30] if row == len(labels) - 1 else [])
    grid[0, 0].set_title("x", fontsize=11)
    return figure


def _draw_training(found: dict[int, tuple[SeveralWindows, np.ndarray, float]]) -> Figure:
    """The losses of each network over the epochs."""
    figure = new_figure(7, 3.6)
    axes = figure.subplots()
    for (layers, (_, losses, reached)), colour in zip(found.items(), (BLUE, ORANGE), strict=True):
        epochs = np.arange(1, len(losses) + 1) * EPOCHS / len(losses)
        name = f"conv x {layers}: test accuracy {reached:.3f}"
        axes.semilogy(epochs, smooth(losses), color=colour, linewidth=1.8, label=name)
    axes.set(xlabel="epoch", ylabel="loss", xlim=(0, EPOCHS))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
