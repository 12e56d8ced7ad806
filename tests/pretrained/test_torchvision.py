"""Every network against torchvision's: the same entries, the same logits, the same gradients."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models import create_model
from jaxcnn.pretrained import imagenet_classes, load_torch_weights, published
from jaxcnn.pretrained import names as names_of_families
from jaxcnn.pretrained.layers import entries
from tests.models.torchvision_oracle import empty, oracle, torchvision_models
from tests.reference import normal

OTHERS = ("convnextv2_", "efficientnet_lite")
TORCHVISION = sorted({weights.model for weights in published() if not weights.model.startswith(OTHERS)})

# One member of each family, at its standard size and at another one, and a few more at a small size.
FAMILIES = {
    "alexnet": ((224, 224), (127, 95)),
    "vgg11": ((224, 224), (96, 65)),
    "vgg11_bn": ((96, 65),),
    "googlenet": ((224, 224), (75, 98)),
    "inception_v3": ((299, 299), (107, 141)),
    "resnet18": ((224, 224), (67, 98)),
    "resnext50_32x4d": ((75, 98),),
    "densenet121": ((224, 224), (67, 98)),
    "squeezenet1_0": ((224, 224), (67, 98)),
    "squeezenet1_1": ((67, 98),),
    "mobilenet_v2": ((224, 224), (67, 98)),
    "mobilenet_v3_small": ((224, 224), (67, 98)),
    "mnasnet0_5": ((224, 224), (67, 98)),
    "shufflenet_v2_x0_5": ((224, 224), (67, 98)),
    "efficientnet_b0": ((224, 224), (67, 98)),
    "efficientnet_v2_s": ((384, 384), (67, 98)),
    "regnet_x_400mf": ((224, 224), (67, 98)),
    "regnet_y_400mf": ((224, 224), (67, 98)),
    "convnext_tiny": ((224, 224), (67, 98)),
}
CASES = [(name, sizes[0]) for name, sizes in FAMILIES.items()]


def abstract(name):
    return nnx.eval_shape(lambda: create_model(name, rngs=nnx.Rngs(0)))


def tensors(x):
    torch = pytest.importorskip("torch")

    return torch.from_numpy(x).permute(0, 3, 1, 2)


@cache
def both(name):
    """Our network and torchvision's, with the same random weights, in evaluation mode."""
    theirs = oracle(name)
    ours = abstract(name)
    for _, variable in nnx.iter_graph(ours):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(jax.random.key(0))
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
    load_torch_weights(ours, theirs.state_dict())
    ours.eval()
    return ours, theirs


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_entry_of_torchvisions_network_has_one_place_in_ours(name):
    theirs = empty(name, **({"aux_logits": False} if name == "googlenet" else {}))
    shapes = {key: tuple(t.shape) for key, t in theirs.state_dict().items() if t.ndim}
    model = abstract(name)
    family = names_of_families.of(model)
    assert family is not None
    found = list(entries(names_of_families.schemes(family)[0](model)))
    assert sorted(entry.key for entry in found) == sorted(shapes)
    assert all(entry.fits(shapes[entry.key]) for entry in found)
    ours = [id(v) for _, v in nnx.iter_graph(model) if isinstance(v, nnx.Param | nnx.BatchStat)]
    assert sorted(id(entry.variable) for entry in found) == sorted(ours)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_logits_are_torchvisions(name, size):
    torch = pytest.importorskip("torch")

    ours, theirs = both(name)
    x = normal(0, 2, *size, 3)
    with torch.no_grad():
        expected = theirs(tensors(x)).numpy()
    graphdef, state = nnx.split(ours)
    found = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(nnx.to_pure_dict(state), x)
    assert expected.std() > 1e-3  # the logits tell something
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name, sizes in FAMILIES.items() if len(sizes) == 2])
def test_logits_and_gradients_at_another_size_are_torchvisions(name):
    torch = pytest.importorskip("torch")

    ours, theirs = both(name)
    x = normal(0, 2, *FAMILIES[name][1], 3)
    labels = np.array([3, 141])
    tensor = tensors(x).requires_grad_()
    first = next(parameter for parameter in theirs.parameters() if parameter.ndim == 4)
    logits = theirs(tensor)
    scale = float(
        logits.detach().abs().max()
    )  # random weights make large logits, whose softmax has no gradient
    loss = torch.nn.functional.cross_entropy(logits / scale, torch.from_numpy(labels))
    expected = torch.autograd.grad(loss, (tensor, first))

    graphdef, params, rest = nnx.split(ours, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)

    @jax.jit
    def gradients(params, x):
        def loss(params, x):
            logits = nnx.merge(graphdef, params, rest)(x)
            logp = jax.nn.log_softmax(logits / scale)
            return -(logp[0, labels[0]] + logp[1, labels[1]]) / 2, logits

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    (of_params, of_x), found = gradients(nnx.to_pure_dict(params), x)
    np.testing.assert_allclose(found, logits.detach().numpy(), rtol=0, atol=1e-4 * scale)
    of_kernel = first_kernel(of_params)
    for found, wanted in (
        (of_x.transpose(0, 3, 1, 2), expected[0]),
        (of_kernel.transpose(3, 2, 0, 1), expected[1]),
    ):
        wanted = wanted.numpy()
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


def first_kernel(gradients):
    """The kernel that reads the images: the only one with three channels in."""
    (kernel,) = (leaf for leaf in jax.tree.leaves(gradients) if leaf.ndim == 4 and leaf.shape[2] == 3)
    return kernel


def test_the_table_of_published_weights_is_torchvisions():
    models = torchvision_models()
    for weights in published():
        if weights.model.startswith(OTHERS):
            continue
        (theirs,) = (w for w in models.get_model_weights(weights.model) if w.url.endswith("/" + weights.file))
        assert weights.top1 == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert imagenet_classes() == tuple(theirs.meta["categories"])
        preset, ours = theirs.transforms(), weights.preprocessing
        assert (ours.resize, ours.crop) == (preset.resize_size[0], preset.crop_size[0])
        assert ours.interpolation == preset.interpolation.value
        image = np.random.default_rng(0).integers(0, 256, (ours.resize + 40, ours.resize + 93, 3), np.uint8)
        from PIL import Image

        expected = preset(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        if weights.model in ("googlenet", "inception_v3"):  # torchvision rescales inside these networks
            mean, std = (np.array(values, np.float32) for values in (preset.mean, preset.std))
            expected = (expected * std + mean - 0.5) / 0.5
        np.testing.assert_allclose(ours(image), expected, atol=2e-6)
