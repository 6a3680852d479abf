"""Strangers at both ports of a live node, while a run goes on."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from grampus.model.run import RunState
from grampus.protocol import PROTOCOL_VERSION, Hello, Message
from grampus.rpc.codec import Codec, OneWay
from grampus.rpc.frames import frame
from tests.acceptance.node import Ground, Node, until

WORK = """
workflow: work
tasks:
  a: {shell: "until test -e GO; do sleep 0.02; done; echo v=1 > $GRAMPUS_OUTPUT"}
  b: {shell: "echo {{ tasks.a.output.v }}", after: [a]}
"""
DEADLINE = 8.0


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def node(ground: Ground) -> Iterator[Node]:
    """A node with a run that ends well only when nothing disturbed it."""
    go = ground.folder / "go"
    with ground.up() as node, ground.client() as client:
        client.apply(ground.write("work.yaml", WORK.replace("GO", str(go))))
        one = ground.write("one.yaml", "workflow: one\ntasks: {a: {shell: 'true'}}\n")
        client.apply(one)
        run = client.submit("work").id
        until(lambda: client.run(run).counts.get("RUNNING"))
        yield node
        assert client.start("one", wait=True).state is RunState.SUCCEEDED
        go.touch()
        assert client.wait(run, timeout=20).state is RunState.SUCCEEDED
        assert all(len(task.attempts) == 1 for task in client.tasks(run))
        # Not one connection of the worker was lost over it.
        assert "control connection" not in node.said()
        until(lambda: len(os.listdir(f"/proc/{node.pid}/fd")) < 64)


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def answer(sock: socket.socket) -> bytes:
    """Everything until the other side closes; a time-out is a failure."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def hello(version: int = PROTOCOL_VERSION, credential: str = "wrong") -> bytes:
    greeting = Hello(version, "control", "worker", "a stranger", "", credential)
    return frame(Codec(Message).encode(OneWay(0, greeting)))


STRANGERS = {
    "token": (hello(), b"wrong credential"),
    "version": (hello(version=99), b"is not spoken here"),
    "2 GiB": (struct.pack(">I", 2**31) + b"x" * 1000, b""),
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    "noise": (random.Random(1).randbytes(5000), b""),
    "silence": (b"", b""),
}


def test_a_stranger_at_the_node_port_is_shown_out(node: Node) -> None:
    for who, (words, reply) in STRANGERS.items():
        with dial(node.node_port()) as sock:
            sock.sendall(words)
            said = answer(sock)
        assert reply in said, who
        assert len(said) < 200, who


def test_a_crowd_at_the_node_port_does_not_fill_the_log(node: Node) -> None:
    with ExitStack() as crowd:
        for _ in range(300):
            crowd.enter_context(dial(node.node_port()))
        time.sleep(0.2)
    assert len(node.said().splitlines()) < 50


def test_a_stream_of_noise_at_the_http_port_is_answered_or_ended(node: Node) -> None:
    host = b"Host: 127.0.0.1\r\n"
    words: list[Callable[[], bytes]] = [
        lambda: random.Random(2).randbytes(3000) + b"\r\n\r\n",
        lambda: b"\x16\x03\x01" + random.Random(3).randbytes(300) + b"\r\n\r\n",
        lambda: b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        lambda: b"POST /api/v1/runs HTTP/1.1\r\n" + host
        + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        lambda: b"POST /api/v1/runs HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n",
        lambda: b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    ]  # fmt: skip
    for word in words:
        with dial(node.port) as sock:
            try:
                sock.sendall(word())
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # It was shown out in the middle of its speech.
            assert b"HTTP/1.1 2" not in answer(sock)


def test_slow_clients_and_a_crowd_of_streams_are_in_nobodys_way(ground: Ground, node: Node) -> None:
    token = (ground.data / "token").read_text().strip()
    with ground.client() as client:
        (run,) = [run.id for run in client.runs(workflow="work")]
    head = (
        f"GET /api/v1/runs/{run}/events HTTP/1.1\r\nHost: 127.0.0.1:{node.port}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    with ExitStack() as crowd:
        for _ in range(60):
            crowd.enter_context(dial(node.port)).sendall(head[:-20])
        streams = [crowd.enter_context(dial(node.port)) for _ in range(300)]
        for stream in streams:
            stream.sendall(head)
        begun = [stream.recv(12) for stream in streams]
        assert set(begun) <= {b"HTTP/1.1 200", b"HTTP/1.1 429", b"HTTP/1.1 503"}
        assert begun.count(b"HTTP/1.1 200") > 100
        with ground.client() as client:
            start = time.monotonic()
            assert client.start("one", wait=True).state is RunState.SUCCEEDED
            assert time.monotonic() - start < 5
