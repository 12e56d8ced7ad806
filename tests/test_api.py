"""What every public name keeps: a docstring, annotations, keyword-only options, the random key first."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import jaxcnn
import jaxcnn.functional as F

PACKAGES = "lowering functional nn models pretrained analysis interpret data training".split()
FORMULAS = {"conv_parameter_count", "conv_transpose_output_size", "output_size"}  # ints to ints
FUNCTIONAL = FORMULAS | set(
    """
adaptive_avg_pool adaptive_max_pool autocorrelate avg_pool batch_norm batch_stats channel_dropout conv
conv_as_matmul conv_transpose convolve cross_correlate deform_conv dense_to_conv depthwise_conv
drop_block drop_path dropout extract_patches fold_patches global_avg_pool global_max_pool
global_response_norm grid_sample group_norm instance_norm layer_norm local_response_norm lp_pool max_pool
max_unpool multiclass_svm_loss pad pixel_shuffle pixel_unshuffle resize rms_norm separable_conv
softmax_cross_entropy softmax_focal_loss spatial_pyramid_pool standardize_kernel
""".split()
)
# The one argument of a function may be given by position, though it is no array and has a default.
POSITIONAL = {
    ("list_models", "pattern"),
    ("published", "model"),
    ("data_parallel", "kind"),
    ("local_response_norm", "size"),
    ("feature_maps", "taps"),
}
# What these change, or step, comes before the key.
KEY_LATER = {"nn.set_random_keys", "training.train_step"}

CALLERS = {"lowering.explain"}  # its arguments are those of the function that it is given


def modules(package):
    """The package and its modules."""
    whole = importlib.import_module(f"jaxcnn.{package}")
    names = [module.name for module in pkgutil.iter_modules(whole.__path__)]
    return [whole, *(importlib.import_module(f"jaxcnn.{package}.{name}") for name in names)]


def defined_in(module):
    """The public functions and classes that a module itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


def public(package):
    """The names of __all__; without one, everything public that the modules define."""
    whole, *parts = modules(package)
    if hasattr(whole, "__all__"):
        return {name: getattr(whole, name) for name in whole.__all__}
    return {name: value for part in parts for name, value in defined_in(part).items()}


PUBLIC = {f"{package}.{name}": value for package in PACKAGES for name, value in public(package).items()}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


def parameters(value):
    """The parameters of a function or of a class's constructor, self left out."""
    return [
        p for p in inspect.signature(value).parameters.values() if p.name not in ("self", "args", "kwargs")
    ]


def is_array(annotation):
    return any(word in str(annotation) for word in ("Array", "jaxtyping"))


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_exist_once_and_in_order(package):
    whole = modules(package)[0]
    names = getattr(whole, "__all__", [])
    assert all(hasattr(whole, name) for name in names)
    assert len(names) == len(set(names))
    constants = sorted(name for name in names if name.isupper())
    classes = sorted(name for name in names if name[0].isupper() and not name.isupper())
    assert list(names) == [*constants, *classes, *sorted(name for name in names if name[0].islower())]


def test_the_package_exports_what_compiles_faster_and_its_layers():
    layers = ["analysis", "functional", "interpret", "models", "nn", "pretrained"]
    assert jaxcnn.__all__ == sorted(["accelerate", "explain", *layers])


def test_functional_holds_the_whole_contract():
    assert set(F.__all__) == FUNCTIONAL


@pytest.mark.parametrize("package", ["functional", "nn", "models", "analysis", "interpret"])
def test_what_is_documented_with_an_example_is_exported(package):
    whole, *parts = modules(package)
    for part in parts:
        for name, value in defined_in(part).items():
            if package == "models" and part.__name__.endswith(f".{name}"):
                continue  # vgg of models/vgg.py: exported, it would hide its module
            assert ">>>" not in (value.__doc__ or "") or name in whole.__all__, f"{part.__name__}.{name}"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_opens_with_one_sentence(name):
    first = (inspect.getdoc(PUBLIC[name]) or "").split("\n\n")[0]
    assert first.endswith((".", ":")), first
    assert len(first) < 250


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not name.startswith("training.")])
def test_a_functions_docstring_has_an_example(name):
    assert ">>> " in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("functional.")])
def test_a_pure_function_says_what_it_takes_and_raises(name):
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    assert "Args:" in doc and "Raises:" in doc
    for parameter in parameters(FUNCTIONS[name]):
        assert f"{parameter.name}:" in doc or f"{parameter.name}," in doc, parameter.name


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_and_result_is_annotated(name):
    value = PUBLIC[name]
    for parameter in parameters(value):
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
    if inspect.isfunction(value):
        assert inspect.signature(value).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_are_positional_and_options_keyword_only(name):
    for parameter in parameters(FUNCTIONS[name]):
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            continue
        optional = parameter.default is not inspect.Parameter.empty
        allowed = (name.split(".")[1], parameter.name) in POSITIONAL
        assert not optional or is_array(parameter.annotation) or allowed, parameter.name


@pytest.mark.parametrize("name", [name for name in CLASSES if name.split(".")[0] in ("nn", "models")])
def test_a_modules_options_are_keyword_only(name):
    for parameter in parameters(CLASSES[name]):
        optional = parameter.default is not inspect.Parameter.empty
        assert not optional or parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter.name


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("functional.")])
def test_a_pure_function_names_jaxtyping_shapes(name):
    signature = inspect.signature(FUNCTIONS[name])
    if name.removeprefix("functional.") not in FORMULAS:
        assert is_array(signature.return_annotation)
        assert is_array(next(iter(signature.parameters.values())).annotation)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_random_functions_take_the_key_first(name):
    names = [parameter.name for parameter in parameters(FUNCTIONS[name])]
    keys = [place for place, name in enumerate(names) if name in ("key", "keys", "rng")]
    assert keys in ([], [0]) or name in KEY_LATER


def test_no_public_function_takes_star_arguments_but_for_overrides():
    for name, value in FUNCTIONS.items():
        kinds = {p.kind for p in inspect.signature(value).parameters.values()}
        assert inspect.Parameter.VAR_POSITIONAL not in kinds or name in CALLERS, name
        if name.startswith("functional."):
            assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_every_module_says_what_it_is_for():
    root = Path(jaxcnn.__file__).parent
    for path in root.rglob("*.py"):
        assert path.read_text().startswith('"""'), path
