"""A cluster goes from this version to the next, one server after the other, with writes going on.

The next version is `next_grampus`. And what servers do whose ledgers are not the same.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from grampus.checksum import checksum
from grampus.consensus.generation import Generation
from grampus.consensus.snapshots import LEDGER
from grampus.database import Database
from grampus.errors import GrampusError, NotFound, VersionMismatch
from tests.acceptance.cluster import Site
from tests.acceptance.node import COMMAND, Node, until

pytestmark = pytest.mark.raft
NEXT = [sys.executable, "-m", "next_grampus"]
#: Seconds that an election may take on a machine with much else to do.
ELECTION = 4.0


class Upgraded(Site):
    """Servers that are started with this version or with the next one."""

    def __init__(self, folder: Path, names: str) -> None:
        super().__init__(folder, names)
        here = str(Path(__file__).parent)
        self.env["PYTHONPATH"] = ":".join(p for p in (here, self.env["PYTHONPATH"]) if p)

    def begin(self, name: str, command: list[str], *options: str) -> Node:
        """Not ready yet."""
        if name in self.servers:
            self.servers[name].kill()
        arguments = [
            "server", "start", "--data", str(self.folder_of(name)), "--name", name,
            "--listen", self.address(name), *options,
        ]  # fmt: skip
        node = self.servers[name] = Node(self, [*command, *arguments], log=f"{name}.log")
        return node

    def three(self, command: list[str]) -> None:
        self.begin("a", command, "--init").ready()
        for name in "bc":
            by = ("--join", self.address("a"), "--token-file", self.token())
            self.begin(name, command, *by).ready()
        self.settled(3)

    def ledger(self, name: str) -> Path:
        return Generation.current(self.folder_of(name)).ledger / LEDGER

    def keep_aside(self, name: str) -> None:
        """Ledger and log as they are now."""
        current = Generation.current(self.folder_of(name))
        for part in (current.ledger, current.log):
            shutil.copytree(part, self.folder / "aside" / part.relative_to(current.folder))

    def put_back(self, name: str) -> None:
        current = Generation.current(self.folder_of(name))
        for part in (current.ledger, current.log):
            shutil.rmtree(part)
            shutil.copytree(self.folder / "aside" / part.relative_to(current.folder), part)

    def state(self, name: str) -> tuple[int, str]:
        """(applied index, checksum) of a server's ledger, of one moment, while it runs."""
        db = Database.open(self.ledger(name), readonly=True)
        try:
            with db.transaction():
                index = db.value("SELECT value FROM meta WHERE key = 'applied_index'")
                return index, checksum(db)
        finally:
            db.close()

    def equal(self, names: str) -> bool:
        """At the same index the ledgers are equal. False while they are not at the same index."""
        states = [self.state(name) for name in names]
        if len({index for index, _ in states}) > 1:
            return False
        assert len({sum for _, sum in states}) == 1, states
        return True


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Upgraded]:
    made = Upgraded(tmp_path, "abcd")
    try:
        yield made
    finally:
        made.end()


class Writers:
    """Each puts a number that grows under its own key, and notes what was acknowledged when."""

    def __init__(self, ground: Upgraded, count: int) -> None:
        self.ground = ground
        self.done: dict[str, int] = {f"/w/{n}": 0 for n in range(count)}
        self.longest = 0.0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(key,)) for key in self.done]

    def write(self, key: str) -> None:
        last = time.monotonic()
        with self.ground.client(timeout=3.0, servers="abc") as client:
            while not self.stopping.is_set():
                with suppress(GrampusError):
                    client.kv.put(key, str(self.done[key] + 1).encode())
                    self.done[key] += 1
                    now = time.monotonic()
                    self.longest, last = max(self.longest, now - last), now
                time.sleep(0.01)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self.threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in self.threads:
                thread.join()


def test_a_cluster_is_upgraded_server_by_server_with_writes_going_on(ground: Upgraded) -> None:
    ground.three(COMMAND)
    writers = Writers(ground, 3)
    with writers.at_work():
        for name, old in (("a", ["b", "c"]), ("b", ["c"]), ("c", [])):
            ground.servers[name].stop()
            if not old:
                ground.keep_aside(name)
            ground.begin(name, NEXT).ready()
            ground.settled(3)
            if old:
                the_next_version_waits(ground, name, old)
        assert until(lambda: raised(ground)) == 2
        with ground.client() as client:
            client.kv.put("/mark/late", b"")
    assert writers.longest < ELECTION
    with ground.client(servers="abc") as client:
        for key, number in writers.done.items():
            assert int(client.kv.get(key).value) >= number > 0
        client.kv.put("/w/0", b"end")
    until(lambda: ground.equal("abc"))
    db = Database.open(ground.ledger("b"), readonly=True)
    assert db.value("SELECT count(*) FROM mark") == 1
    assert db.value("SELECT puts FROM kv WHERE key = ?", (b"/w/0",)) > 0
    db.close()
    who_is_too_old_stops(ground)


def the_next_version_waits(ground: Upgraded, name: str, old: list[str]) -> None:
    """On a server that has been upgraded, while others have not."""
    with ground.client(servers=name) as client:
        said = client.cluster()
        assert said.apply_version == 1
        assert said.held_back == old
        for each in old:
            assert any(f"{each} runs an older Grampus" in text for text in said.advice)
        with pytest.raises(VersionMismatch, match="at apply version 1, and this needs a newer"):
            client.kv.put("/mark/early", b"")
        with pytest.raises(NotFound):
            client.kv.get("/mark/early")


def raised(ground: Upgraded) -> int:
    with ground.client(servers="abc") as client:
        version = client.cluster().apply_version
        return version if version > 1 else 0


def who_is_too_old_stops(ground: Upgraded) -> None:
    """After the raise. And goes on with the next version."""
    # Started with the old version again: there is no way back.
    ground.servers["b"].stop()
    code, why = ground.begin("b", COMMAND).ended()
    assert (code, "Traceback" in why) == (4, False)
    assert "apply version 2, and this Grampus knows 1 at most" in why
    ground.begin("b", NEXT).ready()

    # Has missed the raise: meets it in the log.
    ground.servers["c"].stop()
    ground.put_back("c")
    # A new leader does not count on what c has forgotten.
    before = ground.leader("ab")
    with ground.client(servers="ab") as client:
        client.change_member("b" if before == "a" else "a", "transfer")
    until(lambda: ground.leader("ab") != before)
    code, why = ground.begin("c", COMMAND).ended()
    assert (code, "Traceback" in why) == (4, False)
    assert "this server is older than its cluster: entry" in why
    assert "raises the ledger to apply version 2, 1 is known here" in why
    ground.begin("c", NEXT).ready()
    until(lambda: ground.equal("abc"))

    # Wants to join: is not let in, and its token is not spent.
    by = ("--join", ground.address("a"), "--token-file", ground.token())
    code, why = ground.begin("d", COMMAND, *by).ended()
    assert (code, "Traceback" in why) == (4, False)
    assert "this cluster is at apply version 2, and d knows 1 at most: install" in why
    ground.begin("d", NEXT, *by).ready()


def test_a_server_whose_ledger_is_not_that_of_the_others_stops_for_good(ground: Upgraded) -> None:
    ground.three(NEXT)
    with ground.client(servers="abc") as client:
        client.kv.put("/k", b"right")
    hurt = ground.leader()
    until(lambda: ground.equal("abc"))
    ground.servers[hurt].stop()
    db = Database.open(ground.ledger(hurt))
    db.execute("UPDATE kv SET value = ? WHERE key = ?", (b"wrong", b"/k"))
    db.checkpoint()
    db.close()
    code, why = ground.begin(hurt, NEXT).ended()
    assert code == 4
    assert f"the ledger of server {hurt} is not that of the majority at entry" in why
    assert f"grampus cluster replace {hurt}" in why
    code, why = ground.begin(hurt, NEXT).ended()
    assert (code, "is not that of the majority" in why) == (4, True)
    with ground.client(servers=ground.others(hurt)) as client:
        assert client.kv.get("/k").value == b"right"
        client.kv.put("/k", b"again")
