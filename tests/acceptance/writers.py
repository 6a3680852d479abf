"""Clients that write without a pause while a cluster is hurt: what was answered, and when."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType

from grampus.errors import GrampusError, ServerUnreachable
from grampus.sdk.client import Client

#: Between two tries of one writer, after a refusal, in seconds.
AGAIN = 0.02
PLACE = "/w/"


class Writers:
    """So many at once; each writes a new key each time, so that no write hides another one."""

    def __init__(self, open_client: Callable[[], Client], count: int = 3, size: int = 16) -> None:
        self._open = open_client
        self._size = size
        self._over = threading.Event()
        self._failure: BaseException | None = None
        #: When each was answered, and the keys of all of them.
        self.times: list[float] = []
        self.keys: list[str] = []
        #: How long the longest call took, in seconds.
        self.longest = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(count)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a write hangs"
        if error is None and self._failure is not None:
            raise self._failure

    def _run(self, me: int) -> None:
        try:
            with self._open() as client:
                number = 0
                while not self._over.is_set():
                    number += 1
                    self._write(client, f"{PLACE}{me}/{number}")
        except BaseException as failure:
            self._failure = failure

    def _write(self, client: Client, key: str) -> None:
        begun = time.monotonic()
        try:
            client.kv.put(key, key.ljust(self._size, "."))
        except ServerUnreachable:  # also NoQuorum, and OutcomeUnknown
            time.sleep(AGAIN)
        except GrampusError as error:
            if type(error).__name__ not in ("NotLeader", "Overloaded"):
                raise
            time.sleep(AGAIN)
        else:
            self.times.append(time.monotonic())
            self.keys.append(key)
        self.longest = max(self.longest, time.monotonic() - begun)

    def gap(self, since: float) -> float:
        """The longest time without any answer after that moment, until now."""
        moments = [since, *(at for at in list(self.times) if at > since), time.monotonic()]
        return max(b - a for a, b in itertools.pairwise(moments))

    def lost(self, client: Client) -> set[str]:
        """Keys that were answered and are not there, for that client."""
        return set(self.keys) - {key.key for key in client.kv.range(PLACE)}
