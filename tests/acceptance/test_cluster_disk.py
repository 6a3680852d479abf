"""A server whose disk is full stops clearly and goes on when there is room, however far it is
behind by then: the others have let go of the log that it needs, so it gets a snapshot."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grampus.errors import OutcomeUnknown
from grampus.sdk.client import Client
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import until

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]
#: Of one value, in bytes; a transaction has three of them.
VALUE = 60_000
#: Transactions whose log is longer than what is kept for those who are behind (64 MiB).
MANY = 600


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    """Server c has a small disk of its own."""
    disk = tmp_path / "c"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        with site(tmp_path) as made:
            yield made
    finally:
        assert subprocess.run(["umount", "--lazy", str(disk)]).returncode == 0


def write(client: Client, number: int) -> None:
    """Larger than a kilobyte of log for each; what was written before is overwritten."""
    puts = [
        {"put": {"key": f"/big/{part}", "value": bytes([number % 256]) * VALUE}}
        for part in range(3)
    ]
    puts.append({"put": {"key": "/number", "value": str(number)}})
    with suppress(OutcomeUnknown):
        client.kv.txn([], puts)


def test_a_full_disk_stops_a_server_clearly_and_it_comes_back_by_a_snapshot(ground: Site) -> None:
    ground.grow()
    with ground.client(servers="ab") as client:
        # Who leads keeps the copies with which others joined, and the log behind them, for a while.
        client.change_member("b", "transfer")
        number = 0
        while ground.servers["c"].process.poll() is None:
            number += 1
            assert number < MANY
            write(client, number)
        stopped(ground)
        ground.launch("c")
        stopped(ground)
        for _ in range(MANY):
            number += 1
            write(client, number)
        client.kv.put("/number", str(number))
        found = {m.name: m.state for m in client.cluster().members}
        assert found["c"] == "silent"
    room = ["mount", "-o", "remount,size=1g", str(ground.folder_of("c"))]
    assert subprocess.run(room).returncode == 0
    ground.launch("c").ready()
    until(lambda: "a snapshot of index" in ground.servers["c"].said())
    ground.settled(3)
    with ground.client(servers="c") as client:
        assert client.kv.get("/number").value == str(number).encode()
        assert client.kv.get("/big/0").value == bytes([number % 256]) * VALUE


def stopped(ground: Site) -> None:
    """With one line that says why, and nothing else."""
    code, said = ground.servers["c"].ended()
    assert code == 4, said
    last = said.splitlines()[-1]
    assert last.startswith("error: "), said
    assert "disk is full" in last or "No space left" in last, said
    assert "Traceback" not in said
