"""What goes out over a connection: frames of one turn of the loop leave together, at its end.

Rule: what the other side does not take is bounded: beyond the bound the connection is at an end.
Whoever has much to send waits before that, until it has taken most of it (`drained`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grampus.rpc.frames import frame

#: Bytes that are written at once rather than at the end of the loop's turn.
_WRITE_AT_ONCE = 64 * 1024
#: What is still unwritten this many seconds after a close is thrown away.
LINGER = 5.0


class Outgoing:
    """`too_slow` is called with the reason when more than `buffer` bytes are not taken; `drain` is
    below how many most of it is taken."""

    def __init__(self, buffer: int, drain: int, too_slow: Callable[[str], None]) -> None:
        self._buffer = buffer
        self._drain = drain
        self._too_slow = too_slow
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        #: Of this turn of the loop, and how many bytes are in them.
        self._frames: list[bytes] = []
        self._unwritten = 0
        #: Set while the other side has taken most of what was sent.
        self.drained = asyncio.Event()
        self.drained.set()
        self._linger: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=self._drain)

    def put(self, payload: bytes) -> None:
        """Queues a frame around it; does nothing without a transport."""
        if self._transport is None:
            return
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append(frame(payload))
        self._unwritten += len(payload)
        if self._unwritten >= _WRITE_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._frames or self._transport is None:
            return
        frames, self._frames, self._unwritten = self._frames, [], 0
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        if self._transport.get_write_buffer_size() > self._buffer:
            self._too_slow(f"it reads too slowly: more than {self._buffer} bytes wait for it")

    def end(self, abort: bool) -> None:
        """What was flushed before is still written, for LINGER seconds at most, unless `abort`."""
        self.drained.set()
        if self._transport is None:
            return
        if abort:
            self._transport.abort()
            return
        # In this order: a TLS transport that is closed does not tell its size.
        unwritten = self._transport.get_write_buffer_size()
        self._transport.close()
        if unwritten:
            self._linger = self._loop.call_later(LINGER, self._transport.abort)

    def lost(self) -> None:
        """The transport is gone."""
        self._transport = None
        if self._linger is not None:
            self._linger.cancel()
