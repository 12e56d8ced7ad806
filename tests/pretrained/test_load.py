"""Weights into models: what fits goes in, what does not is listed and changes nothing."""

import json
import os
import struct

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn.models import GoogLeNet, LeNet5, ResNet, create_model
from jaxcnn.nn import BasicBlock
from jaxcnn.pretrained import load_torch_weights, load_weights, names, save_weights
from jaxcnn.pretrained.layers import entries
from tests.nn.filled import filled
from tests.reference import normal


def tiny(num_classes=5, seed=0):
    return filled(
        lambda: ResNet(BasicBlock, (1, 1), (4, 8), num_classes=num_classes, rngs=nnx.Rngs(0)), seed=seed
    )


def state_dict(model, seed=7):
    """A PyTorch state dict of random numbers for a model, with the counters that PyTorch adds."""
    rng = np.random.default_rng(seed)
    found = {}
    for entry in entries(names.schemes(names.of(model))[0](model)):  # pyright: ignore[reportArgumentType]
        found[entry.key] = rng.uniform(0.1, 1.0, entry.shape).astype(np.float32)
        if entry.key.endswith("running_var"):
            found[entry.key.replace("running_var", "num_batches_tracked")] = np.array(3)
    return found


def variables(model):
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))


def test_every_array_goes_to_its_place_in_its_layout():
    model = tiny()
    arrays = state_dict(model)
    load_torch_weights(model, arrays)
    block = model.layers[1][0]
    np.testing.assert_array_equal(
        block.branch[1].conv.kernel[...], arrays["layer2.0.conv2.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(block.projection.norm.var[...], arrays["layer2.0.downsample.1.running_var"])
    np.testing.assert_array_equal(model.stem.norm.scale[...], arrays["bn1.weight"])
    np.testing.assert_array_equal(model.output.kernel[...], arrays["fc.weight"].T)
    np.testing.assert_array_equal(model.output.bias[...], arrays["fc.bias"])


def test_the_model_does_not_share_memory_with_the_mapping():
    model = tiny()
    arrays = state_dict(model)
    load_torch_weights(model, arrays)
    before = variables(model)
    for array in arrays.values():
        array[...] = 0
    chex.assert_trees_all_equal(variables(model), before)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_widened_without_rounding(dtype):
    model = tiny()
    arrays = {key: np.asarray(a, dtype) if a.ndim else a for key, a in state_dict(model).items()}
    load_torch_weights(model, arrays)
    assert model.stem.norm.scale.dtype == jnp.float32
    np.testing.assert_array_equal(model.stem.norm.scale[...], arrays["bn1.weight"].astype(np.float32))


def changed(change):
    """A state dict of the tiny network with one thing wrong."""
    arrays = state_dict(tiny())
    change(arrays)
    return arrays


def rename(arrays):
    arrays["layer1.0.conv7.weight"] = arrays.pop("layer1.0.conv1.weight")


def add(arrays):
    arrays["layer9.weight"] = np.zeros((2, 3), np.float32)


def transpose(arrays):
    arrays["layer2.0.conv1.weight"] = arrays["layer2.0.conv1.weight"].transpose(1, 0, 2, 3)


def put(key, index, value):
    def change(arrays):
        arrays[key][index] = value

    return change


def cast(key, dtype):
    return lambda arrays: arrays.update({key: arrays[key].astype(dtype)})


HOSTILE = {
    "renamed": (
        rename,
        r"1 missing: layer1.0.conv1.weight \(4, 4, 3, 3\)\n  1 unexpected: layer1.0.conv7.weight",
    ),
    "extra": (add, r"does not fit ResNet\n  1 unexpected: layer9.weight \(2, 3\)$"),
    "transposed": (
        transpose,
        r"1 of another shape: layer2.0.conv1.weight \(4, 8, 3, 3\) where the model has \(8, 4, 3, 3\)$",
    ),
    "float64": (cast("bn1.bias", np.float64), r"float32, float16, bfloat16: bn1.bias float64$"),
    "int8": (cast("conv1.weight", np.int8), r"float32, float16, bfloat16: conv1.weight int8$"),
    "nan": (put("fc.bias", 2, np.nan), "fc.bias has 1 values of 5 that are nan or infinite"),
    "infinite": (put("conv1.weight", (0, 0, 0), np.inf), "conv1.weight has 7 values of 588 that are nan"),
    "negative variance": (
        put("bn1.running_var", 1, -0.5),
        "bn1.running_var is a variance and has -0.5, below 0",
    ),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_does_not_fit_is_named_and_changes_nothing(change, message):
    model = tiny()
    before = variables(model)
    with pytest.raises(ValueError, match=message) as error:
        load_torch_weights(model, changed(change))
    assert str(error.value).startswith("load_torch_weights: the mapping")
    chex.assert_trees_all_equal(variables(model), before)


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"32 missing: .*, and 24 more$"):
        load_torch_weights(tiny(), {})


def test_another_number_of_classes_is_offered_without_its_head():
    model = tiny(num_classes=3)
    arrays = state_dict(tiny(num_classes=5))
    before = variables(model)
    with pytest.raises(ValueError, match=r"\(3, 8\).*; head=False leaves the layer that makes the logits"):
        load_torch_weights(model, arrays)
    load_torch_weights(model, arrays, head=False)
    after = variables(model)
    chex.assert_trees_all_equal(after["output"], before["output"])
    np.testing.assert_array_equal(after["stem"]["norm"]["bias"], arrays["bn1.bias"])
    # A file without any head does as well.
    headless = {key: array for key, array in arrays.items() if not key.startswith("fc.")}
    load_torch_weights(model, headless, head=False)


def test_auxiliary_heads_in_the_file_are_passed_over_by_a_model_without():
    full, plain = (
        nnx.eval_shape(lambda: GoogLeNet(num_classes=5, aux_heads=aux, rngs=nnx.Rngs(0)))  # noqa: B023
        for aux in (True, False)
    )
    arrays = state_dict(full)
    assert any(key.startswith("aux1.") for key in arrays)
    load_torch_weights(plain, arrays)
    chex.assert_trees_all_equal(variables(plain)["output"]["bias"], arrays["fc.bias"])
    with pytest.raises(ValueError, match="missing: aux1"):
        load_torch_weights(full, {key: a for key, a in arrays.items() if not key.startswith("aux")})


def test_a_family_without_counterpart_is_refused():
    with pytest.raises(
        TypeError, match="^load_torch_weights: there are no PyTorch weights for a LeNet5; .*, vgg$"
    ):
        load_torch_weights(LeNet5(rngs=nnx.Rngs(0)), {})


def test_a_safetensors_file_with_torchs_names(tmp_path):
    from safetensors.numpy import save_file

    model = tiny()
    arrays = state_dict(model)
    save_file(arrays, tmp_path / "model.safetensors")
    load_torch_weights(model, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(model.output.bias[...], arrays["fc.bias"])


def test_saved_weights_come_back_to_the_last_bit(tmp_path):
    path = tmp_path / "weights.safetensors"
    model, other = tiny(), tiny(seed=1)
    save_weights(model, path)
    load_weights(other, path)
    chex.assert_trees_all_equal(variables(other), variables(model))
    for net in (model, other):
        net.eval()
    x = normal(0, 2, 33, 26, 3)
    chex.assert_trees_all_equal(other(x), model(x))
    assert os.listdir(tmp_path) == ["weights.safetensors"]
    header = path.read_bytes()
    (size,) = struct.unpack("<Q", header[:8])
    assert json.loads(header[8 : 8 + size])["__metadata__"] == {"format": "jaxcnn", "model": "ResNet"}


def test_saving_over_a_file_keeps_it_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_weights(tiny(), path)
    before = path.read_bytes()

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(tiny(seed=1), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    with pytest.raises(FileNotFoundError, match="^save_weights: there is no folder "):
        save_weights(tiny(), tmp_path / "nowhere" / "w.safetensors")


def test_own_weights_of_another_network_are_listed(tmp_path):
    save_weights(tiny(num_classes=5), tmp_path / "w.safetensors")
    model = tiny(num_classes=3)
    with pytest.raises(
        ValueError, match=r"w.safetensors does not fit ResNet\n  2 of another shape: output.*head=False"
    ):
        load_weights(model, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors", head=False)
    with pytest.raises(ValueError, match=r"8 missing: c1.bias \(6,\), c1.kernel "):
        load_weights(create_model("lenet5", in_channels=1, rngs=nnx.Rngs(0)), tmp_path / "w.safetensors")
