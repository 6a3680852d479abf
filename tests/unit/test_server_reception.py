"""Who may speak at the node port, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.cluster.admission import Admission
from grampus.cluster.join_token import secret_hash
from grampus.cluster.requests import Seen
from grampus.consensus.members import Members
from grampus.consensus.peer_desk import PeerDesk
from grampus.errors import Refused
from grampus.protocol import (
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    KeysAsk,
    KeysTold,
    Message,
    Reports,
    Welcome,
)
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


def a_reception(workers: dict[str, str], replica: Replica) -> Any:
    nobody: Any = None
    admission = Admission("c", workers.get, encrypted=False, server_secret="secret")
    fakes: list[Any] = [replica, Room()]
    peers = PeerDesk(fakes[0], lambda answers: b"", ME)
    return Reception("s1", "c", admission, fakes[1], nobody, peers, nobody, nobody, fakes[1])


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


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (hello("server", "s2", "secret", "h1", 2), "history of its own"),
        (hello("server", "s3", "secret", "h2", 3), "was removed"),
    ],
    ids=["of the lost majority", "removed"],
)
def test_a_server_that_is_none_any_more_gets_no_keys_either(said: Hello, why: str) -> None:
    replica = Replica()
    replica.members = Members(removed=(3,))
    answer, accepted, _ = a_reception({}, replica).greet(said, "?", None)
    assert isinstance(answer, Goodbye)
    assert why in answer.reason
    assert not accepted


def test_a_server_is_let_in_by_itself() -> None:
    answer, accepted, _ = a_reception({}, Replica()).greet(ME, "?", None)
    assert isinstance(answer, Welcome)
    assert (answer.history, answer.revision) == ("h2", 2**32)
    assert accepted
