"""Which history of a cluster counts for one who meets several. Pure.

A cluster that was recovered without its majority, or restored, goes on in a history of its own, and
the servers that were lost may come back together in the old one. Rule: who has seen the newer one
never goes back. Which is newer shows in the revisions: each beginning skips `SKIP` of them. Who has
a folder remembers it there, before he acts on it; others know it for as long as they run.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

#: Added to the revision when a history begins that may have lost the end of another: whoever saw
#: that end has seen no revision that will be given out again.
SKIP = 2**32
#: Histories that are remembered because they were left.
MOST_LEFT = 100


class Remembered(Struct, frozen=True):
    #: The one that counts; "" before the first.
    current: str = ""
    #: How many came before it.
    age: int = 0
    #: Those that do not count any more, the oldest first.
    left: tuple[str, ...] = ()


class Histories:
    """Of one client or worker. What `keep` raises comes out of `goes_with`, and nothing changes."""

    def __init__(
        self,
        remembered: Remembered | None = None,
        keep: Callable[[Remembered], None] = lambda remembered: None,
    ) -> None:
        self._remembered = remembered or Remembered()
        self._keep = keep

    def counts(self, history: str) -> bool:
        """Whether it is the one that counts. One that tells none is believed."""
        return history in ("", self._remembered.current)

    def goes_with(self, history: str, revision: int) -> bool:
        """Whether a server of that history, at that revision, may be asked; then it counts."""
        if self.counts(history):
            return True
        known, age = self._remembered, revision // SKIP
        if history in known.left or (known.current and age < known.age):
            return False
        left = (*known.left, known.current)[-MOST_LEFT:] if known.current else ()
        now = Remembered(history, age, left)
        self._keep(now)
        self._remembered = now
        return True


BEHIND = (
    "this server goes on in a history that the cluster has left: it was recovered, or restored,"
    " without it; empty that server's folder and let it join anew"
)
