"""The first part of a checkpoint, which goes on beside `apply`.

Rule: a checkpoint holds up everything that is to be applied. So when much has to be moved, most of
it is moved before, while entries are applied; what the checkpoint itself finds is what was changed
meanwhile. Here is when that is worth it, and the thread for those who have no event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

#: For a checkpoint of less than one part of so many of what makes one due it is not.
PART = 8


class Ahead:
    """On a thread, begun when it is made."""

    def __init__(self, part: Callable[[], None]) -> None:
        self._part = part
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="grampus-checkpoint", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        """Waits for its end. Raises what it has raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._part()
        except BaseException as failure:
            self._failure = failure
