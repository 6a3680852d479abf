"""An API over a real log, ledger and blob folder; what a master and a worker would do is played."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from fastapi import FastAPI

from grampus.adapters import Explainer
from grampus.api.app import create_app
from grampus.api.blob_files import BlobFiles
from grampus.api.ports import Ports, WorkerLoad
from grampus.api.server import ApiServer
from grampus.api.wakes import Wakes
from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.cluster_face import LoneCluster, Snapshots
from grampus.consensus.folder import Identity
from grampus.consensus.solo import SoloLog
from grampus.errors import NoQuorum
from grampus.ids import run_id
from grampus.ledger import Ledger
from grampus.master.timekeeper import Timekeeper
from grampus.model.run import AttemptState, Value
from grampus.protocol import LogChunk, ReadLog
from grampus.relay import ClockDoubt, NoRelay
from grampus.runs.commands import OpenSession, ReportAttempt, StartAttempts, TakeOffice
from grampus.runs.events import Event
from grampus.runs.proposer import Proposer
from grampus.runs.reads import Reads

TOKEN = "correct-horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TOKEN_FILE = "/state/token"
#: No test waits longer than this for anything, in seconds.
PATIENCE = 10.0


@dataclass
class Written:
    """What an attempt wrote to one stream so far."""

    data: bytes = b""
    ended: bool = False
    #: Bytes before `begins` were cut.
    begins: int = 0


@dataclass
class Shelf:
    """The logs of all workers, by (task, attempt, stream)."""

    logs: dict[tuple[str, int, str], Written] = field(default_factory=dict)
    #: What stands in the way of every read.
    fault: Exception | None = None
    #: At most so many bytes at once, so that characters are cut.
    piece: int = 5

    def write(
        self, task: str, text: str | bytes, *, stream: str = "stdout", attempt: int = 1
    ) -> None:
        log = self.logs.setdefault((task, attempt, stream), Written())
        log.data += text.encode() if isinstance(text, str) else text

    def end(self, task: str, attempt: int = 1) -> None:
        for stream in ("stdout", "stderr"):
            self.logs.setdefault((task, attempt, stream), Written()).ended = True

    async def read(self, asked: ReadLog) -> LogChunk:
        if self.fault:
            raise self.fault
        log = self.logs.get((asked.task, asked.attempt, asked.stream), Written())
        start = max(asked.offset, log.begins)
        data = log.data[start : start + min(asked.limit, self.piece)]
        end = log.ended and start + len(data) >= len(log.data)
        return LogChunk(start, data, end, start - asked.offset)


class Standing:
    """The node's status, as the test sets it."""

    def __init__(self, log: SoloLog) -> None:
        self._log = log
        self.reason = ""
        #: It hears no majority any more.
        self.cut_off = False
        self.loads: dict[int, WorkerLoad] = {}

    def waiting_for(self) -> str:
        return self.reason

    def applied_index(self) -> int:
        return self._log.applied_index

    def proposals_in_flight(self) -> int:
        return self._log.in_flight

    def connected(self) -> Mapping[int, WorkerLoad]:
        return self.loads

    async def barrier(self) -> None:
        if self.cut_off:
            raise NoQuorum("no server leads")
        await self._log.read_barrier()

    async def presence(self) -> Mapping[int, WorkerLoad]:
        return self.loads


class Entropy:
    """Random bytes that are not: 1, 2, 3, ..."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(4, "little").ljust(size, b"\0")[:size]


@dataclass
class Node:
    app: FastAPI
    client: httpx.AsyncClient
    proposer: Proposer
    reads: Reads
    wakes: Wakes
    shelf: Shelf
    status: Standing
    blobs: Blobs
    folder: Path
    epoch: int = 0
    session: int = 0

    async def apply(self, definition: dict[str, Any]) -> dict[str, Any]:
        answer = await self.client.post("/api/v1/workflows", json={"definition": definition})
        assert answer.status_code == 200, answer.text
        applied: dict[str, Any] = answer.json()
        return applied

    async def start(self, workflow: str, **body: Any) -> str:
        answer = await self.client.post("/api/v1/runs", json={"workflow": workflow, **body})
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["id"]
        return id

    async def staff(self) -> None:
        """A master takes office and a worker registers."""
        self.epoch, self.session = await self.proposer.propose(  # type: ignore[assignment]
            TakeOffice(1, "n1", 1), OpenSession(1, "w1", "i1", "m1", "b1", True, "default", 8)
        )

    async def begin(self, run: str, index: int = 0, attempt: int = 1) -> int:
        """Starts one attempt; its number."""
        at = SystemClock().now() + 3_600_000
        (numbers,) = await self.proposer.propose(
            StartAttempts(at, self.epoch, self.session, run, [(index, attempt)])
        )
        assert isinstance(numbers, list), numbers
        return int(numbers[0])

    async def finish(
        self, n: int, state: AttemptState = AttemptState.SUCCEEDED, *, output: Value | None = None,
        stdout: int = 0, stderr: int = 0,
    ) -> None:  # fmt: skip
        now = SystemClock().now() + 3_600_000
        (answer,) = await self.proposer.propose(
            ReportAttempt(now, self.session, n, state, now, 0, "", (), output, stdout, stderr)
        )
        assert answer == "done", answer


def alone(log: SoloLog, snapshots: Snapshots) -> LoneCluster:
    identity = Identity("c1", "h1", "n1", "machine", "place")
    return LoneCluster("n1", "127.0.0.1:8470", identity, log, lambda: 1, snapshots)


@asynccontextmanager
async def a_node(folder: Path) -> AsyncIterator[Node]:
    for part in ("ledger", "log"):
        (folder / part).mkdir()
    ledger = Ledger(folder / "ledger" / "ledger.db")
    log = await SoloLog.open(folder / "log", ledger)
    proposer, reads, wakes = Proposer(log), Reads(folder / "ledger" / "ledger.db"), Wakes()

    def wake(index: int, events: Any) -> None:
        for event in events:
            if isinstance(event, Event):
                wakes.wake(event.run)

    log.subscribe(wake)
    key_reads = KeyReads(folder / "ledger" / "ledger.db")
    keys = ClusterServer(log, key_reads, SystemClock(), "h1", os.urandom)
    shelf, status, blobs = Shelf(), Standing(log), Blobs(folder / "blobs")
    clock = Timekeeper(SystemClock())
    ports = Ports(
        explain=Explainer(reads, lambda: None, shelf.read, clock),
        propose=proposer.propose,
        reads=reads,
        blobs=BlobFiles(blobs),
        read_log=shelf.read,
        status=status,
        presence=status.presence,
        clock=clock,
        clock_doubt=ClockDoubt(lambda: True, clock, NoRelay()),
        entropy=Entropy(),
        cluster=alone(log, Snapshots(folder / "snapshots", ledger.snapshot, blobs)),
        keys=keys,
        keep_alive=keys.keep_alive,
        barrier=status.barrier,
    )
    app = create_app(ports, wakes, token=TOKEN, listen="127.0.0.1", token_file=TOKEN_FILE)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8470", headers=BEARER
        ) as client:
            yield Node(app, client, proposer, reads, wakes, shelf, status, blobs, folder)
    finally:
        reads.close()
        key_reads.close()
        await log.close()
        ledger.close()


def play(folder: Path, scenario: Callable[[Node], Awaitable[None]]) -> None:
    """Runs the scenario against a node of its own; the application is called directly."""

    async def go() -> None:
        async with a_node(folder) as node:
            await asyncio.wait_for(scenario(node), PATIENCE)

    asyncio.run(go())


def play_live(folder: Path, scenario: Callable[[Node, httpx.AsyncClient], Awaitable[None]]) -> None:
    """As `play`, over a real socket: for streams."""

    async def go() -> None:
        async with a_node(folder) as node, asyncio.TaskGroup() as tasks:
            server = ApiServer(node.app, "127.0.0.1", 0)
            await server.start()
            tasks.create_task(server.run())
            try:
                async with httpx.AsyncClient(base_url=server.url, headers=BEARER) as client:
                    await asyncio.wait_for(scenario(node, client), PATIENCE)
            finally:
                await asyncio.wait_for(server.stop(), PATIENCE)

    asyncio.run(go())


def shell(name: str, *tasks: str, **fields: Any) -> dict[str, Any]:
    """A definition of independent shell tasks."""
    action = {"type": "shell", "command": "true"}
    made = [{"name": task, "action": dict(action)} for task in tasks or ("one",)]
    return {"name": name, "tasks": made, **fields}


def problem_of(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem document, after looking at its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:grampus:problem:{kind}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    return document


def json_value(value: object) -> Value:
    data = msgspec.json.encode(value)
    return Value("json", data, None, len(data))


def an_id(number: int) -> str:
    return run_id(number.to_bytes(8, "big"))
