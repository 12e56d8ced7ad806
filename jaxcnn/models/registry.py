"""Models by name."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike

from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.allconv import AllConvNet
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.convnext import CONVNEXTS, convnext
from jaxcnn.models.densenet import DENSENETS, densenet
from jaxcnn.models.efficientnet import EFFICIENTNETS, efficientnet
from jaxcnn.models.googlenet import GoogLeNet
from jaxcnn.models.inception import InceptionV3
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.mlp import MLP
from jaxcnn.models.mnasnet import MNASNETS, mnasnet
from jaxcnn.models.mobilenet_v2 import MobileNetV2
from jaxcnn.models.mobilenet_v3 import MOBILENETS_V3, mobilenet_v3
from jaxcnn.models.regnet import REGNETS, regnet
from jaxcnn.models.resnet import RESNETS, cifar_resnet, resnet
from jaxcnn.models.shufflenet_v2 import SHUFFLENETS_V2, shufflenet_v2
from jaxcnn.models.squeezenet import SQUEEZENETS, squeezenet
from jaxcnn.models.vgg import VGGS, vgg

# Each family: its table of architectures and the function that makes one of them.
FAMILIES: tuple[tuple[Iterable[str], Callable[..., Classifier]], ...] = (
    (CONVNEXTS, convnext),
    (DENSENETS, densenet),
    (EFFICIENTNETS, efficientnet),
    (MNASNETS, mnasnet),
    (MOBILENETS_V3, mobilenet_v3),
    (REGNETS, regnet),
    (RESNETS, resnet),
    (SHUFFLENETS_V2, shufflenet_v2),
    (SQUEEZENETS, squeezenet),
    (VGGS, vgg),
)

MODELS: dict[str, Callable[..., Classifier]] = {
    "alexnet": AlexNet,
    "all_cnn_c": AllConvNet,
    "googlenet": GoogLeNet,
    "inception_v3": InceptionV3,
    "lenet5": LeNet5,
    "mlp": MLP,
    "mobilenet_v2": MobileNetV2,
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
    **{name: partial(build, name) for table, build in FAMILIES for name in table},
}


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
    **overrides: Any,
) -> Classifier:
    """Make a model by its name, in training mode, with new parameters.

    Args:
        name: one of `list_models()`.
        num_classes: number of logits.
        in_channels: channels of the images.
        dtype: floating dtype of the computation, float32 if None; parameters and statistics are float32.
        rngs: where the streams "params" and "dropout" come from, nnx.Rngs(seed).
        **overrides: further options of this model, such as mlp's hidden and dropout.

    Returns:
        A model: model(x) gives logits (batch, num_classes), model.features(x, taps) named feature maps.

    Raises:
        ValueError: an unknown name, num_classes or in_channels < 1, an option value out of range.
        TypeError: an option that this model does not have, rngs that is not nnx.Rngs.

    Example:
        >>> import jax.numpy as jnp
        >>> model = create_model("mlp", num_classes=10, in_channels=1, hidden=(32,), rngs=nnx.Rngs(0))
        >>> model.eval()
        >>> model(jnp.zeros((2, 28, 28, 1))).shape
        (2, 10)
    """
    if name not in MODELS:
        near = difflib.get_close_matches(str(name).lower(), MODELS, n=1)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        raise ValueError(f"create_model: unknown model {name!r}; {hint}there are {', '.join(list_models())}")
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(
            f"create_model: rngs must be an nnx.Rngs, such as nnx.Rngs(0), got {type(rngs).__name__}"
        )
    accepted = _overrides(MODELS[name])
    unknown = [option for option in overrides if option not in accepted]
    if unknown:
        raise TypeError(
            f"create_model: {name} has no option {', '.join(unknown)}; "
            f"its options are {', '.join(accepted) or 'none'}"
        )
    return MODELS[name](
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=_counted_at_once(rngs),
        **overrides,
    )


def list_models(pattern: str = "*") -> list[str]:
    """The names of the models that match a shell pattern, sorted.

    Args:
        pattern: a pattern such as "resnet*" (*, ? and [...]).

    Returns:
        Names for `create_model`; an empty list if none matches.

    Example:
        >>> list_models("resnet1*")
        ['resnet101', 'resnet110', 'resnet152', 'resnet18']
    """
    return sorted(name for name in MODELS if fnmatch(name, pattern))


def _overrides(model: Callable[..., Classifier]) -> list[str]:
    # A class is asked for its constructor's signature: its own is hidden by Flax's metaclass.
    signature = inspect.signature(model.__init__ if isinstance(model, type) else model)
    common = {"self", "num_classes", "in_channels", "dtype", "rngs"}
    return [name for name in signature.parameters if name not in common]


class _Stream(nnx.RngStream):
    """A stream of keys that costs the same however long the program is that is being traced.

    Flax replaces the count by way of an index and compares shardings; a tracer has none and searches the
    whole program for the words of its error. With 270 convolutions that took three seconds of four.
    """

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
        return key


def _counted_at_once(rngs: nnx.Rngs) -> nnx.Rngs:
    """The same streams, with the same counts: the caller's go on too."""
    quick = nnx.Rngs()
    for tag, stream in vars(rngs).items():
        if isinstance(stream, nnx.RngStream):
            copy = _Stream(stream.key[...], tag=tag)
            copy.count = stream.count
            setattr(quick, tag, copy)
    return quick
