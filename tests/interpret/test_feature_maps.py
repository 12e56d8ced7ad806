import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcnn import models
from jaxcnn.functional import global_avg_pool
from jaxcnn.interpret.feature_maps import feature_maps, first_filters
from jaxcnn.models.classifier import Classifier, Stage
from jaxcnn.nn import BatchNorm, Conv, Dropout
from tests.reference import normal


class Noisy(Classifier):
    """Its attributes in another order than they run; batch statistics and dropout differ in training."""

    def __init__(self):
        super().__init__(num_classes=3, in_channels=2, dtype=None)
        rngs = nnx.Rngs(0)
        self.a_second = Conv(4, 5, 3, rngs=rngs)
        self.z_first = Conv(2, 4, (3, 1), stride=2, rngs=rngs)
        self.norm = BatchNorm(4)
        self.norm.mean.set_value(jnp.full(4, 0.3))
        self.dropout = Dropout(0.5, rngs=nnx.Rngs(dropout=1))
        self.output = nnx.Linear(5, 3, rngs=rngs)

    def stages(self):
        return [
            ("stem", lambda x: self.norm(self.z_first(x))),
            ("deep", lambda x: jax.nn.relu(self.a_second(x))),
            ("mean", lambda x: self.dropout(global_avg_pool(x))),
            ("logits", self.output),
        ]


def by_hand(model, x):
    """The first two stages as loops over positions, with the stored statistics."""
    kernel, bias = np.asarray(model.z_first.kernel[...]), np.asarray(model.z_first.bias[...])
    batch, height, width, _ = x.shape
    stem = np.zeros((batch, (height - 3) // 2 + 1, (width - 1) // 2 + 1, 4))
    for i in range(stem.shape[1]):
        for j in range(stem.shape[2]):
            window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 1]
            stem[:, i, j] = np.tensordot(window, kernel, 3) + bias
    stem = (stem - 0.3) / np.sqrt(1 + 1e-5)
    kernel = np.asarray(model.a_second.kernel[...])
    deep = np.zeros((batch, stem.shape[1] - 2, stem.shape[2] - 2, 5))
    for i in range(deep.shape[1]):
        for j in range(deep.shape[2]):
            deep[:, i, j] = np.maximum(np.tensordot(stem[:, i : i + 3, j : j + 3], kernel, 3), 0)
    return {"stem": stem, "deep": deep}


def test_a_branch_that_refuses_the_images_is_left_out_unless_it_is_named():
    class Branched(Noisy):
        def branches(self) -> dict[str, Stage]:
            def refuse(x):
                raise ValueError("the branch takes larger images")

            return {"deep": ("side", refuse)}

    model, x = Branched(), normal(0, 2, 11, 8, 2)
    assert list(feature_maps(model, x)) == ["stem", "deep"]
    with pytest.raises(ValueError, match="^the branch takes larger images"):
        feature_maps(model, x, ("side",))


def test_the_maps_are_those_of_loops_over_positions():
    model, x = Noisy(), normal(0, 2, 11, 8, 2)
    found = feature_maps(model, x)
    assert list(found) == ["stem", "deep"]  # in the order of the model, the spatial ones alone
    for tap, expected in by_hand(model, x).items():
        np.testing.assert_allclose(found[tap], expected, rtol=0, atol=1e-5)


def test_named_stages_come_in_the_order_of_the_model():
    model, x = Noisy(), normal(0, 2, 11, 8, 2)
    found = feature_maps(model, x, ("logits", "stem"))
    assert list(found) == ["stem", "logits"]
    mean = by_hand(model, x)["deep"].mean((1, 2))  # no dropout
    expected = mean @ np.asarray(model.output.kernel[...])
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5)


def test_the_model_stays_as_it_is():
    model, x = Noisy(), normal(0, 2, 11, 8, 2)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    feature_maps(model, x)
    first_filters(model)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert not model.norm.use_running_average and not model.dropout.deterministic
    assert "on_get_value" not in model.z_first.kernel.get_metadata()


def test_the_first_filters_are_those_that_run_first():
    model = Noisy()
    np.testing.assert_array_equal(first_filters(model), model.z_first.kernel[...])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenet_v2", lambda model: model.stem.conv.kernel),
        ("resnet18", lambda model: model.stem.conv.kernel),
        ("lenet5", lambda model: model.c1.kernel),
    ],
)
def test_the_first_filters_of_the_packages_models(name, first):
    model = nnx.eval_shape(lambda: models.create_model(name, rngs=nnx.Rngs(0)))
    model = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model)
    first(model).set_value(jnp.ones(first(model).shape))
    assert first_filters(model).shape[2] == 3
    np.testing.assert_array_equal(first_filters(model), first(model)[...])


def test_what_is_refused(unchecked):
    model, x = Noisy(), normal(0, 2, 11, 8, 2)
    mlp = models.create_model("mlp", input_size=(4, 4), in_channels=2, num_classes=3, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"feature_maps: unknown tap 'depp'; this model has stem, deep, mean"
    ):
        feature_maps(model, x, ("depp",))
    with pytest.raises(TypeError, match=r"feature_maps: taps must be a tuple of names.*got 'deep'"):
        feature_maps(model, x, "deep")
    with pytest.raises(ValueError, match=r"feature_maps: x must have 2 channels.*got shape \(2, 11, 8, 3\)"):
        feature_maps(model, normal(0, 2, 11, 8, 3))
    with pytest.raises(TypeError, match=r"feature_maps: x must have a floating dtype, got uint8"):
        feature_maps(model, x.astype(np.uint8))
    with pytest.raises(
        ValueError, match=r"feature_maps: this model has no stage with spatial axes; taps must"
    ):
        feature_maps(mlp, x[:, :4, :4])
    with pytest.raises(ValueError, match=r"first_filters: model must have a convolution, this MLP has none"):
        first_filters(mlp)
    with pytest.raises(TypeError, match=r"first_filters: model must be a jaxcnn classifier"):
        first_filters(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))  # pyright: ignore[reportArgumentType]
