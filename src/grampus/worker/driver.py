"""The worker: connections, warden and files around `WorkerCore`, which decides.

Rule: one turn feeds events to the core and carries out its instructions, in one `match`, before
anything else happens; so a report leaves in the turn in which the warden said that the attempt
is over.

Only `stop` ends attempts. However else this process ends, the warden goes on with them, and the
next worker in the folder takes them over, with what the journal remembers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from grampus.blobs import Blobs
from grampus.clock import SystemClock
from grampus.database import StorageFailed
from grampus.errors import GrampusError, Refused
from grampus.protocol import Message, ReadLog, Reports, Synced
from grampus.tasks.launch import Place
from grampus.worker import orders
from grampus.worker.blobs import Exchange
from grampus.worker.bundles import Bundles
from grampus.worker.chores import Chores
from grampus.worker.condition import Condition
from grampus.worker.core.attempt import UNLAUNCHED
from grampus.worker.core.core import WorkerCore
from grampus.worker.core.events import (
    Alarm,
    Event,
    Stopping,
    WardenEnded,
    WardenLost,
    WardenReady,
    WardenStarted,
    WardenStuck,
)
from grampus.worker.core.instructions import (
    Drop,
    End,
    Forgo,
    Instruction,
    Launch,
    LogLine,
    Prepare,
    ReadResult,
    Recall,
    Record,
    Renew,
    Send,
    SetAlarm,
)
from grampus.worker.core.memory import Memory
from grampus.worker.environment import task_environment
from grampus.worker.holdings import Holdings
from grampus.worker.journal import Journal
from grampus.worker.link import Link
from grampus.worker.log_desk import LogDesk
from grampus.worker.logs import Logs
from grampus.worker.registration import Registration
from grampus.worker.results import Results
from grampus.worker.supervisor import Enrolment, Supervisor

if TYPE_CHECKING:
    from grampus.cluster.core.histories import Histories
    from grampus.rpc.tls import NodeTls

log = logging.getLogger("grampus.worker")

#: In the folder of the worker.
JOURNAL = "journal.db"
#: At a stop, how long acknowledgements of the last reports are waited for, in seconds.
LAST_REPORTS = 3.0
#: How long the end of the session is waited for, in seconds.
FAREWELL = 2.0


class Worker:
    """One worker, in `folder` (`DIR/worker`). `addresses` are servers to try in turn.

    `blobs` is the store to use; it may be the server's own when both share a folder. `folder_id`
    is the identity of the data folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        slots: int,
        addresses: Sequence[tuple[str, int]],
        blobs: Blobs,
        credential: str,
        cluster: str = "",
        group: str = "default",
        warm: bool = True,
        folder_id: str = "",
        tls: NodeTls | None = None,
        leased: bool = False,
        histories: Histories | None = None,
    ) -> None:
        """With `tls` the worker shows its certificate and no `credential`, and keeps it fresh.
        `leased`: its attempts have leases, and are fenced when no server confirms it; else it keeps
        them all, for nobody could start them elsewhere. `histories`: with which servers it goes."""
        self._addresses = list(addresses)
        self._cluster, self._credential = cluster, credential
        self._tls, self._leased = tls, leased
        self._histories = histories
        for part in ("", "attempts", "scratch", "bundles"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Place(
            env=task_environment(os.environ, sys.executable),
            scratch=str(folder / "scratch"),
            warm=warm,
        )
        self._logs = Logs(folder / "attempts", scratch=folder / "scratch")
        chores = Chores(
            place,
            Bundles(folder / "bundles"),
            Exchange(blobs, self._ask),
            Results(folder / "attempts", self._logs, blobs),
        )
        self._holdings = Holdings(chores, leased, self._begin, self._happen)
        self._condition = Condition(chores.trouble)
        self._journal = Journal.open(folder / JOURNAL)
        self._supervisor = Supervisor(
            folder,
            Enrolment(name, group, slots),
            self._condition,
            self._memory,
            self._noticed,
            lambda: self._happen(WardenLost()),
        )
        self._clock = SystemClock()
        self._registration = Registration(
            self._supervisor,
            self._holdings,
            LogDesk(self._logs, self._slot_of, self._begin),
            self._happen,
            self._register_anew,
            folder_id=folder_id,
            leased=leased,
            ticks=self._clock.ticks,
        )
        #: Set while a server knows this worker.
        self.registered = self._registration.holds
        self._core = WorkerCore(slots)
        self._inbox: list[Event] = []
        self._turning = False
        self._alarm: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        #: Why the worker cannot go on.
        self._failure: StorageFailed | None = None
        self._link: Link | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until `stop`, `leave`, or until cancelled. Raises StorageFailed when nothing can be
        written down any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._supervisor.start()
                self._inherit()
                self._link = Link(
                    self._addresses,
                    self._supervisor.enrolment.name,
                    self._cluster,
                    self._credential,
                    self._registration.make,
                    self._registration,
                    tasks,
                    self._tls,
                    ticks=self._clock.ticks,
                    leased=self._leased,
                    histories=self._histories,
                )
                self._loops = [
                    tasks.create_task(loop)
                    for loop in (
                        self._link.keep_control(),
                        self._link.keep_bulk(),
                        self._supervisor.keep(),
                        self._condition.keep_telling(self._tell_condition),
                        *([] if self._tls is None else [self._keep_certificate(self._tls)]),
                    )
                ]
                await self._stopped.wait()
                self._finish()
        finally:
            self._finish()
            self._tasks = None
            self._supervisor.leave()
            self._journal.close()
        if self._failure is not None:
            raise self._failure

    async def _keep_certificate(self, tls: NodeTls) -> None:
        """Until cancelled."""
        from grampus.cluster.renewing import by_server
        from grampus.rpc.renewal import Renewal

        await Renewal(tls.folder, by_server(self._ask), tls.reload, self._clock).run()

    def leave(self) -> None:
        """Ends `run`; attempts go on, for the next worker in this folder."""
        self._stopped.set()

    async def stop(self, grace: int) -> None:
        """Ends every attempt within `grace` ms, sends the last reports, ends `run`."""
        self._happen(Stopping())
        await self._supervisor.stop(grace)
        try:
            async with asyncio.timeout(LAST_REPORTS):
                while self.registered.is_set() and not self._core.idle:
                    self._registration.news.clear()
                    await self._registration.news.wait()
        except TimeoutError:
            log.warning("%d reports were not acknowledged", len(self._core.attempts.outbox))
        await self._say_farewell()
        self._stopped.set()

    async def _say_farewell(self) -> None:
        """Without it the worker is silent, which is the same but for those who look."""
        session, known = self._core.session, self.registered.is_set()
        if self._link is not None and session is not None and known and self._core.idle:
            try:
                await self._link.leave(session, FAREWELL)
            except GrampusError as error:
                log.warning("the server does not know that this worker is stopped: %s", error)

    def _finish(self) -> None:
        for loop in self._loops:
            loop.cancel()
        live = self._core.attempts.live.values()
        self._holdings.close({each.n for each in live if each.stage not in UNLAUNCHED})
        if self._alarm is not None:
            self._alarm.cancel()
        if self._link is not None:
            self._link.close("the worker stops")

    # The turn.

    def _happen(self, *events: Event) -> None:
        """Feeds the core and does what it says; what that brings about follows in the same turn."""
        self._inbox.extend(events)
        if self._turning or self._failure is not None:
            return
        self._turning = True
        try:
            while self._inbox:
                batch, self._inbox = self._inbox, []
                for instruction in self._core.step(self._clock.now(), batch):
                    self._carry_out(instruction)
        except StorageFailed as error:
            # What is not written down must not happen. The warden goes on.
            self._failure = error
            self._stopped.set()
        finally:
            self._turning = False

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Record(entries):
                self._journal.write(entries)
                if self._journal.grown:
                    self._journal.renew(self._core.memory())
            case Prepare(n, invocation):
                self._holdings.prepare(self._core.attempts.live[n].record, invocation)
            case Launch(n):
                order = self._holdings.launch(n)
                if order is not None:
                    self._supervisor.send(order)
            case Send(message):
                if self._link is not None:
                    self._link.send(self._dated(message))
            case ReadResult(n, ended):
                self._holdings.read(n, ended)
            case Drop(n):
                self._holdings.drop(n)
            case End(n):
                self._supervisor.send(orders.End(n))
            case Recall(n):
                self._supervisor.send(orders.Recall(n))
            case Forgo(numbers):
                self._supervisor.send(orders.Taken(list(numbers)))
            case Renew():
                self._renew_warden()
            case SetAlarm(after):
                self._set_alarm(after)
            case LogLine(level, text):
                log.log(logging.WARNING if level == "warning" else logging.INFO, "%s", text)

    def _set_alarm(self, after: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if after is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(after / 1000, self._happen, Alarm())

    def _dated(self, message: Reports | Synced) -> Reports | Synced:
        if isinstance(message, Synced):
            return message
        return replace(message, at=self._clock.now(), ticks=self._clock.ticks())

    def _begin(self, chore: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self._tasks is None:
            chore.close()
            return None
        return self._tasks.create_task(chore)

    # The warden.

    def _inherit(self) -> None:
        """Makes the core, of what an earlier process has left if its warden still lives."""
        assert self._supervisor.warden is not None
        memory = self._journal.memory
        if memory.instance != self._supervisor.warden.instance:
            memory = Memory()
        name, group, slots = self._supervisor.enrolment
        self._core = WorkerCore(slots, memory, name=name, group=group)
        for record in memory.launched.values():
            self._holdings.inherit(record)
        if memory.launched:
            log.warning("taking over attempts of an earlier start: %d", len(memory.launched))

    def _memory(self) -> Memory:
        """What is written down."""
        return self._journal.memory if self._core.session is None else self._core.memory()

    def _renew_warden(self) -> None:
        self._supervisor.retire()
        self._register_anew("the warden is replaced")

    def _noticed(self, batch: list[orders.Notice]) -> None:
        events: list[Event] = []
        for notice in batch:
            match notice:
                case orders.Ended():
                    held = self._holdings.get(notice.n)
                    if held is not None:
                        held.slot = None
                        self._logs.ended(held.stem, notice)
                    self._condition.is_over(notice.n)
                    events.append(WardenEnded(notice))
                case orders.Started(n, slot, at, ticks):
                    self._holdings.runs_in(n, slot)
                    events.append(WardenStarted(n, at, ticks))
                case orders.Stuck(n, pids):
                    self._condition.is_stuck(n)
                    events.append(WardenStuck(n, tuple(pids)))
                case orders.Trouble(why):
                    self._condition.warden = why
                case orders.Ready():
                    self._condition.has_new_word()
                    for running in notice.running:
                        self._holdings.runs_in(running.n, running.slot)
                    events.append(WardenReady(notice.instance, tuple(notice.running)))
        self._happen(*events)
        if any(isinstance(notice, orders.Ready) for notice in batch):
            # After what is lost with the old warden was said under its session.
            self._register_anew("a new warden")

    # The server.

    def _register_anew(self, reason: str) -> None:
        if self._link is not None:
            self._link.renew(reason)

    def _slot_of(self, asked: ReadLog) -> int | None:
        return self._holdings.slot_of(asked) if asked.session == self._core.session else None

    async def _ask(self, message: Message, within: float) -> Message:
        if self._link is None:
            raise Refused("the worker is not connected")
        return await self._link.ask(message, within)

    def _tell_condition(self) -> None:
        session = self._core.session
        if self._link is not None and session is not None:
            self._link.send(self._condition.report(session))
