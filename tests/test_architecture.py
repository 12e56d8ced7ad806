"""The layers of the package, read from its imports: they point one way and hold no cycle."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for part in ("jaxcnn", "experiments") for path in sorted((ROOT / part).rglob("*.py"))]

ORDER = ("lowering", "functional", "nn", "models", "pretrained", "analysis", "interpret")
MAY_IMPORT = {layer: set(ORDER[:place]) for place, layer in enumerate(ORDER)} | {
    "pretrained": {"lowering", "functional", "nn", "models"},
    "analysis": {"lowering", "functional", "nn", "models"},
    "__main__": {"models", "pretrained", "analysis"},
    "interpret": {"lowering", "functional", "nn", "models"},
    "data": {"functional"},
    "training": {"functional"},
}


def module_name(path):
    """jaxcnn/nn/conv.py as jaxcnn.nn.conv, and a package by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(path):
    """The modules of this project that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module_name(path).split(".")
            if path.name != "__init__.py":
                package = package[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                names.add(whole if whole in MODULES else base)
    return {name for name in names if name.split(".")[0] in ("jaxcnn", "experiments")}


def layer_of(module):
    """nn for jaxcnn.nn.conv, and nothing for jaxcnn itself."""
    return ".".join(module.split(".")[1:2])


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def test_there_is_something_to_read():
    assert {layer_of(name) for name in MODULES} >= {"functional", "nn", "models", "data", "training"}
    assert "jaxcnn.functional.conv" in IMPORTS["jaxcnn.functional"]


def test_every_imported_module_exists():
    assert {name for names in IMPORTS.values() for name in names} <= set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("jaxcnn.")])
def test_imports_point_one_way(module):
    layer = layer_of(module)
    assert layer in MAY_IMPORT, f"{module} is in no layer that DESIGN.md knows"
    for name in IMPORTS[module]:
        assert name.startswith("jaxcnn."), f"{module} imports {name}"
        assert layer_of(name) in MAY_IMPORT[layer] | {layer}, f"{module} imports {name}"


def test_modules_hold_no_cycle():
    # A package's file imports its modules; the modules name each other in full.
    assert list(graphlib.TopologicalSorter(IMPORTS).static_order())


def test_no_file_is_called_utils():
    assert not [path for path in FILES if path.stem in ("util", "utils", "helpers", "misc", "common")]


@pytest.mark.slow
def test_the_package_brings_in_nothing_that_training_needs():
    program = """
import sys
import chex, flax.nnx, jax, jaxtyping, numpy, optax
before = set(sys.modules)  # flax brings rich by itself
import jaxcnn, jaxcnn.functional, jaxcnn.nn, jaxcnn.models, jaxcnn.pretrained
import jaxcnn.analysis, jaxcnn.interpret
print(*{name.split(".")[0] for name in set(sys.modules) - before})
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "jaxcnn" in loaded
    forbidden = "tensorflow tensorflow_datasets grain orbax tyro rich matplotlib PIL sklearn scipy torch onnx"
    assert not loaded & set(forbidden.split())
