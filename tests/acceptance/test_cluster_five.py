"""Five servers that know each other by `[cluster] servers`: they lose two, one is removed while it
is away, and those whose folders are lost never make a cluster of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from grampus.errors import NoQuorum, OutcomeUnknown
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import until

pytestmark = [pytest.mark.raft, pytest.mark.timeout(240)]


def test_five_servers_lose_two_and_shrink_to_three_and_are_never_two_clusters(
    tmp_path: Path,
) -> None:
    with site(tmp_path, "abcde") as ground:
        _found_by_the_file(ground)
        _lose_two(ground)
        _remove_while_it_is_away(ground)
        _two_empty_of_three(ground)
        for name in ground.servers:
            assert "Traceback" not in ground.servers[name].said()


def know_each_other(ground: Site, name: str) -> None:
    folder = ground.folder_of(name)
    folder.mkdir()
    addresses = [ground.address(each) for each in ground.ports]
    folder.joinpath("grampus.toml").write_text(f"[cluster]\nservers = {json.dumps(addresses)}\n")


def _found_by_the_file(ground: Site) -> None:
    """Who joins says no address: it asks those of the file, also those that are not there yet."""
    for name in ground.ports:
        know_each_other(ground, name)
    ground.found()
    for name in "bcde":
        ground.launch(name, "--token-file", ground.token()).ready()
    assert {member.role for member in ground.settled(5).members} == {"voter"}


def _lose_two(ground: Site) -> None:
    """The leader among them. With three gone nothing is written any more."""
    gone = ground.leader()
    gone += ground.others(gone)[0]
    for name in gone:
        ground.kill(name)
    left = ground.others(*gone)
    assert ground.leader(among=left) in left
    with ground.client(servers=left) as client:
        client.kv.put("/two/gone", "1")
        ground.kill(left[0])
        until(lambda: _refuses(ground, left[1:]))
    for name in gone + left[0]:
        ground.launch(name).ready()
    ground.settled(5)
    with ground.client(servers=gone) as client:
        assert client.kv.get("/two/gone").value == b"1"


def _refuses(ground: Site, names: str) -> bool:
    with ground.client(servers=names) as client:
        try:
            client.kv.put("/three/gone", "1")
        except NoQuorum:
            return True
        except OutcomeUnknown:  # it was on its way when they went
            pass
        return False


def _remove_while_it_is_away(ground: Site) -> None:
    """It has heard nothing of it, and is told when it comes back."""
    for name in "ed":
        ground.kill(name)
        with ground.client(servers="abc") as client:
            client.kv.put("/away", name)
            client.change_member(name, "remove")
        code, said = ground.launch(name).ended()
        assert code == 4, said
        assert "this server was removed from the cluster" in said.splitlines()[-1]
        ground.servers.pop(name).kill()
    assert len(ground.settled(3).members) == 3


def _two_empty_of_three(ground: Site) -> None:
    """They would be a majority: but of nothing. The third has everything, and waits."""
    token = ground.token()
    for name in "bc":
        ground.kill(name)
        shutil.rmtree(ground.folder_of(name))
        know_each_other(ground, name)
    code, said = ground.launch("b").ended()
    assert code != 0, said
    assert "to join, a token is needed" in said
    both = [ground.launch(name, "--token-file", token) for name in "bc"]
    for node in both:
        code, said = node.ended()
        assert code != 0, said
    assert _refuses(ground, "a")
    with ground.client(servers="a", stale=True) as client:
        assert client.kv.get("/away").value == b"d"
        assert client.cluster().leader is None
