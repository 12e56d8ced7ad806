"""Inception v3: the paper's table, the auxiliary classifier, names in PyTorch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models.googlenet import Parallel
from jaxcnn.models.inception import MODULES, AuxiliaryHead, InceptionV3, grid35
from jaxcnn.nn import BatchNorm, Conv, ConvNormAct, Dropout, MaxPool
from jaxcnn.pretrained.layers import entries
from jaxcnn.pretrained.names import inception as names
from tests.models.torchvision_oracle import oracle
from tests.nn.filled import filled
from tests.reference import normal


def abstract(*modules, **options):
    return nnx.eval_shape(lambda: InceptionV3(*modules, **options, rngs=nnx.Rngs(0)))


def features_of(model, *shape, taps=None):
    x = jax.ShapeDtypeStruct((2, *shape, 3), jnp.float32)
    return {
        name: value.shape[1:]
        for name, value in nnx.eval_shape(lambda model, x: model.features(x, taps=taps), model, x).items()
    }


@pytest.mark.parametrize(("aux_heads", "count"), [(True, 27_161_264), (False, 23_834_568)])
def test_parameters_are_torchvisions_with_and_without_the_auxiliary_classifier(aux_heads, count):
    params = nnx.state(abstract(aux_heads=aux_heads), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_feature_maps_have_the_sizes_of_the_papers_table():
    shapes = features_of(abstract(), 299, 331)
    assert shapes["conv1a"] == (149, 165, 32)
    assert shapes["conv2a"] == (147, 163, 32)
    assert shapes["conv2b"] == (147, 163, 64)
    assert shapes["max_pool1"] == (73, 81, 64)
    assert shapes["conv4a"] == (71, 79, 192)
    assert shapes["max_pool2"] == (35, 39, 192)
    assert [shapes[f"mixed5{i}"] for i in "bcd"] == [(35, 39, channels) for channels in (256, 288, 288)]
    assert all(shapes[f"mixed6{i}"] == (17, 19, 768) for i in "abcde")
    assert [shapes[f"mixed7{i}"] for i in "abc"] == [(8, 9, channels) for channels in (1280, 2048, 2048)]
    assert shapes["aux"] == shapes["logits"] == (1000,)
    taps = abstract().taps
    assert taps[taps.index("mixed6e") + 1] == "aux"


def test_branches_keep_their_order_through_flax():
    """A merge sorts the keys of Flax's dict, which would permute the channels."""

    def build():
        fork = {"z": [Conv(2, 3, 1, rngs=nnx.Rngs(0))], "pool": [MaxPool(3, stride=1, padding=1)]}
        return Parallel(2, fork)

    fork = filled(build)
    x = normal(0, 2, 5, 4, 2)
    expected = jnp.concatenate([fork.branches[0][0](x), fork.branches[1][0](x)], axis=-1)
    np.testing.assert_array_equal(nnx.merge(*nnx.split(fork))(x), expected)
    assert (fork.names, fork.channels_out) == (("z", "pool"), 5)


def test_auxiliary_logits_are_torchs_on_the_same_feature_map():
    torch = pytest.importorskip("torch")
    theirs = oracle("inception_v3", num_classes=11)
    arrays = {key: value.numpy() for key, value in theirs.state_dict().items()}
    model = abstract(num_classes=11)
    for entry in entries(names.torchvision(model)):
        if entry.key.startswith("AuxLogits."):
            entry.variable.set_value(jnp.asarray(entry.convert(arrays[entry.key])))
    assert model.aux is not None
    model.aux.set_attributes(use_running_average=True)
    # 17 x 20 elements leave 1 x 2 positions after the last convolution, whose mean is taken.
    x = normal(0, 3, 17, 20, 768)
    with torch.no_grad():
        expected = theirs.AuxLogits(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(model.aux(x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_an_auxiliary_loss_reaches_its_classifier_and_what_is_before_it():
    # One cheap module before it and one behind it; 155 pixels leave it a map of 17.
    modules = {name: partial(grid35, behind_pool=4) for name in ("6e", "7a")}
    model = filled(lambda: InceptionV3(modules, num_classes=5, rngs=nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    rest, x = nnx.to_pure_dict(rest), normal(0, 2, 155, 155, 3)

    @jax.jit
    def grads_of(params):
        def loss(params):
            return (nnx.merge(graphdef, params, rest).features(x, taps=("aux",))["aux"] ** 2).sum()

        return jax.grad(loss)(params)

    grads = grads_of(nnx.to_pure_dict(params))
    before, behind = grads["mixed"].values()

    def reached(part):
        return [bool(jnp.abs(leaf).max() > 0) for leaf in jax.tree.leaves(part)]

    assert all(reached([grads["aux"], grads["conv1a"], before]))
    assert not any(reached([grads["output"], behind]))


def test_dropout_is_torchvisions_and_zero_means_no_module():
    assert [m.rate for _, m in nnx.iter_modules(abstract()) if isinstance(m, Dropout)] == [0.5]
    without = nnx.eval_shape(lambda: InceptionV3(dropout=0.0, rngs=nnx.Rngs(params=0)))
    assert not nnx.state(without, nnx.RngState)


def test_kernels_are_drawn_with_the_authors_deviations():
    model = InceptionV3({}, aux_heads=False, num_classes=50, rngs=nnx.Rngs(0))
    conv = partial(ConvNormAct, kernel_init=jax.nn.initializers.normal(0.1), rngs=nnx.Rngs(1))
    head = AuxiliaryHead(conv, 16, 50, rngs=nnx.Rngs(2))
    for layer, std in (
        (model.conv1a.conv, 0.1),
        (model.conv4a.conv, 0.1),
        (model.output, 0.1),
        (head.conv2.conv, 0.01),
        (head.output, 0.001),
    ):
        kernel = np.asarray(layer.kernel[...])
        assert abs(kernel.mean()) < 0.1 * std
        assert abs(kernel.std() / std - 1) < 0.1
    norms = [m for _, m in nnx.iter_modules(abstract()) if isinstance(m, BatchNorm)]
    assert len(norms) == 96 and all(norm.eps == 0.001 for norm in norms)


def test_names_of_the_auxiliary_classifier_are_there_only_with_it():
    without, both = (
        {entry.key for entry in entries(names.torchvision(abstract(aux_heads=aux_heads)))}
        for aux_heads in (False, True)
    )
    assert not [key for key in without if key.startswith(names.OPTIONAL)]
    assert both - without == {key for key in both if key.startswith(names.OPTIONAL)}
    assert {
        "Conv2d_4a_3x3.bn.running_var",
        "Mixed_6b.branch7x7dbl_5.conv.weight",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "AuxLogits.conv1.bn.bias",
    } <= both


def test_errors_name_what_is_missing():
    modules = {name: make for name, make in MODULES.items() if name < "6e"}
    with pytest.raises(ValueError, match="^InceptionV3: the auxiliary .* module 6e, .* got 5b, 5c, .*6d"):
        abstract(modules)
    assert "aux" not in abstract(modules, aux_heads=False).taps
    model = abstract()
    assert model.aux is not None
    with pytest.raises(
        ValueError, match="^InceptionV3: the auxiliary .* 17 x 17 or more, .* map of 16 x 17; "
    ):
        model.aux(jnp.zeros((2, 16, 17, 768)))
    assert features_of(model, 75, 80, taps=("logits",)) == {"logits": (1000,)}
    with pytest.raises(
        ValueError, match=r"^conv: window \(3, 3\) .* reaches over 3 elements of spatial axis 0"
    ):
        features_of(model, 74, 80, taps=("logits",))
