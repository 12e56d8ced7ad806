"""A lesson's page on a terminal, and as Markdown."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from course.page import Block, Check, Formula, Page, Paragraph, Picture, Table, Title

Language = Literal["en", "ko"]

HEADER = {"en": ("", "computed", "", "reference"), "ko": ("", "계산값", "", "기준값")}
CHECK_MARK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"


def show(console: Console, page: Page, language: Language) -> None:
    """Print a page; where a picture stands, its caption."""
    for block in _together(page):
        match block:
            case Title():
                console.print(Text(words(block, language), style="bold"), end="\n\n")
            case Paragraph():
                console.print(Text(words(block, language).replace("`", "")), end="\n\n")
            case Formula(text):
                console.print(Padding(Text(text, style="cyan"), (0, 0, 1, 4), expand=False))
            case Table(header, rows):
                drawn = rich_table.Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
                for row in rows:
                    drawn.add_row(*map(Text, row))
                console.print(Padding(drawn, (0, 0, 1, 2), expand=False))
            case Picture():
                console.print(Text(f"[{block.name}.png] {words(block, language)}", style="dim"), end="\n\n")
            case list():
                console.print(Padding(_check_table(block, language), (0, 0, 1, 2), expand=False))


def _together(page: Page) -> Iterator[Block | list[Check]]:
    """The blocks of a page, checks that follow each other as one list."""
    checks: list[Check] = []
    for block in page.blocks:
        if isinstance(block, Check):
            checks.append(block)
            continue
        if checks:
            yield checks
            checks = []
        yield block
    if checks:
        yield checks


def _check_table(checks: Sequence[Check], language: Language) -> rich_table.Table:
    drawn = rich_table.Table(*HEADER[language], "", box=box.SIMPLE_HEAD, pad_edge=False)
    for check in checks:
        style = "" if check.holds else "bold red"
        drawn.add_row(*map(Text, _cells(check)), style=style)
    return drawn


def markdown(page: Page, language: Language, pictures: str) -> str:
    """A page as Markdown, its pictures in a folder given as the page's readers see it."""
    return "\n\n".join(_markdown_blocks(page, language, pictures)) + "\n"


def _markdown_blocks(page: Page, language: Language, pictures: str) -> Iterator[str]:
    for block in _together(page):
        match block:
            case Title():
                yield f"## {words(block, language)}"
            case Paragraph():
                yield words(block, language)
            case Formula(text):
                yield f"```text\n{text}\n```"
            case Table(header, rows):
                yield _markdown_table(header, rows)
            case Picture(name):
                yield f"![{name}]({pictures}/{name}.png)\n\n*{words(block, language)}*"
            case list():
                yield _markdown_table((*HEADER[language], ""), [_cells(check) for check in block])


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])


def words(block: Title | Paragraph | Picture, language: Language) -> str:
    """What a block says in one of the languages."""
    return block.en if language == "en" else block.ko


def anchor(heading: str) -> str:
    """The fragment under which a page on GitHub finds a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _cells(check: Check) -> tuple[str, str, str, str, str]:
    mark = CHECK_MARK if check.holds else CROSS
    return check.expression, number(check.computed), check.relation, number(check.stated), mark


def number(value: float) -> str:
    """A whole number with its thousands apart, another one with four digits."""
    value = float(value)
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
