"""The command `grampus`: from its arguments to its exit code.

Rule: nothing is imported before `main` that takes time, so that Ctrl-C is told in one line from the
first moment on.
"""

from __future__ import annotations

import io
import os
import sys

#: 128 + SIGINT.
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and leaves with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _open_streams()
        from grampus.cli.errors import guarded

        code = guarded(lambda: _command(given))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = INTERRUPTED
    sys.exit(code)


def _open_streams() -> None:
    """A stream that was closed before us reads and writes nothing; no socket gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _command(given: list[str]) -> None:
    import typer

    from grampus.cli.app import app
    from grampus.errors import UsageError

    if any(0xDC80 <= ord(c) <= 0xDCFF for text in given for c in text):
        raise UsageError("the arguments are not UTF-8")
    command = typer.main.get_command(app)
    with command.make_context("grampus", given) as context:
        command.invoke(context)


if __name__ == "__main__":
    main()
