"""Launches that wait for a slot, or for a machine that cannot start them now."""

from __future__ import annotations

from grampus.worker.line import AGAIN, PATIENCE, Line, Waiting
from grampus.worker.orders import Launch


def waiting(n: int) -> Waiting:
    return Waiting(Launch(n, ["true"], {}, "/", None, 0, f"run/t.{n}"), b"")


def numbers(line: Line) -> list[int]:
    return [launch.n for launch in line]


def test_first_come_is_first_served_and_the_line_is_bounded() -> None:
    line = Line(3)
    assert all(line.join(waiting(n)) for n in (1, 2, 3))
    assert not line.join(waiting(4))
    assert (1 in line, 4 in line, len(line)) == (True, False, 3)
    assert line.remove(2)
    assert not line.remove(2)
    taken = [line.take(0, 1), line.take(0, 1), line.take(0, 1)]
    assert [each and each.launch.n for each in taken] == [1, 3, None]


def test_what_was_tried_in_vain_keeps_its_place_and_lets_others_pass() -> None:
    line = Line(4)
    first = waiting(1)
    assert line.put_back(first, 1_000)
    line.join(waiting(2))
    assert numbers(line) == [1, 2]
    passed = line.take(1_000, 1)
    assert passed is not None
    assert passed.launch.n == 2
    assert line.take(1_000 + AGAIN - 1, 1) is None
    assert line.put_back(passed, 1_001)
    assert numbers(line) == [1, 2]
    assert line.take(1_000 + AGAIN, 1) is first


def test_only_what_was_never_tried_is_called_back() -> None:
    line = Line(4)
    assert line.put_back(waiting(1), 0)
    line.join(waiting(2))
    assert [line.recall(n) for n in (1, 2, 3)] == [False, True, False]
    assert numbers(line) == [1]


def test_it_is_given_up_in_the_end() -> None:
    line, one, now, tries = Line(1), waiting(1), 5_000, 0
    while line.put_back(one, now):
        tries += 1
        now += AGAIN
        assert line.take(now, 1) is one
    assert tries == PATIENCE // AGAIN
    assert len(line) == 0


def test_at_a_stop_all_are_told() -> None:
    line = Line(4)
    for n in (1, 2):
        line.join(waiting(n))
    assert [launch.n for launch in line.clear()] == [1, 2]
    assert not line
