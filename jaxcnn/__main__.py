"""`python -m jaxcnn models` prints the models with their parameters, MACs and published accuracies.

python -m jaxcnn models
python -m jaxcnn models "efficientnet*"
python -m jaxcnn models --measure       counts again what models.csv holds
python -m jaxcnn models --markdown docs/models.md
"""

import argparse
import csv
import inspect
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from flax import nnx
from rich.console import Console
from rich.table import Table

from jaxcnn.analysis import count_macs, count_parameters
from jaxcnn.models import create_model, list_models
from jaxcnn.models.registry import MODELS
from jaxcnn.pretrained import published

COUNTS = files("jaxcnn").joinpath("models.csv")
"""Parameters and MACs of every model: counting them anew takes a minute."""

SMALL = {"lenet5": (32, 32, 1), "mlp": (28, 28, 1), "all_cnn_c": (32, 32, 3)} | {
    f"resnet{depth}": (32, 32, 3) for depth in (20, 32, 44, 56, 110)
}
"""The images of the networks that were made for ten classes."""

HEAD = ("model", "parameters", "GMACs", "image", "top-1 %", "file")


class Counts(NamedTuple):
    """What is counted of a model, with the images it was made for."""

    model: str
    parameters: int
    macs: int
    height: int
    width: int
    channels: int
    classes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m jaxcnn", description="What jaxcnn has.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="models")
    models = commands.add_parser(
        "models", help="parameters, MACs and published top-1 accuracy of every model"
    )
    models.add_argument("pattern", nargs="?", default="*", help='a shell pattern such as "resnet*"')
    models.add_argument(
        "--measure", action="store_true", help="count again and renew the package's models.csv"
    )
    models.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a page")
    options = parser.parse_args(arguments)
    if options.measure:
        write_counts(map(count, list_models()))
    rows = [row(counts) for counts in read_counts() if fnmatch(counts.model, options.pattern)]
    if not rows:
        parser.exit(1, f"no model matches {options.pattern!r}; python -m jaxcnn models lists all\n")
    if options.markdown is not None:
        options.markdown.write_text(page(rows), encoding="utf-8")
    table = Table(box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("model", "file") else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)


def count(name: str) -> Counts:
    """The counts of a model, by abstract evaluation."""
    weights = published(name)
    size = weights[0].preprocessing.crop if weights else 224
    height, width, channels = SMALL.get(name, (size, size, 3))
    classes = 10 if name in SMALL else 1000
    model = nnx.eval_shape(
        lambda: create_model(name, num_classes=classes, in_channels=channels, rngs=nnx.Rngs(0))
    )
    macs = count_macs(model, (1, height, width, channels))
    return Counts(name, count_parameters(model), macs, height, width, channels, classes)


def write_counts(counts: Iterator[Counts]) -> None:
    """Renew the package's table."""
    rows = list(counts)
    with Path(str(COUNTS)).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([Counts._fields, *rows])


def read_counts() -> list[Counts]:
    """The package's table."""
    lines = COUNTS.read_text(encoding="utf-8").splitlines()
    return [Counts(model, *map(int, numbers)) for model, *numbers in csv.reader(lines[1:])]


def row(counts: Counts) -> tuple[str, ...]:
    """The cells of a model's line."""
    weights = published(counts.model)
    build = MODELS[counts.model]
    module = inspect.unwrap(build.func if isinstance(build, partial) else build).__module__
    return (
        counts.model,
        f"{counts.parameters:,}",
        f"{counts.macs / 1e9:.3f}",
        f"{counts.height}x{counts.width}x{counts.channels}",
        f"{weights[0].top1:.2f}" if weights else "",
        module.rpartition(".")[2] + ".py",
    )


def page(rows: Sequence[tuple[str, ...]]) -> str:
    """The table as a page of Markdown."""
    lines = [HEAD, ("---", "--:", "--:", "--:", "--:", "---"), *rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"""# Models

Written by `python -m jaxcnn models --markdown docs/models.md`. Parameters are those of 1,000 classes, 10 for
the networks of images of 32 x 32 pixels and less. GMACs are billions of multiply-accumulates of convolutions
and matrix products for one image of the size given, the one that the published weights were evaluated at.
Top-1 is the accuracy on ImageNet-1k that the first published weights have by their authors' account;
`jaxcnn.pretrained.published(name)` tells of later ones. The files are in jaxcnn/models/.

{table}
"""


if __name__ == "__main__":
    main()
