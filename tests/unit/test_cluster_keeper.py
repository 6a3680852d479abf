"""When a session is over, and what a keep-alive is answered: the core, in virtual ticks."""

from __future__ import annotations

from grampus.cluster.core.keeper import (
    GAP,
    AskBarrier,
    BarrierEnded,
    Began,
    EndFailed,
    Event,
    Expire,
    Instruction,
    KeepAlive,
    LeftOffice,
    Over,
    Reply,
    SessionKeeper,
    TookOffice,
)

TTL = 10_000


class Office:
    """A keeper in office since tick 0, with sessions 1 and 2."""

    def __init__(self) -> None:
        self.keeper = SessionKeeper()
        self.now = 0
        self.step(TookOffice(5, ((1, TTL), (2, TTL))))

    def step(self, *events: Event) -> list[Instruction]:
        return self.keeper.step(self.now, events)

    def pass_until(self, now: int) -> list[Instruction]:
        """Steps as often as a driver has to."""
        done: list[Instruction] = []
        while self.now < now:
            self.now = min(self.now + GAP // 4, now)
            done += self.step()
        return done


def test_a_silent_session_is_over_after_its_time_and_not_before() -> None:
    office = Office()
    assert office.pass_until(TTL - 1) == []
    assert office.pass_until(TTL) == [Expire(1), Expire(2)]
    assert office.pass_until(3 * TTL) == []


def test_a_keep_alive_is_answered_after_a_barrier_that_began_after_it() -> None:
    office = Office()
    office.pass_until(4_000)
    assert office.step(KeepAlive(1, 1)) == [AskBarrier(1)]
    # The second comes while that barrier is under way: it needs one of its own.
    assert office.step(KeepAlive(2, 2), KeepAlive(3, 1)) == []
    assert office.step(BarrierEnded(1, True)) == [Reply(1, "alive"), AskBarrier(2)]
    assert office.step(BarrierEnded(2, True)) == [Reply(2, "alive"), Reply(3, "alive")]
    assert office.pass_until(4_000 + TTL - 1) == []
    assert office.pass_until(4_000 + TTL) == [Expire(1), Expire(2)]


def test_an_unconfirmed_keep_alive_does_not_lengthen_anything() -> None:
    office = Office()
    office.pass_until(9_000)
    assert office.step(KeepAlive(1, 1)) == [AskBarrier(1)]
    assert office.step(BarrierEnded(1, False)) == [Reply(1, "unconfirmed")]
    assert office.pass_until(TTL) == [Expire(1), Expire(2)]


def test_a_session_whose_keep_alive_waits_is_not_silent() -> None:
    office = Office()
    office.pass_until(TTL - 100)
    office.step(KeepAlive(1, 1))
    assert office.pass_until(TTL) == [Expire(2)]
    assert office.step(BarrierEnded(1, True)) == [Reply(1, "alive")]
    assert office.pass_until(2 * TTL - 1) == []
    assert office.pass_until(2 * TTL) == [Expire(1)]


def test_who_has_been_given_up_is_never_answered_again() -> None:
    office = Office()
    office.pass_until(TTL)
    assert office.step(KeepAlive(1, 1)) == [AskBarrier(1)]
    assert office.step(BarrierEnded(1, True)) == [Reply(1, "over")]
    # Not even if the proposal has failed; then it is proposed again.
    assert office.step(EndFailed(1)) == [Expire(1)]
    office.step(KeepAlive(2, 1))
    assert office.step(BarrierEnded(2, True)) == [Reply(2, "over")]


def test_sessions_come_and_go_with_the_facts() -> None:
    office = Office()
    office.pass_until(2_000)
    office.step(Began(6, 3_000), Over(7, 1))
    office.step(KeepAlive(1, 1), KeepAlive(2, 99), KeepAlive(3, 6))
    assert office.step(BarrierEnded(1, True)) == [
        Reply(1, "over"), Reply(2, "over"), Reply(3, "alive"),
    ]  # fmt: skip
    assert office.pass_until(5_000) == [Expire(6)]


def test_facts_that_the_ledger_had_when_office_was_taken_are_skipped() -> None:
    keeper = SessionKeeper()
    # 3 ended in revision 4, and 5 began then ended before revision 8 was read.
    events: list[Event] = [TookOffice(8, ((2, TTL), (7, TTL))), Began(5, TTL), Over(6, 5)]
    keeper.step(0, [*events, Over(4, 3), Over(9, 2)])
    assert keeper.sessions == 1
    assert keeper.step(TTL // 2, []) == []


def test_a_new_leader_and_one_that_stood_still_begin_every_time_anew() -> None:
    office = Office()
    office.pass_until(9_000)
    office.now += GAP + 1
    assert office.step() == []
    assert office.pass_until(10_001 + TTL - 1) == []
    assert office.pass_until(10_001 + TTL) == [Expire(1), Expire(2)]
    office = Office()
    office.pass_until(9_000)
    office.step(LeftOffice())
    assert office.pass_until(50_000) == []
    office.step(TookOffice(9, ((1, TTL),)))
    assert office.pass_until(50_000 + TTL - 1) == []
    assert office.pass_until(50_000 + TTL) == [Expire(1)]


def test_out_of_office_nobody_is_answered() -> None:
    office = Office()
    office.step(KeepAlive(1, 1))
    office.step(KeepAlive(2, 1))
    assert office.step(LeftOffice()) == [Reply(1, "not-leader"), Reply(2, "not-leader")]
    assert office.step(KeepAlive(3, 1)) == [Reply(3, "not-leader")]
    # The barrier of the old office counts for nothing in the new one.
    office.step(TookOffice(9, ((1, TTL),)))
    assert office.step(KeepAlive(4, 1)) == [AskBarrier(2)]
    assert office.step(BarrierEnded(1, True)) == []
    assert office.step(BarrierEnded(2, True)) == [Reply(4, "alive")]
