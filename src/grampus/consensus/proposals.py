"""What was proposed on the leader and is not answered yet: admission, entries, answers.

Rule: an entry of ours is known by its index and term. What is applied at that index in that term is
ours, and its results are the answer. Another term there means that ours was overwritten: it did not
happen, and never will. Leadership lost says nothing yet: most often the next leader commits it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence

import msgspec

from grampus.consensus.piece import Piece, Proposal
from grampus.consensus.writer import Limits
from grampus.errors import NotLeader, OutcomeUnknown, Overloaded

_ENCODER = msgspec.msgpack.Encoder()


class Proposals:
    """Used on the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Piece] = deque()
        #: By index: the term and what the entry is made of. More than one where this server led
        #: twice, and another in between: whichever of them is committed, the others are not.
        self._entries: dict[int, list[tuple[int, list[Piece]]]] = {}
        self._outstanding: dict[Proposal, None] = {}
        self.in_flight = 0
        self._bytes = 0

    def admit(self, commands: Sequence[bytes], deadline: float = math.inf) -> Proposal:
        """Puts them in the queue; the proposal's future is the answer, until `deadline` on the
        loop's clock. Raises Overloaded, and as `check`."""
        self.check(commands)
        limits = self._limits
        count, size = len(commands), sum(map(len, commands))
        if (
            self.in_flight + count > limits.in_flight_commands
            or self._bytes + size > limits.in_flight_bytes
        ):
            raise Overloaded(f"{self.in_flight} commands ({self._bytes} bytes) wait for the log")
        proposal = Proposal(self._loop.create_future(), count, size, deadline)
        self.in_flight += count
        self._bytes += size
        self._outstanding[proposal] = None
        for part in self._parts(commands):
            self._waiting.append(Piece(proposal, part, sum(map(len, part))))
        return proposal

    def check(self, commands: Sequence[bytes]) -> None:
        """Raises ValueError when no leader would take them."""
        limits, count, longest = self._limits, len(commands), max(map(len, commands))
        if count > limits.in_flight_commands or longest > limits.entry_bytes:
            raise ValueError(
                f"at most {limits.in_flight_commands} commands of at most {limits.entry_bytes}"
                f" bytes can be proposed at once, not {count} of up to {longest}"
            )

    def admit_change(self, deadline: float = math.inf) -> Piece:
        """For a change of members, which is an entry of its own: it is answered with []."""
        proposal = Proposal(self._loop.create_future(), 0, 0, deadline)
        self._outstanding[proposal] = None
        return Piece(proposal, (), 0)

    def _parts(self, commands: Sequence[bytes]) -> list[Sequence[bytes]]:
        limits = self._limits
        if len(commands) <= limits.entry_commands and sum(map(len, commands)) <= limits.entry_bytes:
            return [commands]
        parts: list[Sequence[bytes]] = []
        part, size = list[bytes](), 0
        for command in commands:
            if part and (
                len(part) == limits.entry_commands or size + len(command) > limits.entry_bytes
            ):
                parts.append(part)
                part, size = [], 0
            part.append(command)
            size += len(command)
        return [*parts, part]

    def entries(self) -> list[tuple[bytes, list[Piece]]]:
        """Everything that waits, as payloads of entries. The caller proposes them: `proposed`, or
        `dropped`."""
        entries = []
        while self._waiting:
            pieces = [self._waiting.popleft()]
            count, size = len(pieces[0].commands), pieces[0].size
            while self._waiting:
                piece = self._waiting[0]
                count, size = count + len(piece.commands), size + piece.size
                if count > self._limits.entry_commands or size > self._limits.entry_bytes:
                    break
                pieces.append(self._waiting.popleft())
            commands = [command for piece in pieces for command in piece.commands]
            entries.append((_ENCODER.encode(commands), pieces))
        return entries

    def proposed(self, index: int, term: int, entries: list[list[Piece]]) -> None:
        """They are in the leader's log, from `index` on."""
        for at, pieces in enumerate(entries, index):
            self._entries.setdefault(at, []).append((term, pieces))

    def dropped(self, entries: list[list[Piece]], error: Exception) -> None:
        """They are in nobody's log."""
        for pieces in entries:
            self._overwritten(pieces, error)

    def applied(self, index: int, term: int, results: list[object]) -> None:
        """The entry at `index` is committed and applied."""
        for mine, pieces in self._entries.pop(index, ()):
            if mine == term:
                self._happened(pieces, results)
            else:
                gone = "another leader's entry stands in its place: it did not happen"
                self._overwritten(pieces, NotLeader(gone))

    def _happened(self, pieces: list[Piece], results: list[object]) -> None:
        at = 0
        for piece in pieces:
            proposal = piece.proposal
            proposal.results += results[at : at + len(piece.commands)]
            at += len(piece.commands)
            self._done_with(piece)
            if len(proposal.results) == proposal.count:
                self._outstanding.pop(proposal, None)
                if not proposal.future.done():  # its caller may have been cancelled
                    proposal.future.set_result(proposal.results)

    def _overwritten(self, pieces: list[Piece], error: Exception) -> None:
        for piece in pieces:
            self._done_with(piece)
            proposal = piece.proposal
            if proposal.results:
                # Another part of it did happen.
                error = OutcomeUnknown("a part of what was proposed happened, and a part did not")
            self._settle(proposal, error)

    def deposed(self, error: Exception) -> None:
        """What still waits goes into no log."""
        waiting, self._waiting = list(self._waiting), deque()
        begun = {
            piece.proposal
            for entries in self._entries.values()
            for _, pieces in entries
            for piece in pieces
        }
        for piece in waiting:
            self._done_with(piece)
            if piece.proposal in begun or piece.proposal.results:
                part = "a part of it is in the log, the rest will never be"
                self._settle(piece.proposal, OutcomeUnknown(part))
            else:
                self._settle(piece.proposal, error)

    def give_up(self, stopped: Exception, unknown: Exception) -> None:
        """Nothing more will be applied here: what waits goes into no log, and what is in the log
        may happen or not."""
        self.deposed(stopped)
        for proposal in list(self._outstanding):
            self._settle(proposal, unknown)
        self._entries.clear()
        self.in_flight = self._bytes = 0

    def expire(self, now: float) -> None:
        """Who waits too long waits no longer. The entries stay known, for the count of what is in
        flight."""
        # Not in the order of their deadlines: some come late, after tries elsewhere.
        for proposal in [one for one in self._outstanding if one.deadline <= now]:
            unknown = OutcomeUnknown("no majority has confirmed it in time; it may happen yet")
            self._settle(proposal, unknown)

    def _done_with(self, piece: Piece) -> None:
        self.in_flight -= len(piece.commands)
        self._bytes -= piece.size

    def _settle(self, proposal: Proposal, error: Exception) -> None:
        self._outstanding.pop(proposal, None)
        if not proposal.future.done():
            proposal.future.set_exception(error)
            proposal.future.exception()  # seen, even if nobody waits for it any more
