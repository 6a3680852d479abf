"""The evidence of the soak finds what it is for."""

from __future__ import annotations

from tests.soak.evidence import Findings, Kill, follow, latest, read


def lines(*texts: str) -> str:
    """`what task attempt execution time` of run r."""
    told = []
    for text in texts:
        what, task, attempt, name, time = text.split()
        told.append(f"{what} r {task} {attempt} {name} 2 {time} boot")
    return "\n".join(told)


def followed(text: str, *kills: Kill) -> Findings:
    found = read(text)
    follow(found, kills)
    return found


def test_one_after_the_other_is_well() -> None:
    found = read(lines("start a 1 x 1", "beat a 1 x 2", "start a 2 y 3", "end a 2 y 4"))
    assert found.problems == []
    assert latest(found.executions.values())["r", "a"].name == "y"
    assert found.executions["y"].over
    assert not found.executions["x"].over


def test_a_line_after_the_start_of_the_next_is_an_overlap() -> None:
    found = read(lines("start a 1 x 1", "start a 2 y 2", "beat a 1 x 3"))
    assert found.problems == ["r/a: attempt 1 wrote `beat` after the start of attempt 2"]


def test_a_lock_that_was_held_is_an_overlap() -> None:
    found = read(lines("start a 1 x 1", "overlap a 2 y 2"))
    assert found.problems == ["the lock of r/a was held when 2 began"]


def test_an_attempt_that_is_executed_again_is_found() -> None:
    found = read(lines("start a 1 x 1", "end a 1 x 2", "start a 1 y 3"))
    assert found.problems == ["r/a: attempt 1 executed after 1"]


def test_an_execution_has_one_process() -> None:
    found = read("start r a 1 x 2 1.0 boot\nbeat r a 1 x 3 2.0 boot")
    assert found.problems == ["r/a: one execution, two processes"]


def test_who_lives_before_and_after_a_new_node_went_on() -> None:
    text = lines("start a 1 x 9.8", "start b 1 y 9.9", "end b 1 y 10.2", "beat a 1 x 10.4",
                 "beat a 1 x 11.1")  # fmt: skip
    found = followed(text, Kill("node", 10, 11))
    assert (found.went_on, found.kills_survived, found.ended_alone) == (1, 1, 1)
    assert found.problems == []


def test_who_falls_silent_with_the_node_is_found() -> None:
    text = lines("start a 1 x 9.8", "start a 2 y 12", "end a 2 y 13")
    found = followed(text, Kill("node", 10, 11))
    assert found.problems == ["r/a: attempt 1 ended with node 0, and its warden lived"]
    # It is no wonder where the warden died too: with the node, before it or soon after.
    node = Kill("node", 10, 11)
    assert followed(text, Kill("both", 10, 11)).problems == []
    assert followed(text, Kill("warden", 9.7, 9.7), node).problems == []
    assert followed(text, node, Kill("warden", 10.5, 10.5)).problems == []
