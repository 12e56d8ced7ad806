"""One lesson of the course, run once: its numbers, its pictures, and its place in the documents."""

from collections.abc import Callable
from pathlib import Path

from course.page import Page, Paragraph, Picture, Title

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("lessons.md", "lessons.ko.md")]


def run(lesson: Callable[[Page], None], folder: Path) -> dict[str, float]:
    """The computed numbers of a lesson by their expressions, once what holds for each was checked."""
    page = Page()
    lesson(page)
    assert not [check for check in page.checks if not check.holds]
    assert isinstance(page.blocks[0], Title)
    for block in page.blocks:
        if isinstance(block, Title | Paragraph | Picture):
            assert all(word in text for word, text in zip((block.en, block.ko), PAGES, strict=True)), (
                'the documents are older than the lesson; write them with make lessons ARGS="--docs"'
            )
        if isinstance(block, Picture):
            block.figure.savefig(folder / f"{block.name}.png")
            assert (DOCS / "lessons" / f"{block.name}.png").is_file()
    return {check.expression: check.computed for check in page.checks}
