"""The loop of the warden: what can be read, and timers. One thread, no waiting but in `wait`.

Rule: `wait` only looks; what it found is served by `serve`, so that its owner can act before
anything is read. Time is monotonic milliseconds, which stand still while the machine sleeps.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

from grampus.worker.channel import Channel


def ticks() -> int:
    return time.monotonic_ns() // 1_000_000


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        #: A heap: when, in which order they were made, and what.
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._made = 0

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """`handler` is called whenever there is something to read, or the end."""
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._handlers[fd]

    def after(self, delay: int, call: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._timers, (ticks() + delay, self._made, call))

    def push(self, channel: Channel) -> None:
        """Writes all that waits: what is larger than the socket's buffer goes in several pieces."""
        channel.flush()
        if channel.waiting and not channel.closed:
            self.after(1, lambda: self.push(channel))

    def wait(self, at_most: int | None = None) -> list[int]:
        """Until something can be read, a timer is due, or so many ms have passed."""
        waits = [] if at_most is None else [at_most]
        if self._timers:
            waits.append(max(0, self._timers[0][0] - ticks()))
        return [fd for fd, _ in self._epoll.poll(min(waits) / 1000 if waits else None)]

    def serve(self, readable: list[int]) -> None:
        for fd in readable:
            # One handler may have ended what another was for.
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        now = ticks()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
