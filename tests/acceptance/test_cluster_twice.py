"""Two processes on copies of one server's folder: one of them is the server, the other one ends."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from grampus.consensus.pins import TWICE
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import Node
from tests.ports import free_ports

pytestmark = [pytest.mark.raft, pytest.mark.timeout(180)]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.grow()
        yield made


def clone(ground: Site, name: str) -> Path:
    """As when somebody says that the original will never run again, and is wrong. Its server stands
    still meanwhile."""
    copy = ground.folder / "clone"
    shutil.copytree(ground.folder_of(name), copy)
    file = copy / "node.toml"
    file.write_text(re.sub(r"(?m)^(machine|place) = .*\n", "", file.read_text()))
    return copy


def start(ground: Site, name: str, folder: Path) -> tuple[Node, int]:
    """A second process of that server, and its port."""
    first = ground.servers.pop(name)
    port, (ground.ports[name],) = ground.ports[name], free_ports(1)
    second = ground.launch(name, folder=folder, log="clone.log")
    mine, ground.ports[name] = ground.ports[name], port
    ground.servers["clone"], ground.servers[name] = second, first
    return second, mine


def test_the_second_process_is_told_and_the_first_goes_on(ground: Site) -> None:
    name = ground.others(ground.leader())[0]
    ground.hold(name)
    copy = clone(ground, name)
    ground.go_on(name)
    ground.settled(3)
    second, _ = start(ground, name, copy)
    code, said = second.ended()
    assert (code, "Traceback" in said) == (4, False), said
    assert TWICE in said.splitlines()[-1], said
    found = ground.settled(3)
    line = next(member for member in found.members if member.name == name)
    assert (line.address, line.complaint) == (ground.address(name), "")
    with ground.client(servers=name) as client:
        client.kv.put("/k", b"v")
        assert client.kv.get("/k").value == b"v"


def test_a_first_process_that_stood_still_finds_that_another_has_taken_its_place(
    ground: Site,
) -> None:
    """Whoever answers is the server: never both."""
    name = ground.others(ground.leader())[0]
    ground.hold(name)
    second, port = start(ground, name, clone(ground, name))
    second.ready()
    first = ground.servers[name]
    ground.ports[name] = port
    ground.settled(3)
    first.process.send_signal(signal.SIGCONT)
    code, said = first.ended()
    assert (code, "Traceback" in said) == (4, False), said
    assert "Traceback" not in second.said()
    found = ground.settled(3)
    assert next(m.address for m in found.members if m.name == name) == f"127.0.0.1:{port}"
