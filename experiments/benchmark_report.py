"""How benchmarks are shown: tables on the console and in Markdown, and a chart of times."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table as RichTable

COLORS = ("#3b75af", "#d95f30", "#8a8a8a", "#5a9e4b", "#8d6cab", "#c9a227")


class Table(NamedTuple):
    """A title, the columns' names, and rows of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in Markdown, numbers to the right."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits that count, a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    whole = 1 if value == 0 else math.floor(math.log10(abs(value))) + 1
    return f"{value:,.{max(digits - whole, 0)}f}" if whole > -digits else f"{value:.0e}"


def console() -> Console:
    """A console on which a table keeps its columns, in a pipe too."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


def show(on: Console, tables: Iterable[Table], remarks: Iterable[str]) -> None:
    """Print tables and what there is to say of them."""
    for table in tables:
        shown = RichTable(title=table.title, title_justify="left")
        for i, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if i else "left", no_wrap=not i)
        for row in table.rows:
            shown.add_row(*row)
        on.print(shown)
    for remark in remarks:
        on.print(f"- {remark}", soft_wrap=True)


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands in a file between the comments <!-- name --> and <!-- end of name -->.

    Raises:
        ValueError: the file does not have them.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8")
    new, found = re.subn(
        f"({re.escape(begin)}).*?({re.escape(end)})", lambda m: f"{m[1]}\n\n{text}\n\n{m[2]}", old, flags=re.S
    )
    if not found:
        raise ValueError(f"--markdown: {path} must hold the lines {begin} and {end}")
    path.write_text(new, encoding="utf-8")


def description(run: Mapping[str, Any]) -> str:
    """One sentence on where and when a run was made, from `stopwatch.circumstances`."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (
        f"{run['processor']}, {run['cpu_cores']} {'core' if run['cpu_cores'] == 1 else 'cores'}, "
        f"Python {run['python']}, {versions}; {run['date']}"
    )


def bars(
    path: Path, title: str, names: Sequence[str], series: Mapping[str, Sequence[float | None]], label: str
) -> None:
    """Draw a group of horizontal bars for each name, from 1 on a logarithmic axis, each with its figure."""
    height = 0.8 / len(series)
    rows = len(names) * max(0.32, 0.17 * len(series))
    figure = Figure(figsize=(10, 1.6 + rows), dpi=110, layout="constrained")
    axes = figure.subplots()
    largest = max((v for values in series.values() for v in values if v), default=1.0)
    for i, (name, values) in enumerate(series.items()):
        places = [row + (i - (len(series) - 1) / 2) * height for row in range(len(names))]
        drawn = [(place, value) for place, value in zip(places, values, strict=True) if value]
        where, lengths = [place for place, _ in drawn], [value - 1 for _, value in drawn]
        axes.barh(where, lengths, height, left=1.0, color=COLORS[i % len(COLORS)], label=name)
        for place, value in drawn:
            beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(number(value, 2), (max(value, 1.0), place), **beside, size=7)
    axes.axvline(1.0, color="0.2", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(right=max(largest, 1.0) * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.set_title(title, loc="left")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower right", ncols=len(series))
    figure.savefig(path)
