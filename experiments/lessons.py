"""Run the course: every lesson's formulas, numbers and pictures, computed by jaxcnn.

python experiments/lessons.py
python experiments/lessons.py --lang ko output_sizes im2col
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from course import (
    batch_norm,
    deconvolution,
    depth,
    features,
    inside,
    losses,
    matrices,
    pooling,
    receptive_fields,
    sequences,
    signals,
    sizes,
    why_convolutions,
)
from course.documents import draw, write_documents
from course.page import Page, Picture
from course.render import Language, show
from rich.console import Console

from jaxcnn.training.console import mistakes_in_one_line, read_flags

ROOT = Path(__file__).resolve().parents[1]

Lesson = Callable[[Page], None]

LESSONS: tuple[Lesson, ...] = (
    signals.two_signals,
    signals.which_one_networks_use,
    signals.one_window_three_channels,
    sizes.output_sizes,
    sizes.padding_kinds,
    why_convolutions.why_not_fully_connected,
    features.three_random_convolutions,
    pooling.max_and_average,
    pooling.aliasing,
    pooling.global_pooling,
    matrices.im2col,
    matrices.fully_connected_as_convolution,
    batch_norm.what_batch_norm_does,
    batch_norm.relu_against_sigmoid,
    batch_norm.dead_relus,
    depth.plain_against_residual,
    depth.concatenation_against_addition,
    depth.two_small_against_one_large,
    receptive_fields.receptive_fields,
    inside.what_a_unit_looks_for,
    deconvolution.transposed_not_inverse,
    deconvolution.transposed_sizes,
    deconvolution.checkerboard,
    losses.softmax_and_svm,
    sequences.several_windows,
)


@dataclass(frozen=True)
class Config:
    """Run the lessons of the course, all of them or those that are named."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[LESSON] ...", help_behavior_hint="")
    ] = ()
    """Lessons, such as output_sizes; --list prints their names."""
    lang: Language = "en"
    """The language of the explanations: English or Korean."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/lessons")
    """Where the pictures go."""
    list: bool = False
    """Print the names of the lessons and run none."""
    docs: bool = False
    """Write docs/lessons.md, docs/lessons.ko.md, their pictures and README.ko.md as well."""


def main(config: Config) -> None:
    """Run the lessons, print them, draw their pictures; exit status 1 if a number is not the course's."""
    with mistakes_in_one_line("lessons"):
        lessons = chosen(config.names)
        if config.docs and config.names:
            raise ValueError("--docs writes the pages of the whole course: name no lessons")
        if not config.list:
            config.out.mkdir(parents=True, exist_ok=True)
    if config.list:
        print("\n".join(lesson.__name__ for lesson in lessons))
        return

    console = Console(highlight=False)
    pages, start = [], time.perf_counter()
    for lesson in lessons:
        page = Page()
        lesson(page)
        pages.append(page)
        console.rule(f"{lesson.__name__}", align="left")
        show(console, page, config.lang)
        draw(page, config.out)
    if config.docs:
        write_documents(pages, ROOT)

    checks = [check for page in pages for check in page.checks]
    wrong = [check for check in checks if not check.holds]
    pictures = sum(isinstance(block, Picture) for page in pages for block in page.blocks)
    seconds = time.perf_counter() - start
    console.print(
        f"lessons: {len(pages)}; numbers: {len(checks)}, as stated: {len(checks) - len(wrong)}; "
        f"pictures in {config.out}: {pictures}; {seconds:.0f} s",
        soft_wrap=True,
    )
    if wrong:
        names = ", ".join(check.expression for check in wrong)
        print(f"lessons: not as stated: {names}", file=sys.stderr)
        raise SystemExit(1)


def chosen(names: tuple[str, ...]) -> list[Lesson]:
    """The lessons of those names, in the order of the course; all if there are no names."""
    known = [lesson.__name__ for lesson in LESSONS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no lesson {unknown[0]!r}; there are {', '.join(known)}")
    return [lesson for lesson in LESSONS if not names or lesson.__name__ in names]


if __name__ == "__main__":
    main(read_flags(Config, "lessons"))
