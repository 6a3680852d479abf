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
from grampus.model.lease import KEEP, lease_of
from grampus.protocol import (
    Ack,
    Assign,
    Forget,
    Goodbye,
    Kill,
    Message,
    ReadLog,
    Register,
    Reports,
    Sync,
    Synced,
)
from grampus.tasks.launch import Place, TaskFailure, plan
from grampus.worker import orders
from grampus.worker.blobs import Exchange
from grampus.worker.bundles import Bundles
from grampus.worker.chores import Chores, Held
from grampus.worker.condition import Condition
from grampus.worker.containment import Subreaper
from grampus.worker.core.attempt import UNLAUNCHED
from grampus.worker.core.core import WorkerCore
from grampus.worker.core.events import (
    Acked,
    Alarm,
    Assigned,
    Connected,
    Disconnected,
    Event,
    KillAsked,
    Prepared,
    PrepareFailed,
    Stopping,
    SyncAsked,
    Unheard,
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
from grampus.worker.identity import boot_id, machine_id
from grampus.worker.journal import Journal
from grampus.worker.link import Link
from grampus.worker.logs import Logs
from grampus.worker.results import Results
from grampus.worker.warden_client import WardenClient, WardenFailed

if TYPE_CHECKING:
    from grampus.rpc.tls import NodeTls

log = logging.getLogger("grampus.worker")

#: In the folder of the worker.
JOURNAL = "journal.db"
#: Seconds between two samples of the load, and samples between two reports of it.
LOAD_SAMPLE, LOAD_EVERY = 1.0, 3
#: Between two tries to start a warden, in seconds; the last one repeats.
WARDEN_WAITS = (0.1, 0.5, 2.0, 10.0)
#: A worker without a warden for so long says so, in seconds.
WARDEN_LATE = 3.0
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
    ) -> None:
        """With `tls` the worker shows its certificate and no `credential`, and keeps it fresh.
        `leased`: its attempts have leases, and are fenced when no server confirms it; else it keeps
        them all, for nobody could start them elsewhere."""
        self.name, self.slots, self.group = name, slots, group
        self.addresses = list(addresses)
        #: Set while a server knows this worker.
        self.registered = asyncio.Event()
        self._folder = folder
        self._cluster, self._credential = cluster, credential
        self._folder_id, self._tls, self._leased = folder_id, tls, leased
        for part in ("", "attempts", "scratch", "bundles"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Place(
            env=task_environment(os.environ, sys.executable),
            scratch=str(folder / "scratch"),
            warm=warm,
        )
        self._logs = Logs(folder / "attempts", scratch=folder / "scratch")
        self._chores = Chores(
            place,
            Bundles(folder / "bundles"),
            Exchange(blobs, self._ask),
            Results(folder / "attempts", self._logs, blobs),
        )
        self._condition = Condition(self._chores.trouble)
        self._journal = Journal.open(folder / JOURNAL)
        self._core = WorkerCore(slots)
        self._clock = SystemClock()
        self._held: dict[int, Held] = {}
        self._inbox: list[Event] = []
        self._turning = False
        self._alarm: asyncio.TimerHandle | None = None
        self._acked = asyncio.Event()
        self._stopped = asyncio.Event()
        #: Why the worker cannot go on.
        self._failure: StorageFailed | None = None
        self._warden: WardenClient | None = None
        self._warden_gone = asyncio.Event()
        #: The warden was told to end because its numbers were used.
        self._retiring = False
        #: When the newest keep-alive that was confirmed was sent, in ticks.
        self._confirmed: int | None = None
        #: Instance of the warden in the last Register.
        self._registering = ""
        self._link: Link | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until `stop`, `leave`, or until cancelled. Raises StorageFailed when nothing can be
        written down any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._start_warden()
                self._inherit()
                self._link = Link(
                    self.addresses,
                    self.name,
                    self._cluster,
                    self._credential,
                    self._register,
                    self,
                    tasks,
                    self._tls,
                    ticks=self._clock.ticks,
                    leased=self._leased,
                )
                self._loops = [
                    tasks.create_task(loop)
                    for loop in (
                        self._link.keep_control(),
                        self._link.keep_bulk(),
                        self._keep_warden(),
                        self._report_load(),
                        *([] if self._tls is None else [self._keep_certificate(self._tls)]),
                    )
                ]
                await self._stopped.wait()
                self._finish()
        finally:
            self._finish()
            self._tasks = None
            if self._warden is not None:
                self._warden.leave()
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
        await self._stop_warden(grace)
        try:
            async with asyncio.timeout(LAST_REPORTS):
                while self.registered.is_set() and not self._core.idle:
                    self._acked.clear()
                    await self._acked.wait()
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
        for n, held in self._held.items():
            attempt = self._core.attempts.live.get(n)
            if attempt is None or attempt.stage in UNLAUNCHED:
                self._chores.drop(held)
            elif held.task is not None:
                held.task.cancel()
        self._held.clear()
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
                record = self._core.attempts.live[n].record
                held = self._held[n] = Held(n, invocation, record.stem, record.shell)
                self._prepared(held, self._chores.prepare_now(held))
            case Launch(n):
                self._launch(self._held[n])
            case Send(message):
                if self._link is not None:
                    self._link.send(self._dated(message))
            case ReadResult(n, ended):
                held = self._held[n]
                read = self._chores.read_now(held, ended)
                if read is not None:
                    self._inbox.append(read)
                else:
                    self._begin(held, self._read(held, ended))
            case Drop(n):
                dropped = self._held.pop(n, None)
                if dropped is not None:
                    self._chores.drop(dropped)
            case End(n):
                if self._warden is not None:
                    self._warden.send(orders.End(n))
            case Recall(n):
                if self._warden is not None:
                    self._warden.send(orders.Recall(n))
            case Forgo(numbers):
                if self._warden is not None:
                    self._warden.send(orders.Taken(list(numbers)))
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

    # Attempts.

    def _begin(self, held: Held, chore: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            chore.close()
        else:
            held.task = self._tasks.create_task(chore)

    def _prepared(self, held: Held, answer: bool | PrepareFailed) -> None:
        if isinstance(answer, PrepareFailed):
            self._inbox.append(answer)
        elif answer:
            self._inbox.append(Prepared(held.n))
        else:
            self._begin(held, self._prepare(held))

    async def _prepare(self, held: Held) -> None:
        answer = await self._chores.prepare(held)
        held.task = None
        if self._held.get(held.n) is not held:
            self._chores.drop(held)
        elif isinstance(answer, PrepareFailed):
            self._happen(answer)
        else:
            self._happen(Prepared(held.n))

    async def _read(self, held: Held, ended: orders.Ended) -> None:
        read = await self._chores.read(held, ended)
        held.task = None
        if self._held.get(held.n) is held:
            self._happen(read)

    def _dated(self, message: Reports | Synced) -> Reports | Synced:
        if isinstance(message, Synced):
            return message
        return replace(message, at=self._clock.now(), ticks=self._clock.ticks())

    def _launch(self, held: Held) -> None:
        if self._warden is None or held.process is None:
            return
        assert held.invocation is not None
        task, process = plan(held.invocation.spec).task, held.process
        self._warden.send(
            orders.Launch(
                held.n,
                process.argv,
                process.env,
                process.cwd,
                task.timeout,
                task.grace,
                held.stem,
                orders.Warm(*process.warm) if process.warm is not None else None,
                task.slots,
                process.spec,
                self._lease_of(task.lease),
            )
        )

    def _lease_of(self, declared: int | None) -> int | None:
        lease = lease_of(declared)
        return lease if self._leased and lease != KEEP else None

    # The warden.

    async def _start_warden(self) -> None:
        """Takes the warden that runs already, if it is the one that the journal speaks of."""
        self._warden_gone.clear()
        client = await WardenClient.attach(self._folder, self._noticed, self._warden_ended)
        if client is not None and not self._is_ours(client):
            await client.stop(0)
            client = None
        if client is None:
            client = await WardenClient.start(
                self._folder, self.slots, self._noticed, self._warden_ended
            )
        self._warden, self._retiring = client, False
        if client.containment == Subreaper.name:
            log.warning(
                "attempts are held together by a %s alone: what they leave is found by its descent,"
                " and may be missed should their warden and its shim be killed at once; grampus"
                " doctor says what would hold them better", Subreaper.name,
            )  # fmt: skip

    def _is_ours(self, client: WardenClient) -> bool:
        memory = self._journal.memory if self._core.session is None else self._core.memory()
        if memory.session is None or memory.instance != client.instance or self._retiring:
            return False
        mine = self.name, self.group, self.slots
        if (memory.name, memory.group, client.slots) == mine:
            return True
        if not (client.running or memory.launched or memory.outbox):
            return False
        # Its attempts belong to a session of that name, group and size.
        self.name, self.group, self.slots = memory.name, memory.group, client.slots
        log.warning(
            "attempts of an earlier start still run: until the next start this stays worker %s,"
            " group %s, with %d slots", self.name, self.group, self.slots,
        )  # fmt: skip
        return True

    def _inherit(self) -> None:
        """Makes the core, of what an earlier process has left if its warden still lives."""
        assert self._warden is not None
        memory = self._journal.memory
        if memory.instance != self._warden.instance:
            memory = Memory()
        self._core = WorkerCore(self.slots, memory, name=self.name, group=self.group)
        for n, record in memory.launched.items():
            held = self._held[n] = Held(n, None, record.stem, record.shell)
            self._chores.inherit(held, record.bundle)
        if memory.launched:
            log.warning("taking over attempts of an earlier start: %d", len(memory.launched))

    def _renew_warden(self) -> None:
        self._retiring = True
        if self._warden is not None:
            self._warden.retire()
        if self._link is not None:
            self._link.renew("the warden is replaced")

    async def _stop_warden(self, grace: int) -> None:
        if self._warden is not None and not self._warden.closed.is_set():
            try:
                await self._warden.stop(grace)
            except WardenFailed as error:
                log.error("%s", error)

    async def _keep_warden(self) -> None:
        while True:
            await self._warden_gone.wait()
            self._warden = None
            self._happen(WardenLost())
            # Most come within a second; one that must wait for what cannot be killed does not.
            loop = asyncio.get_running_loop()
            late = loop.call_later(WARDEN_LATE, self._condition.misses_warden)
            try:
                await self._try_to_start_warden()
            finally:
                late.cancel()

    async def _try_to_start_warden(self) -> None:
        """Until there is one."""
        tries = 0
        while self._warden is None:
            try:
                await self._start_warden()
            except (GrampusError, OSError) as error:
                log.error("the warden does not start: %s", error)
                self._condition.misses_warden(str(error))
                await asyncio.sleep(WARDEN_WAITS[min(tries, len(WARDEN_WAITS) - 1)])
                tries += 1

    def _warden_ended(self) -> None:
        self._warden_gone.set()

    def _noticed(self, batch: list[orders.Notice]) -> None:
        events: list[Event] = []
        for notice in batch:
            match notice:
                case orders.Ended():
                    held = self._held.get(notice.n)
                    if held is not None:
                        held.slot = None
                        self._logs.ended(held.stem, notice)
                    self._condition.is_over(notice.n)
                    events.append(WardenEnded(notice))
                case orders.Started(n, slot, at, ticks):
                    held = self._held.get(n)
                    if held is not None:
                        held.slot = slot
                    events.append(WardenStarted(n, at, ticks))
                case orders.Stuck(n, pids):
                    self._condition.is_stuck(n)
                    events.append(WardenStuck(n, tuple(pids)))
                case orders.Trouble(why):
                    self._condition.warden = why
                case orders.Ready():
                    self._condition.has_new_word()
                    for running in notice.running:
                        if (known := self._held.get(running.n)) is not None:
                            known.slot = running.slot
                    events.append(WardenReady(notice.instance, tuple(notice.running)))
        self._happen(*events)
        if self._link is not None and any(isinstance(notice, orders.Ready) for notice in batch):
            # After what is lost with the old warden was said under its session.
            self._link.renew("a new warden")

    # The server: what Link tells.

    def _register(self) -> Register:
        warden = self._warden
        if warden is None or self._retiring:
            raise Refused("there is no warden")
        self._registering = warden.instance
        return Register(
            self.name,
            warden.instance,
            machine_id(),
            boot_id(),
            self.group,
            self.slots,
            os.getpid(),
            warden.containment,
            True,
            self._folder_id,
            self._leased,
        )

    def confirmed(self, sent: int) -> None:
        """What a server said of this worker counts from when it was asked. But first what has
        passed is passed."""
        if not self._leased:
            return
        if self._confirmed is not None:
            self._happen(Unheard(self._clock.ticks() - self._confirmed))
        self._confirmed = sent
        if self._warden is not None:
            self._warden.send(orders.Confirmed(sent))

    def registered_as(self, session: int) -> None:
        if self._warden is None or self._warden.instance != self._registering:
            # The session belongs to a warden that has died meanwhile.
            assert self._link is not None
            self._link.renew("a new warden")
            return
        self._happen(Connected(session))
        self.registered.set()

    def disconnected(self) -> None:
        self.registered.clear()
        self._acked.set()
        self._happen(Disconnected())

    def heard(self, batch: list[Message]) -> None:
        events: list[Event] = []
        for message in batch:
            match message:
                case Assign(session, n, invocation):
                    slots, shell, declared = _needs(invocation.spec)
                    lease = self._lease_of(declared)
                    events.append(Assigned(session, n, slots, shell, invocation, lease))
                case Ack(session, done, stale):
                    events.append(Acked(session, tuple(done), tuple(stale)))
                case Kill(session, n, reason):
                    events.append(KillAsked(session, n, reason))
                case Sync(session, revision, next_n, live, stop):
                    events.append(SyncAsked(session, revision, next_n, tuple(live), tuple(stop)))
                case Forget(runs):
                    self._forget(runs)
                case Goodbye(reason):
                    log.warning("the server says goodbye: %s", reason)
                case _:
                    log.warning("%s is not for a worker", type(message).__name__)
        self._happen(*events)
        self._acked.set()

    async def asked(self, message: Message) -> Message:
        """Raises GrampusError for what is no question to a worker."""
        if not isinstance(message, ReadLog):
            raise Refused(f"{type(message).__name__} is no question to a worker")
        while True:
            slot = self._slot(message)
            chunk = await asyncio.to_thread(self._logs.read, message, slot)
            if slot is None or self._slot(message) == slot:
                return chunk

    def _slot(self, asked: ReadLog) -> int | None:
        """Where that attempt runs now. Once it has ended, its slot's files are another's."""
        held = self._held.get(asked.n)
        mine = asked.session == self._core.session
        if held is None or not mine or held.stem != f"{asked.run}/{asked.task}.{asked.attempt}":
            return None
        return held.slot

    def _forget(self, runs: list[str]) -> None:
        if self._tasks is not None:
            self._tasks.create_task(asyncio.to_thread(self._logs.forget, runs))

    async def _ask(self, message: Message, within: float) -> Message:
        if self._link is None:
            raise Refused("the worker is not connected")
        return await self._link.ask(message, within)

    async def _report_load(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(LOAD_SAMPLE)
            changed = self._condition.sample()
            count += 1
            session = self._core.session
            due = changed or count % LOAD_EVERY == 0
            if due and self._link is not None and session is not None:
                self._link.send(self._condition.report(session))


def _needs(spec: bytes) -> tuple[int, bool, int | None]:
    """Its slots, whether its output file holds what a shell command wrote, and its lease as it is
    declared."""
    try:
        made = plan(spec)
        return made.task.slots, made.is_shell, made.task.lease
    except TaskFailure:
        return 1, True, None  # It fails when it is prepared, with the reason.
