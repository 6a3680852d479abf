"""A worker that knows nothing of Grampus but docs/protocol.md: sockets, lengths and msgpack arrays.

What is spelled here is spelled as the page has it. When this fails, either the page is wrong, or
workers in other languages no longer understand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from grampus.model.run import RunState
from tests.acceptance.cluster import Site, site

pytestmark = pytest.mark.raft
NAME = "by-hand"
#: Kinds of envelopes.
ONE_WAY, REQUEST, RESPONSE = 0, 1, 2
FLOW = """workflow: flow
tasks:
  first: {shell: "echo {{ params.who }}"}
params: {who: {type: str, default: you}}
"""


class Line:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.settimeout(10)
        self._asked = 0
        #: One-way messages that came before an answer.
        self.heard: list[list[Any]] = []

    def close(self) -> None:
        self._socket.close()

    def say(self, *message: Any) -> None:
        self._send([ONE_WAY, 0, list(message)])

    def ask(self, *message: Any) -> list[Any]:
        """The answer, which is no error."""
        self._asked += 1
        self._send([REQUEST, self._asked, list(message)])
        while True:
            kind, number, body = self._read()
            if kind != ONE_WAY:
                assert (kind, number) == (RESPONSE, self._asked), body
                answer: list[Any] = body
                return answer
            self.heard.append(body)

    def hear(self, tag: str) -> list[Any]:
        """The next one-way message with that tag."""
        while True:
            for message in self.heard:
                if message[0] == tag:
                    self.heard.remove(message)
                    return message
            kind, _, body = self._read()
            assert kind == ONE_WAY, body
            self.heard.append(body)

    def _send(self, envelope: list[Any]) -> None:
        payload = msgspec.msgpack.encode(envelope)
        self._socket.sendall(struct.pack(">I", len(payload)) + payload)

    def _read(self) -> list[Any]:
        (length,) = struct.unpack(">I", self._exactly(4))
        envelope: list[Any] = msgspec.msgpack.decode(self._exactly(length))
        return envelope

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            assert piece, "the other side has closed"
            data += piece
        return data


class Stranger:
    """Has joined, and may say Hello."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        head, authority, self._id, self._secret = token.strip().split(".")
        assert (head, authority) == ("grampus-join", "plain")
        self.credential = base64.b32encode(secrets.token_bytes(33)).decode().lower()[:52]
        with closing(Line(port)) as line:
            line.say("hello", 1, "control", "join", NAME, "", "")
            assert line.hear("welcome")[1] == 1
            key = hashlib.sha256(b"grampus-secret\0" + self.credential.encode()).hexdigest()
            joined = line.ask(
                "join", 1, self._id, self._secret, "worker", NAME, "", [], b"", key
            )  # fmt: skip
            self.cluster = joined[1]

    def line(self, lane: str) -> Line:
        line = Line(self._port)
        line.say("hello", 1, lane, "worker", NAME, self.cluster, self.credential)
        assert line.hear("welcome")[3] == self.cluster
        return line


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, "a") as made:
        made.found()
        yield made


@pytest.fixture
def stranger(ground: Site) -> Stranger:
    return Stranger(ground.ports["a"] + 1, Path(ground.token("worker")).read_text())


def test_a_task_is_run_and_reported(ground: Site, stranger: Stranger) -> None:
    with closing(stranger.line("control")) as line, ground.client() as client:
        session = line.ask(
            "register", NAME, secrets.token_hex(16), "machine-1", "boot-1", "default", 2, 4711,
            "none", True, secrets.token_hex(16), True,
        )[1]  # fmt: skip
        _, whose, revision, next_n, live, _stop = line.hear("sync")
        assert (whose, next_n, live) == (session, 1, [])
        line.say("synced", session, revision, [], [])
        line.say("load", session, 3, 2**30)
        client.apply(ground.write("flow.yaml", FLOW))
        run = client.start("flow", {"who": "me"}).id
        _, whose, n, invocation = line.hear("assign")
        assert (whose, n) == (session, 1)
        id, workflow, version, task, attempt, fencing_token, spec, params, *_ = invocation
        assert (id, workflow, version, task, attempt) == (run, "flow", 1, "first", 1)
        assert fencing_token > 0
        assert "echo" in json.dumps(json.loads(spec))
        assert json.loads(params) == {"who": "me"}
        assert line.ask("ping", session) == ["pong"]
        result = b'{"said": "me"}'
        output = ["json", result, None, len(result)]
        for state, exit, value in (("RUNNING", None, None), ("SUCCEEDED", 0, output)):
            now = time.time_ns() // 1_000_000
            line.say("report", session, n, state, now, exit, "", [], value, 3, 0)
        while n not in line.hear("ack")[2]:
            pass
        assert client.wait(run, timeout=20).state is RunState.SUCCEEDED
        assert client.result(run, "first") == {"said": "me"}
        assert [w.name for w in client.workers() if w.connected] == [NAME]
        assert line.ask("leave", session) == ["left"]


def test_keys_are_put_watched_and_held(ground: Site, stranger: Stranger) -> None:
    with closing(stranger.line("keys")) as line, ground.client() as client:

        def ask(*question: Any) -> list[Any]:
            tag, body = line.ask("keys-ask", msgspec.msgpack.encode(question))
            assert tag == "keys-told"
            answer: list[Any] = msgspec.msgpack.decode(body)
            return answer

        tag, first = ask("put", b"/w/a", b"1")
        assert tag == "written"
        assert client.kv.get("/w/a").mod_revision == first
        found = ask("get", b"/w/a")
        assert found[2] == [[b"/w/a", b"1", first, first, 1, 0]]
        compare, put = [b"/w/a", "version", "=", 1], ["put", b"/w/b", b"2", False]
        _, second, held, results = ask("txn", [compare], [put, ["get", b"/w/", b"/w0", 10]])
        assert held is True
        assert [result[0] for result in results] == ["written", "got"]
        _, session = ask("open-session", secrets.token_hex(16), NAME, 10_000)
        assert ask("keep-alive", session) == ["done"]
        # Under one number it happens once.
        once = ("put", b"/w/mine", b"3", [session, 1, 0], True)
        third = ask(*once)
        assert ask(*once) == third
        _, until, facts = ask("changes", b"/w/", first, 1_000)
        assert until >= third[1]
        assert [fact[0] for fact in facts] == [first, second, third[1]]
        assert ask("close-session", session) == ["done"]
        assert ask("get", b"/w/mine")[2] == []
        assert ask("put", b"/w/late", b"", [session, 2, 0], True)[:2] == [
            "failed",
            "session-unknown",
        ]
        assert ask("put", b"k" * 513, b"")[:2] == ["failed", "too-large"]
        history, servers, leader = ask("servers")[1:]
        assert history
        assert servers == [leader] == [f"127.0.0.1:{ground.ports['a'] + 1}"]
