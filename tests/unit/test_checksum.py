"""The checksum of a ledger, and what servers make of what they tell each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from grampus import checksum as module
from grampus.checksum import ROUNDS, Tally, checksum
from grampus.clock import SystemClock
from grampus.cluster.commands import Put, encode_command
from grampus.cluster_face import Checks
from grampus.consensus.members import Members
from grampus.database import Database
from grampus.errors import Diverged, NotFound, Refused
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.server.audit import Audit
from grampus.upkeep import TakeSum, TellSum
from grampus.upkeep import encode_command as encode_upkeep

VOTERS = (1, 2, 3)
TAKE = encode_upkeep(TakeSum(1))


def puts(count: int) -> list[bytes]:
    return [encode_command(Put(1, b"/k/%d" % n, b"%d" % n)) for n in range(count)]


def test_it_is_a_function_of_the_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.apply(1, 1, puts(100))
    first = ledger.checksum()
    ledger.snapshot(tmp_path / "copy.db")
    for size in (1, 7, 15, 16, 500):
        monkeypatch.setattr(module, "BATCH", size)
        copy = Database.open(tmp_path / "copy.db", readonly=True)
        assert checksum(copy) == first
        copy.close()
    for sql in (
        "UPDATE kv SET value = x'00' WHERE key = '/k/7'",
        "UPDATE kv SET value = x'00' WHERE key = x'2f6b2f37'",
        "DELETE FROM kv_history WHERE revision = 50",
        "UPDATE meta SET value = value + 1 WHERE key = 'epoch'",
        "CREATE TABLE other (id INTEGER PRIMARY KEY)",
    ):
        before = ledger.checksum()
        ledger.database.execute(sql)
        assert (ledger.checksum() != before) == ("'/k/7'" not in sql), sql
    ledger.close()


def test_most_of_the_voters_are_right() -> None:
    tally = Tally()
    tally.told(5, 1, "x")
    assert tally.agreed(5, VOTERS) is None
    tally.told(5, 1, "x")
    tally.told(5, 9, "x")  # no voter
    assert tally.agreed(5, VOTERS) is None
    tally.told(5, 2, "y")
    assert (tally.agreed(5, VOTERS), tally.split(5, VOTERS)) == (None, False)
    tally.told(5, 3, "y")
    assert (tally.agreed(5, VOTERS), tally.split(5, VOTERS)) == ("y", False)
    assert tally.agreed(5, (1, 2)) is None
    assert tally.split(5, (1, 2))
    for index in range(10, 10 + ROUNDS):
        tally.told(index, 1, "x")
    assert tally.agreed(5, VOTERS) is None


class Log:
    def __init__(self) -> None:
        self.told: asyncio.Queue[bytes] = asyncio.Queue()

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        for command in commands:
            self.told.put_nowait(command)
        return ["told"]


class Server:
    """A ledger with its auditor. What it tells comes to `log`."""

    def __init__(self, path: Path, id: int, log: Log) -> None:
        replica: Any = log
        self.path = path
        self.ledger = Ledger(path)
        self.audit = Audit(replica, id, f"s{id}", lambda: VOTERS, SystemClock())
        self.ledger.auditor = self.audit


def test_a_ledger_that_differs_is_given_up_for_good_and_the_others_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = Log()
        servers = [Server(tmp_path / f"{id}.db", id, log) for id in VOTERS]
        for server in servers:
            server.ledger.apply(1, 1, puts(50))
        bad = servers[0]  # whoever leads
        bad.ledger.database.execute("DELETE FROM kv WHERE key = ?", (b"/k/7",))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            parts = [group.create_task(server.audit.run()) for server in servers]
            for server in servers:
                server.ledger.apply(2, 1, [TAKE, *puts(50)])
                server.ledger.apply(3, 1, puts(20))  # beside the readers
            told = [await log.told.get() for _ in VOTERS]

            def hear(server: Server) -> None:
                for at, command in enumerate(told, 4):
                    server.ledger.apply(at, 1, [command])

            for server in servers[1:]:
                hear(server)
            # Once two others agree, in whatever order the three have told theirs.
            with pytest.raises(Diverged, match="grampus cluster replace s1 on another server"):
                hear(bad)
            for server in servers:
                assert server.ledger.checkpoint() is not None  # no reader is left
                server.ledger.close()
            with pytest.raises(Diverged, match="is not that of the majority at entry 2"):
                Ledger(bad.path)
            for part in parts:
                part.cancel()

    asyncio.run(scenario())


class Told:
    """An auditor who was told these sums."""

    def __init__(self, sums: dict[int, str]) -> None:
        self.tally = Tally()
        for server, sum in sums.items():
            self.tally.told(7, server, sum)

    async def ask(self) -> int:
        return 7

    def outcome(self, index: int) -> tuple[dict[int, str], str | None]:
        return self.tally.sums(index), self.tally.agreed(index, VOTERS)


@pytest.mark.parametrize(
    ("sums", "states", "agreed"),
    [
        ({}, "waits waits waits waits", None),
        ({1: "x"}, "waits waits waits waits", None),
        ({1: "x", 2: "x"}, "same same waits waits", "x"),
        ({1: "x", 2: "y", 3: "y", 4: "y"}, "differs same same same", "y"),
        ({1: "x", 2: "y", 3: "z"}, "unclear unclear unclear waits", None),
        ({4: "x", 1: "y", 2: "y"}, "same same waits differs", "y"),
    ],
)
def test_a_check_says_of_each_member_whether_it_is_as_most(
    sums: dict[int, str], states: str, agreed: str | None
) -> None:
    async def scenario() -> None:
        known = tuple(Member(id, f"s{id}", "127.0.0.1", 1, 2) for id in (4, 3, 2, 1))
        members = Members(conf=([1, 2, 3], [4], [], [], False), known=known)
        checks = Checks(Told(sums), lambda: members)
        found = checks.outcome(await checks.begin())
        assert [row.name for row in found.servers] == ["s1", "s2", "s3", "s4"]
        assert " ".join(row.state for row in found.servers) == states
        assert found.agreed == agreed
        with pytest.raises(NotFound, match="begin another one"):
            checks.outcome(8)

    asyncio.run(scenario())


def test_one_server_has_nobody_to_compare_with() -> None:
    alone = Members(conf=([1], [], [], [], False), known=(Member(1, "s1", "127.0.0.1", 1, 2),))
    with pytest.raises(Refused, match="one server only"):
        asyncio.run(Checks(Told({}), lambda: alone).begin())


def test_a_server_that_stops_in_a_round_lets_go_of_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    monkeypatch.setattr("grampus.server.audit.WORK", 0.0)

    async def scenario() -> None:
        log, begun, loop = Log(), asyncio.Event(), asyncio.get_running_loop()

        def slowly(reader: Database, rest: Callable[[], None]) -> str:
            loop.call_soon_threadsafe(begun.set)
            return checksum(reader, rest)

        monkeypatch.setattr("grampus.server.audit.checksum", slowly)
        server = Server(tmp_path / "1.db", 1, log)
        for index in range(1, 20):
            server.ledger.apply(index, 1, puts(400))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            part = group.create_task(server.audit.run())
            server.ledger.apply(20, 1, [TAKE])
            await begun.wait()
            part.cancel()
        assert log.told.empty()
        server.ledger.apply(21, 1, [TAKE])
        assert server.ledger.checkpoint() is not None
        server.ledger.close()

    asyncio.run(scenario())


def test_who_takes_no_part_in_a_round_is_not_judged_by_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path / "1.db", 1, Log())
        server.ledger.auditor = None  # as on one node
        server.ledger.apply(1, 1, [TAKE])
        server.ledger.auditor = server.audit
        for at, id in ((2, 2), (3, 3)):
            told = encode_upkeep(TellSum(1, 1, id, "other"))
            assert server.ledger.apply(at, 1, [told]) == (["told"], [])
        server.ledger.close()

    asyncio.run(scenario())


def test_no_majority_for_any_is_an_alarm_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        log = Log()
        server = Server(tmp_path / "1.db", 1, log)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            part = group.create_task(server.audit.run())
            server.ledger.apply(1, 1, [TAKE, TAKE])  # the second finds it at work
            server.ledger.apply(2, 1, [await log.told.get()])
            for at, id in ((3, 2), (4, 3)):
                server.ledger.apply(at, 1, [encode_upkeep(TellSum(1, 1, id, f"of {id}"))])
            assert log.told.empty()
            part.cancel()
        server.ledger.close()

    asyncio.run(scenario())
    assert "ALARM: the ledgers of the servers differ at entry 1" in caplog.text
