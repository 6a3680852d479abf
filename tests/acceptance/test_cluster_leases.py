"""Three servers whose leader dies, or stands still, while it counts leases.

What lives is never given up early; what is dead is, in bounded time, by whoever leads then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grampus.model.run import AttemptState, RunState
from grampus.sdk.answers import Attempt
from grampus.sdk.client import Client
from tests.acceptance.cluster import Site
from tests.acceptance.node import until

pytestmark = [pytest.mark.raft, pytest.mark.timeout(300)]

#: In seconds: of the task, the shortest there is; and what it takes until another leads and has
#: begun to count, on a busy machine.
LEASE, CHANGE = 10.0, 8.0
#: It writes until it is told to end. A second attempt ends at once.
FLOW = """
workflow: flow
params: {{place: {{type: str, default: "{place}"}}}}
tasks:
  it: {{lease: 10s, shell: "{step}"}}
"""
STEP = (
    "[ $GRAMPUS_ATTEMPT = 1 ] || exit 0; until [ -e {{ params.place }}.gate ]; do"
    " echo $GRAMPUS_ATTEMPT >> {{ params.place }}; sleep 0.1; done"
)


class Town(Site):
    """Three servers, a worker whose task runs, and another one that has nothing yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder / "lines"
        self.run = ""

    def begin(self, client: Client) -> None:
        self.worker("w1")
        client.apply(self.write("flow.yaml", FLOW.format(place=self.place, step=STEP)))
        self.run = client.submit("flow").id
        until(lambda: self.place.exists() and len(self.place.read_text()) > 10)
        self.worker("w2")

    def attempts(self, client: Client) -> list[Attempt]:
        (task,) = client.tasks(self.run)
        return list(task.attempts)

    def open_gate(self) -> None:
        self.place.with_name("lines.gate").touch()

    def kill_worker(self, name: str) -> None:
        """With its warden, as when its machine is gone."""
        data = str(self.folder_of(name))
        self.workers[name].process.send_signal(signal.SIGKILL)
        for pid, line in self.processes().items():
            if "warden" in line and data in line:
                os.kill(pid, signal.SIGKILL)


@contextmanager
def a_town(folder: Path) -> Iterator[tuple[Town, Client]]:
    town = Town(folder)
    try:
        town.grow()
        with town.client() as client:
            town.begin(client)
            yield town, client
    finally:
        town.end()


def test_an_attempt_that_lives_outlives_every_change_of_leader(tmp_path: Path) -> None:
    """Also of a leader that stands still for longer than the lease, and goes on with old clocks."""
    with a_town(tmp_path) as (town, client):
        begun = time.monotonic()
        for _ in range(2):
            old = town.leader()
            town.kill(old)
            assert town.leader(among=town.others(old)) != old
            time.sleep(LEASE / 3)
            town.launch(old).ready()
        for length in (LEASE / 3, LEASE + 3.0):
            old = town.leader()
            town.hold(old)
            assert town.leader(among=town.others(old)) != old
            time.sleep(length)
            town.go_on(old)
            town.settled(3)
        assert time.monotonic() - begun > 2 * LEASE
        # Somebody who counted wrongly would say so by now.
        time.sleep(LEASE)
        (only,) = town.attempts(client)
        assert (only.state, only.worker) == (AttemptState.RUNNING, "w1")
        town.open_gate()
        assert client.wait(town.run, timeout=30).state is RunState.SUCCEEDED
        (only,) = town.attempts(client)
        assert only.state is AttemptState.SUCCEEDED
        assert "LOST" not in town.cli("run", "story", town.run).stdout


@pytest.mark.parametrize("how", ["kill", "hold"])
def test_an_attempt_that_is_dead_is_lost_in_bounded_time_under_the_next_leader(
    tmp_path: Path, how: str
) -> None:
    with a_town(tmp_path) as (town, _):
        town.kill_worker("w1")
        dead = time.monotonic()
        # The leader counts, and has not come to an end.
        time.sleep(LEASE / 2)
        old = town.leader()
        (town.kill if how == "kill" else town.hold)(old)
        changed = time.monotonic()
        with town.client(servers=town.others(old)) as others:
            until(lambda: len(town.attempts(others)) > 1, within=LEASE + CHANGE + 10.0)
            lost = time.monotonic()
            first, second = town.attempts(others)
            assert first.state is AttemptState.LOST
            assert first.error == "its worker w1 was not heard for 10s"
            assert second.worker == "w2"
            # The next leader begins to count anew: it does not know what the old one has heard.
            assert LEASE < lost - dead
            assert lost - changed < LEASE + CHANGE, f"it took {lost - changed:.1f} s"
            assert others.wait(town.run, timeout=30).state is RunState.SUCCEEDED
        if how == "hold":
            # It wakes with the belief that it leads, and that it may give the attempt up.
            town.go_on(old)
            town.settled(3)
            with town.client(servers=old) as woken:
                states = [attempt.state for attempt in town.attempts(woken)]
            assert states == [AttemptState.LOST, AttemptState.SUCCEEDED]
