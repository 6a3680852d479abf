"""Requests sent and not yet answered: each has an id, a future and a deadline.

Rule: an answer to an id that was given up is late and ignored; an answer to an id never used is a
lie.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from grampus.errors import Overloaded, ProtocolError, ServerUnreachable

M = TypeVar("M")


class ConnectionLost(ServerUnreachable):
    """The connection ended. A request that was under way may or may not have been carried out."""


class RequestTimedOut(ServerUnreachable, TimeoutError):
    """No answer within the deadline. The request may or may not have been carried out."""


class Calls(Generic[M]):
    def __init__(self, most: int) -> None:
        self._most = most
        self._next = 1
        self._open: dict[int, _Call[M]] = {}
        #: Nobody's time is over before that. One timer for all: most answers come long before.
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def open(self, peer: str, timeout: float) -> tuple[int, asyncio.Future[M]]:
        """A new id, and the future of its answer. Overloaded when too many are open."""
        if len(self._open) >= self._most:
            raise Overloaded(f"{self._most} requests to {peer} wait for their answers already")
        number = self._next
        self._next += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[M] = loop.create_future()
        deadline = loop.time() + timeout
        self._open[number] = _Call(future, deadline, timeout, peer)
        if self._alarm is None or deadline < self._alarm.when():
            self._set_alarm(deadline)
        return number, future

    def drop(self, number: int) -> None:
        """The asker no longer waits."""
        future = self._open.pop(number).future
        if future.done() and not future.cancelled():
            future.exception()  # marks it as seen, when the asker was cancelled in the same moment

    def answer(self, number: int, answer: M | BaseException) -> None:
        """The answer has come. ProtocolError when nothing was asked under that id."""
        if not 0 < number < self._next:
            raise ProtocolError(f"an answer to request {number}, which was never made")
        if (found := self._open.get(number)) is not None:
            _settle(found.future, answer)

    def lose(self, reason: str) -> None:
        """No more answers will come."""
        if self._alarm is not None:
            self._alarm.cancel()
        for call in self._open.values():
            _settle(call.future, ConnectionLost(reason))

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(when, self._look)

    def _look(self) -> None:
        """Whose time is over; and when the next one's will be."""
        self._alarm = None
        now = asyncio.get_running_loop().time()
        left = []
        for call in self._open.values():
            if call.deadline > now:
                left.append(call.deadline)
            else:
                _expire(call.future, call.peer, call.timeout)
        if left:
            self._set_alarm(min(left))


class _Call(Generic[M]):
    __slots__ = ("deadline", "future", "peer", "timeout")

    def __init__(
        self, future: asyncio.Future[M], deadline: float, timeout: float, peer: str
    ) -> None:
        self.future = future
        self.deadline = deadline
        self.timeout = timeout
        self.peer = peer


def _settle(future: asyncio.Future[M], answer: M | BaseException) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _expire(future: asyncio.Future[M], peer: str, timeout: float) -> None:
    text = f"{peer} did not answer within {timeout:g} s; it may still do what it was asked"
    _settle(future, RequestTimedOut(text))
