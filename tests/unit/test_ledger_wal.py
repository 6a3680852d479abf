"""What readers do to the WAL: those of the API are ended, others are told of."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from grampus import ledger as ledger_module
from grampus.database import Database
from grampus.errors import Overloaded
from grampus.ledger import Ledger
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs import reads as reads_module
from grampus.runs.commands import ApplyWorkflow, SubmitRun, encode_command, pack_definition
from grampus.runs.queries import Queries
from grampus.runs.reads import Reads

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def fill(ledger: Ledger, index: int, runs: int) -> int:
    """Submits in batches of a hundred, with a checkpoint after each thousand, as the writer does.

    Gives the largest size of the WAL after a checkpoint."""
    largest = 0
    for start in range(0, runs, 100):
        index += 1
        batch = [
            SubmitRun(1, f"run{n:09d}", "w", 1, b"{}", "r", 0, 0) for n in range(start, start + 100)
        ]
        ledger.apply(index, 1, [encode_command(command) for command in batch])
        if start % 1_000 == 900:
            ledger.checkpoint()
            largest = max(largest, ledger.database.wal_size())
    return largest


def a_ledger(folder: Path) -> Ledger:
    ledger = Ledger(folder / "ledger.db")
    content = Workflow("w", (Task("a", Shell("true")),)).content()
    ledger.apply(1, 1, [encode_command(ApplyWorkflow(1, "w", pack_definition(content)))])
    return ledger


def test_a_read_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "LONGEST", 0.2)
    ledger = a_ledger(tmp_path)

    async def scenario() -> None:
        reads = Reads(tmp_path / "ledger.db")
        try:
            with pytest.raises(Overloaded, match="takes too long"):
                await reads._ask(lambda queries: queries._db.value(ENDLESS))
            # Its connection is as good as before.
            assert [view.name for view in await reads.workflows(10, "")] == ["w"]
        finally:
            reads.close()

    asyncio.run(scenario())
    ledger.close()


def test_readers_without_a_pause_do_not_keep_the_wal_from_beginning_anew(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    over = threading.Event()

    def read() -> None:
        queries = Queries(db := Database.open(tmp_path / "ledger.db", readonly=True), graphs)
        while not over.is_set():
            queries.runs(None, None, 200, None)
        db.close()

    graphs = ledger_module.Graphs()
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        largest = fill(ledger, 1, 8_000)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    print(f"WAL at most {largest >> 10} KiB")
    assert largest < 32 * 2**20
    ledger.close()


def test_a_stranger_who_reads_for_ever_is_told_of_once_and_the_wal_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_module, "WAL_ALARM", 2**20)
    ledger = a_ledger(tmp_path)
    stranger = Database.open(tmp_path / "ledger.db", readonly=True)
    with stranger.transaction():
        stranger.value("SELECT count(*) FROM run")
        with caplog.at_level(logging.ERROR):
            grown = fill(ledger, 1, 4_000)
    assert grown > 2**20
    assert [r.message.startswith("ALARM: the WAL of the ledger grows") for r in caplog.records] == [
        True
    ]
    assert ledger.checkpoint() is not None
    assert fill(ledger, 41, 1_000) <= grown
    stranger.close()
    ledger.close()
