"""What only the leader knows, asked for on another server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from grampus.api.ports import WorkerLoad
from grampus.errors import NoQuorum, NotLeader, ServerUnreachable
from grampus.protocol import AskExplanation, LogChunk, Message, ReadLog
from grampus.relay import ClockDoubt, Explain, LeaderDesk, Logs, NoRelay, Presence
from grampus.runs.explanation import Explanation, Reason, TaskExplanation
from tests.looped import looped

CHUNK = LogChunk(0, b"hello", True)
LOAD = WorkerLoad(12, 2**30, "cgroup", "the disk is full")


def explanation(code: Any) -> Explanation:
    task = TaskExplanation(task="a", state="READY", reasons=(Reason(code=code, text="why"),))
    return Explanation(
        run="r1", workflow="w", state="RUNNING", reasons=(), tasks=(task,), tasks_left=3
    )


class Server:
    """One server: what it knows by itself, and a way to the other."""

    def __init__(self, leads: bool, code: str) -> None:
        self.is_leader = leads
        self.code = code
        self.asked: list[Message] = []
        parts: Any = self
        explainer: Any = self.explain
        self.desk = LeaderDesk(parts, parts, explainer, parts)
        self.doubt = "the clock is 31d ahead"
        self.fault: Exception | None = None
        self.leader: Server | None = None

    # NodeStatus, LogReader, Explainer, OfficeClock, Relay.

    def trust(self) -> None:
        self.doubt = ""

    def leads(self) -> bool:
        return self.is_leader

    def connected(self) -> dict[int, WorkerLoad]:
        return {7: LOAD, 8: WorkerLoad()}

    async def read(self, asked: ReadLog) -> LogChunk:
        self.asked.append(asked)
        return CHUNK

    async def explain(self, run: str, task: str | None) -> Explanation | None:
        return explanation(self.code) if run == "r1" else None

    async def ask_leader(self, message: Message, within: float) -> Message:
        if self.fault is not None:
            raise self.fault
        assert self.leader is not None
        return await self.leader.desk.answer(message)  # type: ignore[arg-type]


def a_pair() -> tuple[Server, Server]:
    follower, leader = Server(False, "no-master"), Server(True, "no-worker")
    follower.leader = leader
    return follower, leader


def ask(server: Any) -> tuple[Explain, Logs, Presence]:
    return (
        Explain(server, server.explain, server),
        Logs(server, server, server),
        Presence(server, server),
    )


def test_a_follower_answers_with_what_the_leader_knows() -> None:
    async def scenario() -> None:
        follower, leader = a_pair()
        explain, logs, presence = ask(follower)
        assert await explain("r1", None) == explanation("no-worker")
        assert await explain("r1", "a") == explanation("no-worker")
        assert await explain("gone", None) is None
        assert await logs(ReadLog(7, 1, "r1", "a", 1, "stdout", 5, 100)) == CHUNK
        assert leader.asked == [ReadLog(7, 1, "r1", "a", 1, "stdout", 5, 100)]
        assert follower.asked == []
        assert await presence() == leader.connected()

    asyncio.run(scenario())


def test_the_leader_asks_nobody() -> None:
    async def scenario() -> None:
        _, leader = a_pair()
        leader.fault = AssertionError("nobody is asked")
        explain, logs, presence = ask(leader)
        assert await explain("r1", None) == explanation("no-worker")
        assert await logs(ReadLog(7, 1, "r1", "a", 1, "stdout", 0, 1)) == CHUNK
        assert await presence() == leader.connected()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "fault", [NoQuorum("none leads"), ServerUnreachable("no answer"), NotLeader("not I")]
)
def test_without_a_leader_the_ledger_alone_tells_and_logs_say_why(fault: Exception) -> None:
    async def scenario() -> None:
        follower, _ = a_pair()
        follower.fault = fault
        explain, logs, presence = ask(follower)
        assert await explain("r1", None) == explanation("no-master")
        assert await presence() is None
        with pytest.raises(type(fault)):
            await logs(ReadLog(7, 1, "r1", "a", 1, "stdout", 0, 1))

    asyncio.run(scenario())


def test_who_leads_no_longer_passes_no_question_on() -> None:
    async def scenario() -> None:
        follower, leader = a_pair()
        leader.is_leader = False
        leader.leader = follower
        with pytest.raises(NotLeader):
            await leader.desk.answer(AskExplanation("r1", ""))

    asyncio.run(scenario())


def test_a_node_that_is_alone_has_nobody_to_ask() -> None:
    with pytest.raises(NoQuorum):
        asyncio.run(NoRelay().ask_leader(AskExplanation("r1", ""), 1.0))


@looped
async def test_the_leaders_clock_is_trusted_on_any_server() -> None:
    follower, leader = a_pair()
    follower.doubt = "not this one"
    clock: Any = follower
    doubt = ClockDoubt(follower.leads, clock, follower)
    assert await doubt.look() == "the clock is 31d ahead"
    assert await doubt.trust() == "the clock is 31d ahead"
    assert (follower.doubt, leader.doubt) == ("not this one", "")
    assert await doubt.trust() == await doubt.look() == ""
    clock = leader
    leader.doubt = "again"
    own = ClockDoubt(leader.leads, clock, NoRelay())
    assert await own.trust() == "again"
    assert leader.doubt == ""


@looped
async def test_no_other_clock_is_trusted_when_the_leader_does_not_answer() -> None:
    follower, _ = a_pair()
    follower.fault = NoQuorum("no server leads")
    clock: Any = follower
    doubt = ClockDoubt(follower.leads, clock, follower)
    with pytest.raises(NoQuorum):
        await doubt.trust()
    assert await doubt.look() == follower.doubt != ""
