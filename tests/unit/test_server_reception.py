"""Who may speak at the node port, and for how long."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from grampus.cluster.admission import Admission
from grampus.cluster.join_token import secret_hash
from grampus.cluster.lines import _accept
from grampus.cluster.requests import Seen
from grampus.consensus.members import Members
from grampus.consensus.peer_desk import PeerDesk
from grampus.errors import (
    GrampusError,
    Refused,
    ServerUnreachable,
    Unauthorized,
    VersionMismatch,
    WrongCluster,
    WrongHistory,
)
from grampus.model.member import Member
from grampus.protocol import (
    PROTOCOL_VERSION,
    Goodbye,
    HasBlob,
    Hello,
    KeysAsk,
    KeysTold,
    Message,
    ReadLog,
    Reports,
    Welcome,
)
from grampus.rpc.subject import Subject
from grampus.server import reception as module
from grampus.server.reception import Reception
from tests.looped import looped


class Room:
    """Answers everything."""

    seen = Seen("h2", 2**32)

    def take(self, connection: Any, number: int, message: Message) -> bool:
        return True

    async def request(self, connection: Any, message: Message) -> Message:
        return KeysTold(b"")

    def closed(self, connection: Any, reason: str) -> None:
        return


class Replica:
    term, peers = 1, {}

    def __init__(self) -> None:
        self.members = Members()


class Line:
    subject = None

    def __init__(self, hello: Hello) -> None:
        self.greeting = hello
        self.sent: list[Message] = []
        self.reason = ""

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def close(self, reason: str) -> None:
        self.reason = reason


def hello(
    role: str, name: str, credential: str, history: str = "", id: int = 0, lane: str = "keys"
) -> Hello:
    return Hello(PROTOCOL_VERSION, lane, role, name, "c", credential, history, id)


ME = hello("server", "s1", "secret", "h2", 1)


ONE, OTHER = (Member(id, f"s{id}", "192.0.2.1", 1, 2) for id in (1, 2))
TWO = Members(known=(ONE, OTHER))


def a_reception(
    workers: dict[str, str], replica: Replica, admission: Admission | None = None
) -> Any:
    nobody: Any = None
    admission = admission or Admission("c", workers.get, encrypted=False, server_secret="secret")
    fakes: list[Any] = [replica, Room()]
    peers = PeerDesk(fakes[0], lambda answers: b"", ME)
    return Reception("s1", "c", admission, fakes[1], nobody, peers, nobody, nobody, fakes[1])


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (replace(hello("worker", "w1", "mine"), version=PROTOCOL_VERSION + 2), VersionMismatch),
        (replace(hello("worker", "w1", "mine"), cluster="d"), WrongCluster),
        (hello("worker", "w1", "guessed"), Unauthorized),
        (hello("server", "s2", "guessed", "h2", 2), Unauthorized),
        (hello("server", "s2", "secret", "h1", 2), WrongHistory),
        (hello("server", "s2", "secret", "h1", 2, lane="control"), WrongHistory),
        (hello("server", "s2", "secret", "h2", 1, lane="control"), Refused),
    ],
)
@looped
async def test_who_is_not_let_in_hears_why_as_an_error(said: Hello, error: type[Refused]) -> None:
    reception = a_reception({"w1": secret_hash("mine")}, Replica())
    answer, accepted, _ = reception.greet(said, "192.0.2.1:1", None)
    assert isinstance(answer, Goodbye)
    assert not accepted
    with pytest.raises(GrampusError, match=re.escape(answer.reason)) as heard:
        _accept(answer)
    assert type(heard.value) is (ServerUnreachable if error is Refused else error)
    assert type(answer.error("it refuses this server")) is error


@pytest.mark.parametrize("lane", ["control", "bulk", "keys"])
@looped
async def test_a_worker_that_was_removed_is_not_heard_on_whatever_it_says(lane: str) -> None:
    workers = {"w1": secret_hash("mine")}
    reception = a_reception(workers, Replica())
    line = Line(hello("worker", "w1", "mine", lane=lane))
    assert isinstance(await reception.request(line, KeysAsk(b"")), KeysTold)
    assert reception.take(line, 1, KeysAsk(b"")) is (lane == "keys")  # looked at a moment ago
    del workers["w1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOOK", 0.0)
        assert not reception.take(line, 2, KeysAsk(b""))
        with pytest.raises(Refused, match="was removed"):
            await reception.request(line, KeysAsk(b""))
        reception.messages(line, [Reports([])])  # nobody hears it
    assert "was removed" in line.reason
    assert isinstance(line.sent[0], Goodbye)
    reception.closed(line, line.reason)
    assert not reception._looked


@looped
async def test_a_server_that_was_removed_is_not_heard_from_that_moment_on() -> None:
    """Neither what it asks about keys, nor its keep-alives: it is not looked at now and then."""
    replica = Replica()
    replica.members = TWO
    reception = a_reception({}, replica)
    line = Line(hello("server", "s2", "secret", "h2", 2))
    assert reception.take(line, 1, KeysAsk(b""))
    replica.members = Members(known=(ONE,), removed=(2,))
    assert not reception.take(line, 2, KeysAsk(b""))
    with pytest.raises(Refused, match="was removed"):
        await reception.request(line, KeysAsk(b""))
    assert "was removed" in line.reason
    assert isinstance(line.sent[0], Goodbye)


@pytest.mark.parametrize("asked", [HasBlob("x"), ReadLog(1, 1, "r", "t", 1, "stdout", 0, 1)])
@pytest.mark.parametrize(
    ("id", "why"), [(3, "was removed"), (9, "no member of this cluster")], ids=["removed", "new"]
)
@looped
async def test_who_is_no_member_gets_no_blob_and_no_log(id: int, why: str, asked: Message) -> None:
    replica = Replica()
    replica.members = Members(known=(ONE,), removed=(3,))
    line = Line(hello("server", f"s{id}", "secret", "h2", id, "control"))
    with pytest.raises(Refused, match=why):
        await a_reception({}, replica).request(line, asked)


ENCRYPTED = Members(
    known=(
        Member(1, "s1", "192.0.2.1", 1, 2, "key-1"),
        Member(2, "s2", "192.0.2.2", 1, 2, "key-2"),
    ),
    removed=(3,),
    removed_keys=("key-3",),
)
CERTIFICATES = [
    ("server", "s3", 3, "was removed"),
    ("server", "s3", 9, "was removed"),
    ("server", "s3", 0, "was removed"),
    ("server", "s2", 2, "the certificate is for server s3"),
    ("server", "s9", 9, "the certificate is for server s3"),
    ("worker", "s3", 0, "the certificate is for server s3"),
    ("worker", "w1", 0, "the certificate is for server s3"),
]


@pytest.mark.parametrize("lane", ["control", "bulk", "keys"])
@pytest.mark.parametrize(("role", "name", "id", "why"), CERTIFICATES)
def test_with_the_certificate_of_a_removed_server_nobody_comes_in(
    role: str, name: str, id: int, why: str, lane: str
) -> None:
    """Under whatever id, name and role, and on no lane."""
    said = hello(role, name, "", "h2", id, lane)
    told, accepted, _ = encrypted().greet(said, "?", Subject("c", "server", "s3", "key-3"))
    assert isinstance(told, Goodbye)
    assert why in told.reason
    assert not accepted


@pytest.mark.parametrize("lane", ["control", "bulk", "keys"])
@pytest.mark.parametrize(
    ("said", "key", "why"),
    [
        (("server", "s2", 2), "key-9", "known by another key"),
        (("server", "s2", 1), "key-2", "which has another id"),
        (("server", "s2", 9), "key-2", "which has another id"),
    ],
)
def test_a_certificate_of_a_member_s_name_is_not_the_member(
    said: tuple[str, str, int], key: str, why: str, lane: str
) -> None:
    role, name, id = said
    shown = Subject("c", "server", name, key)
    told, accepted, _ = encrypted().greet(hello(role, name, "", "h2", id, lane), "?", shown)
    assert isinstance(told, Goodbye)
    assert why in told.reason
    assert not accepted


def test_a_newcomer_has_no_keys_before_it_is_a_member() -> None:
    shown = Subject("c", "server", "s9", "key-9")
    told, accepted, _ = encrypted().greet(hello("server", "s9", "", "h2", 9), "?", shown)
    assert isinstance(told, Goodbye)
    assert "no member of this cluster" in told.reason
    assert not accepted
    # It may ask to be admitted.
    control = hello("server", "s9", "", "h2", 9, "control")
    assert isinstance(encrypted().greet(control, "?", shown)[0], Welcome)


def encrypted() -> Reception:
    replica = Replica()
    replica.members = ENCRYPTED
    return a_reception({}, replica, Admission("c", {"w1": "key-w1"}.get, encrypted=True))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (hello("server", "s2", "secret", "h1", 2), "history of its own"),
        (hello("server", "s3", "secret", "h2", 3), "was removed"),
        (hello("server", "s4", "secret", "h2", 4), "no member of this cluster"),
        (hello("server", "s4", "secret", "h2", 0), "no member of this cluster"),
        (hello("server", "s3", "secret", "h2", 2), "the id is that of server s2"),
    ],
    ids=["of the lost majority", "removed", "unknown", "without an id", "another's id"],
)
def test_a_server_that_is_none_any_more_gets_no_keys_either(said: Hello, why: str) -> None:
    replica = Replica()
    replica.members = Members(known=TWO.known, removed=(3,))
    answer, accepted, _ = a_reception({}, replica).greet(said, "?", None)
    assert isinstance(answer, Goodbye)
    assert why in answer.reason
    assert not accepted


def test_a_server_is_let_in_by_itself() -> None:
    answer, accepted, _ = a_reception({}, Replica()).greet(ME, "?", None)
    assert isinstance(answer, Welcome)
    assert (answer.history, answer.revision) == ("h2", 2**32)
    assert accepted


def test_one_credential_does_not_take_all_connections() -> None:
    workers = {name: secret_hash("mine") for name in ("w1", "w2")}
    reception = a_reception(workers, Replica())
    said = hello("worker", "w1", "mine")
    lines = [Line(said) for _ in range(module.MOST_OF_ONE)]
    for line in lines:
        assert reception.greet(said, "?", None)[1]
        reception.opened(line)
    answer, accepted, _ = reception.greet(said, "?", None)
    assert not accepted
    assert answer == Goodbye("worker w1 has 512 connections to this server already: close some")
    assert reception.greet(hello("worker", "w2", "mine"), "?", None)[1]
    for line in lines:
        reception.closed(line, "over")
    assert reception.greet(said, "?", None)[1]
    assert not +reception._present
