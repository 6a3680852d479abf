"""One line on stderr, of the warden and of its shims: their log.

Rule: it never raises. The log is a file on the worker's disk; when that is full, a line is lost,
and no attempt with it.
"""

from __future__ import annotations

import contextlib
import os


def say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))


def log(text: str) -> None:
    """A line of the warden's own."""
    say(f"warden {os.getpid()}: {text}")
