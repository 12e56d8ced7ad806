"""create_model and list_models."""

from typing import Any

import jax
import pytest
from flax import nnx

from jaxcnn.models import MLP, LeNet5, create_model, list_models
from tests.nn.filled import filled
from tests.reference import normal


def test_list_models_takes_shell_patterns():
    assert list_models("resnet?[02]") == ["resnet20", "resnet32", "resnet50"]
    assert list_models("transformer*") == []


def test_create_model_hands_on_its_options():
    options: Any = {"hidden": (5,), "input_size": (3, 2), "dropout": 0.5}
    model = filled(lambda: create_model("mlp", num_classes=4, in_channels=2, rngs=nnx.Rngs(0), **options))
    assert isinstance(model, MLP)
    assert model.taps == ("flatten", "hidden1", "logits")
    assert model.dropouts[0].rate == 0.5
    assert model(normal(0, 6, 3, 2, 2)).shape == (6, 4)
    assert isinstance(nnx.eval_shape(lambda: create_model("lenet5", rngs=nnx.Rngs(0))), LeNet5)


def test_the_same_seed_makes_the_same_model_and_another_another():
    first, second, third = (
        create_model("mlp", hidden=(3,), input_size=(2, 2), num_classes=2, rngs=nnx.Rngs(seed))
        for seed in (0, 0, 1)
    )
    x = normal(0, 2, 2, 2, 3)
    assert (first(x) == second(x)).all()
    assert (first(x) != third(x)).all()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet-20", "resnet20"), ("LeNet5", "lenet5"), ("lenet", "lenet5"), ("rsenet18", "resnet18")],
)
def test_an_unknown_name_suggests_the_nearest(name, nearest):
    message = (
        rf"^create_model: unknown model '{name}'; did you mean .{nearest}.. there are alexnet, all_cnn_c, "
    )
    with pytest.raises(ValueError, match=message):
        create_model(name, rngs=nnx.Rngs(0))


def test_an_unknown_name_with_nothing_near_it_lists_all(unchecked):
    with pytest.raises(ValueError, match=r"^create_model: unknown model 'zzz'; there are alexnet, all_cnn_c"):
        create_model("zzz", rngs=nnx.Rngs(0))
    number: Any = 18
    with pytest.raises(ValueError, match="^create_model: unknown model 18; "):
        create_model(number, rngs=nnx.Rngs(0))


def test_an_unknown_option_names_the_model_and_its_options():
    with pytest.raises(
        TypeError, match="^create_model: mlp has no option width; its options are hidden, dropout, inp"
    ):
        create_model("mlp", width=5, rngs=nnx.Rngs(0))
    with pytest.raises(
        TypeError, match="^create_model: lenet5 has no option dropout, hidden; its options are none$"
    ):
        create_model("lenet5", dropout=0.5, hidden=(3,), rngs=nnx.Rngs(0))
    with pytest.raises(
        TypeError, match="^create_model: resnet20 has no option depth; its options are drop_path$"
    ):
        create_model("resnet20", depth=26, rngs=nnx.Rngs(0))
    with pytest.raises(
        TypeError, match="resnet18 has no option stem; its options are small_images, drop_path$"
    ):
        create_model("resnet18", stem=3, rngs=nnx.Rngs(0))


def test_rngs_that_are_a_seed_or_a_key_are_refused(unchecked):
    for rngs in (0, jax.random.key(0)):
        bad: Any = rngs
        with pytest.raises(
            TypeError, match="^create_model: rngs must be an nnx.Rngs, such as nnx.Rngs.0., got "
        ):
            create_model("lenet5", rngs=bad)
