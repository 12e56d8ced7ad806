import io
import os
import signal

import pytest
from rich.console import Console

from jaxcnn.training.console import mistakes_in_one_line, progress_bar, stop_signal


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("batch of\n 3"), 1, "train: batch of 3\n"),
        (FileNotFoundError("no folder"), 1, "train: no folder\n"),
        (OSError(), 1, "train: OSError\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_users_mistake_is_one_line_and_an_exit_status(capsys, error, code, line):
    with pytest.raises(SystemExit) as stopped, mistakes_in_one_line("train"):
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError), mistakes_in_one_line("train"):
        raise KeyError("kernel")
    with pytest.raises(ModuleNotFoundError), mistakes_in_one_line("train"):
        raise ModuleNotFoundError("No module named 'jaxcnn'")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_once_and_then_does_what_it_did(number):
    before = signal.getsignal(number)
    with stop_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_without_a_terminal_about_ten_lines_are_printed():
    output = io.StringIO()
    console = Console(file=output, force_terminal=False, width=200)
    with progress_bar(console, 100, 0, 50) as show:
        for step in range(5, 101, 5):
            show(step, 1.0 / step, step / 100, 1234.5)
    lines = output.getvalue().strip().splitlines()
    assert 9 <= len(lines) <= 11
    assert lines[0].startswith("epoch 1  step 5/100  loss 0.2000  accuracy 0.0500  1,23")
    assert (
        lines[-1].startswith("epoch 2  step 100/100  loss 0.0100  accuracy 1.0000")
        and "0 s left" in lines[-1]
    )


def test_on_a_terminal_one_bar_shows_loss_accuracy_speed_and_time_left():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    with progress_bar(console, 100, 50, 25) as show:
        show(75, 0.25, 0.875, 2000.0)
    assert "epoch 3" in output.getvalue() and "75/100" in output.getvalue()
    assert "loss 0.2500  accuracy 0.8750  2,000 images/s" in output.getvalue()
