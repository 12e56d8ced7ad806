"""Time the training gradient of whole models in PyTorch and in JAX, alone and inside `accelerate()`.

    python experiments/benchmark_models.py
    python experiments/benchmark_models.py --models mobilenet_v2 --cores 1 2
    python experiments/benchmark_models.py --help

One step is the mean softmax cross-entropy of a batch in training mode, its gradient with respect to every
parameter, and the new running statistics; no optimizer. Dropout and stochastic depth are off everywhere. The
JAX models are jaxcnn's, "alone" inside `accelerate(False)`, and with --keras those of Keras too, where it has
them, "accelerated" inside `accelerate()`. PyTorch is timed with contiguous and with
channels_last tensors, and the faster one counts.
"""

import dataclasses
import importlib
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmark_report import Table, bars, console, description, number, show, write_between
from flax import nnx
from stopwatch import circumstances, command, geometric_mean, installed, medians, process_on, timed

import jaxcnn
import jaxcnn.pretrained
from jaxcnn.training.console import mistakes_in_one_line, read_flags
from jaxcnn.training.run import write_json

SCRIPT = "benchmark_models"
LAYOUTS = {"first": "contiguous_format", "last": "channels_last"}

KERAS = {
    "resnet50": "ResNet50",
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_b0": "EfficientNetB0",
    "convnext_tiny": "ConvNeXtTiny",
    "densenet121": "DenseNet121",
}
"""Keras's names by torchvision's."""

NAMES = ("resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "resnext50_32x4d", "densenet121")


@dataclass(frozen=True)
class Config:
    """Time the training gradient of whole models in PyTorch and in JAX, alone and inside accelerate()."""

    models: tuple[str, ...] = NAMES
    """Models that jaxcnn and torchvision have, by their name."""
    keras: bool = False
    """Time Keras on JAX too."""
    batch: int = 8
    """Images in a step."""
    size: int = 128
    """Height and width of the images."""
    classes: int = 1000
    """Classes."""
    cores: tuple[int, ...] = ()
    """Numbers of CPU cores, each in a process of its own; by default all there are."""
    repetitions: int = 9
    """Turns of each library; the median counts."""
    seconds: float = 20.0
    """A library has no further turn with a model once it has been timed for so long."""
    out: Path = Path("runs/benchmark_models")
    """Folder for models.json and a chart for each number of cores."""
    markdown: Path | None = None
    """A file whose part <!-- benchmark_models --> is replaced by the table."""


@dataclass(frozen=True)
class Measurement:
    """The training gradient of one model in one library."""

    model: str
    library: str
    gradient: float
    """Seconds, as are all times; of JAX libraries inside accelerate()."""
    parameters: int
    """How many numbers are trained."""
    loss: float
    alone: float | None = None
    """Without the rewrites of jaxcnn."""
    compilation: float | None = None
    compilation_alone: float | None = None
    temporaries: int | None = None
    """Bytes beside operands and results."""
    temporaries_alone: int | None = None
    distance: float | None = None
    """Norm of the difference between the gradients alone and accelerated, over that of the first."""
    rounding: float | None = None
    """The same between the gradients alone of these images and of the next larger numbers."""
    layout: str = ""
    """PyTorch's: channels "first" or "last"."""


class Training(NamedTuple):
    """A JAX model: step(parameters, others, images, labels) gives ((loss, new others), gradients)."""

    step: Callable[..., Any]
    parameters: Any
    others: Any


def main(config: Config) -> None:
    """Measure, show, and leave models.json and the charts in config.out."""
    with mistakes_in_one_line(SCRIPT):
        check(config)
        config.out.mkdir(parents=True, exist_ok=True)
    screen = console()
    runs: list[dict[str, Any]] = []
    pages: list[str] = []
    for cores in config.cores or (len(os.sched_getaffinity(0)),):
        measurements: list[Measurement] = []
        with process_on(cores) as process:
            run = process.submit(circumstances).result()
            screen.print(description(run), soft_wrap=True)
            for name in config.models:
                found = process.submit(measure, name, config).result()
                measurements += found
                words = [f"{m.library} {m.layout}".strip() + f" {number(1e3 * m.gradient)} ms" for m in found]
                screen.print(f"  {name}: {', '.join(words)}", soft_wrap=True)
        runs.append(run | {"measurements": [dataclasses.asdict(m) for m in measurements]})
        write_json(config.out / "models.json", {"command": command(), "runs": runs})
        table, remarks = report(measurements, cores)
        show(screen, [table], remarks)
        draw(config.out / f"models-{cores}.png", measurements, cores)
        texts = [f"{description(run)}. `{command()}`", table.markdown()]
        pages.append("\n\n".join([*texts, "\n".join(f"- {remark}" for remark in remarks)]))
    if config.markdown is not None:
        write_between(config.markdown, SCRIPT, "\n\n".join(pages))
    screen.print(f"models.json and the charts are in {config.out}")


def check(config: Config) -> None:
    """Refuse settings that no run can have."""
    unknown = [name for name in config.models if not jaxcnn.pretrained.published(name)]
    if unknown or not config.models:
        raise ValueError(
            f"--models must be names of models with published weights, such as {', '.join(NAMES)}, "
            f"got {' '.join(unknown) or 'none'}"
        )
    for name in ("batch", "size", "classes", "repetitions"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(config, name)}")
    available = len(os.sched_getaffinity(0))
    if not all(1 <= cores <= available for cores in config.cores):
        raise ValueError(f"--cores must be from 1 to {available}, got {config.cores}")
    if config.markdown is not None and f"<!-- {SCRIPT} -->" not in config.markdown.read_text("utf-8"):
        raise ValueError(f"--markdown: {config.markdown} must hold the line <!-- {SCRIPT} -->")


def measure(name: str, config: Config) -> list[Measurement]:
    """Time one model in all libraries that have it."""
    random = np.random.default_rng(0)
    images = random.normal(size=(config.batch, config.size, config.size, 3)).astype(np.float32)
    labels = random.integers(0, config.classes, config.batch).astype(np.int32)
    calls: dict[str, Callable[[], Any]] = {}
    compilation: dict[str, float] = {}
    temporaries: dict[str, int] = {}
    parameters: dict[str, int] = {}
    nudged: dict[str, Callable[[], Any]] = {}

    layouts = {f"torch {layout}": layout for layout in LAYOUTS if installed("torchvision")}
    for key, layout in layouts.items():
        calls[key], parameters[key] = torch_step(name, config, images, labels, layout=layout)
    libraries = makers(name, config)
    for library, make in libraries.items():
        training = make()
        operands = (training.parameters, training.others, jnp.array(images), jnp.array(labels))
        parameters[library] = sum(x.size for x in jax.tree.leaves(training.parameters))
        jax.eval_shape(training.step, *operands)  # what a library does once is not compile time
        # The package's own functions are accelerated by themselves.
        alone = partial(jaxcnn.accelerate, False) if library == "jaxcnn" else nullcontext
        for how, context in {"alone": alone, "accelerated": jaxcnn.accelerate}.items():
            key = f"{library} {how}"
            compilation[key], compiled = timed(partial(compiled_in, context, training.step, operands))
            temporaries[key] = compiled.memory_analysis().temp_size_in_bytes
            calls[key] = partial(run, compiled, operands)
            larger = jnp.array(np.nextafter(images, np.float32(np.inf)))
            nudged[key] = partial(run, compiled, (*operands[:2], larger, operands[3]))

    times = medians(calls, repetitions=config.repetitions, seconds=config.seconds)
    found = [
        Measurement(
            name, "torch", times[key].seconds, parameters[key], float(times[key].result[0]), layout=layout
        )
        for key, layout in layouts.items()
    ]
    for library in libraries:
        alone, accelerated = f"{library} alone", f"{library} accelerated"
        (loss, _), gradient = times[accelerated].result
        found.append(
            Measurement(
                name,
                library,
                times[accelerated].seconds,
                parameters[library],
                float(loss),
                alone=times[alone].seconds,
                compilation=compilation[accelerated],
                compilation_alone=compilation[alone],
                temporaries=temporaries[accelerated],
                temporaries_alone=temporaries[alone],
                distance=distance(times[alone].result[1], gradient),
                rounding=distance(times[alone].result[1], nudged[alone]()[1]),
            )
        )
    jax.clear_caches()
    return found


def compiled_in(
    context: Callable[[], AbstractContextManager[Any]], step: Callable[..., Any], operands: tuple[Any, ...]
) -> Any:
    """The step compiled in a context, anew: what jit has compiled of this very function would be taken."""
    with context():
        return jax.jit(lambda *operands: step(*operands)).lower(*operands).compile()


def run(compiled: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """One step, finished."""
    return jax.block_until_ready(compiled(*operands))


def distance(one: Any, other: Any) -> float:
    """Norm of the difference of two gradients over that of the first."""
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, one, other)) / optax.tree.norm(one))


def makers(name: str, config: Config) -> dict[str, Callable[[], Training]]:
    """The JAX libraries that have a model, and how each makes it."""
    create = partial(jaxcnn.models.create_model, name, num_classes=config.classes, rngs=nnx.Rngs(0))
    found: dict[str, Callable[[], Training]] = {"jaxcnn": lambda: nnx_training(create())}
    if config.keras and name in KERAS and installed("keras"):
        found["keras"] = partial(keras_training, KERAS[name], config)
    return found


def with_gradient(apply: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """The training step of apply(parameters, others, images) -> (logits, new others)."""

    def loss(parameters, others, images, labels):
        logits, others = apply(parameters, others, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), others

    return jax.value_and_grad(loss, has_aux=True)


def nnx_training(model: nnx.Module) -> Training:
    """A Flax NNX model in training mode, with nothing dropped."""
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "rate"):
            setattr(module, "rate", 0.0)  # noqa: B010
    graph, *states = nnx.split(model, nnx.Param, ...)

    def apply(parameters, others, images):
        merged = nnx.merge(graph, parameters, others)
        logits = merged(images)
        return logits, nnx.to_pure_dict(nnx.state(merged, nnx.Not(nnx.Param)))

    return Training(with_gradient(apply), *map(nnx.to_pure_dict, states))


def keras_training(name: str, config: Config) -> Training:
    """A model of keras.applications on JAX in training mode, with nothing dropped."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")
    if keras.backend.backend() != "jax":
        raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
    keras.backend.clear_session()
    model = getattr(keras.applications, name)(
        weights=None,
        input_shape=(config.size, config.size, 3),
        classes=config.classes,
        classifier_activation=None,
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0

    def apply(parameters, others, images):
        return model.stateless_call(parameters, others, images, training=True)

    values = [[v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]]
    return Training(with_gradient(apply), *values)


def torch_step(
    name: str, config: Config, images: np.ndarray, labels: np.ndarray, *, layout: str
) -> tuple[Callable[[], Any], int]:
    """The training step of a torchvision model with nothing dropped, and how many numbers it trains."""
    torch, torchvision = importlib.import_module("torch"), import_torchvision()
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=config.classes).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    memory_format = getattr(torch, LAYOUTS[layout])
    model = model.to(memory_format=memory_format)
    parameters = list(model.parameters())
    x = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).contiguous(memory_format=memory_format)
    target = torch.from_numpy(labels.astype(np.int64))

    def step() -> tuple[Any, Any]:
        loss = torch.nn.functional.cross_entropy(model(x), target)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    return step, sum(p.numel() for p in parameters)


def import_torchvision() -> Any:
    """The module torchvision, also with a PyTorch that its compiled part was not built for.

    Its import then asks for two operators by name, which no model here uses.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    library = importlib.import_module("torch.library")
    for operator in ("nms", "qnms"):
        library.define(
            f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    return importlib.import_module("torchvision")


def report(measurements: Sequence[Measurement], cores: int) -> tuple[Table, list[str]]:
    """The table of one run, and what sums it up."""
    torch = fastest_torch(measurements)
    columns = ["training gradient, ms", "parameters", "torch", "its channels", "on JAX", "alone"]
    columns += ["accelerated", "/ alone", "/ torch", "compile s alone", "accelerated", "ratio"]
    columns += ["gradients differ by", "by rounding"]
    cells = []
    ratios: dict[tuple[str, str], dict[str, float]] = {}
    for m in measurements:
        if m.library == "torch":
            continue
        theirs = torch.get(m.model)
        if theirs:
            ratios.setdefault((m.library, "torch"), {})[m.model] = m.gradient / theirs.gradient
        ratios.setdefault((m.library, f"{m.library} alone"), {})[m.model] = m.gradient / (m.alone or math.nan)
        compilation = (m.compilation_alone, m.compilation)
        cells.append(
            [
                m.model,
                f"{m.parameters:,}",
                number(theirs and 1e3 * theirs.gradient),
                theirs.layout if theirs else number(None),
                m.library,
                number(m.alone and 1e3 * m.alone),
                number(1e3 * m.gradient),
                number(m.alone and m.gradient / m.alone),
                number(theirs and m.gradient / theirs.gradient),
                *(number(seconds) for seconds in compilation),
                number(m.compilation and m.compilation_alone and m.compilation / m.compilation_alone),
                *(f"{distance or 0:.0e}" for distance in (m.distance, m.rounding)),
            ]
        )
    remarks = [
        f"{library} accelerated / {other}: geometric mean of {len(of)} models "
        f"{number(geometric_mean(of.values()))}, highest {max(of, key=lambda name: of[name])} "
        f"{number(max(of.values()))}"
        for (library, other), of in ratios.items()
    ]
    slow = [
        f"{m.model} in {m.library}"
        for m in measurements
        if m.compilation and m.compilation_alone and m.compilation > 1.5 * m.compilation_alone
    ]
    remarks.append(f"compiled in more than 1.5 times the time alone: {', '.join(slow) or 'none'}")
    sizes = [
        f"{model} in {m.library} {m.parameters:,}, in torch {theirs.parameters:,}"
        for model, theirs in torch.items()
        for m in measurements
        if m.model == model and m.parameters != theirs.parameters
    ]
    remarks.append(f"numbers of parameters that differ: {'; '.join(sizes) or 'none'}")
    where = f"{cores} {'core' if cores == 1 else 'cores'}"
    return Table(f"Training gradient of a batch, {where}", columns, cells), remarks


def fastest_torch(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    """PyTorch's measurement of each model in the layout that is faster."""
    found = sorted((m for m in measurements if m.library == "torch"), key=lambda m: -m.gradient)
    return {m.model: m for m in found}


def draw(path: Path, measurements: Sequence[Measurement], cores: int) -> None:
    """Chart the times as multiples of PyTorch's, or of the library's own where nothing has PyTorch."""
    torch = fastest_torch(measurements)
    shown = [m for m in measurements if m.library != "torch" and (not torch or m.model in torch)]
    units = [torch[m.model].gradient if torch else m.alone or math.nan for m in shown]
    series = {
        "accelerated": [m.gradient / unit for m, unit in zip(shown, units, strict=True)],
        "alone": [(m.alone or math.nan) / unit for m, unit in zip(shown, units, strict=True)],
    }
    unit = "PyTorch's" if torch else "the library's own"
    title = f"Training gradient, {cores} {'core' if cores == 1 else 'cores'}: time as a multiple of {unit}"
    bars(path, title, [f"{m.model} in {m.library}" for m in shown], series, f"multiple of {unit} time")


if __name__ == "__main__":
    main(read_flags(Config, SCRIPT))
