"""Power cuts at every change and sync of the log: nothing acknowledged is lost or invented."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from consensus_crashes import RecordingDisk, lay_out

from grampus.consensus import segment
from grampus.consensus.log import DurableLog
from grampus.consensus.record import HEAD, Entry, HardState

SEGMENT = 3000
#: ("entry", Entry) | ("hard", HardState)
Record = Entry | HardState
State = tuple[HardState, dict[int, Entry]]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "STEP", 1024)


def after(records: list[Record], base: State) -> State:
    hard, entries = base[0], dict(base[1])
    for record in records:
        if isinstance(record, HardState):
            hard = record
        else:
            entries = {i: e for i, e in entries.items() if i < record.index}
            entries[record.index] = record
    return hard, entries


def cuts(records: list[Record], base: State) -> list[State]:
    """States between the records; a cut that became durable without its entry counts too."""
    states = [after(records[:n], base) for n in range(len(records) + 1)]
    for n, record in enumerate(records):
        if isinstance(record, Entry):
            hard, entries = states[n]
            states.append((hard, {i: e for i, e in entries.items() if i < record.index}))
    return states


def content(log: DurableLog) -> State:
    return log.hard, {e.index: e for e in log.entries(log.first)}


def same(got: State, want: State, first: int, below: int) -> bool:
    """Equal, but for entries below what was compacted, which may be there or not."""
    expected = {i: e for i, e in want[1].items() if i >= first}
    return got == (want[0], expected) and first <= max(below, 1)


class Life:
    """One log, a random workload on it, and a power cut of every kind at every boundary."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.second = folder.parent / "second"
        self.seed = seed
        self.images = 0
        self.base: State = (HardState(), {})
        self.records: list[Record] = []
        #: Acknowledged of `records`.
        self.floor = 0
        self.below = 1
        self.term = 1
        #: Where the next generation begins, and what it may find there.
        self.next_image: dict[str, bytes] = {}
        self.next_allowed: list[State] = [self.base]
        self.next_below = 1

    def allowed(self) -> list[State]:
        done, pending = self.records[: self.floor], self.records[self.floor :]
        return cuts(pending, after(done, self.base))

    def check(self, log: DurableLog, allowed: list[State]) -> State:
        got = content(log)
        assert any(same(got, want, log.first, self.below) for want in allowed), (
            f"seed {self.seed}: got {got[0]} {list(got[1])} from {log.first},"
            f" wanted one of {[(w[0], list(w[1])) for w in allowed]}, below {self.below}"
        )
        return got

    def boundary(self) -> None:
        for image in self.disk.images(self.rng, 3):
            self.images += 1
            lay_out(self.second, image)
            log = DurableLog.open(self.second, segment_size=SEGMENT)
            got = self.check(log, self.allowed())
            log.abandon()
            if self.rng.random() < 0.4:
                self.again(image, got)
            if self.rng.random() < 0.1 or not self.next_image:
                self.next_image, self.next_allowed = dict(image), self.allowed()
                self.next_below = self.below

    def again(self, image: dict[str, bytes], got: State) -> None:
        """Recovery, one entry of the size of a torn one, and a power cut right after its sync."""
        lay_out(self.second, image)
        disk = RecordingDisk()
        disk.adopt(self.second)
        log = DurableLog.open(self.second, segment_size=SEGMENT, disk=disk)
        entry = Entry(log.last + 1, 77, b"\xee" * 40)
        log.append([entry])
        log.abandon()
        lay_out(self.second, next(disk.images(self.rng, 0)))
        log = DurableLog.open(self.second, segment_size=SEGMENT)
        want = after([entry], got)
        assert content(log) == want, f"seed {self.seed}: recovery, then an entry, then a power cut"
        log.abandon()

    def batch(self, log: DurableLog) -> tuple[list[Entry], HardState | None]:
        rng = self.rng
        self.term += 1
        first = max(log.first, self.below, log.last + 1 - rng.choice((0, 0, 0, 0, 1, 3)))
        entries = [
            Entry(i, self.term, bytes([rng.randrange(256)]) * rng.choice((40, 40, 0, 700)))
            for i in range(first, first + rng.choice((0, 1, 1, 2, 5)))
        ]
        hard = HardState(self.term, rng.randrange(4), rng.randrange(99))
        return entries, hard if not entries or rng.random() < 0.4 else None

    def generation(self) -> None:
        self.disk = RecordingDisk()
        self.disk.adopt(self.folder)
        log = DurableLog.open(self.folder, segment_size=SEGMENT, disk=self.disk)
        self.below = self.next_below
        self.base, self.records, self.floor = self.check(log, self.next_allowed), [], 0
        self.next_image = {}
        self.disk.boundary = self.boundary
        for _ in range(self.rng.randint(3, 7)):
            what = self.rng.random()
            if what < 0.1:
                log.mark()
            elif what < 0.25:
                self.below = max(self.below, log.last - self.rng.randrange(4))
                log.compact(self.below)
            else:
                entries, hard = self.batch(log)
                self.records += entries
                if hard is not None:
                    self.records.append(hard)
                log.append(entries, hard)
            self.floor = len(self.records)
            self.boundary()
            self.check(log, self.allowed())
        log.abandon()


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_loses_nothing_acknowledged_and_invents_nothing(
    tmp_path: Path, seed: int
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    life = Life(folder, seed)
    for _ in range(4):
        life.generation()
        lay_out(folder, life.next_image)
    assert life.images > 100


def test_a_power_cut_while_the_first_segment_is_made_leaves_an_empty_log(tmp_path: Path) -> None:
    folder, second = tmp_path / "log", tmp_path / "second"
    folder.mkdir()
    disk, seen, rng = RecordingDisk(), [], random.Random(1)
    disk.boundary = lambda: seen.extend(disk.images(rng, 5))
    DurableLog.open(folder, disk=disk).abandon()
    assert len(seen) > 20
    for image in seen:
        lay_out(second, image)
        log = DurableLog.open(second)
        assert (log.first, log.last, log.hard) == (1, 0, HardState())
        log.abandon()


def test_a_power_cut_in_recovery_itself_changes_nothing_of_its_outcome(tmp_path: Path) -> None:
    folder, second = tmp_path / "log", tmp_path / "second"
    folder.mkdir()
    log = DurableLog.open(folder)
    log.append([Entry(1, 1, b"a" * 40), Entry(2, 1, b"b" * 40)], HardState(1, 1, 0))
    end = log.size
    log.append([Entry(3, 1, b"c" * 40), Entry(4, 1, b"d" * 40)])
    log.abandon()
    path = next(folder.iterdir())
    torn = bytearray(path.read_bytes())
    torn[end : end + 30] = bytes(30)  # entry 3 torn, entry 4 whole behind it
    path.write_bytes(torn)
    disk, seen, rng = RecordingDisk(), [], random.Random(2)
    disk.adopt(folder)
    disk.boundary = lambda: seen.extend(disk.images(rng, 6))
    log = DurableLog.open(folder, disk=disk)
    want = content(log)
    log.abandon()
    assert list(want[1]) == [1, 2]
    assert len(seen) > 10
    for image in seen:
        lay_out(second, image)
        log = DurableLog.open(second)
        assert content(log) == want
        log.abandon()


def test_what_opening_accepts_is_durable_even_when_an_earlier_sync_has_failed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = DurableLog.open(folder)
    log.append([Entry(1, 1, b"first")])
    disk = RecordingDisk()
    disk.adopt(folder)
    # From here on the bytes are in the page cache; the kernel dropped them at a failed sync.
    log.append([Entry(2, 1, b"second")])
    log.append([Entry(3, 1, b"third")])
    log.abandon()
    # The witness in entry 3 vouches for entry 2, so only entry 3 is in doubt.
    path = next(folder.iterdir())
    at = path.read_bytes().index(b"third")
    disk.names[path.name].durable = path.read_bytes()[: at - HEAD].ljust(1 << 18, b"\0")
    DurableLog.open(folder, disk=disk).abandon()
    lay_out(folder, next(disk.images(random.Random(0), 0)))
    assert [e.payload for e in content(DurableLog.open(folder))[1].values()] == [
        b"first",
        b"second",
        b"third",
    ]


def test_a_segment_whose_name_was_not_durable_is_durable_after_opening(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = DurableLog.open(folder, segment_size=500)
    log.append([Entry(1, 1, b"x" * 400)])
    disk = RecordingDisk()
    disk.adopt(folder)
    log.append([Entry(2, 1, b"y" * 400)])
    log.abandon()
    newest = sorted(folder.iterdir())[-1]
    file = disk.names[newest.name] = type(next(iter(disk.names.values())))()
    file.durable = newest.read_bytes()
    disk.pending_names.append(("set", newest.name, file))
    log = DurableLog.open(folder, disk=disk)
    log.append([Entry(3, 1, b"z")])
    log.abandon()
    lay_out(folder, next(disk.images(random.Random(0), 0)))
    assert list(content(DurableLog.open(folder))[1]) == [1, 2, 3]
