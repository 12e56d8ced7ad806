import jax
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxcnn.interpret.rectifiers import deconvnet, guided_backpropagation
from tests.interpret import small_network
from tests.interpret.small_network import CLASSES, InNumPy, Linear, SmallNet, images, linear_net, small_net
from tests.nn.filled import filled

METHODS = {guided_backpropagation: small_network.guided, deconvnet: small_network.deconvolved}
both = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


def explained(method, model=None):
    return np.asarray(method(small_net() if model is None else model, images(), CLASSES))


def test_the_images_reach_every_side_of_the_rectifiers():
    network = InNumPy(small_net())
    network.forward(images())
    for sides in (
        network.a1 < 0,
        network.a1 > 0,
        network.a2 < 0,
        network.a2 > 6,
        network.blocks.max(-1) == 0,
    ):
        assert sides.mean() > 0.02


@both
def test_the_picture_is_that_of_numpy(method):
    expected = InNumPy(small_net()).gradient(images(), CLASSES, METHODS[method])
    np.testing.assert_allclose(explained(method), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@both
def test_the_picture_is_that_of_torch_with_hooks(method):
    torch = pytest.importorskip("torch")

    def hook(module, before, after):
        return (torch.relu((before if method is guided_backpropagation else after)[0]),)

    network = small_network.in_torch(small_net())
    for module in network:
        if isinstance(module, (torch.nn.ReLU, torch.nn.ReLU6)):
            module.register_full_backward_hook(hook)
    x = torch.from_numpy(images()).permute(0, 3, 1, 2).requires_grad_()
    network(x)[range(2), list(CLASSES)].sum().backward()
    expected = x.grad.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(explained(method), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@both
def test_a_batch_gives_what_each_image_gives_alone(method):
    together = explained(method)
    for i, label in enumerate(CLASSES):
        alone = method(small_net(), images()[i : i + 1], int(label))
        np.testing.assert_allclose(together[i], alone[0], rtol=0, atol=1e-5 * np.abs(together).max())


class Wrapped(SmallNet):
    """The small network with its rectifiers inside other transformations of JAX."""

    def stages(self):
        stages = dict(super().stages())
        graph, state = nnx.split(self)

        def conv2(state, x):
            return jax.named_call(dict(SmallNet.stages(nnx.merge(graph, state)))["conv2"], name="second")(x)

        stages["conv2"] = lambda x: jax.checkpoint(jax.jit(conv2))(state, x)
        return list(stages.items())


def test_rectifiers_inside_jit_and_checkpoint_are_found():
    model = filled(lambda: Wrapped(rngs=nnx.Rngs(0)))
    expected = explained(guided_backpropagation)
    np.testing.assert_allclose(explained(guided_backpropagation, model), expected, rtol=1e-5, atol=1e-5)


class Looping(Linear):
    def stages(self):
        ((_, stage),) = super().stages()
        return [("logits", lambda x: lax.fori_loop(0, 2, lambda _, y: nnx.relu(y), stage(x)))]


class WithItsOwnDerivative(Linear):
    def stages(self):
        ((_, stage),) = super().stages()
        own = jax.custom_vjp(nnx.relu)
        own.defvjp(lambda x: (x, None), lambda _, g: (g,))
        return [("logits", lambda x: own(stage(x)))]


@both
def test_a_model_that_cannot_be_gone_back_through_is_refused(method):
    x, name = np.ones((1, 5, 3, 2), np.float32), method.__name__
    with pytest.raises(ValueError, match=f"^{name}: model must have a rectifier .*relu6; Linear has none"):
        method(linear_net(), x, 0)
    for kind, inside in ((Looping, "(scan|while)"), (WithItsOwnDerivative, "custom_vjp_call")):
        with pytest.raises(
            ValueError, match=f"^{name}: model must not have its relu or relu6 inside {inside}"
        ):
            method(filled(lambda kind=kind: kind(rngs=nnx.Rngs(0))), x, 0)


@both
def test_the_model_stays_as_it_is(method):
    model = small_net()
    before = small_network.snapshot(model)
    explained(method, model)
    assert small_network.is_unchanged(model, before)


@both
def test_wrong_arguments_are_refused(method, unchecked):
    name = method.__name__
    with pytest.raises(TypeError, match=f"^{name}: model must be a jaxcnn classifier"):
        method(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), images(), 0)
    with pytest.raises(ValueError, match=f"^{name}: x must have 3 channels"):
        method(small_net(), images()[..., :2], 0)
    with pytest.raises(ValueError, match=rf"^{name}: classes must be in \[0, 4\), got 4 to 4"):
        method(small_net(), images(), 4)
