"""Whether a session is still ours, as its holder must see it. Pure.

Rule: the time counts from when a keep-alive was *sent* whose answer has come, never from the
answer. It is looked at before any answer is: once it has passed the session is over for its holder,
and no answer that comes late brings it back. So a holder always stops before a server can have
given away what it held.
"""

from __future__ import annotations

#: Clocks of two machines may run apart by so much: one part of so many is taken off the time.
DRIFT = 1_000
#: Keep-alives in one time to live; after one that was not confirmed the next comes sooner.
BEATS, HASTY = 5, 50


class Holder:
    """Times in ms of a clock that counts while the machine sleeps."""

    def __init__(self, ttl: int, sent: int) -> None:
        """The session was asked for at `sent`."""
        self._span = ttl - ttl // DRIFT
        self._deadline = sent + self._span
        self.over = False
        #: When the next keep-alive is due.
        self.due = sent + ttl // BEATS
        self._beat = ttl // BEATS

    @property
    def deadline(self) -> int:
        return self._deadline

    def lives(self, now: int) -> bool:
        if now >= self._deadline:
            self.over = True
        return not self.over

    def sent(self, now: int) -> None:
        """A keep-alive leaves; the next one is due a beat later, answered or not."""
        self.due = now + self._beat

    def unanswered(self, now: int) -> None:
        """The newest one was not confirmed."""
        self.due = min(self.due, now + max(self._span // HASTY, 20))

    def confirmed(self, sent: int, now: int) -> None:
        """At `now` the answer to what was sent at `sent` is read."""
        if self.lives(now):
            self._deadline = max(self._deadline, sent + self._span)

    def lost(self) -> None:
        """A server says that it is over."""
        self.over = True
