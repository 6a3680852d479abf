"""When a disk hangs, when it is slow, and what is said of it."""

from __future__ import annotations

import logging

import pytest

from grampus.consensus.lookout import AGAIN, Lookout
from grampus.consensus.members import Members
from grampus.consensus.roll import advice, complaint_of, lines
from grampus.consensus.strain import COUNTS, HANGS, SLOW, Disks, Strain
from grampus.model.member import Member


def sync(strain: Strain, at: float, took: float) -> float:
    strain.begins(at)
    strain.ended(at + took)
    return at + took


def test_a_sync_hangs_from_a_moment_on_and_until_it_is_over() -> None:
    strain = Strain()
    strain.begins(10.0)
    assert strain.hangs(10.0 + HANGS - 0.01) == 0.0
    assert strain.hangs(10.0 + HANGS) == HANGS
    assert strain.told(10.0 + 12.5) == 12_500
    strain.ended(30.0)
    assert strain.hangs(31.0) == 0.0
    assert strain.told(31.0) == 0, "one that hung once is not slow time and again"


def test_a_disk_is_slow_when_it_was_so_for_long_and_well_when_it_was_not() -> None:
    strain, now = Strain(), 0.0
    told = []
    for _ in range(30):
        now = sync(strain, now, 0.6)
        told.append((now, strain.slow(now)))
    first = next(at for at, slow in told if slow)
    assert 5.0 < first < 10.0
    assert told[-1][1] == pytest.approx(0.6)
    assert strain.told(now) == 600
    for _ in range(1000):
        now = sync(strain, now, 0.01)
    assert strain.slow(now) == 0.0


@pytest.mark.parametrize(
    ("pause", "took", "slow"),
    [
        (1.0, SLOW, True),  # a write now and then: each waits
        (0.0, SLOW - 0.01, False),
        (20.0, 3.0, False),  # one, and long nothing
    ],
)
def test_what_is_slow(pause: float, took: float, slow: bool) -> None:
    strain, now = Strain(), 0.0
    for _ in range(100):
        now = sync(strain, now + pause, took)
    assert bool(strain.slow(now)) is slow


def test_slow_moments_close_together_are_one_moment() -> None:
    strain, now = Strain(), 100.0
    for _ in range(5):
        now = sync(strain, now, 0.6)
    for _ in range(20):
        assert not strain.slow(now)
        now += 0.5


def test_a_slow_disk_is_never_told_as_one_that_hangs() -> None:
    strain, now = Strain(), 0.0
    for _ in range(10):
        now = sync(strain, now, HANGS - 0.1)
        now = sync(strain, now, HANGS + 0.3)
    assert 0 < strain.told(now) < 1000 * HANGS


def test_the_word_of_a_peer_counts_for_a_while() -> None:
    disks = Disks()
    disks.heard(2, 10.0, 5000)
    disks.heard(3, 10.0, 700)
    assert disks.known(10.0 + COUNTS - 0.1) == {2: 5000, 3: 700}
    disks.heard(3, 11.0, 0)
    assert disks.known(11.0) == {2: 5000}
    assert disks.known(10.0 + COUNTS) == {}


def test_a_person_is_told_of_the_disk_and_not_to_start_the_server_again() -> None:
    known = tuple(Member(id, name, "127.0.0.1", 1, 8000 + id) for id, name in enumerate("abc", 1))
    members = Members(conf=([1, 2, 3], [], [], [], False), known=known)
    well, silent = (100, 101, 1, False, True, 0), (50, 51, 1, False, False, 0)
    rows = lines(members, 1, {2: silent, 3: well}, 100, {}, 1, disks={2: 12_300, 3: 640})
    assert [row.state for row in rows] == ["leads", "silent", "follows"]
    assert [row.complaint for row in rows] == [
        "",
        "its disk has not answered for 12 s",
        "its disk is slow: a write takes 0.6 s",
    ]
    told = advice(rows, 3, "a", 0)
    assert told[0].startswith("b: its disk has not answered for 12 s. Look at that disk")
    assert told[1].startswith("c: its disk is slow")
    assert told[2:] == ["One more silent voter, and no write is taken any more."]
    assert complaint_of(0) == ""


def test_the_log_says_once_that_the_disk_hangs_again_each_minute_and_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    strain = Strain()
    lookout = Lookout(strain)
    strain.begins(0.0)
    for half in range(int(2 * (HANGS + AGAIN + 2))):
        lookout.look(half / 2)
    strain.ended(65.0)
    lookout.look(65.0)
    lookout.look(66.0)
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in said] == [
        "the disk of the log has not answered for 2 s",
        "the disk of the log has not answered for 62 s",
        "the disk of the log answers again, after more than 62 s",
    ]


def test_a_process_that_stood_still_in_the_middle_of_a_sync_does_not_blame_its_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    strain = Strain()
    lookout = Lookout(strain)
    strain.begins(0.0)
    lookout.look(0.3)
    lookout.look(30.0)  # it goes on, and its thread has not been heard yet
    strain.ended(30.1)
    lookout.look(30.5)
    assert not caplog.records
