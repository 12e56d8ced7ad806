"""What a lesson writes on: words in two languages, formulas, numbers held against the course's, pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from matplotlib.figure import Figure


class Title(NamedTuple):
    """The heading of a lesson."""

    en: str
    ko: str


class Paragraph(NamedTuple):
    """A few sentences."""

    en: str
    ko: str


class Formula(NamedTuple):
    """Lines of mathematics or code, the same in every language."""

    text: str


class Check(NamedTuple):
    """A number that was computed, beside the one that it must equal, reach or stay below."""

    expression: str
    computed: float
    relation: str
    stated: float
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the two stand in the relation."""
        if self.relation == "=":
            return math.isclose(self.computed, self.stated, rel_tol=0.0, abs_tol=self.tolerance)
        return (
            self.computed >= self.stated
            if self.relation == "\N{GREATER-THAN OR EQUAL TO}"
            else (self.computed <= self.stated)
        )


class Table(NamedTuple):
    """Rows of numbers under a header of symbols."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A figure, the name of its file without ending, and what is to be seen in it."""

    name: str
    figure: Figure
    en: str
    ko: str


Block = Title | Paragraph | Formula | Check | Table | Picture


@dataclass
class Page:
    """The blocks of one lesson, in the order in which it wrote them."""

    blocks: list[Block] = field(default_factory=list)

    def title(self, en: str, ko: str) -> None:
        """Name the lesson."""
        self.blocks.append(Title(en, ko))

    def say(self, en: str, ko: str) -> None:
        """Explain something in a few sentences; `code` may be marked as in Markdown."""
        self.blocks.append(Paragraph(" ".join(en.split()), " ".join(ko.split())))

    def formula(self, text: str) -> None:
        """Show lines of mathematics or code as they are."""
        self.blocks.append(Formula(text))

    def equal(self, expression: str, computed: float, stated: float, *, tolerance: float = 0.0) -> None:
        """Hold a computed number against the one that the course states.

        Args:
            expression: the formula with its numbers put in, such as "(7 - 3) / 2 + 1".
            computed: what jaxcnn gives.
            stated: what the course gives.
            tolerance: by how much they may differ.
        """
        self.blocks.append(Check(expression, computed, "=", stated, tolerance))

    def at_least(self, expression: str, computed: float, bound: float) -> None:
        """Hold a measured number against the least that it must be."""
        self.blocks.append(Check(expression, computed, "\N{GREATER-THAN OR EQUAL TO}", bound))

    def at_most(self, expression: str, computed: float, bound: float) -> None:
        """Hold a measured number against the most that it may be."""
        self.blocks.append(Check(expression, computed, "\N{LESS-THAN OR EQUAL TO}", bound))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show numbers side by side."""
        self.blocks.append(Table(header, rows))

    def picture(self, name: str, figure: Figure, en: str, ko: str) -> None:
        """Show a figure, with a caption that says what is to be seen in it."""
        self.blocks.append(Picture(name, figure, " ".join(en.split()), " ".join(ko.split())))

    @property
    def heading(self) -> Title:
        """The title that the lesson gave itself."""
        return next(block for block in self.blocks if isinstance(block, Title))

    @property
    def checks(self) -> list[Check]:
        """The numbers that were held against others."""
        return [block for block in self.blocks if isinstance(block, Check)]
