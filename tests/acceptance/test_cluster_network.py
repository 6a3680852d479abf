"""Three servers on three machines, as far as the network goes: each in a namespace of its own, on
one bridge. Cables are pulled while clients use keys. Beyond loopback a cluster has TLS."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from grampus.config import load_config
from grampus.errors import GrampusError
from grampus.sdk.client import Client
from grampus.testing.linearizability import assert_linearizable
from tests.acceptance.cluster import Site
from tests.acceptance.node import COMMAND, Node, until
from tests.acceptance.recorder import Crew, refuses

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]
PORT = 8470
#: A network for tests (RFC 2544) that is nobody's.
NET = "198.18"


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stderr)


class Lan:
    """A bridge, and a namespace for each machine with a cable to it. Host .1 is this machine."""

    def __init__(self, machines: str) -> None:
        self._mark = secrets.token_hex(2)
        third = secrets.randbelow(250)
        self.bridge = f"gb{self._mark}"
        self.hosts = {name: f"{NET}.{third}.{10 + at}" for at, name in enumerate(machines)}
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{NET}.{third}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for name, host in self.hosts.items():
            space, cable = self.space(name), self._cable(name)
            ip("netns", "add", space)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", cable, "master", self.bridge, "up")
            ip("-n", space, "addr", "add", f"{host}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def space(self, name: str) -> str:
        return f"grampus-{self._mark}-{name}"

    def _cable(self, name: str) -> str:
        return f"gv{self._mark}{name}"

    def pull(self, name: str) -> None:
        """Nothing comes or goes, and nobody is told."""
        ip("link", "set", self._cable(name), "down")

    def plug(self, name: str) -> None:
        ip("link", "set", self._cable(name), "up")

    def part(self, apart: bool) -> None:
        """No machine reaches another one; this one reaches all of them."""
        for name in self.hosts:
            cable = self._cable(name)
            ip("link", "set", cable, "type", "bridge_slave", "isolated", "on" if apart else "off")

    def close(self) -> None:
        for name in self.hosts:
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


class Machines(Site):
    """Servers on machines of a Lan."""

    def __init__(self, folder: Path, lan: Lan) -> None:
        super().__init__(folder, "".join(lan.hosts))
        self.lan = lan

    def address(self, name: str) -> str:
        return f"{self.lan.hosts[name]}:{PORT}"

    def client(self, timeout: float = 10.0, *, servers: str = "", stale: bool = False) -> Client:
        names = servers or "".join(self.ports)
        folder = next(
            path for name in self.ports if (path := self.folder_of(name)).joinpath("token").exists()
        )
        flags = {
            "server": ",".join(f"https://{self.address(name)}" for name in names),
            "token_file": str(folder / "token"),
            "ca": str(folder / "tls" / "ca.pem"),
        }
        return Client(config=load_config(flags, environ=self.env), timeout=timeout, stale=stale)

    def launch(self, name: str, *options: str, folder: Path | None = None, log: str = "") -> Node:
        command = [
            "ip", "netns", "exec", self.lan.space(name), *COMMAND, "server", "start",
            "--data", str(self.folder_of(name)), "--name", name, "--listen", self.address(name),
            *options,
        ]  # fmt: skip
        node = self.servers[name] = Node(self, command, log=f"{name}.log")
        return node

    def ready(self, name: str) -> None:
        self.servers[name].ready(pattern=rf"ready https://{self.address(name)}\n")


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Machines]:
    if os.geteuid():
        pytest.skip("only root can make network namespaces")
    try:
        lan = Lan("abc")
    except (AssertionError, FileNotFoundError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    try:
        made = Machines(tmp_path, lan)
        try:
            yield made
        finally:
            made.end()
    finally:
        lan.close()


def test_cables_are_pulled_and_nothing_that_was_answered_is_lost(ground: Machines) -> None:
    ground.launch("a", "--init")
    ground.ready("a")
    for name in "bc":
        ground.join(name)
    for name in "bc":
        ground.ready(name)
    ground.settled(3)
    with Crew(lambda: ground.client(timeout=3.0), count=3) as crew:
        crew.go_on()
        _the_leader_alone(ground, crew)
        _everybody_alone(ground, crew)
    assert_linearizable(crew.history())
    ground.settled(3)


def _the_leader_alone(ground: Machines, crew: Crew) -> None:
    """The others elect another one; the old one answers nothing that it cannot know."""
    old = ground.leader()
    ground.lan.pull(old)
    new = ground.leader(among=ground.others(old))
    assert new != old
    crew.go_on()
    ground.lan.plug(old)
    with ground.client(servers=ground.others(old)) as client:
        revision = client.kv.put("/after", "1")
    with ground.client(servers=old) as client:
        until(lambda: _answers(client))
        assert client.kv.get("/after").mod_revision == revision
    crew.go_on()


def _answers(client: Client) -> bool:
    try:
        client.kv.put("/here", "1")
    except GrampusError:
        return False
    return True


def _everybody_alone(ground: Machines, crew: Crew) -> None:
    """Clients reach every server, but no server another one: each refuses what is written."""
    ground.lan.part(True)
    for name in "abc":
        with ground.client(servers=name) as client:
            until(lambda client=client: refuses(client))
            assert client.cluster().leader is None
    ground.lan.part(False)
    crew.go_on()
