"""The driver of the session keeper: it asks for barriers, proposes ends, answers holders.

It decides nothing. It steps the core at least every quarter of a second, looks whether this server
leads, and reads the sessions from the ledger when it has taken office.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from grampus.clock import Clock
from grampus.cluster.commands import End, encode_command
from grampus.cluster.core.keeper import (
    GAP,
    AskBarrier,
    BarrierEnded,
    Began,
    EndFailed,
    Event,
    Expire,
    KeepAlive,
    LeftOffice,
    Over,
    Reply,
    SessionKeeper,
    TookOffice,
)
from grampus.cluster.reads import KeyReads
from grampus.cluster.values import SessionBegan, SessionOver
from grampus.consensus.port import Replica
from grampus.errors import GrampusError, NoQuorum, NotLeader, Overloaded, SessionUnknown

log = logging.getLogger("grampus.cluster")

#: Seconds between two steps at most.
STEP = GAP / 4 / 1000
#: Seconds that a barrier, and a holder for its answer, may take.
BARRIER = 1.0
ANSWER = 2.5
#: Seconds between two steps at least, while a session is late and its keep-alive is confirmed.
SHORTEST = 0.01
#: Ends that are proposed together.
BATCH = 500


class SessionDriver:
    """`committed` is a listener of the replica; `run` needs the replica to be open."""

    def __init__(self, replica: Replica, reads: KeyReads, clock: Clock) -> None:
        self._replica = replica
        self._reads = reads
        self._clock = clock
        self._core = SessionKeeper()
        self._inbox: list[Event] = []
        self._wake = asyncio.Event()
        #: Of the office that the core holds.
        self._term: int | None = None
        self._tickets: dict[int, asyncio.Future[str]] = {}
        self._ticket = 0

    def committed(self, index: int, facts: Sequence[object]) -> None:
        for fact in facts:
            if isinstance(fact, SessionBegan):
                self._inbox.append(Began(fact.session, fact.ttl))
            elif isinstance(fact, SessionOver):
                self._inbox.append(Over(fact.revision, fact.session))

    async def keep_alive(self, session: int) -> None:
        """Raises SessionUnknown when it is over, NotLeader, NoQuorum when nobody confirms it."""
        self._ticket += 1
        ticket = self._ticket
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tickets[ticket] = future
        self._happened(KeepAlive(ticket, session))
        try:
            async with asyncio.timeout(ANSWER):
                answer = await future
        except TimeoutError:
            answer = "unconfirmed"
        finally:
            del self._tickets[ticket]
        match answer:
            case "alive":
                return
            case "over":
                raise SessionUnknown(
                    f"session {session} is over: its keys and locks are gone; begin a new one"
                )
            case "not-leader":
                raise NotLeader("this server does not lead, so it keeps no session: ask the leader")
            case "busy":
                raise Overloaded("too many keep-alives wait")
            case _:
                raise NoQuorum(f"nobody confirms in time that session {session} lives: try again")

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._office()
                events, self._inbox = self._inbox, []
                self._wake.clear()
                ends: list[int] = []
                for instruction in self._core.step(self._clock.ticks(), events):
                    match instruction:
                        case AskBarrier(round):
                            group.create_task(self._barrier(round))
                        case Reply(ticket, answer):
                            self._reply(ticket, answer)
                        case Expire(session):
                            ends.append(session)
                for start in range(0, len(ends), BATCH):
                    group.create_task(self._expire(ends[start : start + BATCH]))
                await self._sleep()

    async def _office(self) -> None:
        """Tells the core when this server begins or ceases to lead."""
        leads, term = self._replica.leader, self._replica.term
        if not leads:
            if self._term is not None:
                self._term = None
                # Before the word of a barrier, which another leader may have let pass: he counts
                # by other keep-alives.
                self._inbox.insert(0, LeftOffice())
            return
        if term == self._term:
            return
        try:
            async with asyncio.timeout(BARRIER):
                # Whatever earlier leaders committed is in the ledger after it.
                await self._replica.read_barrier()
        except (GrampusError, TimeoutError) as error:
            log.info("not in office yet: %s", error or "no answer")
            return
        revision, sessions = await self._reads.sessions()
        self._term = term
        # Before the facts that came meanwhile: those that it knows already are skipped.
        self._inbox.insert(0, TookOffice(revision, tuple((each.id, each.ttl) for each in sessions)))

    async def _barrier(self, round: int) -> None:
        passed = True
        try:
            async with asyncio.timeout(BARRIER):
                await self._replica.read_barrier()
        except (GrampusError, TimeoutError):
            passed = False
        self._happened(BarrierEnded(round, passed))

    async def _expire(self, sessions: list[int]) -> None:
        now = self._clock.now()
        ends = [encode_command(End(now, session, "silent")) for session in sessions]
        try:
            # Never by way of another leader: he has given them all their time anew.
            await self._replica.propose_here(ends)
        except GrampusError as error:
            log.info("the end of %d sessions was not proposed: %s", len(sessions), error)
            await asyncio.sleep(STEP)
            self._inbox.extend(EndFailed(session) for session in sessions)
        else:
            log.info("sessions %s were silent and are over", sessions)

    def _reply(self, ticket: int, answer: str) -> None:
        future = self._tickets.get(ticket)
        if future is not None and not future.done():
            future.set_result(answer)

    def _happened(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake.set()

    async def _sleep(self) -> None:
        wake_at, delay = self._core.wake_at, STEP
        if wake_at is not None:
            delay = min(delay, max(SHORTEST, (wake_at - self._clock.ticks()) / 1000))
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            pass
