"""Draw on one page what a network sees in an image: published weights, or a run of one's own.

python experiments/explain.py --weights mobilenet_v2-b0353104.pth --model mobilenet_v2 photo.png
python experiments/explain.py runs/digits-lenet5 seven.png --target 7
python experiments/explain.py runs/pets-resnet20 cat.jpg --box 0.1 0.2 0.9 0.8
"""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np
import tyro
from classify import draw_bars, likeliest
from jaxtyping import Array
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from pretrained_model import ImageClassifier, named_model

from jaxcnn import interpret
from jaxcnn.interpret import plots
from jaxcnn.training.console import mistakes_in_one_line, read_flags


@dataclass(frozen=True)
class Config:
    """Draw what a network sees in an image.

    RUN IMAGE                               what train_classifier.py or fine_tune.py has trained
    --weights FILE --model NAME IMAGE       published weights
    """

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[RUN] IMAGE", help_behavior_hint=""),
    ]
    """The folder of a run, such as runs/digits-lenet5, unless --weights is given, and an image file."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """PyTorch's .pth or .safetensors file, or one that jaxcnn.pretrained.save_weights wrote."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The architecture that --weights are for, one of jaxcnn.models.list_models()."""
    target: Annotated[str | None, tyro.conf.arg(metavar="CLASS")] = None
    """The class whose evidence is looked for, by its name; the likeliest one if none is named."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """The picture to write, and FILE.html beside it with explanations; runs/explain/IMAGE.png if None."""
    box: Annotated[
        tuple[float, float, float, float] | None, tyro.conf.arg(metavar="LEFT TOP RIGHT BOTTOM")
    ] = None
    """A part of the image as shares of its sides, such as 0.1 0.2 0.9 0.8. It is drawn, and the share of the
    evidence that lies in it is printed."""


class Section(NamedTuple):
    """One way to look at the network: its name, what the picture shows, the picture, and what was drawn."""

    title: str
    text: str
    figure: Figure
    evidence: Array | None = None
    """(1, height, width), of each pixel."""


def main(config: Config) -> None:
    """Write the page as PNG and as HTML, and print which class was explained."""
    with mistakes_in_one_line("explain"):
        open_model, images = named_model(config.weights, config.model, config.paths)
        if len(images) != 1:
            raise ValueError(f"name one image file, got {len(images)}")
        out = config.out or Path("runs/explain") / f"{images[0].stem}.png"
        if out.suffix != ".png":
            raise ValueError(f"--out must end in .png, got {out}")
        if config.box is not None:
            left, top, right, bottom = config.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"--box must be left < right and top < bottom, in 0 to 1, got {config.box}")
        classifier = open_model()
        x = classifier.prepare(images[0])[None]
        row = classifier.probabilities(x)[0]
        target = class_number(config.target, classifier, row)
        out.parent.mkdir(parents=True, exist_ok=True)

    name = classifier.class_names[target]
    print(f"{images[0]}: {name} ({row[target]:.3f})", flush=True)
    looks = list(sections(classifier, x, row, target))
    if config.box is not None:
        print(in_the_box(config.box, looks))
    page = html_page(f"{images[0].name}: {name}", classifier.name, looks)
    out.with_suffix(".html").write_text(page, encoding="utf-8")
    for section in looks:
        # As large on the page as all others, whatever the picture is scaled by.
        scale = (section.figure.bbox.size / np.array(CELL)).max()
        section.figure.suptitle(section.title, size=13 * scale, parse_math=False)
    column_page([png(section.figure) for section in looks]).save(out)
    print(f"{out} and {out.with_suffix('.html')}")


def class_number(name: str | None, classifier: ImageClassifier, row: np.ndarray) -> int:
    """The class of that name, or the likeliest one."""
    if name is None:
        return int(row.argmax())
    names = [other.casefold() for other in classifier.class_names]
    if name.casefold() not in names:
        near = ", ".join(likeliest(row, classifier.class_names, 5))
        raise ValueError(f"--target: there is no class {name!r}; the likeliest ones here are {near}")
    return names.index(name.casefold())


def sections(classifier: ImageClassifier, x: np.ndarray, row: np.ndarray, target: int) -> Iterator[Section]:
    """The ways to look at a network, one after the other.

    Args:
        classifier: the network, with its class names.
        x: the image as the network takes it (1, height, width, channels).
        row: the probability of every class.
        target: the class whose evidence is looked for.
    """
    model, image, key = classifier.model, classifier.colours(x), jax.random.key(0)
    name = classifier.class_names[target]
    try:
        maps = interpret.feature_maps(model, x)
    except ValueError:  # a network without feature maps, as an MLP
        maps = {}
    places = [tap for tap, value in maps.items() if value.shape[1] * value.shape[2] > 1]
    yield Section(
        "What it says",
        "The image as the network takes it, and the likeliest classes.",
        answer(image[0], likeliest(row, classifier.class_names, 5)),
    )
    if places:
        last = places[-1]
        heat = interpret.grad_cam(model, x, target, tap=last)
        yield Section(
            f"Grad-CAM at {last}",
            f"Where the last maps hold evidence for {name}: the channels of {last}, each weighted by how "
            "much the class's logit rises with it.",
            plots.grad_cam(image, heat),
            heat,
        )
    height, width = x.shape[1:3]
    window, stride = (max(1, height // 5), max(1, width // 5)), (max(1, height // 14), max(1, width // 14))
    covered = interpret.occlusion(model, x, target, window=window, stride=stride)
    yield Section(
        "Occlusion",
        f"A patch of {window[0]}x{window[1]} pixels covers one place after the other. Red: where it is "
        f"covered, the logit of {name} falls.",
        plots.occlusion(image, covered, window=window, stride=stride),
    )
    attribution = interpret.integrated_gradients(model, x, target, steps=256)
    yield Section(
        "Integrated gradients",
        "What each pixel adds to the logit on the way from the mean colour to the image; red speaks for the "
        f"class, blue against it. The sum over all pixels is {float(attribution.sum()):.2f}, by so much the "
        "logit rises.",
        plots.integrated_gradients(image, attribution),
        attribution.sum(-1),
    )
    strength = interpret.saliency(model, x, target)
    yield Section(
        "Saliency",
        "How strongly the logit answers to a small change of each pixel.",
        plots.saliency(image, strength),
        strength,
    )
    smooth = interpret.smooth_grad(key, model, x, target)
    yield Section(
        "SmoothGrad",
        "The same, averaged over noisy copies of the image: what stays is what the neighbourhood agrees on.",
        plots.smooth_grad(image, smooth),
        smooth,
    )
    try:
        guided = interpret.guided_backpropagation(model, x, target)
    except ValueError:  # a network without ReLU
        pass
    else:
        yield Section(
            "Guided backpropagation",
            "A gradient that passes a ReLU only where it was active and only if it is positive: the edges "
            "and textures that excite the network.",
            plots.guided_backpropagation(image, guided),
        )
    if maps:
        shown = [list(maps)[i] for i in np.unique(np.linspace(0, len(maps) - 1, 4).round().astype(int))]
        yield Section(
            "Feature maps",
            "The first channels of some stages, from the input on: edges first, then parts, coarser and more "
            "abstract with every stage.",
            plots.feature_maps({tap: maps[tap] for tap in shown}, channels=6),
        )
        yield Section(
            "First filters",
            "The kernels of the first convolution.",
            plots.first_filters(interpret.first_filters(model)),
        )
    dream = interpret.maximize_activation(key, model, "logits", target, shape=(height, width), steps=128)
    yield Section(
        "Activation maximisation",
        f"Noise that was changed, step by step, for as high a logit of {name} as possible.",
        plots.maximize_activation(classifier.colours(np.asarray(dream)[None])),
    )


def in_the_box(box: tuple[float, float, float, float], looks: Sequence[Section]) -> str:
    """Draw a box over each picture of evidence; the share of what speaks for the class that is in it."""
    shares = []
    for section in looks:
        if section.evidence is None:
            continue
        evidence = np.maximum(np.asarray(section.evidence)[0], 0)
        height, width = evidence.shape
        left, top, right, bottom = (
            round(share * side) for share, side in zip(box, (width, height) * 2, strict=True)
        )
        inside, total = evidence[top:bottom, left:right].sum(), evidence.sum()
        # Grad-CAM may find nothing at all.
        shares.append(f"{section.title} " + (f"{inside / total:.0%}" if total else "none anywhere"))
        for axes in section.figure.axes:
            axes.add_patch(
                Rectangle(
                    (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="#d95f30"
                )
            )
    area = (box[2] - box[0]) * (box[3] - box[1])
    return f"in the box, {area:.0%} of the area: " + ", ".join(shares)


def answer(image: np.ndarray, classes: dict[str, float]) -> Figure:
    """The image beside bars as long as the probabilities of its likeliest classes."""
    figure = Figure(figsize=(8, 3), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    left.imshow(image if image.shape[-1] == 3 else image.mean(-1), cmap="gray", vmin=0, vmax=1)
    left.set_axis_off()
    draw_bars(right, classes)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


CELL = (900, 480)
"""The largest width and height of a picture on the page, in pixels."""


def column_page(pictures: list[bytes], cell: tuple[int, int] = CELL, gap: int = 24) -> Image.Image:
    """Pictures in two columns, each put into the shorter one, scaled to touch the sides of a cell."""
    (width, height), scaled = cell, []
    for picture in pictures:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        scale = min(width / image.width, height / image.height)
        size = round(image.width * scale), round(image.height * scale)
        scaled.append(image.resize(size, Image.Resampling.LANCZOS))
    places, heights = [], [gap, gap]
    for image in scaled:
        column = int(heights[1] < heights[0])
        places.append((gap + column * (width + gap) + (width - image.width) // 2, heights[column]))
        heights[column] += image.height + gap
    page = Image.new("RGB", (2 * width + 3 * gap, max(heights)), "white")
    for image, place in zip(scaled, places, strict=True):
        page.paste(image, place)
    return page


def html_page(heading: str, network: str, looks: list[Section]) -> str:
    """A page that holds its pictures itself."""
    parts = [
        f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>"
        f'<img alt="{html.escape(section.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(png(section.figure)).decode()}"></section>'
        for section in looks
    ]
    return PAGE.format(heading=html.escape(heading), network=html.escape(network), parts="\n".join(parts))


PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{heading}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; color: #222 }}
img {{ max-width: 100%; height: auto }}
</style>
</head>
<body>
<h1>{heading}</h1>
<p>{network}</p>
{parts}
</body>
</html>
"""


if __name__ == "__main__":
    main(read_flags(Config, "explain"))
