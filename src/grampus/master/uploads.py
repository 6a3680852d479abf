"""Blobs that are on their way from workers, in pieces: who may begin one more. Pure.

Rule: a worker has few of them at a time, so that it cannot fill the disk with beginnings; and what
gets no piece for a while is given up, for its worker may be gone, and begins anew when it is back.
`now` is in ms, of a clock that does not go back.
"""

from __future__ import annotations

from grampus.errors import Refused

#: Of one worker at a time. It sends fewer by itself.
MOST = 8
#: Milliseconds without a piece after which one is given up: longer than a worker waits for the
#: answer to one.
STALE = 120_000


class Uploads:
    def __init__(self) -> None:
        #: When the newest piece came, by worker and hash.
        self._newest: dict[tuple[str, str], int] = {}

    def given_up(self, now: int) -> list[tuple[str, str]]:
        """Worker and hash of each, once: what has come of them is of no use."""
        stale = [key for key, at in self._newest.items() if now - at > STALE]
        for key in stale:
            del self._newest[key]
        return stale

    def take(self, worker: str, hash: str, last: bool, now: int) -> None:
        """A piece comes. Raises Refused."""
        key = worker, hash
        if key not in self._newest and sum(of == worker for of, _ in self._newest) >= MOST:
            raise Refused(
                f"worker {worker} has {MOST} uploads under way already: let some of them end first"
            )
        if last:
            self._newest.pop(key, None)
        else:
            self._newest[key] = now
