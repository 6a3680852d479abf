"""Which sessions live: decided by the leader, from its own ticks and from what the log confirms.

`step(now, events)` takes what happened since the last step and returns what is to be done. Rules:
- A session's time runs from when this server took office, not from before; and it begins anew, in
  full, for every session when the steps stood still for more than GAP: nobody could be heard.
- A keep-alive is answered only after a read barrier that began after it arrived has passed: then
  no other server can have led meanwhile. One barrier serves all that wait; who comes while it is
  under way waits for the next one.
- A session whose keep-alive waits is not silent. One whose end was proposed is never answered
  again, whatever became of the proposal.
Too late an end is always safe, too early a one never.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

#: Between two steps, in ms.
GAP = 1_000
#: Keep-alives that wait at once; further ones are turned away.
MOST_WAITING = 20_000


class TookOffice(Struct, frozen=True):
    """This server leads. Sessions as (id, ttl in ms) at a revision of the ledger."""

    revision: int
    sessions: tuple[tuple[int, int], ...]


class LeftOffice(Struct, frozen=True):
    pass


class Began(Struct, frozen=True):
    """A committed fact; its revision is the session's id."""

    session: int
    ttl: int


class Over(Struct, frozen=True):
    """A committed fact."""

    revision: int
    session: int


class KeepAlive(Struct, frozen=True):
    """A holder says that it lives; `ticket` is answered once."""

    ticket: int
    session: int


class BarrierEnded(Struct, frozen=True):
    round: int
    passed: bool


class EndFailed(Struct, frozen=True):
    """The proposed end may not have happened: it is proposed again."""

    session: int


Event = TookOffice | LeftOffice | Began | Over | KeepAlive | BarrierEnded | EndFailed


class AskBarrier(Struct, frozen=True):
    round: int


class Reply(Struct, frozen=True):
    """`alive`; or `over`, `unconfirmed`, `not-leader`, `busy`."""

    ticket: int
    answer: str


class Expire(Struct, frozen=True):
    session: int


Instruction = AskBarrier | Reply | Expire


class SessionKeeper:
    """Of one server; in office or not."""

    def __init__(self) -> None:
        self.in_office = False
        self._revision = 0
        self._ttl: dict[int, int] = {}
        self._deadline: dict[int, int] = {}
        #: Their end was proposed in this office.
        self._ending: dict[int, None] = {}
        #: Asked since the barrier under way began, and those that it serves: (ticket, session).
        self._next: list[tuple[int, int]] = []
        self._served: list[tuple[int, int]] = []
        self._round = 0
        self._under_way = False
        self._last: int | None = None
        #: No deadline is before it: deadlines move on by themselves, this follows when reached.
        self._soonest: int | None = None

    @property
    def sessions(self) -> int:
        return len(self._ttl)

    @property
    def wake_at(self) -> int | None:
        """No session is over before that, in ticks. To step every GAP / 4 is a duty besides."""
        return self._soonest

    def step(self, now: int, events: Iterable[Event]) -> list[Instruction]:
        done: list[Instruction] = []
        if self._last is not None and now - self._last > GAP:
            self._renew(now)
        self._last = now
        for event in events:
            self._happened(now, event, done)
        self._begin_barrier(done)
        self._expire(now, done)
        return done

    def _happened(self, now: int, event: Event, done: list[Instruction]) -> None:
        match event:
            case TookOffice(revision, sessions):
                self._leave(done)
                self.in_office = True
                self._revision = revision
                self._ttl = dict(sessions)
                self._renew(now)
            case LeftOffice():
                self._leave(done)
            case Began(session, ttl):
                if session > self._revision and self.in_office:
                    self._ttl[session] = ttl
                    self._set(session, now + ttl)
            case Over(revision, session):
                if revision > self._revision:
                    self._forget(session)
            case KeepAlive(ticket, session):
                self._asked(ticket, session, done)
            case BarrierEnded(round, passed):
                if round == self._round and self._under_way:
                    self._confirmed(now, passed, done)
            case EndFailed(session):
                # Its deadline has passed: it is proposed again in this very step or the next.
                if session in self._ending:
                    self._set(session, now)

    def _asked(self, ticket: int, session: int, done: list[Instruction]) -> None:
        if not self.in_office:
            done.append(Reply(ticket, "not-leader"))
        elif len(self._next) + len(self._served) >= MOST_WAITING:
            done.append(Reply(ticket, "busy"))
        else:
            self._next.append((ticket, session))

    def _confirmed(self, now: int, passed: bool, done: list[Instruction]) -> None:
        self._under_way = False
        served, self._served = self._served, []
        for ticket, session in served:
            if not passed:
                done.append(Reply(ticket, "unconfirmed"))
            elif session not in self._ttl or session in self._ending:
                done.append(Reply(ticket, "over"))
            else:
                self._deadline[session] = now + self._ttl[session]
                done.append(Reply(ticket, "alive"))

    def _begin_barrier(self, done: list[Instruction]) -> None:
        if self._next and not self._under_way:
            self._served, self._next = self._next, []
            self._under_way = True
            self._round += 1
            done.append(AskBarrier(self._round))

    def _expire(self, now: int, done: list[Instruction]) -> None:
        if self._soonest is None or now < self._soonest:
            return
        late = [session for session, deadline in self._deadline.items() if deadline <= now]
        waiting = {session for _, session in (*self._next, *self._served)}
        for session in late:
            if session not in waiting or session in self._ending:
                del self._deadline[session]
                self._ending[session] = None
                done.append(Expire(session))
        self._soonest = min(self._deadline.values(), default=None)

    def _set(self, session: int, deadline: int) -> None:
        self._deadline[session] = deadline
        if self._soonest is None or deadline < self._soonest:
            self._soonest = deadline

    def _renew(self, now: int) -> None:
        self._deadline = {
            session: now + ttl
            for session, ttl in self._ttl.items()
            if session not in self._ending or session in self._deadline
        }
        self._soonest = min(self._deadline.values(), default=None)

    def _forget(self, session: int) -> None:
        self._ttl.pop(session, None)
        self._deadline.pop(session, None)
        self._ending.pop(session, None)

    def _leave(self, done: list[Instruction]) -> None:
        done.extend(Reply(ticket, "not-leader") for ticket, _ in (*self._served, *self._next))
        self._served, self._next = [], []
        self._under_way = self.in_office = False
        self._ttl, self._deadline, self._ending = {}, {}, {}
        self._soonest = None
