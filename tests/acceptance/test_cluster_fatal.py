"""What Raft cannot go on from ends the server with the reason, and the others go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import forged
from tests.acceptance.cluster import Site

pytestmark = [pytest.mark.raft, pytest.mark.timeout(120)]


class Forged(Site):
    def program(self, name: str) -> list[str]:
        return [sys.executable, forged.__file__, str(self.folder / f"break-{name}")]

    def break_one(self, kind: str) -> tuple[str, int, str]:
        """A follower: its name, its exit code, and what it said."""
        name = self.others(self.leader())[0]
        with self.client() as client:
            client.kv.put("/before", "1")
        (self.folder / f"break-{name}").write_text(kind)
        return name, *self.servers[name].ended()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Forged]:
    made = Forged(tmp_path)
    try:
        made.grow()
        yield made
    finally:
        made.end()


def test_a_server_whose_raft_panics_ends_and_goes_on_as_a_new_process(ground: Forged) -> None:
    name, code, said = ground.break_one("panic")
    assert code == 70, said
    assert said.count("Traceback") == 0, said
    assert "RaftFatal: broken [raft.rs:1]" in said
    assert "please report it" in said.splitlines()[-1]
    with ground.client(servers=ground.others(name)) as client:
        revision = client.kv.put("/after", "2")
    ground.launch(name).ready()
    ground.settled(3)
    with ground.client(servers=name) as client:
        assert client.kv.get("/before").value == b"1"
        assert client.kv.get("/after").mod_revision == revision


def test_a_server_that_has_lost_entries_ends_for_good_and_is_replaced(ground: Forged) -> None:
    """It has said that it has them: it must not vote again, also after another start."""
    name, code, said = ground.break_one("lost")
    for _ in range(2):
        assert code == 4, said
        assert "Traceback" not in said
        assert f"grampus cluster replace {name}, empty this folder" in said.splitlines()[-1]
        code, said = ground.launch(name).ended()
    assert ground.leader(among=ground.others(name)) != name
    with ground.client(servers=ground.others(name)) as client:
        client.kv.put("/after", "2")
