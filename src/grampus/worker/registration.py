"""As what a server knows this worker, and what is heard under that: the Receiver of `link`.

Rules:
- A registration names the warden that there is. One that is confirmed when another warden has come
  meanwhile is no good, and is made anew.
- What a server confirms counts from when it was asked. But first what has passed is passed: the
  core hears for how long nobody had confirmed.

What messages mean is decided in `core`; here they become events, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from grampus.errors import Refused
from grampus.protocol import (
    Ack,
    Assign,
    Forget,
    Goodbye,
    Kill,
    Message,
    ReadLog,
    Register,
    Sync,
)
from grampus.worker.core.events import (
    Acked,
    Assigned,
    Connected,
    Disconnected,
    Event,
    KillAsked,
    SyncAsked,
    Unheard,
)
from grampus.worker.holdings import Holdings
from grampus.worker.identity import boot_id, machine_id
from grampus.worker.log_desk import LogDesk
from grampus.worker.orders import Confirmed
from grampus.worker.supervisor import Supervisor

log = logging.getLogger("grampus.worker")


class Registration:
    def __init__(
        self,
        supervisor: Supervisor,
        holdings: Holdings,
        logs: LogDesk,
        happen: Callable[..., None],
        renew: Callable[[str], None],
        *,
        folder_id: str,
        leased: bool,
        ticks: Callable[[], int],
    ) -> None:
        """`happen` takes events to the core, `renew` ends the connection so that the worker
        registers anew, with the reason; `ticks` is the time since boot, in ms."""
        #: Set while a server knows this worker.
        self.holds = asyncio.Event()
        #: Set whenever a server has said something, or cannot any more.
        self.news = asyncio.Event()
        self._supervisor = supervisor
        self._holdings = holdings
        self._logs = logs
        self._happen = happen
        self._renew = renew
        self._folder_id, self._leased = folder_id, leased
        self._ticks = ticks
        #: Instance of the warden in the last Register.
        self._named = ""
        #: When the newest keep-alive that was confirmed was sent, in ticks.
        self._confirmed: int | None = None

    def make(self) -> Register:
        """Raises Refused while there is no warden."""
        warden = self._supervisor.warden
        if warden is None or self._supervisor.retiring:
            raise Refused("there is no warden")
        name, group, slots = self._supervisor.enrolment
        self._named = warden.instance
        return Register(
            name,
            warden.instance,
            machine_id(),
            boot_id(),
            group,
            slots,
            os.getpid(),
            warden.containment,
            True,
            self._folder_id,
            self._leased,
        )

    def confirmed(self, sent: int) -> None:
        if not self._leased:
            return
        if self._confirmed is not None:
            self._happen(Unheard(self._ticks() - self._confirmed))
        self._confirmed = sent
        self._supervisor.send(Confirmed(sent))

    def registered_as(self, session: int) -> None:
        warden = self._supervisor.warden
        if warden is None or warden.instance != self._named:
            # The session belongs to a warden that has died meanwhile.
            self._renew("a new warden")
            return
        self._happen(Connected(session))
        self.holds.set()

    def disconnected(self) -> None:
        self.holds.clear()
        self.news.set()
        self._happen(Disconnected())

    def heard(self, batch: list[Message]) -> None:
        events = [event for message in batch if (event := self._event(message)) is not None]
        self._happen(*events)
        self.news.set()

    def _event(self, message: Message) -> Event | None:
        match message:
            case Assign(session, n, invocation):
                slots, shell, lease = self._holdings.needs(invocation.spec)
                return Assigned(session, n, slots, shell, invocation, lease)
            case Ack(session, done, stale):
                return Acked(session, tuple(done), tuple(stale))
            case Kill(session, n, reason):
                return KillAsked(session, n, reason)
            case Sync(session, revision, next_n, live, stop):
                return SyncAsked(session, revision, next_n, tuple(live), tuple(stop))
            case Forget(runs):
                self._logs.forget(runs)
            case Goodbye(reason):
                log.warning("the server says goodbye: %s", reason)
            case _:
                log.warning("%s is not for a worker", type(message).__name__)
        return None

    async def asked(self, message: Message) -> Message:
        """Raises GrampusError for what is no question to a worker."""
        if not isinstance(message, ReadLog):
            raise Refused(f"{type(message).__name__} is no question to a worker")
        return await self._logs.answer(message)
