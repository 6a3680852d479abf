"""What happens to a node whose disk lost or changed more than a power cut may: it must say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from grampus.consensus import segment
from grampus.consensus.disk import Disk
from grampus.consensus.folder import ENTROPY, DataFolder
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.record import Entry, HardState, LogCorrupt
from grampus.database import StorageFailed
from grampus.errors import FolderError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segment, "STEP", 2048)
    path = tmp_path / "log"
    path.mkdir()
    return path


def write(folder: Path, count: int, segment_size: int = 1 << 20) -> None:
    """`count` batches of an entry and a vote, and then the process dies."""
    log = DurableLog.open(folder, segment_size=segment_size)
    for index in range(log.last + 1, log.last + 1 + count):
        log.append([Entry(index, index, b"x" * 60)], HardState(index, 2, index - 1))
    log.abandon()


def test_rot_in_the_last_batch_is_refused_after_a_start_and_an_end_without_a_write(
    folder: Path,
) -> None:
    write(folder, 2)
    log = DurableLog.open(folder)
    end = log.size
    log.close()  # the witness: all that was read is durable
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[end - 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogCorrupt):
        DurableLog.open(folder)


def test_a_log_whose_compaction_failed_is_closed_for_good(folder: Path) -> None:
    class Failing(Disk):
        failing = False

        def sync_folder(self, path: Path) -> None:
            if self.failing:
                raise StorageFailed("input/output error")
            super().sync_folder(path)

    disk = Failing()
    log = DurableLog.open(folder, segment_size=300, disk=disk)
    for index in range(1, 9):
        log.append([Entry(index, 1, b"x" * 60)])
    disk.failing = True
    with pytest.raises(StorageFailed):
        log.compact(6)
    disk.failing = False
    with pytest.raises(StorageFailed, match="input/output error"):
        log.append([Entry(9, 1, b"x")])


def test_a_log_without_its_newest_segment_is_refused(folder: Path) -> None:
    write(folder, 9, segment_size=400)
    newest = sorted(folder.iterdir())[-1]
    newest.unlink()
    with pytest.raises(LogCorrupt):
        DurableLog.open(folder, segment_size=400)


@pytest.mark.parametrize("whole", [True, False])
def test_a_voter_whose_log_is_gone_does_not_begin_as_a_new_one(tmp_path: Path, whole: bool) -> None:
    data = tmp_path / "data"
    with DataFolder.open(data, machine="m", entropy=bytes(ENTROPY)) as node:
        write(node.log, 3)  # it voted in term 3
    if whole:
        shutil.rmtree(data / "log")
    else:
        for path in (data / "log").iterdir():
            path.unlink()
    with (
        pytest.raises((FolderError, LogCorrupt)),
        DataFolder.open(data, machine="m", entropy=bytes(ENTROPY)) as node,
    ):
        DurableLog.open(node.log)


def two_generations(data: Path) -> Generation:
    """A folder whose second generation counts, as after a snapshot."""
    first = Generation(data, 0)
    for part in (first.ledger, first.log):
        part.mkdir(parents=True)
    second = first.following
    second.prepare()
    DurableLog.begin(second.log, (7, 3), HardState(3, 2, 7))
    (second.ledger / "ledger.db").write_bytes(b"a ledger")
    second.make_current(Disk())
    second.sweep()
    return second


@pytest.mark.parametrize("now", ["9\n", "0\n", None])
def test_a_damaged_or_lost_pointer_deletes_no_generation(tmp_path: Path, now: str | None) -> None:
    second = two_generations(tmp_path)
    pointer = tmp_path / "generation"
    if now is None:
        pointer.unlink()
    else:
        pointer.write_text(now)
    with pytest.raises(FolderError):
        Generation.current(tmp_path).sweep()
    assert (second.ledger / "ledger.db").exists()
    assert any(second.log.iterdir())


def test_a_crash_before_a_generation_counts_leaves_the_one_before(tmp_path: Path) -> None:
    second = two_generations(tmp_path)
    third = second.following
    third.prepare()
    DurableLog.begin(third.log, (9, 3), HardState(3, 2, 9))
    current = Generation.current(tmp_path)
    current.sweep()
    assert current == second
    assert not third.log.exists()
    assert (second.ledger / "ledger.db").exists()


def test_a_crash_at_any_moment_of_founding_leaves_a_folder_that_can_be_founded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    def founded(crash_at: int) -> bool:
        left = crash_at

        def counted(path: Path) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash

        monkeypatch.setattr("grampus.consensus.folder._sync", counted)
        data = tmp_path / str(crash_at)
        try:
            DataFolder.open(data, machine="m", entropy=bytes(ENTROPY)).close()
        except Crash:
            left = 99
            DataFolder.open(data, machine="m", entropy=bytes(ENTROPY)).close()
            return True
        return False

    assert [founded(n) for n in range(1, 5)] == [True, True, True, False]
