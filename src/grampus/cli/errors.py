"""The one place where an error becomes a message and an exit code.

0 done · 1 the run failed · 2 wrong usage or invalid input · 3 no server reachable · 4 refused or
conflict · 5 cancelled · 6 not found · 70 a bug of ours · 130 interrupted. A `GrampusError` says
itself what to do next. What nobody foresaw is told in two lines; its traceback goes to a file in
the state folder, and to the terminal only with GRAMPUS_DEBUG=1.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from grampus.cli.output import note, paint, silence
from grampus.errors import GrampusError, InvalidInput, NoQuorum

REFUSED = 4
BUG = 70
INTERRUPTED = 130
#: What the machine refuses and no code of ours can help.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def guarded(call: Callable[[], object]) -> int:
    """Runs `call`; the exit code, everything that went wrong having been told."""
    try:
        call()
        # Whatever is still to be written fails here or not at all.
        sys.stdout.flush()
    except typer.Exit as left:
        return left.exit_code
    except typer.Abort:
        note("interrupted")
        return INTERRUPTED
    except GrampusError as error:
        return explain(error)
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; nothing may fail at exit because of it.
        silence(sys.stdout)
        return 0
    except Exception as error:
        return _other(error)
    return 0


def _other(error: Exception) -> int:
    # Python before 3.11.4 puts a group around what is raised in `except*`.
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, GrampusError):
        return explain(error)
    # typer's own errors; their class is another one in each version of it.
    if hasattr(error, "format_message"):
        return _usage(error)
    if isinstance(error, OSError) and error.errno in FULL:
        note(f"{_error()} {error.filename or 'the output'} cannot be written: {error.strerror}")
        # What is still in the buffer would fail once more at exit.
        silence(sys.stdout)
        return REFUSED
    return _bug(error)


def _error() -> str:
    return paint("error:", "FAILED", sys.stderr)


def explain(error: GrampusError) -> int:
    if isinstance(error, InvalidInput):
        for problem in error.problems:
            note(f"{_error()} {problem}")
        if len(error.problems) > 1:
            note(f"{len(error.problems)} errors")
    else:
        note(f"{_error()} {error}")
    if isinstance(error, NoQuorum):
        note("  who is missing:  grampus cluster status")
    if os.environ.get("GRAMPUS_DEBUG") == "1":
        traceback.print_exception(error)
    return error.exit_code


def _usage(error: Exception) -> int:
    message = str(error.format_message())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        # A noun without a verb: what there is, is the answer.
        note(message)
    else:
        note(f"{_error()} {message[:1].lower()}{message[1:]}")
        if context is not None:
            note(f"see: {context.command_path} --help")
    return 2


def _bug(error: Exception) -> int:
    lines = traceback.format_exception(error)
    note(f"{_error()} a bug in Grampus: {type(error).__name__}: {error}")
    try:
        note(f"the traceback is in {_keep(lines)}; please report it")
    except OSError as failed:
        note(f"the traceback could not be kept ({failed}); GRAMPUS_DEBUG=1 prints it")
    if os.environ.get("GRAMPUS_DEBUG") == "1":
        sys.stderr.write("".join(lines))
    return BUG


def _keep(lines: list[str]) -> Path:
    """Only its owner reads the file: a traceback may hold anything."""
    base = os.environ.get("GRAMPUS_STATE")
    if not base:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        base = os.path.join(home, "grampus")
    folder = Path(base) / "crashes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{os.getpid()}.txt"
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        # The names of options tell what was done; their values may be anything.
        file.write(f"pid {os.getpid()}\n")
        file.writelines(lines)
    return path
