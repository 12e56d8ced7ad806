"""What lets deep networks learn: batch normalisation, the ReLU, and a bias that keeps it alive."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import BLUE, INK, ORANGE, new_figure
from course.page import Page
from course.training import accuracy, fit, load_digits, smooth
from jaxcnn import nn

Activation = Callable[[Array], Array]

GREY = "#8a8a8a"
HE = nnx.initializers.he_normal()  # variance 2 / fan-in
BN = {False: "conv", True: "conv, BN"}
GUESSING = float(np.log(10))  # the loss of one who gives every class a tenth


class Stack(nnx.Module):
    """Convolutions 3x3 of equal width, each with its activation, then global max pooling and the logits."""

    def __init__(
        self,
        *,
        depth: int = 8,
        width: int = 16,
        activation: Activation = nnx.relu,
        norm: bool = False,
        kernel_init: nnx.Initializer = HE,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.convs = nnx.List(
            nn.Conv(width if i else 1, width, 3, padding=1, kernel_init=kernel_init, rngs=rngs)
            for i in range(depth)
        )
        for conv in self.convs:
            conv.bias = nnx.Param(jnp.full(width, bias, jnp.float32))
        self.norms = nnx.List(nn.BatchNorm(width) for _ in range(depth if norm else 0))
        self.output = nnx.Linear(width, 10, rngs=rngs)

    def features(self, x: Array, nudges: Sequence[Array] | None = None) -> list[Array]:
        """What each layer gives to its activation, and the logits; a nudge is added to each of the former."""
        found = []
        for i, conv in enumerate(self.convs):
            x = self.norms[i](conv(x)) if self.norms else conv(x)
            found.append(x if nudges is None else x + nudges[i])
            x = self.activation(found[-1])
        return [*found, self.output(F.global_max_pool(x))]

    def __call__(self, x: Array) -> Array:
        """The logits of images (batch, height, width, 1)."""
        return self.features(x)[-1]


def what_batch_norm_does(page: Page) -> None:
    """Batch normalisation keeps the values of every layer in range, whatever the weights."""
    page.title("What batch normalisation does", "배치 정규화가 하는 일")
    page.say(
        """Batch normalisation takes each channel, subtracts its mean over the batch and all positions and
        divides by its standard deviation. The two learnt numbers γ and β then give the channel the scale and
        the mean that serve it best. Eight values by hand: their mean is 5 and their variance 4, so 9 becomes
        (9 - 5) / 2 = 2.""",
        """배치 정규화는 채널마다 배치와 모든 위치에 걸친 평균을 빼고 표준편차로 나눈다. 그런 다음 학습되는
        두 값 γ와 β가 그 채널에 알맞은 크기와 평균을 정해 준다. 값 여덟 개로 직접 계산해 보자. 평균은 5,
        분산은 4이므로 9는 (9 - 5) / 2 = 2가 된다.""",
    )
    page.formula("y = γ (x - μ) / √(σ² + ε) + β")
    values = jnp.array([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])[:, None]
    mean, variance, _ = F.batch_stats(values)
    normalised = F.batch_norm(values, mean, variance)
    page.equal("μ = (2 + 4 + 4 + 4 + 5 + 5 + 7 + 9) / 8", float(mean[0]), stated=5)
    page.equal("σ² = (9 + 1 + 1 + 1 + 0 + 0 + 4 + 16) / 8", float(variance[0]), stated=4)
    page.equal("(9 - 5) / √(4 + 1e-5)", float(normalised[-1, 0]), stated=2, tolerance=1e-5)

    page.say(
        """Eight convolutions with ReLU, whose weights are drawn a little too small (standard deviation 0.05;
        He's would be 0.12). Every layer then shrinks the values, and after eight of them all images give the
        same answer. With batch normalisation every layer has values of variance 1 again.""",
        """ReLU를 쓰는 합성곱층을 여덟 개 쌓고, 가중치를 조금 작게 초기화해 보자(표준편차 0.05, He
        초기화라면 0.12). 그러면 층을 지날 때마다 값이 줄어들어, 여덟 층을 지나고 나면 어떤 이미지를 넣어도
        출력이 똑같아진다. 배치 정규화를 넣으면 층마다 값의 분산이 다시 1로 돌아온다.""",
    )
    train, test = load_digits()
    small = nnx.initializers.normal(0.05)
    layers = {
        norm: Stack(norm=norm, kernel_init=small, rngs=nnx.Rngs(0)).features(train.images[:256])[:-1]
        for norm in (False, True)
    }
    spread = {norm: [float(jnp.std(x)) for x in layers[norm]] for norm in layers}
    page.table(
        ("σ", *(f"{i + 1}" for i in range(8))),
        [(BN[norm], *(f"{value:.2g}" for value in spread[norm])) for norm in layers],
    )
    page.at_most("σ(8) / σ(1)", spread[False][7] / spread[False][0], 0.02)
    page.at_least("BN: σ(8) / σ(1)", spread[True][7] / spread[True][0], 0.9)
    page.picture(
        "activations_by_layer",
        _draw_histograms(layers),
        "What enters the ReLU of layers 1, 2, 4, 6 and 8 before any training, all on the same axis.",
        "학습을 시작하기 전에 1, 2, 4, 6, 8번째 층의 ReLU로 들어가는 값의 분포. 가로축은 모두 같다.",
    )

    page.say(
        """So the network with batch normalisation learns at once, and the other not at all: what
        arrives at its end does not depend on the image, so neither does the gradient. With He's
        weights both learn, the normalised one sooner. In evaluation the running averages of training take
        the place of μ and σ, so that the answer for one image does not depend on the others in its batch.""",
        """그래서 배치 정규화를 넣은 신경망은 곧바로 학습을 시작하지만, 넣지 않은 쪽은 전혀 배우지 못한다.
        마지막 층까지 온 값이 이미지와 상관없이 같으니, 기울기에도 이미지에 대한 정보가 없다. He 초기화를
        쓰면 둘 다 학습이 되지만 배치 정규화를 넣은 쪽이 더 빠르다. 평가할 때는 μ와 σ 대신 학습 중에 구해
        둔 이동 평균을 쓴다. 그래야 한 이미지의 결과가 같은 배치에 든 다른 이미지에 따라 달라지지 않는다.""",
    )
    curves, reached = {}, {}
    for scale, kernel_init in (("σ(w) = 0.05", small), ("He", HE)):
        for norm in (False, True):
            name = f"{scale}, BN" if norm else scale
            model = Stack(norm=norm, kernel_init=kernel_init, rngs=nnx.Rngs(0))
            trained, curves[name] = fit(model, train, optax.sgd(0.01, momentum=0.9), steps=150)
            reached[name] = accuracy(trained, test)
    page.table(("", "test accuracy"), [(name, f"{share:.3f}") for name, share in reached.items()])
    page.at_most("σ(w) = 0.05: test accuracy", reached["σ(w) = 0.05"], 0.3)
    page.at_least("σ(w) = 0.05, BN: test accuracy", reached["σ(w) = 0.05, BN"], 0.9)
    page.picture(
        "training_with_batch_norm",
        _draw_losses(curves, colours=(BLUE, ORANGE, BLUE, ORANGE), styles=("-", "-", "--", "--")),
        "The training loss of the four; dotted: ln 10, the loss of guessing.",
        "네 경우의 학습 손실. 점선은 무작위로 찍었을 때의 손실인 ln 10이다.",
    )


def relu_against_sigmoid(page: Page) -> None:
    """The sigmoid's gradient fades with every layer, the ReLU's does not."""
    page.title("ReLU against sigmoid", "ReLU와 시그모이드")
    page.say(
        """On its way back through an activation the gradient is multiplied by its derivative. The sigmoid's
        is 1/4 at best, at 0, and next to nothing where the sigmoid saturates. That of the ReLU is exactly 1
        wherever it fires, however large its input.""",
        """역전파에서 기울기가 활성화 함수를 거슬러 지날 때는 그 함수의 미분값이 곱해진다. 시그모이드의
        미분값은 0에서 가장 크지만 그래도 1/4밖에 되지 않고, 시그모이드가 포화되는 곳에서는 거의 0이다.
        ReLU의 미분값은 입력이 양수이면 아무리 커도 정확히 1이다.""",
    )
    page.formula("σ(z) = 1 / (1 + e^-z),   σ'(z) = σ(z) (1 - σ(z))        ReLU'(z) = 1 (z > 0), 0 (z < 0)")
    page.equal("σ'(0) = 1/2·(1 - 1/2)", float(jax.grad(nnx.sigmoid)(0.0)), stated=0.25)
    page.equal("σ'(5)", float(jax.grad(nnx.sigmoid)(5.0)), stated=0.0066, tolerance=1e-4)
    page.equal("ReLU'(5)", float(jax.grad(nnx.relu)(5.0)), stated=1)
    page.say(
        """Eight layers multiply eight such numbers, and already 0.25⁸ is 0.000015. To see it, eight
        convolutions with He's weights get 128 digits, and the gradient of the loss is taken where it reaches
        each layer. With the ReLU it arrives at the first layer almost as it left the last; with the sigmoid
        0.02% of it is left, and 120 steps of Adam do not bring the loss below that of guessing.""",
        """여덟 층을 지나면 이런 값이 여덟 번 곱해진다. 가장 클 때의 값인 0.25만 여덟 번 곱해도
        0.000015이다. 직접 확인해 보자. He 초기화를 한 합성곱층 여덟 개에 숫자 이미지 128장을 넣고, 손실의
        기울기가 각 층에 얼마나 도달하는지 잰다. ReLU를 쓰면 기울기가 첫 번째 층까지 거의 그대로 전해진다.
        시그모이드를 쓰면 0.02% 정도만 남으며, Adam으로 120번을 갱신해도 손실이 무작위로 찍을 때보다
        낮아지지 않는다.""",
    )
    page.equal("0.25⁸", float(jax.grad(nnx.sigmoid)(0.0)) ** 8, stated=0.000015, tolerance=5e-7)
    train, test = load_digits()
    norms, curves, reached = {}, {}, {}
    for name, activation in (("sigmoid", nnx.sigmoid), ("ReLU", nnx.relu)):
        model = Stack(activation=activation, rngs=nnx.Rngs(0))
        norms[name] = _gradient_norms(model, train.images[:128], train.labels[:128])
        trained, curves[name] = fit(model, train, optax.adam(3e-3), steps=120)
        reached[name] = accuracy(trained, test)
    page.at_most("sigmoid: |∂L/∂z(1)| / |∂L/∂z(8)|", norms["sigmoid"][0] / norms["sigmoid"][-1], 1e-3)
    page.at_least("ReLU: |∂L/∂z(1)| / |∂L/∂z(8)|", norms["ReLU"][0] / norms["ReLU"][-1], 0.2)
    page.at_most("sigmoid: test accuracy", reached["sigmoid"], 0.3)
    page.at_least("ReLU: test accuracy", reached["ReLU"], 0.85)
    page.picture(
        "relu_against_sigmoid",
        _draw_relu_against_sigmoid(norms, curves),
        """The two derivatives; the norm of the gradient at each layer before training (a logarithmic axis);
        the training loss, and dotted that of guessing.""",
        """왼쪽부터 두 함수의 미분값, 학습 전 각 층에 도달하는 기울기의 노름(로그 축), 학습 손실. 점선은
        무작위로 찍었을 때의 손실이다.""",
    )


def dead_relus(page: Page) -> None:
    """A ReLU that never fires gets no gradient and stays as it is."""
    page.title("Dead ReLUs, and the bias against them", "죽은 ReLU와 편향")
    page.say(
        """Where a ReLU's input is negative its derivative is 0. A unit that is negative for every image of
        the training set gets no gradient at all, so nothing ever changes its weights: it is dead. The bias
        decides how likely that is. Six convolutions with He's weights, before any training: with bias 0
        about half the values are zeros, but every unit fires somewhere. A negative bias kills the last
        layers whole. A small positive one leaves fewer zeros; it is a precaution that costs nothing, and
        AlexNet took it (1 in some of its layers), but with He's weights it is not needed.""",
        """입력이 음수이면 ReLU의 미분값은 0이다. 그래서 학습 데이터의 어떤 이미지에서도 양수가 되지 못하는
        유닛은 기울기를 전혀 받지 못하고, 가중치도 영영 바뀌지 않는다. 이것이 죽은 ReLU이다. 얼마나 많이
        죽느냐는 편향에 달려 있다. He 초기화를 한 합성곱층 여섯 개를 학습 전에 살펴보자. 편향이 0이면 값의
        절반쯤이 0이지만, 모든 유닛이 어디선가는 활성화된다. 편향이 음수이면 뒤쪽 층이 통째로 죽는다. 작은
        양수로 두면 0이 되는 값이 줄어든다. 비용이 들지 않는 예방책이라서 AlexNet은 일부 층의 편향을 1로
        초기화했지만, He 초기화를 쓴다면 꼭 필요하지는 않다.""",
    )
    page.equal("ReLU'(-1)", float(jax.grad(nnx.relu)(-1.0)), stated=0)
    page.equal("leaky ReLU'(-1)", float(jax.grad(_leaky_relu)(-1.0)), stated=0.1, tolerance=1e-6)
    train, test = load_digits()
    zeros, dead = {}, {}
    for bias in (-0.5, 0.0, 0.1):
        model = Stack(depth=6, width=32, bias=bias, rngs=nnx.Rngs(0))
        zeros[bias], dead[bias] = _silence(model, train.images)
    page.at_least("b = -0.5: dead in layer 6", dead[-0.5][-1], 0.9)
    page.at_most("b = 0: dead in layer 6", dead[0.0][-1], 0.05)
    page.at_most("b = 0.1: dead in layer 6", dead[0.1][-1], 0.05)
    page.at_least("b = 0: zeros - b = 0.1: zeros, layer 1", zeros[0.0][0] - zeros[0.1][0], 0.1)
    page.picture(
        "dead_relus",
        _draw_silence(zeros, dead),
        "Left: the share of zeros in each layer. Right: the share of units that fire for no image.",
        "왼쪽은 층마다 0이 된 값의 비율, 오른쪽은 어떤 이미지에도 활성화되지 않는 유닛의 비율.",
    )

    page.say(
        """The dead do not come back: with bias -0.5 the loss stays where guessing has it, while the
        network with bias 0.1 learns. A leaky ReLU keeps a tenth of the gradient below 0, and from the very
        same bad start it recovers.""",
        """한번 죽은 유닛은 되살아나지 않는다. 편향이 -0.5인 신경망의 손실은 무작위로 찍을 때의 값에서
        꿈쩍도 하지 않지만, 편향이 0.1인 신경망은 잘 배운다. leaky ReLU는 0보다 작은 쪽에서도 기울기의
        10분의 1을 흘려보내므로, 똑같이 나쁜 출발점에서 시작해도 회복한다.""",
    )
    starts = {
        "ReLU, b = -0.5": (nnx.relu, -0.5),
        "ReLU, b = 0.1": (nnx.relu, 0.1),
        "leaky ReLU, b = -0.5": (_leaky_relu, -0.5),
    }
    curves, reached = {}, {}
    for name, (activation, bias) in starts.items():
        model = Stack(depth=6, width=32, activation=activation, bias=bias, rngs=nnx.Rngs(0))
        trained, curves[name] = fit(model, train, optax.adam(3e-3), steps=100)
        reached[name] = accuracy(trained, test)
    page.at_most("ReLU, b = -0.5: test accuracy", reached["ReLU, b = -0.5"], 0.3)
    page.at_least("ReLU, b = 0.1: test accuracy", reached["ReLU, b = 0.1"], 0.85)
    page.at_least("leaky ReLU, b = -0.5: test accuracy", reached["leaky ReLU, b = -0.5"], 0.85)

    page.say(
        """A step that is too large kills as well: it may throw the weights so far that a unit is negative
        for all images. After 60 steps of gradient descent with a learning rate of 0.1 all units of four
        layers are alive; with 1.0 many are dead, for good.""",
        """학습률이 너무 커도 ReLU가 죽는다. 한 번의 갱신으로 가중치가 너무 멀리 옮겨 가서, 모든 이미지에
        대해 음수가 나오는 유닛이 생기기 때문이다. 네 층짜리 신경망을 경사 하강법으로 60번 갱신해 보면,
        학습률이 0.1일 때는 모든 유닛이 살아 있지만 1.0일 때는 많은 유닛이 죽고 다시는 살아나지 못한다.""",
    )
    killed = {}
    for rate in (0.03, 0.1, 0.3, 1.0):
        trained, _ = fit(Stack(depth=4, width=32, rngs=nnx.Rngs(0)), train, optax.sgd(rate), steps=60)
        killed[rate] = float(np.mean(_silence(trained, train.images)[1]))
    page.at_most("η = 0.1: dead", killed[0.1], 0.05)
    page.at_least("η = 1.0: dead", killed[1.0], 0.2)
    page.picture(
        "dying_relus",
        _draw_dying(curves, killed),
        """Left: the training loss from three beginnings. Right: the share of dead units after 60 steps, by
        learning rate.""",
        """왼쪽은 세 가지 출발점에서 시작한 학습 손실, 오른쪽은 60번 갱신한 뒤 죽어 있는 유닛의 비율을
        학습률별로 나타낸 것.""",
    )


def _leaky_relu(z: Array) -> Array:
    return nnx.leaky_relu(z, 0.1)


def _gradient_norms(model: Stack, images: Array, labels: Array) -> list[float]:
    """The norm of the loss's gradient with respect to what enters each activation."""
    graphdef, state = nnx.split(model)

    def loss(nudges: list[Array], state: nnx.State) -> Array:  # the gradient at nudges of zero
        logits = nnx.merge(graphdef, state).features(images, nudges)[-1]
        return optax.losses.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 10)).mean()

    zeros = [jnp.zeros_like(x) for x in model.features(images)[:-1]]
    return [float(jnp.linalg.norm(g.ravel())) for g in jax.jit(jax.grad(loss))(zeros, state)]


def _silence(model: Stack, images: Array) -> tuple[list[float], list[float]]:
    """For each layer: the share of its values that a ReLU makes 0, and of its units that never fire."""
    silent = [np.asarray(x) <= 0 for x in model.features(images)[:-1]]
    return [float(x.mean()) for x in silent], [float(x.all((0, 1, 2)).mean()) for x in silent]


def _draw_histograms(layers: dict[bool, list[Array]]) -> Figure:
    """Two rows of histograms, without and with batch normalisation."""
    shown = (1, 2, 4, 6, 8)
    figure = new_figure(11, 4.4)
    grid = figure.subplots(2, len(shown), sharex=True, sharey="row")
    for row, norm, colour in zip(grid, (False, True), (BLUE, ORANGE), strict=True):
        for axes, layer in zip(row, shown, strict=True):
            values = np.asarray(layers[norm][layer - 1]).ravel()
            axes.hist(values, np.linspace(-4, 4, 81), color=colour)
            axes.text(0.03, 0.95, f"σ = {values.std():.2g}", transform=axes.transAxes, fontsize=10, va="top")
            axes.set(yticks=[], xlim=(-4, 4), xticks=[-3, 0, 3])
            axes.spines[["top", "right", "left"]].set_visible(False)
        row[0].set_ylabel(BN[norm], rotation=0, ha="right", fontsize=11)
    for axes, layer in zip(grid[0], shown, strict=True):
        axes.set_title(f"layer {layer}", fontsize=11)
    return figure


def _losses(
    axes: Axes, curves: dict[str, np.ndarray], colours: Sequence[str], styles: Sequence[str] | None = None
) -> None:
    """The smoothed loss of each training."""
    for (name, losses), colour, style in zip(
        curves.items(), colours, styles or "-" * len(curves), strict=True
    ):
        axes.plot(smooth(losses), color=colour, linestyle=style, linewidth=2, label=name)
    axes.axhline(GUESSING, color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, 3.6))
    axes.legend(frameon=False, loc="best")
    _plain(axes)


def _draw_losses(curves: dict[str, np.ndarray], colours: Sequence[str], styles: Sequence[str]) -> Figure:
    figure = new_figure(7.5, 4.2)
    _losses(figure.subplots(), curves, colours, styles)
    return figure


def _draw_relu_against_sigmoid(norms: dict[str, list[float]], curves: dict[str, np.ndarray]) -> Figure:
    """The derivatives, the gradient by layer and the losses."""
    figure = new_figure(13, 3.9)
    left, middle, right = figure.subplots(1, 3)
    z = jnp.linspace(-6, 6, 601)
    colours = {"sigmoid": BLUE, "ReLU": ORANGE}
    for name, activation in (("sigmoid", nnx.sigmoid), ("ReLU", nnx.relu)):
        slope = jax.vmap(jax.grad(activation))(z)
        left.plot(z, slope, color=colours[name], linewidth=2, label=f"{name}'(z)")
        middle.semilogy(range(1, 9), norms[name], color=colours[name], marker="o", linewidth=2, label=name)
    left.axhline(0.25, color=INK, linestyle=":", linewidth=1)
    left.text(-5.9, 0.27, "1/4", fontsize=10)
    left.set(xlabel="z", ylim=(-0.04, 1.08))
    middle.set(xlabel="layer", ylabel="|∂L/∂z|", xticks=range(1, 9))
    for axes in (left, middle):
        axes.legend(frameon=False)
        _plain(axes)
    _losses(right, curves, (BLUE, ORANGE))
    return figure


def _draw_silence(zeros: dict[float, list[float]], dead: dict[float, list[float]]) -> Figure:
    """By layer and bias, the share of zeros and of units that never fire."""
    figure = new_figure(10, 3.9)
    for axes, shares, name in zip(figure.subplots(1, 2), (zeros, dead), ("ReLU(z) = 0", "dead"), strict=True):
        for (bias, values), colour, marker in zip(shares.items(), (BLUE, GREY, ORANGE), "so^", strict=True):
            axes.plot(range(1, 7), values, color=colour, marker=marker, linewidth=2, label=f"b = {bias:g}")
        axes.set(xlabel="layer", ylim=(-0.03, 1.05), xticks=range(1, 7))
        axes.set_title(name, fontsize=11)
        axes.yaxis.set_major_formatter("{x:.0%}")
        _plain(axes)
        axes.legend(frameon=False)
    return figure


def _draw_dying(curves: dict[str, np.ndarray], killed: dict[float, float]) -> Figure:
    """The losses, and a bar for each learning rate."""
    figure = new_figure(11, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _losses(left, curves, (BLUE, GREY, ORANGE))
    bars = right.bar([f"{rate:g}" for rate in killed], list(killed.values()), color=BLUE, width=0.6)
    right.bar_label(bars, [f"{share:.0%}" for share in killed.values()], padding=2)
    right.set(xlabel="η", ylim=(0, 1))
    right.set_title("dead", fontsize=11)
    right.yaxis.set_major_formatter("{x:.0%}")
    _plain(right)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
