"""Writes: looked at, made into commands, and proposed; those of one turn of the loop together.

Rules: what makes no sense is an error before anything is proposed. A write is answered after its
commit, or by an error that says whether it happened. Each has an answer of its own: that they
travel together is no transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from grampus.clock import Clock
from grampus.cluster.commands import (
    Command,
    Compare,
    Delete,
    Op,
    Origin,
    Put,
    Txn,
    encode_command,
)
from grampus.cluster.limits import (
    COMMAND_LIMIT,
    check_key,
    check_txn,
    check_value,
    end_of,
)
from grampus.cluster.refusal import Refusal
from grampus.consensus.port import Replica, Stopped
from grampus.errors import (
    GrampusError,
    InvalidInput,
    OutcomeUnknown,
    Problem,
    Refused,
    SessionUnknown,
    TooLarge,
)
from grampus.patience import Patience

#: Seconds for a write.
WRITE = 10.0
#: Commands and bytes that travel together.
MOST, MOST_BYTES = 500, 1024 * 1024

#: Called once, with what `apply` answered or the error.
Done = Callable[[object], None]


class Writes:
    """`propose` works at once; `soon` needs `run`."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica = replica
        self._clock = clock
        self._patience = Patience(WRITE)
        self._waiting: list[tuple[bytes, Done]] = []
        #: Of `run`, while it runs.
        self._tasks: asyncio.TaskGroup | None = None

    # what makes sense, as commands

    def put(self, key: bytes, value: bytes, origin: Origin | None, ephemeral: bool) -> bytes:
        check_key(key)
        check_value(value)
        if ephemeral and origin is None:
            raise InvalidInput([Problem("an ephemeral key takes a session", field="ephemeral")])
        return encoded(Put(self._clock.now(), key, value, origin, ephemeral))

    def delete(self, start: bytes, prefix: bool, origin: Origin | None) -> bytes:
        check_key(start, "prefix" if prefix else "key")
        return encoded(Delete(self._clock.now(), start, end_of(start) if prefix else b"", origin))

    def txn(
        self,
        compare: Sequence[Compare],
        then: Sequence[Op],
        orelse: Sequence[Op],
        origin: Origin | None,
    ) -> bytes:
        check_txn(compare, then, orelse, 0 if origin is None else origin.session)
        return encoded(Txn(self._clock.now(), tuple(compare), tuple(then), tuple(orelse), origin))

    # their way into the log

    async def propose(self, command: bytes) -> object:
        (answer,) = await self._propose([command])
        if isinstance(answer, GrampusError):
            raise answer
        return answer

    async def _propose(self, commands: list[bytes]) -> list[object]:
        """Answers, refusals as errors."""
        try:
            answers = await self._patience.wait_for(self._replica.propose(commands))
        except TimeoutError:
            raise OutcomeUnknown(
                f"no answer for {WRITE:g} s: it may have happened, or may yet; read, then decide"
            ) from None
        return [_error(each) if isinstance(each, Refusal) else each for each in answers]

    def soon(self, command: bytes, done: Done) -> None:
        """With all others of this turn. `done` must not raise."""
        if self._tasks is None:
            done(Stopped("the server stops: ask another one"))
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._set_out)
        self._waiting.append((command, done))

    def _set_out(self) -> None:
        waiting, self._waiting = self._waiting, []
        for part in _parts(waiting):
            if self._tasks is not None:
                self._tasks.create_task(self._together(part))
            else:
                for _, done in part:
                    done(Stopped("the server stops: ask another one"))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                # The group takes no more; what has set out is told.
                self._tasks = None

    async def _together(self, part: list[tuple[bytes, Done]]) -> None:
        try:
            answers = await self._propose([command for command, _ in part])
        except GrampusError as error:
            answers = [error] * len(part)
        except asyncio.CancelledError:
            unknown = OutcomeUnknown("the server stops; it may have happened, or may yet")
            answers = [unknown] * len(part)
        for (_, done), answer in zip(part, answers, strict=True):
            done(answer)


def encoded(command: Command) -> bytes:
    """Raises TooLarge."""
    data = encode_command(command)
    if len(data) > COMMAND_LIMIT:
        raise TooLarge(
            f"a request has at most {COMMAND_LIMIT} bytes, not {len(data)}: make several of it"
        )
    return data


def _error(refusal: Refusal) -> GrampusError:
    return (SessionUnknown if refusal.code == "no-session" else Refused)(refusal.reason)


def _parts(waiting: list[tuple[bytes, Done]]) -> list[list[tuple[bytes, Done]]]:
    parts: list[list[tuple[bytes, Done]]] = []
    size = MOST_BYTES
    for each in waiting:
        size += len(each[0])
        if size > MOST_BYTES or len(parts[-1]) == MOST:
            parts.append([])
            size = len(each[0])
        parts[-1].append(each)
    return parts
