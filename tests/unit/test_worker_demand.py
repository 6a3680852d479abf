"""What is remembered of modules is bounded."""

from __future__ import annotations

from grampus.worker.demand import DECLINED_FOR, IDLE, Demand, Key


def key(number: int) -> Key:
    return f"m{number}", "/b", ()


def test_a_module_that_was_declined_has_another_chance_later() -> None:
    demand = Demand()
    demand.decline(key(1), 0)
    assert not demand.want(key(1), 1)
    assert not demand.want(key(1), 2)
    demand.beat(DECLINED_FOR - 1)
    assert not demand.want(key(1), DECLINED_FOR - 1)
    demand.beat(DECLINED_FOR)
    assert demand.want(key(1), DECLINED_FOR)


def test_the_longest_ago_is_forgotten_first() -> None:
    demand = Demand()
    for number in range(257):
        assert not demand.want(key(number), number)
    assert demand.want(key(1), IDLE)
    assert not demand.want(key(0), IDLE)
