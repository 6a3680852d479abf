"""When a worker is silent, and when the leases of its attempts are over, as the leader counts.

Rules:
- A session is counted while nobody speaks for it here, from the moment at which its newest
  keep-alive was confirmed. Who is connected is not counted.
- Its attempts are lost only when the ledger says that it is silent.
- No count began before `awake`: since then this server has not stood still, so that whoever wanted
  to be heard was heard. A new office counts from its beginning. Too late an end is always safe, too
  early a one never.
- What was asked for is asked again only when the ledger gave no answer, or has heard the worker
  since.
- An attempt without a lease is never over here.

Time is the server's ticks, in ms. What the ledger makes of a proposal, `apply_sessions` decides: it
compares the registration that is named with the newest one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from grampus.model.lease import KEEP
from grampus.runs.commands import MOST_LOST, LoseAttempts, SilenceSession
from grampus.runs.story import span

#: A worker that was not heard for so long is silent, in ms.
SILENT_AFTER = 10_000
#: How long a proposal without an answer waits until it is made again, in ms.
AGAIN = 1_000


@dataclass(slots=True)
class Count:
    """Of one session."""

    worker: str
    registered: int
    #: The ledger says that it is silent.
    silenced: bool
    #: In ticks: when it was heard last; None while it is connected.
    heard: int | None
    #: Leases of its live attempts, by number, in ms.
    leases: dict[int, int] = field(default_factory=dict)
    #: The ledger was asked to say that it is silent.
    asked_silence: bool = False
    #: Those of which it was asked to say that they are lost.
    asked: set[int] = field(default_factory=set)
    #: Nothing is asked for before that.
    not_before: int = 0


class Leases:
    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._counts: dict[int, Count] = {}

    def seat(self, session: int, worker: str, registered: int, silenced: bool, now: int) -> None:
        """A session that lives, and that nobody speaks for yet."""
        self._counts[session] = Count(worker, registered, silenced, now)

    def leave(self, session: int) -> None:
        self._counts.pop(session, None)

    def connected(self, session: int) -> None:
        if count := self._counts.get(session):
            count.heard = None

    def gone(self, session: int, heard: int) -> None:
        """Its connection is lost; `heard` is when its newest keep-alive was confirmed."""
        if (count := self._counts.get(session)) and count.heard is None:
            count.heard = heard

    def seen(self, session: int, registered: int, now: int) -> None:
        """It has registered, here or elsewhere: all its leases begin anew."""
        if count := self._counts.get(session):
            count.registered, count.not_before = registered, 0
            count.silenced = count.asked_silence = False
            count.asked.clear()
            if count.heard is not None:
                count.heard = now

    def silenced(self, session: int) -> None:
        """So says the ledger."""
        if count := self._counts.get(session):
            count.silenced = True

    def begin(self, session: int, n: int, lease: int) -> None:
        if lease != KEEP and (count := self._counts.get(session)):
            count.leases[n] = lease

    def end(self, session: int, n: int) -> None:
        if count := self._counts.get(session):
            count.leases.pop(n, None)
            count.asked.discard(n)

    def declined(self, command: SilenceSession | LoseAttempts, answered: bool, now: int) -> None:
        """`answered`: by the ledger, which knew more, and whose facts say what."""
        count = self._counts.get(command.session)
        if count is None or count.registered != command.registered or answered:
            return
        count.not_before = now + AGAIN
        if isinstance(command, SilenceSession):
            count.asked_silence = False
        else:
            count.asked.difference_update(command.numbers)

    def is_over(self, session: int, n: int) -> int | None:
        """When the attempt's lease is over, in ticks, if nothing is heard until then; None while
        its worker is connected, and for an attempt that is kept."""
        count = self._counts.get(session)
        if count is None or count.heard is None or n not in count.leases:
            return None
        return count.heard + count.leases[n]

    def due(self, now: int, awake: int, at: int) -> tuple[SilenceSession | LoseAttempts, ...]:
        """What has to be asked for now; `at` is the wall time that the commands bear."""
        commands: list[SilenceSession | LoseAttempts] = []
        for session, count in self._counts.items():
            if count.heard is None:
                continue
            count.heard = max(count.heard, awake)
            unheard = now - count.heard
            if unheard < SILENT_AFTER or now < count.not_before:
                continue
            if count.silenced:
                commands += self._lost(session, count, unheard, at)
            elif not count.asked_silence:
                count.asked_silence = True
                commands.append(SilenceSession(at, self._epoch, session, count.registered))
        return tuple(commands)

    def _lost(self, session: int, count: Count, unheard: int, at: int) -> list[LoseAttempts]:
        over: dict[int, list[int]] = {}
        for n, lease in sorted(count.leases.items()):
            if lease <= unheard and n not in count.asked:
                over.setdefault(lease, []).append(n)
        commands = []
        for lease, numbers in sorted(over.items()):
            count.asked.update(numbers)
            reason = f"its worker {count.worker} was not heard for {span(lease)}"
            for start in range(0, len(numbers), MOST_LOST):
                part = tuple(numbers[start : start + MOST_LOST])
                commands.append(
                    LoseAttempts(at, self._epoch, session, count.registered, part, reason)
                )
        return commands

    def next_due(self) -> int | None:
        """In ticks; never later than the next thing is due."""
        dues = []
        for count in self._counts.values():
            if count.heard is None:
                continue
            waiting = [lease for n, lease in count.leases.items() if n not in count.asked]
            if not count.silenced:
                waiting = [] if count.asked_silence else [SILENT_AFTER]
            if waiting:
                dues.append(max(count.heard + min(waiting), count.not_before))
        return min(dues, default=None)
