"""A replica of several: the one Ready loop around a `RaftNode`, its durable log and its machine.

Order of a turn: messages that may go at once, then entries and vote durably (one sync), then the
messages that had to wait for that, then what is committed goes to the applier. While the log syncs,
nothing is put into Raft: so load makes batches larger. Whatever fails here ends the replica for
good; only a new start goes on, from what is durable.

Any server takes a proposal or a read barrier: a follower asks the leader over its own connection.
What certainly did not happen is tried again, with the next leader, until the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from grampus_raft import ProposalDropped, RaftError, RaftFatal, RaftNode
from msgspec import Struct

from grampus.consensus.applier import Applier
from grampus.consensus.barriers import Barriers
from grampus.consensus.disk import Disk
from grampus.consensus.generation import Generation
from grampus.consensus.hearing import Hearing, Standing
from grampus.consensus.introduction import introduced
from grampus.consensus.log import SEGMENT_SIZE, DurableLog
from grampus.consensus.members import Conf, MemberChange, Members, encode_change
from grampus.consensus.port import Listener, Replicated, Stopped
from grampus.consensus.proposals import Proposals
from grampus.consensus.record import Entry, HardState
from grampus.consensus.snapshots import Incoming, Installed, SnapshotDesk
from grampus.consensus.transport import Transport
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

#: Milliseconds of a Raft tick; ticks between heartbeats; election time-out in ticks.
TICK, HEARTBEAT, ELECTION, ELECTION_MOST = 50, 2, 10, 20
#: Role of a leader and type of a message with a snapshot, as Raft says them.
LEADER, SNAPSHOT = 2, 7
#: In a change of members.
_REMOVE = 1
#: Seconds that a proposal or a barrier takes at most, and that it waits for a leader to be there.
DEADLINE, LEADERLESS = 10.0, 2.0
#: Seconds after which a round of read index is asked again.
ROUND = 1.0
#: Bytes of commands that a follower passes on at once.
MESSAGE = 4 * 1024 * 1024
#: Bytes of messages of peers that wait for their turn; more are dropped: they are sent again.
INBOX = 64 * 1024 * 1024
#: Bytes committed and not applied here; beyond, nothing more is heard until there are fewer.
BACKLOG = 256 * 1024 * 1024
#: Ticks between two looks at the peers.
LOOK = 4


class Kept(Struct, frozen=True):
    """What of the log is kept for members that are behind; sizes in bytes."""

    #: Applied entries; who is further behind gets a snapshot.
    entries: int = 10_000
    size: int = 64 * 1024 * 1024
    #: While a snapshot is on its way, everything behind it is kept, up to so much.
    held: int = 512 * 1024 * 1024
    #: Of one file of the log.
    segment: int = SEGMENT_SIZE


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
        self._machine = machine
        self._kept = kept
        self._transport = transport
        self._durable = durable
        self._log_thread, self._machine_thread = threads
        self._loop = asyncio.get_running_loop()
        self._members = Members.decode(machine.members)
        self._applied = machine.applied_index
        durable.check_reaches(self._applied)
        hard = durable.hard
        self._hard = HardState(hard.term, hard.vote, max(hard.commit, self._applied))
        base = (durable.first - 1, durable.term(durable.first - 1))
        self._node = RaftNode(
            id,
            (self._hard.term, self._hard.vote, self._hard.commit),
            self._members.conf,
            base,
            [
                (e.index, e.term, e.change, e.payload, e.context)
                for e in durable.entries(base[0] + 1)
            ],
            self._applied,
            election_tick=ELECTION,
            max_election_tick=ELECTION_MOST,
            heartbeat_tick=HEARTBEAT,
            seed=seed,
        )
        self._proposals = Proposals(limits)
        self._barriers = Barriers()
        self._barriers.applied(self._applied)
        self._applier = Applier(machine, self, limits, light, self._on_machine_thread)
        #: Where the pieces of a snapshot go.
        self.incoming = incoming
        self._snapshots = SnapshotDesk(
            incoming.folder.with_name("snapshots"), machine, transport, self._delivered
        )
        self._listeners: list[Listener] = []
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._ticks = 0
        self._looked = 0
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        #: Calls of the node that must wait until it is between two turns.
        self._chores: list[Callable[[], None]] = []
        #: Entries up to this one are to be let go.
        self._needless = 0
        self._leader = 0
        self._role = 0
        self._since = self._loop.time()
        self._failure: BaseException | None = None
        self._stopped = False
        self.peers: dict[int, Standing] = {}
        self._hearing = Hearing()
        self._introduced = introduced
        transport.know(self._members if self._members.known else introduced)

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
        except BaseException:
            if durable is not None:
                durable.abandon()
            for thread in threads:
                thread.shutdown(wait=False)
            raise

    # --- the face of a replica

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        """See `Replica`. Raises NoQuorum when no leader is there, and NotLeader when leaders
        change faster than this can follow: nothing happened then."""
        if not commands:
            return []
        self._proposals.check(commands)
        deadline = self._loop.time() + DEADLINE
        while True:
            leader = await self._some_leader(deadline)
            try:
                if leader == self.id:
                    return await self._propose_here(commands, deadline)
                return await self._pass_on(leader, commands, deadline)
            except NotLeader:
                if self._loop.time() >= deadline:
                    raise
            await self._pause()

    async def _pass_on(
        self, leader: int, commands: Sequence[bytes], deadline: float
    ) -> list[object]:
        """In several messages, one after the other, when one would be too large."""
        results: list[object] = []
        index = 0
        for part in _parts(commands):
            try:
                left = deadline - self._loop.time()
                answers, index = await self._transport.propose(leader, part, left)
            except (NotLeader, Overloaded) as error:
                if not results:
                    raise
                raise OutcomeUnknown(
                    f"a part of it happened, and a part did not: {error}"
                ) from error
            results += answers
        await self._see(index)
        return results

    async def _see(self, index: int) -> None:
        """Who has an answer finds what was done, on this server too; unless it is far behind, or
        ends: the answer stands either way."""
        with contextlib.suppress(TimeoutError, Stopped):
            async with asyncio.timeout(ROUND):
                await self._barriers.until(index)

    async def propose_here(self, commands: Sequence[bytes]) -> list[object]:
        """For another server: as `propose`, but only on the leader. Raises NotLeader."""
        if not self.leader:
            raise NotLeader("this server does not lead")
        return await self._propose_here(commands, self._loop.time() + DEADLINE)

    async def _propose_here(self, commands: Sequence[bytes], deadline: float) -> list[object]:
        self._check()
        proposal = self._proposals.admit(commands, deadline)
        self._wake.set()
        return await proposal.future

    async def read_barrier(self) -> None:
        """See `Replica`. Raises NoQuorum."""
        deadline = self._loop.time() + DEADLINE
        while True:
            leader = await self._some_leader(deadline)
            try:
                async with asyncio.timeout_at(min(deadline, self._loop.time() + ROUND)):
                    if leader == self.id:
                        index = await self.confirm()
                    else:
                        index = await self._transport.read_index(leader, ROUND)
                break
            except (NotLeader, TimeoutError):
                if self._loop.time() >= deadline:
                    raise NoQuorum("no majority has confirmed who leads: try again") from None
            await self._pause()
        try:
            async with asyncio.timeout_at(deadline):
                await self._barriers.until(index)
        except TimeoutError:
            raise NoQuorum(
                f"this server has applied {self._applied} of {index} entries: ask another one"
            ) from None

    async def confirm(self) -> int:
        """On the leader: an index, once a majority has said after this call that it leads."""
        self._check()
        if not self.leader:
            raise NotLeader("this server does not lead")
        future = self._barriers.ask()
        self._wake.set()
        return await future

    async def _pause(self) -> None:
        """Before the next try: until something changes here, but not for long."""
        self._check()
        try:
            async with asyncio.timeout(TICK / 1000):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _some_leader(self, deadline: float) -> int:
        """The id of the leader, once there is one. Raises NoQuorum."""
        patience = min(deadline, self._loop.time() + LEADERLESS)
        while True:
            self._check()
            if self._leader:
                return self._leader
            if self._loop.time() >= patience:
                raise NoQuorum(
                    f"no server leads: a majority of {len(self._members.voters)} servers is needed"
                )
            await self._pause()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def leader(self) -> bool:
        return self._role == LEADER and self._failure is None and not self._stopped

    @property
    def leader_id(self) -> int:
        """0 when none is known."""
        return self._leader

    @property
    def led(self) -> int:
        """For how long there is this leader, or none, in ms."""
        return int(1000 * (self._loop.time() - self._since))

    @property
    def leader_address(self) -> str | None:
        """Of the leader's API, when it is known."""
        member = self._members.find(self._leader)
        return None if member is None else member.address

    @property
    def term(self) -> int:
        return self._hard.term

    @property
    def vote(self) -> int:
        """Whom it votes for in this term; 0 for nobody yet."""
        return self._hard.vote

    @property
    def applied_index(self) -> int:
        return self._applied

    @property
    def commit_index(self) -> int:
        return self._hard.commit

    @property
    def last_index(self) -> int:
        return self._durable.last

    @property
    def in_flight(self) -> int:
        return self._proposals.in_flight

    @property
    def members(self) -> Members:
        return self._members

    @property
    def failure(self) -> BaseException | None:
        """Why it has ended, behind every Stopped that it raises; None while it runs."""
        return self._failure

    async def leads(self) -> None:
        """Returns once this replica leads."""
        while not self.leader:
            self._check()
            await self._changed.wait()

    async def void(self) -> str:
        """Returns, with the reason, once this server is no member any more."""
        while not (why := self._members.void(self.id)):
            self._check()
            await self._changed.wait()
        return why

    async def succeeded(self) -> None:
        """Returns once some server is known to lead."""
        while not self._leader:
            self._check()
            await self._changed.wait()

    async def deposed(self, term: int) -> None:
        """Returns once it leads no longer in that term."""
        while self.leader and self.term == term:
            await self._changed.wait()

    # --- what peers say

    def step(self, messages: list[bytes]) -> None:
        """Messages of an authenticated peer, in order. More than there is room for are dropped."""
        size = sum(map(len, messages))
        if self._inbox_bytes + size > INBOX or self._applier.backlog > BACKLOG:
            return
        self._inbox.extend(messages)
        self._inbox_bytes += size
        self._wake.set()

    def meet(self, member: Member) -> None:
        """A server of this cluster and history, neither removed nor lost, has said Hello."""
        self._transport.meet(member)

    # --- changes of members; only on the leader

    async def change_members(
        self, changes: list[tuple[int, int]], change: MemberChange, *, joint: bool = False
    ) -> None:
        """(0 voter | 1 remove | 2 learner, id) pairs; returns when they are applied.

        Raises NotLeader, or Refused when a change is under way or makes no sense (nothing
        happened), or OutcomeUnknown."""
        self._must_lead()
        back = [id for kind, id in changes if kind != _REMOVE and id in self._members.removed]
        if back:
            raise Refused(f"server {back[0]} was removed: an id never comes back; join anew")
        piece = self._proposals.admit_change(self._loop.time() + DEADLINE)

        def propose() -> None:
            try:
                index, term = self._node.propose_conf_change(
                    changes, 1 if joint else 0, encode_change(change)
                )
            except ProposalDropped as error:
                self._proposals.dropped([[piece]], self._why_dropped(error))
            except ValueError as error:
                refused = Refused(f"this change of members cannot be made: {error}")
                self._proposals.dropped([[piece]], refused)
            else:
                self._proposals.proposed(index, term, [[piece]])

        self._between_turns(propose)
        await piece.proposal.future

    async def transfer(self, to: int) -> None:
        """Asks another voter to lead; returns at once. Raises NotLeader, or Refused."""
        self._must_lead()
        if to not in self._members.voters:
            raise Refused(f"server {to} is no voter: only a voter can lead")
        self._between_turns(partial(self._node.transfer_leader, to))

    def _must_lead(self) -> None:
        self._check()
        if not self.leader:
            raise NotLeader("this server does not lead", self.leader_address)

    def _why_dropped(self, error: ProposalDropped) -> GrampusError:
        """Nothing happened; with the next leader it may."""
        if self._role != LEADER or self._node.status()["transferee"]:
            return NotLeader(f"the leader does not take it: {error}")
        return Refused(f"the leader does not take it: {error}")

    def _between_turns(self, chore: Callable[[], None]) -> None:
        self._chores.append(chore)
        self._wake.set()

    # --- the loop

    async def run(self) -> None:
        """Until cancelled. Raises Installed when a snapshot was laid down: open everything anew;
        or why it has failed."""
        try:
            async with asyncio.TaskGroup() as group:
                for part in (
                    self._turns(), self._applier.run(), self._tick(), self._snapshots.run()
                ):  # fmt: skip
                    group.create_task(part)
        except BaseExceptionGroup as errors:
            first = _first(errors)
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
            # Whatever runs on them still has ended then: the machine may be closed.
            last = self._machine.checkpoint if well else _nothing
            await loop.run_in_executor(self._machine_thread, last)
            last = self._durable.close if well else self._durable.abandon
            await loop.run_in_executor(self._log_thread, last)
        finally:
            self._log_thread.shutdown(wait=False)
            self._machine_thread.shutdown(wait=False)

    async def _tick(self) -> None:
        """A late tick is not made up for: what came meanwhile is read first."""
        due = self._loop.time()
        while True:
            due = max(due + TICK / 1000, self._loop.time())
            await asyncio.sleep(due - self._loop.time())
            self._ticks += 1
            self._wake.set()
            self._proposals.expire(self._loop.time())

    async def _turns(self) -> None:
        node = self._node
        if self._members.conf == ([self.id], [], [], [], False):
            node.campaign()  # there is nobody to wait for
            self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._take_in()
            while (ready := node.ready()) is not None:
                await self._turn(ready)
                self._take_in()

    def _take_in(self) -> None:
        """Everything that waits goes into the node, between two turns of it."""
        node = self._node
        if self._ticks:
            self._ticks = 0
            node.tick()
            self._looked += 1
            if self._looked >= LOOK:
                self._look()
        if self._inbox:
            inbox, self._inbox, self._inbox_bytes = self._inbox, [], 0
            self._step(inbox)
        if self._chores:
            chores, self._chores = self._chores, []
            for chore in chores:
                self._do(chore)
        if self._role == LEADER:
            self._put_proposals()
            self._barriers.begin(node.read_index)

    def _do(self, chore: Callable[[], None]) -> None:
        """What it wanted may not be possible any more."""
        try:
            chore()
        except RaftFatal:
            raise
        except (ValueError, RaftError) as error:
            log.info("Raft declines: %s", error)

    def _step(self, messages: list[bytes]) -> None:
        try:
            self._node.step(messages)
        except ValueError:
            for message in messages:  # none was handled: find the one that is wrong
                try:
                    self._node.step([message])
                except ValueError as error:
                    log.warning("a message of a server is dropped: %s", error)

    def _put_proposals(self) -> None:
        entries = self._proposals.entries()
        if not entries:
            return
        pieces = [made_of for _, made_of in entries]
        try:
            index, term = self._node.propose([payload for payload, _ in entries])
        except ProposalDropped as error:
            why = self._why_dropped(error)
            if not isinstance(why, NotLeader):
                why = Overloaded(f"too much waits for a majority of servers: {error}")
            self._proposals.dropped(pieces, why)
        else:
            self._proposals.proposed(index, term, pieces)

    async def _turn(self, ready: Any) -> None:
        must_sync, hard, entries, snapshot, messages, persisted, committed, reads, soft = ready
        if hard is not None:
            self._hard = HardState(*hard)
            durable = self._durable.hard
            if hard[:2] != (durable.term, durable.vote):
                # A sole voter leads at once in its new term, and Raft would let its learners hear
                # of it before the term is durable: after a crash it could lead in it once more.
                messages, persisted = [], [*messages, *persisted]
        if soft is not None:
            self._turned(*soft)
        self._send(messages)
        if snapshot is not None:
            await self._install(snapshot)
        if must_sync:
            await self._loop.run_in_executor(
                self._log_thread,
                self._durable.append,
                [
                    Entry(index, term, data, kind, context)
                    for index, term, kind, data, context in entries
                ],
                self._hard,
            )
        self._send(persisted)
        commit, more, then = self._node.advance()
        if commit is not None:
            self._hard = HardState(self._hard.term, self._hard.vote, commit)
        self._send(more)
        for index, context in reads:
            self._barriers.confirmed(index, context)
        if committed or then:
            self._applier.put([*committed, *then])
        if self._needless:
            await self._let_go()

    async def _let_go(self) -> None:
        """Of old entries, in memory and on disk."""
        below, self._needless = self._needless, 0
        self._node.compact(below)
        await self._loop.run_in_executor(self._log_thread, self._durable.compact, below + 1)

    async def _install(self, snapshot: tuple[int, int, Conf, bytes]) -> None:
        """Lays it down as the next generation, and ends this replica."""
        index, term, _, manifest = snapshot
        hard = HardState(self._hard.term, self._hard.vote, index)
        await self._loop.run_in_executor(
            self._log_thread, self.incoming.lay_down, index, term, manifest, hard
        )
        raise Installed(f"a snapshot of index {index} is laid down")

    def _turned(self, leader: int, role: int) -> None:
        led = self._role == LEADER
        if leader != self._leader:
            self._since = self._loop.time()
        self._leader, self._role = leader, role
        if led and role != LEADER:
            gone = NotLeader("this server leads no longer")
            self._proposals.deposed(gone)
            self._barriers.give_up(gone)
            self.peers, self._hearing = {}, Hearing()
        if role == LEADER:
            log.info("this server leads in term %d", self._hard.term)
        elif leader:
            member = (self._members if self._members.known else self._introduced).find(leader)
            log.info("server %s leads in term %d", member.name if member else leader, self.term)
        self._tell_change()

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _send(self, messages: list[tuple[int, int, bytes]]) -> None:
        if not messages:
            return
        by_peer: dict[int, list[tuple[int, bytes]]] = {}
        for to, kind, data in messages:
            by_peer.setdefault(to, []).append((kind, data))
        for to, outgoing in by_peer.items():
            for kind, data in outgoing:
                if kind == SNAPSHOT:
                    self._snapshots.send(to, data)
            plain = [data for kind, data in outgoing if kind != SNAPSHOT]
            if plain and not self._transport.send(to, plain):
                self._chores.append(partial(self._node.report_unreachable, to))

    def _look(self) -> None:
        """Now and then: how far the peers are, and who needs a snapshot."""
        self._looked = 0
        self._barriers.lost()
        now = self._loop.time()
        if self._role != LEADER:
            # Nobody waits for a snapshot of this server: a copy that is left goes in its time.
            self._snapshots.look(False, {}, self._applied, now)
            return
        status = self._node.status()
        self.peers = self._hearing.look(self._loop.time(), status["peers"])
        wanted = status["snapshot_wanted_by"] != 0
        for peer in self._snapshots.look(wanted, self.peers, self._applied, now):
            self._node.report_snapshot(peer, False)
        made = self._snapshots.fresh()
        if made is not None and made.index >= status["first"] - 1:
            self._node.set_snapshot(made.index, made.conf, made.manifest)

    def _delivered(self, peer: int, ok: bool) -> None:
        """The snapshot desk: a snapshot was delivered to a peer, or lost."""
        self._between_turns(partial(self._node.report_snapshot, peer, ok))

    # --- what the applier tells

    def change(self, kind: int, data: bytes) -> Conf:
        return self._node.apply_conf_change(kind, data)

    def members_changed(self, members: Members) -> None:
        self._members = members
        self._transport.know(members)
        self._wake.set()  # Raft may have something to say about it
        self._tell_change()

    def applied(self, index: int, term: int, results: list[object], events: list[object]) -> None:
        self._applied = index
        self._node.advance_apply(index)
        self._proposals.applied(index, term, results)
        for listener in self._listeners:
            listener(index, events)
        self._barriers.applied(index)

    def checkpointed(self, index: int) -> None:
        """Lets go of old entries, in memory and on disk, but keeps some for who is behind."""
        status = self._node.status()
        held, kept = status["log_bytes"], self._kept.entries
        if held > self._kept.size:
            count = status["last"] - status["first"] + 1
            kept = min(kept, count * self._kept.size // held)
        below = min(index, self._applied - kept)
        if self._snapshots.index is not None and held < self._kept.held:
            below = min(below, self._snapshots.index)  # a member is on its way there

        if below >= status["first"]:
            self._needless = below

    async def _on_machine_thread(self, call: Callable[..., T], *args: Any) -> T:
        return await self._loop.run_in_executor(self._machine_thread, call, *args)

    # --- the end

    def _check(self) -> None:
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
        self._tell_change()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, GrampusError) else f"{type(error).__name__}: {error}"


def _parts(commands: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """In order, each of at most MESSAGE bytes, or of one command."""
    first = size = 0
    for at, command in enumerate(commands):
        if at > first and size + len(command) > MESSAGE:
            yield commands[first:at]
            first, size = at, 0
        size += len(command)
    yield commands[first:]


def _nothing() -> None:
    return
