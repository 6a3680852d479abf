"""The durable log over real files: what it keeps, what it refuses."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from grampus.consensus import segment
from grampus.consensus.disk import Disk
from grampus.consensus.log import DurableLog
from grampus.consensus.record import HEAD, SECTOR, START, Entry, HardState, LogCorrupt
from grampus.database import StorageFailed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segment, "STEP", 2048)
    path = tmp_path / "log"
    path.mkdir()
    return path


def entry(index: int, size: int = 20, term: int = 1) -> Entry:
    return Entry(index, term, bytes([index % 256]) * size)


def indexes(log: DurableLog) -> list[int]:
    return [e.index for e in log.entries(log.first)]


def fill(folder: Path, batches: list[list[Entry]], segment_size: int = 1 << 20) -> list[int]:
    """Appends and syncs each batch; where each batch ends in the first segment."""
    log = DurableLog.open(folder, segment_size=segment_size)
    ends = []
    for batch in batches:
        log.append(batch)
        ends.append(log.size)
    log.abandon()
    return ends


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_a_new_log_is_empty_and_takes_little_space(folder: Path) -> None:
    log = DurableLog.open(folder)
    assert (log.first, log.last, log.last_term, log.hard) == (1, 0, 0, HardState())
    assert log.term(0) == 0
    assert only(folder).stat().st_size == 2048
    assert only(folder).stat().st_mode & 0o777 == 0o600


def test_entries_and_hard_state_come_back(folder: Path) -> None:
    log = DurableLog.open(folder)
    log.append([entry(1), entry(2, 0), entry(3, 5000)], HardState(3, 1, 2))
    log.append([], HardState(4, 2, 3))
    log.append([entry(4, term=4)])
    log.close()
    log = DurableLog.open(folder)
    assert list(log.entries(1)) == [entry(1), entry(2, 0), entry(3, 5000), entry(4, term=4)]
    assert (log.hard, log.last_term) == (HardState(4, 2, 3), 4)
    assert [log.term(i) for i in range(5)] == [0, 1, 1, 1, 4]


def test_a_leaders_entries_replace_a_suffix_also_across_segments(folder: Path) -> None:
    log = DurableLog.open(folder, segment_size=300)
    for index in range(1, 9):
        log.append([entry(index, 60)])
    assert len(list(folder.iterdir())) > 2
    log.append([entry(3, 60, term=2), entry(4, 60, term=2)])
    for _ in range(2):
        assert [(e.index, e.term) for e in log.entries(1)] == [(1, 1), (2, 1), (3, 2), (4, 2)]
        assert log.last_term == 2
        log.abandon()
        log = DurableLog.open(folder, segment_size=300)
    log.append([entry(5, 60, term=2)])
    assert log.last == 5


def test_a_gap_and_a_replacement_of_what_is_gone_are_refused(folder: Path) -> None:
    log = DurableLog.open(folder, segment_size=300)
    for index in range(1, 9):
        log.append([entry(index, 60)])
    log.compact(5)
    with pytest.raises(ValueError, match="does not fit"):
        log.append([entry(10)])
    with pytest.raises(ValueError, match="does not fit"):
        log.append([entry(log.first - 1)])
    with pytest.raises(ValueError, match="came where 10 was due"):
        log.append([entry(9), entry(11)])
    assert log.last == 8


def test_compaction_deletes_whole_segments_below_and_nothing_else(folder: Path) -> None:
    log = DurableLog.open(folder, segment_size=300)
    for index in range(1, 10):
        log.append([entry(index, 60, term=index)], HardState(index, 0, 0))
    files = len(list(folder.iterdir()))
    assert log.compact(1) == 0
    deleted = log.compact(6)
    assert 0 < deleted == files - len(list(folder.iterdir()))
    assert 1 < log.first <= 6
    first, before = log.first, log.term(log.first - 1)
    assert before == first - 1
    assert log.compact(1000) > 0
    assert log.last == 9
    log.abandon()
    log = DurableLog.open(folder, segment_size=300)
    assert log.last == 9
    assert log.term(log.first - 1) == log.first - 1
    assert log.hard == HardState(9, 0, 0)


def test_compaction_after_a_replacement_keeps_the_term_before(folder: Path) -> None:
    log = DurableLog.open(folder, segment_size=300)
    for index in range(1, 7):
        log.append([entry(index, 60)])
    log.append([entry(4, 60, term=2)])
    log.append([entry(5, 60, term=3)])
    log.append([entry(6, 60, term=4)])
    log.compact(4)
    kept = (log.first, log.term(log.first - 1), indexes(log))
    log.abandon()
    log = DurableLog.open(folder, segment_size=300)
    assert (log.first, log.term(log.first - 1)) <= kept[:2]
    assert indexes(log)[-3:] == [4, 5, 6]
    assert [log.term(i) for i in (4, 5, 6)] == [2, 3, 4]


def test_a_file_cut_at_any_byte_of_the_last_batch_opens_with_the_batches_before(
    folder: Path,
) -> None:
    ends = fill(folder, [[entry(1)], [entry(2), entry(3)]])
    path, data = only(folder), only(folder).read_bytes()
    second = ends[0] + HEAD + 20
    for size in range(ends[0], ends[1] + 1):
        path.write_bytes(data[:size])
        log = DurableLog.open(folder)
        assert indexes(log) == [1] + [2] * (size >= second) + [3] * (size >= ends[1])
        log.append([entry(log.last + 1)])
        log.abandon()


def test_a_file_cut_below_its_header_is_refused(folder: Path) -> None:
    fill(folder, [[entry(1)]])
    path, data = only(folder), only(folder).read_bytes()
    for size in (0, 1, 8, START - 1):
        path.write_bytes(data[:size])
        with pytest.raises(LogCorrupt, match="no header"):
            DurableLog.open(folder)


def test_any_flipped_bit_below_the_watermark_is_refused_and_nothing_is_changed(
    folder: Path,
) -> None:
    ends = fill(folder, [[entry(1)], [entry(2)], [entry(3)]])
    path, data = only(folder), only(folder).read_bytes()
    for at in range(START, ends[1]):  # the third batch is the witness
        rotten = bytearray(data)
        rotten[at] ^= 1 << (at % 8)
        path.write_bytes(rotten)
        with pytest.raises(LogCorrupt, match=r"damaged at byte \d+, in data that was durable"):
            DurableLog.open(folder)
        assert path.read_bytes() == rotten


def test_zeros_in_place_of_a_durable_sector_are_refused(folder: Path) -> None:
    fill(folder, [[entry(i, 300)] for i in range(1, 8)])
    path = only(folder)
    data = bytearray(path.read_bytes())
    data[512:1024] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(LogCorrupt, match="was durable"):
        DurableLog.open(folder)


def test_after_a_close_even_the_last_batch_is_below_the_watermark(folder: Path) -> None:
    log = DurableLog.open(folder)
    log.append([entry(1)])
    end = log.size
    log.close()
    path = only(folder)
    for at in range(START, end):
        data = bytearray(path.read_bytes())
        data[at] ^= 0x40
        path.write_bytes(data)
        with pytest.raises(LogCorrupt):
            DurableLog.open(folder)
        data[at] ^= 0x40
        path.write_bytes(data)
    assert indexes(DurableLog.open(folder)) == [1]


@pytest.mark.parametrize("size", [0, 1, 3000, SECTOR - START - 2 * HEAD - 24, SECTOR - START, 9000])
def test_a_vote_and_its_witness_are_never_lost_with_one_sector(folder: Path, size: int) -> None:
    """Who has forgotten a vote, and does not know it, votes once more in that term."""
    log = DurableLog.open(folder)
    log.append([entry(1, size)], HardState(6, 1, 0))
    log.mark()
    begin = log.size
    log.append([], HardState(7, 2, 0))
    end = log.size
    log.mark()
    log.abandon()
    path, data = only(folder), only(folder).read_bytes()
    for lost in (bytes(SECTOR), bytes(range(256)) * (SECTOR // 256)):
        for sector in range(0, len(data), SECTOR):
            path.write_bytes((data[:sector] + lost + data[sector + SECTOR :])[: len(data)])
            if sector < end:
                with pytest.raises(LogCorrupt):
                    DurableLog.open(folder)
            else:
                assert DurableLog.open(folder).hard == HardState(7, 2, 0)
    path.write_bytes(data)
    assert DurableLog.open(folder).hard == HardState(7, 2, 0)
    assert begin < end <= len(data) - SECTOR


def test_a_witness_without_a_vote_takes_no_sector(folder: Path) -> None:
    log = DurableLog.open(folder)
    log.append([entry(1)], HardState(6, 1, 0))
    log.mark()
    before = log.size
    for index in range(2, 6):
        log.append([entry(index)], HardState(6, 1, index - 1))
        log.mark()
        log.mark()
    assert log.size - before == 4 * (HEAD + 20 + HEAD + 24 + HEAD)


def test_damage_in_an_older_segment_is_refused_wherever_it_is(folder: Path) -> None:
    fill(folder, [[entry(i, 60)] for i in range(1, 7)], segment_size=300)
    oldest = sorted(folder.iterdir())[0]
    data = oldest.read_bytes()
    end = START + 2 * (HEAD + 60)
    for at in range(0, START + HEAD + 60):
        if 68 <= at < START:
            continue  # the header's padding
        rotten = bytearray(data)
        rotten[at] ^= 1
        oldest.write_bytes(rotten)
        with pytest.raises(LogCorrupt):
            DurableLog.open(folder, segment_size=300)
    oldest.write_bytes(data[:end].ljust(len(data), b"\0"))
    last = bytearray(data)
    last[START : START + 1] = b"\0"
    oldest.write_bytes(last)
    with pytest.raises(LogCorrupt):
        DurableLog.open(folder, segment_size=300)


def test_a_missing_or_foreign_segment_is_refused(folder: Path) -> None:
    fill(folder, [[entry(i, 60)] for i in range(1, 9)], segment_size=300)
    names = sorted(folder.iterdir())
    middle = names[1].read_bytes()
    names[1].unlink()
    with pytest.raises(LogCorrupt, match="a segment is missing"):
        DurableLog.open(folder, segment_size=300)
    names[1].write_bytes(names[2].read_bytes())
    with pytest.raises(LogCorrupt, match="does not continue"):
        DurableLog.open(folder, segment_size=300)
    names[1].write_bytes(middle)
    assert DurableLog.open(folder, segment_size=300).last == 8


def test_a_record_inside_a_payload_is_not_taken_for_a_witness(folder: Path) -> None:
    inner = folder.parent / "inner"
    inner.mkdir()
    fill(inner, [[entry(i)] for i in range(1, 6)])
    hostile = only(inner).read_bytes()[:700]
    log = DurableLog.open(folder)
    log.append([entry(1)])
    end = log.size
    log.append([Entry(2, 1, hostile)])
    log.abandon()
    data = bytearray(only(folder).read_bytes())
    data[end + 5] ^= 1  # torn, and its payload is full of records with late watermarks
    only(folder).write_bytes(data)
    assert indexes(DurableLog.open(folder)) == [1]


def append_until_it_fails(log: DurableLog, size: int) -> tuple[int, StorageFailed]:
    """The last index acknowledged, and the failure."""
    for index in range(1, 100):
        try:
            log.append([entry(index, size)])
        except StorageFailed as failure:
            return index - 1, failure
    raise AssertionError("nothing failed")


class FailingDisk(Disk):
    """Fails the call with number `fail` to write, sync, rename or sync_folder; a write in part."""

    def __init__(self, fail: int) -> None:
        self.left = fail

    def _due(self) -> bool:
        self.left -= 1
        return self.left == 0

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self._due():
            super().write(fd, data[: len(data) // 2], offset)
            raise StorageFailed("no space")
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        if self._due():
            raise StorageFailed("input/output error")
        super().sync(fd)

    def rename(self, old: Path, new: Path) -> None:
        if self._due():
            raise StorageFailed("no space")
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:
        if self._due():
            raise StorageFailed("input/output error")
        super().sync_folder(path)


@pytest.mark.parametrize("fail", range(1, 22))
def test_after_a_failed_call_the_log_is_closed_for_good_and_opens_with_what_was_acknowledged(
    folder: Path, fail: int
) -> None:
    acknowledged = 0
    try:
        log = DurableLog.open(folder, segment_size=300, disk=FailingDisk(fail))
    except StorageFailed:
        pass
    else:
        acknowledged, failure = append_until_it_fails(log, 60)
        with pytest.raises(StorageFailed) as again:
            log.append([entry(acknowledged + 1)])
        assert again.value is failure
        log.close()
    log = DurableLog.open(folder, segment_size=300)
    assert acknowledged <= log.last <= acknowledged + 1
    assert indexes(log) == list(range(1, log.last + 1))
    log.append([entry(log.last + 1)])


@pytest.fixture
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_told_with_what_to_do_and_loses_nothing(folder: Path) -> None:
    log = DurableLog.open(folder)
    last, failure = append_until_it_fails(log, 200)
    assert "File too large; raise the limit" in str(failure)
    assert str(folder) in str(failure)
    assert isinstance(failure.__cause__, OSError)
    assert failure.__cause__.errno == errno.EFBIG
    log.close()
    assert DurableLog.open(folder).last in (last, last + 1)


def test_a_closed_log_takes_nothing(folder: Path) -> None:
    log = DurableLog.open(folder)
    log.close()
    log.close()
    with pytest.raises(StorageFailed, match="is closed"):
        log.append([entry(1)])
