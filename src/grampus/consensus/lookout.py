"""Says in the server's log that its disk does not answer, and when it does again.

Rule: it looks, and does nothing else. It has a thread of its own, because a quick disk is waited
for on the event loop (`pace`): while such a sync hangs, nobody else can say why all stands still.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic

from grampus.consensus.strain import Strain

log = logging.getLogger("grampus.disk")

#: Seconds between two looks, and between two lines about one sync.
LOOK, AGAIN = 0.5, 60.0


class Lookout:
    """`start` it once, and `stop` it."""

    def __init__(self, strain: Strain) -> None:
        self._strain = strain
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="grampus-lookout", daemon=True)
        #: What was said last: for how long it had hung by then.
        self._said = 0.0
        self._seen = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK):
            self.look(monotonic())

    def look(self, now: float) -> None:
        hangs = self._strain.hangs(now)
        # Seen twice: the whole process may have stood still.
        seen, self._seen = self._seen, hangs > 0
        if hangs and seen and (not self._said or hangs - self._said >= AGAIN):
            self._said = hangs
            log.warning(
                "the disk of the log has not answered for %.0f s: until it does, this server takes"
                " no write and leads nobody; look at the disk, and at what the kernel says of it",
                hangs,
            )
        elif self._said and not hangs:
            log.warning("the disk of the log answers again, after more than %.0f s", self._said)
            self._said = 0.0
