"""What must hold of a cluster at every moment, whatever fails, as code.

- Entries that are applied are the same everywhere, and so are ledgers at the same index.
- A term has one leader, who is a voter in its own eyes; a server votes once in a term.
- A server that starts again knows the newest term in which it has said anything, and whom it
  voted for in it.
- A command of those that are to happen once is applied once. What was answered "nothing happened"
  is never applied; what was answered well was applied before.
What must hold of keys, sessions and watches is in `KeysWatch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from grampus.consensus.members import Members
from grampus.errors import OutcomeUnknown
from grampus.testing.keys_watch import KeysWatch
from grampus.testing.world import World

LEADER = 2
#: Raft's messages that give a vote, and those that say a term which is not yet anybody's.
_VOTE, _CANVASS = 6, (17, 18)
_TYPE, _TO, _FROM, _TERM, _REJECT = 1, 2, 3, 4, 10


class Watched(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def leader(self) -> bool: ...
    @property
    def term(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def members(self) -> Members: ...


class ClusterWatch:
    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: Counter[str] = Counter()
        #: By index: the term, and what it was made of.
        self.truth: dict[int, tuple[int, tuple[bytes, ...]]] = {}
        self.keys = KeysWatch(self.seen)
        #: The voters when the ledger was raised to the next version: all were to know it.
        self.counted: tuple[int, ...] = ()
        #: By command: where it was applied, or 0; of those that clients have proposed.
        self._committed: dict[bytes, int] = {}
        self._outcomes: dict[int, tuple[str, str]] = {}
        self._sums: dict[int, tuple[str, str]] = {}
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._said: dict[int, int] = {}
        self._nothing: set[bytes] = set()

    def applied(self, name: str, index: int, term: int, commands: tuple[bytes, ...]) -> None:
        before = self.truth.setdefault(index, (term, commands))
        assert before == (term, commands), (
            f"{name} applies entry {index} of term {term}, elsewhere it is of term {before[0]}:"
            f" {_shown(commands)}, not {_shown(before[1])}"
        )
        for command in commands:
            if command not in self._committed:
                continue
            first = self._committed[command] = self._committed[command] or index
            assert first == index, f"entry {index} repeats entry {first}"
            assert command not in self._nothing, (
                f"entry {index}: it was said that it never happened"
            )

    def raised(self, members: Members) -> None:
        """A ledger came to the next version."""
        if not self.counted:
            self.seen["raised"] += 1
            self.counted = tuple(id for id in members.voters if id not in members.lost)

    def outcome(self, name: str, index: int, outcome: object) -> None:
        """What a ledger made of the entry at an index: after every one, for `content` is dear."""
        told = repr(outcome)
        other, expected = self._outcomes.setdefault(index, (name, told))
        assert told == expected, f"{name} makes {told} of entry {index}, and {other} {expected}"

    def content(self, name: str, index: int, checksum: str) -> None:
        """A ledger's, at an index."""
        other, expected = self._sums.setdefault(index, (name, checksum))
        assert checksum == expected, f"the ledgers of {name} and {other} differ at {index}"

    def sent(self, sender: int, messages: Sequence[bytes]) -> None:
        """Raft's messages, as they leave."""
        for message in messages:
            fields = dict(varints(message))
            kind, term = fields.get(_TYPE, 0), fields.get(_TERM, 0)
            if kind in _CANVASS:
                continue
            self._said[sender] = max(term, self._said.get(sender, 0))
            if kind == _VOTE and not fields.get(_REJECT):
                candidate = fields[_TO]
                chosen = self._votes.setdefault((sender, term), candidate)
                assert chosen == candidate, f"server {sender} votes twice in term {term}"

    def booted(self, id: int, term: int, vote: int) -> None:
        """What it knows is durable."""
        chosen = self._votes.get((id, term), vote)
        assert chosen == vote, f"server {id} voted for {chosen} in term {term}, and knows {vote}"
        said = self._said.get(id, 0)
        assert term >= said, f"server {id} spoke in term {said} and starts again in {term}"

    def look(self, replicas: Iterable[Watched]) -> None:
        for replica in replicas:
            if not replica.leader:
                continue
            if replica.term not in self._leaders:
                self._leaders[replica.term] = replica.id
                self.seen["elections"] += 1
                assert replica.id in replica.members.voters, f"{replica.id} leads, and is no voter"
            first = self._leaders[replica.term]
            assert first == replica.id, f"{first} and {replica.id} lead in term {replica.term}"

    def asked(self, commands: Sequence[bytes]) -> None:
        """They are proposed, and are to happen once at most."""
        for command in commands:
            self._committed.setdefault(command, 0)

    def answered(self, command: bytes) -> None:
        self.seen["answered"] += 1
        assert self._committed[command], "it was answered before it was applied"

    def refused(self, commands: Sequence[bytes], error: Exception) -> None:
        if isinstance(error, OutcomeUnknown):
            self.seen["unknown"] += 1
            return
        self.seen["nothing happened"] += 1
        self._nothing.update(commands)
        for command in commands:
            assert not self._committed[command], f"it happened, although: {error}"

    @property
    def last(self) -> int:
        """The highest index that anybody has applied."""
        return max(self.truth, default=0)


def varints(message: bytes) -> Iterator[tuple[int, int]]:
    """(field, value) of the plain numbers in an encoded message of Raft."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 0:
            yield key >> 3, value
        else:
            assert key & 7 == 2, "Raft's messages hold numbers and bytes only"
            at += value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _shown(commands: tuple[bytes, ...]) -> str:
    return f"{len(commands)} commands {[command[:60] for command in commands[:3]]}"
