"""A worker with a real warden and real tasks, and a server that says what the test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tls_nodes import CLUSTER, DAY, Nodes, now

from grampus.blobs import Blobs
from grampus.database import StorageFailed
from grampus.errors import Refused
from grampus.model.run import FINAL_ATTEMPT, INLINE_LIMIT, AttemptState, Value
from grampus.model.workflow import Action, Python, Shell, Sleep, Task
from grampus.protocol import (
    BULK_FRAME,
    CONTROL_FRAME,
    HELLO_FRAME,
    PROTOCOL_VERSION,
    Ack,
    Assign,
    BlobPiece,
    Forget,
    GetBlob,
    HasBlob,
    Hello,
    Invocation,
    Kill,
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
    Sync,
    Synced,
    Welcome,
)
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.server import Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import NodeTls
from grampus.tasks.value import decode
from grampus.worker import supervisor
from grampus.worker.driver import Worker
from grampus.worker.process_tree import marked
from grampus.worker.warden_client import WardenClient

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


def test_a_shell_task_runs_and_is_reported_with_what_it_left(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        server.assign(1, Shell("echo hello; echo oops >&2; echo rows=12 > $GRAMPUS_OUTPUT"))
        report = await server.final(1)
        assert (report.state, report.exit, report.error) == (AttemptState.SUCCEEDED, 0, "")
        assert (report.stdout, report.stderr) == (6, 5)
        assert report.output == Value("json", b'{"rows":"12"}', None, 13)
        assert await server.log(1) == LogChunk(0, b"hello\n", True, size=6)
        assert await server.log(1, "stderr", 2) == LogChunk(2, b"ps\n", True, size=5)
        kept = [scene.folder / "worker" / part / RUN for part in ("attempts", "scratch")]
        assert all(folder.exists() for folder in kept)
        server.send(Forget([RUN]))
        async with asyncio.timeout(10):
            while any(folder.exists() for folder in kept):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    play(tmp_path, story)


@pytest.mark.parametrize("kind", ["subreaper", "auto"])
def test_a_containment_that_cannot_promise_all_is_said_at_the_start(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = functools.partial(WardenClient.start, containment=kind)
    monkeypatch.setattr(WardenClient, "start", start)

    async def story(scene: Scene) -> None:
        (register,) = scene.server.registrations
        said = [r for r in caplog.messages if r.startswith("attempts are held together by a subre")]
        assert len(said) == (register.containment == "subreaper")
        assert kind in ("auto", register.containment)

    play(tmp_path, story)


def test_a_worker_whose_next_warden_must_wait_says_so_and_goes_on_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "WARDEN_LATE", 0.2)

    async def story(scene: Scene) -> None:
        server = scene.server
        with (scene.folder / "worker" / "warden.lock").open() as lock:
            # What cannot be killed holds it, as it were.
            scene.kill_warden()
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            load = await server.until(lambda: next((x for x in server.loads if x.trouble), None))
            assert load.trouble.startswith("its warden is gone")
        await server.until(lambda: server.loads[-1].trouble == "")
        server.assign(1, Shell("true"))
        assert (await server.final(1)).state == AttemptState.SUCCEEDED

    play(tmp_path, story)


def test_a_failure_is_reported_with_the_last_thing_it_said(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        server.assign(1, Shell("echo one >&2; echo no such file >&2; exit 3"))
        server.assign(2, Shell("kill -9 $$"))
        server.assign(3, Shell("true"), cwd="/nowhere")
        server.assign(4, Shell("echo what > $GRAMPUS_OUTPUT"))
        server.assign(5, Shell("echo {{ params.x }}"))
        server.assign(6, Sleep(60_000), timeout=100)
        reports = [await server.final(n) for n in range(1, 7)]
        assert [r.state for r in reports] == [AttemptState.FAILED] * 5 + [AttemptState.TIMED_OUT]
        assert [r.exit for r in reports[:2]] == [3, -9]
        assert reports[0].error == "exit code 3: no such file"
        assert reports[1].error == "ended by SIGKILL"
        assert "/nowhere" in reports[2].error
        assert "line 1: 'what'" in reports[3].error
        assert "`params` has no `x`" in reports[4].error

    play(tmp_path, story)


def test_a_python_task_gets_its_bundle_and_large_results_travel_as_blobs(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        archive = scene.folder / "b.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("m.py", "def f(n, x=None):\n    return {'a': 'x' * n, 'x': x}\n")
            file.writestr("data/rows.txt", "12")
        bundle = server.blobs.put(archive.read_bytes())
        call = {"n": "{{ params.n }}"}
        for n in (1, 2):
            server.assign(n, Python("m:f", call), params={"n": INLINE_LIMIT}, bundle=bundle)
        first, second = await server.final(1), await server.final(2)
        assert first.state == AttemptState.SUCCEEDED, first.error
        assert first.output is not None
        assert first.output == second.output
        assert first.output.blob is not None
        assert first.output.data is None
        assert server.blobs.size(first.output.blob) == first.output.size
        assert len([m for m in server.asked if isinstance(m, GetBlob) and m.offset == 0]) == 1
        server.assign(
            3,
            Python("m:f", {"n": 1, "x": "{{ tasks.t1.output.a }}"}),
            bundle=bundle,
            inputs={"t1": first.output},
            after=("t1",),
        )
        third = await server.final(3)
        assert third.output is not None
        value = decode("json", b"".join(server.blobs.pieces(third.output.blob or "")))
        assert value == {"a": "x", "x": "x" * INLINE_LIMIT}
        server.assign(4, Shell("cat data/rows.txt; pwd"), bundle=bundle)
        await server.final(4)
        assert (await server.log(4)).data.startswith(b"12/")

    play(tmp_path, story)


def test_a_bundle_that_no_server_has_loses_the_attempt(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.server.assign(1, Shell("true"), bundle="0" * 64)
        report = await scene.server.final(1)
        assert report.state == AttemptState.LOST
        assert "does not have the blob" in report.error
        hash = scene.server.blobs.put(b"no zip at all")
        scene.server.assign(2, Shell("true"), bundle=hash)
        report = await scene.server.final(2)
        assert report.state == AttemptState.FAILED
        assert "cannot be unpacked" in report.error

    play(tmp_path, story)


def test_over_tls_a_worker_is_known_by_its_certificate_and_keeps_it_fresh(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path / "nodes")
    nodes.server()
    # Two thirds of its life are over.
    old = nodes.issue("w1", "worker", at=now() - 300 * DAY)
    before = old.ends()

    async def story() -> None:
        async with scene(tmp_path, nodes=nodes, tls=NodeTls(old)) as here:
            here.server.assign(1, Shell("echo hello"))
            assert (await here.server.final(1)).state is AttemptState.SUCCEEDED
            await here.server.until(lambda: old.ends() > before)
            assert old.ends() > now() + 360 * DAY
            # It comes back with the new one.
            assert here.server.control is not None
            here.server.control.close("a test")
            await here.server.until(lambda: len(here.server.registrations) == 2)

    asyncio.run(story())


def test_a_kill_ends_what_runs_and_live_logs_are_live(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        server.assign(1, Shell("echo started; exec sleep 600"))
        await server.until(lambda: any(r.state == AttemptState.RUNNING for r in server.reports))
        async with asyncio.timeout(10):
            while not (chunk := await server.log(1)).data:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert chunk == LogChunk(0, b"started\n", False, size=8)
        server.send(Kill(server.session, 1, "the run was cancelled"))
        report = await server.final(1)
        assert report.state == AttemptState.CANCELLED
        assert report.error == "the run was cancelled"
        assert (await server.log(1)).end

    play(tmp_path, story)


def test_a_lost_connection_loses_no_report(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        server.acks = False
        server.assign(1, Shell("true"))
        took, ago = (await server.final(1)).took, server.ago[1]
        server.assign(2, Shell("sleep 0.3"))
        await server.until(lambda: any(r.n == 2 for r in server.reports))
        server.reports.clear()
        assert server.control is not None
        server.control.close("a test")
        server.acks = True
        await server.until(lambda: len(server.registrations) == 2)
        assert server.session == 1
        again = await server.final(1)
        assert (again.state, again.took) == (AttemptState.SUCCEEDED, took)
        assert server.ago[1] >= ago + 50, "it is as old as it is, not as new as its news"
        second = await server.final(2)
        assert second.state == AttemptState.SUCCEEDED
        assert second.took is not None
        assert second.took >= 200  # The shim looks at the clock when it has begun.
        server.send(Sync(1, 5, 4, [3], []))
        synced = await server.until(lambda: server.synced and server.synced[-1])
        assert (synced.running, synced.missing) == ([], [3])

    play(tmp_path, story)


def test_a_dead_warden_is_replaced_and_its_attempts_are_lost(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        marker = scene.folder / "alive"
        server.assign(1, Shell(f"while :; do date > {marker}; sleep 0.05; done"))
        await server.until(lambda: any(r.state == AttemptState.RUNNING for r in server.reports))
        scene.kill_warden()
        report = await server.final(1)
        assert report.state == AttemptState.LOST
        assert report.error == "the warden died"
        marker.unlink(missing_ok=True)
        await server.until(lambda: server.session == 2)
        async with asyncio.timeout(10):
            await scene.worker.registered.wait()
        server.assign(1, Shell("echo again"))
        await server.until(
            lambda: any(
                r.session == 2 and r.state == AttemptState.SUCCEEDED for r in server.reports
            )
        )
        assert not marker.exists()

    play(tmp_path, story)


def test_a_new_session_for_the_same_warden_brings_a_new_warden(tmp_path: Path) -> None:
    """Its numbers begin at 1 again, and the warden starts none twice."""

    async def story(scene: Scene) -> None:
        server = scene.server
        server.assign(1, Sleep(600_000))
        await server.until(lambda: any(r.state == AttemptState.RUNNING for r in server.reports))
        [first] = server.registrations
        server.registrations.clear()
        assert server.control is not None
        server.control.close("the session was ended")
        await server.until(lambda: server.session == 3)
        async with asyncio.timeout(10):
            await scene.worker.registered.wait()
        assert server.registrations[-1].instance != first.instance
        assert marked(first.instance) == []
        server.assign(1, Shell("true"))
        report = await server.until(
            lambda: next((r for r in server.reports if r.session == 3), None)
        )
        assert (report.n, report.state) == (1, AttemptState.SUCCEEDED)

    play(tmp_path, story)


def test_a_worker_that_cannot_write_its_journal_stops_and_its_attempts_go_on(
    tmp_path: Path,
) -> None:
    async def story(scene: Scene) -> None:
        server, journal = scene.server, scene.worker._journal
        server.assign(1, Shell("echo up; exec sleep 600"))
        await server.until(lambda: any(r.state == AttemptState.RUNNING for r in server.reports))
        full, journal._fd = journal._fd, os.open("/dev/full", os.O_RDWR)
        os.close(full)
        server.assign(2, Shell(f"touch {tmp_path}/ran"))
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        play(tmp_path, story)
    assert caught.group_contains(StorageFailed, match="journal.db: No space left")
    assert not (tmp_path / "ran").exists()

    async def afterwards() -> None:
        warden = await WardenClient.attach(tmp_path / "worker", lambda _: None, lambda: None)
        assert warden is not None
        assert [running.n for running in warden.running if not running.ended] == [1]
        await warden.stop(0)

    asyncio.run(afterwards())


def test_a_stop_ends_what_runs_and_says_so(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.server.assign(1, Sleep(600_000))
        scene.server.assign(2, Shell("true"))
        await scene.server.final(2)
        await scene.worker.stop(1_000)
        report = await scene.server.final(1)
        assert (report.state, report.error) == (AttemptState.CANCELLED, "the worker was stopped")

    play(tmp_path, story)


@pytest.mark.parametrize("slots", [4])
def test_many_attempts_run_and_each_is_reported_once(tmp_path: Path, slots: int) -> None:
    async def story(scene: Scene) -> None:
        server = scene.server
        for n in range(1, 101):
            server.assign(n, Shell(f"echo {n}"))
        for n in range(1, 101):
            assert (await server.final(n)).state == AttemptState.SUCCEEDED
        finals = [r.n for r in server.reports if r.state in FINAL_ATTEMPT]
        assert sorted(finals) == list(range(1, 101))

    play(tmp_path, story, slots)


def test_an_unknown_python_fails_with_words(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.server.assign(1, Python("m:f"), python="python-from-the-moon")
        report = await scene.server.final(1)
        assert report.state == AttemptState.FAILED
        assert "no interpreter 'python-from-the-moon'" in report.error

    assert sys.version_info >= (3, 11)
    play(tmp_path, story)
