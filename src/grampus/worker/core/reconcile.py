"""What the ledger has decided about attempts of this worker, and how the worker is made so.

Rule: the ledger is right. What it does not hold for live is ended here, without argument, and what
it holds for live and is not here is said to it. A number that is killed before its Assign comes is
seen by that, and never starts. What servers say of another session is nobody's business here.
"""

from __future__ import annotations

from grampus.model.lease import fence_of
from grampus.model.run import AttemptState
from grampus.protocol import Synced
from grampus.worker.core.attempt import UNLAUNCHED, WITH_WARDEN, Stage
from grampus.worker.core.attempts import Attempts
from grampus.worker.core.events import Acked, KillAsked, SyncAsked
from grampus.worker.core.memory import Closed
from grampus.worker.core.step import Step


class Reconciler:
    def __init__(self, attempts: Attempts, step: Step) -> None:
        self._attempts = attempts
        self._step = step
        #: Of the newest Sync.
        self._revision = -1
        #: The answer to it, to be sent.
        self._synced: Synced | None = None

    def open(self) -> None:
        """A session begins: no Sync of it has come yet."""
        self._revision = -1

    def forget_answer(self) -> None:
        """The connection that it was for is gone."""
        self._synced = None

    def take_answer(self) -> Synced | None:
        synced, self._synced = self._synced, None
        return synced

    def kill(self, event: KillAsked) -> None:
        if self._attempts.is_mine(event.session, f"Kill {event.n}"):
            self._kill(event.n, event.reason)

    def _kill(self, n: int, reason: str) -> None:
        attempt = self._attempts.live.get(n)
        if attempt is not None and attempt.stage in WITH_WARDEN:
            self._attempts.end(attempt, reason)
        elif attempt is not None and attempt.stage is not Stage.READING:
            self._attempts.over(attempt, AttemptState.CANCELLED, reason)
        elif n not in self._attempts.seen:
            # Seen before it is confirmed: its Assign may still be on the way.
            self._attempts.report(n, AttemptState.CANCELLED, reason)

    def sync(self, event: SyncAsked) -> None:
        if not self._attempts.is_mine(event.session, f"Sync {event.revision}"):
            return
        if event.revision < self._revision:
            self._step.warn(f"Sync {event.revision} came after Sync {self._revision}")
            return
        self._revision = event.revision
        live = set(event.live)
        self._close(event.next_n, live)
        for n in event.stop:
            self._kill(n, "cancelled")
        here, seen = self._attempts.live, self._attempts.seen
        for n in sorted(live):
            if n in seen and n not in here and n not in self._attempts.outbox:
                # It was reported and acknowledged, or so it seemed: say what is true now.
                self._attempts.report(n, AttemptState.LOST, "the worker does not know it")
        running = [n for n in sorted(live) if n in here]
        missing = [n for n in sorted(live) if n not in seen and n not in here]
        self._synced = Synced(event.session, event.revision, running, missing)

    def _close(self, next_n: int, live: set[int]) -> None:
        """Of the numbers below `next_n` only the live ones are not over."""
        if self._attempts.seen.close_below(next_n, live):
            self._step.write(Closed(next_n, sorted(n for n in live if n < next_n)))
        for attempt in self._attempts:
            if attempt.n >= next_n or attempt.n in live:
                continue
            if attempt.stage in WITH_WARDEN:
                attempt.closed = True
                self._attempts.end(attempt, "the ledger has ended it")
            else:
                self._attempts.forget(attempt)
        for n in self._attempts.outbox.numbers():
            if n < next_n and n not in live:
                self._attempts.acknowledged(n)

    def acked(self, event: Acked) -> None:
        if event.session != self._attempts.session:
            return
        for n in event.done:
            self._attempts.acknowledged(n)
        for n in event.stale:
            attempt = self._attempts.live.get(n)
            if self._attempts.acknowledged(n) or attempt is None:
                continue
            if attempt.stage in WITH_WARDEN:
                attempt.closed = True
                self._attempts.end(attempt, "the ledger has ended it")

    def unheard(self, ms: int) -> None:
        """What has not begun and may be with others by now never begins here. What was launched the
        warden judges, in the same way."""
        for attempt in self._attempts:
            lease = attempt.lease
            if attempt.stage in UNLAUNCHED and lease is not None and ms >= fence_of(lease).term:
                error = f"fenced: no server confirmed this worker for {ms // 1000} s"
                self._attempts.over(attempt, AttemptState.CANCELLED, error)
