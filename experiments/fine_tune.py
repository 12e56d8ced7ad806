"""Teach a pretrained network the classes of a folder of images.

    python experiments/fine_tune.py --weights resnet18-f37072fd.pth --model resnet18 my_photos
    python experiments/classify.py runs/my_photos-resnet18 another.jpg

A new layer for the logits is trained first, on the features that the network has. Then everything is, with
learning rates that fall from the logits to the image: the first layers know what is true of all images.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import train_classifier
import tyro
from flax import nnx
from jaxtyping import Array, Key
from pretrained_model import WEIGHTS, load_any_weights, published_preprocessing
from rich.console import Console
from train_classifier import (
    abstract_batch,
    description,
    draw,
    evaluate,
    make_model,
    make_optimizer,
    parameter_count,
    random_keys,
    training_batch,
)

from jaxcnn import data, nn
from jaxcnn.models import Classifier
from jaxcnn.pretrained import save_weights
from jaxcnn.training.console import mistakes_in_one_line, progress_bar, read_flags, stop_signal
from jaxcnn.training.metrics import Evaluation, append_metrics
from jaxcnn.training.parallel import data_parallel
from jaxcnn.training.run import environment, open_run, write_json
from jaxcnn.training.state import Merge, TrainState, create_train_state
from jaxcnn.training.step import Batch, eval_step, softmax_cross_entropy, train_step

SCRIPT = "fine_tune"


@dataclass(frozen=True)
class Config:
    """Teach a pretrained network the classes of a folder of images."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """The images: one sub-folder per class, or train and test with such sub-folders in them."""
    weights: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """PyTorch's .pth or .safetensors file, or one that jaxcnn.pretrained.save_weights wrote."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """The architecture that the weights are for, one of jaxcnn.models.list_models()."""
    epochs: int = 10
    """Passes over the training images."""
    frozen_epochs: int = 2
    """How many of them, the first ones, train the new layer alone."""
    batch_size: int = 32
    """Images in a step, over all devices."""
    learning_rate: float = 1e-3
    """Highest learning rate of the new layer, for AdamW with a linear warm-up and a cosine decay."""
    layer_decay: float = 0.7
    """The learning rate of each part of the network as a share of that of the part after it."""
    weight_decay: float = 1e-2
    """Decay of the kernels (not of biases and norms)."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes."""
    crop: int | None = None
    """Augmentation: shift by up to this many pixels over a black border; by default a tenth of the height."""
    flip: bool = True
    """Augmentation: mirror left and right."""
    image_size: tuple[int, int] | None = None
    """Height and width that images are resized to; by default those of the weights, else the data's own."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; parameters and statistics are float32 either way."""
    seed: int = 0
    """Decides the new layer's parameters, the order of the data, augmentation and dropout."""
    name: str | None = None
    """Name of the run's folder; by default made from folder and model."""
    runs_dir: Path = Path("runs")
    """Where the run's folder goes."""
    data_dir: Path | None = None
    """Where prepared data is kept."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""


class Setup(NamedTuple):
    """What a run needs before its first step."""

    training: train_classifier.Setup
    """As for a network without pretraining; its train_step is that of the whole network."""
    config: train_classifier.Config
    """The settings that both scripts have."""
    merge: Merge
    head_step: Any
    """Trains the output layer alone."""
    head_schedule: optax.Schedule
    frozen_steps: int
    optimizer: optax.GradientTransformation
    """The whole network's."""


def main(config: Config) -> None:
    """Train the new layer, then everything; evaluate after every epoch; leave results in runs_dir/name."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with mistakes_in_one_line(SCRIPT):
        setup = set_up(config, console)
    training, parallel = setup.training, setup.training.parallel
    dataset, run, steps_per_epoch = training.dataset, training.run, training.steps_per_epoch

    step, last_step = 0, training.last_step
    state = parallel.replicate(training.state)
    batches = data.training_batches(dataset.train, config.batch_size, seed=config.seed)
    prepare = jax.jit(partial(training_batch, config=setup.config, dataset=dataset))
    augmentation_key, dropout_key = random_keys(setup.config)
    began = logged = time.perf_counter()
    step_metrics: list[dict[str, Array]] = []  # of the steps since the last line of metrics.jsonl
    evaluation: Evaluation | None = None

    def log(**values: Any) -> None:
        append_metrics(run / "metrics.jsonl", step, epoch=step / steps_per_epoch, **values)

    with stop_signal() as stop, progress_bar(console, last_step, 0, steps_per_epoch) as show:
        while step < last_step and not stop():
            frozen = step < setup.frozen_steps
            if step == setup.frozen_steps:
                state = parallel.replicate(unfreeze(parallel.fetch(state), setup.optimizer))
            batch = prepare(augmentation_key, step, parallel.shard(next(batches)))
            take_step = setup.head_step if frozen else training.train_step
            state, new_metrics = take_step(state, batch, dropout_key)
            step_metrics.append(new_metrics)
            step += 1
            end_of_epoch = step % steps_per_epoch == 0

            if step % config.log_every == 0 or end_of_epoch:
                means = jax.tree.map(lambda *x: float(np.mean(x)), *parallel.fetch(step_metrics))
                speed = len(step_metrics) * config.batch_size / (time.perf_counter() - logged)
                step_metrics = []
                show(step, means["loss"], means["accuracy"], speed)
                schedule = setup.head_schedule if frozen else training.schedule
                log(
                    train_loss=means["loss"],
                    train_accuracy=means["accuracy"],
                    learning_rate=schedule(step - 1 if frozen else step - 1 - setup.frozen_steps),
                    frozen=frozen,
                    images_per_second=speed,
                    seconds=time.perf_counter() - began,
                )
                if end_of_epoch:
                    evaluation = evaluate(training, state, config.batch_size)
                    log(test_loss=evaluation.loss, test_accuracy=evaluation.accuracy)
                logged = time.perf_counter()

    state = parallel.fetch(state)
    with mistakes_in_one_line(SCRIPT):
        save_weights(setup.merge(state.params, state.batch_stats), run / WEIGHTS)
    if evaluation is None or step < last_step:
        console.print(f"Stopped after step {step} of {last_step}; {run / WEIGHTS} holds the weights so far")
        sys.exit(130)
    summary = {
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "parameters": parameter_count(state),
        "seconds": time.perf_counter() - began,
        **environment(parallel.devices),
    }
    write_json(run / "summary.json", summary)
    draw(training, evaluation)
    console.print(
        f"test accuracy {evaluation.accuracy:.4f} "
        f"({round(evaluation.accuracy * len(dataset.test))} of {len(dataset.test)}) "
        f"after {summary['seconds']:.0f} s\n"
        f"{WEIGHTS}, curves.png, confusion.png, summary.json and metrics.jsonl are in {run}"
    )


def set_up(config: Config, console: Console) -> Setup:
    """Everything that a user's mistake can make fail, before anything is trained; says what will be done."""
    shared = check(config)
    size = train_classifier.image_size(shared)
    parallel = data_parallel("jit")
    console.print(f"{parallel.describe(config.batch_size)}, {config.precision}")
    preprocessing = published_preprocessing(config.model, config.weights)
    if size is None and preprocessing is not None:
        size = (preprocessing.crop, preprocessing.crop)
    dataset = data.load_dataset(f"folder:{config.folder}", data_dir=config.data_dir, image_size=size)
    if config.batch_size > len(dataset.train):
        raise ValueError(
            f"--batch-size must be at most the {len(dataset.train)} training images, got {config.batch_size}"
        )
    mean, std = (preprocessing.mean, preprocessing.std) if preprocessing else (dataset.mean, dataset.std)
    if len(mean) == 1:  # the network has three channels; grey images become that as they are normalised
        mean, std = mean * 3, std * 3
    height, width, _ = dataset.image_shape
    batch = abstract_batch(shared, dataclasses.replace(dataset, mean=mean, std=std))
    dataset = dataclasses.replace(dataset, image_shape=(height, width, 3), mean=mean, std=std)

    model = make_model(shared, len(dataset.class_names), 3)
    load_any_weights(model, config.weights, head=False)
    steps_per_epoch = len(dataset.train) // config.batch_size
    last_step, frozen_steps = steps_per_epoch * config.epochs, steps_per_epoch * config.frozen_epochs
    factors = layer_factors(model, (height, width), config.layer_decay)
    head_optimizer, head_schedule = make_optimizer(shared, max(frozen_steps, 1))
    optimizer, schedule = whole_optimizer(shared, max(last_step - frozen_steps, 1), factors)
    merge, state = create_train_state(model, optimizer)
    full_step = partial(
        train_step,
        merge=merge,
        optimizer=optimizer,
        loss=softmax_cross_entropy,
        set_random_keys=nn.set_random_keys,
    )
    jax.eval_shape(full_step, state, batch, jax.random.key(0))  # does the model take it?
    state = dataclasses.replace(state, opt_state=head_optimizer.init(state.params["output"]))

    settings = {name: str(x) if isinstance(x, Path) else x for name, x in dataclasses.asdict(config).items()}
    where = ("name", "runs_dir", "data_dir", "log_every")
    run = open_run(
        config.runs_dir,
        config.name,
        f"{config.folder.resolve().name}-{config.model}",
        {
            "config.json": {name: value for name, value in settings.items() if name not in where},
            "dataset.json": description(dataset),
        },
        resume=False,
    )
    console.print(plan(config, dataset, state, factors, run))
    training = train_classifier.Setup(
        parallel=parallel,
        dataset=dataset,
        run=run,
        state=state,
        train_step=parallel.compile_train(full_step),
        eval_step=parallel.compile_eval(partial(eval_step, merge=merge, loss=softmax_cross_entropy)),
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        last_step=last_step,
        seconds=0.0,
    )
    head = parallel.compile_train(partial(head_step, merge=merge, optimizer=head_optimizer))
    return Setup(training, shared, merge, head, head_schedule, frozen_steps, optimizer)


def check(config: Config) -> train_classifier.Config:
    """Refuse settings that no run can have; give those that train_classifier has too."""
    names = {field.name for field in dataclasses.fields(train_classifier.Config)}
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
    shared = train_classifier.Config(**{name: x for name, x in settings.items() if name in names})
    train_classifier.check(shared)
    if not 0 <= config.frozen_epochs <= config.epochs:
        raise ValueError(
            f"--frozen-epochs must be in [0, {config.epochs}], the epochs, got {config.frozen_epochs}"
        )
    if not config.weights.is_file():  # said before the data are prepared, which may take long
        raise FileNotFoundError(f"--weights: there is no file {config.weights}")
    if not 0 < config.layer_decay <= 1:
        raise ValueError(f"--layer-decay must be in (0, 1], got {config.layer_decay}")
    return shared


def head_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    merge: Merge,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, Array]]:
    """Take a step of the output layer; the rest is in evaluation mode, so that its statistics stay too."""

    def mean_loss(output):
        model = merge(state.params | {"output": output}, state.batch_stats)
        model.eval()
        logits = model(batch["image"]).astype(jnp.float32)
        return softmax_cross_entropy(logits, batch["target"]).mean(), logits

    output = state.params["output"]
    (loss, logits), gradient = jax.value_and_grad(mean_loss, has_aux=True)(output)
    correct = logits.argmax(-1) == batch["target"].argmax(-1)
    with jax.numpy_dtype_promotion("standard"):  # optax.adam computes decay ** count, a float to an int
        updates, opt_state = optimizer.update(gradient, state.opt_state, output)
    params = state.params | {"output": optax.apply_updates(output, updates)}
    state = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
    return state, {"loss": loss, "accuracy": correct.mean(dtype=jnp.float32)}


def unfreeze(state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """The state from which the whole network is trained."""
    return dataclasses.replace(state, opt_state=optimizer.init(state.params))


def layer_factors(model: Classifier, image_size: tuple[int, int], decay: float) -> dict[str, float]:
    """What the learning rate of each part of the network is multiplied by, from the logits to the image.

    A part is an attribute of the model, or an entry of one that is a list. They are in the order in which the
    forward pass first uses them: decay to the power of 0 for the last, 1 for the one before it, ...
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    images = jax.ShapeDtypeStruct((1, *image_size, model.in_channels), jnp.float32)

    def forward(params, rest, images):
        merged = nnx.merge(graphdef, params, rest)
        merged.eval()
        return merged(images)

    program = jax.make_jaxpr(forward)(params, rest, images).jaxpr
    first_use = {id(x): i for i, line in reversed([*enumerate(program.eqns)]) for x in line.invars}
    uses: dict[str, list[float]] = {}
    for (path, _), x in zip(jax.tree.leaves_with_path(params), program.invars, strict=False):
        # Auxiliary classifiers are not used: they count as the end.
        uses.setdefault(part(path), []).append(first_use.get(id(x), math.inf))
    order = sorted(uses, key=lambda name: min(uses[name]), reverse=True)
    distance = -sum(math.isinf(min(places)) for places in uses.values())
    return {name: decay ** max(distance + i, 0) for i, name in enumerate(order)}


def part(path: tuple[Any, ...]) -> str:
    """The part of the network that a parameter belongs to, such as layers.2 for layers.2.0.conv1.kernel."""
    keys = [entry.key for entry in path]
    return f"{keys[0]}.{keys[1]}" if isinstance(keys[1], int) else keys[0]


def whole_optimizer(
    config: train_classifier.Config, steps: int, factors: dict[str, float]
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with steps that are smaller the farther a part is from the logits; the last part's schedule."""
    optimizer, schedule = make_optimizer(config, steps)

    def parts(params: Any) -> Any:
        return jax.tree.map_with_path(lambda path, _: part(path), params)

    scales: dict[Hashable, optax.GradientTransformation] = {
        name: optax.scale(factor) for name, factor in factors.items()
    }
    return optax.chain(optimizer, optax.multi_transform(scales, parts)), schedule


def plan(
    config: Config, dataset: data.Dataset, state: TrainState, factors: dict[str, float], run: Path
) -> str:
    """What the run will do, in words."""
    height, width, channels = dataset.image_shape
    size = sum(x.size for x in jax.tree.leaves(state.params["output"]))
    rates = (f"{name} {config.learning_rate * factor:.2g}" for name, factor in factors.items())
    lines = [
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test images, "
        f"{height}x{width}x{channels}, {len(dataset.class_names)} classes",
        f"{config.model} with {config.weights.name}: {parameter_count(state):,} parameters, "
        f"{size:,} of them in a new output layer",
    ]
    if config.frozen_epochs:
        lines.append(
            f"epochs 1 to {config.frozen_epochs}: the output layer alone, "
            f"learning rate {config.learning_rate:.2g}"
        )
    if config.frozen_epochs < config.epochs:
        lines.append(
            f"epochs {config.frozen_epochs + 1} to {config.epochs}: everything, "
            f"learning rates {', '.join(rates)}"
        )
    return "\n".join([*lines, f"results go to {run}"])


if __name__ == "__main__":
    main(read_flags(Config, SCRIPT))
