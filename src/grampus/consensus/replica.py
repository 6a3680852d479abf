"""A replica of several: its parts, how it stands, and its end.

`turns` drives Raft and the log, the applier the machine, `asking` brings what is wanted here to
whoever leads; whatever fails in one of them ends the replica for good, and only a new start goes
on, from what is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from grampus_raft import EntriesLost, ProposalDropped, RaftFatal

from grampus.consensus.applier import Applier, Committed
from grampus.consensus.asking import DEADLINE, Asking
from grampus.consensus.barriers import Barriers
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.hearing import Standing
from grampus.consensus.introduction import introduced
from grampus.consensus.log import DurableLog
from grampus.consensus.lookout import Lookout
from grampus.consensus.members import Conf, MemberChange, Members, NoMember, encode_change
from grampus.consensus.pace import Pace
from grampus.consensus.port import Listener, Replicated, Stopped
from grampus.consensus.proposals import Proposals
from grampus.consensus.snapshots import Incoming, Installed
from grampus.consensus.strain import Strain
from grampus.consensus.trail import OLDER
from grampus.consensus.transport import Transport
from grampus.consensus.turns import LEADER, Kept, Turns
from grampus.consensus.writer import Light, Limits
from grampus.errors import (
    GrampusError,
    NoQuorum,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Refused,
)
from grampus.model.member import Member

log = logging.getLogger(__name__)
T = TypeVar("T")

#: In a change of members.
_REMOVE = 1
#: Seconds from which on a call of the ledger hangs: what waits for it has waited for too long.
LEDGER = DEADLINE


class RaftReplica:
    """Made by `open`, driven by `run`, which ends when it is cancelled or fails."""

    def __init__(
        self,
        id: int,
        machine: Replicated,
        transport: Transport,
        durable: DurableLog,
        incoming: Incoming,
        introduced: Members,
        threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
        limits: Limits,
        light: Light | None,
        kept: Kept,
        seed: int | None,
    ) -> None:
        self.id = id
        #: Where the pieces of a snapshot go.
        self.incoming = incoming
        self._machine = machine
        self._transport = transport
        self._durable = durable
        self._log_thread, self._machine_thread = threads
        self._loop = asyncio.get_running_loop()
        self._proposals = Proposals(limits)
        self._barriers = Barriers()
        self._barriers.applied(machine.applied_index)
        self._ledger = Strain()
        self._applier = Applier(machine, self, limits, light, self._on_machine_thread)
        members = Members.decode(machine.members)
        self._turns = Turns(
            id, members, introduced, machine.applied_index, durable, self._log_thread, machine,
            transport, incoming, self._proposals, self._barriers, kept, Pace(limits.quick),
            seed, self,
        )  # fmt: skip
        #: None where syncs never hold up the loop.
        self._lookout = Lookout(self._turns.strain) if limits.quick else None
        self._listeners: list[Listener] = []
        #: Set by the owner: raises Refused for what not every server could carry out yet.
        self.admit: Callable[[Sequence[bytes]], None] = lambda commands: None
        #: Set by the owner: whether somebody on this server waits for whatever is committed next.
        self.watched: Callable[[], bool] = lambda: False
        self.changed = asyncio.Event()
        self._asking = Asking(self, self._turns, self._proposals, self._barriers, transport)
        #: When the leader was heard last, on the loop's clock; and whether it is this server.
        self._heard, self._led = self._loop.time(), False
        self._failure: BaseException | None = None
        self._stopped = False
        transport.know(members if members.known else introduced)
        transport.void.add_done_callback(self._look_at_place)

    @classmethod
    async def open(
        cls,
        id: int,
        generation: Generation,
        machine: Replicated,
        transport: Transport,
        *,
        limits: Limits | None = None,
        light: Light | None = None,
        kept: Kept | None = None,
        seed: int | None = None,
        disk: Disk | None = None,
    ) -> RaftReplica:
        """Reads and checks the log. Raises StorageFailed, LogCorrupt."""
        threads = (
            ThreadPoolExecutor(1, thread_name_prefix="grampus-log"),
            ThreadPoolExecutor(1, thread_name_prefix="grampus-ledger"),
        )
        loop = asyncio.get_running_loop()
        disk, kept = disk or Disk(), kept or Kept()
        incoming = Incoming(generation.folder / "incoming", generation, disk)
        durable: DurableLog | None = None
        try:
            durable = await loop.run_in_executor(
                threads[0],
                partial(DurableLog.open, generation.log, segment_size=kept.segment, disk=disk),
            )
            await loop.run_in_executor(threads[0], incoming.clear)
            return cls(
                id, machine, transport, durable, incoming, introduced(generation.folder), threads,
                limits or Limits(), light, kept, seed,
            )  # fmt: skip
        except BaseException:  # also when it is cancelled: nobody else knows of files and threads
            if durable is not None:
                durable.abandon()
            for thread in threads:
                thread.shutdown(wait=False)
            raise

    # --- the face of a replica

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        """See `Replica`. Raises NoQuorum when no leader is there, and NotLeader when leaders
        change faster than this can follow: nothing happened then."""
        return await self._asking.propose(commands)

    async def propose_here(self, commands: Sequence[bytes]) -> list[object]:
        """As `propose`, but only on the leader, and in its log. Raises NotLeader."""
        return await self._asking.propose_here(commands)

    async def read_barrier(self) -> None:
        """See `Replica`. Raises NoQuorum."""
        await self._asking.read_barrier()

    async def confirm(self) -> int:
        """On the leader: an index, once a majority has said after this call that it leads."""
        return await self._asking.confirm()

    def expelled(self) -> str:
        """Why this server is no member any more, as far as it knows; or ""."""
        told = self._transport.void
        heard = told.done() and not told.cancelled()
        return told.result() if heard else self._turns.members.void(self.id)

    def _look_at_place(self, *_: object) -> None:
        """Who is no member any more hears of no commit: nobody here waits for one."""
        if why := self.expelled():
            self._barriers.stop(NoQuorum(f"{why}; until then, ask another server"))
            self.turned()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def leader(self) -> bool:
        turns = self._turns
        leads = turns.role == LEADER and not turns.stalled
        return leads and self._failure is None and not self._stopped

    @property
    def leader_id(self) -> int:
        """0 when none is known, and while the disk hangs: it does not hear of elections then."""
        return 0 if self._turns.stalled else self._turns.leader

    @property
    def led(self) -> int:
        """For how long there is this leader, or none, in ms."""
        return int(1000 * (self._loop.time() - self._turns.since))

    @property
    def unheard(self) -> int:
        """For how long no leader was heard, in ms; at least for that long, after a start."""
        return 0 if self.leader else int(1000 * (self._loop.time() - self._heard))

    @property
    def leader_address(self) -> str | None:
        """Of the leader's API, when it is known."""
        member = self._turns.members.find(self.leader_id)
        return None if member is None else member.address

    @property
    def term(self) -> int:
        return self._turns.hard.term

    @property
    def vote(self) -> int:
        """Whom it votes for in this term; 0 for nobody yet."""
        return self._turns.hard.vote

    @property
    def applied_index(self) -> int:
        return self._turns.applied

    @property
    def commit_index(self) -> int:
        return self._turns.hard.commit

    @property
    def last_index(self) -> int:
        return self._durable.last

    @property
    def in_flight(self) -> int:
        return self._proposals.in_flight

    @property
    def members(self) -> Members:
        return self._turns.members

    @property
    def failure(self) -> BaseException | None:
        """Why it has ended, behind every Stopped that it raises; None while it runs."""
        return self._failure

    async def leads(self) -> None:
        """Returns once this replica leads."""
        while not self.leader:
            self.check()
            await self.changed.wait()

    async def void(self) -> str:
        """Returns, with the reason, once this server is no member any more."""
        while not (why := self._turns.members.void(self.id)):
            self.check()
            await self.changed.wait()
        return why

    async def succeeded(self) -> None:
        """Returns once some server is known to lead."""
        while not self.leader_id:
            self.check()
            await self.changed.wait()

    async def deposed(self, term: int) -> None:
        """Returns once it leads no longer in that term."""
        while self.leader and self.term == term:
            await self.changed.wait()

    # --- what peers say

    def step(self, messages: list[bytes]) -> None:
        """Messages of an authenticated peer, in order. More than there is room for are dropped."""
        self._turns.step(messages)

    def waits(self, peer: int, keen: bool) -> None:
        """Whether somebody on that peer waits for what is committed next."""
        if peer == self._turns.leader and not self._turns.stalled:
            self._heard = self._loop.time()
        self._turns.telling.heard(peer, keen)

    def has_disk(self, peer: int, told: int) -> None:
        """What a peer says of its disk: see `Strain.told`."""
        self._turns.disks.heard(peer, self._loop.time(), told)

    def meet(self, member: Member) -> None:
        """A server of this cluster and history, neither removed nor lost, has said Hello."""
        self._transport.meet(member)

    @property
    def peers(self) -> dict[int, Standing]:
        """On the leader, by id, as of a moment ago."""
        return self._turns.peers

    @property
    def disks(self) -> dict[int, int]:
        """By id, the disks that are not well, as `Strain.told` says it; this server's too."""
        others, mine = self._turns.disks.known(self._loop.time()), self.disk
        return others | ({self.id: mine} if mine else {})

    # --- changes of members; only on the leader

    async def change_members(
        self, changes: list[tuple[int, int]], change: MemberChange, *, joint: bool = False
    ) -> None:
        """(0 voter | 1 remove | 2 learner, id) pairs; returns when they are applied.

        Raises NotLeader, Overloaded when an earlier change is under way, or Refused when this one
        makes no sense (nothing happened), or OutcomeUnknown."""
        self._must_lead()
        back = [id for kind, id in changes if kind != _REMOVE and id in self.members.removed]
        if back:
            raise Refused(f"server {back[0]} was removed: an id never comes back; join anew")
        piece = self._proposals.admit_change(self._loop.time() + DEADLINE)

        def propose() -> None:
            try:
                index, term = self._turns.node.propose_conf_change(
                    changes, 1 if joint else 0, encode_change(change)
                )
            except ProposalDropped as error:
                why = self._turns.why_dropped(error)
                if not isinstance(why, NotLeader):
                    why = Overloaded(f"the members cannot change yet: {error}; try again")
                self._proposals.dropped([[piece]], why)
            except ValueError as error:
                refused = Refused(f"this change of members cannot be made: {error}")
                self._proposals.dropped([[piece]], refused)
            else:
                self._proposals.proposed(index, term, [[piece]])

        self._turns.between(propose)
        await piece.proposal.future

    async def transfer(self, to: int) -> None:
        """Asks another voter to lead; returns at once. Raises NotLeader, or Refused."""
        self._must_lead()
        if to not in self._turns.members.voters:
            raise Refused(f"server {to} is no voter: only a voter can lead")
        self._turns.between(partial(self._turns.node.transfer_leader, to))

    def _must_lead(self) -> None:
        self.check()
        if not self.leader:
            raise NotLeader("this server does not lead", self.leader_address)

    # --- the loop

    async def run(self) -> None:
        """Until cancelled. Raises Installed when a snapshot was laid down: open everything anew;
        or why it has failed."""
        if self._lookout is not None:
            self._lookout.start()
        try:
            async with asyncio.TaskGroup() as group:
                turns = self._turns
                for part in (
                    turns.run(), turns.ticks(), turns.snapshots.run(), self._applier.run()
                ):  # fmt: skip
                    group.create_task(part)
        except BaseExceptionGroup as errors:  # not when it is cancelled: that comes as it is
            first = _first(errors)
            if isinstance(first, EntriesLost):
                log.error("%s", first)
                first = NoMember(OLDER)
            self._fail(first)
            raise first from None
        finally:
            self._stopped = True
            self._fail(Stopped("this server stops"))
            await self._shut()

    async def _shut(self) -> None:
        """Everything applied becomes durable in the ledger, if it still can."""
        well = isinstance(self._failure, Stopped)
        loop = self._loop
        try:
            await self._applier.settle()
            # Whatever runs on them still has ended then: the machine may be closed.
            last = self._machine.checkpoint if well else _nothing
            await loop.run_in_executor(self._machine_thread, last)
            last = self._durable.close if well else self._durable.abandon
            await loop.run_in_executor(self._log_thread, last)
        finally:
            if self._lookout is not None:
                self._lookout.stop()
            self._log_thread.shutdown(wait=False)
            self._machine_thread.shutdown(wait=False)

    # --- what the turns tell

    @property
    def backlog(self) -> int:
        return self._applier.backlog

    @property
    def keen(self) -> bool:
        return self._asking.asked > 0 or self._barriers.waited or self.watched()

    @property
    def disk(self) -> int:
        now = self._loop.time()
        held = self._ledger.hangs(now)
        return max(self._turns.strain.told(now), int(1000 * held) if held >= LEDGER else 0)

    def committed(self, entries: list[Committed]) -> None:
        self._applier.put(entries)

    def turned(self) -> None:
        if self._led:
            self._heard = self._loop.time()
        self._led = self._turns.role == LEADER
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    # --- what the applier tells

    def change(self, kind: int, data: bytes) -> Conf:
        return self._turns.node.apply_conf_change(kind, data)

    def members_changed(self, members: Members) -> None:
        self._turns.members = members
        self._transport.know(members)
        self._turns.wake()  # Raft may have something to say about it
        self.turned()
        self._look_at_place()

    def applied(self, index: int, term: int, results: list[object], events: list[object]) -> None:
        self._turns.applied = index
        self._turns.node.advance_apply(index)
        self._proposals.applied(index, term, results)
        for listener in self._listeners:
            listener(index, events)
        self._barriers.applied(index)

    def checkpointed(self, index: int) -> None:
        self._turns.checkpointed(index)

    async def _on_machine_thread(self, call: Callable[..., T], *args: Any) -> T:
        self._ledger.begins(self._loop.time())
        try:
            return await self._loop.run_in_executor(self._machine_thread, call, *args)
        finally:
            self._ledger.ended(self._loop.time())

    # --- the end

    def check(self) -> None:
        if self._failure is not None:
            raise Stopped(f"this server has stopped: {_reason(self._failure)}") from self._failure

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None:
            return
        self._failure = error
        if not isinstance(error, (Stopped, Installed)):
            bug = None if isinstance(error, (GrampusError, RaftFatal)) else error
            log.error("this server stops: %s", _reason(error), exc_info=bug)
        reason = f"this server has stopped: {_reason(error)}"
        stopped, unknown = Stopped(reason), OutcomeUnknown(reason)
        stopped.__cause__ = unknown.__cause__ = error
        self._proposals.give_up(stopped, unknown)
        self._barriers.stop(stopped)
        self.turned()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, GrampusError) else f"{type(error).__name__}: {error}"


def _nothing() -> None:
    return
