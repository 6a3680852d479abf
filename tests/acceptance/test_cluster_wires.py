"""Servers that do not hear each other, or only one way, while clients reach all of them: nothing
that was answered is lost, nobody answers what it cannot know, and writes go on where they can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from grampus.testing.linearizability import assert_linearizable
from tests.acceptance import rewired
from tests.acceptance.cluster import Site
from tests.acceptance.node import COMMAND, until
from tests.acceptance.recorder import Crew, last_look, refuses
from tests.acceptance.wires import Wires

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]


class Parted(Site):
    """Servers that reach each other over wires only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.wires = Wires({name: port + 1 for name, port in self.ports.items()})

    def program(self, name: str) -> list[str]:
        file = self.folder / f"wires-{name}.json"
        file.write_text(json.dumps(self.wires.instead(name)))
        return [COMMAND[0], rewired.__file__, str(file)]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Parted]:
    made = Parted(tmp_path)
    made.wires.start()
    try:
        yield made
    finally:
        made.wires.mend()
        made.end()
        made.wires.close()


def test_servers_that_do_not_hear_each_other_lose_nothing_and_invent_nothing(
    ground: Parted,
) -> None:
    ground.grow()
    with Crew(lambda: ground.client(timeout=3.0), count=3) as crew:
        crew.go_on()
        _the_leader_alone(ground, crew)
        _a_leader_that_hears_nobody(ground, crew)
        _a_follower_that_hears_nobody(ground, crew)
        _everybody_alone(ground, crew)
    history = crew.history()
    ground.settled(3)
    for name in ground.servers:
        with ground.client(servers=name) as client:
            history += last_look(f"last look at {name}", client)
        assert "Traceback" not in ground.servers[name].said()
    assert_linearizable(history)


def _the_leader_alone(ground: Parted, crew: Crew) -> None:
    """The others elect another one; the old one answers nothing that it cannot know."""
    old = ground.leader()
    ground.wires.cut(*ground.wires.around(old))
    assert ground.leader(among=ground.others(old)) != old
    with ground.client(servers=old) as client:
        until(lambda: refuses(client))
    crew.go_on()
    ground.wires.mend()
    ground.settled(3)
    crew.go_on()


def _a_leader_that_hears_nobody(ground: Parted, crew: Crew) -> None:
    """Its own words arrive: nobody else would ask for votes, if it did not give up by itself."""
    old = ground.leader()
    ground.wires.cut(*((name, old) for name in ground.others(old)))
    assert ground.leader(among=ground.others(old)) != old
    crew.go_on()
    ground.wires.mend()
    ground.settled(3)
    crew.go_on()


def _a_follower_that_hears_nobody(ground: Parted, crew: Crew) -> None:
    """What it says arrives: it must not take the lead from the one that is heard by the others."""
    leader = ground.leader()
    deaf, other = ground.others(leader)
    ground.wires.cut((leader, deaf), (other, deaf))
    with ground.client(servers=deaf) as client:
        until(lambda: refuses(client))
    crew.go_on()
    assert ground.leader(among=leader + other) == leader
    ground.wires.mend()
    ground.settled(3)
    assert ground.leader() == leader
    crew.go_on()


def _everybody_alone(ground: Parted, crew: Crew) -> None:
    """Each refuses what is written, and says so at once."""
    ground.wires.cut(*ground.wires.ports)
    for name in ground.servers:
        with ground.client(servers=name) as client:
            until(lambda client=client: refuses(client))
            assert client.cluster().leader is None
    ground.wires.mend()
    crew.go_on()
