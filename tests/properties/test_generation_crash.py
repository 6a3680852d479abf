"""A power cut at every step of what replaces ledger and log together: a snapshot that is laid down,
founding, recovering, restoring. What is left is the old, whole, or the new, whole."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from grampus.cluster.commands import Put, encode_command
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.members import Members
from grampus.consensus.record import CHANGE_V2, Entry, HardState
from grampus.consensus.snapshots import LEDGER, lay_down
from grampus.errors import Refused
from grampus.founding import SKIP, Standing, found, recover, restore, standing
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.testing.disk import SimDisk
from grampus.testing.world import PowerCut

ME = Member(7, "a", "127.0.0.1", 8470, 8471)
MEMBERS = Members(conf=([7, 8], [], [], [], False), known=(ME,))
#: Ways in which a cut may leave what was not durable.
WAYS = 4
NEW = (40, 3)


def put(number: int) -> bytes:
    return encode_command(Put(number, b"k", b"v%d" % number))


def entry(index: int) -> Entry:
    return Entry(index, 1, msgspec.msgpack.encode([put(index)]))


def ledger_of(path: Path, last: int, members: bytes = b"") -> str:
    """Makes a ledger that has applied `last` entries, and leaves its WAL as a killed process would;
    its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name("aside.db")
    ledger = Ledger(aside)
    ledger.checkpoint()
    for index in range(1, last + 1):
        if index == 2 and members:
            ledger.apply_members(index, 1, members)
        else:
            ledger.apply(index, 1, [put(index)])
    for tail in ("", "-wal"):
        shutil.copyfile(f"{aside}{tail}", f"{path}{tail}")
    said = ledger.checksum()
    ledger.close()
    aside.unlink()
    return said


def empty(folder: Path) -> None:
    """As a data folder begins."""
    for part in ("ledger", "log"):
        (folder / part).mkdir(parents=True)
    DurableLog.open(folder / "log").close()


def log_of(folder: Path, last: int, hard: HardState) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = DurableLog.open(folder)
    log.append([entry(index) for index in range(1, last + 1)], hard)
    log.close()


def cuts(
    template: Path, tmp_path: Path, act: Callable[[Path, SimDisk], object]
) -> Iterator[tuple[Path, bool]]:
    """Folders after a cut at every step of `act` on a copy of `template`; whether it had ended."""
    for way in range(WAYS):
        for fuse in range(100):
            folder = tmp_path / f"{way}.{fuse}"
            shutil.copytree(template, folder)
            disk = SimDisk(random.Random(way * 1000 + fuse))
            disk.fuse = fuse
            try:
                act(folder, disk)
            except PowerCut:
                ended = False
            else:
                ended = True
            disk.cut_power()
            yield folder, ended
            shutil.rmtree(folder)
            if ended:
                assert fuse > 5, "it has hardly touched the disk"
                break
        else:
            raise AssertionError("it does not end")


def content(generation: Generation) -> tuple[str, int]:
    """Checksum and applied index of a ledger that fits its log."""
    ledger = Ledger(generation.ledger / LEDGER)
    log = DurableLog.open(generation.log)
    try:
        log.check_reaches(ledger.applied_index)
        return ledger.checksum(), ledger.applied_index
    finally:
        log.close()
        ledger.close()


@pytest.mark.parametrize("number", [0, 3])
def test_a_snapshot_is_laid_down_whole_or_not_at_all(tmp_path: Path, number: int) -> None:
    template = tmp_path / "template"
    template.mkdir()
    before = Generation(template, number)
    old = ledger_of(before.ledger / LEDGER, 12)
    log_of(before.log, 30, HardState(2, 5, 12))
    assert (before.ledger / f"{LEDGER}-wal").stat().st_size > 0
    if number:
        (template / "generation").write_text(f"{number}\n")
    new = ledger_of(template / "incoming" / "whole.db", NEW[0])
    Ledger(template / "incoming" / "whole.db").close()  # it comes without a WAL
    seen = set[int]()

    def install(folder: Path, disk: SimDisk) -> None:
        whole = folder / "incoming" / "whole.db"
        lay_down(Generation(folder, number + 1), whole, NEW, HardState(3, 0, NEW[0]), disk)

    for folder, ended in cuts(template, tmp_path, install):
        now = Generation.current(folder)
        now.sweep()
        seen.add(now.number)
        if now.number == number:
            assert not ended, "it was done, and is gone"
            assert content(now) == (old, 12)
        else:
            assert now.number == number + 1
            assert content(now) == (new, NEW[0])
            log = DurableLog.open(now.log)
            assert (log.first, log.last, log.hard) == (41, 40, HardState(3, 0, 40))
            log.close()
    assert seen == {number, number + 1}


def test_a_snapshot_after_a_crash_can_be_laid_down_again(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    ledger_of(Generation(template, 0).ledger / LEDGER, 12)
    log_of(Generation(template, 0).log, 30, HardState(2, 5, 12))
    new = ledger_of(template / "whole.db", NEW[0])
    Ledger(template / "whole.db").close()

    def install(folder: Path, disk: SimDisk) -> None:
        following = Generation.current(folder).following
        shutil.copyfile(folder / "whole.db", folder / "copy.db")
        lay_down(following, folder / "copy.db", NEW, HardState(3, 0, NEW[0]), disk)

    for folder, ended in cuts(template, tmp_path, install):
        if not ended:
            Generation.current(folder).sweep()
            install(folder, SimDisk(random.Random(1)))
        assert content(Generation.current(folder)) == (new, NEW[0])


def checked(folder: Path, history: str) -> Standing:
    there = standing(folder)
    assert there is not None
    assert there.history == history
    assert there.members == Members(conf=([7], [], [], [], False), known=(ME,))
    content(there.generation)
    return there


def test_founding_ends_with_a_cluster_or_as_it_began(tmp_path: Path) -> None:
    template = tmp_path / "template"
    empty(template)

    def begin(folder: Path, disk: SimDisk) -> None:
        asyncio.run(found(folder, ME, "h1", disk=disk))

    for folder, ended in cuts(template, tmp_path, begin):
        if standing(folder) is None:
            assert not ended
            begin(folder, SimDisk(random.Random(1)))
        else:
            with pytest.raises(Refused):
                begin(folder, SimDisk(random.Random(1)))
        checked(folder, "h1")


def test_a_folder_of_one_node_is_founded_with_all_that_it_has(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    ledger_of(Generation(template, 0).ledger / LEDGER, 12)
    log_of(Generation(template, 0).log, 30, HardState(4, 0, 30))

    def begin(folder: Path, disk: SimDisk) -> None:
        asyncio.run(found(folder, ME, "h1", disk=disk))

    for folder, ended in cuts(template, tmp_path, begin):
        if standing(folder) is None:
            assert not ended
            begin(folder, SimDisk(random.Random(1)))
        there = checked(folder, "h1")
        assert content(there.generation)[1] == 30
        log = DurableLog.open(there.generation.log)
        assert log.hard.term > 4
        log.close()


def test_recovering_keeps_all_that_the_survivor_has(tmp_path: Path) -> None:
    """The ledger is behind its log, which has a change of members in it, and ends with an entry
    that is not known to be committed."""
    template = tmp_path / "template"
    template.mkdir()
    ledger_of(Generation(template, 0).ledger / LEDGER, 12, MEMBERS.encode())
    marked = Ledger(Generation(template, 0).ledger / LEDGER)
    marked.found(MEMBERS.encode(), "h1")
    marked.close()
    folder = Generation(template, 0).log
    folder.mkdir(parents=True)
    log = DurableLog.open(folder)
    log.append([entry(i) for i in range(1, 20)], HardState(2, 5, 15))
    log.append([Entry(20, 2, b"", CHANGE_V2, b""), Entry(21, 2, b""), entry(22)])
    log.close()

    def begin(folder: Path, disk: SimDisk) -> None:
        recover(folder, ME, "h2", disk=disk)

    for folder, ended in cuts(template, tmp_path, begin):
        there = standing(folder)
        assert there is not None
        if there.history == "h1":
            assert not ended
            assert there.members == MEMBERS
            begin(folder, SimDisk(random.Random(1)))
        there = checked(folder, "h2")
        ledger = Ledger(there.generation.ledger / LEDGER)
        assert ledger.applied_index == 22
        assert ledger.revision > SKIP
        assert ledger.database.value("SELECT value FROM kv WHERE key = ?", (b"k",)) == b"v22"
        ledger.close()


def test_restoring_ends_with_the_snapshot_or_as_it_began(tmp_path: Path) -> None:
    template = tmp_path / "template"
    empty(template)
    snapshot = tmp_path / "snapshot.db"
    ledger_of(snapshot, 12, MEMBERS.encode())
    Ledger(snapshot).close()

    def begin(folder: Path, disk: SimDisk) -> None:
        restore(folder, snapshot, ME, "h2", disk=disk)

    for folder, ended in cuts(template, tmp_path, begin):
        if standing(folder) is None:
            assert not ended
            begin(folder, SimDisk(random.Random(1)))
        there = checked(folder, "h2")
        assert content(there.generation)[1] == 12
        assert snapshot.exists()
