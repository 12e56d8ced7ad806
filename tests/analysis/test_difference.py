"""Planted changes are found at the layer that has them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcnn.functional as F
from jaxcnn.analysis import Difference, first_difference
from jaxcnn.models import create_model
from jaxcnn.nn import BatchNorm, Conv, Dropout
from tests.nn.filled import filled

X = jax.random.normal(jax.random.key(1), (2, 64, 48, 3))


def pair(name):
    """Two equal models."""
    model = filled(lambda: create_model(name, num_classes=5, rngs=nnx.Rngs(0)))
    return model, nnx.clone(model)


def change_kernel_value(conv):
    centre = tuple(n // 2 for n in conv.kernel.shape[:2])  # on a small map the others see padding alone
    conv.kernel[...] = conv.kernel[...].at[(*centre, 0, 1)].add(1e-3)


def change_eps(norm):
    norm.eps *= 1.5


def change_padding(conv):
    conv.padding = tuple((low + 1, high) for low, high in conv.padding)


# In the order of the network, so that a change is looked for behind many equal layers.
PLANTED = {
    "resnet18": [
        (change_kernel_value, "stem.conv"),
        (change_eps, "layers.1.0.projection.norm"),
        (change_padding, "layers.2.1.branch.0.conv"),
        (change_kernel_value, "layers.3.0.branch.1.conv"),
        (change_eps, "layers.3.1.branch.1.norm"),
    ],
    "mobilenet_v2": [
        (change_padding, "layers.1.1.depthwise.conv"),
        (change_kernel_value, "layers.3.2.depthwise.conv"),
        (change_eps, "layers.5.1.expand.norm"),
        (change_kernel_value, "layers.6.0.project.conv"),
    ],
}


def parting(model_a, model_b, x, **options) -> Any:
    """The first difference of two models that have one."""
    difference = first_difference(model_a, model_b, x, **options)
    assert difference is not None
    return difference


def layer_of(model, path):
    for name in path.split("."):
        model = model[int(name)] if name.isdecimal() else getattr(model, name)
    return model


@pytest.mark.parametrize("name", PLANTED)
def test_planted_changes_are_found_at_their_layers(name):
    model, same = pair(name)
    assert first_difference(model, same, X) is None
    for change, path in PLANTED[name]:
        other = nnx.clone(model)
        change(layer_of(other, path))
        for found in (parting(model, other, X), parting(other, model, X)):
            assert found.path == path
            assert found.kind == type(layer_of(model, path)).__name__
            assert found.other == (found.path, found.kind)
            assert found.what == ("shape" if change is change_padding else "values")
            assert found.reads_the_same
            assert math.isnan(found.absolute) if change is change_padding else 0 < found.absolute < 0.1


def test_how_large_a_difference_is_and_the_tolerance():
    model, other = pair("lenet5")
    x = jax.random.normal(jax.random.key(2), (3, 32, 32, 3))
    before = np.asarray(model.c1(x), np.float64)
    other.c1.bias[...] += 0.25
    after = np.asarray(other.c1(x), np.float64)
    found = parting(model, other, x)
    assert isinstance(found, Difference)
    assert found[:5] == ("c1", "Conv", "values", ("c1", "Conv"), ((3, 28, 28, 6), (3, 28, 28, 6)))
    assert found.absolute == pytest.approx(np.abs(after - before).max(), rel=1e-12)
    assert found.relative == pytest.approx(found.absolute / np.abs(before).max(), rel=1e-12)
    assert found.reads_the_same
    # A stage around a layer is done after it: the next that is further off than the tolerance.
    assert parting(model, other, x, tolerance=found.relative) != found
    assert first_difference(model, other, x, tolerance=100) is None
    assert str(found) == (
        f"the first result that differs is that of c1 (Conv): by up to {found.absolute:.3g}, "
        f"relative to the largest element {found.relative:.3g}"
    )


def test_models_of_another_structure_part_at_the_first_other_layer():
    model, shorter = pair("resnet18")
    shorter.layers[2].pop()
    small = X[:, :32, :32]
    found = parting(model, shorter, small)
    assert (found.what, found.path, found.other) == (
        "structure",
        "layers.2.1.branch.0.conv",
        ("layer3", "stage"),
    )
    assert str(found) == (
        "the models part where model_a is done with layers.2.1.branch.0.conv (Conv) and model_b with "
        "layer3 (stage)"
    )
    assert parting(shorter, model, small).other == ("layers.2.1.branch.0.conv", "Conv")


class Net(nnx.Module):
    """Two layers with a function between them and one after them."""

    def __init__(self, between=nnx.relu, after=nnx.relu):
        self.first = Conv(3, 4, 3, rngs=nnx.Rngs(0))
        self.norm = BatchNorm(4)
        self.dropout = Dropout(0.5, rngs=nnx.Rngs(0))
        self.between, self.after = between, after

    def __call__(self, x):
        return self.after(self.dropout(self.norm(self.between(self.first(x)))))


SMALL = X[:, :8, :9]


def test_what_a_module_computes_between_its_layers_is_told_from_its_layers():
    between = parting(Net(), Net(between=nnx.relu6), 10 * SMALL)
    assert (between.path, between.what, between.reads_the_same) == ("norm", "values", False)
    assert str(between).endswith("; what it reads differs already, after equal layers before it")
    pooled = parting(Net(), Net(between=lambda x: F.max_pool(x, 2)), SMALL)
    assert (pooled.path, pooled.what, pooled.reads_the_same) == ("norm", "shape", False)
    assert pooled.shapes == ((2, 6, 7, 4), (2, 3, 3, 4))
    after = parting(Net(), Net(after=nnx.sigmoid), SMALL)
    assert (after.path, after.kind, after.reads_the_same) == ("", "Net", True)
    assert str(after).startswith("the first result that differs is that of the model (Net): by up to ")


def test_a_changed_function_among_the_stages_is_found_at_its_stage():
    model, other = pair("lenet5")
    stages = type(other).stages

    class Changed(type(model)):
        def stages(self):
            return [(name, (lambda x: F.max_pool(x, 2)) if name == "s2" else f) for name, f in stages(self)]

    object.__setattr__(other, "__class__", Changed)
    found = parting(model, other, X[:, :32, :32])
    assert (found.path, found.kind, found.what) == ("s2", "stage", "values")


def test_another_class_and_another_dtype():
    class BatchNorm2(BatchNorm):
        pass

    net, other = Net(), Net()
    other.norm = BatchNorm2(4)
    found = parting(net, other, SMALL)
    assert (found.what, found.kind, found.other) == ("structure", "BatchNorm", ("norm", "BatchNorm2"))
    half = Net(after=lambda x: x.astype(jnp.bfloat16))
    found = parting(net, half, SMALL)
    assert (found.what, found.path) == ("dtype", "")
    assert str(found) == "the first result that differs is that of the model (Net): its dtype is another one"


def test_nan_and_inf():
    net, same = Net(), Net()
    broken = SMALL.at[0, 1, 1, 1].set(jnp.nan).at[0, 6, 6, 0].set(jnp.inf)
    assert first_difference(net, same, broken) is None
    same.norm.bias[...] = same.norm.bias[...].at[2].set(jnp.nan)
    found = parting(net, same, SMALL, tolerance=1e9)
    assert (found.path, found.absolute, found.relative) == ("norm", math.inf, math.inf)


def test_the_models_run_in_evaluation_and_stay_as_they_are():
    net, other = Net(), Net()
    mean = net.norm.mean[...]
    assert first_difference(net, other, SMALL) is None
    assert (net.norm.mean[...] == mean).all() and not net.norm.use_running_average
    assert type(net.norm) is BatchNorm and not net.dropout.deterministic


class Rematerialised(Net):
    def __call__(self, x):
        return nnx.remat(lambda net, x: Net.__call__(net, x))(self, x)


def test_what_a_model_traces_itself_is_compared_as_a_whole():
    net, other = Rematerialised(), Rematerialised()
    assert first_difference(net, other, SMALL) is None
    other.norm.eps = 1e-3
    assert parting(net, other, SMALL).path == ""


class Noisy(nnx.Module):
    """Noise that a layer makes from a random key which it is given."""

    def __init__(self, seed):
        self.seed, self.add = seed, Add()

    def __call__(self, x):
        return self.add(x, jax.random.key(self.seed))


class Add(nnx.Module):
    def __call__(self, x, key):
        return x + jax.random.normal(key, x.shape)


class Turned(nnx.Module):
    def __init__(self, angle):
        self.angle = angle

    def __call__(self, x):
        return jax.lax.complex(x * math.cos(self.angle), x * math.sin(self.angle))


def test_layers_that_read_random_keys_and_that_give_complex_numbers():
    assert first_difference(Noisy(0), Noisy(0), SMALL) is None
    found = parting(Noisy(0), Noisy(1), SMALL)
    assert (found.path, found.what, found.reads_the_same) == ("add", "values", False)
    assert first_difference(Turned(0.5), Turned(0.5), SMALL) is None
    # The same real part, the opposite imaginary one.
    assert parting(Turned(0.5), Turned(-0.5), SMALL).relative == pytest.approx(2 * np.sin(0.5), rel=1e-5)


def test_models_and_images_that_are_traced_are_refused():
    net, other = Net(), Net()
    other.norm.eps = 1e-3
    with pytest.raises(TypeError, match="^first_difference: model_a and x must hold values, .* traced"):
        jax.jit(lambda x: first_difference(net, other, x))(SMALL)
    graphdef, state = nnx.split(other)
    with pytest.raises(TypeError, match="^first_difference: model_b and x must hold values, .* traced"):
        jax.jit(lambda state: first_difference(net, nnx.merge(graphdef, state), SMALL))(state)


def test_errors(unchecked):
    net = Net()
    name: Any = "resnet18"
    with pytest.raises(TypeError, match="^first_difference: model_b must be a Flax NNX module, got str"):
        first_difference(net, name, SMALL)
    with pytest.raises(TypeError, match="^first_difference: model_a must hold arrays, got an abstract model"):
        first_difference(nnx.eval_shape(Net), net, SMALL)
    with pytest.raises(
        ValueError, match="^first_difference: tolerance must be a Python number of at least 0"
    ):
        first_difference(net, net, SMALL, tolerance=-1)


def test_what_a_model_refuses_comes_through():
    lenet, _ = pair("lenet5")
    for models in ((lenet, lenet), (lenet, Net()), (Net(), lenet)):
        with pytest.raises(ValueError, match="^LeNet5: x must have height and width 32 x 32, got 8 x 9"):
            first_difference(*models, SMALL)
