"""Which apply version a cluster can take, who holds it back, and who is let in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from grampus.clock import SystemClock
from grampus.consensus.members import Members
from grampus.consensus.peer_desk import PeerDesk
from grampus.consensus.roll import advice_on_version, lines
from grampus.consensus.upgrade import common_version, held_back
from grampus.errors import NotLeader
from grampus.master.upgrade import Upgrade
from grampus.model.member import Member
from grampus.protocol import PROTOCOL_VERSION, Goodbye, Hello, Welcome, not_spoken
from grampus.upkeep import RaiseVersion, encode_command

NAMES = {1: "a", 2: "b", 3: "c", 4: "d"}


def members(
    voters: Sequence[int] = (1, 2, 3), learners: Sequence[int] = (), **more: Any
) -> Members:
    known = tuple(Member(id, name, "h", id, id) for id, name in NAMES.items())
    return Members((list(voters), list(learners), [], [], False), known, **more)


@pytest.mark.parametrize(
    ("cluster", "known", "common", "held"),
    [
        (members(), {1: 1, 2: 1, 3: 1}, 1, ()),
        (members(), {1: 2, 2: 2, 3: 2}, 2, ()),
        (members(), {1: 3, 2: 2, 3: 2}, 2, ("b", "c")),
        (members(), {1: 2, 2: 2, 3: 1}, 1, ("c",)),
        # Silent is not known to know anything.
        (members(), {1: 2, 2: 2}, 0, ("c",)),
        (members(), {1: 2, 2: 2, 3: 0}, 0, ("c",)),
        # A learner counts, one that is given up does not.
        (members(learners=[4]), {1: 2, 2: 2, 3: 2, 4: 1}, 1, ("d",)),
        (members(lost=(3,)), {1: 2, 2: 2}, 2, ()),
        (Members(), {}, 0, ()),
    ],
)
def test_the_version_is_what_every_member_knows(
    cluster: Members, known: dict[int, int], common: int, held: tuple[str, ...]
) -> None:
    assert common_version(cluster, known) == common
    assert held_back(cluster, known, 1) == (held if max(known.values(), default=0) > 1 else ())


def test_in_a_joint_configuration_both_sides_count() -> None:
    joint = Members(([1, 2], [], [3], [4], False), members().known)
    assert common_version(joint, {1: 2, 2: 2, 3: 2}) == 0
    assert held_back(joint, {1: 2, 2: 2, 3: 2}, 1) == ("d",)


def test_the_roll_says_who_is_to_be_upgraded() -> None:
    known = {1: 2, 2: 1}
    rows = lines(members(), 1, {}, 0, {}, known=known)
    held = held_back(members(), known, 1)
    assert [row.apply_version for row in rows] == [2, 1, 0, 0]
    told = advice_on_version(rows, 1, held)
    assert told[0].startswith("b runs an older Grampus (apply version 1, others know 2). Install")
    assert told[1].startswith("c has not said whether it knows apply version 2. Start it")
    assert len(told) == 2
    assert advice_on_version(rows, 2, held_back(members(), known, 2)) == []


def hello(id: int, apply: int, role: str = "server") -> Hello:
    return Hello(PROTOCOL_VERSION, "control", role, "x", "c1", "", "h1", id, apply=apply)


def test_who_is_too_old_is_not_let_in_unless_he_is_a_member() -> None:
    replica: Any = SimpleNamespace(members=members(voters=[1, 2, 3]))
    version = 1
    desk = PeerDesk(replica, lambda _: b"", hello(1, 3), apply_version=lambda: version)
    assert isinstance(desk.greet(hello(9, 1))[0], Welcome)
    version = 2
    said, welcome, _ = desk.greet(hello(9, 1))
    assert isinstance(said, Goodbye)
    assert not welcome
    assert "at apply version 2, and x knows 1 at most: install" in said.reason
    answer, welcome, _ = desk.greet(hello(9, 2))
    assert (answer, welcome) == (Welcome(PROTOCOL_VERSION, "x", "c1", 3), True)
    # It takes part until it meets what it does not know, and says so itself.
    assert isinstance(desk.greet(replace(hello(2, 1), node="b"))[0], Welcome)
    assert desk.too_old(hello(0, 1, "join"))
    assert not desk.too_old(hello(0, 0, "join"))  # a worker


def test_the_protocol_before_and_after_this_one_is_spoken() -> None:
    near = [PROTOCOL_VERSION - 1, PROTOCOL_VERSION, PROTOCOL_VERSION + 1]
    assert [not_spoken(version) for version in near] == ["", "", ""]
    assert "protocol 99 is not spoken here" in not_spoken(99)
    assert not_spoken(PROTOCOL_VERSION + 2)


class Log:
    """Takes what is proposed, or fails."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.proposed: list[bytes] = []
        self.done = asyncio.Event()

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        if self.failures:
            raise self.failures.pop()
        self.proposed += commands
        self.done.set()
        return [None]


def test_the_clerk_raises_once_everybody_knows_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grampus.master.upgrade.LOOK", 0.0)
    version, common, clock = [1], [0], SystemClock()
    monkeypatch.setattr(clock, "now", lambda: 7)

    async def scenario() -> None:
        log: Any = Log()
        clerk = Upgrade(log, clock, lambda: version[0], lambda: common[0])
        for silent in (0, 1):
            common[0] = silent
            await clerk.once()
        assert log.proposed == []
        common[0] = 3
        log.failures = [NotLeader("not now")]
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(clerk.run(1))
            await log.done.wait()
            version[0] = 3
            clerk.stop()
        assert log.proposed == [encode_command(RaiseVersion(7, 3))]

    asyncio.run(scenario())
