"""The log of one voter, without Raft: the same log, the same face as a replica of many.

This is the side of the event loop: admission, answers, listeners. A `Writer` does the work on a
thread of its own. After an exception there nothing is applied any more; `wait_failed` tells the
node, which ends: only a new start goes on from what is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from grampus.consensus.lookout import Lookout
from grampus.consensus.piece import Piece, Proposal
from grampus.consensus.port import Listener, StateMachine, Stopped
from grampus.consensus.writer import Light, Limits, Writer
from grampus.errors import GrampusError, OutcomeUnknown, Overloaded

log = logging.getLogger(__name__)


class SoloLog:
    """Made by `open`, ended by `close`. Implements `Replica`, and `Audience` for its writer."""

    def __init__(
        self, folder: Path, machine: StateMachine, limits: Limits, light: Light | None
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        #: Set from the moment that it is closing or has failed.
        self._leads_no_more = asyncio.Event()
        self._listeners: list[Listener] = []
        #: Set by the owner: raises Refused for what not every server could carry out yet.
        self.admit: Callable[[Sequence[bytes]], None] = lambda commands: None
        self._term = 0
        self._applied = 0
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._outstanding: set[Proposal] = set()
        self._closing = False
        self._failure: BaseException | None = None
        self._writer = Writer(folder, machine, limits, self, light)
        self._lookout = Lookout(self._writer.strain)

    @classmethod
    async def open(
        cls,
        folder: Path,
        machine: StateMachine,
        *,
        limits: Limits | None = None,
        light: Light | None = None,
    ) -> SoloLog:
        """Opens the log in `folder`, applies what the machine lacks, and raises the term by one.

        What `light` says of a batch decides where it is applied: see `writer`.

        Events of entries applied here go to nobody: begin with a look at the machine.
        Raises StorageFailed, LogCorrupt, or what `apply` raised."""
        solo = cls(folder, machine, limits or Limits(), light)
        solo._writer.start()
        solo._lookout.start()
        try:
            await asyncio.shield(solo._opened)
        except asyncio.CancelledError:
            solo._writer.put(None)
            raise
        return solo

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        """See `Replica`. A command has at most `entry_bytes`, a call `in_flight_commands`."""
        self._check()
        self.admit(commands)
        limits = self._limits
        count, size = len(commands), sum(map(len, commands))
        if not count:
            return []
        if count > limits.in_flight_commands or max(map(len, commands)) > limits.entry_bytes:
            raise ValueError(
                f"at most {limits.in_flight_commands} commands of at most {limits.entry_bytes}"
                f" bytes can be proposed at once, not {count} of up to {max(map(len, commands))}"
            )
        if (
            self._in_flight + count > limits.in_flight_commands
            or self._in_flight_bytes + size > limits.in_flight_bytes
        ):
            raise Overloaded(
                f"{self._in_flight} commands ({self._in_flight_bytes} bytes) wait for the log"
            )
        proposal = Proposal(self._loop.create_future(), count, size)
        self._in_flight += count
        self._in_flight_bytes += size
        self._outstanding.add(proposal)
        for piece in self._pieces(proposal, commands):
            self._writer.put(piece)
        return await proposal.future

    async def propose_here(self, commands: Sequence[bytes]) -> list[object]:
        """There is no other."""
        return await self.propose(commands)

    def _pieces(self, proposal: Proposal, commands: Sequence[bytes]) -> list[Piece]:
        limits = self._limits
        if len(commands) <= limits.entry_commands and proposal.size <= limits.entry_bytes:
            return [Piece(proposal, commands, proposal.size)]
        pieces, part, size = [], list[bytes](), 0
        for command in commands:
            if part and (
                len(part) == limits.entry_commands or size + len(command) > limits.entry_bytes
            ):
                pieces.append(Piece(proposal, part, size))
                part, size = [], 0
            part.append(command)
            size += len(command)
        return [*pieces, Piece(proposal, part, size)]

    async def read_barrier(self) -> None:
        """Nothing to wait for: what was answered is applied, and there is no other leader."""
        self._check()

    async def leads(self) -> None:
        """At once: there is nobody else."""
        self._check()

    async def deposed(self, term: int) -> None:
        if term == self._term:
            await self._leads_no_more.wait()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def leader(self) -> bool:
        return self._failure is None and not self._closing

    @property
    def leader_address(self) -> str | None:
        return None

    @property
    def term(self) -> int:
        return self._term

    @property
    def applied_index(self) -> int:
        return self._applied

    @property
    def in_flight(self) -> int:
        return self._in_flight

    async def wait_failed(self) -> None:
        """Returns when the log was closed; raises Stopped, with the reason, when it has failed."""
        await asyncio.shield(self._ended)
        self._raise_failure()

    async def close(self) -> None:
        """Finishes what was accepted, checkpoints, and closes the files. Safe to call again.

        Raises Stopped when that failed, or takes longer than `Limits.close`."""
        failed_before = self._failure is not None
        if not self._closing:
            self._closing = True
            self._leads_no_more.set()
            self._writer.put(None)
        try:
            async with asyncio.timeout(self._limits.close):
                await asyncio.shield(self._ended)
        except TimeoutError:
            raise OutcomeUnknown(
                f"the log in {self._folder} did not finish in {self._limits.close:g} s:"
                " the disk does not answer"
            ) from None
        if not failed_before:
            self._raise_failure()

    def _check(self) -> None:
        self._raise_failure()
        if self._closing:
            raise Stopped(f"the log in {self._folder} is closed")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise Stopped(f"the log has stopped: {_reason(self._failure)}") from self._failure

    # --- what the writer tells

    def opened(self, term: int, applied: int) -> None:
        self._term = term
        self._applied = applied
        self._opened.set_result(None)

    def committed(
        self, index: int, pieces: list[Piece], results: list[object], events: list[object]
    ) -> None:
        """The only place where proposals end well."""
        if self._failure is not None:
            return
        self._applied = index
        at = 0
        for piece in pieces:
            proposal = piece.proposal
            proposal.results += results[at : at + len(piece.commands)]
            at += len(piece.commands)
            self._in_flight -= len(piece.commands)
            self._in_flight_bytes -= piece.size
            if len(proposal.results) == proposal.count:
                self._outstanding.discard(proposal)
                if not proposal.future.done():  # its caller may have been cancelled
                    proposal.future.set_result(proposal.results)
        try:
            for listener in self._listeners:
                listener(index, events)
        except Exception as error:
            # The writer goes on until it is told: what is outstanding may happen yet.
            self._fail(error, self._outstanding)
            self._writer.put(None)

    def ended(self, error: BaseException | None, current: list[Piece]) -> None:
        if error is not None:
            self._fail(error, {piece.proposal for piece in current})
        self._lookout.stop()
        self._ended.set_result(None)

    def _fail(self, error: BaseException, unknown: set[Proposal]) -> None:
        if self._failure is not None:
            return
        self._failure = error
        self._leads_no_more.set()
        # What explains itself needs no traceback.
        bug = None if isinstance(error, GrampusError) else error
        log.error("the log in %s has stopped: %s", self._folder, _reason(error), exc_info=bug)
        for proposal in self._outstanding:
            if not proposal.future.done():
                begun = proposal in unknown or bool(proposal.results)
                failure = (OutcomeUnknown if begun else Stopped)(
                    f"the log has stopped: {_reason(error)}"
                )
                failure.__cause__ = error
                proposal.future.set_exception(failure)
        self._outstanding = set()
        self._in_flight = self._in_flight_bytes = 0
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # seen, even if `open` was cancelled


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, GrampusError) else f"{type(error).__name__}: {error}"
