"""Nodes that die, and what becomes of their attempts: they go on, and never run twice.

Real processes all along: `grampus up` is killed and started again on the same folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from grampus.errors import GrampusError
from grampus.sdk.client import Client
from grampus.worker.process_tree import marked

#: Appends when it starts and when it ends, waits in between for the file `go`, and writes a result.
TASK = """
echo "start $GRAMPUS_ATTEMPT" >> {folder}/diary
echo before
while [ ! -e {folder}/go ]; do sleep 0.02; done
echo after
echo "end $GRAMPUS_ATTEMPT" >> {folder}/diary
echo answer=42 > $GRAMPUS_OUTPUT
"""
Something = TypeVar("Something")


def until(ask: Callable[[], Something | None], what: str, within: float = 20) -> Something:
    deadline = time.monotonic() + within
    while True:
        try:
            if answer := ask():
                return answer
        except GrampusError:
            pass  # The node is just coming up.
        assert time.monotonic() < deadline, f"after {within} s still not: {what}"
        time.sleep(0.02)


class Site:
    """A folder, the node in it, and the diary of its tasks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("GRAMPUS_")} | {
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "etc"),
        }
        self._node: subprocess.Popen[str] | None = None
        self._clients: list[Client] = []
        self._log = (folder / "node.log").open("a")

    @property
    def node(self) -> subprocess.Popen[str]:
        assert self._node is not None
        return self._node

    def up(self, *options: str) -> Client:
        """Starts the node and waits until it takes work."""
        self._node = subprocess.Popen(
            [sys.executable, "-m", "grampus.cli.main", "up", "--data", str(self.data),
             "--listen", "127.0.0.1:0", "--slots", "2", "--name", "n1", *options],
            env=self.env, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        assert self.node.stdout is not None
        line = self.node.stdout.readline()
        assert line.startswith("ready "), (self.folder / "node.log").read_text()
        token = (self.data / "token").read_text().strip()
        self._clients.append(Client(line.split()[1], token=token))
        return self._clients[-1]

    def kill(self) -> None:
        """kill -9 of the node; its warden is left alone."""
        self.node.kill()
        self.node.wait()
        assert self.node.stdout is not None
        self.node.stdout.close()
        self._node = None

    def end(self, number: int = signal.SIGTERM) -> None:
        self.node.send_signal(number)
        assert self.node.wait(20) == 0, (self.folder / "node.log").read_text()
        assert self.node.stdout is not None
        self.node.stdout.close()
        self._node = None

    @property
    def instance(self) -> str:
        return (self.data / "worker" / "warden.lock").read_text().partition(" ")[0]

    def warden(self) -> int:
        """Its pid: the warden is the parent of the shims, and says so in its log."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    mine = (Path(f"/proc/{parent}") / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                # Shims have the command line of the warden that they were forked from.
                if str(self.data / "worker").encode() in argv and argv != mine:
                    return int(entry.name)
        raise AssertionError("there is no warden")

    def diary(self) -> list[str]:
        try:
            return (self.folder / "diary").read_text().splitlines()
        except FileNotFoundError:
            return []

    def go(self) -> None:
        (self.folder / "go").touch()

    def start(self, client: Client) -> str:
        text = json.dumps(TASK.format(folder=self.folder))
        file = self.folder / "flow.yaml"
        file.write_text(f"workflow: flow\ntasks:\n  work: {{shell: {text}}}\n")
        client.apply(file)
        run = client.start("flow")
        until(lambda: self.diary() or None, "it has started")
        return run.id

    def close(self) -> None:
        if self._node is not None:
            self.end()
        elif (self.data / "worker" / "warden.lock").exists() and marked(self.instance):
            os.kill(self.warden(), signal.SIGTERM)
        for client in self._clients:
            client.close()
        self._log.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def attempts(client: Client, run: str) -> list[Any]:
    [task] = client.tasks(run)
    return list(task.attempts)


def lines(client: Client, run: str) -> list[str]:
    return "".join(piece.text for piece in client.logs(run)).splitlines()


def succeeded(client: Client, run: str) -> None:
    assert client.wait(run, 20).state == "SUCCEEDED"
    assert client.result(run, "work") == {"answer": "42"}
    # What an earlier attempt wrote before its warden died may have been kept, or not.
    last = attempts(client, run)[-1].attempt
    pieces = [piece for piece in client.logs(run) if piece.attempt == last]
    assert "".join(piece.text for piece in pieces).splitlines() == ["before", "after"]


def test_an_attempt_outlives_its_node_again_and_again_and_runs_once(site: Site) -> None:
    client = site.up()
    run = site.start(client)
    instance = site.instance
    for _ in range(2):
        site.kill()
        client = site.up()
        assert site.instance == instance
    # What it has written so far can be followed.
    until(lambda: lines(client, run) == ["before"], "the live log is there")
    [attempt] = attempts(client, run)
    assert attempt.state == "RUNNING"
    site.go()
    succeeded(client, run)
    assert site.diary() == ["start 1", "end 1"]
    # The numbers go on where they were.
    assert client.wait(client.start("flow").id, 20).state == "SUCCEEDED"
    assert site.instance == instance


def test_an_attempt_that_ends_while_its_node_is_away_has_ended_well(site: Site) -> None:
    run = site.start(site.up())
    site.kill()
    site.go()
    until(lambda: "end 1" in site.diary(), "it has ended")
    until(lambda: not marked(site.instance), "nothing of it is left")
    succeeded(site.up(), run)
    assert site.diary() == ["start 1", "end 1"]


def test_a_cancel_that_was_answered_is_carried_out_by_the_next_node(site: Site) -> None:
    client = site.up()
    run = site.start(client)
    client.cancel(run)
    site.kill()
    client = site.up()
    assert client.wait(run, 20).state == "CANCELLED"
    [attempt] = attempts(client, run)
    assert attempt.state == "CANCELLED"
    assert marked(site.instance) == []
    assert site.diary() == ["start 1"]


@pytest.mark.parametrize("node_too", [False, True])
def test_what_a_dead_warden_ran_is_lost_and_runs_again(site: Site, node_too: bool) -> None:
    client = site.up()
    run = site.start(client)
    instance, warden = site.instance, site.warden()
    if node_too:
        site.kill()
    os.kill(warden, signal.SIGKILL)
    if node_too:
        client = site.up()
    until(lambda: "start 2" in site.diary(), "it has started again")
    assert marked(instance) == []
    assert site.instance != instance
    site.go()
    succeeded(client, run)
    first, second = attempts(client, run)
    assert (first.state, second.state) == ("LOST", "SUCCEEDED")
    assert site.diary() == ["start 1", "start 2", "end 2"]


def test_detach_leaves_attempts_to_the_next_start_and_a_copy_gets_nothing(site: Site) -> None:
    client = site.up("--detach")
    run = site.start(client)
    instance = site.instance
    site.end()
    assert len(marked(instance)) >= 1
    copy = site.folder / "copy"
    shutil.copytree(site.data, copy, ignore=shutil.ignore_patterns("*.sock"))
    command = [sys.executable, "-m", "grampus.cli.main", "up", "--data", str(copy)]
    refused = subprocess.run(
        [*command, "--listen", "127.0.0.1:0"],
        env=site.env, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert refused.returncode == 4
    assert "is a copy" in refused.stderr
    # Another number of slots has to wait until its attempts are over.
    client = site.up("--slots", "3")
    assert [worker.slots for worker in client.workers()] == [2]
    assert site.instance == instance
    site.go()
    succeeded(client, run)
    assert site.diary() == ["start 1", "end 1"]
    site.kill()
    client = site.up("--slots", "3")
    assert [w.slots for w in client.workers() if w.state == "LIVE"] == [3]
    assert site.instance != instance


def test_a_python_attempt_is_taken_over_with_its_bundle_and_its_result(site: Site) -> None:
    (site.folder / "flow.py").write_text(
        "import pathlib, time\n"
        "from grampus import task, workflow\n"
        "@task\n"
        "def work(folder: str) -> dict:\n"
        "    with open(folder + '/diary', 'a') as diary:\n"
        "        diary.write('start\\n')\n"
        "    print('before', flush=True)\n"
        "    while not pathlib.Path(folder + '/go').exists():\n"
        "        time.sleep(0.02)\n"
        "    print('after')\n"
        "    return {'big': 'x' * 100_000}\n"
        "@workflow\n"
        "def flow(folder: str):\n"
        "    work(folder)\n"
    )
    client = site.up()
    client.apply(site.folder / "flow.py")
    run = client.start("flow", {"folder": str(site.folder)}).id
    until(lambda: site.diary() or None, "it has started")
    site.kill()
    client = site.up()
    site.go()
    assert client.wait(run, 20).state == "SUCCEEDED"
    assert client.result(run, "work") == {"big": "x" * 100_000}
    assert lines(client, run) == ["before", "after"]
    assert site.diary() == ["start"]
