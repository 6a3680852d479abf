"""A cluster that was recovered by one of its servers, and the majority that was taken for lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grampus.model.run import RunState
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import Node, until

pytestmark = pytest.mark.raft
#: Seconds within which a server ends that can reach the recovered one.
BOUND = 10.0
#: Waits for a file, and writes down that it ran.
FLOW = """workflow: flow
tasks:
  only:
    lease: 2m
    shell: "while [ ! -e GO ]; do sleep 0.05; done; echo once >> RAN"
"""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


def begin(ground: Site) -> str:
    """A run whose task is under way."""
    go, ran = ground.folder / "go", ground.folder / "ran"
    text = FLOW.replace("GO", str(go)).replace("RAN", str(ran))
    with ground.client() as client:
        client.kv.put("/k", b"old")
        client.apply(ground.write("flow.yaml", text))
        run = client.start("flow").id
        until(lambda: client.tasks(run)[0].state == "RUNNING")
    return run


def finish(ground: Site, run: str, server: str) -> None:
    """Its one attempt was the only one, whoever led meanwhile."""
    (ground.folder / "go").touch()
    with ground.client(servers=server) as client:
        assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
        assert [each.attempt for each in client.tasks(run)[0].attempts] == [1]
    assert (ground.folder / "ran").read_text() == "once\n"


def recover(ground: Site) -> tuple[str, str]:
    """All servers die; the one that led goes on alone: its name, and those of the others."""
    left = ground.leader()
    rest = ground.others(left)
    for name in ground.servers:
        ground.kill(name)
    done = ground.cli("cluster", "recover", "--data", str(ground.folder_of(left)), "--yes")
    assert done.returncode == 0, done.stderr
    ground.launch(left).ready()
    return left, rest


def is_refused(node: Node) -> None:
    code, said = node.ended(BOUND)
    assert (code, "recovered without this server" in said) == (4, True), (code, said)
    assert "empty this server's folder" in said
    assert "Traceback" not in said


def test_the_lost_majority_ends_once_it_meets_who_has_recovered(ground: Site) -> None:
    ground.grow()
    worker = ground.worker("w1")
    run = begin(ground)
    left, rest = recover(ground)
    with ground.client(servers=left) as client:
        assert client.kv.get("/k").value == b"old"
        client.kv.put("/k", b"new")
        assert client.kv.get("/k").mod_revision > 2**32
        until(lambda: client.workers()[0].connected)
    for node in [ground.launch(name) for name in rest]:
        is_refused(node)
    with ground.client(servers=left) as client:
        assert client.kv.get("/k").value == b"new"
        assert client.cluster().leader == left
        assert client.workers()[0].connected
    # They know it from now on, whether anybody is there to tell them or not.
    ground.kill(left)
    for node in [ground.launch(name) for name in rest]:
        is_refused(node)
    ground.launch(left).ready()
    finish(ground, run, left)
    assert worker.process.poll() is None


def test_a_worker_started_anew_does_not_go_back_to_the_lost_majority(ground: Site) -> None:
    ground.grow()
    worker = ground.worker("w1")
    run = begin(ground)
    left, rest = recover(ground)
    with ground.client(servers=left) as client:
        until(lambda: client.workers()[0].connected)
    ground.kill(left)
    old = [ground.launch(name) for name in rest]
    ground.leader(rest)  # nobody tells them, and they are a majority
    with ground.client(servers=rest) as client:
        assert client.kv.get("/k").value == b"old"
        until(lambda: "a history that the cluster has left" in worker.said())
        ground.kill("w1")
        worker = ground.launch_worker("w1")
        until(lambda: worker.said().count("a history that the cluster has left") >= 2)
        assert not any(each.connected for each in client.workers())
    begun = time.monotonic()
    ground.launch(left)
    for node in old:
        is_refused(node)
    assert time.monotonic() - begun < BOUND
    ground.servers[left].ready()
    worker.ready(pattern=r"ready w1\n")
    finish(ground, run, left)


def test_a_survivor_that_was_left_behind_may_be_recovered_itself(ground: Site) -> None:
    """When the wrong one was chosen: what the other has begins a history of its own."""
    ground.grow()
    with ground.client() as client:
        client.kv.put("/k", b"old")
    left, rest = recover(ground)
    is_refused(ground.launch(rest[0]))
    ground.kill(left)
    done = ground.cli("cluster", "recover", "--data", str(ground.folder_of(rest[0])), "--yes")
    assert done.returncode == 0, done.stderr
    ground.launch(rest[0]).ready()
    with ground.client(servers=rest[0]) as client:
        assert client.kv.get("/k").value == b"old"


def test_nobody_recovers_while_another_one_answers(ground: Site) -> None:
    """Else a slip would end the servers that live, one after the other."""
    ground.grow()
    ground.kill("a")
    refused = ground.cli("cluster", "recover", "--data", str(ground.folder_of("a")), "--yes")
    assert refused.returncode == 4, refused
    assert f"not everybody else is gone: b at {ground.address('b')}, c at" in refused.stderr
    ground.kill("b")
    refused = ground.cli("cluster", "recover", "--data", str(ground.folder_of("a")), "--yes")
    assert f"not everybody else is gone: c at {ground.address('c')}; with" in refused.stderr
    ground.launch("b").ready()
    ground.launch("a").ready()
    ground.settled(3)
