"""What the driver holds for each attempt, from Prepare to Drop: the chore that is under way for it,
the process that is to be launched, the slot in which it runs.

Rule: what is done at once answers in the same turn; for the rest there is one task at a time, and
the answer for an attempt that was dropped meanwhile is dropped too. How a chore is done is left to
`chores`, what follows from it to the core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NamedTuple

from grampus.model.lease import KEEP, lease_of
from grampus.protocol import Invocation, ReadLog
from grampus.tasks.launch import TaskFailure, plan
from grampus.worker.chores import Chores, Held
from grampus.worker.core.events import Event, Prepared, PrepareFailed
from grampus.worker.core.memory import Launched
from grampus.worker.orders import Ended, Launch, Warm


class Needs(NamedTuple):
    """What an attempt asks of its worker, as its task declares it."""

    slots: int
    #: Its output file will hold what a shell command wrote.
    shell: bool
    #: In ms; None: it is kept.
    lease: int | None


class Holdings:
    """`happen` hears the answers; `begin` makes a task, or gives None when the worker is over."""

    def __init__(
        self,
        chores: Chores,
        leased: bool,
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        happen: Callable[[Event], None],
    ) -> None:
        """Without `leased` every attempt is kept."""
        self._chores = chores
        self._leased = leased
        self._begin = begin
        self._happen = happen
        self._held: dict[int, Held] = {}

    def get(self, n: int) -> Held | None:
        return self._held.get(n)

    def needs(self, spec: bytes) -> Needs:
        try:
            made = plan(spec)
        except TaskFailure:
            # It fails when it is prepared, with the reason.
            return Needs(1, True, self._lease(None))
        return Needs(made.task.slots, made.is_shell, self._lease(made.task.lease))

    def _lease(self, declared: int | None) -> int | None:
        lease = lease_of(declared)
        return lease if self._leased and lease != KEEP else None

    def inherit(self, record: Launched) -> None:
        """An earlier process has launched it."""
        held = self._held[record.n] = Held(record.n, None, record.stem, record.shell)
        self._chores.inherit(held, record.bundle)

    def prepare(self, record: Launched, invocation: Invocation) -> None:
        """Answered by Prepared or PrepareFailed."""
        n = record.n
        held = self._held[n] = Held(n, invocation, record.stem, record.shell)
        answer = self._chores.prepare_now(held)
        if answer is False:
            held.task = self._begin(self._prepare(held))
        else:
            self._happen(Prepared(n) if answer is True else answer)

    async def _prepare(self, held: Held) -> None:
        answer = await self._chores.prepare(held)
        held.task = None
        if self._held.get(held.n) is not held:
            self._chores.drop(held)
        elif isinstance(answer, PrepareFailed):
            self._happen(answer)
        else:
            self._happen(Prepared(held.n))

    def launch(self, n: int) -> Launch | None:
        """The order for what was prepared."""
        held = self._held[n]
        process = held.process
        if process is None:
            return None
        assert held.invocation is not None
        task = plan(held.invocation.spec).task
        return Launch(
            n,
            process.argv,
            process.env,
            process.cwd,
            task.timeout,
            task.grace,
            held.stem,
            Warm(*process.warm) if process.warm is not None else None,
            task.slots,
            process.spec,
            self._lease(task.lease),
        )

    def read(self, n: int, ended: Ended) -> None:
        """Answered by ResultRead."""
        held = self._held[n]
        read = self._chores.read_now(held, ended)
        if read is not None:
            self._happen(read)
        else:
            held.task = self._begin(self._read(held, ended))

    async def _read(self, held: Held, ended: Ended) -> None:
        read = await self._chores.read(held, ended)
        held.task = None
        if self._held.get(held.n) is held:
            self._happen(read)

    def runs_in(self, n: int, slot: int | None) -> None:
        held = self._held.get(n)
        if held is not None:
            held.slot = slot

    def slot_of(self, asked: ReadLog) -> int | None:
        """Where that attempt runs now. Once it has ended, its slot's files are another's."""
        held = self._held.get(asked.n)
        if held is None or held.stem != f"{asked.run}/{asked.task}.{asked.attempt}":
            return None
        return held.slot

    def drop(self, n: int) -> None:
        held = self._held.pop(n, None)
        if held is not None:
            self._chores.drop(held)

    def close(self, launched: Collection[int]) -> None:
        """No chore goes on. What is launched keeps what it uses, for the next worker."""
        for n, held in self._held.items():
            if n not in launched:
                self._chores.drop(held)
            elif held.task is not None:
                held.task.cancel()
        self._held.clear()
