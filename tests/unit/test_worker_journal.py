"""The worker's journal as a file: what was whole is there, what was torn is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grampus.database import StorageFailed
from grampus.model.run import AttemptState, Value
from grampus.protocol import Report
from grampus.worker.core.check import same
from grampus.worker.core.memory import Closed, Entry, Gone, Launched, Memory, Opened, Wish
from grampus.worker.journal import GROWTH, Journal

STORY: list[Entry] = [
    Opened(7, "w", "n1", "default"),
    Launched(1, 1, "r", "a", 1, True, None),
    Launched(2, 2, "r", "b", 1, False, "f" * 64),
    Wish(2, "cancelled"),
    Report(7, 1, AttemptState.SUCCEEDED, 5, 0, output=Value("json", b"12", None, 2)),
    Report(7, 3, AttemptState.CANCELLED, 5),
    Closed(9, [2, 8]),
    Gone([3]),
]


def told(entries: list[Entry]) -> Memory:
    memory = Memory()
    memory.add(entries)
    return memory


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path)
    assert journal.memory.session is None
    for entry in STORY:
        journal.write([entry])
    journal.close()
    found = Journal.open(path).memory
    assert same(found, told(STORY))
    assert (found.name, found.group) == ("n1", "default")
    assert (list(found.launched), found.wishes, list(found.outbox)) == ([2], {2: "cancelled"}, [1])
    assert found.seen.intervals() == [(0, 8)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert same(told(found.entries()), found)


def test_a_new_session_begins_anew() -> None:
    memory = told([*STORY, Opened(8, "x", "n1", "etl")])
    assert (memory.session, memory.instance, memory.group) == (8, "x", "etl")
    assert not memory.launched
    assert not memory.outbox
    assert memory.seen.intervals() == []


def test_wherever_it_is_torn_all_before_is_there_and_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path)
    ends = [0]
    for entry in STORY:
        journal.write([entry])
        ends.append(path.stat().st_size)
    journal.close()
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        count = sum(end <= size for end in ends) - 1
        torn = Journal.open(path)
        assert same(torn.memory, told(STORY[:count]))
        torn.write([Opened(9, "y", "n1", "default")])
        torn.close()
        again = Journal.open(path)
        assert again.memory.session == 9
        again.close()


def test_what_is_damaged_or_of_another_version_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path)
    journal.write(STORY[:2])
    end = path.stat().st_size
    journal.write(STORY[2:])
    journal.close()
    data = bytearray(path.read_bytes())
    data[end + 9] ^= 1
    path.write_bytes(data)
    assert same(Journal.open(path).memory, told(STORY[:2]))
    strange = Journal.open(path)
    strange.write([("later", 1)])  # type: ignore[list-item]
    strange.close()
    assert Journal.open(path).memory.session is None
    path.write_bytes(bytes(1 << 16))
    assert Journal.open(path).memory.session is None


def test_it_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path)
    memory = Memory()
    output = Value("json", b"x" * 16_000, None, 16_000)
    largest = n = 0
    for session in range(1, 4):
        # Each is another process.
        journal.close()
        journal = Journal.open(path)
        entries: list[Entry] = [Opened(session, "w", "n1", "default")]
        for n in range(1, 200):
            entries.append(Launched(n, 1, "r", "a", n, True, None))
            entries.append(Report(session, n, AttemptState.SUCCEEDED, 5, output=output))
            entries.append(Gone([n]))
            journal.write(entries)
            memory.add(entries)
            entries = []
            if journal.grown:
                journal.renew(memory)
                assert path.stat().st_size < 1_000
            largest = max(largest, path.stat().st_size)
    journal.close()
    assert GROWTH - 20_000 < largest <= GROWTH
    assert same(Journal.open(path).memory, memory)
    assert memory.seen.intervals() == [(1, n + 1)]
    assert os.listdir(tmp_path) == ["journal.db"]


def test_a_disk_that_takes_nothing_is_an_error_and_half_a_record_does_not_count(
    tmp_path: Path,
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "journal.db"
    journal = Journal.open(path)
    journal.write(STORY[:1])
    journal._fd, fd = os.open(full, os.O_RDWR), journal._fd
    with pytest.raises(StorageFailed, match="No space left"):
        journal.write(STORY[1:])
    os.close(journal._fd)
    journal._fd = fd
    journal.write(STORY[1:2])
    journal.close()
    assert same(Journal.open(path).memory, told(STORY[:2]))
    with pytest.raises(StorageFailed, match="Is a directory"):
        Journal.open(tmp_path)
