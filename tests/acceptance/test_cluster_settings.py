"""`[cluster] servers` in grampus.toml: whoever starts without --join tries these, commands find the
servers by them, and an empty folder founds no second cluster as long as one of them answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Site, site
from tests.acceptance.node import COMMAND, Node

pytestmark = pytest.mark.raft


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        settings = tmp_path / "etc" / "grampus"
        settings.mkdir(parents=True)
        names = ", ".join(f'"{made.address(name)}"' for name in made.ports)
        (settings / "grampus.toml").write_text(f"[cluster]\nservers = [{names}]\n")
        yield made


def test_servers_workers_and_commands_find_each_other_by_the_settings(ground: Site) -> None:
    ground.found("a")
    for name in "bc":
        ground.launch(name, "--token-file", ground.token()).ready()
    ground.settled(3)
    command = [
        *COMMAND, "worker", "start", "--data", str(ground.folder_of("w")), "--name", "w",
        "--token-file", ground.token("worker"),
    ]  # fmt: skip
    worker = ground.workers["w"] = Node(ground, command, log="w.log")
    worker.ready(pattern=r"ready w\n")
    # As on another machine: no node of this user has left its address.
    token = (ground.folder_of("a") / "token").read_text().strip()
    elsewhere = ground.env | {"GRAMPUS_STATE": str(ground.folder / "other"), "GRAMPUS_TOKEN": token}
    ground.kill("a")
    done = subprocess.run(
        [*COMMAND, "kv", "put", "/k", "v"],
        env=elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_two_empty_servers_of_three_found_no_second_cluster(ground: Site) -> None:
    ground.grow()
    left = ground.leader()
    lost = ground.others(left)
    with ground.client() as client:
        client.kv.put("/k", "kept")
    token = ground.token()
    for name in lost:
        ground.kill(name)
        shutil.rmtree(ground.folder_of(name))
    # Each by itself, with the other, and as if it was the first one.
    for options, code, why in [
        ([], 2, "a token is needed"),
        (["--token-file", token], 3, "majority"),
        (["--init"], 4, "a second cluster is not founded"),
    ]:
        both = [ground.launch(name, *options) for name in lost]
        for node in both:
            ended, said = node.ended()
            assert (ended, why in said) == (code, True), said
            assert "Traceback" not in said
        for name in lost:
            shutil.rmtree(ground.folder_of(name))
    with ground.client(servers=left, stale=True) as client:
        assert client.kv.get("/k", stale=True).value == b"kept"
        assert client.cluster().leader is None
