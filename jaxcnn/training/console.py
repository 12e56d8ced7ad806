"""What a training script says while it runs: mistakes in one line, a progress bar, how to go on."""

import contextlib
import io
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Show = Callable[[int, float, float, float], None]
"""show(step, loss, accuracy, images per second)."""


Config = TypeVar("Config")


def read_flags(config: type[Config], script: str) -> Config:
    """The command line as a dataclass; a wrong flag is one line on stderr and exit status 2."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(config)
    except SystemExit as stopped:
        if stopped.code:  # tyro draws a box: what is in it, up to its pointer to --help
            words = re.sub(r"[╭╮╰╯│|+]|[─-]{3,}|\x1b\[[0-9;]*m", " ", complaint.getvalue()).split()
            message = " ".join(words).partition("For full helptext")[0]
            print(f"{script}: {message.strip()}; see --help", file=sys.stderr)
        raise


@contextmanager
def mistakes_in_one_line(script: str) -> Iterator[None]:
    """Turn the errors that a user's input causes into one line and exit status 1, with no traceback.

    For the parts of a script that read its settings and its data and write its results. Other errors are
    bugs of ours and keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ModuleNotFoundError:
        raise
    except (ValueError, TypeError, OSError, ImportError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"{script}: {message}", file=sys.stderr)
        raise SystemExit(1) from None


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end a loop between two steps: yields stop(), True once one of them came.

    The second Ctrl-C does what it always did.
    """
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def receive(number: int, _: Any) -> None:
        received.append(number)
        restore()

    for number in previous:
        signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    finally:
        restore()


@contextmanager
def progress_bar(console: Console, steps: int, first_step: int, steps_per_epoch: int) -> Iterator[Show]:
    """A bar with loss, accuracy, images/s and the time left; ten plain lines where there is no terminal."""
    bar = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(
        "", total=steps, completed=first_step, epoch=first_step // steps_per_epoch + 1, status="compiling ..."
    )
    started, next_line = time.perf_counter(), first_step

    def show(step: int, loss: float, accuracy: float, speed: float) -> None:
        nonlocal next_line
        epoch = -(-step // steps_per_epoch)
        status = f"loss {loss:.4f}  accuracy {accuracy:.4f}  {speed:,.0f} images/s"
        bar.update(task, completed=step, epoch=epoch, status=status)
        if not console.is_terminal and (step >= next_line or step == steps):
            left = (time.perf_counter() - started) / (step - first_step) * (steps - step)
            console.print(f"epoch {epoch}  step {step}/{steps}  {status}  {left:.0f} s left")
            next_line += max(steps // 10, 1)

    with bar:
        yield show
