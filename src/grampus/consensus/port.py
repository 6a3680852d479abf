"""What a replica is for those who propose, and what a state machine is for a replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from grampus.errors import GrampusError

#: Called on the event loop, in log order, with the index of an entry and its events.
Listener = Callable[[int, Sequence[object]], None]


class Stopped(GrampusError):
    """The replica is closed or has failed. What was proposed did not happen."""


class StateMachine(Protocol):
    """Deterministic. Calls come one at a time, but not always from the same thread."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry applied; 0 at first. Stored with what the entry changed."""
        ...

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        """Applies one entry and `applied_index` in one transaction: one result each, and events.

        A command that is refused has a result that says so. An exception ends the process."""
        ...

    def checkpoint_part(self) -> Callable[[], None] | None:
        """The part of a checkpoint that may go on beside `apply`, on any thread, before
        `checkpoint` and not beside it; None where there is no such part. It is asked for when the
        checkpoint would take long."""
        ...

    def checkpoint(self) -> int | None:
        """Makes everything applied durable in the machine's own files.

        The index that is durable now, or None when it could not be done at this time."""
        ...


class Replicated(StateMachine, Protocol):
    """A state machine that several servers have: it also holds who they are."""

    @property
    def members(self) -> bytes:
        """`Members` as of `applied_index`, encoded; empty before a cluster was founded."""
        ...

    def apply_members(self, index: int, term: int, members: bytes) -> None:
        """The entry at `index` changes the members, and nothing else."""
        ...

    def snapshot(self, path: Path) -> tuple[int, int, bytes]:
        """Writes a whole copy of one state to a new file, while `apply` may go on: the state's
        (index, term, members). Called on a thread of its own."""
        ...


class Replica(Protocol):
    """Puts commands in order, durably, and applies them. Used from its event loop."""

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        """One result each, in order, once they are durable and applied.

        Commands of one call keep their order, but a call is no transaction. A caller that is
        cancelled cancels nothing: its commands are applied. Raises Refused, Overloaded, NotLeader,
        NoQuorum or Stopped (nothing happened), or OutcomeUnknown."""
        ...

    async def propose_here(self, commands: Sequence[bytes]) -> list[object]:
        """As `propose`, but in no other leader's log: for what only holds while this one leads."""
        ...

    async def read_barrier(self) -> None:
        """After it, a read of the machine sees whatever was answered before it was called.

        Raises NoQuorum, or Stopped."""
        ...

    async def leads(self) -> None:
        """Returns once this replica leads: at once when it does. Raises Stopped when it ends."""
        ...

    async def deposed(self, term: int) -> None:
        """Returns once this replica does not lead in `term`, or not any more."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """For every entry applied from now on; a listener must not raise. Entries may be empty
        of events."""
        ...

    @property
    def leader(self) -> bool:
        """Whether this replica leads, as far as it knows."""
        ...

    @property
    def leader_address(self) -> str | None:
        """HOST:PORT where the API of the leader answers; None when that is not known, and on the
        leader itself."""
        ...

    @property
    def term(self) -> int:
        """Grows with every change of leader, and with every start of a log of one voter."""
        ...

    @property
    def applied_index(self) -> int:
        """Index of the last entry whose results and events were handed out."""
        ...

    @property
    def in_flight(self) -> int:
        """Commands proposed and not yet answered."""
        ...
