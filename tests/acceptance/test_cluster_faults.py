"""Servers that are killed, stopped and all started again while clients use keys: what each client
was told can be explained by one key space that does one thing after the other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from grampus.testing.linearizability import assert_linearizable
from tests.acceptance.cluster import Site, site
from tests.acceptance.recorder import Crew, last_look

pytestmark = [pytest.mark.raft, pytest.mark.timeout(300)]
#: Answers that have to come after each fault before the next one.
ANSWERS = 40


def test_what_clients_were_told_under_faults_is_linearizable(tmp_path: Path) -> None:
    with site(tmp_path) as ground:
        ground.grow()
        with Crew(lambda: ground.client(timeout=3.0)) as crew:
            crew.go_on(ANSWERS)
            _kill_the_leader(ground, crew)
            _kill_a_follower(ground, crew)
            _stop_the_leader(ground, crew)
            _hold_a_follower_for_long(ground, crew)
            _end_all(ground, crew)
        history = crew.history()
        for name in ground.servers:
            with ground.client(servers=name) as client:
                history += last_look(f"last look at {name}", client)
        assert_linearizable(history)
        ground.settled(3)
        for name in ground.servers:
            assert "Traceback" not in ground.servers[name].said()


def _kill_the_leader(ground: Site, crew: Crew) -> None:
    """kill -9; the others go on, and it comes back."""
    old = ground.leader()
    ground.kill(old)
    crew.go_on(ANSWERS)
    assert ground.leader(among=ground.others(old)) != old
    ground.launch(old).ready()
    crew.go_on(ANSWERS)


def _kill_a_follower(ground: Site, crew: Crew) -> None:
    """kill -9; nobody but its own clients notices, and it comes back to what it has missed."""
    leader = ground.leader()
    gone = ground.others(leader)[0]
    ground.kill(gone)
    crew.go_on(ANSWERS)
    with ground.client(servers=ground.others(gone)) as client:
        assert client.cluster().leader == leader
        revision = client.kv.put("/missed", "1")
    ground.launch(gone).ready()
    with ground.client(servers=gone) as client:
        assert client.kv.get("/missed").mod_revision == revision
    crew.go_on(ANSWERS)


def _stop_the_leader(ground: Site, crew: Crew) -> None:
    """SIGSTOP: it still holds its connections, and believes that it leads when it goes on."""
    old = ground.leader()
    ground.hold(old)
    assert ground.leader(among=ground.others(old)) != old
    crew.go_on(ANSWERS)
    ground.go_on(old)
    crew.go_on(ANSWERS)


def _hold_a_follower_for_long(ground: Site, crew: Crew) -> None:
    """10 s behind; it never answers with what it had before."""
    late = ground.others(ground.leader())[0]
    ground.hold(late)
    time.sleep(10)
    crew.go_on(ANSWERS)
    with ground.client(servers=ground.others(late)) as client:
        revision = client.kv.put("/late", "1")
    ground.go_on(late)
    with ground.client(servers=late) as client:
        assert client.kv.get("/late").mod_revision == revision
    crew.go_on(ANSWERS)


def _end_all(ground: Site, crew: Crew) -> None:
    """kill -9 to all of them at once, as when the power is gone."""
    for name in ground.servers:
        ground.kill(name)
    for name in list(ground.servers):
        ground.launch(name)
    for node in ground.servers.values():
        node.ready()
    crew.go_on(ANSWERS)
