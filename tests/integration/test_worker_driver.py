"""A worker with a real warden and real tasks, and a server that says what the test wants it to."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import sys
import zipfile
from pathlib import Path

import pytest
from tls_nodes import DAY, Nodes, now
from worker_ground import RUN, Scene, play, scene

from grampus.database import StorageFailed
from grampus.model.run import FINAL_ATTEMPT, INLINE_LIMIT, AttemptState, Value
from grampus.model.workflow import Python, Shell, Sleep
from grampus.protocol import Forget, GetBlob, Kill, LogChunk, Sync
from grampus.rpc.tls import NodeTls
from grampus.tasks.value import decode
from grampus.worker import supervisor
from grampus.worker.process_tree import marked
from grampus.worker.warden_client import WardenClient


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
