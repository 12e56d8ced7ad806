"""lessons.py: what it prints and writes, and how it names mistakes; each lesson has a test of its own."""

import lessons
import pytest
import tyro
from course.documents import contents, write_documents
from course.page import Page
from course.render import anchor, markdown, number
from matplotlib.figure import Figure
from PIL import Image


def say(capsys, *words) -> str:
    lessons.main(tyro.cli(lessons.Config, args=[str(word) for word in words]))
    return capsys.readouterr().out


def small_lesson(page: Page) -> None:
    page.title("One & two?", "하나와 둘?")
    page.say("They are | added, `1 + 1`.", "더한다.")
    page.formula("a + b")
    page.equal("1 + 1", 2, 2)
    page.at_least("x | y", 0.93751, 0.93)
    page.table(("n", "n²"), [("3", "9")])
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([1, 2])
    page.picture("one_and_two", figure, "A line.", "직선.")


def wrong_lesson(page: Page) -> None:
    page.title("Wrong", "틀림")
    page.equal("2 · 2", 4, 5)


@pytest.fixture
def course(monkeypatch):
    """A course of one lesson that is right and one that is not."""
    monkeypatch.setattr(lessons, "LESSONS", (small_lesson, wrong_lesson))


def test_a_lesson_is_printed_and_drawn(capsys, tmp_path, course):
    text = say(capsys, "small_lesson", "--out", tmp_path / "new" / "folder")
    for shown in ("One & two?", "They are | added, 1 + 1.", "a + b", "0.9375", "[one_and_two.png] A line."):
        assert shown in text
    assert "lessons: 1; numbers: 2, as stated: 2; pictures in" in text
    with Image.open(tmp_path / "new" / "folder" / "one_and_two.png") as picture:
        assert picture.size == (100, 50)


def test_in_korean(capsys, tmp_path, course):
    text = say(capsys, "small_lesson", "--lang", "ko", "--out", tmp_path)
    assert "하나와 둘?" in text and "직선." in text and "계산값" in text and "One" not in text


def test_a_number_that_is_not_the_courses_ends_with_an_error(capsys, tmp_path, course):
    with pytest.raises(SystemExit) as stopped:
        say(capsys, "--out", tmp_path)
    printed = capsys.readouterr()
    assert stopped.value.code == 1 and "numbers: 3, as stated: 2;" in printed.out
    assert printed.err == "lessons: not as stated: 2 · 2\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "lessons: there is no lesson 'nothing'; there are small_lesson, wrong_lesson"),
        (("small_lesson", "--docs"), "lessons: --docs writes the pages of the whole course: name no lessons"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(capsys, tmp_path, course, words, message):
    with pytest.raises(SystemExit) as stopped:
        say(capsys, *words, "--out", tmp_path / "none")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.splitlines() == [message]
    assert not (tmp_path / "none").exists()


def test_the_list_names_every_lesson_once(capsys):
    names = say(capsys, "--list").split()
    assert len(names) == len(set(names)) >= 14 and "output_sizes" in names


def test_markdown_in_both_languages():
    page = Page()
    small_lesson(page)
    english, korean = (markdown(page, language, "lessons") for language in ("en", "ko"))
    assert english.startswith(
        "## One & two?\n\nThey are | added, `1 + 1`.\n\n```text\na + b\n```\n\n|  | computed |"
    )
    assert "| 1 + 1 | 2 | = | 2 | ✓ |\n| x \\| y | 0.9375 | ≥ | 0.93 | ✓ |" in english
    assert "| n | n² |\n| --- | --- |\n| 3 | 9 |" in english
    assert korean.endswith("![one_and_two](lessons/one_and_two.png)\n\n*직선.*\n")
    assert contents([page], "ko", "x.md") == "1. [하나와 둘?](x.md#하나와-둘)\n"


def test_documents_are_written(tmp_path):
    page = Page()
    small_lesson(page)
    readme = (lessons.ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    write_documents([page], tmp_path)
    assert (tmp_path / "docs" / "lessons" / "one_and_two.png").is_file()
    assert "더한다." in (tmp_path / "docs" / "lessons.ko.md").read_text(encoding="utf-8")
    assert "](docs/lessons.ko.md#하나와-둘)" in (tmp_path / "README.ko.md").read_text(encoding="utf-8")


def test_numbers_and_anchors_as_github_makes_them():
    assert [number(value) for value in (5, 150528.0, 0.04, 1 / 3)] == ["5", "150,528", "0.04", "0.3333"]
    assert anchor("Why not, fully connected?") == "why-not-fully-connected"


def test_a_number_may_stay_below_or_reach():
    page = Page()
    page.at_most("a", 2.0, 1.0)
    page.at_least("b", 1.0, 1.0)
    page.equal("c", 0.1 + 0.2, 0.3, tolerance=1e-12)
    page.equal("d", 0.1 + 0.2, 0.3)
    assert [check.holds for check in page.checks] == [False, True, True, False]
