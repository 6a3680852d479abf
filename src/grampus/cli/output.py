"""What is printed, and where: data on stdout, everything else on stderr.

Rule: with `-o json` stdout holds exactly one JSON document, or one per line when streaming. Colours
only on a terminal without NO_COLOR. Text that comes from tasks cannot move the cursor: its control
characters are shown, not obeyed (`run logs` alone passes them on).
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import TextIO

import msgspec

_COLOURS = {
    "SUCCEEDED": "32",
    "LIVE": "32",
    "leads": "32",
    "RUNNING": "36",
    "STARTING": "36",
    "FAILED": "31",
    "TIMED_OUT": "31",
    "LOST": "31",
    "silent": "31",
    "waits": "31",
    "TROUBLED": "31",
    "UPSTREAM_FAILED": "33",
    "RETRYING": "33",
    "CANCELLING": "33",
    "CANCELLED": "33",
    "PAUSED": "33",
    "behind": "33",
    "SILENT": "33",
    "UNREACHABLE": "33",
    "DRAINED": "33",
    "DRAINING": "33",
    "QUEUED": "2",
    "WAITING": "2",
    "SKIPPED": "2",
    "ENDED": "2",
}


#: Cells that a table's columns keep on a narrow terminal; the first is the width of a run's id.
LEAST_FIRST, LEAST_LAST = 12, 8


def note(text: str) -> None:
    """A message for people. When nobody reads them any more, the work goes on without."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """What is written there from now on goes nowhere, and fails nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def to_stderr() -> Iterator[None]:
    """What is written to stdout meanwhile goes to stderr, that of child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)


def document(value: object) -> None:
    """The one JSON document of this command."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2)
    tell(data.decode())


def tell(text: str) -> None:
    """Data of a command that has more to do: what it leaves with is not up to its reader."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence(sys.stdout)


def document_line(value: object) -> None:
    """One of many, in a stream."""
    print(msgspec.json.encode(value).decode(), flush=True)


def coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, state: str, stream: TextIO) -> str:
    """`text` in the colour of `state`, on a terminal."""
    code = _COLOURS.get(state)
    return f"\x1b[{code}m{text}\x1b[0m" if code and coloured(stream) else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on stdout. On a terminal they are cut to fit: the first and the last, then the widest
    of the others. In a pipe nothing is."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(head, *cells, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if room is not None and len(head) > 1:
        _narrow(widths, [_width(name) for name in head], room)
        cells = [[*map(cut, row[:-1], widths), row[-1]] for row in cells]
    for number, row in enumerate([list(head), *cells]):
        line = ""
        for cell, width in zip(row[:-1], widths, strict=False):
            padded = cell + " " * (width - _width(cell) + 2)
            line += paint(padded, cell, sys.stdout) if number else padded
        used = sum(widths[:-1]) + 2 * (len(widths) - 1)
        last = row[-1] if room is None else cut(row[-1], max(room - used, LEAST_LAST))
        line += paint(last, last, sys.stdout) if number else last
        print(line.rstrip())


def _narrow(widths: list[int], heads: Sequence[int], room: int) -> None:
    """Takes away what is too much for `room` cells; no column gets narrower than its head."""
    between = 2 * (len(widths) - 1)
    rest = sum(widths[1:-1]) + between + LEAST_LAST
    widths[0] = min(widths[0], max(room - rest, LEAST_FIRST))
    for column in sorted(range(1, len(widths) - 1), key=lambda n: -widths[n]):
        over = sum(widths[:-1]) + between + LEAST_LAST - room
        least = max(heads[column], LEAST_LAST)
        widths[column] -= max(min(over, widths[column] - least), 0)


def clean(text: str) -> str:
    """`text` on one line, its control characters shown."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _shown(c) for c in text)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, with `…` where something is missing."""
    if _width(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += _width(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def span(ms: float | None) -> str:
    """A duration for people: 0.4s, 12s, 3m05s, 2h07m, 4d03h."""
    if ms is None:
        return ""
    seconds = max(ms, 0) / 1000
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def ms_of(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


def ago(time: datetime, now: int) -> str:
    """How long before `now` (wall ms) that was."""
    return f"{span(now - round(time.timestamp() * 1000))} ago"


def _shown(character: str) -> str:
    if character in "\n\r\t":
        return " "
    return character.encode("unicode_escape").decode()


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
