"""Stamps of a folder: what is remembered of it, and what gives away that it was put back."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path

import pytest

from grampus.consensus import trail
from grampus.consensus.disk import Disk
from grampus.consensus.members import LEFT_BEHIND, NoMember
from grampus.consensus.trail import Trail, pardon
from grampus.database import StorageFailed
from grampus.errors import FolderError
from grampus.protocol import PROTOCOL_VERSION, Hello, Stamp, Welcome
from tests.looped import looped

VALUES = itertools.count(1000)


def begin(folder: Path) -> Trail:
    folder.mkdir(exist_ok=True)
    return Trail.begin(folder, Disk(), lambda: next(VALUES))


def welcome(seen: Stamp | None, *, term: int = 1, acknowledged: int = 0) -> Welcome:
    return Welcome(PROTOCOL_VERSION, "a", "c1", 1, True, seen, term=term, acknowledged=acknowledged)


def hello(
    stamp: Stamp | None, last: int = 100, *, id: int = 2, term: int = 1, lane: str = "control"
) -> Hello:
    return Hello(
        PROTOCOL_VERSION, lane, "server", "b", "c1", "", "h1", id,
        stamp=stamp, term=term, last=last,
    )  # fmt: skip


HERE = hello(None)


async def tell(here: Trail, there: Trail, id: int = 2) -> None:
    here.told(id, there.newest)
    await here.write_down()


@looped
async def test_each_start_has_a_stamp_and_knows_those_before(tmp_path: Path) -> None:
    first = begin(tmp_path / "b")
    second = begin(tmp_path / "b")
    assert second.newest.number == first.newest.number + 1
    assert second.looked(1, welcome(first.newest), HERE)
    assert second.looked(1, welcome(second.newest), HERE)
    assert second.looked(3, welcome(None), HERE)
    assert not second.lost


@looped
async def test_a_folder_put_back_knows_it_at_once_and_after_any_number_of_starts(
    tmp_path: Path,
) -> None:
    begin(tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "image")
    seen = begin(tmp_path / "b").newest
    for _ in range(4):
        begin(tmp_path / "image")  # nobody tells it, and its number grows past what was seen
    old = begin(tmp_path / "image")
    assert old.newest.number > seen.number
    assert not old.looked(1, welcome(seen), HERE)
    assert old.lost
    assert not old.hears(hello(None))
    with pytest.raises(NoMember, match="put back to an earlier time"):
        begin(tmp_path / "image")  # it may not outgrow the truth


def test_a_folder_that_was_left_behind_says_why_at_each_start_until_it_is_recovered(
    tmp_path: Path,
) -> None:
    here = begin(tmp_path / "b")
    here.give_up(LEFT_BEHIND)
    here.give_up()  # the first reason stays
    assert here.lost
    assert not here.hears(hello(None))
    with pytest.raises(NoMember, match="recovered without this server"):
        begin(tmp_path / "b")
    pardon(tmp_path / "b", Disk())
    pardon(tmp_path / "b", Disk())
    assert not begin(tmp_path / "b").lost


@looped
async def test_what_was_seen_of_others_outlives_a_start(tmp_path: Path) -> None:
    here, there = begin(tmp_path / "a"), begin(tmp_path / "b")
    await tell(here, there)
    again = begin(tmp_path / "a")
    assert again.seen(2) == there.newest
    assert again.seen(3) is None


@looped
async def test_a_peer_is_heard_when_both_have_looked_and_its_stamp_is_written_down(
    tmp_path: Path,
) -> None:
    here, there = begin(tmp_path / "a"), begin(tmp_path / "b")
    said = hello(there.newest)
    here.greeted(said)
    assert not here.hears(said)
    assert here.looked(2, welcome(None), HERE)
    here.told(2, there.newest)
    assert not here.hears(said)  # not written down yet
    await here.write_down()
    assert here.hears(said)
    assert here.hears(hello(None, id=3))  # one that knows nothing of stamps
    # It asks for something over another connection, as when it listens elsewhere now.
    here.greeted(hello(None))
    assert here.hears(said)
    later = hello(begin(tmp_path / "b").newest)
    here.greeted(later)
    assert not here.hears(later)  # a new process, which has not told its stamp yet


@looped
async def test_an_older_stamp_or_a_shorter_log_than_was_acknowledged_is_told_by_its_owner(
    tmp_path: Path,
) -> None:
    here, there = begin(tmp_path / "a"), begin(tmp_path / "b")
    await tell(here, there)
    asked = welcome(here.seen(2), term=5, acknowledged=101)
    assert there.looked(1, asked, hello(there.newest, 101, term=5))
    assert there.looked(1, asked, hello(there.newest, 7, term=6))  # another leader has cut it
    assert not there.looked(1, asked, hello(there.newest, 100, term=5))
    assert there.lost
    here.disowned(2)
    assert here.complaint(2)
    assert not here.complaint(3)
    await tell(here, there)
    assert not here.complaint(2)


@looped
async def test_a_hello_may_be_older_than_what_came_meanwhile_on_another_lane(
    tmp_path: Path,
) -> None:
    """It was made, then the minute was over, and the log grew; only then it was read."""
    here, there = begin(tmp_path / "a"), begin(tmp_path / "b")
    await tell(here, there)
    assert here.looked(2, welcome(None), HERE)
    said = hello(there.newest, 100, lane="bulk")
    there._advance()
    await tell(here, there)
    here.greeted(said)
    assert here.hears(said)
    here.told(2, there.newest)  # as it does at once on either lane
    assert not here.complaint(2)
    assert here.hears(said)
    answer = welcome(here.seen(2), term=1, acknowledged=150)
    assert there.looked(1, answer, hello(there.newest, 170))
    assert not here.complaint(2)


@looped
async def test_stamps_are_bounded_and_forgotten_ones_are_taken_for_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "KEPT", 3)
    monkeypatch.setattr(trail, "SERVERS", 2)
    stamps = [begin(tmp_path / "b").newest for _ in range(5)]
    newest = begin(tmp_path / "b")
    assert newest.looked(1, welcome(stamps[0]), HERE)
    assert newest.looked(1, welcome(stamps[4]), HERE)
    assert not newest.looked(1, welcome(Stamp(stamps[4].number, 1)), HERE)
    here = begin(tmp_path / "a")
    for id in (2, 3, 4):
        await tell(here, newest, id)
    assert [here.seen(id) is not None for id in (2, 3, 4)] == [False, True, True]


@looped
async def test_a_damaged_trail_is_told(tmp_path: Path) -> None:
    begin(tmp_path / "b")
    (tmp_path / "b" / "trail").write_bytes(b"\xff\x00")
    with pytest.raises(FolderError, match="cannot be used"):
        begin(tmp_path / "b")


@looped
async def test_a_stamp_is_left_once_a_minute_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "EVERY", 0.0)
    one, told = begin(tmp_path / "b"), asyncio.Queue[Stamp]()
    first = one.newest
    task = asyncio.create_task(one.run(told.put_nowait))
    assert (await told.get()).number == first.number + 1
    task.cancel()
    await asyncio.wait([task])
    assert begin(tmp_path / "b").looked(1, welcome(one.newest), HERE)


@looped
async def test_a_full_disk_holds_up_what_is_told_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "AGAIN", 0.0)
    here, there = begin(tmp_path / "a"), begin(tmp_path / "b")
    write, tried = Trail._write, asyncio.Event()

    def full(self: Trail, name: str, data: bytes) -> None:
        loop.call_soon_threadsafe(tried.set)
        raise StorageFailed("the disk is full")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Trail, "_write", full)
    task = asyncio.create_task(here.run(lambda stamp: None))
    assert here.looked(2, welcome(None), HERE)
    here.told(2, there.newest)
    await tried.wait()
    assert not here.hears(hello(there.newest))
    monkeypatch.setattr(Trail, "_write", write)
    while here._told:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert here.hears(hello(there.newest))
    task.cancel()
    await asyncio.wait([task])
