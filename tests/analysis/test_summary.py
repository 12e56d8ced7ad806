"""Summaries against counts by hand, published figures, and what a bump of one pixel changes."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn.analysis import Row, count_macs, count_parameters, summarize
from jaxcnn.models import create_model
from jaxcnn.nn import BatchNorm, Conv, ConvTranspose, Dropout, MaxPool, PixelShuffle, SqueezeExcitation
from tests.models.test_published_figures import FIGURES


def abstract(name, **options):
    return nnx.eval_shape(lambda: create_model(name, rngs=nnx.Rngs(0), **options))


class Chain(nnx.Module):
    """Layers and functions, one after the other; the functions have no row unless they pool."""

    def __init__(self, *layers):
        self.layers = nnx.List([layer for layer in layers if isinstance(layer, nnx.Module)])
        self.order = tuple(None if isinstance(layer, nnx.Module) else layer for layer in layers)

    def __call__(self, x):
        modules = iter(self.layers)
        for layer in self.order:
            x = next(modules)(x) if layer is None else layer(x)
        return x


def conv(channels_in, channels_out, window, **options):
    return Conv(channels_in, channels_out, window, rngs=nnx.Rngs(0), **options)


def test_every_number_by_hand():
    net = nnx.eval_shape(
        lambda: Chain(
            conv(6, 8, (3, 5), stride=2, padding=1, groups=2),
            BatchNorm(8),
            lambda x: F.max_pool(x, (3, 2), stride=(1, 2), dilation=1),
            conv(8, 4, 3, padding=2, dilation=2, use_bias=False),
            F.global_avg_pool,
            nnx.Linear(4, 5, rngs=nnx.Rngs(0)),
            Dropout(0.5, rngs=nnx.Rngs(0)),
        )
    )
    # 9 x 13: (9 + 2 - 3) // 2 + 1 = 5 rows, (13 + 2 - 5) // 2 + 1 = 6 columns; pooled 3 x 3.
    first, second, linear = 2 * 30 * 15 * 3 * 8, 2 * 9 * 9 * 8 * 4, 2 * 4 * 5
    total = first + second + linear
    summary = summarize(net, (2, 9, 13, 6))
    assert summary.rows == (
        Row("layers.0", "Conv", (2, 5, 6, 8), 15 * 3 * 8 + 8, first, (3, 5), (2, 2), first / total),
        Row("layers.1", "BatchNorm", (2, 5, 6, 8), 16, 0, (3, 5), (2, 2), 0.0),
        # rows 3 + 2 * 2, columns 5 + 1 * 2
        Row("", "max_pool", (2, 3, 3, 8), 0, 0, (7, 7), (2, 4), 0.0),
        # rows 7 + 2 * 2 * 2, columns 7 + 2 * 2 * 4
        Row("layers.2", "Conv", (2, 3, 3, 4), 9 * 8 * 4, second, (15, 23), (2, 4), second / total),
        Row("", "global_avg_pool", (2, 4), 0, 0, (9, 13), (9, 13), 0.0),
        Row("layers.3", "Linear", (2, 5), 25, linear, (9, 13), (9, 13), linear / total),
        Row("layers.4", "Dropout", (2, 5), 0, 0, (9, 13), (9, 13), 0.0),
    )
    assert (summary.model, summary.input_shape) == ("Chain", (2, 9, 13, 6))
    assert (summary.parameters, summary.macs) == (count_parameters(net), total)


def test_the_table():
    net = nnx.eval_shape(
        lambda: Chain(conv(3, 8, 3), MaxPool(2), ConvTranspose(8, 2, 2, stride=4, rngs=nnx.Rngs(0)))
    )
    assert str(summarize(net, (1, 12, 9, 3))).splitlines() == [
        "layer     kind           output          parameters    MACs  share  field  stride",
        "layers.0  Conv           (1, 10, 7, 8)          224  15,120  94.0%  3 x 3  1 x 1",
        "layers.1  MaxPool        (1, 5, 3, 8)                               4 x 4  2 x 2",
        "layers.2  ConvTranspose  (1, 18, 10, 2)          66     960   6.0%  4 x 4  0.5 x 0.5",
        "Chain of x (1, 12, 9, 3): 290 parameters, 16,080 MACs",
    ]


@pytest.mark.parametrize(
    "name", ["alexnet", "densenet121", "googlenet", "mobilenet_v3_small", "regnet_y_400mf"]
)
def test_published_figures_and_rows_that_add_up(name):
    check_figures(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_all_published_figures(name):
    check_figures(name)


def check_figures(name):
    parameters, gmacs, size = FIGURES[name]
    model = abstract(name)
    summary = summarize(model, (1, size, size, 3))
    assert summary.parameters == parameters == count_parameters(model)
    assert summary.macs == count_macs(model, (1, size, size, 3))
    assert summary.macs / 1e9 == pytest.approx(gmacs, rel=1e-2, abs=6e-4)  # the table has three decimals
    assert sum(row.parameters for row in summary.rows) == parameters
    assert sum(row.macs for row in summary.rows) == summary.macs
    assert sum(row.share for row in summary.rows) == pytest.approx(1)
    assert summary.rows[-1].output == (1, 1000) or name.startswith(("googlenet", "inception", "squeezenet"))


@pytest.mark.parametrize(
    ("name", "kind", "field", "stride"),
    [
        # Araujo, Norris and Sim 2019, table 1: AlexNet, VGG-16; for ResNets see below.
        ("alexnet", "max_pool", 195, 32),
        ("vgg16", "max_pool", 212, 32),
        # 11 after the stem and its pooling; a 3x3 convolution adds 2 * stride. Two in a block of resnet18,
        # the first of a stage at the stride before: 11 + 4*8 + (8 + 3*16) + (16 + 3*32) + (32 + 3*64) = 435.
        ("resnet18", "BatchNorm", 435, 32),
        # One in each of 3, 4, 6 and 3 blocks: 11 + 3*8 + (8 + 3*16) + (16 + 5*32) + (32 + 2*64) = 427. With
        # the stride in the first 1x1 convolution, as in the paper, 11 + 3*8 + 4*16 + 6*32 + 3*64 = 483.
        ("resnet50", "BatchNorm", 427, 32),
        # Araujo et al., table 1, for a network whose branches differ.
        ("inception_v3", "BatchNorm", 1311, 32),
    ],
)
def test_textbook_receptive_fields(name, kind, field, stride):
    size = 299 if name == "inception_v3" else 224
    maps = [
        row for row in summarize(abstract(name), (1, size, size, 3)).rows if row.kind == kind and row.output
    ]
    assert [max(fields) for fields in zip(*(row.receptive_field for row in maps), strict=True)] == [field] * 2
    assert maps[-1].stride == (stride, stride)


class Residual(nnx.Module):
    def __init__(self, *branches):
        self.branches = nnx.List(branches)

    def __call__(self, x):
        return sum(branch(x) for branch in self.branches)


def joined(axis):
    return lambda x: jnp.concatenate([x, 2.0 * x], axis)


# Functions of (1, height, width, 2), monotonous so that a bump in what an element sees shows.
NETWORKS = {
    "strided": lambda: Chain(
        conv(2, 3, (3, 2), stride=(2, 1)), nnx.relu, conv(3, 2, (2, 5), stride=2, padding=2)
    ),
    "dilated": lambda: Chain(conv(2, 2, (3, 2), dilation=(2, 3)), conv(2, 2, 3, stride=2), conv(2, 2, 2)),
    "pooled": lambda: Chain(
        lambda x: F.max_pool(x, (3, 2), stride=2, padding=1),
        conv(2, 2, 3),
        lambda x: F.avg_pool(x, (2, 3), stride=1),
    ),
    "grouped": lambda: Chain(conv(2, 4, 3, groups=2, stride=2), conv(4, 4, 3, groups=4), conv(4, 2, 1)),
    "transposed": lambda: Chain(
        ConvTranspose(2, 2, (4, 3), stride=(2, 3), rngs=nnx.Rngs(0)),
        conv(2, 2, 3, stride=(3, 1)),
        conv(2, 2, 2),
    ),
    "transposed twice": lambda: Chain(
        conv(2, 2, 3, stride=2),
        ConvTranspose(2, 2, 3, stride=2, padding=1, rngs=nnx.Rngs(0)),
        ConvTranspose(2, 2, 2, stride=2, rngs=nnx.Rngs(0)),
        conv(2, 2, (2, 3)),
    ),
    "residual": lambda: Residual(
        conv(2, 2, 3, stride=2, padding=1), Chain(conv(2, 2, (5, 1), padding=(2, 0)), conv(2, 2, 1, stride=2))
    ),
    "concatenated": lambda: Chain(
        conv(2, 2, 2), joined(3), conv(4, 2, 3, stride=2), lambda x: jnp.flip(x, (1, 2)), conv(2, 2, (1, 2))
    ),
    "sliced": lambda: Chain(conv(2, 2, 3), lambda x: x[:, ::3, 1::2], conv(2, 2, 2)),
    "shuffled": lambda: Chain(conv(2, 8, 3, stride=2), PixelShuffle(2), conv(2, 2, 2)),
    "unshuffled": lambda: Chain(
        conv(2, 2, 2), lambda x: F.pixel_unshuffle(x[:, :24, :16], 2), conv(8, 2, (2, 3))
    ),
    "reshaped": lambda: Chain(
        conv(2, 2, 3, padding=1), lambda x: x.reshape(-1, 13, 2, 9, 2, 2).max((2, 4)), conv(2, 2, 2)
    ),
    "transposed axes": lambda: Chain(
        conv(2, 2, (2, 5)),
        lambda x: jnp.swapaxes(x, 1, 2),
        conv(2, 2, (3, 1)),
        lambda x: jnp.swapaxes(x, 1, 2),
    ),
    "padded": lambda: Chain(conv(2, 2, 3, padding=1, padding_mode="reflect"), conv(2, 2, 2, stride=3)),
    "a matrix product on the channels": lambda: Chain(
        conv(2, 2, 3), nnx.Linear(2, 2, rngs=nnx.Rngs(0)), conv(2, 2, 3)
    ),
    "resized": lambda: Chain(
        conv(2, 2, 2), lambda x: F.resize(x, (50, 34), method="nearest"), conv(2, 2, (1, 3))
    ),
    "bilinear": lambda: Chain(
        conv(2, 2, 3, stride=2),
        lambda x: F.resize(x, (24, 16)),
        conv(2, 2, (2, 1)),
        lambda x: F.resize(x, (50, 10)),
    ),
    "adaptive": lambda: Chain(conv(2, 2, 3, padding=1), lambda x: F.adaptive_avg_pool(x, (13, 6))),
    "gated": lambda: Chain(
        conv(2, 2, 3), jax.checkpoint(lambda x: jax.jit(nnx.relu)(x) * 2.0), conv(2, 2, (1, 3))
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_fields_and_strides_are_what_a_bump_of_one_pixel_changes(name):
    net, size = Chain(NETWORKS[name](), conv(2, 2, 1)), (26, 18)
    nnx.update(net, jax.tree.map(lambda weight: 0.1 + jnp.abs(weight), nnx.state(net, nnx.Param)))
    sees = seen_pixels(net, size)
    row: Any = summarize(net, (1, *size, 2)).rows[-1]
    for axis in (0, 1):
        pairs: Any = sees.any((1 - axis, 3 - axis))  # (size, out)
        pairs = pairs[:, pairs.any(0)]  # without what sees padding alone
        first, last = pairs.argmax(0), size[axis] - 1 - pairs[::-1].argmax(0)
        assert row.receptive_field[axis] == (last - first + 1).max(), f"axis {axis}"
        inside = (first > 0) & (last < size[axis] - 1)
        moved = np.polyfit(np.arange(len(first))[inside], (first + last)[inside] / 2, 1)[0]
        assert row.stride[axis] == pytest.approx(abs(moved), rel=0.12), f"axis {axis}"


def seen_pixels(net, size):
    """Which pixels (height, width) change which elements (height_out, width_out) of the result."""
    bumps = 100 * jnp.eye(1 + size[0] * size[1])[:, 1:]  # the first has none
    graphdef, state = nnx.split(net)
    results = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(
        state, jnp.ones((len(bumps), *size, 2)) + bumps.reshape(-1, *size, 1)
    )
    changed = np.asarray(results[1:] != results[:1]).any(-1)
    return np.reshape(changed, (*size, *changed.shape[1:]))


def test_a_squeeze_and_excitation_sees_the_whole_image_at_the_stride_of_its_input():
    net = nnx.eval_shape(
        lambda: Chain(conv(3, 4, 3, stride=2), SqueezeExcitation(4, 2, rngs=nnx.Rngs(0)), conv(4, 2, 3))
    )
    rows = summarize(net, (1, 15, 21, 3)).rows
    assert [(row.path, row.kind, row.output, row.receptive_field, row.stride) for row in rows] == [
        ("layers.0", "Conv", (1, 7, 10, 4), (3, 3), (2, 2)),
        ("layers.1", "global_avg_pool", (1, 4), (15, 21), (15, 21)),
        ("layers.1.reduce", "Conv", (1, 1, 1, 2), (15, 21), (15, 21)),
        ("layers.1.expand", "Conv", (1, 1, 1, 4), (15, 21), (15, 21)),
        ("layers.2", "Conv", (1, 5, 8, 2), (15, 21), (2, 2)),
    ]


def attention(x):
    weights = jnp.einsum("bhwc,bijc->bhwij", x, x)
    return jnp.einsum("bhwij,bijc->bhwc", weights, x)


def by_its_own_kernel(x):
    """A convolution whose kernel, 3 x 3, is cut out of x."""
    kernel = x[0, :3, :3, :, None] * jnp.ones((1, 1, 1, 2))
    return F.conv(x, kernel)


UNFOLLOWED = {
    "a gather": lambda x: x[:, jnp.array([3, 1, 0])],
    "a dilated maximum": lambda x: F.max_pool(x, 2, dilation=2),
    "a running sum": lambda x: jnp.cumsum(x, 1),
    "a loop": lambda x: jax.lax.scan(lambda y, _: (nnx.relu(y), None), x, length=3)[0],
    "self-attention": attention,
    "a flattening": lambda x: (x.reshape(1, 70) @ jnp.ones((70, 70))).reshape(x.shape),
    "a kernel made of x": by_its_own_kernel,
}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_what_cannot_be_followed_counts_as_the_whole_image(name):
    net = nnx.eval_shape(lambda: Chain(conv(2, 2, 3, padding=1), UNFOLLOWED[name], conv(2, 1, 1)))
    fields: Any = {row.path: row.receptive_field for row in summarize(net, (1, 7, 5, 2)).rows}
    assert fields["layers.0"] == (3, 3)
    assert fields["layers.1"][0] == 7


def test_a_module_called_twice_has_two_rows_and_its_parameters_once():
    class Twice(nnx.Module):
        def __init__(self):
            self.conv = conv(3, 3, 3)

        def __call__(self, x):
            return self.conv(self.conv(x))

    summary = summarize(nnx.eval_shape(Twice), (1, 9, 7, 3))
    assert [(row.parameters, row.output, row.receptive_field, row.macs) for row in summary.rows] == [
        (84, (1, 7, 5, 3), (3, 3), 35 * 81),
        (0, (1, 5, 3, 3), (5, 5), 15 * 81),
    ]
    assert (summary.parameters, summary.macs) == (84, 50 * 81)


class Scaled(nnx.Module):
    """A layer with parameters of its own around others, one of which it never calls."""

    def __init__(self):
        self.scales = nnx.List([nnx.Param(jnp.ones(4)), nnx.Param(jnp.ones(4))])
        self.inner = conv(3, 4, 1)
        self.head = nnx.Linear(4, 7, rngs=nnx.Rngs(0))

    def __call__(self, x):
        y = self.inner(x) * self.scales[0][None, None, None] * self.scales[1][None, None, None]
        return jnp.einsum("bhwc,dc->bhwd", y, jnp.ones((5, 4)))


def test_own_parameters_and_products_and_layers_that_evaluation_does_not_call():
    summary = summarize(nnx.eval_shape(Scaled), (2, 3, 5, 3))
    assert summary.rows == (
        Row("inner", "Conv", (2, 3, 5, 4), 16, 30 * 12, (1, 1), (1, 1), 12 / 32),
        Row("", "Scaled", (2, 3, 5, 5), 8, 30 * 20, (1, 1), (1, 1), 20 / 32),
        Row("head", "Linear", None, 35, 0, None, None, 0.0),
    )
    assert "head   Linear  not called" in str(summary)
    assert (summary.parameters, summary.macs) == (59, 30 * 32)


def test_auxiliary_classifiers_count_though_evaluation_does_not_call_them():
    rows = summarize(abstract("googlenet", aux_heads=True), (1, 224, 224, 3)).rows
    assert {row.path.split(".")[0] for row in rows if row.output is None} == {"aux_heads"}
    assert sum(row.parameters for row in rows) == 13_004_888


class Scan(nnx.Module):
    """A matrix product in each step of a scan."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((4, 4)))

    def __call__(self, x):
        return jax.lax.scan(lambda y, _: (y @ self.kernel[...], None), x, length=5)[0]


def test_a_product_in_a_scan_counts_in_each_step_and_vectors_have_no_field():
    row = Row("", "Scan", (3, 4), 16, 5 * 3 * 16, None, None, 1.0)
    assert summarize(nnx.eval_shape(Scan), (3, 4)).rows == (row,)
    assert count_macs(Scan(), (3, 4)) == row.macs


class Remat(nnx.Module):
    """Layers that are split and merged before they are called."""

    def __init__(self):
        self.first = conv(2, 2, 3)
        self.blocks = nnx.List([conv(2, 2, 3, stride=2), BatchNorm(2)])

    def __call__(self, x):
        for layer in (self.first, *self.blocks):
            x = nnx.remat(lambda layer, x: layer(x))(layer, x)
        return x


def test_layers_are_found_where_the_model_splits_and_merges_them():
    rows = summarize(nnx.eval_shape(Remat), (1, 9, 9, 2)).rows
    assert [(row.path, row.kind, row.receptive_field) for row in rows] == [
        ("first", "Conv", (3, 3)),
        ("blocks.0", "Conv", (5, 5)),
        ("blocks.1", "BatchNorm", (5, 5)),
    ]


class NoPytree(nnx.Module, pytree=False):
    def __init__(self):
        self.layers = [conv(2, 3, 2)]

    def __call__(self, x):
        return {"y": self.layers[0](x), "number": 3}


def test_a_module_that_is_no_pytree_and_a_result_that_is_no_array():
    (row,) = summarize(nnx.eval_shape(NoPytree), (1, 4, 4, 2)).rows
    assert (row.path, row.output) == ("layers.0", (1, 3, 3, 3))


def test_the_model_stays_as_it_is():
    model: Any = Chain(conv(3, 4, 3), BatchNorm(4), Dropout(0.5, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    kinds = [type(module) for _, module in nnx.iter_modules(model)]
    summarize(model, (1, 8, 8, 3))
    assert [type(module) for _, module in nnx.iter_modules(model)] == kinds
    graph_after, state_after = nnx.split(model)
    assert graph == graph_after
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, state, state_after))
    assert not model.layers[1].use_running_average


def test_errors(unchecked):
    model, name, shape = abstract("lenet5"), cast("Any", "lenet5"), cast("Any", (1.5, 32, 32, 3))
    with pytest.raises(ValueError, match="^summarize: input_shape must be at least 1, got 0"):
        summarize(model, (0, 32, 32, 3))
    with pytest.raises(ValueError, match="^LeNet5: x must have height and width 32 x 32, got 28 x 28"):
        summarize(model, (1, 28, 28, 3))
    with pytest.raises(TypeError, match="^summarize: model must be a Flax NNX module, got str"):
        summarize(name, (1, 32, 32, 3))
    with pytest.raises(TypeError, match="^summarize: input_shape must be an int, got 1.5"):
        summarize(model, shape)
