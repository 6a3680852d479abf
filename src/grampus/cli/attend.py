"""Stays with a run until it ends: a live picture on a terminal, a line per change elsewhere.

Rule: all of it goes to stderr, and leaving is harmless: the run goes on, and what cancels it is
said. At the end the tasks that failed are told with the last they wrote, and what to do next.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from grampus.cli.errors import INTERRUPTED
from grampus.cli.options import Format
from grampus.cli.output import clean, coloured, document, ms_of, note, paint, span, tell
from grampus.cli.watch import FAILED, Watched
from grampus.clock import SystemClock
from grampus.errors import GrampusError, NoQuorum, ServerUnreachable
from grampus.model.duration import format_duration
from grampus.model.run import RunState
from grampus.sdk.answers import Run, TaskRun
from grampus.sdk.client import Client

#: Exit code of each end of a run.
EXIT = {RunState.SUCCEEDED: 0, RunState.FAILED: 1, RunState.CANCELLED: 5}
FRAMES = 8
#: Failed tasks that are told in full, and lines of their stderr.
MOST_FAILED = 5
LAST_LINES = 10
LAST_BYTES = 8 * 1024


def stay(client: Client, run: str, timeout: int | None, output: Format, *, tell_id: bool) -> None:
    """Until the run ends; leaves with its exit code."""
    if tell_id and output is Format.text:
        tell(run)
    view = attend(client, run, timeout, whole=tell_id)
    if output is Format.json:
        document(view)
    elif not tell_id:
        tell(view.state)
    raise typer.Exit(summary(client, view))


def attend(client: Client, run: str, timeout: int | None = None, *, whole: bool = False) -> Run:
    """Returns the run when it is final. Leaves with 130 on Ctrl-C and when the time is up.

    `timeout` is in ms. `whole` tells from the run's beginning on what became of each task.
    """
    # Only a run that was seen can be left: its id is known from here on.
    view = client.run(run)
    try:
        with _deadline(timeout):
            _watch(client, Watched(view, client.tasks(view.id), whole=whole))
            return client.wait(view.id)
    except ServerUnreachable as error:
        gone = "no majority answers" if isinstance(error, NoQuorum) else "the server went away"
        note(f"{gone}; run {view.id} goes on when it is back")
        raise
    except KeyboardInterrupt:
        note(f"\ndetached: run {view.id} goes on")
    except _TimeIsUp:
        note(f"run {view.id} is not over after {format_duration(timeout or 0)}: it goes on")
    note(f"  watch it again:  grampus run wait {view.id}")
    note(f"  cancel it:       grampus run cancel {view.id}")
    raise typer.Exit(INTERRUPTED)


def summary(client: Client, run: Run) -> int:
    """Tells how the run ended; the exit code."""
    lasted = None if run.ended is None else (ms_of(run.ended) or 0) - (ms_of(run.created) or 0)
    state = paint(run.state, run.state, sys.stderr)
    why = f": {clean(run.reason)}" if run.reason and run.state != RunState.SUCCEEDED else ""
    note(f"run {run.id} of {run.workflow} {state} in {span(lasted)}{why}")
    tasks = client.tasks(run.id)
    failed = [task for task in tasks if task.state in FAILED]
    for task in failed[:MOST_FAILED]:
        _failure(client, run, task)
    if len(failed) > MOST_FAILED:
        note(f"{len(failed) - MOST_FAILED} more tasks failed: grampus run show {run.id}")
    if run.state == RunState.SUCCEEDED:
        results = [task.name for task in tasks if task.output]
        if results:
            note(f"  result:  grampus run result {run.id} {results[-1]}")
        note(f"  logs:    grampus run logs {run.id}")
    return EXIT.get(run.state, 0)


def _watch(client: Client, watched: Watched) -> None:
    if watched.over:
        return
    if not coloured(sys.stderr):
        # What earlier rounds were like is for `story`.
        began = watched.started or 0
        for event in client.events(watched.id):
            if (text := watched.move(event)) is not None and (ms_of(event.at) or 0) >= began:
                note(text)
        return
    from rich.console import Console
    from rich.live import Live

    from grampus.cli.live import Picture

    picture = Picture(watched, SystemClock())
    client.on_silence(picture.fall_silent)
    with Live(picture, console=Console(stderr=True), refresh_per_second=FRAMES):
        for event in client.events(watched.id):
            watched.move(event)


def _failure(client: Client, run: Run, task: TaskRun) -> None:
    last = task.attempts[-1] if task.attempts else None
    tries = f" (try {task.tries} of {task.max_attempts})" if task.tries else ""
    state = paint(task.state, task.state, sys.stderr)
    why = next(iter(task.reason.splitlines()), "")
    note(f"\n{task.name} {state}{tries}: {clean(why)}")
    if last is not None:
        told = last.error.strip()
        lines = _last_lines(client, run.id, task.name, last.attempt, last.stderr)
        # What was raised ends what was written: it is not told twice.
        for line in told.splitlines() if told and told not in task.reason and not lines else []:
            note(f"    {clean(line)}")
        for line in lines:
            note(f"    {clean(line)}")
        note(f"  all of it: grampus run logs {run.id} {task.name}")


def _last_lines(client: Client, run: str, task: str, attempt: int, size: int) -> list[str]:
    offset = max(size - LAST_BYTES, 0)
    text = ""
    try:
        for piece in client.logs(run, task, attempt=attempt, stream="stderr", offset=offset):
            text = (text + piece.text)[-LAST_BYTES:]
    except GrampusError as error:
        return [f"(its stderr cannot be read: {error})"]
    return [line for line in text.splitlines() if line.strip()][-LAST_LINES:]


class _TimeIsUp(BaseException):
    """Raised in the middle of whatever is done, like KeyboardInterrupt."""


@contextmanager
def _deadline(ms: int | None) -> Iterator[None]:
    """Interrupts what is done inside after that time; for the main thread."""
    if ms is None:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(ms, 1) / 1000)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
