"""A server that takes nothing: what is for it is dropped, within bounds, and the others go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from three_servers import OneServer, Three, play

from grampus.consensus import turns
from grampus.consensus.members import Members
from grampus.consensus.peers import Peers
from grampus.model.member import Member
from grampus.protocol import PROTOCOL_VERSION, Hello, Message, RaftMessages, Welcome
from grampus.rpc.codec import Codec, OneWay
from grampus.rpc.connection import Limits
from grampus.rpc.frames import frame
from tests.ports import free_ports

pytestmark = pytest.mark.raft

CODEC: Codec[Message] = Codec(Message)
#: Of a message here, and most that may wait: what the kernel takes, and what a connection keeps.
MESSAGE, KERNEL = 1024 * 1024, 16 * 1024 * 1024
#: Seconds that no call may take.
AT_ONCE = 0.5


class Sink:
    """A server that says Welcome, and reads what comes only while it may."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.reads = asyncio.Event()
        #: Bytes of messages of Raft that it has read.
        self.read = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._come, self.member.host, self.member.node_port, limit=64 * 1024
        )

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            await self._message(reader)
            welcome = Welcome(PROTOCOL_VERSION, self.member.name, "c1")
            writer.write(frame(CODEC.encode(OneWay(0, welcome))))
            while True:
                await self.reads.wait()
                envelope = CODEC.decode(await self._message(reader))
                assert isinstance(envelope, OneWay)
                assert isinstance(envelope.body, RaftMessages)
                self.read += sum(map(len, envelope.body.messages))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._server.close()
        await self._server.wait_closed()


@asynccontextmanager
async def two_sinks() -> AsyncIterator[tuple[Peers, Sink, Sink]]:
    """Connected to server 1."""
    members = [Member(n, f"s{n}", "127.0.0.1", 1, p) for n, p in enumerate(free_ports(3), 1)]
    sinks = [Sink(member) for member in members[1:]]
    for sink in sinks:
        await sink.start()
    async with asyncio.TaskGroup() as group:
        hello = Hello(PROTOCOL_VERSION, "control", "server", "s1", "c1", "", "h1", 1)
        peers = Peers(1, lambda lane: hello, lambda results: [], group)
        peers.know(Members(conf=([1, 2, 3], [], [], [], False), known=tuple(members)))
        await until(lambda: all(peers._links[n].bulk and peers.connected(n) for n in (2, 3)))
        try:
            yield peers, sinks[0], sinks[1]
        finally:
            peers.close()
            for sink in sinks:
                await sink.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110, of what nobody is told
            await asyncio.sleep(0.01)


def test_what_a_peer_does_not_take_is_dropped_and_the_other_one_gets_all() -> None:
    async def scene() -> None:
        async with two_sinks() as (peers, stuck, other):
            other.reads.set()
            message, sent = bytes(MESSAGE), {2: 0, 3: 0}
            for _ in range(64):
                for to in sent:
                    began = time.monotonic()
                    sent[to] += peers.send(to, [message])
                    assert time.monotonic() - began < AT_ONCE
                await until(lambda: other.read == sent[3] * MESSAGE)
            assert sent[3] == 64
            assert not peers.send(2, [message])
            # What the kernel has taken, and a MiB beyond the mark from which on nothing is sent.
            assert sent[2] * MESSAGE <= KERNEL + Limits().drain + MESSAGE
            assert stuck.read == 0
            bulk = peers._links[2].bulk
            assert bulk is not None
            transport = bulk._transport
            assert transport is not None
            assert transport.get_write_buffer_size() <= Limits().drain + 2 * MESSAGE
            # Heartbeats have a lane of their own.
            assert peers.send(2, [b"heartbeat"])
            assert peers.connected(2)
            stuck.reads.set()
            await until(lambda: stuck.read >= sent[2] * MESSAGE)
            assert peers.send(2, [message])
            await until(lambda: stuck.read >= (sent[2] + 1) * MESSAGE)

    asyncio.run(scene())


@asynccontextmanager
async def held(server: OneServer, what: str) -> AsyncIterator[None]:
    """Its disk, or its ledger, does nothing meanwhile."""
    let_go = threading.Event()
    thread = {"log": server.replica._log_thread, "ledger": server.replica._machine_thread}[what]
    thread.submit(let_go.wait)
    try:
        yield
    finally:
        let_go.set()


@pytest.mark.parametrize(
    ("what", "bound"), [("log", "INBOX"), ("ledger", "BACKLOG")], ids=["disk", "ledger"]
)
def test_a_follower_that_takes_in_no_more_holds_nobody_up_and_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, bound: str
) -> None:
    """Of what it hears it keeps a bounded part; the leader sends the rest again."""
    # More than one message of the leader may be.
    most = 2 * MESSAGE
    monkeypatch.setattr(turns, bound, most)
    # What is light would pass the ledger's thread by.
    monkeypatch.setattr("grampus.consensus.applier.Applier._apply_light", lambda self: None)

    async def scenario(ground: Three) -> None:
        leader, slow = await ground.leader(), (await ground.followers())[0]
        replica, largest = slow.replica, 0
        value = b"x" * 50_000
        async with held(slow, what):
            for number in range(200):
                began = time.monotonic()
                await leader.keys.put(b"/k/%d" % number, value)
                assert time.monotonic() - began < 5 * AT_ONCE
                waiting = replica._turns._inbox_bytes if what == "log" else replica.backlog
                largest = max(largest, waiting)
        # What has been taken in already is committed all the same.
        assert 0 < largest <= most + 3 * MESSAGE
        assert largest < 200 * len(value)
        index = leader.replica.applied_index
        await until(lambda: replica.applied_index >= index)
        assert (await leader.keys.get(b"/k/199")).item == slow.keys._reads.get(b"/k/199")[1]

    play(tmp_path, scenario)
