"""A group under random faults, and looked at after every step: everything comes from one seed.

The network loses, delays, doubles and reorders; nodes are cut off, crash (also in the middle of a
write) and come back with a state machine that is older than their log. Meanwhile there are
proposals, reads, transfers, changes of members, snapshots and compaction. Drivers are as unhurried
as they may be: a turn stays open for a while, and what is committed is applied at any later moment,
also while another turn is open.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grampus_raft import ProposalDropped, RaftNode

from tests.raft.group import ADD, LEADER, LEARNER, NOBODY, REMOVE, SNAPSHOT, voters

if TYPE_CHECKING:
    from grampus_raft import ConfState, Entry, HardState, Message, Ready, Snapshot

FOUNDERS = (1, 2, 3)
SNAPSHOT_STATE = 2
SNAPSHOT_TICKS = 20


def same(members: ConfState) -> ConfState:
    """In one order: raft-rs lists members in any."""
    now, learners, outgoing, following, auto_leave = members
    return sorted(now), sorted(learners), sorted(outgoing), sorted(following), auto_leave


@dataclass
class Disk:
    hard_state: HardState = (0, 0, 0)
    base: tuple[int, int] = (0, 0)
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None
    #: the state machine, not synced: (index, members as of it) of each change, and how far it is
    members: list[tuple[int, ConfState]] = field(default_factory=lambda: [(0, NOBODY)])
    applied: int = 0

    def write(
        self, entries: list[Entry], hard_state: HardState | None, snapshot: Snapshot | None
    ) -> None:
        if snapshot:
            self.base, self.entries, self.snapshot = snapshot[:2], [], snapshot
            self.members, self.applied = [(snapshot[0], same(snapshot[2]))], snapshot[0]
        if entries:
            self.entries = self.entries[: entries[0][0] - self.base[0] - 1] + entries
        if hard_state:
            self.hard_state = hard_state

    def lose_unsynced(self, applied: int) -> None:
        self.applied = applied
        self.members = [m for m in self.members if m[0] <= applied]
        term, vote, commit = self.hard_state
        self.hard_state = (term, vote, max(commit, applied))


class Driver:
    """One node; `poll` makes one random move of its turn."""

    def __init__(self, world: World, id: int, disk: Disk) -> None:
        self.world, self.id, self.disk, self.starts = world, id, disk, 0
        self.start()

    def start(self) -> None:
        d = self.disk
        first = d.snapshot[0] if d.snapshot else 0
        d.lose_unsynced(self.world.random.randint(first, max(first, d.applied)))
        self.starts += 1
        self.node = RaftNode(
            *(self.id, d.hard_state, d.members[-1][1], d.base, d.entries, d.applied),
            seed=self.world.seed * 100_000 + self.id * 1_000 + self.starts,
            max_size_per_msg=512,
            max_inflight_msgs=8,
        )
        if d.snapshot:
            self.node.set_snapshot(d.snapshot[0], *d.snapshot[2:])
        self.up, self.members_changed = True, False
        self.turn: Ready | None = None
        self.queue: list[Entry] = []
        self.asked: dict[bytes, int] = {}
        self.reads: list[tuple[int, int]] = []
        self.proposed: dict[int, int] = {}
        self.sending: dict[int, int] = {}

    def crash(self) -> None:
        """In the middle of a write, some of it may be on the disk."""
        if self.turn and self.turn[2] and not self.turn[3]:
            entries = self.turn[2]
            self.disk.write(entries[: self.world.random.randint(0, len(entries))], None, None)
        self.up = False

    def poll(self) -> bool:
        """False: nothing is left to do."""
        chance = self.world.random.random
        if self.queue and (chance() < 0.5 or self.turn is None):
            self.apply()
        elif self.turn:
            if chance() < 0.7:
                self.finish(self.turn)
        elif rd := self.node.ready():
            self.turn = rd
            self.world.post(self.id, rd[4])
        else:
            return False
        return True

    def finish(self, rd: Ready) -> None:
        self.turn = None
        self.disk.write(rd[2], rd[1], rd[3])
        if rd[3]:
            self.queue.clear()
        self.world.post(self.id, rd[5])
        _, messages, committed = self.node.advance()
        self.world.post(self.id, messages)
        self.queue += rd[6] + committed
        if rd[3]:
            self.world.check_snapshot(rd[3])
            self.node.advance_apply(rd[3][0])
        self.reads += [(index, self.asked.pop(context)) for index, context in rd[7]]
        self.serve_reads()

    def apply(self) -> None:
        """Some of what is committed, in order."""
        count = self.world.random.randint(1, len(self.queue))
        batch, self.queue = self.queue[:count], self.queue[count:]
        for entry in batch:
            index, term, kind, data, _ = entry
            assert index == self.disk.applied + 1, "applied out of order"
            if kind:
                members = same(self.node.apply_conf_change(kind, data))
                self.disk.members.append((index, members))
            self.disk.applied = index
            self.world.check_applied(entry, self.disk.members[-1][1])
            if self.proposed.pop(index, 0) == term:
                self.world.acknowledged = max(self.world.acknowledged, index)
        self.node.advance_apply(self.disk.applied)
        self.serve_reads()
        if any(e[2] for e in batch):
            self.members_changed = True

    def housekeep(self) -> None:
        """Between turns: snapshots, compaction, lost snapshots."""
        d, status = self.disk, self.node.status()
        long = d.applied - d.base[0] > 40 and self.world.random.random() < 0.3
        if (self.members_changed or long) and d.applied:
            d.snapshot = (d.applied, self.node.term(d.applied), d.members[-1][1], b"state")
            self.node.set_snapshot(d.snapshot[0], *d.snapshot[2:])
            self.members_changed = False
        if long:
            to = max(d.applied - self.world.random.choice((0, 5)), d.base[0])
            term = self.node.term(to)
            self.node.compact(to)
            d.entries, d.base = d.entries[to - d.base[0] :], (to, term)
        for id, peer in status["peers"].items():
            self.sending[id] = self.sending.get(id, 0) + 1 if peer[2] == SNAPSHOT_STATE else 0
            if self.sending[id] > SNAPSHOT_TICKS:
                self.node.report_snapshot(id, False)
                self.sending[id] = 0

    def serve_reads(self) -> None:
        for index, acknowledged in [r for r in self.reads if r[0] <= self.disk.applied]:
            assert index >= acknowledged, f"stale read at {index}, {acknowledged} was acknowledged"
            self.world.reads += 1
        self.reads = [r for r in self.reads if r[0] > self.disk.applied]


class World:
    def __init__(self, seed: int, ticks: int = 300) -> None:
        self.seed, self.random, self.now = seed, random.Random(seed), 0
        self.faulty = True
        self.drivers: dict[int, Driver] = {}
        #: what was applied at each index, and the members then: the same everywhere
        self.truth: dict[int, tuple[Entry, ConfState]] = {}
        self.leaders: dict[int, int] = {}
        self.acknowledged = self.reads = self.crashes = self.changes = 0
        self.cut: int | None = None
        self.wire: list[tuple[int, int, int, Message]] = []
        self.sequence = 0
        self.digest = hashlib.sha256()
        genesis = (1, 1, voters(*FOUNDERS), b"state")
        for id in FOUNDERS:
            members = [(1, voters(*FOUNDERS))]
            self.drivers[id] = Driver(self, id, Disk((1, 0, 1), (1, 1), [], genesis, members, 1))
        for self.now in range(ticks):
            self.step()
        self.heal()
        for self.now in range(ticks, ticks + 300):
            self.step()
        self.check_end()

    def heal(self) -> None:
        self.faulty, self.cut = False, None
        for d in self.drivers.values():
            if not d.up:
                d.start()

    def post(self, sender: int, messages: list[Message]) -> None:
        for m in messages:
            self.digest.update(repr((self.now, sender, m)).encode())
            chance = self.random.random() if self.faulty else 1.0
            copies = 0 if chance < 0.06 else 2 if chance < 0.08 else 1
            for _ in range(copies):
                delay = self.random.choice((0, 0, 1, 1, 2, 6 if self.faulty else 1))
                self.sequence += 1
                self.wire.append((self.now + delay, self.sequence, sender, m))

    def step(self) -> None:
        if self.faulty:
            self.disturb()
        for d in [d for d in self.drivers.values() if d.up]:
            self.settle(d)
            d.node.tick()
            d.housekeep()
            self.work(d)
        for _ in range(3):
            due = sorted((w for w in self.wire if w[0] <= self.now), key=lambda w: w[1])
            self.wire = [w for w in self.wire if w[0] > self.now]
            for _, _, sender, message in due:
                self.deliver(sender, message)
            for d in [d for d in self.drivers.values() if d.up]:
                for _ in range(self.random.randint(0, 6)):
                    d.poll()

    def settle(self, d: Driver) -> None:
        """Until it has no open turn; the rest may wait."""
        while d.turn:
            d.poll()

    def deliver(self, sender: int, message: Message) -> None:
        to, kind, encoded = message
        source, target = self.drivers.get(sender), self.drivers.get(to)
        arrives = target is not None and target.up and self.cut not in (sender, to)
        if target and arrives:
            self.settle(target)
            target.node.step([encoded])
        if source and source.up and (kind == SNAPSHOT or not arrives):
            self.settle(source)
            if kind == SNAPSHOT:
                source.node.report_snapshot(to, arrives)
            elif self.random.random() < 0.3:
                source.node.report_unreachable(to)

    def disturb(self) -> None:
        chance = self.random.random
        up = [d for d in self.drivers.values() if d.up]
        if chance() < 0.02:
            self.cut = self.random.choice((None, *self.drivers))
        if chance() < 0.02 and len(up) > 1:
            self.random.choice(up).crash()
            self.crashes += 1
        for d in self.drivers.values():
            if not d.up and chance() < 0.06:
                d.start()

    def work(self, d: Driver) -> None:
        """What clients and operators ask of a leader."""
        status, chance = d.node.status(), self.random.random
        if status["role"] != LEADER:
            return
        term, members = status["term"], d.disk.members[-1][1]
        assert self.leaders.setdefault(term, d.id) == d.id, f"two leaders in term {term}"
        assert d.id in members[0] + members[2], "leads without a vote"
        try:
            if chance() < 0.7:
                count = self.random.randint(1, 4)
                items = [b"%d.%d.%d" % (self.now, d.id, k) for k in range(count)]
                first, term = d.node.propose(items)
                d.proposed |= dict.fromkeys(range(first, first + count), term)
            if self.faulty and chance() < 0.01:
                d.node.transfer_leader(self.random.choice(members[0]))
            if chance() < 0.06 and (change := self.change(d)):
                d.node.propose_conf_change(*change, b"")  # type: ignore[arg-type]
                self.changes += 1
        except ProposalDropped:
            pass
        context = b"%d.%d.%d" % (self.now, d.id, d.starts)
        if chance() < 0.2 and d.node.read_index(context):
            d.asked[context] = self.acknowledged

    def change(self, d: Driver) -> tuple[list[tuple[int, int]], int] | None:
        """An operator's next step: a learner joins, is promoted, and another voter goes."""
        now, learners, outgoing, _, auto_leave = d.disk.members[-1][1]
        if outgoing:
            return None if auto_leave else ([], 0)
        if not self.faulty:
            return None
        status = d.node.status()
        if learners:
            peer = status["peers"].get(learners[0])
            caught_up = peer is not None and peer[0] + 10 >= status["commit"]
            return ([(ADD, learners[0])], 0) if caught_up else None
        if len(now) > len(FOUNDERS):
            return [(REMOVE, self.random.choice(now))], self.random.choice((0, 1, 2))
        id = max(self.drivers) + 1
        self.drivers[id] = Driver(self, id, Disk())
        return [(LEARNER, id)], 0

    def check_applied(self, entry: Entry, members: ConfState) -> None:
        known = self.truth.setdefault(entry[0], (entry, members))
        assert known == (entry, members), f"diverged: {known} and {(entry, members)}"

    def check_snapshot(self, snapshot: Snapshot) -> None:
        index, term, members, _ = snapshot
        assert self.truth[index][0][1] == term if index > 1 else term == 1
        assert index == 1 or self.truth[index][1] == same(members), "members of a snapshot"

    def check_end(self) -> None:
        """Healed and left alone, every member has everything that was acknowledged."""
        last = max(self.drivers.values(), key=lambda d: d.disk.applied)
        now, learners, outgoing, _, _ = last.disk.members[-1][1]
        assert not outgoing, "a joint configuration was never left"
        for id in now + learners:
            d = self.drivers[id]
            behind = last.disk.applied - d.disk.applied
            assert behind < 50, f"{id} is {behind} behind {last.id}: {d.node.status()}"
        assert last.disk.applied >= self.acknowledged
        assert self.leaders
