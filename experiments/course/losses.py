"""Lessons on losses: what they make of the same scores."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import BLUE, ORANGE, new_figure
from course.page import Page

CLASSES = ("cat", "car", "frog")


def softmax_and_svm(page: Page) -> None:
    """The softmax and the SVM loss on the same scores."""
    page.title("Softmax and SVM losses on the same scores", "같은 점수에 매긴 소프트맥스 손실과 SVM 손실")
    page.say(
        """Three images, of a cat, a car and a frog, and the scores that a classifier gives each of them:
        the example of CS231n. Which images has it got wrong, and how badly? The SVM asks that the true
        class leads every other one by a margin of 1, and adds up what is missing. Softmax makes the
        scores probabilities and takes the negative logarithm of the true class's.""",
        """고양이, 자동차, 개구리 사진 세 장에 분류기가 매긴 점수가 있다. CS231n에 나오는 예제이다.
        분류기는 어느 사진을 얼마나 심하게 틀린 것일까? SVM 손실은 정답 클래스의 점수가 다른 모든
        클래스보다 1 이상 높기를 요구하고, 모자란 만큼을 모두 더한다. 소프트맥스 손실은 점수를 확률로
        바꾼 뒤 정답 클래스의 확률에 로그를 취해 부호를 바꾼다.""",
    )
    page.formula("SVM:      L = Σ_{j ≠ y} max(0, s_j - s_y + 1)\nsoftmax:  L = -log(exp(s_y) / Σ_j exp(s_j))")
    scores = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    labels = jnp.array([0, 1, 2])
    probabilities = jax.nn.softmax(scores)
    page.table(
        ("image", *(f"s({name})" for name in CLASSES), "SVM", "p(y)", "softmax"),
        [
            (
                CLASSES[y],
                *(f"{s:.1f}" for s in scores[y]),
                f"{svm(scores[y], y):.1f}",
                f"{probabilities[y, y]:.4f}",
                f"{softmax(scores[y], y):.2f}",
            )
            for y in range(3)
        ],
    )
    page.equal("cat: max(0, 5.1 - 3.2 + 1) + max(0, -1.7 - 3.2 + 1)", svm(scores[0], 0), 2.9, tolerance=1e-5)
    page.equal("car: max(0, 1.3 - 4.9 + 1) + max(0, 2.0 - 4.9 + 1)", svm(scores[1], 1), 0.0)
    page.equal("frog: max(0, 2.2 + 3.1 + 1) + max(0, 2.5 + 3.1 + 1)", svm(scores[2], 2), 12.9, tolerance=1e-5)
    mean = float(F.multiclass_svm_loss(scores, labels))
    page.equal("(2.9 + 0 + 12.9) / 3", mean, 5.27, tolerance=0.005)
    exponentials = jnp.exp(scores[0])
    page.equal("exp(3.2)", float(exponentials[0]), 24.5, tolerance=0.05)
    page.equal("exp(5.1)", float(exponentials[1]), 164.0, tolerance=0.05)
    page.equal("exp(-1.7)", float(exponentials[2]), 0.18, tolerance=0.005)
    page.equal("p(cat) = 24.5 / (24.5 + 164.0 + 0.18)", float(probabilities[0, 0]), 0.13, tolerance=0.005)
    page.equal("-ln 0.13", softmax(scores[0], 0), 2.04, tolerance=0.005)
    page.equal("-log10 0.13", softmax(scores[0], 0) / np.log(10), 0.89, tolerance=0.005)
    page.say(
        """Some years' slides give 0.89 for the last one: there the logarithm is to the base 10.
        Libraries take the natural one, and so 2.04 is what F.softmax_cross_entropy returns; the two
        differ by a factor of 2.303 that changes no minimum.""",
        """강의 연도에 따라 슬라이드에 0.89라고 적힌 것도 있는데, 밑이 10인 로그를 썼기 때문이다.
        라이브러리는 모두 자연로그를 쓰므로 F.softmax_cross_entropy의 값은 2.04이다. 두 값은 2.303배
        차이가 날 뿐, 손실이 최소가 되는 곳은 같다.""",
    )

    page.say(
        """At the start of a training all scores are about equal. The losses are then known beforehand, a
        good check of a new program:""",
        """학습을 막 시작할 때는 모든 점수가 거의 같다. 이때의 손실은 미리 계산해 볼 수 있어서, 새로 짠
        프로그램이 맞는지 확인하는 데 좋다.""",
    )
    page.equal("SVM, s = 0: C - 1", svm(jnp.zeros(3), 0), 2.0)
    page.equal("softmax, s = 0: ln C = ln 3", softmax(jnp.zeros(3), 0), 1.0986, tolerance=1e-4)

    page.say(
        """Now jiggle the score of the car on the second image, which is right by more than the margin.
        The SVM does not notice: its loss and its gradient are 0 until the lead falls below 1. Softmax is
        never content: a larger lead always lowers its loss a little further.""",
        """이번에는 여유 있게 맞힌 둘째 사진에서 자동차의 점수를 조금 흔들어 보자. SVM 손실은 꿈쩍하지
        않는다. 점수 차가 1 아래로 내려가기 전까지는 손실도 기울기도 0이다. 반면 소프트맥스 손실은 만족할
        줄 모른다. 점수 차가 커지면 손실은 언제나 조금 더 줄어든다.""",
    )
    moved = {change: scores[1].at[1].add(change) for change in (-0.5, 0.0, 0.5)}
    page.table(
        ("s(car)", "SVM", "softmax"),
        [(f"{s[1]:.1f}", f"{svm(s, 1):.4f}", f"{softmax(s, 1):.4f}") for s in moved.values()],
    )
    page.equal("SVM(4.9 + 0.5) - SVM(4.9 - 0.5)", svm(moved[0.5], 1) - svm(moved[-0.5], 1), 0.0)
    change = softmax(moved[0.5], 1) - softmax(moved[-0.5], 1)
    page.at_most("softmax(4.9 + 0.5) - softmax(4.9 - 0.5)", change, -0.05)
    svm_gradient, softmax_gradient = gradients(scores, labels)
    page.table(
        ("image", *(f"{loss}: dL/ds({name})" for loss in ("SVM", "softmax") for name in CLASSES)),
        [(CLASSES[y], *(f"{g:.3f}" for g in (*svm_gradient[y], *softmax_gradient[y]))) for y in range(3)],
    )
    page.equal("SVM, frog: dL/ds(frog) = -1 - 1", float(svm_gradient[2, 2]), -2.0)
    page.equal("softmax, cat: dL/ds(cat) = p(cat) - 1", float(softmax_gradient[0, 0]), -0.87, tolerance=0.005)
    page.picture(
        "softmax_and_svm",
        _draw(scores, labels),
        """Above: the loss of each image while the score of its true class moves; the mark is the score
        it has. Below: the gradient by each score. The SVM's are whole numbers, and none where the margin
        is kept; softmax pulls by p, and by p - 1 at the true class.""",
        """위: 정답 클래스의 점수를 움직일 때 사진마다 달라지는 손실. 점은 지금의 점수이다. 아래: 점수별
        기울기. SVM의 기울기는 정수이고 마진이 지켜지면 0이다. 소프트맥스의 기울기는 p이며, 정답
        클래스에서는 p - 1이다.""",
    )


def svm(scores: Array, label: int) -> float:
    """The SVM loss of one image."""
    return float(F.multiclass_svm_loss(scores[None], jnp.array([label])))


def softmax(scores: Array, label: int) -> float:
    """The softmax loss of one image, in natural logarithms."""
    return float(F.softmax_cross_entropy(scores[None], jnp.array([label])))


def gradients(scores: Array, labels: Array) -> tuple[Array, Array]:
    """dL/ds of both losses, for each image by itself."""

    def of(loss) -> Array:
        return jax.vmap(jax.grad(lambda s, y: loss(s[None], y[None])))(scores, labels)

    return of(F.multiclass_svm_loss), of(F.softmax_cross_entropy)


def _draw(scores: Array, labels: Array) -> Figure:
    """The losses along the true class's score, and their gradients, an image a column."""
    figure = new_figure(11, 6.2)
    grid = figure.subplots(2, 3, sharey="row")
    losses = {"SVM": F.multiclass_svm_loss, "softmax": F.softmax_cross_entropy}
    own_scores = jnp.linspace(-4, 8, 241)
    for y, above in enumerate(grid[0]):
        moved = jnp.tile(scores[y], (len(own_scores), 1)).at[:, y].set(own_scores)
        for name, colour in (("SVM", BLUE), ("softmax", ORANGE)):
            along = jax.vmap(lambda s, y=y, loss=losses[name]: loss(s[None], labels[y][None]))
            above.plot(own_scores, along(moved), color=colour, linewidth=1.8, label=name)
            here = float(along(scores[y][None])[0])
            above.plot(float(scores[y, y]), here, "o", color=colour, markersize=11 if name == "SVM" else 7)
        above.set(title=f"y = {CLASSES[y]}", xlabel=f"s({CLASSES[y]})", xlim=(-4, 8), ylim=(-0.5, 15))
    for gradient, shift, colour in zip(gradients(scores, labels), (-0.2, 0.2), (BLUE, ORANGE), strict=True):
        for axes, one in zip(grid[1], gradient, strict=True):
            axes.bar(np.arange(3) + shift, np.asarray(one), width=0.38, color=colour)
    for axes in grid.flat:
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[1]:
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_xticks(range(3), CLASSES)
    grid[0, 0].set_ylabel("L")
    grid[1, 0].set_ylabel("dL / ds")
    grid[0, 2].legend(frameon=False)
    return figure
