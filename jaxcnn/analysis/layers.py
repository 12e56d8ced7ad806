"""The layers of a model, watched while they are called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from flax import nnx

from jaxcnn.models.classifier import Classifier, Stage

ATTRIBUTE = "watched_as"
STAGE = "stage"
"""The kind of a named stage of a Classifier, which is a function."""

Around = Callable[..., Any]
"""around(layer, call, *args, **kwargs): what runs in place of a layer; it returns call(*args, **kwargs)."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A module of a model, or a stage of a classifier."""

    path: str
    """Attributes and positions from the model down, "layers.0.1.norm"; "" is the model itself."""
    kind: str
    """The name of its class."""
    around: Around


def in_evaluation(graphdef: Any, state: Any, around: Around) -> Any:
    """A copy of a model (its nnx.split) in evaluation mode; `around` is run in place of each of its layers.

    No class is changed, so that nothing has to be put back and no other thread sees it: the modules of the
    copy become instances of subclasses. Each holds its Layer as an attribute, which stays with it where the
    model itself splits and merges it (as nnx.remat does).
    """
    copy = nnx.merge(graphdef, state)
    copy.eval()
    modules = list(nnx.iter_modules(copy))
    for path, module in modules:
        if callable(module):
            setattr(module, ATTRIBUTE, Layer(".".join(map(str, path)), type(module).__name__, around))
            object.__setattr__(module, "__class__", _watched(type(module)))
    return copy


@cache
def _watched(module: type[Any]) -> type[Any]:
    """The subclass of a module whose calls go through `around`."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        layer = getattr(self, ATTRIBUTE)
        return layer.around(layer, partial(module.__call__, self), *args, **kwargs)

    def stages(self: Any) -> list[Stage]:
        return [_watched_stage(getattr(self, ATTRIBUTE), stage) for stage in module.stages(self)]

    methods: dict[str, Any] = {"__call__": call, "__module__": module.__module__}
    if issubclass(module, Classifier):
        methods["stages"] = stages
    metaclass: Any = type(module)
    # Flax's default is a pytree; a module that is none (its lists are plain ones) stays so.
    return metaclass(module.__name__, (module,), methods, pytree=getattr(module, "_pytree__is_pytree", True))


def _watched_stage(model: Layer, stage: Stage) -> Stage:
    name, function = stage
    layer = Layer(f"{model.path}.{name}" if model.path else name, STAGE, model.around)
    return name, partial(model.around, layer, function)
