"""Workers of a cluster that are not heard any more: their attempts start elsewhere when their
leases end, never beside themselves; what is kept waits."""

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

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]

#: The first attempt of a task goes on for minutes, whatever it is told; each says that it lives.
FLOW = """
workflow: flow
params: {{place: {{type: str, default: "{place}"}}}}
defaults: {{grace: 60s}}
tasks:
  short: {{lease: 10s, shell: "{step}"}}
  longer: {{lease: 20s, shell: "{step}"}}
  kept: {{lease: keep, shell: "{step}"}}
"""
STEP = (
    "trap '' TERM; n=3; [ $GRAMPUS_ATTEMPT = 1 ] && n=3000; while [ $n -gt 0 ]; do"
    " echo $GRAMPUS_TASK $GRAMPUS_ATTEMPT >> {{ params.place }}; sleep 0.1; n=$((n - 1)); done"
)


class Town(Site):
    """One server, a worker that has a run, and another one beside it that has nothing yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "a")
        self.place = folder / "lines"
        self.place.touch()
        self.run = ""

    def begin(self, client: Client) -> None:
        self.worker("w1")
        client.apply(self.write("flow.yaml", FLOW.format(place=self.place, step=STEP)))
        self.run = client.submit("flow").id
        until(lambda: all(f"{task} 1\n" in self.lines() for task in ("short", "longer", "kept")))
        self.worker("w2")

    def lines(self) -> str:
        return self.place.read_text()

    def attempts(self, client: Client, task: str) -> list[Attempt]:
        found = next(each for each in client.tasks(self.run) if each.name == task)
        return list(found.attempts)

    def state(self, client: Client, task: str) -> AttemptState:
        return self.attempts(client, task)[-1].state

    def ended_elsewhere(self, client: Client, task: str) -> Attempt:
        """Its first attempt, once the second has succeeded with the other worker."""
        until(lambda: self.state(client, task) is AttemptState.SUCCEEDED, within=60)
        first, second = self.attempts(client, task)
        assert (first.worker, second.worker) == ("w1", "w2")
        assert first.state is AttemptState.LOST
        mine = [line.split()[1] for line in self.lines().splitlines() if line.split()[0] == task]
        assert mine == sorted(mine), f"attempts of {task} overlap"
        return first

    def wardens_of(self, name: str) -> list[int]:
        data = str(self.folder_of(name))
        return [pid for pid, line in self.processes().items() if "warden" in line and data in line]


@contextmanager
def a_town(folder: Path) -> Iterator[tuple[Town, Client]]:
    town = Town(folder)
    try:
        town.found("a")
        with town.client() as client:
            town.begin(client)
            yield town, client
    finally:
        town.end()


def test_what_a_dead_machine_had_starts_elsewhere_and_what_is_kept_waits_for_a_person(
    tmp_path: Path,
) -> None:
    with a_town(tmp_path) as (town, client):
        town.workers["w1"].process.send_signal(signal.SIGKILL)
        for pid in town.wardens_of("w1"):
            os.kill(pid, signal.SIGKILL)
        short = town.ended_elsewhere(client, "short")
        assert short.error == "its worker w1 was not heard for 10s"
        (reason, *_) = client.explain(town.run, "longer").tasks[0].reasons
        assert "starts elsewhere when its lease ends in" in reason.text
        assert "UNREACHABLE for" in town.cli("run", "show", town.run).stdout
        assert "fell silent" in town.cli("worker", "list").stderr
        assert town.ended_elsewhere(client, "longer").error.endswith("was not heard for 20s")
        story = town.cli("run", "story", town.run).stdout
        assert "its worker w1 was not heard for 10s" in story
        assert town.state(client, "kept") is AttemptState.UNREACHABLE
        assert len(town.attempts(client, "kept")) == 1
        assert town.cli("run", "declare-lost", town.run, "kept", "--yes").returncode == 0
        assert client.wait(town.run, timeout=60).state is RunState.SUCCEEDED


def test_a_worker_that_is_cut_off_is_fenced_by_its_warden_and_told_so_when_it_is_back(
    tmp_path: Path,
) -> None:
    with a_town(tmp_path) as (town, client):
        # The worker cannot hear, nor can it act. Its warden can.
        town.workers["w1"].process.send_signal(signal.SIGSTOP)
        town.ended_elsewhere(client, "short")
        until(lambda: _stands(town, "longer 1"), within=30, every=0.1)
        # It is back before the lease of 20 s is over: it says itself what was fenced.
        town.workers["w1"].process.send_signal(signal.SIGCONT)
        error = town.ended_elsewhere(client, "longer").error
        assert error.startswith("fenced: no server confirmed its worker for"), error
        # What is kept has gone on all the time.
        until(lambda: town.state(client, "kept") is AttemptState.RUNNING)
        assert not _stands(town, "kept 1")
        client.cancel(town.run)
        assert client.wait(town.run, timeout=90).state is RunState.CANCELLED


def _stands(town: Town, line: str) -> bool:
    """Nobody writes it any more, for half a second."""
    before = town.lines().count(line)
    time.sleep(0.5)
    return town.lines().count(line) == before
