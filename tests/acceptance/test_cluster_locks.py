"""`grampus kv lock` beside three real servers: who holds a lock keeps it through the death of the
leader, whichever server it speaks with, and what it runs never runs twice at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Site, site
from tests.acceptance.node import COMMAND, until

pytestmark = pytest.mark.raft
#: It writes who it is until it is told to end.
SCRIPT = (
    'trap "exit 0" TERM; while :; do echo NAME $GRAMPUS_FENCING_TOKEN >> STORE; sleep 0.05; done'
)
#: Seconds of the sessions.
TTL = 8


class Holders:
    """Processes of `kv lock` that want the same lock, each at servers of its own."""

    def __init__(self, ground: Site) -> None:
        self.ground = ground
        self.store = ground.folder / "store"
        self.store.touch()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, servers: str) -> None:
        urls = ",".join(f"http://{self.ground.address(each)}" for each in servers)
        script = SCRIPT.replace("NAME", name).replace("STORE", str(self.store))
        command = [
            *COMMAND, "kv", "lock", "--ttl", f"{TTL}s", "--server", urls,
            "--token-file", str(self.ground.folder_of("a") / "token"), "job", "sh", "-c", script,
        ]  # fmt: skip
        self.running[name] = subprocess.Popen(command, env=self.ground.env)

    def writes(self) -> list[tuple[str, int]]:
        lines = self.store.read_text().splitlines()
        return [(name, int(token)) for name, token in map(str.split, lines)]

    def wait(self, name: str, count: int) -> None:
        """Until it has written so often from now on."""
        least = self.count(name) + count
        until(lambda: self.count(name) >= least)

    def count(self, name: str) -> int:
        return sum(who == name for who, _ in self.writes())

    def end(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.grow()
        yield made


@pytest.mark.parametrize("fault", ["kill", "hold"])
def test_a_lock_outlives_its_leader_and_goes_on_when_it_is_given_up(
    ground: Site, fault: str
) -> None:
    """Killed, or standing still with all its connections open."""
    holders = Holders(ground)
    leader = ground.leader()
    follower = ground.others(leader)[0]
    try:
        # Its signs of life are passed on; and who speaks with the leader too finds another server.
        holders.start("one", follower if fault == "kill" else leader + follower)
        holders.wait("one", 5)
        holders.start("two", follower + leader)
        with ground.client() as client:
            until(lambda: len(list(client.kv.range("/locks/job/"))) == 2)
        (ground.kill if fault == "kill" else ground.hold)(leader)
        # For longer than a session lives that nobody confirms.
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 1.5 * TTL)
        holders.wait("one", 5)
        assert holders.count("two") == 0
        holders.running["one"].send_signal(signal.SIGTERM)
        assert holders.running["one"].wait(20) == 0
        holders.wait("two", 5)
    finally:
        holders.end()
    tokens = [token for _, token in holders.writes()]
    assert tokens == sorted(tokens)
    assert len({*holders.writes()}) == len({*tokens}) == 2
