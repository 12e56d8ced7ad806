from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.interpret.grad_cam import grad_cam
from tests.interpret import small_network
from tests.interpret.small_network import CLASSES, SIZE, InNumPy, images, small_net
from tests.reference import normal


def test_the_map_is_that_of_numpy():
    network = InNumPy(small_net())
    network.forward(images())
    weights = network.gradient_of_maps(CLASSES).mean((1, 2), keepdims=True)
    evidence = np.maximum((weights * network.maps).sum(-1), 0)
    assert (evidence == 0).any() and (evidence > 0).any()
    expected = np.einsum("hi,bij,wj->bhw", doubled(4), evidence, doubled(3))
    found = grad_cam(small_net(), images(), CLASSES, tap="conv2")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


def doubled(n):
    """Linear interpolation to twice as many: the new centres lie a quarter beside the old ones."""
    matrix = np.zeros((2 * n, n))
    for i in range(2 * n):
        place = min(max((i + 0.5) / 2 - 0.5, 0), n - 1)
        low = min(int(place), n - 2)
        matrix[i, low : low + 2] = 1 - (place - low), place - low
    return matrix


@pytest.mark.parametrize(("tap", "position"), [("conv1", 2), ("pool", 3), ("conv2", 5)])
def test_the_map_is_that_of_torch(tap, position):
    torch = pytest.importorskip("torch")

    network = small_network.in_torch(small_net())
    maps = network[: position + 1](torch.from_numpy(images()).permute(0, 3, 1, 2)).detach().requires_grad_()
    network[position + 1 :](maps)[range(2), list(CLASSES)].sum().backward()
    evidence = torch.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True)).detach()
    expected = torch.nn.functional.interpolate(evidence, SIZE, mode="bilinear")[:, 0].numpy()
    found = grad_cam(small_net(), images(), CLASSES, tap=tap)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


def test_a_batch_gives_what_each_image_gives_alone():
    together = grad_cam(small_net(), images(), CLASSES, tap="pool")
    for i, label in enumerate(CLASSES):
        alone = grad_cam(small_net(), images()[i : i + 1], label, tap="pool")
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-5, atol=1e-5)


def test_the_model_stays_as_it_is():
    model = small_net()
    before = small_network.snapshot(model)
    grad_cam(model, images(), CLASSES, tap="conv2")
    assert small_network.is_unchanged(model, before)


@pytest.mark.parametrize(("tap", "why"), [("side", "a branch beside them"), ("conv9", "none of them")])
def test_a_tap_that_is_no_stage_is_refused(tap, why):
    stages = "conv1, pool, conv2, flatten, logits"
    with pytest.raises(ValueError, match=f"^grad_cam: tap must be a stage .* {stages}; got '{tap}', {why}"):
        grad_cam(small_net(), images(), 0, tap=tap)


def test_a_stage_without_maps_is_refused():
    with pytest.raises(
        ValueError, match=r"^grad_cam: tap must be .* maps .* got 'flatten' of shape \(2, 60\)"
    ):
        grad_cam(small_net(), images(), 0, tap="flatten")


def test_wrong_arguments_are_refused(unchecked):
    with pytest.raises(TypeError, match="^grad_cam: model must be a jaxcnn classifier, .* got <class 'str'>"):
        grad_cam(cast(Any, "resnet18"), images(), 0, tap="conv1")
    with pytest.raises(TypeError, match="^grad_cam: x must have a floating dtype, got int32"):
        grad_cam(small_net(), jnp.ones((1, 8, 6, 3), jnp.int32), 0, tap="conv1")
    with pytest.raises(ValueError, match=r"^grad_cam: classes must be one int or have shape \(2,\)"):
        grad_cam(small_net(), normal(0, 2, 8, 6, 3), [0, 1, 2], tap="conv1")
