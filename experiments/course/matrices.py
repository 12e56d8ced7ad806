"""Convolution as a matrix product, and a fully connected layer as a convolution."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from matplotlib.figure import Figure

import course.drawing as draw
import jaxcnn.functional as F
from course.page import Page


def im2col(page: Page) -> None:
    """Every window a row, the kernel a column: one matrix product."""
    page.title("im2col: convolution as one matrix product", "im2col: 합성곱을 행렬 곱 한 번으로")
    page.say(
        """Write what each window reads as a row of a matrix, and the kernel as a column. Each row times
        the column is one sum of products, so the whole convolution is one matrix product, which computers
        are good at. With N filters the kernel matrix has N columns.""",
        """창이 읽는 값을 한 줄로 펴서 행렬의 행으로 쌓고, 커널은 열벡터로 편다. 행 하나와 이 열을 곱하면
        그 창의 곱의 합이 나오므로, 합성곱 전체가 컴퓨터가 가장 잘하는 행렬 곱 한 번이 된다. 필터가
        N개이면 커널 행렬의 열이 N개가 된다.""",
    )
    page.formula(
        "patches = F.extract_patches(x, k)                      (H·W) x (k·k·C)\n"
        "y = patches @ kernel.reshape(k·k·C, N)                 (H·W) x N"
    )
    x = jnp.array([[1, 2, 0, 1], [0, 1, 3, 2], [2, 0, 1, 1], [1, 1, 0, 2]], jnp.float32)
    w = jnp.array([[1, 0, -1], [2, 1, 0], [0, 1, 1]], jnp.float32)
    patches = F.extract_patches(x[None, ..., None], 3).reshape(4, 9)
    product = patches @ w.reshape(9, 1)
    direct = F.conv(x[None, ..., None], w[..., None, None])
    page.equal("rows: 2·2 windows", patches.shape[0], stated=4)
    page.equal("columns: 3·3·1", patches.shape[1], stated=9)
    page.equal("1·1 + 0·(-1) + 0·2 + 1·1 + 0·1 + 1·1", float(product[0, 0]), stated=3)
    page.equal(
        "max |product - conv|", float(jnp.abs(product.reshape(2, 2) - direct[0, ..., 0]).max()), stated=0
    )
    page.picture(
        "im2col",
        _im2col_figure(x, w, patches, product),
        """The framed window of x is the framed row of the matrix; its product with w, written as a
        column, is the framed number of y.""",
        """x에서 테두리를 친 창이 행렬에서는 테두리를 친 행이다. 이 행과 열로 편 w를 곱하면 y에서 테두리를
        친 숫자가 나온다.""",
    )

    page.say(
        """The price is memory: neighbouring windows overlap, so that a 3x3 kernel with stride 1 writes
        nearly every element nine times. Libraries therefore form the matrix piece by piece, or never.
        Here are both ways on this machine: batch 8, 3x3 kernels, padding 1, as many filters as channels,
        medians of 9 calls.""",
        """대가는 메모리이다. 이웃한 창은 서로 겹치므로, 3x3 커널을 스트라이드 1로 쓰면 원소 하나를 거의
        아홉 번씩 적게 된다. 그래서 실제 라이브러리는 행렬을 조금씩 나누어 만들거나 아예 만들지 않는다.
        다음은 이 컴퓨터에서 두 방법을 비교한 것이다. 배치 8, 3x3 커널, 패딩 1, 필터 수는 채널 수와
        같으며, 9번 실행한 중앙값이다.""",
    )
    rows = []
    for side, channels in ((56, 16), (28, 32), (14, 64)):
        keys = jax.random.split(jax.random.key(side))
        images = jax.random.normal(keys[0], (8, side, side, channels))
        kernel = jax.random.normal(keys[1], (3, 3, channels, channels)) / (3 * channels**0.5)
        calls = [jax.jit(lambda x, w: F.conv(x, w, padding=1))]
        calls += [jax.jit(lambda x, w: F.conv_as_matmul(x, w, padding=1))]
        one, other = (call(images, kernel) for call in calls)
        page.at_most(
            f"{side}x{side}x{channels}: max |product - conv|", float(jnp.abs(one - other).max()), 1e-4
        )
        times = [f"{_median_time(call, images, kernel) * 1e3:.2f} ms" for call in calls]
        matrix = jax.eval_shape(lambda x: F.extract_patches(x, 3, padding=1), images)
        sizes = [f"{array.size * 4 / 1e6:.1f}" for array in (images, matrix)]
        rows.append([f"{side}x{side}x{channels}", *times, *sizes])
    page.table(["x", "F.conv", "F.conv_as_matmul", "MB(x)", "MB(patches)"], rows)
    page.equal("patches / x, p = 1", matrix.size / images.size, stated=9)


def fully_connected_as_convolution(page: Page) -> None:
    """A filter as large as the map is a neuron that sees everything."""
    page.title("A fully connected layer is a convolution", "완전 연결층도 합성곱이다")
    page.say(
        """A neuron of a fully connected layer has a weight for every element of the map. So has a filter
        that is as large as the map, and it fits in one place only. Ten filters of 24x24x10 on a 24x24x10
        map therefore give 1x1x10: ten numbers, those of a dense layer with ten outputs.""",
        """완전 연결층의 뉴런은 특징 맵의 모든 원소에 가중치를 하나씩 둔다. 크기가 맵과 똑같은 필터도
        그렇고, 이런 필터는 놓을 자리가 한 곳뿐이다. 따라서 24x24x10 맵에 24x24x10 필터 열 개를 쓰면
        1x1x10, 곧 숫자 열 개가 나온다. 출력이 열 개인 완전 연결층의 결과와 똑같다.""",
    )
    page.formula("F.conv(x, F.dense_to_conv(W, (24, 24)))  =  x.reshape(1, -1) @ W")
    keys = jax.random.split(jax.random.key(0), 3)
    small = jax.random.normal(keys[0], (1, 24, 24, 10))
    weights = jax.random.normal(keys[1], (24 * 24 * 10, 10)) / 24
    filters = F.dense_to_conv(weights, (24, 24))
    answer = F.conv(small, filters)
    page.equal("24 - 24 + 1", answer.shape[1], stated=1)
    page.equal("filters", answer.shape[3], stated=10)
    page.equal("24·24·10·10", filters.size, stated=57_600)
    dense = small.reshape(1, -1) @ weights
    page.equal("max |conv - dense|", float(jnp.abs(answer[:, 0, 0] - dense).max()), stated=0, tolerance=1e-4)

    page.say(
        """Seen as a convolution, the layer takes a larger map as well: on 30x34 it has 7x11 places and
        answers at each of them, in one pass and sharing what the places have in common. A classifier
        becomes a detector. Here a pattern that filter 3 likes is hidden in noise with its corner at (2,
        7), and that is where the map of answers is brightest.""",
        """합성곱으로 보면 더 큰 맵도 받을 수 있다. 30x34 맵에는 창을 놓을 자리가 7x11곳이므로, 한 번의
        계산으로 자리마다 답을 내고 겹치는 계산은 함께 쓴다. 분류기가 그대로 검출기가 되는 셈이다.
        여기서는 3번 필터가 좋아하는 무늬를 잡음 속 (2, 7) 자리에 숨겨 두었는데, 답의 맵에서 바로 그
        자리가 가장 밝다.""",
    )
    noise = jax.random.normal(keys[2], (1, 30, 34, 10))
    large = noise.at[:, 2:26, 7:31].add(12 * filters[None, ..., 3])
    answers = F.conv(large, filters)
    page.equal("30 - 24 + 1", answers.shape[1], stated=7)
    page.equal("34 - 24 + 1", answers.shape[2], stated=11)
    one = large[:, 2:26, 7:31].reshape(1, -1) @ weights
    page.equal(
        "max |conv[2, 7] - dense(x[2:26, 7:31])|",
        float(jnp.abs(answers[:, 2, 7] - one).max()),
        stated=0,
        tolerance=1e-3,
    )
    row, column = divmod(int(jnp.argmax(answers[0, ..., 3])), answers.shape[2])
    page.equal("argmax y[:, :, 3]: row", row, stated=2)
    page.equal("argmax y[:, :, 3]: column", column, stated=7)
    page.picture(
        "fully_connected_as_convolution",
        _sliding_dense_figure(small, answer, large, answers),
        """Above, the 24x24 map: one place, ten numbers. Below, the 30x34 map: the window at (0, 0) and at
        (2, 7), and the 7x11 answers of filter 3, framed alike.""",
        """위는 24x24 맵으로, 자리가 하나이고 숫자가 열 개이다. 아래는 30x34 맵으로, (0, 0)과 (2, 7)에
        놓은 창과 3번 필터의 7x11개 답을 같은 색 테두리로 표시했다.""",
    )


def _median_time(call: Callable[[Array, Array], Array], images: Array, kernel: Array) -> float:
    """Seconds, after a first call that compiles."""
    call(images, kernel).block_until_ready()
    times = []
    for _ in range(9):
        began = time.perf_counter()
        call(images, kernel).block_until_ready()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _im2col_figure(x: Array, w: Array, patches: Array, product: Array) -> Figure:
    figure = draw.new_figure(12, 5)
    image, arrow, matrix, times, column, equals, result, back, y = draw.in_a_row(
        figure, (4.2, 0.8, 9.2, 0.8, 1.4, 0.8, 1.4, 0.8, 2.2)
    )
    draw.numbers(image, x, title="x", largest=3)
    draw.window(image, 0, 1, 3, 3)
    draw.sign(arrow, r"$\rightarrow$")
    draw.numbers(matrix, patches, title="patches: 4 x 9", largest=3)
    draw.window(matrix, 1, 0, 1, 9)
    draw.sign(times, r"$\times$")
    draw.numbers(column, w.reshape(9, 1), title="w: 9 x 1", largest=3)
    draw.sign(equals, "=")
    draw.numbers(result, product, title="4 x 1", largest=8)
    draw.window(result, 1, 0, 1, 1)
    draw.sign(back, r"$\rightarrow$")
    draw.numbers(y, product.reshape(2, 2), title="y", largest=8)
    draw.window(y, 0, 1, 1, 1)
    for axes in (image, matrix, column, result, y):  # squares of one size
        middle = sum(axes.get_ylim()) / 2
        axes.set_ylim(middle + 4.6, middle - 4.6)
    return figure


def _sliding_dense_figure(small: Array, answer: Array, large: Array, answers: Array) -> Figure:
    figure = draw.new_figure(10.4, 7)
    (above, arrow_above, one), (below, arrow_below, many) = figure.subplots(2, 3, width_ratios=(30, 4, 28))
    draw.image(above, small[0, ..., 0], title="x: 24 x 24 x 10")
    draw.window(above, 0, 0, 24, 24)
    above.set(xlim=(-5, 29), ylim=(27, -3))
    draw.sign(arrow_above, r"$\rightarrow$")
    draw.numbers(one, answer.reshape(1, 10), title="y: 1 x 1 x 10", size=8.5, text="{:.1f}")
    draw.window(one, 0, 0, 1, 10)
    draw.image(below, large[0, ..., 0], title="x: 30 x 34 x 10")
    draw.window(below, 0, 0, 24, 24)
    draw.window(below, 2, 7, 24, 24, colour=draw.BLUE)
    draw.sign(arrow_below, r"$\rightarrow$")
    draw.image(many, answers[0, ..., 3], title="y: 7 x 11 x 10,  y[:, :, 3]")
    draw.window(many, 0, 0, 1, 1)
    draw.window(many, 2, 7, 1, 1, colour=draw.BLUE)
    return figure
