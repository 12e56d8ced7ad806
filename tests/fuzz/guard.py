"""Memory with guard pages: the library that a worker is started with, and its switch."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.c")


def build(folder: Path) -> Path | None:
    """The library, for LD_PRELOAD; None where there is no C compiler or another malloc than glibc's."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "guard.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    built = subprocess.run(command, capture_output=True)
    return library if built.returncode == 0 else None


class Guard:
    """The library that this process was started with, or nothing."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self.is_there = hasattr(self._library, "guard_prepare") and bool(self._library.guard_prepare())

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Every block that is taken inside ends at a guard page: for a program that is compiled already."""
        if self.is_there:
            self._library.guard_switch(1)
        try:
            yield
        finally:
            if self.is_there:
                self._library.guard_switch(0)

    @property
    def blocks(self) -> int:
        """How many there were so far."""
        return self._library.guard_blocks() if self.is_there else 0
