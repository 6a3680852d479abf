"""A server that stands still (SIGSTOP) is given up, and goes on (SIGCONT) over its old connections:
nobody hears it any more, and it finds out and ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from grampus.consensus.members import GIVEN_UP, REMOVED
from grampus.errors import GrampusError, NotFound
from grampus.sdk.client import Client
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import Node, until
from tests.ports import free_ports

pytestmark = [pytest.mark.raft, pytest.mark.timeout(180)]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.grow()
        yield made


class Ghost:
    """A server that was stopped, and is no more one of the site's."""

    def __init__(self, ground: Site, name: str) -> None:
        self.name = name
        #: Whoever knows no other server.
        self.client = ground.client(servers=name, timeout=3.0)
        self.client.kv.put("/k", b"old")
        ground.hold(name)
        self.node: Node = ground.servers.pop(name)
        (ground.ports[name],) = free_ports(1)

    def ask(self) -> None:
        """It acknowledges nothing, and knows nothing that is older than what the others told."""
        with suppress(GrampusError):
            self.client.kv.put("/ghost", b"it was here")
            raise AssertionError("a server that was given up has taken a write")
        with suppress(GrampusError):
            assert self.client.kv.get("/k").value == b"new"

    def goes_on_and_ends(self) -> tuple[int, str]:
        self.node.process.send_signal(signal.SIGCONT)
        until(lambda: self.ask() or self.node.process.poll() is not None)
        return self.node.ended()

    def close(self) -> None:
        self.client.close()
        with suppress(ProcessLookupError):
            self.node.process.send_signal(signal.SIGCONT)
        self.node.kill()


def give_up(ground: Site, ghost: Ghost) -> Client:
    """A client of the others."""
    rest = "".join(ground.servers)
    client = ground.client(servers=rest)
    ground.leader(among=rest)
    until(lambda: {m.name: m.state for m in client.cluster().members}[ghost.name] == "silent")
    client.change_member(ghost.name, "replace")
    client.kv.put("/k", b"new")
    return client


def succeed(ground: Site, name: str) -> None:
    """Another folder takes its place under its name."""
    by = ground.leader(among="".join(ground.servers))
    options = ("--join", ground.address(by), "--token-file", ground.token())
    folder = ground.folder / "successor"
    ground.launch(name, *options, folder=folder, log="successor.log").ready()
    ground.settled(3)


def nothing_came_of_it(client: Client) -> None:
    with pytest.raises(NotFound):
        client.kv.get("/ghost")
    assert client.kv.get("/k").value == b"new"


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_its_successor_is_there_when_it_goes_on(ground: Site, role: str) -> None:
    leader = ground.leader()
    name = leader if role == "leader" else ground.others(leader)[0]
    with ExitStack() as stack:
        ghost = Ghost(ground, name)
        stack.callback(ghost.close)
        client = stack.enter_context(give_up(ground, ghost))
        succeed(ground, name)
        before = client.cluster()
        code, said = ghost.goes_on_and_ends()
        assert (code, "Traceback" in said) == (4, False), said
        # The one that it has read in its log, or the one that it was told.
        assert any(why in said.splitlines()[-1] for why in (REMOVED, GIVEN_UP)), said
        # It has brought about no election.
        after = client.cluster()
        assert (after.leader, after.term) == (before.leader, before.term)
        assert not any(member.complaint for member in after.members)
        nothing_came_of_it(client)
    for node in ground.servers.values():
        assert "Traceback" not in node.said()


def test_who_was_removed_while_it_was_off_is_told_so_at_its_start(ground: Site) -> None:
    """Nothing in its folder says so."""
    name = ground.others(ground.leader())[0]
    ground.kill(name)
    rest = ground.others(name)
    with ground.client(servers=rest) as client:
        until(lambda: {m.name: m.state for m in client.cluster().members}[name] == "silent")
        client.change_member(name, "remove")
        before = client.cluster()
        code, said = ground.launch(name).ended()
        assert (code, "Traceback" in said) == (4, False), said
        assert REMOVED in said.splitlines()[-1], said
        after = client.cluster()
        assert (after.leader, after.term) == (before.leader, before.term)
        assert [member.name for member in after.members] == sorted(rest)


def test_nobody_counts_its_vote_although_no_successor_is_there(ground: Site) -> None:
    """It is a voter as long as nobody has taken its place, and one of the others dies."""
    name = ground.leader()
    with ExitStack() as stack:
        ghost = Ghost(ground, name)
        stack.callback(ghost.close)
        client = stack.enter_context(give_up(ground, ghost))
        dies, left = "".join(ground.servers)
        ground.kill(dies)
        ghost.node.process.send_signal(signal.SIGCONT)
        with ground.client(servers=left, timeout=3.0) as lonely:

            def ask() -> bool:
                with suppress(GrampusError):
                    lonely.kv.put("/k", b"one of three")
                    raise AssertionError("a write was taken that one server of three has")
                ghost.ask()
                return ghost.node.process.poll() is not None

            until(ask)
        code, said = ghost.node.ended()
        assert (code, "Traceback" in said) == (4, False), said
        assert GIVEN_UP in said.splitlines()[-1], said
        ground.launch(dies).ready()
        succeed(ground, name)
        # What was asked of the one that was left may have happened since.
        client.kv.put("/k", b"new")
        nothing_came_of_it(client)
