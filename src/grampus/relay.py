"""What only the leader knows, asked for on any server: logs, explanations, who is connected, and
whether its clock is believed.

Rule: the server in office answers by itself; any other asks the leader, once, and never hands a
question on that it was asked by a peer. Who leads, and how it is reached, is for `Relay`. What is
only shown to people is left out when the leader does not answer; logs say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from grampus.adapters import Explainer, LogReader, NodeStatus
from grampus.api.ports import OfficeClock, WorkerLoad
from grampus.errors import GrampusError, NoQuorum, NotLeader, ProtocolError
from grampus.protocol import (
    AskClock,
    AskExplanation,
    AskPresence,
    ClockTold,
    Explained,
    LogChunk,
    Message,
    Present,
    PresentWorker,
    ReadLog,
)
from grampus.runs.explanation import Explanation

#: How long the leader may take, in seconds: a worker may have to answer it.
WITHIN = 12.0

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Explanation)


class Relay(Protocol):
    async def ask_leader(self, message: Message, within: float) -> Message:
        """The leader's answer. Raises NotLeader or NoQuorum when it was not asked, or what the
        leader raised, or ServerUnreachable."""
        ...


class NoRelay:
    """Of a node that is alone: nobody else leads."""

    async def ask_leader(self, message: Message, within: float) -> Message:
        raise NoQuorum("this node does not lead now, and there is no other")


class LeaderDesk:
    """Answers what other servers ask."""

    def __init__(
        self, status: NodeStatus, logs: LogReader, explainer: Explainer, clock: OfficeClock
    ) -> None:
        self._status = status
        self._logs = logs
        self._explainer = explainer
        self._clock = clock

    async def answer(self, message: ReadLog | AskExplanation | AskPresence | AskClock) -> Message:
        if not self._status.leads():
            raise NotLeader("this server leads no longer: ask again")
        match message:
            case ReadLog():
                return await self._logs.read(message)
            case AskExplanation():
                found = await self._explainer(message.run, message.task or None)
                return Explained(b"" if found is None else _ENCODER.encode(found))
            case AskClock():
                doubt = self._clock.doubt
                if message.trust:
                    self._clock.trust()
                return ClockTold(doubt)
            case AskPresence():
                return Present([
                    PresentWorker(
                        session, load.cpu, load.memory, load.containment, load.trouble, load.stuck
                    )
                    for session, load in self._status.connected().items()
                ])  # fmt: skip


class Logs:
    """Workers are connected to the leader."""

    def __init__(self, status: NodeStatus, logs: LogReader, relay: Relay) -> None:
        self._status = status
        self._logs = logs
        self._relay = relay

    async def __call__(self, asked: ReadLog) -> LogChunk:
        if self._status.leads():
            return await self._logs.read(asked)
        answer = await self._relay.ask_leader(asked, WITHIN)
        if not isinstance(answer, LogChunk):
            raise ProtocolError(f"ReadLog was answered by {type(answer).__name__}")
        return answer


class Explain:
    """The scheduler is the leader's; without it the ledger alone says what it can."""

    def __init__(self, status: NodeStatus, explainer: Explainer, relay: Relay) -> None:
        self._status = status
        self._explainer = explainer
        self._relay = relay

    async def __call__(self, run: str, task: str | None) -> Explanation | None:
        if self._status.leads():
            return await self._explainer(run, task)
        try:
            answer = await self._relay.ask_leader(AskExplanation(run, task or ""), WITHIN)
        except GrampusError:
            return await self._explainer(run, task)
        if not isinstance(answer, Explained):
            raise ProtocolError(f"AskExplanation was answered by {type(answer).__name__}")
        return _DECODER.decode(answer.explanation) if answer.explanation else None


class Presence:
    """None when the leader does not say: then only the ledger tells who is silent."""

    def __init__(self, status: NodeStatus, relay: Relay) -> None:
        self._status = status
        self._relay = relay

    async def __call__(self) -> Mapping[int, WorkerLoad] | None:
        if self._status.leads():
            return self._status.connected()
        try:
            answer = await self._relay.ask_leader(AskPresence(), WITHIN)
        except GrampusError:
            return None
        if not isinstance(answer, Present):
            raise ProtocolError(f"AskPresence was answered by {type(answer).__name__}")
        return {
            worker.session: WorkerLoad(
                worker.cpu, worker.memory, worker.containment, worker.trouble, worker.stuck
            )
            for worker in answer.workers
        }


class ClockDoubt:
    """Schedules fire by the leader's clock."""

    def __init__(self, leads: Callable[[], bool], clock: OfficeClock, relay: Relay) -> None:
        self._leads = leads
        self._clock = clock
        self._relay = relay

    async def look(self) -> str:
        """What this server knows, when the leader does not answer."""
        if self._leads():
            return self._clock.doubt
        try:
            return await self._ask(AskClock())
        except GrampusError:
            return self._clock.doubt

    async def trust(self) -> str:
        """What was in doubt until now. Raises NoQuorum, NotLeader, ServerUnreachable."""
        if not self._leads():
            return await self._ask(AskClock(trust=True))
        doubt = self._clock.doubt
        self._clock.trust()
        return doubt

    async def _ask(self, asked: AskClock) -> str:
        answer = await self._relay.ask_leader(asked, WITHIN)
        if not isinstance(answer, ClockTold):
            raise ProtocolError(f"AskClock was answered by {type(answer).__name__}")
        return answer.doubt
