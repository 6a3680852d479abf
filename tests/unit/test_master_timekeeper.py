"""When a clock is believed: what jumps, what is far from the ledger, what ends a doubt."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from grampus.ledger import Ledger
from grampus.master.core.steadiness import AWAY, BOUND, HOLD, Steadiness
from grampus.master.retention import DOUBT
from grampus.master.timekeeper import Timekeeper
from grampus.runs.change import Graphs
from grampus.runs.commands import TakeOffice, encode_command
from grampus.runs.queries import Queries

DAY = 86_400_000
YEAR = 365 * DAY
HOUR = 3_600_000


class Hands:
    """A clock that is set by hand, on a machine that may have NTP."""

    def __init__(self) -> None:
        self.wall = 10_000 * DAY
        self.boot = 0
        self.kept_right = False

    def now(self) -> int:
        return self.wall

    def ticks(self) -> int:
        return self.boot

    def synchronised(self) -> bool:
        return self.kept_right

    def go(self, ms: int, jump: int = 0) -> None:
        self.wall += ms + jump
        self.boot += ms


def steadily(steady: Steadiness, now: int, ticks: int) -> bool:
    steady.look(now, ticks)
    return steady.believes(HOLD)


def test_a_clock_that_jumps_ahead_is_not_believed_at_once() -> None:
    steady = Steadiness(0, 0)
    assert steadily(steady, 10_000, 10_000)
    # Both stood still or went on together: a laptop that slept.
    assert steadily(steady, 10_000_000, 10_000_000)
    assert steadily(steady, 10_000_000 + BOUND, 10_000_000)
    assert not steadily(steady, 20_000_000 + YEAR, 20_000_000)
    assert steady.jump > YEAR - 2 * BOUND
    assert not steadily(steady, 20_001_000 + YEAR, 20_001_000)
    assert steady.jump == 0
    # Set right again.
    assert steadily(steady, 20_002_000, 20_002_000)
    # Ahead again, and it stays there: it is the time.
    assert not steadily(steady, 20_003_000 + YEAR, 20_003_000)
    assert steadily(steady, 20_003_000 + YEAR + HOLD, 20_003_000 + HOLD)
    # Back is no danger.
    assert steadily(steady, 0, 20_004_000 + HOLD)
    assert steady.jump < 0


def test_whoever_deletes_doubts_for_longer_than_whoever_fires() -> None:
    hands = Hands()
    time = Timekeeper(hands)
    hands.go(1_000, jump=YEAR)
    assert not time.believes()
    hands.go(HOLD)
    assert time.believes()
    assert not time.believes(DOUBT)
    hands.go(DOUBT - HOLD)
    assert time.believes(DOUBT)


@pytest.mark.parametrize(
    ("off", "told"),
    [(40 * DAY, "40d ahead of the newest"), (-3 * HOUR, "3h behind the newest"),
     (-YEAR, "365d behind the newest"), (AWAY, ""), (12 * HOUR, ""), (0, ""), (-BOUND, "")],
)  # fmt: skip
def test_an_office_doubts_a_clock_that_is_far_from_its_ledger(off: int, told: str) -> None:
    hands = Hands()
    time = Timekeeper(hands)
    time.begin(hands.wall - off)
    assert told in time.doubt
    assert time.believes() == (not told)
    hands.go(HOLD)
    assert time.believes()
    assert time.believes(DOUBT) == (not told)


def test_a_new_ledger_has_nothing_to_compare_with() -> None:
    time = Timekeeper(Hands())
    ledger = Ledger(None)
    queries = Queries(ledger.database, Graphs())
    assert queries.newest_time() is None
    time.begin(queries.newest_time())
    assert time.believes(DOUBT)
    ledger.apply(1, 1, [encode_command(TakeOffice(1234, "n1", 1))])
    assert queries.newest_time() == 1234


def test_a_machine_that_was_off_for_a_month_and_has_ntp_is_believed_at_once() -> None:
    hands = Hands()
    hands.kept_right = True
    time = Timekeeper(hands)
    time.begin(hands.wall - 31 * DAY)
    assert time.believes(DOUBT)
    assert time.doubt == ""


def test_ntp_that_comes_later_ends_the_doubt_with_the_step_that_it_makes() -> None:
    hands = Hands()
    right = hands.wall
    hands.wall = right - 20 * YEAR  # Its battery is empty.
    time = Timekeeper(hands)
    time.begin(right - HOUR)
    assert not time.believes()
    hands.go(5_000, jump=20 * YEAR)
    hands.kept_right = True
    assert time.believes(DOUBT)


def test_a_clock_that_is_set_right_by_hand_is_believed() -> None:
    hands = Hands()
    right = hands.wall
    for wrong in (YEAR, -YEAR):
        hands.wall = right + wrong
        time = Timekeeper(hands)
        time.begin(right - HOUR)
        assert not time.believes()
        hands.go(60_000, jump=-wrong)
        assert time.believes(DOUBT)


def test_one_that_is_set_wrong_again_is_doubted_anew() -> None:
    hands = Hands()
    time = Timekeeper(hands)
    time.begin(hands.wall - YEAR)
    hands.go(HOLD - 1, jump=YEAR)
    assert not time.believes()
    hands.go(HOLD - 1)
    assert not time.believes()


def test_who_says_that_it_is_right_ends_the_doubt(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    time = Timekeeper(hands)
    with caplog.at_level(logging.WARNING):
        time.begin(hands.wall - 31 * DAY)
        for _ in range(3):
            hands.go(1_000)
            assert not time.believes()
        time.trust()
    assert time.believes(DOUBT)
    alarm, over = [record.message for record in caplog.records]
    assert alarm.startswith("ALARM: the clock is 31d ahead of the newest entry of the ledger")
    assert "grampus schedule trust-clock" in alarm
    assert over == "the clock is believed again: schedules fire"


def test_what_became_of_the_clock_while_no_node_ran_is_known_within_a_boot(tmp_path: Path) -> None:
    hands, file = Hands(), tmp_path / "clock.json"
    time = Timekeeper(hands, file, "boot")
    time.begin(None)
    # A month later: on the same boot no doubt is left, whatever the ledger says.
    hands.go(31 * DAY)
    time = Timekeeper(hands, file, "boot")
    time.begin(hands.wall - 31 * DAY)
    assert time.believes(DOUBT)
    # Set ahead by two hours meanwhile, and entries were made by that time.
    hands.go(60_000, jump=2 * HOUR)
    time = Timekeeper(hands, file, "boot")
    time.begin(hands.wall)
    assert "suddenly 2h ahead" in time.doubt
    # It dies in doubt: the next one begins with the same doubt.
    hands.go(60_000)
    time = Timekeeper(hands, file, "boot")
    time.begin(hands.wall)
    assert not time.believes()
    time.trust()
    assert time.believes(DOUBT)
    hands.go(60_000)
    time = Timekeeper(hands, file, "boot")
    time.begin(hands.wall)
    assert time.believes(DOUBT)


def test_after_a_boot_entries_of_a_doubted_clock_prove_nothing(tmp_path: Path) -> None:
    hands, file = Hands(), tmp_path / "clock.json"
    time = Timekeeper(hands, file, "boot")
    time.begin(None)
    hands.go(60_000, jump=YEAR)
    hands.boot = 0
    time = Timekeeper(hands, file, "another boot")
    time.begin(hands.wall - 1_000)
    assert "365d ahead of the newest entry" in time.doubt
    file.write_bytes(b"")  # Power was cut.
    time = Timekeeper(hands, file, "another boot")
    time.begin(hands.wall - 1_000)
    assert time.believes(DOUBT)
    assert file.read_bytes()


def test_where_nothing_can_be_kept_it_goes_on(tmp_path: Path) -> None:
    time = Timekeeper(Hands(), tmp_path / "no" / "clock.json", "boot")
    time.begin(None)
    assert time.believes(DOUBT)
