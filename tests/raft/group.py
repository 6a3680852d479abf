"""A group of nodes wired in memory, each with a disk that keeps what a driver would make durable.

The network delivers at once and in order unless a test cuts a node off; nothing is random but the
election timeouts, which come from the node's id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grampus_raft import RaftNode

if TYPE_CHECKING:
    from grampus_raft import ConfState, Entry, HardState, Message, Snapshot

FOLLOWER, CANDIDATE, LEADER, PRE_CANDIDATE = range(4)
ADD, REMOVE, LEARNER = range(3)
APPEND, SNAPSHOT = 3, 7
NOBODY: ConfState = ([], [], [], [], False)


def voters(*ids: int) -> ConfState:
    return (list(ids), [], [], [], False)


@dataclass
class Disk:
    hard_state: HardState = (0, 0, 0)
    base: tuple[int, int] = (0, 0)
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None
    #: the state machine: everything applied since the snapshot, and the members as of its end
    applied: list[Entry] = field(default_factory=list)
    members: ConfState = NOBODY

    @classmethod
    def founder(cls, members: ConfState) -> Disk:
        """The founders start from the same snapshot at index 1: their members are in no entry."""
        genesis = (1, 1, members, b"genesis")
        return cls((1, 0, 1), (1, 1), [], genesis, [], members)

    @property
    def applied_index(self) -> int:
        if self.applied:
            return self.applied[-1][0]
        return self.snapshot[0] if self.snapshot else 0

    def write(
        self, entries: list[Entry], hard_state: HardState | None, snapshot: Snapshot | None
    ) -> None:
        if snapshot:
            self.base, self.entries, self.applied = snapshot[:2], [], []
            self.snapshot, self.members = snapshot, snapshot[2]
        if entries:
            self.entries = self.entries[: entries[0][0] - self.base[0] - 1] + entries
        if hard_state:
            self.hard_state = hard_state


class Member:
    """One node and the turn of its driver."""

    def __init__(self, id: int, disk: Disk, **settings: Any) -> None:
        self.id = id
        self.disk = disk
        self.settings = settings
        self.reads: list[tuple[int, bytes]] = []
        self.start()

    def start(self) -> None:
        """Starts anew from what the disk holds."""
        d = self.disk
        term, vote, commit = d.hard_state
        hard_state = (term, vote, max(commit, d.applied_index))
        self.node = RaftNode(
            self.id,
            hard_state,
            d.members,
            d.base,
            d.entries,
            d.applied_index,
            **{"seed": self.id, **self.settings},
        )
        if d.snapshot:
            self.node.set_snapshot(d.snapshot[0], d.snapshot[2], d.snapshot[3])

    def turn(self) -> list[Message]:
        """Writes, applies, and returns what is to be sent."""
        sent: list[Message] = []
        while rd := self.node.ready():
            _, hard_state, entries, snapshot, messages, persisted, committed, reads, _ = rd
            self.disk.write(entries, hard_state, snapshot)
            commit, more, rest = self.node.advance()
            if commit is not None:
                term, vote, _ = self.disk.hard_state
                self.disk.hard_state = (term, vote, commit)
            sent += messages + persisted + more
            self.reads += reads
            if snapshot:
                self.node.advance_apply(snapshot[0])
            self.apply(committed + rest)
        return sent

    def apply(self, entries: list[Entry]) -> None:
        d = self.disk
        for entry in entries:
            assert entry[0] == d.applied_index + 1, "applied out of order"
            d.applied.append(entry)
            if entry[2]:
                d.members = self.node.apply_conf_change(entry[2], entry[3])
        if entries:
            self.node.advance_apply(d.applied_index)
            if any(e[2] for e in entries):
                self.snapshot()

    def snapshot(self) -> None:
        d = self.disk
        index = d.applied_index
        d.snapshot = (index, self.node.term(index), d.members, b"state at %d" % index)
        self.node.set_snapshot(index, d.members, d.snapshot[3])

    @property
    def role(self) -> int:
        return self.node.status()["role"]

    @property
    def data(self) -> list[bytes]:
        """What was proposed and is applied."""
        return [e[3] for e in self.disk.applied if e[2] == 0 and e[3]]


class Group:
    def __init__(self, *ids: int, **settings: Any) -> None:
        ids = ids or (1, 2, 3)
        self.settings = settings
        self.members = {id: Member(id, Disk.founder(voters(*ids)), **settings) for id in ids}
        self.cut: set[int] = set()
        #: (from, to, type, encoded), also of what was lost
        self.sent: list[tuple[int, int, int, bytes]] = []
        #: types of messages that get lost, and nobody notices
        self.lose: set[int] = set()

    def __getitem__(self, id: int) -> RaftNode:
        return self.members[id].node

    def add(self, id: int) -> Member:
        """A joiner: it knows nothing, and waits for a snapshot."""
        self.members[id] = Member(id, Disk(), **self.settings)
        return self.members[id]

    def settle(self) -> None:
        """Delivers until nobody has anything to send."""
        for _ in range(100):
            batch = [(m.id, *out) for m in self.members.values() for out in m.turn()]
            if not batch:
                return
            for sender, to, kind, encoded in batch:
                self.deliver(sender, to, kind, encoded)
        raise AssertionError("the group does not come to rest")

    def deliver(self, sender: int, to: int, kind: int, encoded: bytes) -> None:
        self.sent.append((sender, to, kind, encoded))
        if kind in self.lose:
            return
        arrives = to in self.members and not self.cut & {sender, to}
        if arrives:
            self[to].step([encoded])
        if kind == SNAPSHOT:
            self[sender].report_snapshot(to, arrives)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for m in self.members.values():
                m.node.tick()
            self.settle()

    def elect(self, id: int) -> RaftNode:
        self[id].campaign()
        self.settle()
        assert self.leader == id
        return self[id]

    @property
    def leader(self) -> int:
        """Who leads among those that are not cut off; 0: nobody."""
        leaders = [m.id for m in self.members.values() if m.role == LEADER and m.id not in self.cut]
        assert len(leaders) < 2, f"two leaders: {leaders}"
        return leaders[0] if leaders else 0


def message(**fields: int) -> bytes:
    """A message of the wire, field by field: what no honest node would send can be made too."""
    numbers = {"type": 1, "to": 2, "sender": 3, "term": 4, "log_term": 5, "index": 6, "commit": 8}
    encoded = {numbers[name]: value for name, value in fields.items()}
    return b"".join(varint(n << 3) + varint(v) for n, v in sorted(encoded.items()))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
