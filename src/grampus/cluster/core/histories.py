"""Which history of a cluster counts for one who meets several. Pure.

A cluster that was recovered without its majority, or restored, goes on in a history of its own, and
the servers that were lost may come back together in the old one. Rule: who has seen the newer one
never goes back. Which is newer shows in the revisions: each beginning skips `SKIP` of them.
"""

from __future__ import annotations

#: Added to the revision when a history begins that may have lost the end of another: whoever saw
#: that end has seen no revision that will be given out again.
SKIP = 2**32
#: Histories that are remembered because they were left.
MOST_LEFT = 100


class Histories:
    """Of one client or worker."""

    def __init__(self) -> None:
        #: The one that counts; "" before the first.
        self.current = ""
        self._age = 0
        self._left: dict[str, None] = {}

    def goes_with(self, history: str, revision: int) -> bool:
        """Whether a server of that history, at that revision, may be asked; then it counts. One
        that tells none may."""
        if history in ("", self.current):
            return True
        age = revision // SKIP
        if history in self._left or (self.current and age < self._age):
            return False
        if self.current:
            self._left[self.current] = None
            if len(self._left) > MOST_LEFT:
                del self._left[next(iter(self._left))]
        self.current, self._age = history, age
        return True


BEHIND = (
    "this server goes on in a history that the cluster has left: it was recovered, or restored,"
    " without it; empty that server's folder and let it join anew"
)
