"""The names that PyTorch libraries give to the layers of each family, read off the model's own structure.

A family's module has a generator for each library: torchvision(model), timm(model), ... Each yields pairs of
PyTorch's prefix and the layer of the model that it belongs to. OPTIONAL holds the prefixes of parts that a
file may have and a model may be made without.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType

from jaxcnn.models import Classifier
from jaxcnn.pretrained.layers import Names


def of(model: object) -> ModuleType | None:
    """The module of names for a model, called as the module of jaxcnn.models that defines its class."""
    for kind in type(model).__mro__:
        name = kind.__module__.removeprefix("jaxcnn.models.")
        if kind is not Classifier and name in _modules():
            return importlib.import_module(f"{__name__}.{name}")
    return None


def families() -> list[str]:
    """The families that have counterparts in PyTorch."""
    return _modules()


def schemes(family: ModuleType) -> list[Callable[..., Names]]:
    """The generators of a family's module, in the order of their definition."""
    return [
        function
        for name, function in vars(family).items()
        if inspect.isfunction(function)
        and function.__module__ == family.__name__
        and not name.startswith("_")
    ]


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]
