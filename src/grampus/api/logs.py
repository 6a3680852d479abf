"""What the attempts of a run wrote: read from the workers piece by piece, cut between characters.

Rule: attempts are told in the order in which they started, first stdout, then stderr; while it
follows, each round takes one piece of every stream that may still grow. A cursor ends when its
worker says so, or when its attempt is final and nothing came for `LAST_WAIT` seconds. A worker that
cannot be reached gives one note, never an error in the middle of the stream.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from grampus.api.ports import LogReading, Ports
from grampus.api.schemas.story import LogEntry
from grampus.api.wakes import HEARTBEAT, PROBE, Wakes, is_cut_off
from grampus.errors import GrampusError, NotFound
from grampus.model.run import FINAL_ATTEMPT, FINAL_RUN, FINAL_TASK, AttemptState
from grampus.protocol import ReadLog
from grampus.runs.views import AttemptView, TaskView

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
PIECE = 64 * 1024
#: Seconds between two looks at logs that may grow: from, to.
SHORTEST, LONGEST = 0.1, 1.0
#: How long a final attempt's log is waited for when its worker is silent or slow, in seconds.
LAST_WAIT = 5.0
#: Their numbers of bytes are known to be true: the attempt ended before its worker's eyes.
_COUNTED = frozenset({AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Selection:
    """Which logs are asked for; None is all."""

    task: str | None = None
    attempt: int | None = None
    stream: Stream | None = None
    #: Where to begin: bytes of each selected stream.
    offset: int = 0

    def attempts(self, tasks: Sequence[TaskView]) -> list[AttemptView]:
        """The attempts selected, in the order of their start."""
        found = [
            attempt
            for task in tasks
            if self.task in (None, task.name)
            for attempt in task.attempts
            if self.attempt in (None, attempt.attempt)
        ]
        return sorted(found, key=lambda a: (a.started, a.session, a.n))

    def streams(self) -> tuple[Stream, ...]:
        return (self.stream,) if self.stream else STREAMS


class Word(Enum):
    """What a stream of logs says between its pieces."""

    #: Nothing came for a while.
    SILENCE = "silence"
    #: There will be no more.
    END = "end"


@dataclass(slots=True)
class Cursor:
    """A place in one stream of one attempt."""

    attempt: AttemptView
    stream: Stream
    #: Where the next read begins.
    offset: int
    ended: bool = False
    #: Since when its attempt is final and nothing more came, in ticks.
    silent_since: int | None = None
    _away: bool = False
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    async def read(
        self, run: str, read_log: LogReading, away: dict[int, Cursor]
    ) -> LogEntry | None:
        """The next piece; None when there is none now. Sets `ended`.

        `away`: by session, who told that its worker cannot be asked. That is said once for all that
        runs there, and by the same one that it can be asked again."""
        a = self.attempt
        try:
            asked = ReadLog(a.session, a.n, run, a.task, a.attempt, self.stream, self.offset, PIECE)
            chunk = await read_log(asked)
        except NotFound as error:
            self.ended = True
            return self._told(f"its log is gone: {error}")
        except GrampusError as error:
            # A worker that is away, overloaded or mistaken: the others still have their say.
            if away.setdefault(a.session, self) is not self or self._away:
                return None
            self._away = True
            return self._told(f"the logs on {a.worker} cannot be read now: {error}")
        if self._away:
            # What was read now is read once more.
            self._away = False
            del away[a.session]
            return self._told(f"the logs on {a.worker} can be read again")
        self.ended = chunk.end
        held = len(self._decoder.getstate()[0])
        start = chunk.offset - held
        if chunk.skipped:
            # What was held belongs to bytes that are far before these.
            self._decoder.reset()
            held, start = 0, chunk.offset
        self.offset = chunk.offset + len(chunk.data)
        text = self._decoder.decode(chunk.data, final=chunk.end)
        if not text and not chunk.skipped:
            return None
        behind = len(self._decoder.getstate()[0])
        return self._entry(text, start, self.offset - behind, chunk.skipped)

    def rest(self) -> LogEntry | None:
        """Half a character at the end of a log that will not go on."""
        held = len(self._decoder.getstate()[0])
        text = self._decoder.decode(b"", final=True)
        return self._entry(text, self.offset - held, self.offset) if text else None

    def _told(self, note: str) -> LogEntry:
        return self._entry("", self.offset, self.offset, note=note)

    def _entry(self, text: str, start: int, end: int, skipped: int = 0, note: str = "") -> LogEntry:
        return LogEntry(
            task=self.attempt.task,
            attempt=self.attempt.attempt,
            stream=self.stream,
            offset=start,
            next=end,
            text=text,
            skipped=skipped,
            note=note,
        )


async def stored_log(ports: Ports, run: str, selection: Selection) -> AsyncIterator[LogEntry]:
    """What there is now, attempt after attempt."""
    away: dict[int, Cursor] = {}
    for attempt in selection.attempts(await ports.reads.tasks(run)):
        for stream in selection.streams():
            if _is_empty(attempt, stream):
                continue
            cursor = Cursor(attempt, stream, selection.offset)
            while not cursor.ended:
                before = cursor.offset
                if entry := await cursor.read(run, ports.read_log, away):
                    yield entry
                if cursor.offset == before:
                    break
            if entry := cursor.rest():
                yield entry


async def followed_log(
    ports: Ports, wakes: Wakes, run: str, selection: Selection, stale: bool
) -> AsyncIterator[LogEntry | Word]:
    """What there is and what comes, until the run (or what is selected of it) is final. Without
    Word.END as the last, there may be more elsewhere: this server stops, or is cut off."""
    follower = Follower(ports, run, selection)
    barrier = None if stale else ports.barrier
    with wakes.watch(run) as woken:
        pause, spoke = SHORTEST, ports.clock.ticks()
        asked = spoke
        woken.ring()
        while not woken.closed:
            if woken.take():
                await follower.look()
            came = False
            async for entry in follower.round():
                came = True
                yield entry
            if follower.done:
                yield Word.END
                return
            now = ports.clock.ticks()
            if came:
                pause, spoke, asked = SHORTEST, now, now
                continue
            if now - asked >= PROBE * 1000:
                asked = now
                if await is_cut_off(barrier):
                    return
            if now - spoke >= HEARTBEAT * 1000:
                spoke = now
                yield Word.SILENCE
                # Looked at again even if no bell rang.
                woken.ring()
            pause = min(LONGEST, pause * 1.5)
            await woken.nap(SHORTEST, pause if follower.growing else min(PROBE, HEARTBEAT))


class Follower:
    """The cursors of all attempts that were selected and have started so far."""

    def __init__(self, ports: Ports, run: str, selection: Selection) -> None:
        self._ports = ports
        self._run = run
        self._selection = selection
        self._cursors: dict[tuple[int, int, Stream], Cursor] = {}
        self._away: dict[int, Cursor] = {}
        #: No attempt will be added.
        self._final = False

    @property
    def growing(self) -> bool:
        return any(not cursor.ended for cursor in self._cursors.values())

    @property
    def done(self) -> bool:
        return self._final and not self.growing

    async def look(self) -> None:
        """Learns from the ledger what has started and what is final."""
        # The run first: when it is final, the tasks after it are so too.
        view = await self._ports.reads.run(self._run)
        tasks = await self._ports.reads.tasks(self._run)
        selected = [t for t in tasks if self._selection.task in (None, t.name)]
        self._final = (
            view is None or view.state in FINAL_RUN or all(t.state in FINAL_TASK for t in selected)
        )
        for attempt in self._selection.attempts(tasks):
            if attempt.attempt == self._selection.attempt and attempt.state in FINAL_ATTEMPT:
                self._final = self._final or self._selection.task is not None
            for stream in self._selection.streams():
                key = (attempt.session, attempt.n, stream)
                if cursor := self._cursors.get(key):
                    cursor.attempt = attempt
                elif not _is_empty(attempt, stream):
                    self._cursors[key] = Cursor(attempt, stream, self._selection.offset)

    async def round(self) -> AsyncIterator[LogEntry]:
        """One piece of every stream that may grow."""
        for cursor in [c for c in self._cursors.values() if not c.ended]:
            before = cursor.offset
            if entry := await cursor.read(self._run, self._ports.read_log, self._away):
                yield entry
            if cursor.offset != before or cursor.attempt.state not in FINAL_ATTEMPT:
                cursor.silent_since = None
            elif cursor.silent_since is None:
                cursor.silent_since = self._ports.clock.ticks()
            elif self._ports.clock.ticks() - cursor.silent_since >= LAST_WAIT * 1000:
                cursor.ended = True
            if cursor.ended and (entry := cursor.rest()):
                yield entry


def _is_empty(attempt: AttemptView, stream: Stream) -> bool:
    written = attempt.stdout if stream == "stdout" else attempt.stderr
    return attempt.state in _COUNTED and written == 0
