"""Lessons on the transposed convolution, which is also called deconvolution, and is not one."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxcnn.functional as F
from course.drawing import BLUE, ORANGE, image, in_a_row, new_figure, numbers, sign, window
from course.page import Page
from course.photograph import cat


def transposed_not_inverse(page: Page) -> None:
    """Deconvolution is the transposed of a convolution, not its inverse."""
    page.title("Deconvolution: transposed, not inverse", "디컨볼루션은 역이 아니라 전치이다")
    page.say(
        """A convolution is linear, so it is a matrix C. For a 4×4 image and a 3×3 kernel without
        padding, C has 4 rows, one for each output, and 16 columns, one for each pixel. What networks
        call deconvolution multiplies by the transposed matrix: 4 numbers become 16.""",
        """합성곱은 선형 연산이므로 행렬 C로 나타낼 수 있다. 4×4 이미지에 3×3 커널을 패딩 없이 적용하면,
        C의 행은 출력마다 하나씩 4개, 열은 픽셀마다 하나씩 16개이다. 신경망에서 디컨볼루션이라 부르는
        연산은 이 행렬의 전치를 곱하는 것이다. 값 4개가 16개로 늘어난다.""",
    )
    page.formula("vec(conv(x)) = C vec(x)        vec(conv_transpose(y)) = Cᵀ vec(y)")
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3)
    c = matrix(lambda x: F.conv(as_map(x), as_kernel(kernel)), (4, 4))
    c_transposed = matrix(lambda y: F.conv_transpose(as_map(y), as_kernel(kernel)), (2, 2))
    page.equal("C: 2 · 2", c.shape[0], stated=4)
    page.equal("C: 4 · 4", c.shape[1], stated=16)
    page.equal("max |conv_transpose - Cᵀ|", float(abs(c_transposed - c.T).max()), stated=0)
    x = jnp.array([[2.0, 0, 1, 3], [1, 1, 0, 2], [0, 3, 1, 0], [1, 2, 0, 1]])
    y = jnp.array([[1.0, -1], [2, 3]])
    of_x = F.conv(as_map(x), as_kernel(kernel))[0, ..., 0]
    of_y = F.conv_transpose(as_map(y), as_kernel(kernel))[0, ..., 0]
    page.say(
        "A transposed matrix is what moves to the other side of a scalar product:",
        "전치행렬이란 내적에서 반대쪽으로 옮겨 갈 수 있는 행렬이다.",
    )
    page.equal("⟨conv(x), y⟩ - ⟨x, conv_transpose(y)⟩", float((of_x * y).sum() - (x * of_y).sum()), stated=0)
    page.picture(
        "convolution_matrix",
        _draw_matrices(kernel, c),
        """C of the 3×3 kernel on a 4×4 image, and its transposed. Every row of C is the kernel at one
        place, and every column of the transposed the same.""",
        """4×4 이미지에 적용하는 3×3 커널의 행렬 C와 그 전치. C의 한 행은 한 자리에 놓인 커널이고,
        전치에서는 한 열이 그렇다.""",
    )
    page.say(
        """It gives back the shape of x, and not x. It could not: of 16 numbers 4 are left, and CᵀC has
        rank 4. In signal processing deconvolution means the inverse; a network's is better called
        transposed convolution. It is also what carries the gradient back through a convolution.""",
        """전치를 곱하면 x의 모양은 돌아오지만 x의 값은 돌아오지 않는다. 돌아올 수도 없다. 16개였던 값이
        4개로 줄었고, CᵀC의 계수(rank)는 4에 지나지 않는다. 신호 처리에서 말하는 디컨볼루션은 합성곱의
        역연산이므로, 신경망에서 쓰는 이 연산은 전치 합성곱이라고 부르는 편이 옳다. 합성곱의 기울기를
        거꾸로 전달하는 연산도 바로 이것이다.""",
    )
    back = F.conv_transpose(as_map(of_x), as_kernel(kernel))[0, ..., 0]
    page.equal("x[0, 0]", float(x[0, 0]), stated=2)
    page.equal("(C x)[0, 0] = 1·2 + 3·1 + 4·1 + 5·1 + 8·3 + 9·1", float(of_x[0, 0]), stated=47)
    page.equal("(Cᵀ C x)[0, 0] = 1 · 47", float(back[0, 0]), stated=47)
    page.equal("rank CᵀC", int(np.linalg.matrix_rank(c.T @ c)), stated=4)
    gradient = jax.grad(lambda x: (F.conv(as_map(x), as_kernel(kernel))[0, ..., 0] * y).sum())(x)
    page.equal("max |d⟨conv(x), y⟩/dx - conv_transpose(y)|", float(abs(gradient - of_y).max()), stated=0)
    page.picture(
        "transposed_not_inverse",
        _draw_round_trip(x, of_x, back),
        "A convolution and its transposed: the shape comes back, the numbers do not.",
        "합성곱과 그 전치를 차례로 적용한 결과. 모양은 돌아오지만 값은 돌아오지 않는다.",
    )


def transposed_sizes(page: Page) -> None:
    """Which sizes a transposed convolution gives."""
    page.title("How large is the output of a transposed convolution?", "전치 합성곱의 출력은 얼마나 클까?")
    page.say(
        """Every element of the input stamps the kernel, times its value, onto the output; the stamps are
        s apart, and where they overlap they add up. So the stride makes the output larger, and padding,
        which is that of the convolution it transposes, cuts the border off.""",
        """입력의 값 하나하나가 커널에 자기 값을 곱해 출력에 도장처럼 찍는다. 도장 사이의 간격이 s이고,
        겹치는 자리는 더한다. 따라서 스트라이드가 클수록 출력이 커진다. 패딩은 원래 합성곱의 패딩을
        뜻하므로, 여기서는 거꾸로 가장자리를 잘라 낸다.""",
    )
    page.formula("O = (I - 1) · s - 2p + k + (output padding)")
    rows = []
    for size, k, s, p, extra, stated in TRANSPOSED:
        kernel = jnp.ones((k, k, 1, 1))
        y = F.conv_transpose(jnp.ones((1, size, size, 1)), kernel, stride=s, padding=p, output_padding=extra)
        expression = f"({size} - 1) · {s} - 2 · {p} + {k}" + (f" + {extra}" if extra else "")
        page.equal(expression, y.shape[1], stated)
        back = F.conv(y, kernel, stride=s, padding=p)
        rows.append((*map(str, (size, k, s, p, extra, y.shape[1])), f"{y.shape[1]} -> {back.shape[1]}"))
    page.table(("I", "k", "s", "p", "output padding", "O", "conv: O -> I"), rows)
    page.say(
        """The last two rows tell what output padding is for. With stride 2 a convolution makes 3 of 5
        and 3 of 6: the way back must be told which one is meant. It adds a row and a column at the end,
        and no zeros to the input.""",
        """마지막 두 행을 보면 출력 패딩이 왜 필요한지 알 수 있다. 스트라이드가 2이면 크기 5도, 크기 6도
        합성곱을 거쳐 3이 된다. 그래서 되돌아갈 때는 어느 쪽인지 정해 주어야 한다. 출력 패딩은 입력에 0을
        덧대는 것이 아니라 출력 끝에 행과 열을 하나씩 더하는 것이다.""",
    )
    x = jnp.array([[1.0, 2], [3, 4]])
    y = F.conv_transpose(as_map(x), jnp.ones((3, 3, 1, 1)), stride=2)[0, ..., 0]
    page.equal("y[2, 2] = 1 + 2 + 3 + 4", float(y[2, 2]), stated=10)
    page.picture(
        "transposed_stamps",
        _draw_stamps(x, y),
        "Four numbers, a 3×3 kernel of ones, stride 2: each stamp is 3×3, and neighbours overlap by one.",
        """값 네 개를 1로 채운 3×3 커널, 스트라이드 2로 찍은 결과. 도장은 3×3이고 이웃한 도장끼리 한 칸씩
        겹친다.""",
    )


# Size, window, stride, padding, output padding, and the size that the formula gives.
TRANSPOSED = (
    (2, 3, 1, 0, 0, 4),
    (2, 2, 2, 0, 0, 4),
    (2, 4, 2, 1, 0, 4),
    (4, 4, 2, 1, 0, 8),
    (7, 4, 2, 1, 0, 14),
    (2, 3, 2, 0, 0, 5),
    (3, 3, 2, 1, 0, 5),
    (3, 3, 2, 1, 1, 6),
)


def checkerboard(page: Page) -> None:
    """Where the checkerboard of transposed convolutions comes from."""
    page.title("Checkerboard artefacts", "체커보드 무늬는 어디서 생길까?")
    page.say(
        """Stamp a kernel of ones from a constant map, and the output counts how many stamps meet at each
        place. With k = 3 and s = 2 they meet unevenly, 1, 2 or 4 at a time, because 2 does not divide 3:
        a checkerboard that the weights would have to learn away (Odena, Dumoulin and Olah 2016). With k
        = 4 every place inside gets 4. Resizing first and convolving then never has the problem.""",
        """모든 값이 같은 특징 맵에 1로 채운 커널을 찍으면, 출력의 각 자리에는 그 자리에서 겹친 도장의
        개수가 남는다. k = 3, s = 2이면 3이 2로 나누어떨어지지 않으므로 자리마다 1개, 2개, 4개로 고르지
        않게 겹친다. 이것이 체커보드 무늬이고, 없애려면 가중치가 따로 배워야 한다(Odena, Dumoulin, Olah
        2016). k = 4이면 가장자리를 뺀 모든 자리에 4개씩 고르게 겹친다. 먼저 크기를 키운 다음 합성곱을
        하면 이런 문제가 아예 없다.""",
    )
    page.formula("s | k: even        s ∤ k: checkerboard")
    ones = jnp.ones((1, 6, 6, 1))
    counts = {name: upsample(ones, jnp.ones((k, k, 1, 1)))[0, ..., 0] for name, k, upsample in UPSAMPLERS}
    inside = {name: np.unique(np.asarray(of)[2:-2, 2:-2]) for name, of in counts.items()}
    (uneven, even, resized) = inside.values()
    page.equal("k = 3, s = 2: min", float(uneven[0]), stated=1)
    page.equal("k = 3, s = 2: 1 · 2", float(uneven[1]), stated=2)
    page.equal("k = 3, s = 2: max = 2 · 2", float(uneven[-1]), stated=4)
    page.equal("k = 4, s = 2: max / min", float(even[-1] / even[0]), stated=1)
    page.equal("k = 4, s = 2: 2 · 2", float(even[0]), stated=4)
    page.equal("resize + conv: max / min", float(resized[-1] / resized[0]), stated=1)
    page.picture(
        "checkerboard",
        _draw_counts(counts),
        "How many stamps meet, from a constant map of 6×6; below, along the middle row.",
        "값이 모두 같은 6×6 맵에서 겹친 도장의 수. 아래는 가운데 행의 값이다.",
    )
    face = jnp.asarray(cat()[70:230, 105:325].mean(-1)[None, ..., None] / 255, jnp.float32)
    small = F.avg_pool(face, 4)
    larger = {
        name: upsample(small, kernel / kernel.sum() * gain)[0, ..., 0]
        for name, kernel, gain, upsample in (
            (name, jnp.ones((k, k, 1, 1)), 1 if name == "resize + conv" else 4, upsample)
            for name, k, upsample in UPSAMPLERS
        )
    }
    page.picture(
        "checkerboard_cat",
        _draw_cats(small[0, ..., 0], larger),
        """A small photograph made twice as large in the three ways, each kernel constant and of the same
        sum. The pattern comes from the overlap alone.""",
        """작은 사진을 세 가지 방법으로 두 배 키웠다. 커널은 모두 상수이고 합도 같다. 무늬는 오로지 겹침
        때문에 생긴다.""",
    )


def _transposed(x: Array, kernel: Array) -> Array:
    return F.conv_transpose(x, kernel, stride=2, padding=1)


def _resized(x: Array, kernel: Array) -> Array:
    height, width = x.shape[1:3]
    larger = F.resize(x, (2 * height, 2 * width), method="nearest")
    return F.conv(larger, kernel, padding=1, padding_mode="edge")


UPSAMPLERS = (
    ("k = 3, s = 2", 3, _transposed),
    ("k = 4, s = 2", 4, _transposed),
    ("resize + conv", 3, _resized),
)


def as_map(x: Array) -> Array:
    """A matrix as a batch of one image with one channel."""
    return x[None, ..., None]


def as_kernel(kernel: Array) -> Array:
    """A matrix as a kernel from one channel to one."""
    return kernel[..., None, None]


def matrix(linear, size: tuple[int, int]) -> np.ndarray:
    """The matrix of a linear function of images of one size: row by output element, column by pixel."""
    jacobian = jax.jacobian(lambda x: linear(x.reshape(size)).reshape(-1))(jnp.zeros(size[0] * size[1]))
    return np.asarray(jacobian)


def _draw_matrices(kernel: Array, c: np.ndarray) -> Figure:
    """The kernel, C and its transposed; zeros are left out."""
    figure = new_figure(8.8, 5.8)
    left, middle, right = in_a_row(figure, (3, 16, 4))
    shown = np.where(c == 0, np.nan, c)
    numbers(left, kernel, title="w (3×3)")
    for axes, values, title in ((middle, shown, "C (4×16)"), (right, shown.T, "Cᵀ (16×4)")):
        numbers(axes, values, title=title, size=10, largest=9)
        rows, columns = values.shape
        window(axes, 0, 0, rows, columns, colour="#b8b8b8")
    window(middle, 0, 0, 1, 16)
    window(right, 0, 0, 16, 1)
    return figure


def _draw_round_trip(x: Array, y: Array, back: Array) -> Figure:
    """x, conv(x) and conv_transpose(conv(x)) in a row."""
    figure = new_figure(9, 3.2)
    axes = in_a_row(figure, (4, 1.5, 2, 1.5, 4))
    numbers(axes[0], x, title="x", size=12)
    sign(axes[1], "C →")
    numbers(axes[2], y, title="C x", size=12)
    sign(axes[3], "Cᵀ →")
    numbers(axes[4], back, title="Cᵀ C x  ≠  x", size=10)
    return figure


def _draw_stamps(x: Array, y: Array) -> Figure:
    """The input, and the output with a frame around each stamp."""
    figure = new_figure(7.4, 3.6)
    left, between, right = in_a_row(figure, (2, 1.2, 5))
    numbers(left, x, title="x (2×2)", size=13)
    sign(between, "→")
    numbers(right, y, title="k = 3, s = 2:  y (5×5)", size=13)
    colours = (ORANGE, "#2a9d8f", "#8e5ea2", "#c9a227")
    for i, colour in enumerate(colours):
        row, column = divmod(i, 2)
        window(left, row + 0.06, column + 0.06, 0.88, 0.88, colour=colour)
        inset = 0.05 * (i + 1)  # so that frames that share an edge are all seen
        window(right, 2 * row + inset, 2 * column + inset, 3 - 2 * inset, 3 - 2 * inset, colour=colour)
    return figure


def _draw_counts(counts: dict[str, Array]) -> Figure:
    """The counts as numbers, and their middle row as a curve."""
    figure = new_figure(11, 5.0)
    grid = figure.subplots(2, 3, height_ratios=(3, 1), sharey="row")
    for (above, below), (name, count) in zip(grid.T, counts.items(), strict=True):
        numbers(above, count, title=name, size=9, largest=9)
        _steps(below, np.asarray(count)[len(count) // 2])
    return figure


def _steps(axes: Axes, values: np.ndarray) -> None:
    axes.bar(np.arange(len(values)) + 0.5, values, width=0.92, color=BLUE)
    axes.set(xlim=(-0.1, len(values) + 0.1), ylim=(0, 10), xticks=[], yticks=[0, 2, 4, 6, 8])
    axes.spines[["top", "right"]].set_visible(False)


def _draw_cats(small: Array, larger: dict[str, Array]) -> Figure:
    """The small photograph and the three larger ones, black and white alike in all."""
    figure = new_figure(11, 2.2)
    panels = figure.subplots(1, 1 + len(larger))
    for axes, (name, pixels) in zip(panels, {"x": small, **larger}.items(), strict=True):
        # The border, which fewer stamps reach, is cut off.
        image(axes, pixels if name == "x" else pixels[2:-2, 2:-2], title=name, limits=(0.1, 1.1))
    return figure
