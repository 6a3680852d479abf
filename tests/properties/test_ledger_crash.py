"""Power cuts and full disks at every change of log and ledger together: reopened, they have every
command that was answered, none that was not asked for, and are equal to a replay from scratch."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import apsw
import pytest
from consensus_crashes import RecordingDisk, lay_out
from ledger_crashes import LedgerDisk, recorded

from grampus.cluster.commands import Put
from grampus.cluster.commands import encode_command as encode_key
from grampus.consensus import segment, writer
from grampus.consensus.log import DurableLog
from grampus.consensus.port import Stopped
from grampus.consensus.record import LogCorrupt
from grampus.consensus.solo import SoloLog
from grampus.consensus.writer import Limits
from grampus.database import Database, StorageFailed
from grampus.ledger import Ledger
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.commands import ApplyWorkflow, SubmitRun, encode_command, pack_definition

COMMANDS = 18
PARAMS = b'{"text": "%s"}' % (b"x" * 150)
LIMITS = Limits(checkpoint_entries=3, checkpoint_idle=60.0)
FLOW = Workflow("w", (Task("a", Shell("true")), Task("b", Shell("true"), after=("a",))))


def commands() -> list[bytes]:
    first = ApplyWorkflow(1, "w", pack_definition(FLOW.content()))
    rest = [
        encode_key(Put(n, b"/k/%d" % (n % 2), PARAMS))
        if n % 4 == 0
        else encode_command(SubmitRun(n, f"r{n}", "w", 1, PARAMS, "r", 0, n))
        for n in range(1, COMMANDS)
    ]
    return [encode_command(first), *rest]


def checksums() -> list[str]:
    """Of ledgers with the first 0, 1, 2, ... commands."""
    ledger = Ledger(None)
    sums = [content(ledger)]
    for index, command in enumerate(commands(), start=1):
        ledger.apply(index, 1, [command])
        sums.append(content(ledger))
    return sums


def content(ledger: Ledger) -> str:
    """Without the term, which every start raises."""
    ledger.database.execute("UPDATE meta SET value = 0 WHERE key = 'applied_term'")
    return ledger.checksum()


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "STEP", 1024)


def on(disk: RecordingDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of what is opened from here on is on `disk`, in small segments."""

    class Recorded:
        @staticmethod
        def open(folder: Path) -> DurableLog:
            return DurableLog.open(folder, segment_size=600, disk=disk)

    monkeypatch.setattr(writer, "DurableLog", Recorded)


def folders(at: Path) -> tuple[Path, Path]:
    for part in (at / "log", at / "ledger"):
        part.mkdir(parents=True, exist_ok=True)
    return at / "log", at / "ledger"


async def feed(at: Path, done: list[int], asked: list[int]) -> None:
    """Proposes what is left, one by one; counts what was answered and what was asked."""
    log, ledger_folder = folders(at)
    ledger = Ledger(ledger_folder / "ledger.db")
    try:
        solo = await SoloLog.open(log, ledger, limits=LIMITS)
        try:
            for command in commands()[solo.applied_index :]:
                asked[0] = solo.applied_index + 1
                await solo.propose([command])
                done[0] = solo.applied_index
        finally:
            await solo.close()
    finally:
        ledger.close()


def reopened(at: Path) -> tuple[int, str]:
    """How many commands are there after a start, and what the ledger holds."""

    async def look() -> tuple[int, str]:
        log, ledger_folder = folders(at)
        ledger = Ledger(ledger_folder / "ledger.db")
        try:
            solo = await SoloLog.open(log, ledger, limits=LIMITS)
            count = solo.applied_index
            await solo.close()
            return count, content(ledger)
        finally:
            ledger.close()

    return asyncio.run(look())


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_change_leaves_what_was_answered(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    log_disk, ledger_disk = RecordingDisk(), LedgerDisk()
    done, asked = [0], [0]
    cuts: list[tuple[int, int, dict[str, bytes], dict[str, bytes]]] = []

    def boundary() -> None:
        if rng.random() < 0.5:
            return
        logs = list(log_disk.images(rng, 1))
        ledgers = [
            {name: data for name, data in image.items() if not name.endswith("-shm")}
            for image in ledger_disk.images(rng, 1)
        ]
        cuts.append((done[0], asked[0], rng.choice(logs), rng.choice(ledgers)))

    log_disk.boundary = ledger_disk.boundary = boundary
    with monkeypatch.context() as patch, recorded(ledger_disk):
        on(log_disk, patch)
        asyncio.run(feed(tmp_path / "first", done, asked))
    assert done == [COMMANDS]
    assert len(cuts) > 60
    wanted = checksums()
    for number, (answered, proposed, log_image, ledger_image) in enumerate(cuts):
        at = tmp_path / "second"
        log, ledger_folder = folders(at)
        lay_out(log, log_image)
        lay_out(ledger_folder, ledger_image)
        count, found = reopened(at)
        assert answered <= count <= proposed, f"cut {number}"
        assert found == wanted[count], f"cut {number}"


def test_a_checkpoint_that_does_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    monkeypatch.setattr(Database, "checkpoint", lambda self: True)
    with pytest.raises((AssertionError, LogCorrupt)):
        test_a_power_cut_at_any_change_leaves_what_was_answered(tmp_path, 0, monkeypatch)


@pytest.mark.parametrize(
    "failure",
    [apsw.FullError("full"), apsw.ReadOnlyError("read-only"), apsw.IOError("broken")],
    ids=lambda failure: type(failure).__name__,
)
def test_a_ledger_that_cannot_be_written_stops_the_log_and_goes_on_after(
    tmp_path: Path, failure: Exception
) -> None:
    wanted = checksums()
    told: list[str] = []
    for left in range(0, 60, 3):
        disk = LedgerDisk()
        disk.failure = failure
        done, asked = [0], [0]
        at = tmp_path / str(left)
        folders(at)
        with recorded(disk):
            disk.left = left
            try:
                asyncio.run(feed(at, done, asked))
            except (StorageFailed, Stopped) as error:
                told.append(str(error))
        count, found = reopened(at)
        assert done[0] <= count <= max(asked[0], done[0])
        assert found == wanted[count]
        asyncio.run(feed(at, done, asked))
        assert reopened(at) == (COMMANDS, wanted[-1])
    assert len(told) > 5
    assert all("start" in text or "access" in text for text in told), told
