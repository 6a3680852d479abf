"""A server for the tests of client and command line: the real API on the real ledger.

There is no log, no master and no worker: commands are applied at once, and `Puppet` plays the rest.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from grampus.adapters import Explainer
from grampus.api.app import create_app
from grampus.api.ports import Ports, WorkerLoad
from grampus.api.server import ApiServer
from grampus.api.wakes import Wakes
from grampus.blobs import Blobs
from grampus.cli import main as cli
from grampus.clock import SystemClock
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.consensus.port import Listener
from grampus.errors import NoQuorum, NotFound, Refused
from grampus.ledger import Ledger
from grampus.master.timekeeper import Timekeeper
from grampus.model.run import FINAL_RUN, AttemptState, TaskState, Value
from grampus.protocol import LogChunk, ReadLog
from grampus.relay import ClockDoubt, NoRelay
from grampus.runs.commands import (
    Command,
    OpenSession,
    Refusal,
    ReportAttempt,
    StartAttempts,
    TakeOffice,
    encode_command,
)
from grampus.runs.reads import Reads
from grampus.sdk.discovery import publish

TOKEN = "token-of-the-test"


class BlobPort:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def has(self, hash: str) -> bool:
        return self._blobs.size(hash) >= 0

    async def put(self, hash: str, pieces: AsyncIterator[bytes]) -> None:
        self._blobs.put_pieces(hash, [piece async for piece in pieces])

    async def open(self, hash: str) -> AsyncIterator[bytes]:
        if self._blobs.size(hash) < 0:
            raise NotFound(f"there is no blob {hash}")
        for piece in self._blobs.pieces(hash):
            yield piece


async def no_barrier() -> None:
    """Its ledger has everything at once."""


class NoCluster:
    """Nobody asks it here."""

    async def ask(self, action: str, name: str) -> bytes:
        raise Refused("there is no cluster")

    async def snapshot(self) -> tuple[int, AsyncIterator[bytes]]:
        raise Refused("there is no ledger to copy")

    async def make_token(self, role: str, name: str, life: int) -> tuple[str, int]:
        raise Refused("there is no cluster")


class NodeStatus:
    def waiting_for(self) -> str:
        return ""

    def applied_index(self) -> int:
        return 0

    def proposals_in_flight(self) -> int:
        return 0

    def connected(self) -> Mapping[int, WorkerLoad]:
        return {1: WorkerLoad(cpu=12, memory=2**31)}

    async def presence(self) -> Mapping[int, WorkerLoad]:
        return self.connected()


class _Direct:
    """The replica of such a node: what is proposed is applied at once."""

    leader, term, applied_index, in_flight = True, 1, 0, 0

    def __init__(self, node: Node) -> None:
        self._node = node
        self.subscribe = node.subscribe

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        return await asyncio.to_thread(self._node.apply, commands)

    #: What an end of a session is proposed by.
    propose_here = propose

    async def read_barrier(self) -> None:
        if self._node.cut_off:
            raise NoQuorum("nobody else answers")


class Node:
    """Serves from a thread of its own until the `with` block ends."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._ledger = Ledger(folder / "ledger.db")
        self._lock = threading.Lock()
        self.blobs = Blobs(folder / "blobs")
        self.reads = Reads(folder / "ledger.db")
        self.logs: dict[tuple[str, str, int, str], bytes] = {}
        self.wakes = Wakes()
        self._listeners: list[Listener] = []
        self._key_reads = KeyReads(folder / "ledger.db")
        self.keys = ClusterServer(_Direct(self), self._key_reads, SystemClock(), "h1", os.urandom)
        #: It hears no majority: nothing is confirmed.
        self.cut_off = False
        self._port = port
        self._clock = SystemClock()
        self.loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self.url = ""

    def command(self, command: Command) -> object:
        """Applies it, from any thread."""
        (answer,) = self.apply([encode_command(command)])
        return answer

    def apply(self, commands: Sequence[bytes]) -> list[object]:
        with self._lock:
            index = self._ledger.applied_index + 1
            answers, facts = self._ledger.apply(index, 1, commands)
        for run in {getattr(fact, "run", "") for fact in facts} - {""}:
            self.loop.call_soon_threadsafe(self.wakes.wake, run)
        for listener in self._listeners:
            self.loop.call_soon_threadsafe(listener, index, facts)
        return answers

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def ask(self, query: object) -> object:
        """The answer of one of `reads`, for another thread than the server's."""
        return asyncio.run_coroutine_threadsafe(query, self.loop).result(10)  # type: ignore[arg-type]

    async def _propose(self, *commands: Command) -> list[object | Refusal]:
        return [await asyncio.to_thread(self.command, command) for command in commands]

    async def _read_log(self, asked: ReadLog) -> LogChunk:
        log = self.logs.get((asked.run, asked.task, asked.attempt, asked.stream), b"")
        data = log[asked.offset : asked.offset + asked.limit]
        return LogChunk(asked.offset, data, not data)

    async def _serve(self) -> None:
        clock = Timekeeper(self._clock)
        ports = Ports(
            propose=self._propose,
            reads=self.reads,
            blobs=BlobPort(self.blobs),
            read_log=self._read_log,
            explain=Explainer(self.reads, lambda: None, self._read_log, Timekeeper(self._clock)),
            status=NodeStatus(),
            presence=NodeStatus().presence,
            clock=clock,
            clock_doubt=ClockDoubt(lambda: True, clock, NoRelay()),
            entropy=os.urandom,
            cluster=NoCluster(),
            keys=self.keys,
            keep_alive=self.keys.keep_alive,
            barrier=no_barrier,
        )
        app = create_app(ports, self.wakes, token=TOKEN, listen="127.0.0.1")
        self.server = ApiServer(app, "127.0.0.1", self._port)
        await self.server.start()
        self.url = self.server.url
        async with asyncio.TaskGroup() as tasks:
            keys = tasks.create_task(self.keys.run())
            self._started.set()
            await self.server.run()
            keys.cancel()

    def __enter__(self) -> Node:
        self._thread = threading.Thread(target=self.loop.run_until_complete, args=[self._serve()])
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        stopping = asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop)
        self._thread.join(10)
        self.loop.run_until_complete(asyncio.wrap_future(stopping, loop=self.loop))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.reads.close()
        self._key_reads.close()
        self._ledger.close()


#: (task, attempt) → what it wrote to stderr, how it ended, what it returned.
Play = Callable[[str, int], tuple[str, AttemptState, Value | None]]


def all_succeed(task: str, attempt: int) -> tuple[str, AttemptState, Value | None]:
    return f"{task} was here\n", AttemptState.SUCCEEDED, None


class Puppet:
    """Master and worker in one: runs what is due as `play` says, until the run is final."""

    def __init__(self, node: Node, play: Play, slots: int = 4, pace: float = 0.0) -> None:
        self._node = node
        self._play = play
        self._clock = SystemClock()
        self._pace = pace
        now = self._clock.now()
        self._epoch = node.command(TakeOffice(now, "n1", 1))
        opened = OpenSession(now, "w1", "i1", "m1", "b1", True, "default", slots)
        self._session = node.command(opened)
        self._stop = threading.Event()

    def run(self, run: str) -> None:
        while not self._stop.wait(0.01):
            view = self._node.ask(self._node.reads.run(run))
            if view is not None and view.state in FINAL_RUN:  # type: ignore[attr-defined]
                return
            self._round(run)

    def _round(self, run: str) -> None:
        now = self._clock.now()
        for task in self._node.ask(self._node.reads.tasks(run)):  # type: ignore[attr-defined]
            due = task.state in (TaskState.READY, TaskState.RETRYING) and (task.due or 0) <= now
            if not due:
                continue
            attempt = len(task.attempts) + 1
            now = self._clock.now()
            start = StartAttempts(now, self._epoch, self._session, run, [(task.index, attempt)])  # type: ignore[arg-type]
            numbers = self._node.command(start)
            if isinstance(numbers, Refusal):
                continue
            self._attempt(run, task.name, attempt, numbers[0])  # type: ignore[index]

    def _attempt(self, run: str, task: str, attempt: int, n: int) -> None:
        stderr, end, value = self._play(task, attempt)
        data = stderr.encode()
        self._report(n, AttemptState.RUNNING, 0, "", None)
        self._stop.wait(self._pace)
        self._node.logs[run, task, attempt, "stderr"] = data
        error = stderr.splitlines()[-1] if stderr and end != AttemptState.SUCCEEDED else ""
        self._report(n, end, len(data), error, value)

    def _report(
        self, n: int, state: AttemptState, written: int, error: str, value: Value | None
    ) -> None:
        now = self._clock.now()
        code = {AttemptState.SUCCEEDED: 0, AttemptState.FAILED: 3}.get(state)
        report = ReportAttempt(
            now,
            self._session,
            n,
            state,
            now,
            code,
            error,
            (),
            value,
            0,
            written,  # type: ignore[arg-type]
        )
        self._node.command(report)

    @contextmanager
    def playing(self, pick: Callable[[], str | None]) -> Iterator[None]:
        """Runs, in a thread, the run that `pick` names as soon as it names one."""

        def work() -> None:
            while not self._stop.wait(0.01):
                if run := pick():
                    self.run(run)
                    return

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(10)


def newest(node: Node) -> Callable[[], str | None]:
    def pick() -> str | None:
        found = node.ask(node.reads.resolve_run("last"))
        return found[0] if found else None  # type: ignore[index]

    return pick


#: Calls the program with arguments; its exit code, stdout and stderr.
Call = Callable[..., tuple[int, str, str]]


def caller(captured: pytest.CaptureFixture[str] | pytest.CaptureFixture[bytes]) -> Call:
    def text(said: str | bytes) -> str:
        return said if isinstance(said, str) else said.decode()

    def call(*arguments: str) -> tuple[int, str, str]:
        captured.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(list(arguments))
        out, err = captured.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, text(out), text(err)

    return call


@contextmanager
def found(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node that the program finds by itself: nothing in the environment names another."""
    for name in list(os.environ):
        if name.startswith("GRAMPUS_"):
            patch.delenv(name)
    patch.setenv("GRAMPUS_STATE", str(folder / "state"))
    patch.setenv("XDG_CONFIG_HOME", str(folder / "etc"))
    with published(folder, folder / "state") as node:
        yield node


@contextmanager
def published(folder: Path, state: Path) -> Iterator[Node]:
    """A node that clients of this user find by themselves."""
    with Node(folder) as node:
        publish(state, node.url, TOKEN, os.getpid())
        yield node
