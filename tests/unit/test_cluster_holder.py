"""Whether a session is still its holder's, and which server a client asks: both pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grampus.cluster.core.route import FIRST_REST, LAST_REST, Route
from grampus.model.holder import Holder

A, B, C = (("a", 1), ("b", 1), ("c", 1))


def test_the_time_counts_from_the_keep_alive_that_was_sent() -> None:
    holder = Holder(10_000, 0)
    assert holder.lives(9_989)
    holder.sent(2_000)
    holder.confirmed(2_000, now=9_000)
    assert holder.lives(11_000)
    assert not holder.lives(12_000)


def test_an_answer_that_comes_too_late_brings_nothing_back() -> None:
    holder = Holder(10_000, 0)
    holder.sent(8_000)
    holder.confirmed(8_000, now=10_000)
    assert holder.over
    assert not holder.lives(10_001)


def test_an_older_answer_takes_nothing_away() -> None:
    holder = Holder(10_000, 0)
    holder.confirmed(5_000, now=5_100)
    before = holder.deadline
    holder.confirmed(3_000, now=5_200)
    assert holder.deadline == before


def test_after_an_unconfirmed_keep_alive_the_next_one_comes_sooner() -> None:
    holder = Holder(10_000, 0)
    holder.sent(2_000)
    assert holder.due == 4_000
    holder.unanswered(2_500)
    assert 2_500 < holder.due < 3_000


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 4_000)), max_size=20))
def test_a_holder_is_done_before_the_servers_are(steps: list[tuple[int, int]]) -> None:
    """Servers count from when a keep-alive arrived, so from a later moment than the holder."""
    ttl, now = 5_000, 0
    holder, servers = Holder(ttl, 0), ttl
    for pause, journey in steps:
        now += pause
        if not holder.lives(now) or now >= servers:
            break
        sent = now
        arrived = sent + journey // 2
        if arrived < servers:
            servers = arrived + ttl
            now = sent + journey
            holder.confirmed(sent, now)
    assert holder.deadline < servers


def test_who_fails_rests_for_longer_each_time_and_the_others_are_asked() -> None:
    route = Route([A, B, C])
    assert route.home == A
    route.failed(0, A, chance=0)
    assert route.home == B
    assert route.wait(0, A) == FIRST_REST
    route.failed(10, B, chance=0)
    assert route.home == C
    route.failed(20, C, chance=0)
    assert route.home == A
    for _ in range(20):
        route.failed(1_000, A, chance=0)
    assert route.wait(1_000, A) == LAST_REST
    route.worked(A)
    assert route.wait(1_000, A) == 0


def test_a_random_part_of_up_to_half_is_taken_off_a_rest() -> None:
    route = Route([A, B])
    route.failed(0, A, chance=1)
    assert route.wait(0, A) == FIRST_REST // 2


def test_servers_that_the_cluster_names_are_tried_and_those_given_are_kept() -> None:
    route = Route([A, B])
    route.failed(0, A, chance=0)
    route.told([B, C])
    assert route.known == (A, B, C)
    assert route.home == B
    route.failed(0, B, chance=0)
    assert route.home == C
    route.told([A])
    assert route.known == (A, B)


def test_a_leader_that_fails_leads_no_more() -> None:
    route = Route([A, B])
    route.leads(B)
    route.failed(0, A, chance=0)
    assert route.leader == B
    route.failed(0, B, chance=0)
    assert route.leader is None
