"""What other servers may say and ask: members, those that are none any more, and those unknown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from grampus.consensus import peer_desk
from grampus.consensus.disk import Disk
from grampus.consensus.members import GIVEN_UP, LEFT_BEHIND, REMOVED, Members, NoMember
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.sender import _head
from grampus.consensus.trail import Trail
from grampus.errors import ProtocolError, Refused
from grampus.model.member import Member
from grampus.protocol import (
    PROTOCOL_VERSION,
    ClusterAsk,
    ClusterTold,
    Goodbye,
    Hello,
    Message,
    Propose,
    Proposed,
    PutSnapshot,
    RaftMessages,
    ReadIndex,
    ReadIndexed,
    Stamp,
    Stamped,
    TookSnapshot,
    Welcome,
)
from grampus.rpc.subject import Subject
from tests.looped import looped

A, B, C = (Member(id, name, "192.0.2.1", 8000, 9000 + id) for id, name in enumerate("abc", 1))
THREE = Members(conf=([1, 2, 3], [], [], [], False), known=(A, B, C))


def hello(member: Member, lane: str = "control", stamp: Stamp | None = None) -> Hello:
    return Hello(
        PROTOCOL_VERSION, lane, "server", member.name, "c1", "", "h1", member.id, member,
        stamp=stamp,
    )  # fmt: skip


def raft(sender: int, receiver: int = A.id) -> bytes:
    """A heartbeat, as far as anybody looks at it here."""
    return b"\x08\x08" + _head(sender, receiver)


class Incoming:
    def __init__(self) -> None:
        self.taken = 0

    async def take(self, manifest: bytes, offset: int, data: bytes, last: bool) -> bool:
        self.taken += 1
        return True


class Replica:
    """Leads, and writes down what gets to it."""

    term, peers, applied_index = 1, {}, 7

    def __init__(self) -> None:
        self.members = THREE
        self.incoming = Incoming()
        self.stepped: list[bytes] = []
        self.proposed: list[bytes] = []
        self.met: list[Member] = []
        self.confirmed = 0

    def step(self, messages: list[bytes]) -> None:
        self.stepped += messages

    def waits(self, peer: int, keen: bool) -> None:
        return

    def meet(self, member: Member) -> None:
        self.met.append(member)

    async def propose_here(self, commands: list[bytes]) -> list[object]:
        self.proposed += commands
        return []

    async def confirm(self) -> int:
        self.confirmed += 1
        return 5


class Steward:
    def __init__(self) -> None:
        self.asked: list[ClusterAsk] = []

    async def answer(self, asked: ClusterAsk) -> ClusterTold:
        self.asked.append(asked)
        return ClusterTold(b"")

    relay = answer


class Site:
    """The desk of server a."""

    def __init__(self, trail: Trail | None = None) -> None:
        self.replica = Replica()
        self.steward = Steward()
        fakes: list[Any] = [self.replica, self.steward]
        self.desk = PeerDesk(fakes[0], lambda _: b"", hello(A), fakes[1], trail=trail)

    @property
    def untouched(self) -> bool:
        replica = self.replica
        touched = (replica.stepped, replica.proposed, replica.confirmed, replica.incoming.taken)
        return not any(touched) and not self.steward.asked


def asks() -> list[Message]:
    """All that a server may ask of another."""
    actions = ("status", "remove", "replace", "transfer")
    return [
        Propose([b"command"]),
        ReadIndex(),
        PutSnapshot(b"manifest", 0, b"data", True, raft(B.id)),
        *(ClusterAsk(action, "c") for action in actions),
        ClusterAsk("admit", member=B),
        ClusterAsk("admit", member=C),
    ]


async def answer(site: Site, said: Hello, message: Message) -> Message | str:
    try:
        return await site.desk.request(said, message)
    except Refused as error:
        return str(error)


@looped
async def test_a_member_is_heard_and_answered() -> None:
    site, said = Site(), hello(B)
    site.desk.messages(said, [RaftMessages([raft(B.id), raft(B.id)])])
    assert len(site.replica.stepped) == 2
    answers = [await answer(site, said, message) for message in asks()]
    assert answers == [
        Proposed("done", b"", index=7), ReadIndexed(5), TookSnapshot(True), *[ClusterTold(b"")] * 6,
    ]  # fmt: skip


@pytest.mark.parametrize("why", [REMOVED, GIVEN_UP], ids=["removed", "given up"])
@looped
async def test_one_that_is_none_any_more_is_not_heard_over_its_old_connections(why: str) -> None:
    """Neither its votes and what it has written, nor its proposals, reads and snapshots."""
    site, said = Site(), hello(B)
    assert isinstance(site.desk.greet(said)[0], Welcome)
    site.replica.members = (
        replace(THREE, known=(A, C), removed=(B.id,))
        if why == REMOVED
        else replace(THREE, lost=(2,))
    )
    site.desk.messages(said, [RaftMessages([raft(B.id)]), Stamped(Stamp(1, 1))])
    answers = [await answer(site, said, message) for message in asks()]
    assert answers == [
        Proposed("not-leader", reason=why), ReadIndexed(0), TookSnapshot(False), *[why] * 6,
    ]  # fmt: skip
    assert site.untouched
    assert site.desk.outsider(said) == why
    assert site.desk.greet(said)[0] == Goodbye(why)


@looped
async def test_one_that_is_not_known_asks_to_be_admitted_and_for_nothing_else() -> None:
    new = Member(9, "d", "192.0.2.9", 1, 2)
    site, said = Site(), hello(new)
    assert isinstance(site.desk.greet(said)[0], Welcome)
    assert site.replica.met == [new]
    no = "server d is no member of this cluster: it has to be admitted first"
    other = [message for message in asks() if not isinstance(message, PutSnapshot)]
    answers = [await answer(site, said, message) for message in other]
    assert answers == [Proposed("not-leader", reason=no), ReadIndexed(0), *[no] * 6]
    assert site.untouched
    assert await answer(site, said, ClusterAsk("admit", member=new)) == ClusterTold(b"")
    for false in (replace(new, name="a"), replace(new, host="192.0.2.1"), replace(new, key="k")):
        told = await answer(site, said, ClusterAsk("admit", member=false))
        assert told == "who asks to be admitted is not who has said Hello"
    assert [asked.member for asked in site.steward.asked] == [new]
    # It may lead, having joined while this server was away.
    site.desk.messages(said, [RaftMessages([raft(new.id)])])
    piece = PutSnapshot(b"manifest", 0, b"data", True, raft(new.id))
    assert await answer(site, said, piece) == TookSnapshot(True)
    assert len(site.replica.stepped) == 2


@looped
async def test_a_server_speaks_for_itself_only() -> None:
    site, said = Site(), hello(B)
    for false in (raft(C.id), raft(A.id), raft(B.id, C.id), b"", b"\x08"):
        with pytest.raises(ProtocolError, match="server b says what is not from it"):
            site.desk.messages(said, [RaftMessages([raft(B.id), false])])
        with pytest.raises(ProtocolError, match="server b says what is not from it"):
            await site.desk.request(said, PutSnapshot(b"manifest", 0, b"", True, false))
    assert site.untouched


@looped
async def test_a_snapshot_counts_no_more_than_what_its_sender_says(tmp_path: Path) -> None:
    """Its folder may have been put back: until that is known, nothing of it is heard."""
    trail = Trail.begin(tmp_path, Disk(), lambda: 1)
    site, said = Site(trail), hello(B, stamp=Stamp(3, 3))
    piece = PutSnapshot(b"manifest", 0, b"data", True, raft(B.id))
    assert isinstance(site.desk.greet(said)[0], Welcome)
    assert await answer(site, said, piece) == TookSnapshot(False)
    assert site.untouched
    site.desk.messages(said, [Stamped(Stamp(3, 3))])
    await trail.write_down()
    assert trail.looked(B.id, Welcome(PROTOCOL_VERSION, "b", "c1"), hello(A))
    assert await answer(site, said, piece) == TookSnapshot(True)


@pytest.mark.parametrize("void", [True, False], ids=["was removed", "is a member"])
@looped
async def test_a_newer_history_counts_only_if_a_member_has_begun_it(void: bool) -> None:
    """Or who was removed could recover alone, and bring the others to an end."""
    left: list[NoMember] = []
    replica: Any = Replica()
    desk = PeerDesk(replica, lambda _: b"", replace(hello(A), age=1), left=left.append)
    if void:
        replica.members = replace(THREE, known=(A, C), removed=(B.id,))
    newer = replace(hello(B), history="h2", age=2)
    told, accepted, _ = desk.greet(newer)
    assert isinstance(told, Goodbye)
    assert (told.reason == REMOVED) is void
    assert [str(error) for error in left] == ([] if void else [LEFT_BEHIND])
    older = replace(newer, history="h0", age=0)
    told, _, _ = desk.greet(older)
    assert isinstance(told, Goodbye)
    assert told.reason == (REMOVED if void else LEFT_BEHIND)
    assert not accepted


def subject(name: str, key: str) -> Subject:
    return Subject("c1", "server", name, key)


@looped
async def test_with_tls_the_key_must_be_that_of_the_id() -> None:
    site = Site()
    keyed = replace(B, key="key-b")
    site.replica.members = replace(THREE, known=(A, keyed, C))
    assert isinstance(site.desk.greet(hello(keyed), subject("b", "key-b"))[0], Welcome)
    for said, shown in (
        (hello(keyed), subject("b", "key-x")),
        (hello(Member(9, "b", "192.0.2.9", 1, 2)), subject("b", "key-b")),
        (hello(replace(C, key="key-c")), subject("c", "key-b")),
        (hello(replace(C, key="key-x")), subject("c", "key-c")),
    ):
        told, accepted, _ = site.desk.greet(said, shown)
        assert isinstance(told, Goodbye)
        assert not accepted
    assert site.replica.met == [keyed]


class Line:
    """A connection that was greeted."""

    def __init__(self, greeting: Hello) -> None:
        self.greeting = greeting
        self.closes: list[str] = []

    def close(self, reason: str) -> None:
        self.closes.append(reason)


@looped
async def test_a_connection_of_one_that_left_is_closed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_desk, "FAREWELL", 0.0)
    site, fakes = Site(), [Line(hello(B)), Line(hello(C))]
    lines: list[Any] = [*fakes]
    assert [site.desk.leaves(line) for line in lines] == ["", ""]
    site.replica.members = replace(THREE, known=(A, C), removed=(B.id,))
    for _ in range(100):
        assert [site.desk.leaves(line) for line in lines] == [REMOVED, ""]
    while not fakes[0].closes:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert [fake.closes for fake in fakes] == [[REMOVED], []]
    site.desk.closed(lines[0])
    assert not site.desk._leaving
