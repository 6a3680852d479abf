"""The one Ready loop around a `RaftNode` and its durable log.

Order of a turn: messages that may go at once, then entries and vote durably (one sync), then the
messages that had to wait for that, then what is committed goes to the applier (behind the message
that tells another server of it, where somebody waits there). While the log syncs, nothing is put
into Raft: so load makes batches larger. A sync that hangs silences this server (`stalled`), and the
others elect another leader. Whatever fails here ends the replica. Who proposes, asks and waits is
the affair of `replica`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, Protocol, TypeVar

from grampus_raft import ProposalDropped, RaftError, RaftFatal, RaftNode
from msgspec import Struct

from grampus.consensus.barriers import Barriers
from grampus.consensus.hearing import Hearing, Standing
from grampus.consensus.log import SEGMENT_SIZE, DurableLog
from grampus.consensus.members import Conf, Members
from grampus.consensus.pace import Pace
from grampus.consensus.proposals import Proposals
from grampus.consensus.record import Entry, HardState
from grampus.consensus.snapshots import Copied, Incoming, Installed, SnapshotDesk
from grampus.consensus.strain import AGAIN, Disks, Strain
from grampus.consensus.telling import Telling
from grampus.consensus.transport import Transport
from grampus.errors import GrampusError, NotLeader, Overloaded, Refused

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Milliseconds of a Raft tick; ticks between heartbeats; election time-out in ticks.
TICK, HEARTBEAT, ELECTION, ELECTION_MOST = 50, 2, 10, 20
#: Role of a leader and type of a message with a snapshot, as Raft says them.
LEADER, SNAPSHOT = 2, 7
#: Bytes of messages of peers that wait for their turn; more are dropped: they are sent again.
INBOX = 64 * 1024 * 1024
#: Bytes committed and not applied here; beyond, nothing more is heard until there are fewer.
BACKLOG = 256 * 1024 * 1024
#: Bytes that may be written and synced on the event loop, where the disk is quick: more is a load.
AT_ONCE = 16 * 1024
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


class Told(Protocol):
    """Who is told, on the event loop."""

    @property
    def backlog(self) -> int:
        """Bytes that were committed and are not applied."""
        ...

    @property
    def keen(self) -> bool:
        """Whether somebody here waits for what is committed next."""
        ...

    @property
    def disk(self) -> int:
        """How the disk of this server is: see `Strain.told`."""
        ...

    def committed(self, entries: list[tuple[int, int, int, bytes, bytes]]) -> None:
        """In order; to be applied."""
        ...

    def turned(self) -> None:
        """Another leads, or nobody, or this server."""
        ...


class Turns:
    """`run` and `ticks` are its two tasks; everything else is called on the event loop."""

    def __init__(
        self,
        id: int,
        members: Members,
        introduced: Members,
        applied: int,
        durable: DurableLog,
        log_thread: ThreadPoolExecutor,
        machine: Copied,
        transport: Transport,
        incoming: Incoming,
        proposals: Proposals,
        barriers: Barriers,
        kept: Kept,
        pace: Pace,
        seed: int | None,
        told: Told,
    ) -> None:
        self.id = id
        self.members = members
        #: Who was known before the ledger was here.
        self.introduced = introduced
        #: Up to where entries are applied.
        self.applied = applied
        durable.check_reaches(applied)
        hard = durable.hard
        self.hard = HardState(hard.term, hard.vote, max(hard.commit, applied))
        self.node = _raft(id, self.hard, members.conf, durable, applied, seed)
        #: Id of who leads, 0 for nobody; this server's role, as Raft says it; since when.
        self.leader = 0
        self.role = 0
        self.since = asyncio.get_running_loop().time()
        self.peers: dict[int, Standing] = {}
        self._hearing = Hearing()
        #: What the disk costs this server, and the others.
        self.strain = Strain()
        self.disks = Disks()
        #: A sync hangs, or what came meanwhile is not read yet: it is not known who leads.
        self.stalled = self._seen_to_hang = False
        self._told_disk = 0
        self._tell_disk_at = 0.0
        self.snapshots = SnapshotDesk(
            incoming.folder.with_name("snapshots"), machine, transport, self._delivered
        )
        self._durable = durable
        self._log_thread = log_thread
        self._transport = transport
        self._incoming = incoming
        self._proposals = proposals
        self._barriers = barriers
        self._kept = kept
        self._pace = pace
        self._told = told
        self._loop = asyncio.get_running_loop()
        self.telling = Telling(self._others, self._tell_commit, self._loop.call_later)
        self._wake = asyncio.Event()
        self._ticks = 0
        #: When the next one is.
        self._due = inf
        self._looked = 0
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        #: Calls of the node that must wait until it is between two turns.
        self._chores: list[Callable[[], None]] = []
        #: Entries that are committed, and not given to the applier yet.
        self._committed: list[tuple[int, int, int, bytes, bytes]] = []
        #: Entries up to this one are to be let go.
        self._needless = 0
        #: The log is to say that its end is durable: nothing else may for long.
        self._unwitnessed = False

    def wake(self) -> None:
        """Something waits to be taken in."""
        self._wake.set()

    def step(self, messages: list[bytes]) -> None:
        """Messages of an authenticated peer, in order. More than there is room for are dropped."""
        size = sum(map(len, messages))
        if self._inbox_bytes + size > INBOX or self._told.backlog > BACKLOG:
            return
        self._inbox.extend(messages)
        self._inbox_bytes += size
        self._wake.set()

    def between(self, chore: Callable[[], None]) -> None:
        self._chores.append(chore)
        self._wake.set()

    async def ticks(self) -> None:
        """A late tick is not made up for: what came meanwhile is read first."""
        due = self._loop.time()
        while True:
            due = self._due = max(due + TICK / 1000, self._loop.time())
            await asyncio.sleep(due - self._loop.time())
            self._ticks += 1
            self._wake.set()
            now = self._loop.time()
            self._proposals.expire(now)
            self._look_at_disk(now)

    def _look_at_disk(self, now: float) -> None:
        """Peers hear of it beside Raft, which is told nothing while a sync is under way."""
        # Seen twice: where the whole process stood still, the sync may be over, and not heard of.
        seen, self._seen_to_hang = self._seen_to_hang, self.strain.hangs(now) > 0
        if seen and self._seen_to_hang and not self.stalled:
            self.stalled, self.since = True, now
            gone = NotLeader("the disk of this server does not answer")
            self._proposals.deposed(gone)
            self._barriers.give_up(gone)
            self._told.turned()
        told = self._told.disk
        if (told or self._told_disk) and (now >= self._tell_disk_at or not told):
            self._told_disk, self._tell_disk_at = told, now + AGAIN
            self._transport.say(told, self._told.keen)

    def _goes_on(self) -> None:
        """All that came while a sync hung was read."""
        if self.stalled and not self.strain.hangs(self._loop.time()):
            self.stalled, self.since = False, self._loop.time()
            self._told.turned()

    async def run(self) -> None:
        node = self.node
        if self.members.conf == ([self.id], [], [], [], False):
            node.campaign()  # there is nobody to wait for
            self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._take_in()
            while (ready := node.ready()) is not None:
                await self._turn(ready)
                self._take_in()
            self._hand_on()
            self._goes_on()
            if self._unwitnessed:
                self._unwitnessed = False
                await self._on_log_thread(self._durable.mark)

    def _take_in(self) -> None:
        """Everything that waits goes into the node, between two turns of it."""
        node = self.node
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
        if self.role == LEADER:
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
            self.node.step(messages)
        except ValueError:
            for message in messages:  # none was handled: find the one that is wrong
                try:
                    self.node.step([message])
                except ValueError as error:
                    log.warning("a message of a server is dropped: %s", error)

    def _put_proposals(self) -> None:
        entries = self._proposals.entries()
        if not entries:
            return
        pieces = [made_of for _, made_of in entries]
        try:
            index, term = self.node.propose([payload for payload, _ in entries])
        except ProposalDropped as error:
            why = self.why_dropped(error)
            if not isinstance(why, NotLeader):
                why = Overloaded(f"too much waits for a majority of servers: {error}")
            self._proposals.dropped(pieces, why)
        else:
            self._proposals.proposed(index, term, pieces)
            self.telling.entries()

    def why_dropped(self, error: ProposalDropped) -> GrampusError:
        """Nothing happened; with the next leader it may."""
        status = self.node.status()
        if status["role"] != LEADER or status["transferee"]:
            return NotLeader(f"the leader does not take it: {error}")
        return Refused(f"the leader does not take it: {error}")

    async def _turn(self, ready: Any) -> None:
        must_sync, hard, entries, snapshot, messages, persisted, committed, reads, soft = ready
        known = self.hard.commit
        if hard is not None:
            self.hard = HardState(*hard)
            durable = self._durable.hard
            if hard[:2] != (durable.term, durable.vote):
                # A sole voter leads at once in its new term, and Raft would let its learners hear
                # of it before the term is durable: after a crash it could lead in it once more.
                messages, persisted = [], [*messages, *persisted]
                # And a vote may be the last that the log hears for long.
                self._unwitnessed = True
        if soft is not None:
            self._turned(*soft)
        self._goes_on()
        self._send(messages)
        self._hand_on()
        if snapshot is not None:
            await self._install(snapshot)
        if must_sync:
            await self._append(
                [
                    Entry(index, term, data, kind, context)
                    for index, term, kind, data, context in entries
                ]
            )
        self._send(persisted)
        commit, more, then = self.node.advance()
        if commit is not None:
            self.hard = HardState(self.hard.term, self.hard.vote, commit)
        self._send(more)
        for index, context in reads:
            self._barriers.confirmed(index, context)
        self._committed += [*committed, *then]
        waited = self.role == LEADER and self.hard.commit > known and self.telling.committed()
        if not waited or self._needless:
            self._hand_on()
        if self._needless:
            await self._let_go()

    def _hand_on(self) -> None:
        """What is committed goes to the applier: at the end of its turn, or, where somebody on
        another server waits for it, as soon as that one is told: with the next turn's messages."""
        if self._committed:
            committed, self._committed = self._committed, []
            self._told.committed(committed)

    async def _append(self, entries: list[Entry]) -> None:
        if self._pace.quick and sum(len(entry.payload) for entry in entries) <= AT_ONCE:
            self.strain.begins(self._loop.time())
            try:
                took = self._append_now(entries)
            finally:
                self.strain.ended(self._loop.time())
        else:
            took = await self._on_log_thread(self._append_now, entries)
        self._pace.took(took)

    def _append_now(self, entries: list[Entry]) -> float:
        """How many seconds it took."""
        begun = perf_counter()
        self._durable.append(entries, self.hard)
        return perf_counter() - begun

    async def _on_log_thread(self, call: Callable[..., T], *args: Any) -> T:
        self.strain.begins(self._loop.time())
        try:
            return await self._loop.run_in_executor(self._log_thread, call, *args)
        finally:
            # While the loop itself was late, nobody can say of what is over when it was.
            self.strain.ended(min(self._loop.time(), self._due))

    async def _let_go(self) -> None:
        """Of old entries, in memory and on disk."""
        below, self._needless = self._needless, 0
        self.node.compact(below)
        await self._on_log_thread(self._durable.compact, below + 1)

    async def _install(self, snapshot: tuple[int, int, Conf, bytes]) -> None:
        """Lays it down as the next generation, and ends this replica."""
        index, term, _, manifest = snapshot
        hard = HardState(self.hard.term, self.hard.vote, index)
        await self._loop.run_in_executor(
            self._log_thread, self._incoming.lay_down, index, term, manifest, hard
        )
        raise Installed(f"a snapshot of index {index} is laid down")

    def _turned(self, leader: int, role: int) -> None:
        led = self.role == LEADER
        if leader != self.leader:
            self.since = self._loop.time()
        self.leader, self.role = leader, role
        if led and role != LEADER:
            gone = NotLeader("this server leads no longer")
            self._proposals.deposed(gone)
            self._barriers.give_up(gone)
            self.telling.stop()
            self.peers, self._hearing = {}, Hearing()
        if role == LEADER:
            log.info("this server leads in term %d", self.hard.term)
        elif leader:
            member = (self.members if self.members.known else self.introduced).find(leader)
            log.info(
                "server %s leads in term %d", member.name if member else leader, self.hard.term
            )
        self._told.turned()

    def _send(self, messages: list[tuple[int, int, bytes]]) -> None:
        if not messages:
            return
        by_peer: dict[int, list[tuple[int, bytes]]] = {}
        for to, kind, data in messages:
            by_peer.setdefault(to, []).append((kind, data))
        for to, outgoing in by_peer.items():
            for kind, data in outgoing:
                if kind == SNAPSHOT:
                    self.snapshots.send(to, data)
            plain = [data for kind, data in outgoing if kind != SNAPSHOT]
            if plain and not self._transport.send(to, plain, self._told.keen):
                self._chores.append(partial(self.node.report_unreachable, to))

    def _others(self) -> list[int]:
        return [member.id for member in self.members.known if member.id != self.id]

    def _tell_commit(self, to: list[int]) -> None:
        self.between(partial(self.node.tell_commit, to))

    def _look(self) -> None:
        """Now and then: how far the peers are, and who needs a snapshot."""
        self._looked = 0
        self._barriers.lost()
        now = self._loop.time()
        if self.role != LEADER:
            # Nobody waits for a snapshot of this server: a copy that is left goes in its time.
            self.snapshots.look(False, {}, self.applied, now)
            return
        status = self.node.status()
        self.peers = self._hearing.look(self._loop.time(), status["peers"])
        wanted = status["snapshot_wanted_by"] != 0
        for peer in self.snapshots.look(wanted, self.peers, self.applied, now):
            self.node.report_snapshot(peer, False)
        made = self.snapshots.fresh()
        if made is not None and made.index >= status["first"] - 1:
            self.node.set_snapshot(made.index, made.conf, made.manifest)

    def _delivered(self, peer: int, ok: bool) -> None:
        """The snapshot desk: a snapshot was delivered to a peer, or lost."""
        self.between(partial(self.node.report_snapshot, peer, ok))

    def checkpointed(self, index: int) -> None:
        """Lets go of old entries, in memory and on disk, but keeps some for who is behind."""
        status = self.node.status()
        held, kept = status["log_bytes"], self._kept.entries
        if held > self._kept.size:
            count = status["last"] - status["first"] + 1
            kept = min(kept, count * self._kept.size // held)
        below = min(index, self.applied - kept)
        if self.snapshots.index is not None and held < self._kept.held:
            below = min(below, self.snapshots.index)  # a member is on its way there

        if below >= status["first"]:
            self._needless = below
        self._unwitnessed = True
        self._wake.set()


def _raft(
    id: int, hard: HardState, conf: Conf, durable: DurableLog, applied: int, seed: int | None
) -> RaftNode:
    base = (durable.first - 1, durable.term(durable.first - 1))
    return RaftNode(
        id,
        (hard.term, hard.vote, hard.commit),
        conf,
        base,
        [(e.index, e.term, e.change, e.payload, e.context) for e in durable.entries(base[0] + 1)],
        applied,
        election_tick=ELECTION,
        max_election_tick=ELECTION_MOST,
        heartbeat_tick=HEARTBEAT,
        tell_commits=False,
        seed=seed,
    )
