"""The thread that owns the log and the machine of a SoloLog.

It takes all that waits as one batch: one log entry, one sync, one `apply`, one call back to the
event loop. So load makes batches larger, not queues longer. It tells the loop through `Audience`,
and only by `call_soon_threadsafe`, so in order.

What is light by the word of `light` is applied on the event loop, in its turn: every SQL statement
leaves the interpreter, and on a thread it would have to fight a busy loop to get back in, dozens of
times per batch. Log and `apply` of light batches overlap. Everything else, and every checkpoint,
waits until the loop has caught up, and runs on the thread. So one thread at a time has the machine.
So does the first batch after a checkpoint: SQLite begins its WAL anew then, and syncs it for that.

Where the disk is quick (see `pace`) and there is little to do, a light batch is written and synced
on the loop too: the way to the thread and back takes longer than such a sync. Who has the `pen` has
the log, and all that is counted here. The loop takes it only when it is free, and only while
nothing that was given to the thread is on its way, so that nobody is overtaken.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from grampus.consensus.ahead import PART, Ahead
from grampus.consensus.log import DurableLog
from grampus.consensus.pace import QUICK, Pace
from grampus.consensus.piece import Piece
from grampus.consensus.port import StateMachine
from grampus.consensus.record import Entry, HardState
from grampus.consensus.strain import Strain

log = logging.getLogger(__name__)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[bytes])

#: Seconds after which a thread that computes lets another one go on. A writer's thread leaves the
#: interpreter for every SQL statement; with the default of 5 ms it would wait for the loop each
#: time. Whoever runs a replica sets it for the whole process.
SWITCH_INTERVAL = 0.0005
#: Seconds between two looks at whether the loop that is waited for is still there.
LOOP_LOOK = 1.0
#: What may be written and synced on the event loop, where the disk is quick: bytes; commands; and
#: commands in an entry, on average over about so many. More is a load, and under a load it is worth
#: more that the loop goes on while the disk works.
AT_ONCE, FEW, ALONE, MEMORY = 64 * 1024, 4, 2.0, 16
#: Whether a batch takes so little time to apply that the event loop may do it.
Light = Callable[[Sequence[bytes]], bool]


class Limits(Struct, frozen=True):
    """Bounds of a SoloLog. Sizes are in bytes, times in seconds."""

    #: Proposed and not yet answered.
    in_flight_commands: int = 4096
    in_flight_bytes: int = 64 * 1024 * 1024
    #: One log entry.
    entry_commands: int = 500
    entry_bytes: int = 1024 * 1024
    #: Checkpoint when nothing came for so long, or at the latest after so many entries or bytes.
    checkpoint_idle: float = 1.0
    checkpoint_entries: int = 2000
    checkpoint_bytes: int = 2 * 1024 * 1024
    #: A sync that takes less on average is waited for on the event loop.
    quick: float = QUICK
    #: How long `close` waits for what was accepted.
    close: float = 30.0


class Audience(Protocol):
    """Called on the event loop."""

    def opened(self, term: int, applied: int) -> None:
        """The machine has applied the whole log; proposals are taken in this term."""
        ...

    def committed(
        self, index: int, pieces: list[Piece], results: list[object], events: list[object]
    ) -> None:
        """The entry made of the pieces is durable and applied."""
        ...

    def ended(self, error: BaseException | None, current: list[Piece]) -> None:
        """The last call: the thread ends. With an error, what becomes of `current` is unknown."""
        ...


class Writer:
    """`start` it once; `put` pieces, on the loop, and None to end it when all before is done."""

    def __init__(
        self,
        folder: Path,
        machine: StateMachine,
        limits: Limits,
        audience: Audience,
        light: Light | None = None,
    ) -> None:
        self._light = light
        #: Batches given to the loop, counted by the thread, and taken, counted by the loop.
        self._given = 0
        self._taken = 0
        self._turn = threading.Condition()
        #: What `apply` raised on the loop, and what was not applied because of it.
        self._loop_failure: BaseException | None = None
        self._unapplied: list[Piece] = []
        self._folder = folder
        self._machine = machine
        self._limits = limits
        self._audience = audience
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        #: Taken from the queue, and too much for the entry before.
        self._held: deque[Piece | None] = deque()
        #: Held by whoever uses the log, or one of the fields that follow it.
        self._pen = threading.Lock()
        self._durable: DurableLog | None = None
        self._pace = Pace(limits.quick)
        #: What the disk costs; anybody may look.
        self.strain = Strain()
        #: Commands in an entry, on average.
        self._crowd = 1.0
        #: Since the last checkpoint was tried.
        self._since_entries = 0
        self._since_bytes = 0
        #: The first part of the next one, under way or over.
        self._ahead: Ahead | None = None
        #: Nothing was applied since the machine was opened or checkpointed: it will sync. The next
        #: one is applied on the thread, which so learns that there is something to checkpoint.
        self._fresh = True
        #: Something is not checkpointed yet.
        self._dirty = False
        self._term = 0
        #: On the loop: pieces that come together, and how many are on their way by the thread.
        self._together: list[Piece] = []
        self._away = 0
        self.start = threading.Thread(target=self._run, name="grampus-log", daemon=True).start

    def _run(self) -> None:
        current: list[Piece] = []
        durable: DurableLog | None = None
        failure: BaseException | None = None
        try:
            durable = DurableLog.open(self._folder)
            self._start(durable)
            while (piece := self._wait(durable)) is not None:
                current = self._batch(piece)
                self._commit(durable, current)
                current = []
            with self._pen:
                self._durable = None
            self._checkpoint(durable)
            durable.close()
        except BaseException as error:
            failure = error
            if durable is not None:
                durable.abandon()
        # The loop may be gone: then nobody is left to be told.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell_end, failure, current)

    def _start(self, durable: DurableLog) -> None:
        """Applies what the machine lacks, and begins a term of its own."""
        applied = self._machine.applied_index
        durable.check_reaches(applied)
        for entry in durable.entries(applied + 1):
            self._apply(entry.index, entry.term, _DECODER.decode(entry.payload))
            self._count(len(entry.payload))
        if self._since_entries:
            log.info("applied entries %d to %d again", applied + 1, durable.last)
        self._term = durable.hard.term + 1
        durable.append([], HardState(self._term, 0, durable.last))
        self._durable = durable
        self._loop.call_soon_threadsafe(self._audience.opened, self._term, durable.last)

    def _wait(self, durable: DurableLog) -> Piece | None:
        """The next piece; uses a pause for a checkpoint."""
        if self._held:
            return self._held.popleft()
        while self._dirty:
            seen = self._since_entries
            try:
                return self._queue.get(timeout=self._limits.checkpoint_idle)
            except queue.Empty:
                # While the loop writes, nothing comes here: that is no pause.
                if self._since_entries == seen:
                    self._take_care(durable)
        return self._queue.get()

    def _batch(self, first: Piece) -> list[Piece]:
        """Everything that waits behind `first` too, as far as one entry goes."""
        pieces, count, size = [first], len(first.commands), first.size
        while True:
            try:
                piece = self._queue.get_nowait()
            except queue.Empty:
                return pieces
            if (
                piece is None
                or count + len(piece.commands) > self._limits.entry_commands
                or size + piece.size > self._limits.entry_bytes
            ):
                self._held.append(piece)
                return pieces
            pieces.append(piece)
            count += len(piece.commands)
            size += piece.size

    def _commit(self, durable: DurableLog, pieces: list[Piece]) -> None:
        if self._loop_failure is not None:
            raise self._loop_failure
        commands = [command for piece in pieces for command in piece.commands]
        with self._pen:
            index = self._write(durable, commands)
            if self._light is not None and not self._fresh and self._light(commands):
                self._given += 1
                tell = partial(self._apply_on_loop, index, self._term, commands, pieces)
            else:
                self._catch_up()
                results, events = self._apply(index, self._term, commands)
                self._fresh = False
                tell = partial(self._committed, index, pieces, results, events)
            much = self._is_much()
        # The pen is free by now: the loop may write what follows from it.
        self._loop.call_soon_threadsafe(tell)
        if much:
            self._take_care(durable)

    def _write(self, durable: DurableLog, commands: Sequence[bytes]) -> int:
        """Makes the next entry durable, with the pen; its index."""
        index, payload = durable.last + 1, _ENCODER.encode(commands)
        began = time.monotonic()
        self.strain.begins(began)
        durable.append([Entry(index, self._term, payload)])
        ended = time.monotonic()
        self.strain.ended(ended)
        self._pace.took(ended - began)
        self._crowd += (len(commands) - self._crowd) / MEMORY
        self._count(len(payload))
        return index

    # --- on the loop

    def put(self, piece: Piece | None) -> None:
        if piece is not None and (self._together or self._may_write()):
            if not self._together:
                self._loop.call_soon(self._write_on_loop)
            self._together.append(piece)
        else:
            self._give_away(piece)

    def _give_away(self, piece: Piece | None) -> None:
        """To the thread, behind all that came before."""
        for each in (*self._together, piece):
            self._away += each is not None
            self._queue.put(each)
        self._together.clear()

    def _may_write(self) -> bool:
        free = self._light is not None and not self._away
        return free and self._pace.quick and self._crowd < ALONE

    def _write_on_loop(self) -> None:
        """What came in one turn of the loop is one entry, or goes to the thread."""
        pieces, self._together = self._together, []
        commands = [command for piece in pieces for command in piece.commands]
        size = sum(piece.size for piece in pieces)
        written = False
        if pieces and self._pen.acquire(blocking=False):
            try:
                if self._may_write_now(commands, size):
                    written = True
                    self._write_at_once(commands, pieces)
            except BaseException as error:
                written = True
                self._fail_on_loop(error, pieces)
            finally:
                self._pen.release()
        if not written:
            for piece in pieces:
                self._away += 1
                self._queue.put(piece)

    def _may_write_now(self, commands: Sequence[bytes], size: int) -> bool:
        """With the pen. Without, it is for the thread."""
        return (
            self._light is not None
            and self._durable is not None
            and self._loop_failure is None
            and not (self._fresh or self._is_much())
            and len(commands) <= min(FEW, self._limits.entry_commands)
            and size <= min(AT_ONCE, self._limits.entry_bytes)
            and self._light(commands)
        )

    def _write_at_once(self, commands: Sequence[bytes], pieces: list[Piece]) -> None:
        assert self._durable is not None
        index = self._write(self._durable, commands)
        results, events = self._apply(index, self._term, commands)
        self._audience.committed(index, pieces, results, events)

    def _fail_on_loop(self, error: BaseException, pieces: list[Piece]) -> None:
        """What becomes of the pieces is not known. The thread tells, when it has seen the end."""
        self._loop_failure = error
        self._unapplied += pieces
        self._queue.put(None)

    def _committed(
        self, index: int, pieces: list[Piece], results: list[object], events: list[object]
    ) -> None:
        self._away -= len(pieces)
        self._audience.committed(index, pieces, results, events)

    def _apply_on_loop(
        self, index: int, term: int, commands: Sequence[bytes], pieces: list[Piece]
    ) -> None:
        if self._loop_failure is not None:
            self._unapplied += pieces
        else:
            try:
                results, events = self._apply(index, term, commands)
                self._committed(index, pieces, results, events)
            except BaseException as error:
                self._fail_on_loop(error, pieces)
        with self._turn:
            self._taken += 1
            self._turn.notify()

    def _tell_end(self, failure: BaseException | None, current: list[Piece]) -> None:
        """On the loop, behind the last batch that it was given: only now all of them are known."""
        self._audience.ended(failure, current + self._unapplied)

    def _catch_up(self) -> None:
        """On the thread: waits until the loop has applied what it was given."""
        with self._turn:
            while self._taken != self._given:
                if not self._turn.wait(LOOP_LOOK) and self._loop.is_closed():
                    raise RuntimeError("the event loop was closed before its log")
        if self._loop_failure is not None:
            raise self._loop_failure

    def _apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        results, events = self._machine.apply(index, term, commands)
        if len(results) != len(commands) or self._machine.applied_index != index:
            raise RuntimeError(
                f"the machine answered entry {index} of {len(commands)} commands with"
                f" {len(results)} results and applied index {self._machine.applied_index}"
            )
        return results, events

    def _count(self, size: int) -> None:
        self._since_entries += 1
        self._since_bytes += size
        self._dirty = True

    def _is_much(self, part: int = 1) -> bool:
        """The next checkpoint is due, for there is so much since the last one; or one part of so
        many of that."""
        if self._ahead is not None:
            return self._ahead.over
        return (
            self._since_entries * part >= self._limits.checkpoint_entries
            or self._since_bytes * part >= self._limits.checkpoint_bytes
        )

    def _take_care(self, durable: DurableLog) -> None:
        """A checkpoint is wanted: begins it, or completes it."""
        part = None
        if self._ahead is None and self._is_much(PART):
            part = self._machine.checkpoint_part()
        if part is not None:
            # It may move all that there is: then the next batch begins the WAL anew, too.
            self._fresh = True
            self._ahead = Ahead(part)
        elif self._ahead is None or self._ahead.over:
            self._checkpoint(durable)

    def _checkpoint(self, durable: DurableLog) -> None:
        """Deletes what the machine no longer needs; put off while readers are in the way."""
        if self._ahead is not None:
            self._ahead.join()
        with self._pen:
            self._catch_up()
            self._ahead = None
            self._since_entries = self._since_bytes = 0
            durable.mark()
            self._fresh = True
            index = self._machine.checkpoint()
            if index is not None:
                self._dirty = False
                durable.compact(min(index, durable.last) + 1)
