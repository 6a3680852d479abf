"""One connected socket of the warden's side, with frames in both directions and no waiting.

Rule: `send` only queues; `flush` writes what fits. What is queued is bounded: a peer that does not
read for so long that the bound is passed counts as gone.
"""

from __future__ import annotations

import socket

from grampus.errors import ProtocolError
from grampus.rpc.frames import FrameReader, frame

#: The longest frame between worker, warden and shim: an environment and an argv of the largest
#: size that Linux starts, with room to spare.
FRAME_LIMIT = 8 << 20
#: What may wait for a peer that does not read, in bytes.
QUEUE_LIMIT = 4 * FRAME_LIMIT
#: One for all: a buffer of this size that is made for each read is mapped and unmapped each time.
_BUFFER = memoryview(bytearray(1 << 18))


def read(sock: socket.socket) -> bytes:
    """What has come, up to a bound; empty at the end of the stream. Raises OSError."""
    return bytes(_BUFFER[: sock.recv_into(_BUFFER)])


class Channel:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = FrameReader(FRAME_LIMIT)
        self._queue = bytearray()
        #: The peer is gone, or broke the rules.
        self.closed = False
        #: Why, when it is our judgement and not simply the end of the stream.
        self.fault = ""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def waiting(self) -> int:
        """Bytes queued and not written yet."""
        return len(self._queue)

    def send(self, payload: bytes) -> None:
        if self.closed:
            return
        self._queue += frame(payload)
        if len(self._queue) > QUEUE_LIMIT:
            self._give_up(f"it left {len(self._queue)} bytes unread")

    def flush(self) -> None:
        """Writes as much as the socket takes now."""
        while self._queue and not self.closed:
            try:
                sent = self._sock.send(self._queue)
            except BlockingIOError:
                return
            except OSError:
                # The reading side says that it is over, after what the peer wrote before.
                self._queue.clear()
                return
            del self._queue[:sent]

    def receive(self) -> list[bytes]:
        """What came, in order. Sets `closed` at the end of the stream."""
        try:
            data = read(self._sock)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._give_up("")
            return []
        try:
            return self._reader.feed(data)
        except ProtocolError as error:
            self._give_up(str(error))
            return []

    def close(self) -> None:
        self._give_up("")
        self._sock.close()

    def _give_up(self, fault: str) -> None:
        self.fault = self.fault or fault
        self.closed = True
        self._queue.clear()
