"""When a worker is silent and when its attempts are lost, as the leader counts."""

from __future__ import annotations

from grampus.master.core.leases import AGAIN, SILENT_AFTER, Leases
from grampus.master.core.pulse import GAP, Pulse
from grampus.model.lease import KEEP
from grampus.runs.commands import MOST_LOST, LoseAttempts, SilenceSession

EPOCH, WALL = 3, 1_000_000


def counting(*leases: int, heard: int = 0) -> Leases:
    """One session, 7, registered at 5, with attempts 1, 2, ...; it is gone."""
    made = Leases(EPOCH)
    made.seat(7, "w1", 5, False, 0)
    made.connected(7)
    for n, lease in enumerate(leases, 1):
        made.begin(7, n, lease)
    made.gone(7, heard)
    return made


def silence(registered: int = 5) -> SilenceSession:
    return SilenceSession(WALL, EPOCH, 7, registered)


def lost(lease: str, *numbers: int) -> LoseAttempts:
    return LoseAttempts(WALL, EPOCH, 7, 5, numbers, f"its worker w1 was not heard for {lease}")


def test_who_is_connected_is_not_counted() -> None:
    leases = counting(10_000)
    leases.connected(7)
    assert leases.next_due() is None
    assert leases.due(10**9, 0, WALL) == ()
    assert leases.is_over(7, 1) is None


def test_it_counts_from_the_newest_keep_alive_and_each_attempt_has_its_own_lease() -> None:
    leases = counting(10_000, 30_000, KEEP, 30_000, heard=2_000)
    assert leases.next_due() == 12_000
    assert leases.due(11_999, 0, WALL) == ()
    assert leases.due(12_000, 0, WALL) == (silence(),)
    # Nothing is lost before the ledger says that the worker is silent.
    assert leases.due(12_500, 0, WALL) == ()
    assert leases.next_due() is None
    leases.silenced(7)
    assert leases.next_due() == 12_000
    assert leases.due(12_600, 0, WALL) == (lost("10s", 1),)
    assert leases.next_due() == leases.is_over(7, 2) == 32_000
    assert leases.due(31_999, 0, WALL) == ()
    assert leases.due(32_000, 0, WALL) == (lost("30s", 2, 4),)
    # The kept one is not asked for, ever.
    assert (leases.next_due(), leases.is_over(7, 3)) == (None, None)
    assert leases.due(10**9, 0, WALL) == ()


def test_a_server_that_stood_still_begins_every_count_anew_and_in_full() -> None:
    leases = counting(30_000)
    leases.due(10_000, 0, WALL)
    leases.silenced(7)
    assert leases.due(29_999, 0, WALL) == ()
    assert leases.due(60_000, 60_000, WALL) == ()
    assert leases.is_over(7, 1) == 90_000
    assert leases.due(89_999, 60_000, WALL) == ()
    assert leases.due(90_000, 60_000, WALL) == (lost("30s", 1),)


def test_whoever_registers_is_heard() -> None:
    leases = counting(20_000)
    leases.due(10_000, 0, WALL)
    leases.silenced(7)
    # With this server or another: nobody speaks for it here.
    leases.seen(7, 9, 15_000)
    assert leases.due(24_999, 0, WALL) == ()
    assert leases.due(25_000, 0, WALL) == (silence(registered=9),)
    leases.silenced(7)
    assert leases.due(34_999, 0, WALL) == ()
    (command,) = leases.due(35_000, 0, WALL)
    assert isinstance(command, LoseAttempts)
    assert command.registered == 9


def test_what_nobody_answered_is_asked_again_and_what_the_ledger_refused_is_not() -> None:
    leases = counting(10_000)
    (command,) = leases.due(10_000, 0, WALL)
    leases.declined(command, False, 10_100)
    assert leases.next_due() == 10_100 + AGAIN
    assert leases.due(10_099 + AGAIN, 0, WALL) == ()
    assert leases.due(10_100 + AGAIN, 0, WALL) == (silence(),)
    leases.silenced(7)
    (command,) = leases.due(12_000, 0, WALL)
    leases.declined(command, False, 12_000)
    (command,) = leases.due(12_000 + AGAIN, 0, WALL)
    leases.declined(command, True, 13_000)
    assert leases.due(10**9, 0, WALL) == ()


def test_what_is_over_is_not_lost_and_nothing_is_counted_for_a_session_that_ended() -> None:
    leases = counting(10_000, 10_000)
    leases.due(10_000, 0, WALL)
    leases.silenced(7)
    leases.end(7, 1)
    assert leases.due(10_000, 0, WALL) == (lost("10s", 2),)
    leases.leave(7)
    assert (leases.due(10**9, 0, WALL), leases.next_due()) == ((), None)


def test_many_are_lost_in_commands_of_a_bounded_size() -> None:
    leases = counting(*[10_000] * (MOST_LOST + 1))
    leases.due(SILENT_AFTER, 0, WALL)
    leases.silenced(7)
    commands = leases.due(SILENT_AFTER, 0, WALL)
    assert [len(c.numbers) for c in commands if isinstance(c, LoseAttempts)] == [MOST_LOST, 1]


def test_a_pulse_knows_since_when_it_beats() -> None:
    pulse = Pulse(100)
    assert pulse.look(100 + GAP) == 100
    assert pulse.look(101 + 2 * GAP) == 101 + 2 * GAP
    assert pulse.look(102 + 2 * GAP) == 101 + 2 * GAP
