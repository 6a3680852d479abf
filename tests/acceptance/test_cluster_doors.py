"""Who comes to the ports of a server and is not wanted: joiners with bad tokens, and noise."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grampus.errors import NotFound
from grampus.protocol import PROTOCOL_VERSION, Hello, Message
from grampus.rpc.codec import Codec, OneWay
from grampus.rpc.frames import frame
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import Node, until

pytestmark = pytest.mark.raft


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two servers of a cluster; the third address is for those who try to join."""
    with site(tmp_path_factory.mktemp("doors")) as made:
        made.found("a")
        made.join("b").ready()
        yield made


def ended(node: Node) -> tuple[int, str]:
    code, said = node.ended()
    node.kill()
    assert "Traceback" not in said
    return code, said


def test_join_tokens_that_are_no_good_are_refused_with_the_reason(
    ground: Site, tmp_path: Path
) -> None:
    used = next(ground.folder.glob("join-*"))
    with ground.client() as client:
        head, _, secret = used.read_text().rpartition(".")
        wrong = f"{head}.{secret[::-1]}"
        short = client.join_token("server", life=1_000)
        other = client.join_token("server", name="somebody")
        worker = client.join_token("worker")
        taken_back = client.join_token("server")
        client.revoke_token(taken_back.token.split(".")[2])
        with pytest.raises(NotFound):
            client.revoke_token("abcdefghijkl")
    texts = {
        "no join token": "nonsense",
        "not known here": wrong,
        "was used by b": used.read_text(),
        "has expired": short.token,
        "is for somebody only": other.token,
        "is for a worker": worker.token,
        "or has been removed": taken_back.token,
    }
    refusals = {}
    for number, (said, text) in enumerate(texts.items()):
        file = tmp_path / str(number)
        file.write_text(text)
        command = ["--join", ground.address("a"), "--token-file", str(file)]
        node = ground.launch("c", *command, log=f"c{number}.log", folder=tmp_path / f"c{number}")
        refusals[said] = node
        ground.servers.pop("c")
    for said, (code, told) in {said: ended(node) for said, node in refusals.items()}.items():
        assert code in (2, 4), told
        assert said in told.splitlines()[-1], told
    with ground.client() as client:
        states = {line.id: line for line in client.join_tokens()}
        assert states[used.name[5:]].used_by == "b"
        assert states[short.token.split(".")[2]].used is None
        assert taken_back.token.split(".")[2] not in states
        assert [m.name for m in client.cluster().members] == ["a", "b"]


def test_a_worker_that_was_removed_is_sent_away_and_not_let_in_again(ground: Site) -> None:
    worker = ground.worker("w1")
    with ground.client() as client:
        assert [w.name for w in client.workers() if w.connected] == ["w1"]
        client.remove_worker("w1")
        until(lambda: not any(w.connected for w in client.workers()))
        until(lambda: "it was removed" in worker.said())
        with pytest.raises(NotFound):
            client.remove_worker("w1")


def test_noise_at_every_port_disturbs_nobody(ground: Site) -> None:
    hello = Hello(PROTOCOL_VERSION, "control", "server", "b", "", "wrong credential", "", 1)
    noises = [
        frame(Codec(Message).encode(OneWay(0, hello))),
        b"GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack(">I", 2**31) + b"x" * 1000,
        b"",
        *(random.Random(n).randbytes(4000) for n in range(20)),
    ]
    before = {name: open_files(ground.servers[name]) for name in "ab"}
    for name in "ab":
        for port in (ground.ports[name], ground.ports[name] + 1):
            for noise in noises:
                with socket.create_connection(("127.0.0.1", port), 5) as sock:
                    sock.settimeout(10)
                    with suppress(ConnectionError):
                        sock.sendall(noise)
                        sock.shutdown(socket.SHUT_WR)
                        answer = sock.recv(65536)
                        assert b"HTTP/1.1 2" not in answer
                        assert b"welcome" not in answer
    with ground.client() as client:
        client.kv.put("/still", "here")
        assert client.cluster().leader == "a"
        assert not any(m.complaint for m in client.cluster().members)
    for name in "ab":
        until(lambda name=name: open_files(ground.servers[name]) <= before[name] + 8)
        assert "Traceback" not in ground.servers[name].said()


def open_files(node: Node) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))
