"""The course as files: its pictures, docs/lessons.md, docs/lessons.ko.md and README.ko.md."""

from collections.abc import Sequence
from pathlib import Path

from course.korean_readme import korean_readme
from course.page import Page, Picture
from course.render import Language, anchor, markdown, words

HEADING: dict[Language, str] = {
    "en": """\
# The course, number by number

Written by `make lessons ARGS="--docs"`, which runs each lesson: every number here was computed by jaxcnn, and
stands beside the one that the course states or that its theory gives. [한국어](lessons.ko.md)
""",
    "ko": """\
# 숫자로 따라가는 CNN 강의

`make lessons ARGS="--docs"`가 모든 절을 실제로 실행하여 만든 문서이다. 여기 나오는 숫자는 모두 jaxcnn이
계산한 값이며, 강의나 이론에서 말하는 기준값과 나란히 적었다. [English](lessons.md)
""",
}


def draw(page: Page, folder: Path) -> None:
    """Write the pictures of a page."""
    for block in page.blocks:
        if isinstance(block, Picture):
            block.figure.savefig(folder / f"{block.name}.png", pil_kwargs={"optimize": True})


def write_documents(pages: Sequence[Page], root: Path) -> None:
    """Write the course as two Markdown pages with one set of pictures, and the Korean README.

    Args:
        pages: what the lessons wrote.
        root: the folder with README.md, whose code blocks README.ko.md shows too.
    """
    pictures = root / "docs" / "lessons"
    pictures.mkdir(parents=True, exist_ok=True)
    for page in pages:
        draw(page, pictures)
    for language, heading in HEADING.items():
        name = "lessons.md" if language == "en" else f"lessons.{language}.md"
        parts = [heading, contents(pages, language)]
        parts += [markdown(page, language, "lessons") for page in pages]
        (root / "docs" / name).write_text("\n".join(parts), encoding="utf-8")
    readme = (root / "README.md").read_text(encoding="utf-8")
    korean = korean_readme(readme, contents(pages, "ko", "docs/lessons.ko.md"))
    (root / "README.ko.md").write_text(korean, encoding="utf-8")


def contents(pages: Sequence[Page], language: Language, file: str = "") -> str:
    """The titles of the lessons, numbered, as links to where they are."""
    titles = [words(page.heading, language) for page in pages]
    return "".join(f"{i}. [{title}]({file}#{anchor(title)})\n" for i, title in enumerate(titles, 1))
