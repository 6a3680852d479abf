"""Servers that found, grow, heal, and are taken out again; as a person does it."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from grampus.errors import ConditionFailed, GrampusError, NoQuorum
from grampus.model.run import RunState
from tests.acceptance.cluster import Site, site
from tests.acceptance.node import Ground, until
from tests.ports import free_ports

pytestmark = pytest.mark.raft
FLOW = """workflow: flow
tasks:
  first: {shell: "echo n=1 > $GRAMPUS_OUTPUT"}
  last: {shell: "sleep SECONDS; echo {{ tasks.first.output.n }}", after: [first]}
"""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


#: Its result is too large for the ledger.
LARGE = """workflow: large
tasks:
  only: {shell: "printf '{\\"text\\": \\"%040000d\\"}' 7 > $GRAMPUS_OUTPUT"}
"""


def store_a_blob(ground: Site) -> str:
    """By a run; its hash."""
    ground.worker("w1")
    with ground.client() as client:
        client.apply(ground.write("large.yaml", LARGE))
        run = client.start("large").id
        assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
    found = {hash for name in ground.servers for hash in blobs_of(ground, name)}
    assert len(found) == 1
    return found.pop()


def blobs_of(ground: Site, name: str) -> set[str]:
    store = ground.folder_of(name) / "blobs"
    return {path.name for path in store.glob("??/*")}


def flow(ground: Site, seconds: float = 0.1) -> Path:
    return ground.write("flow.yaml", FLOW.replace("SECONDS", str(seconds)))


def test_what_was_answered_survives_kill_9_of_the_leader_and_work_goes_on(ground: Site) -> None:
    ground.grow()
    ground.worker("w1")
    with ground.client() as client:
        client.kv.put("/k", b"before")
        client.apply(flow(ground, 2.0))
        run = client.start("flow").id
        until(lambda: client.tasks(run)[1].state == "RUNNING")
        old = ground.leader()
        ground.kill(old)
        assert client.kv.get("/k").value == b"before"
        client.kv.put("/k", b"after")
        assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
        story = [line for line in client.story(run) if "last" in str(line)]
        assert [task.attempts[-1].attempt for task in client.tasks(run)] == [1, 1], story
        ground.launch(old).ready()
        ground.settled(3)
        with ground.client(servers=old) as again:
            assert again.kv.get("/k").value == b"after"
            assert again.run(run).state is RunState.SUCCEEDED


def test_two_of_three_gone_refuses_writes_at_once_and_heals_by_itself(ground: Site) -> None:
    ground.grow()
    with ground.client() as client:
        client.apply(flow(ground))
    left, token = ground.leader(), ground.token()
    for name in ground.others(left):
        ground.kill(name)
    with ground.client(servers=left) as client:

        def refused() -> bool:
            try:
                client.kv.put("/k", b"x")
            except NoQuorum:
                return True
            except GrampusError:
                return False
            raise AssertionError("a minority has taken a write")

        until(refused)
        begun = time.monotonic()
        for _ in range(5):
            assert refused()
        assert time.monotonic() - begun < 5.0  # they take no time; the machine may be busy
        with pytest.raises(NoQuorum):
            list(client.workflows())
        said = client.cluster()
        assert said.leader is None
        assert "cluster recover" in said.advice[0]
    with ground.client(servers=left, stale=True) as client:
        assert [workflow.name for workflow in client.workflows()] == ["flow"]
    whole, lost = ground.others(left)
    _an_empty_folder_founds_nothing(ground, lost, left, token)
    ground.launch(whole)
    with ground.client(servers=left + whole) as client:
        until(lambda: _put(client))
        assert [m.name for m in client.cluster().members] == ["a", "b", "c"]


def _an_empty_folder_founds_nothing(ground: Site, name: str, left: str, token: str) -> None:
    """Not by itself, and not with the word of a server that has no majority."""
    shutil.rmtree(ground.folder_of(name))
    code, said = ground.launch(name).ended()
    assert (code, "--init" in said) == (2, True), said
    joining = ground.launch(name, "--join", ground.address(left), "--token-file", token)
    code, said = joining.ended()
    assert code == 3, said
    assert "majority" in said.splitlines()[-1], said


def test_two_empty_folders_of_three_found_no_second_cluster(ground: Site) -> None:
    """Not with each other, though they would be a majority, nor over what the third one has."""
    ground.grow()
    left, token = ground.leader(), ground.token()
    with ground.client() as client:
        client.kv.put("/k", b"kept")
    for name in (empty := ground.others(left)):
        ground.kill(name)
        shutil.rmtree(ground.folder_of(name))
    started = [ground.launch(name) for name in empty]
    for node in started:
        code, said = node.ended()
        assert (code, "--init" in said) == (2, True), said
    one, other = empty
    joining = [
        ground.launch(name, "--join", ground.address(by), "--token-file", token)
        for name, by in ((one, other), (other, one))
    ]
    for node in joining:
        code, said = node.ended()
        assert code == 3, said
        assert "nobody lets this node join" in said, said
    for name in empty:
        assert not (ground.folder_of(name) / "generation").exists()
    with ground.client(servers=left, stale=True) as client:
        assert client.kv.get("/k").value == b"kept"
        assert client.cluster().leader is None


def _put(client: object) -> bool:
    try:
        client.kv.put("/k", b"y")  # type: ignore[attr-defined]
    except GrampusError:
        return False
    return True


def test_a_leader_whose_followers_stand_still_refuses_at_once(ground: Site) -> None:
    """Their connections stay open: only their silence tells."""
    ground.grow()
    left = ground.leader()
    for name in ground.others(left):
        ground.hold(name)
    with ground.client(servers=left) as client:
        until(lambda: client.cluster().leader is None, 10)
        until(lambda: client.cluster().led > 2_000, 10)
        begun = time.monotonic()
        for _ in range(5):
            with pytest.raises(NoQuorum):
                client.kv.put("/k", b"x")
            with pytest.raises(NoQuorum):
                client.kv.get("/k")
        assert time.monotonic() - begun < 5.0
        done = ground.cli("kv", "put", "/k", "x", "--server", f"http://{ground.address(left)}")
        assert done.returncode == 3, done.stderr
        assert "no server leads" in done.stderr
    for name in ground.others(left):
        ground.go_on(name)
    with ground.client() as client:
        until(lambda: ground.leader())
        client.kv.put("/k", b"x")


def test_all_of_them_killed_and_started_again_have_everything(ground: Site) -> None:
    ground.grow()
    with ground.client() as client:
        for number in range(50):
            client.kv.put(f"/n/{number}", str(number).encode())
    for name in list(ground.servers):
        ground.kill(name)
    (ground.ports["c"],) = free_ports(1)  # it listens elsewhere from now on
    for name in list(ground.servers):
        ground.launch(name)
    for name in ground.servers:
        ground.servers[name].ready()
        with ground.client(servers=name) as client:
            found = {key.key: key.value for key in client.kv.range("/n/")}
            assert found == {f"/n/{n}": str(n).encode() for n in range(50)}
    ground.settled(3)
    with ground.client(servers="a") as client:
        until(lambda: [m.address for m in client.cluster().members][2] == ground.address("c"))


def test_a_stopped_leader_that_goes_on_loses_nothing_and_misleads_nobody(ground: Site) -> None:
    ground.grow()
    old = ground.leader()
    with ground.client(servers=old) as before, ground.client(servers=ground.others(old)) as client:
        before.kv.put("/k", b"1")
        revision = before.kv.get("/k").mod_revision
        ground.hold(old)
        new = ground.leader(among=ground.others(old))
        assert new != old
        client.kv.put("/k", b"2", if_revision=revision)
        ground.go_on(old)
        assert before.kv.get("/k").value == b"2"
        with pytest.raises(ConditionFailed):
            before.kv.put("/k", b"3", if_revision=revision)
    ground.settled(3)


def test_a_lost_folder_is_refused_under_its_name_and_replaced(ground: Site) -> None:
    ground.grow()
    with ground.client() as client:
        client.kv.put("/k", b"kept")
    blob = store_a_blob(ground)
    lost = ground.others(ground.leader())[0]
    ground.kill(lost)
    shutil.rmtree(ground.folder_of(lost))
    empty = ground.launch(lost)
    code, said = empty.ended()
    assert (code, "--init" in said, "--join" in said) == (2, True, True)
    code, said = ground.join(lost, ground.leader()).ended()
    assert code == 4
    assert f"grampus cluster replace {lost}" in said
    with ground.client(servers=ground.others(lost)) as client:
        until(lambda: {m.name: m.state for m in client.cluster().members}[lost] == "silent")
        client.change_member(lost, "replace")
        shutil.rmtree(ground.folder_of(lost))
        ground.join(lost, ground.leader(among=ground.others(lost))).ready()
    ground.settled(3)
    with ground.client(servers=lost) as client:
        assert client.kv.get("/k").value == b"kept"
        until(lambda: blobs_of(ground, lost) == {blob}, 10)
        until(lambda: all(m.cpu is not None for m in client.cluster().members), 10)
        assert all(m.lacks == 0 and (m.memory or 0) > 0 for m in client.cluster().members)


def put_back(copy: Path, folder: Path) -> None:
    """In place, as an image of the disk is: the folder and node.toml keep their inodes."""
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part)
        elif part.name != "node.toml":
            part.unlink()
    identity = (copy / "node.toml").read_bytes()
    assert (folder / "node.toml").read_bytes() == identity
    shutil.copytree(copy, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node.toml"))


def test_a_folder_that_is_put_back_to_an_earlier_time_is_refused_and_replaced(
    ground: Site,
) -> None:
    ground.grow()
    back = ground.others(ground.leader())[0]
    ground.kill(back)
    shutil.copytree(ground.folder_of(back), ground.folder / "image")
    ground.launch(back).ready()
    ground.settled(3)
    with ground.client() as client:
        client.kv.put("/k", b"kept")
    ground.kill(back)
    put_back(ground.folder / "image", ground.folder_of(back))
    for _ in range(2):
        code, said = ground.launch(back).ended()
        assert (code, "Traceback" in said) == (4, False), said
        assert "folder is older than what the cluster has seen of it" in said
        assert f"grampus cluster replace {back}" in said
    with ground.client(servers=ground.others(back)) as client:
        about = {m.name: m.complaint for m in client.cluster().members}[back]
        assert about == "its folder is older than what was seen of it"
        client.change_member(back, "replace")
        shutil.rmtree(ground.folder_of(back))
        ground.join(back, ground.leader(among=ground.others(back))).ready()
    ground.settled(3)


@pytest.mark.parametrize("port", [0, 1])
def test_a_busy_port_is_told_before_anything_is_founded_or_joined(ground: Site, port: int) -> None:
    with socket.create_server(("127.0.0.1", ground.ports["a"] + port)):
        code, said = ground.launch("a", "--init").ended()
    assert (code, "another process has this port" in said) == (4, True), said
    assert not (ground.folder_of("a") / "generation").exists()
    ground.found("a")
    join = ("--join", ground.address("a"), "--token-file", ground.token())
    with socket.create_server(("127.0.0.1", ground.ports["b"] + port)):
        code, said = ground.launch("b", *join).ended()
    assert (code, "another process has this port" in said) == (4, True), said
    with ground.client(servers="a") as client:
        assert [member.name for member in client.cluster().members] == ["a"]
    ground.launch("b", *join).ready()  # the token was not used


def test_a_damaged_ledger_is_found_by_a_check_and_its_server_stops(ground: Site) -> None:
    ground.grow()
    with ground.client() as client:
        client.kv.put("/k", b"right")
    checked = ground.cli("cluster", "check")
    assert checked.returncode == 0, checked.stderr
    assert [line.split()[1] for line in checked.stdout.splitlines()[2:]] == ["same"] * 3
    bad = ground.others(ground.leader())[0]
    ground.kill(bad)
    (ledger,) = ground.folder_of(bad).glob("ledger/*/ledger.db")
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("UPDATE kv SET value = x'00' WHERE key = CAST('/k' AS BLOB)")
    ground.launch(bad).ready()
    ground.settled(3)
    checked = ground.cli("cluster", "check", "--wait", "20s")
    assert checked.returncode == 1
    found = [line.split()[:2] for line in checked.stdout.splitlines()[2:]]
    assert found == [[name, "differs" if name == bad else "same"] for name in "abc"]
    assert f"grampus cluster replace {bad}" in checked.stderr
    code, said = ground.servers[bad].ended()
    assert (code, "is not that of the majority" in said) == (4, True), said


def test_a_removed_server_ends_and_is_told_so_when_it_comes_back(ground: Site) -> None:
    """Also the one that leads: it gives the lead away first."""
    ground.grow()
    with ground.client() as client:
        gone = ground.leader()
        found = client.change_member(gone, "remove")
        assert gone not in [member.name for member in found.members]
        client.kv.put("/k", b"still here")
    for _ in range(2):
        code, said = ground.servers[gone].ended()
        assert code == 4, said
        assert "removed from the cluster" in said.splitlines()[-1], said
        assert "Traceback" not in said
        ground.launch(gone)
    with ground.client(servers=ground.others(gone)) as client:
        assert client.kv.get("/k").value == b"still here"
        assert client.cluster().can_lose == 0


def test_a_server_that_was_removed_while_it_was_away_is_told_so(ground: Site) -> None:
    ground.grow()
    gone = ground.others(ground.leader())[0]
    ground.kill(gone)
    with ground.client(servers=ground.others(gone)) as client:
        until(lambda: {m.name: m.state for m in client.cluster().members}[gone] == "silent")
        client.change_member(gone, "remove")
        code, said = ground.launch(gone).ended()
        assert (code, "Traceback" in said) == (4, False), said
        assert "removed from the cluster" in said.splitlines()[-1], said
        client.kv.put("/k", b"still here")
        assert [m.name for m in client.cluster().members] == sorted(ground.others(gone))


def test_the_folder_of_a_lone_node_becomes_a_cluster_with_all_its_runs(tmp_path: Path) -> None:
    lone = Ground(tmp_path / "lone", data=tmp_path / "a")
    with lone.up(), lone.client() as client:
        client.apply(lone.write("flow.yaml", FLOW.replace("SECONDS", "0")))
        run = client.start("flow").id
        assert client.wait(run, timeout=30).state is RunState.SUCCEEDED
    with site(tmp_path) as ground:
        ground.grow()
        for name in ground.servers:
            with ground.client(servers=name) as client:
                assert client.run(run).state is RunState.SUCCEEDED
        ground.kill("a")
        node = lone.start()
        code, said = node.ended()
        node.kill()
        assert (code, "grampus server start" in said) == (4, True), said


def test_a_snapshot_is_the_beginning_of_another_cluster(ground: Site, tmp_path: Path) -> None:
    ground.grow()
    file = tmp_path / "saved.tar"
    blob = store_a_blob(ground)
    with ground.client() as client:
        client.kv.put("/k", b"saved")
        assert client.save_snapshot(file) == file.stat().st_size
        assert file.stat().st_mode & 0o077 == 0
        client.kv.put("/k", b"later")
    with site(tmp_path / "other", "x") as other:
        done = other.cli(
            "cluster", "restore", str(file), "--data", str(other.folder_of("x")), "--name", "x",
            "--listen", other.address("x"), "--yes",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert blobs_of(other, "x") == {blob}
        other.launch("x").ready()
        with other.client() as client:
            assert client.kv.get("/k").value == b"saved"
            (run,) = client.runs()
            assert len(client.result_bytes(run.id, "only")) > 40_000
