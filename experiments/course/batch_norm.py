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
            conv.bias.set_value(jnp.full(width, bias, jnp.float32))
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
        """배치 정규화는 채널마다 배치와 모든 위치에 걸친 평균을 빼고 표준편차로 나눈다. 그런 다음 학습되는 두 값 γ와 β가 그
        채널에 알맞은 크기와 평균을 정해 준다. 값 여덟 개로 직접 계산해 보자. 평균은 5, 분산은 4이므로 9는
        (9 - 5) / 2 = 2가 된다.""",
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
        """ReLU를 쓰는 합성곱층을 여덟 개 쌓고, 가중치를 조금 작게 초기화해 보자(표준편차 0.05, He 초기화라면 0.12). 그러면
        층을 지날 때마다 값이 줄어들어, 여덟 층을 지나고 나면 어떤 이미지를 넣어도 출력이 똑같아진다. 배치 정규화를 넣으면
        층마다 값의 분산이 다시 1로 돌아온다.""",
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
        [("BN" if norm else "-", *(f"{value:.2g}" for value in spread[norm])) for norm in layers],
    )
    page.at_most("σ(8) / σ(1)", spread[False][7] / spread[False][0], 0.02)
    page.at_least("BN: σ(8) / σ(1)", spread[True][7] / spread[True][0], 0.9)
    page.picture(
        "activations_by_layer",
        _draw_histograms(layers),
        "What enters the ReLU of layers 1, 2, 4, 6 and 8, before any training; the same axis for all.",
        "학습을 시작하기 전에 1, 2, 4, 6, 8번째 층의 ReLU로 들어가는 값의 분포. 가로축은 모두 같다.",
    )

    page.say(
        """So the network with batch normalisation learns at once, and the other not at all: what
        arrives at its end does not depend on the image, so neither does the gradient. With He's
        weights both learn, the normalised one sooner. In evaluation the running averages of training take
        the place of μ and σ, so that the answer for one image does not depend on the others in its batch.""",
        """그래서 배치 정규화를 넣은 신경망은 곧바로 학습을 시작하지만, 넣지 않은 쪽은 전혀 배우지 못한다. 마지막 층까지 온
        값이 이미지와 상관없이 같으니, 기울기에도 이미지에 대한 정보가 없다. He 초기화를 쓰면 둘 다 학습이 되지만 배치 정규화를
        넣은 쪽이 더 빠르다. 평가할 때는 μ와 σ 대신 학습 중에 구해 둔 이동 평균을 쓴다. 그래야 한 이미지의 결과가 같은 배치에
        든 다른 이미지에 따라 달라지지 않는다.""",
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
        """역전파에서 기울기가 활성화 함수를 거슬러 지날 때는 그 함수의 미분값이 곱해진다. 시그모이드의 미분값은 0에서 가장
        크지만 그래도 1/4밖에 되지 않고, 시그모이드가 포화되는 곳에서는 거의 0이다. ReLU의 미분값은 입력이 양수이면 아무리
        커도 정확히 1이다.""",
    )
    page.formula("σ(z) = 1 / (1 + e^-z),   σ'(z) = σ(z) (1 - σ(z))        ReLU'(z) = 1 (z > 0), 0 (z < 0)")
    page.equal("σ'(0) = 1/2·(1 - 1/2)", float(jax.grad(nnx.sigmoid)(0.0)), stated=0.25)
    page.equal("σ'(5)", float(jax.grad(nnx.sigmoid)(5.0)), stated=0.0066, tolerance=1e-4)
    page.equal("ReLU'(5)", float(jax.grad(nnx.relu)(5.0)), stated=1)
    through_eight = jax.grad(lambda z: sum(_iterate(nnx.relu, z)))  # keeps pyright and readers at ease
    del through_eight
