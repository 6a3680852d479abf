"""Who belongs to the cluster: the voters and learners of Raft, and where each of them listens.

Rule: a change of members is one log entry. Raft's part says which ids, the entry's context says who
they are; both are applied together, so every server has the same list at the same index. An id is
random, made with its data folder, and never comes back once it was removed: its name may, under a
new id.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from grampus.errors import Refused
from grampus.model.member import Member

#: As Raft has it: voters, learners, outgoing voters, next learners, auto leave.
Conf = tuple[list[int], list[int], list[int], list[int], bool]
EMPTY: Conf = ([], [], [], [], False)
#: Removed ids that are remembered: a server that was removed is told so when it comes back.
REMEMBERED = 1000
#: Members in all.
MOST = 16
#: Why a server is refused for good.
REMOVED = "this server was removed from the cluster: empty its folder, and let it join anew"
GIVEN_UP = "this server was given up, and another takes its place: empty its folder"
LEFT_BEHIND = (
    "the cluster was recovered without this server, and has a history of its own since: empty this"
    " server's folder, and let it join anew"
)
FOR_GOOD = (REMOVED, GIVEN_UP, LEFT_BEHIND)


class NoMember(Refused):
    """This process is no member's, and will not become one's: it can only end."""


class MemberChange(Struct, frozen=True, array_like=True):
    """The context of a change of members: who comes, and whose name is to be replaced."""

    comes: tuple[Member, ...] = ()
    #: Members whose folder is lost: the next server of that name takes their place.
    lost: tuple[int, ...] = ()


class Members(Struct, frozen=True, array_like=True):
    """As of one index of the log."""

    conf: Conf = EMPTY
    known: tuple[Member, ...] = ()
    lost: tuple[int, ...] = ()
    #: The newest last.
    removed: tuple[int, ...] = ()
    #: Of those, where they had one.
    removed_keys: tuple[str, ...] = ()

    @property
    def voters(self) -> tuple[int, ...]:
        """Whose votes count, in a joint configuration those of both sides."""
        return tuple(dict.fromkeys([*self.conf[0], *self.conf[2]]))

    @property
    def learners(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys([*self.conf[1], *self.conf[3]]))

    @property
    def joint(self) -> bool:
        return bool(self.conf[2])

    def void(self, id: int) -> str:
        """Why the folder of that id is no server's any more; "" when it may be one's."""
        if id in self.removed:
            return REMOVED
        return GIVEN_UP if id in self.lost else ""

    def find(self, id: int) -> Member | None:
        return next((member for member in self.known if member.id == id), None)

    def named(self, name: str) -> tuple[Member, ...]:
        """More than one while a server is being replaced."""
        return tuple(member for member in self.known if member.name == name)

    def after(self, conf: Conf, change: MemberChange) -> Members:
        """These members once Raft has `conf` and the change is applied.

        Raft lists ids in an order of its own, which differs between servers: here it is theirs."""
        voters, learners, outgoing, following, leaves = conf
        conf = (sorted(voters), sorted(learners), sorted(outgoing), sorted(following), leaves)
        there = {id for ids in conf[:4] for id in ids}  # looked up, never iterated
        known = {member.id: member for member in (*self.known, *change.comes)}
        gone = tuple(id for id in known if id not in there and id not in self.removed)
        keys = tuple(known[id].key for id in gone if known[id].key)
        return Members(
            conf=conf,
            known=tuple(known[id] for id in sorted(known) if id in there),
            lost=tuple(id for id in dict.fromkeys((*self.lost, *change.lost)) if id in there),
            removed=(*self.removed, *gone)[-REMEMBERED:],
            removed_keys=(*self.removed_keys, *keys)[-REMEMBERED:],
        )

    def moved(self, member: Member) -> Members:
        """A member listens elsewhere now."""
        known = tuple(member if old.id == member.id else old for old in self.known)
        return replace(self, known=known)

    def encode(self) -> bytes:
        return _ENCODER.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Members:
        return _MEMBERS.decode(data) if data else cls()


_ENCODER = msgspec.msgpack.Encoder()
_MEMBERS = msgspec.msgpack.Decoder(Members)
_CHANGE = msgspec.msgpack.Decoder(MemberChange)


def encode_change(change: MemberChange) -> bytes:
    return _ENCODER.encode(change)


def decode_change(context: bytes) -> MemberChange:
    return _CHANGE.decode(context) if context else MemberChange()
