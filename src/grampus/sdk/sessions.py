"""Sessions and locks for Python: what a process holds as long as it gives signs of life.

Rules: a thread keeps the session alive; its time counts from when it *sent* the newest keep-alive
that was confirmed, so that this side lets go before the servers do (`model.holder`). What was lost
never comes back. A place in the line for a lock stays until it is given up or the session is over,
so asking again, at any server, changes nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import msgspec

from grampus.clock import SystemClock
from grampus.errors import (
    GrampusError,
    Lagging,
    LockLost,
    NotLeader,
    Overloaded,
    ProtocolError,
    Refused,
    ServerUnreachable,
    SessionUnknown,
)
from grampus.model.holder import Holder
from grampus.sdk.transport import Transport

T = TypeVar("T")
SESSIONS, LOCKS = "/api/v1/sessions", "/api/v1/locks"
#: Seconds for a keep-alive at one server; a short session has a part of its time for it.
KEEP, PART = 1.5, 4
#: Seconds for which one request waits for a lock: the first one, and those after it.
FIRST_WAIT, WAIT = 1.0, 10.0
#: Seconds beyond that until a server that does not answer is left.
GRACE = 3.0
#: Seconds before that is asked again when nobody knows.
PAUSE = 0.3
#: Milliseconds for which a server that does not answer is not asked again.
REST = 3_000
#: Seconds for the end of a session at one server.
GOODBYE = 2.0


class Session:
    """Made by `Client().kv.session`; `with` ends it. Used by one thread at a time."""

    def __init__(self, transport: Transport, name: str, ttl: float) -> None:
        """`ttl` in seconds: it is over when so long no keep-alive was confirmed."""
        self._transport = transport
        self._clock = SystemClock()
        self._ttl = round(ttl * 1000)
        body = {"name": name, "ttl": self._ttl, "instance": secrets.token_hex(16)}
        sent = self._clock.ticks()
        # The same instance is the same session, so it may be asked for again.
        answer = transport.ask("POST", SESSIONS, body=body)
        self.id = _read(answer.content, _Opened).session
        self._holder = Holder(self._ttl, sent)
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._servers = Servers(transport.apart(min(KEEP, ttl / PART)))
        self._thread = threading.Thread(
            target=self._keep, name=f"grampus-session-{self.id}", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def lives(self) -> bool:
        """Whether what it owns is still ours. Ask right before each thing that relies on it."""
        return self.left > 0

    @property
    def left(self) -> float:
        """Seconds for which it lives without a further sign."""
        now = self._clock.ticks()
        with self._guard:
            if self._closing.is_set() or not self._holder.lives(now):
                return 0.0
            return (self._holder.deadline - now) / 1000

    def check(self) -> None:
        """Raises SessionUnknown."""
        if not self.lives:
            raise SessionUnknown(
                f"session {self.id} is over: its keys and locks are gone; begin a new one"
            )

    def lock(
        self, name: str, wait: float | None = None, *, in_line: Callable[[], None] = lambda: None
    ) -> int:
        """Waits for the lock, for `wait` seconds if that is said; its fencing token. `in_line` is
        called once when it is not free at once. While no server answers it waits, too, as long as
        the session lives.

        Raises Refused when it is held for longer, and leaves the line; SessionUnknown."""
        path = f"{LOCKS}/{quote(name, safe='')}"
        patient = self._transport.another(WAIT + GRACE)
        end = None if wait is None else self._clock.ticks() + round(wait * 1000)
        step, told = FIRST_WAIT, False
        try:
            while True:
                self.check()
                left = step if end is None else (end - self._clock.ticks()) / 1000
                found = self._place(patient, path, min(step, left))
                self.check()
                if found is not None and found.token is not None:
                    return found.token
                if end is not None and self._clock.ticks() >= end:
                    self._leave(name, wait)
                if found is not None and not told:
                    told = True
                    in_line()
                step = WAIT
        finally:
            patient.close()

    def _place(self, patient: Transport, path: str, wait: float) -> _Held | None:
        """In line; None when no server says it now: the place stays."""
        query = {"session": self.id, "wait": max(0, round(1000 * wait))}
        try:
            return _read(patient.ask("POST", path, query=query).content, _Held)
        except (ServerUnreachable, NotLeader, Lagging, Overloaded):
            patient.elsewhere()
            self._closing.wait(PAUSE)
            return None

    def _leave(self, name: str, wait: float | None) -> None:
        with suppress(LockLost):  # No server may have given it a place.
            self.unlock(name)
        raise Refused(f"lock {name} was not free within {wait:g} s")

    def unlock(self, name: str) -> None:
        """Gives a lock up, or the place in line. Raises LockLost when it was lost before.

        Close a session of which a `lock` was without an answer: a server that stood still may carry
        it out later, and the session would hold what it does not know of."""
        query = {"session": self.id}
        self._transport.ask("DELETE", f"{LOCKS}/{quote(name, safe='')}", query=query, repeat=False)

    def close(self) -> None:
        """What it owns is gone when this returns; if no server answers, after its time."""
        if self._closing.is_set():
            return
        lived = self.lives
        self._closing.set()
        self._thread.join()
        self._servers.close()
        if not lived:
            return
        transport = self._transport.another(GOODBYE)
        try:
            transport.ask("DELETE", f"{SESSIONS}/{self.id}", repeat=False, patient=False)
        except GrampusError:
            return  # It ends by its time.
        finally:
            transport.close()

    def _keep(self) -> None:
        """Until it is closed, or over."""
        path = f"{SESSIONS}/{self.id}/keep-alive"
        while True:
            now = self._clock.ticks()
            with self._guard:
                if not self._holder.lives(now):
                    return
                pause = (min(self._holder.due, self._holder.deadline) - now) / 1000
            if self._closing.wait(max(pause, 0.0)):
                return
            if pause > 0:
                continue
            with self._guard:
                self._holder.sent(now)
            try:
                self._servers.ask(path, now)
            except SessionUnknown:
                with self._guard:
                    self._holder.lost()
                return
            except GrampusError:
                with self._guard:
                    self._holder.unanswered(self._clock.ticks())
            else:
                with self._guard:
                    self._holder.confirmed(now, self._clock.ticks())


class Servers:
    """Each by itself: whoever does not answer rests, and the others are asked meanwhile. One that
    answers and cannot confirm may be cut off from the others, so the next one is asked, too."""

    def __init__(self, each: list[Transport]) -> None:
        self._order = each
        #: Until when it is not asked again, on the clock of ticks.
        self._rests: dict[Transport, int] = {}

    def ask(self, path: str, now: int) -> None:
        """Of one of them. Raises what it answers, or that it does not."""
        awake = [each for each in self._order if self._rests.get(each, 0) <= now]
        chosen = (awake or self._order)[0]
        try:
            chosen.ask("POST", path, patient=False)
        except GrampusError as error:
            if type(error) is ServerUnreachable:
                self._rests[chosen] = now + REST
            self._order.remove(chosen)
            self._order.append(chosen)
            raise

    def close(self) -> None:
        for each in self._order:
            each.close()


class Lock:
    """Made by `Client().kv.lock`: a lock, and the session that holds it. `with` gives it up."""

    def __init__(self, session: Session, name: str, token: int) -> None:
        self.session = session
        self.name = name
        #: It grows with every holder: pass it on to whatever the lock protects.
        self.token = token

    @property
    def held(self) -> bool:
        """Ask right before each thing that relies on it."""
        return self.session.lives

    def check(self) -> None:
        """Raises LockLost."""
        if not self.held:
            raise LockLost(f"lock {self.name} is no longer held: stop what it protects")

    def release(self) -> None:
        """The next in line has it when this returns; where no server answers, after the time of
        the session."""
        self.session.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Opened(msgspec.Struct):
    session: int


class _Held(msgspec.Struct):
    token: int | None = None


def _read(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the answer about a session is not understood: {error}") from error
