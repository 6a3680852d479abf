"""Servers whose disks hang or are slow: neither full nor broken, only late. The others go on within
seconds, a person is told whose disk it is, and the server goes on by itself when its disk does."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grampus.cli.server import LAST
from grampus.errors import NoQuorum
from grampus.model.run import RunState
from grampus.sdk.answers import ClusterMember
from tests.acceptance import hanging_disk
from tests.acceptance.cluster import Site
from tests.acceptance.node import Node, until
from tests.acceptance.writers import Writers

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]
#: Seconds of a hang; and without an answer until others lead, on a busy machine.
HANG, SOON = 8.0, 5.0
FLOW = """workflow: flow
defaults: {lease: 10s}
tasks:
  first: {shell: "sleep 15"}
  second: {shell: "true", after: [first]}
"""
#: Each result is too large for the ledger.
LARGE = """workflow: large
params: {word: {type: str}}
tasks:
  only:
    shell: "printf '{\\"text\\": \\"%040000d\\"}' {{ params.word }} > $GRAMPUS_OUTPUT"
"""
HANGS = "its disk has not answered for "


class Ward(Site):
    """Each server has a disk of its own, which begins as it is told."""

    def __init__(self, folder: Path, disk: str) -> None:
        super().__init__(folder)
        self._first = disk
        for name in self.ports:
            self.hurt(name, disk)

    def program(self, name: str) -> list[str]:
        return [sys.executable, hanging_disk.__file__, str(self._disk(name))]

    def _disk(self, name: str) -> Path:
        return self.folder / f"disk-{name}"

    def hurt(self, name: str, how: str) -> None:
        """At once: a reader sees the one or the other."""
        aside = self.folder / "aside"
        aside.write_text(how)
        aside.replace(self._disk(name))

    def heal(self, name: str) -> None:
        self.hurt(name, self._first)

    def line(self, name: str, asked: str) -> ClusterMember:
        """Of that server in the status that the others tell."""
        with self.client(servers=asked) as client:
            return next(line for line in client.cluster().members if line.name == name)

    def end(self) -> None:
        for name in self.ports:
            self.heal(name)
        super().end()


@pytest.fixture(params=["0.001", "quick"], ids=["thread", "loop"])
def ward(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ward]:
    """Syncs wait for a thread, or hold up the event loop itself."""
    made = Ward(tmp_path, request.param)
    try:
        yield made
    finally:
        made.end()


def writers(ward: Ward, size: int = 16) -> Writers:
    return Writers(lambda: ward.client(timeout=3.0), size=size)


def has_everything(ward: Ward, written: Writers) -> None:
    assert len(written.keys) > 50
    for name in ward.servers:
        with ward.client(servers=name) as client:
            assert not written.lost(client)
        assert "Traceback" not in ward.servers[name].said()


def test_a_leader_whose_disk_hangs_is_followed_by_another(ward: Ward) -> None:
    ward.grow()
    old = ward.leader()
    others = ward.others(old)
    with writers(ward) as written:
        until(lambda: len(written.times) > 20)
        begun = time.monotonic()
        ward.hurt(old, "hang")
        assert ward.leader(among=others) != old
        until(lambda: any(at > begun + 1.0 for at in written.times), within=SOON)
        until(lambda: ward.line(old, others).state == "silent")
        said = ward.servers[old].said
        until(lambda: "the disk of the log has not answered for" in said())
        if ward._first != "quick":
            _says_itself(ward, old, others)
        time.sleep(max(0.0, begun + HANG - time.monotonic()))
        gap = written.gap(begun)
        assert gap < SOON, f"nothing was written for {gap:.1f} s"
        ward.heal(old)
        healed = time.monotonic()
        ward.settled(3)
        until(lambda: "the disk of the log answers again" in said())
        until(lambda: any(at > healed + 1.0 for at in written.times))
        assert written.gap(begun + HANG) < SOON
    assert written.longest < 10.5
    has_everything(ward, written)


def _says_itself(ward: Ward, old: str, others: str) -> None:
    """Its loop goes on: it tells its peers, and whoever asks, and it takes nothing."""
    until(lambda: ward.line(old, others).complaint.startswith(HANGS))
    with ward.client(servers=old, timeout=3.0) as client:
        found = client.cluster()
        assert found.leader is None
        assert found.advice[0].startswith(f"{old}: {HANGS}")
        begun = time.monotonic()
        with pytest.raises(NoQuorum, match="disk of this server does not answer"):
            client.kv.put("/k", b"v")
        assert time.monotonic() - begun < 1.0
    table = ward.cli(
        "cluster", "status", "--server", f"http://{ward.address(others[0])}",
        "--token-file", str(ward.folder_of(old) / "token"),
    )  # fmt: skip
    assert f"→ {old}: {HANGS}" in table.stdout
    assert "Start it again" not in table.stdout


def test_work_goes_on_under_another_leader_while_the_disk_of_the_old_one_hangs(ward: Ward) -> None:
    """Its workers go over to the other one, in time for the shortest lease."""
    ward.grow()
    ward.worker("w1")
    with ward.client() as client:
        client.apply(ward.write("flow.yaml", FLOW))
        run = client.submit("flow").id
        until(lambda: client.tasks(run)[0].state == "RUNNING")
    old = ward.leader()
    ward.hurt(old, "hang")
    with ward.client(servers=ward.others(old)) as client, writers(ward) as written:
        # Nothing need be written to notice it: keep-alives alone are not.
        until(lambda: len(written.times) > 20)
        assert client.wait(run, timeout=60).state is RunState.SUCCEEDED
        assert [len(task.attempts) for task in client.tasks(run)] == [1, 1]
        assert ward.line(old, ward.others(old)).state == "silent"
    ward.heal(old)
    ward.settled(3)
    with ward.client(servers=old) as client:
        assert client.run(run).state is RunState.SUCCEEDED


def test_a_follower_whose_disk_hangs_holds_nobody_up(ward: Ward) -> None:
    ward.grow()
    leader = ward.leader()
    late, other = ward.others(leader)
    with writers(ward, size=20_000) as written:
        until(lambda: len(written.times) > 20)
        before = {name: _memory(ward.servers[name]) for name in ward.servers}
        begun = time.monotonic()
        ward.hurt(late, "hang")
        until(lambda: ward.line(late, leader + other).state == "silent")
        if ward._first != "quick":
            until(lambda: ward.line(late, leader + other).complaint.startswith(HANGS))
        time.sleep(max(0.0, begun + HANG - time.monotonic()))
        assert ward.leader(among=leader + other) == leader, "the lead has changed for nothing"
        gap = written.gap(begun)
        assert gap < SOON, f"nothing was written for {gap:.1f} s"
        after = {name: _memory(ward.servers[name]) for name in ward.servers}
        ward.heal(late)
        ward.settled(3)
    for name, memory in after.items():
        # What is kept for who is behind, and what a server hears while it cannot listen: 64 MiB.
        assert memory - before[name] < 250 * 1024 * 1024, (name, before, after)
    until(lambda: not _lacks(ward, late, written))
    has_everything(ward, written)


def test_large_results_are_kept_while_the_disk_of_a_follower_hangs(tmp_path: Path) -> None:
    """By a majority; more of them than a process has threads to wait with."""
    ward = Ward(tmp_path, "0.001")
    try:
        ward.grow()
        ward.worker("w1")
        leader = ward.leader()
        late = ward.others(leader)[0]
        with ward.client(servers=ward.others(late)) as client:
            client.apply(ward.write("large.yaml", LARGE))
            ward.hurt(late, "hang")
            begun = time.monotonic()
            runs = [client.submit("large", {"word": str(number)}).id for number in range(20)]
            for run in runs:
                assert client.wait(run, timeout=60).state is RunState.SUCCEEDED
            assert time.monotonic() - begun < 30.0, "each has waited for the one that hangs"
            assert {len(task.attempts) for run in runs for task in client.tasks(run)} == {1}
            for number, run in enumerate(runs):
                assert client.result(run, "only")["text"].lstrip("0") == str(number).lstrip("0")
        ward.heal(late)
        ward.settled(3)
    finally:
        ward.end()


def _lacks(ward: Ward, name: str, written: Writers) -> bool:
    with ward.client(servers=name) as client:
        return bool(written.lost(client))


def _memory(node: Node) -> int:
    """Of its process, in bytes."""
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * 4096


def test_a_server_whose_disk_never_answers_can_be_stopped_and_started_again(
    tmp_path: Path,
) -> None:
    ward = Ward(tmp_path, "0.001")
    try:
        ward.grow()
        late = ward.others(ward.leader())[0]
        with writers(ward) as written:
            until(lambda: len(written.times) > 20)
            ward.hurt(late, "hang")
            until(lambda: ward.line(late, ward.others(late)).complaint.startswith(HANGS))
            ward.servers[late].process.terminate()
            code, said = ward.servers[late].ended(within=LAST + 10.0)
            assert code == 4, said
            assert "the disk does not answer" in said.splitlines()[-1]
            ward.heal(late)
            ward.launch(late).ready()
            ward.settled(3)
        until(lambda: not _lacks(ward, late, written))
        has_everything(ward, written)
    finally:
        ward.end()


def test_a_leader_whose_disk_is_slow_leads_no_longer_than_some_seconds(tmp_path: Path) -> None:
    ward = Ward(tmp_path, "0.001")
    try:
        ward.grow()
        old = ward.leader()
        with writers(ward) as written:
            until(lambda: len(written.times) > 20)
            ward.hurt(old, "0.52")
            # 10 s that decide, and what the machine takes.
            new = ward.leader(among=ward.others(old))
            until(lambda: ward.line(old, new).complaint.startswith("its disk is slow: a write"))
            changed = time.monotonic()
            until(lambda: time.monotonic() > changed + 4.0, every=0.2)
            assert ward.leader(among=ward.others(old)) != old
            assert written.gap(changed) < 1.0, "the slow one still holds up all the others"
            ward.heal(old)
            until(lambda: ward.line(old, new).complaint == "")
            ward.settled(3)
        has_everything(ward, written)
    finally:
        ward.end()
