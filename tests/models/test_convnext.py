"""ConvNeXt of both versions, against their authors' network as written here in torch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.convnext import ConvNeXt, convnext
from jaxcnn.pretrained.layers import entries
from jaxcnn.pretrained.names.convnext import original, timm, torchvision
from tests.nn.filled import filled
from tests.reference import normal

DEPTHS, CHANNELS = (1, 2), (4, 6)


def authors_network(torch, *, grn):
    """A small ConvNeXt with the attribute names of the authors' repositories, channels first."""
    tnn = torch.nn

    def norm(x, layer):
        return layer(x.movedim(1, -1)).movedim(-1, 1)

    class ResponseNorm(tnn.Module):
        def __init__(self, channels):
            super().__init__()
            self.gamma = tnn.Parameter(torch.zeros(1, 1, 1, channels))
            self.beta = tnn.Parameter(torch.zeros(1, 1, 1, channels))

        def forward(self, x):  # equations 1 to 3 of the second paper, channels last
            norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
            return self.gamma * x * norms / (norms.mean(-1, keepdim=True) + 1e-6) + self.beta + x

    class Block(tnn.Module):
        def __init__(self, channels):
            super().__init__()
            self.dwconv = tnn.Conv2d(channels, channels, 7, padding="same", groups=channels)
            self.norm = tnn.LayerNorm(channels, eps=1e-6)
            self.pwconv1 = tnn.Linear(channels, 4 * channels)
            self.pwconv2 = tnn.Linear(4 * channels, channels)
            if grn:
                self.grn = ResponseNorm(4 * channels)
            else:
                self.gamma = tnn.Parameter(torch.full((channels,), 1e-6))

        def forward(self, x):
            y = tnn.functional.gelu(self.pwconv1(self.norm(self.dwconv(x).movedim(1, -1))))
            y = self.pwconv2(self.grn(y)) if grn else self.gamma * self.pwconv2(y)
            return x + y.movedim(-1, 1)

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            pairs = [[tnn.Conv2d(3, CHANNELS[0], 4, 4), tnn.LayerNorm(CHANNELS[0], eps=1e-6)]]
            for old, new in zip(CHANNELS[:-1], CHANNELS[1:], strict=True):
                pairs.append([tnn.LayerNorm(old, eps=1e-6), tnn.Conv2d(old, new, 2, 2)])
            self.downsample_layers = tnn.ModuleList(tnn.ModuleList(pair) for pair in pairs)
            self.stages = tnn.ModuleList(
                tnn.Sequential(*[Block(width) for _ in range(depth)])
                for depth, width in zip(DEPTHS, CHANNELS, strict=True)
            )
            self.norm = tnn.LayerNorm(CHANNELS[-1], eps=1e-6)
            self.head = tnn.Linear(CHANNELS[-1], 5)

        def forward(self, x):
            for pair, stage in zip(self.downsample_layers, self.stages, strict=True):
                for layer in pair:
                    x = norm(x, layer) if isinstance(layer, tnn.LayerNorm) else layer(x)
                x = stage(x)
            return self.head(self.norm(x.mean((-2, -1))))

    return Network()


@pytest.mark.parametrize("grn", [False, True])
def test_logits_and_gradients_are_those_of_the_authors_network(grn):
    torch = pytest.importorskip("torch")
    theirs = authors_network(torch, grn=grn)
    rng = np.random.default_rng(0)
    for tensor in theirs.parameters():
        tensor.data = torch.from_numpy(rng.normal(scale=0.5, size=tuple(tensor.shape)).astype(np.float32))
    x, weight = normal(0, 2, 43, 34, 3), normal(1, 2, 5)
    expected = theirs(torch.from_numpy(x).movedim(-1, 1))
    (expected * torch.from_numpy(weight)).sum().backward()

    ours = filled(lambda: ConvNeXt(DEPTHS, CHANNELS, grn=grn, num_classes=5, rngs=nnx.Rngs(0)))
    found, parameters = list(entries(original(ours))), dict(theirs.named_parameters())
    assert sorted(entry.key for entry in found) == sorted(parameters)
    for entry in found:
        values = parameters[entry.key].detach().numpy()
        assert entry.fits(values.shape), entry.key
        entry.variable.set_value(jnp.asarray(entry.convert(values)))

    graphdef, state = nnx.split(ours)

    @jax.jit
    def step(state):
        def loss(state):
            logits = nnx.merge(graphdef, state)(x)
            return (logits * weight).sum(), logits

        return jax.grad(loss, has_aux=True)(state)

    of_state, logits = step(state)
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    nnx.update(ours, of_state)  # every variable now holds its gradient
    for entry in found:
        gradient = parameters[entry.key].grad
        assert gradient is not None
        wanted = entry.convert(gradient.numpy())
        atol = 1e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(entry.variable[...], wanted, rtol=1e-3, atol=atol, err_msg=entry.key)


def timms_key(key):
    """The authors' name of an array as timm's."""
    for pattern, replacement in (
        (r"^downsample_layers\.0", "stem"),
        (r"^stages\.(\d+)", r"stages.\1.blocks"),
        (r"^downsample_layers\.(\d+)", r"stages.\1.downsample"),
        (r"^(norm|head)\.", r"head.\1."),
        (r"^head\.head", "head.fc"),
        (r"dwconv", "conv_dw"),
        (r"pwconv", "mlp.fc"),
        (r"grn\.gamma", "mlp.grn.weight"),
        (r"grn\.beta", "mlp.grn.bias"),
    ):
        key = re.sub(pattern, replacement, key)
    return key


@pytest.mark.parametrize("grn", [False, True])
def test_timm_has_other_names_for_the_same_layers(grn):
    model = nnx.eval_shape(lambda: ConvNeXt((2, 1, 1), (4, 6, 8), grn=grn, rngs=nnx.Rngs(0)))
    renamed = {id(entry.variable): timms_key(entry.key) for entry in entries(original(model))}
    assert {id(entry.variable): entry.key for entry in entries(timm(model))} == renamed
    parameters = [id(variable) for _, variable in nnx.iter_graph(model) if isinstance(variable, nnx.Param)]
    assert sorted(renamed) == sorted(parameters)


def test_torchvision_has_other_names_and_axes_for_the_same_layers():
    model = nnx.eval_shape(lambda: ConvNeXt((1, 1), (4, 6), rngs=nnx.Rngs(0)))
    found = {entry.key: entry for entry in entries(torchvision(model))}
    assert found["features.2.1.weight"].shape == (6, 4, 2, 2)
    assert found["features.3.0.block.0.weight"].shape == (6, 1, 7, 7)
    assert found["features.3.0.block.3.weight"].fits((24, 6))
    assert found["features.3.0.layer_scale"].fits((6, 1, 1))
    assert {"features.0.1.bias", "features.1.0.block.2.bias", "classifier.0.bias", "classifier.2.bias"} < set(
        found
    )


# Millions, as the second paper has them, with the digits that timm gives.
VERSION_2 = {
    "atto": 3.71,
    "femto": 5.23,
    "pico": 9.07,
    "nano": 15.62,
    "tiny": 28.64,
    "base": 88.72,
    "large": 197.96,
    "huge": 660.29,
}


@pytest.mark.parametrize("size", VERSION_2)
def test_the_second_version_has_the_published_numbers_of_parameters(size):
    model = nnx.eval_shape(lambda: convnext(f"convnextv2_{size}", rngs=nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert round(count / 1e6, 2) == VERSION_2[size]


def test_taps_have_every_resolution():
    model = nnx.eval_shape(lambda: ConvNeXt((1, 1, 2), (4, 6, 8), num_classes=5, rngs=nnx.Rngs(0)))
    found = nnx.eval_shape(lambda model: model.features(jnp.zeros((2, 43, 34, 3))), model)
    assert {name: value.shape for name, value in found.items()} == {
        "stem": (2, 10, 8, 4),
        "stage1": (2, 10, 8, 4),
        "stage2": (2, 5, 4, 6),
        "stage3": (2, 2, 2, 8),
        "avg_pool": (2, 8),
        "norm": (2, 8),
        "logits": (2, 5),
    }


def test_drop_path_rates_grow_linearly_with_depth():
    def rates(build):
        model = nnx.eval_shape(build)
        blocks = [block for layer in model.layers for block in layer]
        return [0.0 if block.drop_path is None else block.drop_path.rate for block in blocks]

    tiny = rates(lambda: convnext("convnext_tiny", rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(tiny, np.linspace(0, 0.1, 18))
    atto = rates(lambda: convnext("convnextv2_atto", drop_path=0.4, rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(atto, np.linspace(0, 0.4, 12))
    assert not any(rates(lambda: convnext("convnext_tiny", drop_path=0.0, rngs=nnx.Rngs(params=0))))
    assert not any(rates(lambda: convnext("convnextv2_atto", rngs=nnx.Rngs(params=0))))


def test_kernels_begin_with_a_deviation_of_0_02_and_the_rest_is_constant():
    model = ConvNeXt((1,), (32,), num_classes=50, rngs=nnx.Rngs(0))
    constants = {"bias": 0.0, "scale": 1.0, "layer_scale": np.float32(1e-6)}
    for path, variable in nnx.iter_graph(model):
        if not isinstance(variable, nnx.Param):
            continue
        name = str(path[-1])
        if name == "kernel":
            np.testing.assert_allclose(np.std(variable[...]), 0.02, rtol=0.1, err_msg=str(path))
        else:
            np.testing.assert_array_equal(variable[...], constants[name], err_msg=str(path))


def test_errors_name_the_argument(unchecked):
    with pytest.raises(
        ValueError, match=r"^ConvNeXt: depths and channels must .* got depths=\(2, 2\), channels=\(8,\)"
    ):
        ConvNeXt((2, 2), (8,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^ConvNeXt: depths and channels must have one positive int"):
        ConvNeXt((), (), rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match='^convnext: unknown name .convnext_v2_tiny.; did you mean "convnextv2_tiny"'
    ):
        convnext("convnext_v2_tiny", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^DropPath: rate must be a Python number in"):
        nnx.eval_shape(lambda: ConvNeXt((1, 1), (4, 8), drop_path=1.5, rngs=nnx.Rngs(0)))


def test_the_smallest_images(unchecked):
    model = nnx.eval_shape(lambda: ConvNeXt((1, 1, 1), (4, 6, 8), num_classes=5, rngs=nnx.Rngs(0)))
    logits = lambda *size: nnx.eval_shape(lambda model: model(jnp.zeros((2, *size, 3))), model)  # noqa: E731
    assert logits(16, 17).shape == (2, 5)
    with pytest.raises(ValueError, match="^ConvNeXt: images must be at least 16 x 16, got 40 x 15"):
        logits(40, 15)
