"""How a cluster grows and heals by itself: which change of members the leader asks for next. Pure.

Rules: one change at a time. A newcomer is a learner until it has caught up. Learners become voters
so that the number of voters is odd: one alone waits for a second one, because two voters survive no
more than one. Who takes the place of a lost server does so in one joint change, so that at no
moment fewer votes count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from grampus.consensus.hearing import Standing
from grampus.consensus.members import Members

VOTER, REMOVE, LEARNER = 0, 1, 2
#: Voters in all.
MOST_VOTERS = 5
#: Entries that a learner may lack and still has caught up.
CLOSE = 100
#: Raft's state of a peer that takes entries as they come, and has shown what it has.
REPLICATES = 1
#: Of each peer, as far as a leader knows.
Progress = Mapping[int, Standing]


class Step(Struct, frozen=True):
    """(VOTER | REMOVE | LEARNER, id) pairs, and why."""

    changes: tuple[tuple[int, int], ...]
    why: str

    @property
    def joint(self) -> bool:
        return len(self.changes) > 1


def next_step(members: Members, progress: Progress, commit: int) -> Step | None:
    """None when nothing is to be done now."""
    if members.joint:
        return None
    ready = [id for id in members.learners if _caught_up(progress, id, commit)]
    for lost in members.lost:
        if lost in members.learners:
            return Step(((REMOVE, lost),), f"{_name(members, lost)} is being replaced")
        successor = next((id for id in ready if _name(members, id) == _name(members, lost)), None)
        if successor is not None:
            return Step(
                ((VOTER, successor), (REMOVE, lost)),
                f"{_name(members, lost)} has caught up and takes its old place",
            )
    return _promotion(members, [id for id in ready if not _succeeds(members, id)])


def _promotion(members: Members, ready: list[int]) -> Step | None:
    voters = len(members.voters)
    there = min(voters + len(ready), MOST_VOTERS)
    wanted = there if there % 2 else there - 1
    new = ready[: max(0, wanted - voters)]
    if not new:
        return None
    names = ", ".join(_name(members, id) for id in new)
    return Step(tuple((VOTER, id) for id in new), f"{names} caught up")


def _succeeds(members: Members, id: int) -> bool:
    """Whether it waits for the place of a lost server."""
    name = _name(members, id)
    return any(_name(members, lost) == name for lost in members.lost)


def _name(members: Members, id: int) -> str:
    member = members.find(id)
    return str(id) if member is None else member.name


def _caught_up(progress: Progress, id: int, commit: int) -> bool:
    peer = progress.get(id)
    if peer is None:
        return False
    matched, _, state, _, active, _ = peer
    return active and state == REPLICATES and matched + CLOSE >= commit


def survives(members: Members, without: int, answer: Collection[int]) -> bool:
    """Whether those who `answer` are a majority of the voters that are left then."""
    left = [id for id in members.conf[0] if id != without]
    return sum(id in answer for id in left) >= len(left) // 2 + 1


def can_lose(members: Members, answer: Collection[int]) -> int:
    """How many more voters may fall silent before nothing can be decided any more; -1 when that is
    so already. `answer`: those that are there, the leader included. While the members change, both
    sides have to agree: the weaker one counts."""
    left = [
        sum(id in answer for id in side) - (len(side) // 2 + 1)
        for side in (members.conf[0], members.conf[2])
        if side
    ]
    return max(-1, min(left, default=-1))
