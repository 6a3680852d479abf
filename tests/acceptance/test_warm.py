"""Warm attempts, forks of a prepared process, are as durable as others: what `kill -9` does.

The node may die and its warm attempts go on. A prepared process that dies takes its own attempts
along and no others; they start again, at the expense of `max_lost`.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grampus.model.run import AttemptState, RunState, TaskState
from grampus.sdk.client import Client
from tests.acceptance.node import Ground, Node, until

SOURCE = """
import os, sys, time
from pathlib import Path
from grampus import context, task, workflow

def note(place, word):
    here = context()
    warm = "grampus.worker.prepared" in Path("/proc/self/cmdline").read_text()
    with open(place + "/lines", "a") as lines:
        lines.write(f"{word} {here.run}.{here.task} {here.attempt} {'warm' if warm else 'cold'}\\n")

@task(max_lost=1)
def hold(place: str, go: str, name: str) -> str:
    note(place, "start")
    while not os.path.exists(place + "/" + go):
        time.sleep(0.02)
    print("through")
    note(place, "end")
    return name * 3

@workflow
def MODULE(place: str, go: str):
    for name in ("a", "b"):
        hold.options(name=name)(place, go, name)
"""


class House:
    """A node, two workflows from modules of their own, and what their attempts wrote."""

    def __init__(self, ground: Ground, client: Client) -> None:
        self.ground = ground
        self.client = client
        self.place = ground.folder
        for name in ("first", "second"):
            client.apply(ground.write(f"{name}.py", SOURCE.replace("MODULE", name)))

    def start(self, workflow: str, go: str) -> str:
        return self.client.submit(workflow, {"place": str(self.place), "go": go}).id

    def lines(self, run: str = "") -> list[list[str]]:
        with suppress(FileNotFoundError):
            found = (self.place / "lines").read_text().splitlines()
            return [line.split() for line in found if run in line]
        return []

    def warm_up(self, workflow: str) -> None:
        """Until both tasks of a run start warm."""
        (self.place / "now").touch()

        def warm() -> bool:
            run = self.start(workflow, "now")
            assert self.client.wait(run, timeout=30).state is RunState.SUCCEEDED
            return all(line[3] == "warm" for line in self.lines(run))

        until(warm)

    def held(self, workflow: str, go: str) -> str:
        """A run whose two attempts have begun, both warm, and wait."""
        run = self.start(workflow, go)
        until(lambda: len(self.lines(run)) == 2)
        assert {line[3] for line in self.lines(run)} == {"warm"}
        return run

    def go(self, name: str) -> None:
        (self.place / name).touch()

    def prepared(self, module: str) -> int:
        """The prepared process: the oldest of those that bear its command line."""
        return min(
            (pid for pid, line in self.ground.processes().items()
             if "grampus.worker.prepared" in line and line.split()[-1] == module),
            key=_born,
        )  # fmt: skip

    def attempts(self, run: str) -> list[list[AttemptState]]:
        return [[attempt.state for attempt in task.attempts] for task in self.client.tasks(run)]


def _born(pid: int) -> int:
    """Ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def node(ground: Ground) -> Iterator[Node]:
    with ground.up(slots=4) as node:
        insist(ground)
        yield node


def insist(ground: Ground) -> None:
    """Forks need PID namespaces: elsewhere every attempt starts cold."""
    log = (ground.data / "worker" / "warden.log").read_text()
    if "pid-namespace does not work" in log:
        pytest.skip("no PID namespaces here, and nothing is warm without them")


def test_warm_attempts_outlive_kill_9_of_the_node(ground: Ground) -> None:
    node = ground.start(slots=4).ready()
    try:
        insist(ground)
        with ground.client() as client:
            house = House(ground, client)
            house.warm_up("first")
            house.warm_up("second")
            run, other = house.held("first", "go"), house.held("second", "later")
        node.kill()
        node = ground.start(slots=4).ready()
        house.go("go")
        node.kill()
        # These end while nobody is there who could hear of it.
        house.go("later")
        until(lambda: len(house.lines(other)) == 4)
        node = ground.start(slots=4).ready()
        with ground.client() as client:
            house.client = client
            for each in (run, other):
                check_that_it_ran_once(house, each)
            # What was prepared is still there for those that follow.
            again = house.start("first", "now")
            assert client.wait(again, timeout=30).state is RunState.SUCCEEDED
            assert {line[3] for line in house.lines(again)} == {"warm"}
        node.stop()
    finally:
        node.kill()
    until(lambda: not ground.processes(), 20)


def check_that_it_ran_once(house: House, run: str) -> None:
    client = house.client
    assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
    assert [client.result(run, name) for name in ("a", "b")] == ["aaa", "bbb"]
    assert "".join(piece.text for piece in client.logs(run, "a")) == "through\n"
    assert house.attempts(run) == [[AttemptState.SUCCEEDED]] * 2
    # Each began once and ended once, in the process that was there from the beginning.
    words = Counter(tuple(line[1:]) for line in house.lines(run))
    assert words == {(f"{run}.{name}", "1", "warm"): 2 for name in ("a", "b")}


def test_a_killed_prepared_process_loses_its_own_attempts_and_charges_max_lost(
    ground: Ground, node: Node
) -> None:
    with ground.client() as client:
        house = House(ground, client)
        for name in ("first", "second"):
            house.warm_up(name)
        run, other = house.held("first", "go"), house.held("second", "go")
        os.kill(house.prepared("first"), signal.SIGKILL)
        # Without a retry they start again, cold: nothing is prepared for them any more.
        until(lambda: len(house.lines(run)) == 4)
        assert [line[2:] for line in house.lines(run)[2:]] == [["2", "cold"]] * 2
        # An attempt writes its line before the ledger hears that it runs.
        until(lambda: house.attempts(run) == [[AttemptState.LOST, AttemptState.RUNNING]] * 2)
        house.go("go")
        for each in (run, other):
            assert client.wait(each, timeout=30).state is RunState.SUCCEEDED
        assert house.attempts(run) == [[AttemptState.LOST, AttemptState.SUCCEEDED]] * 2
        assert house.attempts(other) == [[AttemptState.SUCCEEDED]] * 2
        ended = [line for line in house.lines(run) if line[0] == "end"]
        assert [line[2] for line in ended] == ["2", "2"]


def test_who_loses_more_often_than_max_lost_has_failed_by_the_infrastructure(
    ground: Ground, node: Node
) -> None:
    with ground.client() as client:
        house = House(ground, client)
        house.warm_up("second")
        run = house.held("second", "go")
        os.kill(house.prepared("second"), signal.SIGKILL)
        until(lambda: len(house.lines(run)) == 4)
        # Cold attempts: a shim is the parent of each.
        for shim in node.shims():
            with suppress(ProcessLookupError):
                os.kill(shim, signal.SIGKILL)
        assert client.wait(run, timeout=30).state is RunState.FAILED
        for task in client.tasks(run):
            assert task.state is TaskState.FAILED
            assert [attempt.state for attempt in task.attempts] == [AttemptState.LOST] * 2
            assert "lost 2 times (max_lost 1)" in task.reason
