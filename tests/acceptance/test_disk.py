"""A disk that is full, or that is read only: a clear stop, and after that the work goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grampus.errors import GrampusError, ServerUnreachable
from grampus.model.run import RunState
from grampus.sdk.client import Client
from tests.acceptance import hanging_disk
from tests.acceptance.node import Ground, Node, until

ONE = "workflow: one\ntasks: {a: {shell: 'true'}}\n"
#: Its template is rendered by its own process, which finds it in a file.
RICH = """
workflow: one
params: {word: {default: deep}}
tasks: {a: {shell: "echo {{ params.word | upper }}", max_lost: 0}}
"""
LARGE = """
from grampus import task, workflow

@task
def large() -> bytes:
    return bytes(3_000_000)

@workflow
def big():
    large()
"""
#: Submits until the disk is full, at most.
MOST = 3000


def mount(*options: str) -> bool:
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or not mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)):
        pytest.skip("only root can mount a small file system")
    yield path
    assert subprocess.run(["umount", "--lazy", str(path)]).returncode == 0


def submit_until_refused(client: Client) -> list[str]:
    answered: list[str] = []
    with suppress(GrampusError):
        while len(answered) < MOST:
            answered.append(client.submit("one").id)
    return answered


def is_final(client: Client, run: str) -> bool:
    with suppress(GrampusError):
        return client.run(run).final
    return False


def fill(path: Path) -> None:
    """Takes every byte that is left."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (65536, 512):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def test_a_full_disk_stops_the_node_clearly_and_room_lets_it_go_on(
    tmp_path: Path, disk: Path
) -> None:
    ground = Ground(tmp_path, data=disk / "data")
    node = ground.start().ready()
    with ground.client() as client:
        client.apply(ground.write("one.yaml", ONE))
        client.apply(ground.write("big.py", LARGE))
        fill(disk / "junk")
        answered = submit_until_refused(client)
    code, said = node.ended()
    node.kill()
    assert code == 4
    assert said.splitlines()[-1].startswith("error: ")
    assert "disk is full" in said.splitlines()[-1] or "No space" in said.splitlines()[-1]
    assert "Traceback" not in said

    node = ground.start()
    code, said = node.ended()
    node.kill()
    assert code == 4
    assert "Traceback" not in said
    until(lambda: not ground.processes())

    (disk / "junk").unlink()
    with ground.up(), ground.client() as client:
        for run in answered:
            assert client.wait(run, timeout=20).state is RunState.SUCCEEDED
        assert client.start("one", wait=True).state is RunState.SUCCEEDED
        assert client.start("big", wait=True).state is RunState.SUCCEEDED


def test_a_task_that_fills_the_disk_ends_and_others_go_on_after_it(
    tmp_path: Path, disk: Path
) -> None:
    ground = Ground(tmp_path, data=disk / "data")
    hog = "workflow: hog\ntasks: {a: {shell: 'head -c 40000000 /dev/zero', max_lost: 0}}\n"
    node = ground.start().ready()
    with ground.client() as client:
        client.apply(ground.write("one.yaml", ONE))
        client.apply(ground.write("hog.yaml", hog))
        run = client.submit("hog").id
        # It may take the node with it, and then it must do so clearly.
        until(lambda: node.process.poll() is not None or is_final(client, run))
    if node.process.poll() is not None:
        assert node.process.returncode == 4
        assert "Traceback" not in node.said()
    else:
        node.process.terminate()
        assert node.process.wait(20) in (0, 4)
    node.kill()
    until(lambda: not ground.processes())
    for left in (ground.data / "worker" / "attempts").rglob("*.out"):
        left.unlink()
    with ground.up(), ground.client() as client:
        assert client.start("one", wait=True).state is RunState.SUCCEEDED
        client.wait(run, timeout=20)


def test_a_worker_without_room_says_so_and_its_tasks_wait(tmp_path: Path, disk: Path) -> None:
    """The ledger has room, the worker has none: nothing fails, and nothing is tried in vain."""
    ground = Ground(tmp_path)
    with ground.up():
        pass
    (ground.data / "worker").rename(tmp_path / "aside")
    (ground.data / "worker").symlink_to(disk)
    with ground.up() as node, ground.client() as client:
        client.apply(ground.write("one.yaml", RICH))
        fill(disk / "junk")
        run, later = client.submit("one").id, client.submit("one").id
        worker = until(lambda: next((w for w in client.workers() if w.trouble), None))
        assert "No space left" in worker.trouble
        assert "ALARM: this worker cannot start attempts" in node.said()
        third = client.submit("one").id
        [task] = until(lambda: [t for t in client.explain(third).tasks if t.reasons])
        assert [reason.code for reason in task.reasons] == ["worker-troubled"]
        assert [reason.code for t in client.explain(run).tasks for reason in t.reasons] == [
            "worker-troubled",
            "starting",
        ]
        assert "TROUBLED" in ground.cli("worker", "list").stdout
        (disk / "junk").unlink()
        for each in (run, later, third):
            assert client.wait(each, timeout=20).state is RunState.SUCCEEDED
            assert [len(task.attempts) for task in client.tasks(each)] == [1]
        until(lambda: not any(w.trouble for w in client.workers()))


def test_a_read_only_disk_is_one_line(tmp_path: Path, disk: Path) -> None:
    ground = Ground(tmp_path, data=disk / "data")
    with ground.up():
        pass
    assert mount("-o", "remount,ro", str(disk))
    node = ground.start()
    code, said = node.ended()
    node.kill()
    assert code == 4
    assert "Read-only file system" in said
    assert "Traceback" not in said
    assert mount("-o", "remount,rw", str(disk))
    with ground.up():
        pass


def test_a_limit_on_file_size_stops_the_node_clearly(tmp_path: Path) -> None:
    """What an ordinary user can be given instead of a full disk."""
    ground = Ground(tmp_path)
    with ground.up(), ground.client() as client:
        client.apply(ground.write("one.yaml", ONE))
    node = ground.start()
    try:
        node.ready()
        limit = 256 * 1024
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (limit, limit))
        with ground.client() as client:
            answered = submit_until_refused(client)
        code, said = node.ended()
        assert code == 4
        assert "Traceback" not in said
    finally:
        node.kill()
    assert 0 < len(answered) < MOST
    with ground.up(), ground.client() as client:
        for run in answered:
            assert client.wait(run, timeout=20).state is RunState.SUCCEEDED


@pytest.mark.parametrize("first", ["0.001", "quick"], ids=["thread", "loop"])
def test_a_disk_that_does_not_answer_is_told_and_waited_for(tmp_path: Path, first: str) -> None:
    ground, place = Ground(tmp_path), tmp_path / "disk"
    place.write_text(first)
    command = [sys.executable, hanging_disk.__file__, str(place), "up", "--listen", "127.0.0.1:0"]
    node = Node(ground, command)
    try:
        node.ready()
        with ground.client(timeout=3.0) as client:
            client.apply(ground.write("one.yaml", ONE))
            before = [client.submit("one").id for _ in range(50)]
            place.write_text("hang")
            with pytest.raises(ServerUnreachable):
                client.submit("one")
            until(lambda: "the disk of the log has not answered for" in node.said(), 15)
            place.write_text(first)
            until(lambda: "the disk of the log answers again" in node.said(), 15)
            last = client.submit("one").id
            for run in (*before, last):
                assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
        node.stop()
    finally:
        place.write_text(first)
        node.kill()
    until(lambda: not ground.processes(), 20)
