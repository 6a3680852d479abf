"""Ground for tests of the worker: a real one, and a server that says what the test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from tls_nodes import CLUSTER, Nodes, now

from grampus.blobs import Blobs
from grampus.errors import Refused
from grampus.model.run import FINAL_ATTEMPT
from grampus.model.workflow import Action, Task
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    HELLO_FRAME,
    PROTOCOL_VERSION,
    Ack,
    Assign,
    BlobPiece,
    GetBlob,
    HasBlob,
    Hello,
    Invocation,
    Load,
    LogChunk,
    Message,
    PutBlob,
    ReadLog,
    Register,
    Registered,
    Renew,
    Renewed,
    Report,
    Reports,
    Synced,
    Welcome,
)
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import NodeTls
from grampus.worker.driver import Worker

RUN = "aaaaaaaaaaaa"
Peer = Connection[Message]


class FakeServer:
    """The other end of the protocol, without a ledger. It acknowledges final reports, if `acks`."""

    def __init__(self, blobs: Blobs, tasks: asyncio.TaskGroup, nodes: Nodes | None = None) -> None:
        self.blobs = blobs
        #: With certificates of these it speaks TLS, and renews them.
        self.nodes = nodes
        self.acks = True
        self.registrations: list[Register] = []
        self.session = 0
        self.reports: list[Report] = []
        #: How long ago it had happened, of the newest report of a number.
        self.ago: dict[int, int] = {}
        self.synced: list[Synced] = []
        self.loads: list[Load] = []
        self.control: Peer | None = None
        self.bulk: Peer | None = None
        self.asked: list[Message] = []
        self.changed = asyncio.Event()
        self.rpc: Server[Message] = Server(
            Codec(Message),
            self,
            self.greet,
            tasks,
            opened=self.opened,
            hello_limit=HELLO_FRAME,
            tls=NodeTls(nodes.server()) if nodes else None,
        )

    def greet(
        self, hello: Message, peer: str, subject: Subject | None
    ) -> tuple[Message, bool, int]:
        assert isinstance(hello, Hello)
        assert (hello.role, hello.node) == ("worker", "w1")
        if self.nodes:
            assert (hello.credential, subject and subject.name) == ("", "w1")
        else:
            assert (hello.credential, subject) == ("secret", None)
        limit = CONTROL_FRAME if hello.lane == "control" else BULK_FRAME
        return Welcome(PROTOCOL_VERSION, "n1", "c1"), True, limit

    def opened(self, connection: Peer) -> None:
        assert isinstance(connection.greeting, Hello)
        if connection.greeting.lane == "bulk":
            self.bulk = connection
            self.changed.set()

    def messages(self, connection: Peer, batch: list[Message]) -> None:
        for message in batch:
            match message:
                case Reports(reports):
                    self.reports += reports
                    self.ago |= {r.n: message.ago(r) for r in reports}
                    if self.acks:
                        done = [r.n for r in reports if r.state in FINAL_ATTEMPT]
                        connection.send(Ack(self.session, done, []))
                case Synced():
                    self.synced.append(message)
                case Load():
                    self.loads.append(message)
        self.changed.set()

    async def request(self, connection: Peer, message: Message) -> Message:
        self.asked.append(message)
        match message:
            case Register():
                if not self.registrations or self.registrations[-1].instance != message.instance:
                    self.session += 1
                self.registrations.append(message)
                self.control = connection
                self.changed.set()
                return Registered(self.session)
            case HasBlob(hash):
                return BlobPiece(self.blobs.size(hash))
            case GetBlob(hash, offset):
                size = self.blobs.size(hash)
                return BlobPiece(size, self.blobs.read(hash, offset, 1000) if size >= 0 else b"")
            case PutBlob(hash, offset, data, last):
                self.blobs.append(hash, offset, data, last)
                return BlobPiece(self.blobs.size(hash))
            case Renew(request):
                assert self.nodes is not None
                authority = self.nodes.folder("s1").authority()
                return Renewed(authority.issue(request, CLUSTER, "worker", "w1", [], now()))
        raise Refused("not asked of servers")

    def closed(self, connection: Peer, reason: str) -> None:
        self.changed.set()

    def send(self, message: Message) -> None:
        assert self.control is not None
        self.control.send(message)

    async def until(self, true: Callable[[], Any]) -> Any:
        async with asyncio.timeout(30):
            while not (found := true()):
                self.changed.clear()
                await self.changed.wait()
        return found

    async def final(self, n: int) -> Report:
        report = await self.until(
            lambda: next((r for r in self.reports if r.n == n and r.state in FINAL_ATTEMPT), None)
        )
        assert isinstance(report, Report)
        return report

    def assign(self, n: int, action: Action, **given: Any) -> None:
        bundle, inputs = given.pop("bundle", None), given.pop("inputs", {})
        params = json.dumps(given.pop("params", {})).encode()
        task = Task(name=f"t{n}", action=action, **given)
        invocation = Invocation(
            RUN, "flow", 1, task.name, 1, n, msgspec.json.encode(task), params, 0, "UTC", bundle,
            inputs,
        )  # fmt: skip
        self.send(Assign(self.session, n, invocation))

    async def log(self, n: int, stream: str = "stdout", offset: int = 0) -> LogChunk:
        await self.until(lambda: self.bulk is not None and not self.bulk.closed)
        assert self.bulk is not None
        question = ReadLog(self.session, n, RUN, f"t{n}", 1, stream, offset, 1 << 20)
        answer = await self.bulk.request(question, 10)
        assert isinstance(answer, LogChunk)
        return answer


class Scene:
    def __init__(self, server: FakeServer, worker: Worker, folder: Path) -> None:
        self.server, self.worker, self.folder = server, worker, folder

    def kill_warden(self) -> None:
        warden = self.worker._supervisor.warden
        assert warden is not None
        os.kill(warden.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def scene(
    folder: Path, slots: int = 2, nodes: Nodes | None = None, tls: NodeTls | None = None
) -> AsyncIterator[Scene]:
    """Leaves nothing running."""
    async with asyncio.TaskGroup() as tasks:
        server = FakeServer(Blobs(folder / "server-blobs"), tasks, nodes)
        await server.rpc.start("127.0.0.1", 0)
        worker = Worker(
            folder / "worker",
            name="w1",
            slots=slots,
            addresses=[("127.0.0.1", server.rpc.port)],
            blobs=Blobs(folder / "worker-blobs"),
            credential="" if tls else "secret",
            tls=tls,
        )
        running = tasks.create_task(worker.run())
        try:
            async with asyncio.timeout(30):
                await worker.registered.wait()
            yield Scene(server, worker, folder)
        finally:
            try:
                await worker.stop(500)
                async with asyncio.timeout(10):
                    await running
            finally:
                await server.rpc.close()


def play(folder: Path, story: Callable[[Scene], Awaitable[None]], slots: int = 2) -> None:
    async def main() -> None:
        async with scene(folder, slots) as made:
            await story(made)

    asyncio.run(main())
