"""What any server asks the leader for, because only the leader knows it or may do it."""

from __future__ import annotations

from msgspec import Struct

from grampus.model.member import Member


class ClusterAsk(Struct, frozen=True, array_like=True, tag="cluster-ask"):
    """A server asks the leader about the members, or to change them; answered by ClusterTold."""

    #: `status`, `remove`, `replace`, `transfer` or `admit`.
    action: str
    name: str = ""
    #: Of `admit`: who comes.
    member: Member | None = None


class ClusterTold(Struct, frozen=True, array_like=True, tag="cluster-told"):
    #: The cluster afterwards, as `/api/v1/cluster` shows it: JSON.
    body: bytes
    #: To one who was admitted: the members of that moment, as the ledger has them.
    members: bytes = b""


class AskExplanation(Struct, frozen=True, array_like=True, tag="ask-explanation"):
    """Why a run, or a task of it, waits; answered by Explained."""

    run: str
    #: Empty for the run as a whole.
    task: str


class Explained(Struct, frozen=True, array_like=True, tag="explained"):
    #: `runs.explanation.Explanation` as msgpack; empty when there is no such run or task.
    explanation: bytes


class AskPresence(Struct, frozen=True, array_like=True, tag="ask-presence"):
    """Which workers are connected; answered by Present."""


class PresentWorker(Struct, frozen=True, array_like=True):
    session: int
    cpu: int | None
    memory: int | None
    containment: str | None
    trouble: str
    #: How many of its attempts cannot be killed.
    stuck: int = 0


class Present(Struct, frozen=True, array_like=True, tag="present"):
    workers: list[PresentWorker]


class AskClock(Struct, frozen=True, array_like=True, tag="ask-clock"):
    """Whether schedules are held back because the clock is in doubt; `trust` ends the doubt.
    Answered by ClockTold."""

    trust: bool = False


class ClockTold(Struct, frozen=True, array_like=True, tag="clock-told"):
    #: What is, or was until now, in doubt; "" for nothing.
    doubt: str
