"""GoogLeNet: the paper's table, the auxiliary classifiers, what published weights expect."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.googlenet import INCEPTIONS, AuxiliaryHead, GoogLeNet
from jaxcnn.nn import BatchNorm, ConvNormAct, Dropout
from jaxcnn.pretrained import published
from jaxcnn.pretrained.layers import entries
from jaxcnn.pretrained.names import googlenet as names
from tests.models.torchvision_oracle import oracle, torchvision_models
from tests.nn.filled import filled
from tests.reference import normal

SMALL = (4, 4, 4, 4, 4, 4)


def abstract(**options):
    return nnx.eval_shape(lambda: GoogLeNet(**options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(("aux_heads", "count"), [(False, 6_624_904), (True, 13_004_888)])
def test_parameters_are_torchvisions_with_and_without_auxiliary_classifiers(aux_heads, count):
    params = nnx.state(abstract(aux_heads=aux_heads), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_feature_maps_have_the_sizes_of_the_papers_table():
    x = jax.ShapeDtypeStruct((2, 224, 160, 3), jnp.float32)
    maps = nnx.eval_shape(lambda model, x: model.features(x), abstract(aux_heads=True), x)
    shapes = {name: value.shape[1:] for name, value in maps.items()}
    assert shapes["conv1"] == (112, 80, 64)
    assert shapes["max_pool1"] == (56, 40, 64)
    assert shapes["conv3"] == (56, 40, 192)
    assert shapes["max_pool2"] == (28, 20, 192)
    assert (shapes["inception3a"], shapes["inception3b"]) == ((28, 20, 256), (28, 20, 480))
    assert [shapes[f"inception4{letter}"] for letter in "abcde"] == [
        (14, 10, channels) for channels in (512, 512, 512, 528, 832)
    ]
    assert shapes["max_pool4"] == (7, 5, 832)
    assert (shapes["inception5a"], shapes["inception5b"]) == ((7, 5, 832), (7, 5, 1024))
    assert shapes["aux1"] == shapes["aux2"] == shapes["logits"] == (1000,)


def test_auxiliary_logits_are_torchs_on_the_same_feature_map():
    torch = pytest.importorskip("torch")
    theirs = oracle("googlenet", num_classes=11, aux_logits=True)
    arrays = {key: value.numpy() for key, value in theirs.state_dict().items()}
    model = abstract(num_classes=11, aux_heads=True)
    for entry in entries(names.torchvision(model)):
        if entry.key.startswith("aux"):
            entry.variable.set_value(jnp.asarray(entry.convert(arrays[entry.key])))
    for ours, head, channels in zip(model.aux_heads, (theirs.aux1, theirs.aux2), (512, 528), strict=True):
        ours.set_attributes(deterministic=True, use_running_average=True)
        # 4 x 4 cells do not divide 6 x 9 elements: neighbouring cells overlap.
        x = normal(0, 3, 6, 9, channels)
        with torch.no_grad():
            expected = head(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_an_auxiliary_loss_reaches_its_classifier_and_what_is_before_it():
    model = filled(
        lambda: GoogLeNet(((SMALL,), (SMALL,) * 4), num_classes=5, aux_heads=True, rngs=nnx.Rngs(0))
    )
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    rest, x = nnx.to_pure_dict(rest), normal(0, 2, 40, 33, 3)

    @jax.jit
    def grads_of(params):
        def loss(params):
            return (nnx.merge(graphdef, params, rest).features(x, taps=("aux1",))["aux1"] ** 2).sum()

        return jax.grad(loss)(params)

    grads = grads_of(nnx.to_pure_dict(params))
    first, second = grads["aux_heads"].values()
    module_4a, module_4b, *_ = grads["groups"][1].values()

    def reached(part):
        return [bool(jnp.abs(leaf).max() > 0) for leaf in jax.tree.leaves(part)]

    assert all(reached([first, grads["conv1"], module_4a]))
    assert not any(reached([second, grads["output"], module_4b]))


def test_dropout_rates_are_torchvisions_and_zero_means_no_module():
    def rates(**options):
        return [
            m.rate for _, m in nnx.iter_modules(abstract(aux_heads=True, **options)) if isinstance(m, Dropout)
        ]

    assert sorted(rates()) == [0.2, 0.7, 0.7]
    assert sorted(rates(dropout=0.4, aux_dropout=0.0)) == [0.4]
    without = nnx.eval_shape(lambda: GoogLeNet(dropout=0.0, rngs=nnx.Rngs(params=0)))
    assert not nnx.state(without, nnx.RngState)


def test_kernels_are_drawn_with_torchvisions_deviation():
    model = GoogLeNet((), num_classes=50, rngs=nnx.Rngs(0))
    conv = partial(ConvNormAct, rngs=nnx.Rngs(1))
    head = AuxiliaryHead(conv, 16, 50, dropout=0.0, rngs=nnx.Rngs(2))
    for layer in (model.conv1.conv, model.conv3.conv, model.output, head.hidden, head.output):
        kernel = np.asarray(layer.kernel[...])
        assert abs(kernel.mean()) < 0.001
        assert abs(kernel.std() / 0.01 - 1) < 0.1
    norms = [m for _, m in nnx.iter_modules(abstract(aux_heads=True)) if isinstance(m, BatchNorm)]
    assert len(norms) == 59 and all(norm.eps == 0.001 for norm in norms)


def test_names_of_auxiliary_classifiers_are_there_only_with_them():
    without, both = (
        {entry.key for entry in entries(names.torchvision(abstract(aux_heads=aux_heads)))}
        for aux_heads in (False, True)
    )
    assert not [key for key in without if key.startswith(names.OPTIONAL)]
    assert both - without == {key for key in both if key.startswith(names.OPTIONAL)}
    assert {"aux1.conv.bn.running_mean", "aux2.fc1.weight", "aux2.fc2.bias"} <= both


@pytest.mark.parametrize("model", ["googlenet", "inception_v3"])
def test_published_preprocessing_holds_what_torchvision_does_inside_the_model(model):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).integers(0, 256, (360, 371, 3), np.uint8)
    (weights,) = published(model)
    ours = weights.preprocessing
    theirs = type(ours)(
        ours.resize, ours.crop, ours.interpolation, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    with torch.device("meta"):
        network = torchvision_models().get_model(
            model, weights=None, init_weights=False, transform_input=True
        )
    x = torch.from_numpy(theirs(image))[None].permute(0, 3, 1, 2)
    expected = network._transform_input(x).permute(0, 2, 3, 1)[0].numpy()
    np.testing.assert_allclose(ours(image), expected, rtol=0, atol=1e-6)


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match=r"^GoogLeNet: auxiliary .* 4a and 4d, .* got groups of \[1, 3\]$"):
        GoogLeNet(((SMALL,), (SMALL,) * 3), aux_heads=True, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"GoogLeNet: unknown taps \['aux1'\]"):
        abstract().features(normal(0, 2, 32, 32, 3), taps=("logits", "aux1"))
    with pytest.raises(ValueError, match="^Dropout: rate must be a Python number in"):
        abstract(dropout=1.5)
    model, small = abstract(), jax.ShapeDtypeStruct((2, 14, 20, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"^max_pool: window .* reaches over 3 elements of spatial axis 0"):
        nnx.eval_shape(lambda model, x: model(x), model, small)
    least = jax.ShapeDtypeStruct((2, 15, 15, 3), jnp.float32)
    assert nnx.eval_shape(lambda model, x: model(x), model, least).shape == (2, 1000)


def test_the_table_is_the_papers():
    widths = [sum((row[0], row[2], row[4], row[5])) for group in INCEPTIONS for row in group]
    assert widths == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
