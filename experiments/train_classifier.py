"""Train a CNN to classify images, and see how well it does.

    python experiments/train_classifier.py
    python experiments/train_classifier.py --dataset folder:my_photos --model resnet20 --epochs 30
    python experiments/train_classifier.py --help

Test accuracy of the defaults (LeNet-5 on scikit-learn's 360 test digits): 0.9911 in the mean of 5 seeds,
0.9861 the lowest; about 30 s each on 2 CPU cores, jax 0.10.2.
"""

import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Key
from rich.console import Console

from jaxcnn import data, models, nn
from jaxcnn.data import augment
from jaxcnn.training import checkpoint, plots
from jaxcnn.training.console import mistakes_in_one_line, progress_bar, read_flags, stop_signal
from jaxcnn.training.metrics import (
    Evaluation,
    append_metrics,
    collect,
    confusion_matrix,
    most_confused,
    read_metrics,
    rewind_metrics,
)
from jaxcnn.training.parallel import DataParallel, data_parallel
from jaxcnn.training.run import environment, open_run, write_json
from jaxcnn.training.state import TrainState, create_train_state
from jaxcnn.training.step import eval_step, multiclass_hinge, softmax_cross_entropy, train_step

SCRIPT = "train_classifier"
LOSSES = {"softmax": softmax_cross_entropy, "svm": multiclass_hinge}


@dataclass(frozen=True)
class Config:
    """Train a CNN to classify images."""

    dataset: str = "digits"
    """digits, idx:DIR (the four files of MNIST or Fashion-MNIST), folder:DIR (one sub-folder per class), or a
    tensorflow-datasets name such as cifar10."""
    model: str = "lenet5"
    """One of jaxcnn.models.list_models()."""
    epochs: int | None = None
    """Passes over the training images; by default as many as make about 1,800 steps, and at least 2."""
    batch_size: int = 64
    """Images in a step, over all devices."""
    loss: Literal["softmax", "svm"] = "softmax"
    """Cross-entropy after a softmax, or the multiclass support vector machine's hinge loss."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9; both with a linear warm-up and a cosine decay."""
    learning_rate: float = 4e-3
    """Highest learning rate of the schedule."""
    weight_decay: float = 1e-2
    """Decay of the kernels (not of biases and norms); with sgd 5e-4 is usual."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes; it keeps the training loss above the test loss."""
    dropout: float = 0.0
    """Dropout rate, for models that have it."""
    crop: int | None = None
    """Augmentation: shift by up to this many pixels over a black border; by default a tenth of the height."""
    flip: bool = False
    """Augmentation: mirror left and right. Not for digits."""
    cutout: int = 0
    """Augmentation: blank a square of this side in pixels."""
    mixup: float = 0.0
    """Augmentation: alpha of mixup, which blends two images and their targets."""
    cutmix: float = 0.0
    """Augmentation: alpha of CutMix, which pastes a box of one image into another."""
    image_size: tuple[int, int] | None = None
    """Height and width that images are resized to; by default the model's own, else the data's."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; parameters and statistics are float32 either way."""
    parallel: Literal["none", "jit", "pmap"] = "jit"
    """How the batch is split over several devices."""
    seed: int = 0
    """Decides the parameters, the order of the data, augmentation and dropout."""
    name: str | None = None
    """Name of the run's folder; by default made from dataset and model."""
    runs_dir: Path = Path("runs")
    """Where the run's folder goes."""
    data_dir: Path | None = None
    """Where prepared data is kept."""
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    resume: bool = False
    """Go on with an interrupted run; its other settings must be given again."""


class Setup(NamedTuple):
    """What a run needs before its first step."""

    parallel: DataParallel
    dataset: data.Dataset
    run: Path
    state: TrainState
    train_step: Callable[..., Any]
    eval_step: Callable[..., Any]
    schedule: optax.Schedule
    steps_per_epoch: int
    last_step: int
    seconds: float
    """Time that a resumed run has taken already."""


def main(config: Config) -> None:
    """Train, evaluate after every epoch, and leave the results in runs_dir/name."""
    console = Console(highlight=False, soft_wrap=True)
    with mistakes_in_one_line(SCRIPT):
        setup = set_up(config, console)
    parallel, dataset, run = setup.parallel, setup.dataset, setup.run

    step = first_step = int(setup.state.step)
    last_step = setup.last_step
    state = parallel.replicate(setup.state)
    batches = data.training_batches(dataset.train, config.batch_size, seed=config.seed, start_step=step)
    prepare = jax.jit(partial(training_batch, config=config, dataset=dataset))
    augmentation_key, dropout_key = random_keys(config)
    began = time.perf_counter() - setup.seconds
    saved = logged = time.perf_counter()
    step_metrics: list[dict[str, Array]] = []  # of the steps since the last line of metrics.jsonl
    speeds: list[tuple[int, float]] = []  # images and seconds between two lines
    evaluation: Evaluation | None = None

    def log(**values: Any) -> None:
        append_metrics(run / "metrics.jsonl", step, epoch=step / setup.steps_per_epoch, **values)

    with stop_signal() as stop, progress_bar(console, last_step, first_step, setup.steps_per_epoch) as show:
        while step < last_step and not stop():
            batch = prepare(augmentation_key, step, parallel.shard(next(batches)))
            state, new_metrics = setup.train_step(state, batch, dropout_key)
            step_metrics.append(new_metrics)
            step += 1
            end_of_epoch = step % setup.steps_per_epoch == 0

            if step % config.log_every == 0 or end_of_epoch:
                means = jax.tree.map(lambda *x: float(np.mean(x)), *parallel.fetch(step_metrics))
                images, seconds = len(step_metrics) * config.batch_size, time.perf_counter() - logged
                step_metrics = []
                speeds.append((images, seconds))
                show(step, means["loss"], means["accuracy"], images / seconds)
                log(
                    train_loss=means["loss"],
                    train_accuracy=means["accuracy"],
                    learning_rate=setup.schedule(step - 1),
                    images_per_second=images / seconds,
                    seconds=time.perf_counter() - began,
                )
                if end_of_epoch:
                    evaluation = evaluate(setup, state, config.batch_size)
                    log(test_loss=evaluation.loss, test_accuracy=evaluation.accuracy)
                if time.perf_counter() - saved > config.checkpoint_seconds:
                    save(run, parallel.fetch(state))
                    saved = time.perf_counter()
                logged = time.perf_counter()
        save(run, parallel.fetch(state))

    if step < last_step:
        console.print(f"Stopped after step {step} of {last_step}; go on with\n  {resume_command(run)}")
        sys.exit(130)
    if evaluation is None:  # resumed after the last step
        evaluation = evaluate(setup, state, config.batch_size)
    images, seconds = np.sum(speeds[1:] or speeds or [(0, 1)], axis=0)  # the first ones hold the compilation
    summary = {
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "parameters": parameter_count(setup.state),
        "images_per_second": images / seconds,
        "seconds": time.perf_counter() - began,
        **environment(parallel.devices),
    }
    write_json(run / "summary.json", summary)
    draw(setup, evaluation)
    console.print(
        f"test accuracy {evaluation.accuracy:.4f} "
        f"({round(evaluation.accuracy * len(dataset.test))} of {len(dataset.test)}) "
        f"after {summary['seconds']:.0f} s\n"
        f"curves.png, confusion.png, summary.json, metrics.jsonl and the checkpoints are in {run}"
    )


def set_up(config: Config, console: Console) -> Setup:
    """Everything that a user's mistake can make fail, before anything is trained."""
    check(config)
    parallel = data_parallel(config.parallel)
    console.print(f"{parallel.describe(config.batch_size)}, {config.precision}")
    dataset = data.load_dataset(config.dataset, data_dir=config.data_dir, image_size=image_size(config))
    if config.batch_size > len(dataset.train):
        raise ValueError(
            f"--batch-size must be at most the {len(dataset.train)} training images, got {config.batch_size}"
        )
    steps_per_epoch = len(dataset.train) // config.batch_size
    last_step = steps_per_epoch * (config.epochs or max(round(1800 / steps_per_epoch), 2))
    optimizer, schedule = make_optimizer(config, last_step)
    model = make_model(config, len(dataset.class_names), dataset.image_shape[-1])
    merge, state = create_train_state(model, optimizer)
    loss = LOSSES[config.loss]
    step = partial(
        train_step, merge=merge, optimizer=optimizer, loss=loss, set_random_keys=nn.set_random_keys
    )
    jax.eval_shape(step, state, abstract_batch(config, dataset), jax.random.key(0))  # does the model take it?

    height, width, channels = dataset.image_shape
    console.print(
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test images, "
        f"{height}x{width}x{channels}, {len(dataset.class_names)} classes"
    )
    run = open_run(
        config.runs_dir,
        config.name,
        default_name(config),
        {"config.json": decisive_settings(config), "dataset.json": description(dataset)},
        resume=config.resume,
    )
    seconds = 0.0
    if config.resume:
        if checkpoint.latest_step(run / "checkpoints") is not None:  # else stopped before the first one
            state = checkpoint.restore(run / "checkpoints", state)
        rewind_metrics(run / "metrics.jsonl", int(state.step))
        records = read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
        seconds = max((record.get("seconds", 0.0) for record in records), default=0.0)
    console.print(f"{config.model}: {parameter_count(state):,} parameters; results go to {run}")
    return Setup(
        parallel=parallel,
        dataset=dataset,
        run=run,
        state=state,
        train_step=parallel.compile_train(step),
        eval_step=parallel.compile_eval(partial(eval_step, merge=merge, loss=loss)),
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        last_step=last_step,
        seconds=seconds,
    )


def evaluate(setup: Setup, state: TrainState, batch_size: int) -> Evaluation:
    """Evaluate every test image once."""
    dataset, parallel = setup.dataset, setup.parallel
    outputs = [
        setup.eval_step(state, evaluation_batch(parallel.shard(batch), dataset.mean, dataset.std))
        for batch in data.evaluation_batches(dataset.test, batch_size)
    ]
    return collect(parallel.fetch(outputs), len(dataset.test))


def save(run: Path, state: TrainState) -> None:
    """Write a checkpoint; a full disk is said in one line."""
    with mistakes_in_one_line(SCRIPT):
        checkpoint.save(run / "checkpoints", state)


def draw(setup: Setup, evaluation: Evaluation) -> None:
    """Draw the curves, the confusion matrix and the most confused images."""
    dataset, labels = setup.dataset, setup.dataset.test.labels
    confused = [
        plots.Confused(
            dataset.test[i]["image"],
            int(labels[i]),
            int(evaluation.predictions[i]),
            float(evaluation.probabilities[i]),
        )
        for i in most_confused(labels, evaluation).tolist()
    ]
    matrix = confusion_matrix(labels, evaluation.predictions, len(dataset.class_names))
    plots.curves(read_metrics(setup.run / "metrics.jsonl"), setup.run / "curves.png")
    plots.confusion(matrix, dataset.class_names, confused, setup.run / "confusion.png")


def check(config: Config) -> None:
    """Refuse settings that no run can have."""
    for name in ("epochs", "batch_size", "log_every"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(config, name)}")
    if not 0 < config.learning_rate < math.inf:
        raise ValueError(f"--learning-rate must be positive, got {config.learning_rate}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2**32), got {config.seed}")
    for name in ("weight_decay", "crop", "cutout", "mixup", "cutmix"):
        if not 0 <= (getattr(config, name) or 0) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(config, name)}")
    for name in ("label_smoothing", "dropout"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(config, name)}")


def image_size(config: Config) -> tuple[int, int] | None:
    """The height and width to resize images to; None leaves them as they are."""
    abstract = nnx.eval_shape(
        lambda: models.create_model(config.model, num_classes=2, in_channels=1, rngs=nnx.Rngs(0))
    )
    if config.image_size is None or abstract.input_size in (None, config.image_size):
        return config.image_size or abstract.input_size
    wanted, came = (f"{height}x{width}" for height, width in (abstract.input_size, config.image_size))
    raise ValueError(f"--model {config.model} takes images of {wanted}, got --image-size {came}")


def make_model(config: Config, num_classes: int, in_channels: int) -> models.Classifier:
    """The model, with new parameters."""
    overrides = {"dropout": config.dropout} if config.dropout else {}
    return models.create_model(
        config.model,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=jnp.dtype(config.precision),
        rngs=nnx.Rngs(config.seed),
        **overrides,
    )


def make_optimizer(config: Config, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer, and its schedule: a linear warm-up over a tenth of the steps, then a cosine to zero."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 10, steps)

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda x: x.ndim > 1, params)

    if config.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed), schedule
    decay = optax.add_decayed_weights(config.weight_decay, decayed)
    return optax.chain(decay, optax.sgd(schedule, momentum=0.9, nesterov=True)), schedule


def training_batch(
    key: Key[Array, ""], step: Array, batch: dict[str, Array], *, config: Config, dataset: data.Dataset
) -> dict[str, Array]:
    """Augment and normalise a batch of uint8 images; the randomness of a step depends on key and step."""
    keys = jax.random.split(jax.random.fold_in(key, step), 5)
    image = batch["image"].astype(jnp.float32)
    target = jax.nn.one_hot(batch["label"], len(dataset.class_names), dtype=jnp.float32)
    target = optax.losses.smooth_labels(target, config.label_smoothing)
    crop = round(image.shape[1] / 10) if config.crop is None else config.crop
    if crop:
        image = augment.random_crop(keys[0], image, crop)
    if config.flip:
        image = augment.random_flip(keys[1], image)
    image = normalize(image, dataset.mean, dataset.std)
    if config.cutout:
        image = augment.cutout(keys[2], image, config.cutout)
    if config.mixup:
        image, target = augment.mixup(keys[3], image, target, config.mixup)
    if config.cutmix:
        image, target = augment.cutmix(keys[4], image, target, config.cutmix)
    return {"image": image, "target": target, "index": batch["index"]}


@jax.jit
def evaluation_batch(
    batch: dict[str, Array], mean: Sequence[float], std: Sequence[float]
) -> dict[str, Array]:
    """Normalise a batch of uint8 images."""
    return batch | {"image": normalize(batch["image"], mean, std)}


def abstract_batch(config: Config, dataset: data.Dataset) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and dtypes of a prepared training batch."""
    shapes = {"image": (dataset.image_shape, jnp.uint8), "label": ((), jnp.int32), "index": ((), jnp.int32)}
    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype)
        for name, (shape, dtype) in shapes.items()
    }
    return jax.eval_shape(
        partial(training_batch, config=config, dataset=dataset), jax.random.key(0), jnp.int32(0), batch
    )


def random_keys(config: Config) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """The keys of augmentation and of dropout.

    The parameters and the order of the images are drawn with fold_in(key(seed), small numbers), and
    split(key(seed)) is that too; the large number keeps these keys apart from all of them.
    """
    augmentation, dropout = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 2**32 - 1))
    return augmentation, dropout


def parameter_count(state: TrainState) -> int:
    """How many numbers the optimizer trains."""
    return sum(x.size for x in jax.tree.leaves(state.params))


def normalize(image: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Images of 0..255 as float32 in which each channel has mean 0 and deviation 1 over the training set."""
    shape = (1, 1, 1, len(mean))
    scaled = image.astype(jnp.float32) / 255
    means, deviations = (jnp.array(values, jnp.float32).reshape(shape) for values in (mean, std))
    return (scaled - means) / deviations


def decisive_settings(config: Config) -> dict[str, Any]:
    """The settings that decide the result, which a resumed run must share."""
    where_and_when = ("name", "runs_dir", "data_dir", "checkpoint_seconds", "log_every", "resume")
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in where_and_when}


def default_name(config: Config) -> str:
    """The run's name where none is given: the data set's, without its folder's path, and the model's."""
    kind, _, place = config.dataset.partition(":")
    name = Path(place).name if kind in ("idx", "folder") else config.dataset
    return f"{name or kind}-{config.model}"


def description(dataset: data.Dataset) -> dict[str, Any]:
    """What must be known of the data to use the model that was trained on it."""
    names = ("name", "class_names", "image_shape", "mean", "std")
    sizes = {"train": len(dataset.train), "test": len(dataset.test)}
    return {name: getattr(dataset, name) for name in names} | sizes


def resume_command(run: Path) -> str:
    """The command line that goes on with this run."""
    words = [sys.executable, *sys.argv]
    if "--name" not in " ".join(words):
        words += ["--name", run.name]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])


if __name__ == "__main__":
    main(read_flags(Config, SCRIPT))
