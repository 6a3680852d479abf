"""SIGTERM, SIGSTOP, starts in a row, and what a folder refuses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import httpx
import pytest

from grampus.model.run import AttemptState, RunState
from tests.acceptance.node import Ground, until

MANY = "workflow: many\ntasks:\n" + "".join(
    f"  t{i}: {{shell: 'sleep 0.0{i % 4}; echo {i} >> $PLACE', env: {{PLACE: PLACE}}}}\n"
    for i in range(150)
)
LONG = """\
workflow: long
tasks:
  nap: {shell: "echo $$ >> PLACE; until test -e STOP; do sleep 0.02; done", grace: 100ms}
"""


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_a_stop_in_the_middle_of_many_short_tasks_charges_nobody(ground: Ground) -> None:
    place = ground.folder / "place"
    file = ground.write("many.yaml", MANY.replace("PLACE}", f"'{place}'}}"))
    with ground.up() as node, ground.client() as client:
        client.apply(file)
        run = client.submit("many").id
        until(lambda: place.exists() and len(place.read_text().split()) > 10)
        said = node.stop()
        assert "not acknowledged" not in said
    with ground.up():
        time.sleep(0.1)
    with ground.up(), ground.client() as client:
        assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
        attempts = [a for task in client.tasks(run) for a in task.attempts]
    ends = {attempt.state for attempt in attempts}
    assert ends <= {AttemptState.SUCCEEDED, AttemptState.CANCELLED}
    done = place.read_text().split()
    assert set(map(int, done)) == set(range(150))


def test_a_long_task_outlives_many_stops_of_its_node(ground: Ground) -> None:
    """More often than `max_lost`: a stop is not a loss."""
    place, stop = ground.folder / "place", ground.folder / "stop"
    text = LONG.replace("PLACE", str(place)).replace("STOP", str(stop))
    file = ground.write("long.yaml", text)
    for life in range(5):
        with ground.up(), ground.client() as client:
            if life == 0:
                client.apply(file)
                run = client.submit("long").id
            until(lambda n=life: place.exists() and len(place.read_text().split()) > n)
            assert client.run(run).state is RunState.RUNNING
    stop.touch()
    with ground.up(), ground.client() as client:
        assert client.wait(run, timeout=20).state is RunState.SUCCEEDED
        (task,) = client.tasks(run)
    assert [a.state for a in task.attempts] == [AttemptState.CANCELLED] * 5 + [
        AttemptState.SUCCEEDED
    ]


@pytest.mark.parametrize("whom", ["warden", "node", "both"])
def test_who_stands_still_goes_on(ground: Ground, whom: str) -> None:
    file = ground.write(
        "nap.yaml", "workflow: nap\ntasks: {a: {shell: 'sleep 1'}, b: {shell: 'true', after: [a]}}"
    )
    with ground.up() as node, ground.client() as client:
        client.apply(file)
        run = client.submit("nap").id
        until(lambda: client.run(run).counts.get("RUNNING"))
        still = [pid for pid in (node.pid, node.warden()) if whom == "both"]
        still = still or [node.pid if whom == "node" else node.warden()]
        for pid in still:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        for pid in still:
            os.kill(pid, signal.SIGCONT)
        assert client.wait(run, timeout=20).state is RunState.SUCCEEDED
        assert [len(task.attempts) for task in client.tasks(run)] == [1, 1]


def test_a_stop_while_the_warden_stands_still_ends_in_time(ground: Ground) -> None:
    """A node does not wait for ever for a warden that says nothing."""
    place = ground.folder / "place"
    text = LONG.replace("PLACE", str(place)).replace("STOP", "/nowhere/at/all")
    file = ground.write("long.yaml", text)
    ground.env["GRAMPUS_KILL_GRACE"] = "1s"
    node = ground.start().ready()
    try:
        with ground.client() as client:
            client.apply(file)
            client.submit("long")
        until(place.exists)
        warden = node.warden()
        os.kill(warden, signal.SIGSTOP)
        node.process.terminate()
        code, said = node.ended(25)
        assert "Traceback" not in said
        assert "stays behind" in said, (code, said)
        os.kill(warden, signal.SIGCONT)
        until(lambda: not ground.processes(), 20)
    finally:
        node.kill()


def test_two_nodes_on_one_copied_folder(ground: Ground) -> None:
    """The copy is refused, also while the original is down and its warden goes on. Who insists gets
    a node of its own, which has nothing of what the original runs."""
    file = ground.write("long.yaml", "workflow: long\ntasks: {a: {shell: 'sleep 600'}}")
    copy = Ground(ground.folder / "other", data=ground.folder / "copy")
    first = ground.start().ready()
    with ground.client() as client:
        client.apply(file)
        run = client.submit("long").id
        until(lambda: client.run(run).counts.get("RUNNING"))
    sleeper = [pid for pid, line in ground.processes().items() if line.startswith("sleep")]
    first.kill()
    shutil.copytree(ground.data, copy.data, symlinks=True, ignore=lambda *_: ["warden.sock"])
    node = copy.start()
    code, said = node.ended()
    node.kill()
    assert code == 4
    assert "is a copy on this machine" in said
    # What the message says is what helps.
    toml = copy.data / "node.toml"
    kept = [line for line in toml.read_text().splitlines() if not line.startswith(("mach", "plac"))]
    toml.write_text("\n".join(kept) + "\n")
    with copy.up(), ground.up():
        with copy.client() as client:
            attempts = until(lambda: client.tasks(run)[0].attempts[1:] or None)
            assert client.tasks(run)[0].attempts[0].state is AttemptState.LOST
            assert attempts[0].state in (AttemptState.STARTING, AttemptState.RUNNING)
        with ground.client() as client:
            assert [a.state for a in client.tasks(run)[0].attempts] == [AttemptState.RUNNING]
        assert set(sleeper) <= set(ground.processes())


def test_a_folder_of_a_newer_version_or_in_use_is_refused_in_one_line(ground: Ground) -> None:
    with ground.up():
        busy = ground.start()
        code, said = busy.ended()
        assert code == 4
        assert re.search(r"^error: .* is in use by process \d+$", said, re.M)
        busy.kill()
    toml = ground.data / "node.toml"
    toml.write_text(toml.read_text().replace("format = 1", "format = 2"))
    node = ground.start()
    code, said = node.ended()
    node.kill()
    assert code == 4
    assert "use the newer Grampus that wrote it" in said


def test_a_folder_that_was_moved_is_the_same_node(ground: Ground) -> None:
    file = ground.write("one.yaml", "workflow: one\ntasks: {a: {shell: 'true'}}")
    with ground.up(), ground.client() as client:
        client.apply(file)
        run = client.start("one", wait=True).id
    moved = Ground(ground.folder / "other", data=ground.folder / "moved")
    ground.data.rename(moved.data)
    with moved.up(), moved.client() as client:
        assert client.run(run).state is RunState.SUCCEEDED
        assert client.start("one", wait=True).state is RunState.SUCCEEDED


def test_a_token_that_a_crash_left_empty_lets_nobody_in(ground: Ground) -> None:
    with ground.up():
        pass
    token = ground.data / "token"
    token.write_text("")
    with ground.up() as node:
        assert len(token.read_text().strip()) > 20
        assert token.stat().st_mode & 0o777 == 0o600
        for shown in ("Bearer", ""):
            got = httpx.get(f"{node.url}/api/v1/runs", headers={"Authorization": shown})
            assert got.status_code == 401
        with ground.client() as client:
            assert list(client.runs()) == []
