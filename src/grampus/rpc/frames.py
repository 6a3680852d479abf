"""Frames: how a stream of bytes is cut into payloads. Four bytes of length, big-endian, then the
payload.

Rule: no I/O, and nothing is kept of a frame that is too long. A payload's meaning is the codec's
affair.
"""

from __future__ import annotations

from grampus.errors import ProtocolError

HEADER = 4
#: The longest payload that a header can announce.
LONGEST = 2**32 - 1


def frame(payload: bytes) -> bytes:
    """The payload with its header in front."""
    return len(payload).to_bytes(HEADER, "big") + payload


class FrameReader:
    """Takes bytes as they come and gives back whole payloads.

    `limit` is the longest payload accepted, in bytes. It may be changed at any time and holds for
    every header read from then on. Memory: at most one frame within the limit, and what was fed
    last.
    """

    __slots__ = ("_buffer", "_fault", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._fault: str | None = None

    @property
    def pending(self) -> int:
        """Bytes fed and not yet given back."""
        return len(self._buffer)

    def feed(self, data: bytes, most: int | None = None) -> list[bytes]:
        """The payloads that `data` completes, in order; at most `most`, and `feed(b"")` gives the
        rest.

        ProtocolError when a header announces more than `limit`: nothing of this call is given
        back, and the reader stays broken, for there is no way to find the next header.
        """
        if self._fault is not None:
            raise ProtocolError(self._fault)
        buffer = self._buffer
        if buffer:
            buffer += data
        payloads: list[bytes] = []
        start = 0
        # Whole frames are cut from `data` itself; only what is left over is ever copied to the
        # buffer.
        with memoryview(buffer or data) as view:
            size = len(view)
            while size - start >= HEADER and (most is None or len(payloads) < most):
                body = start + HEADER
                length = int.from_bytes(view[start:body], "big")
                if length > self.limit:
                    self._fault = f"a frame of {length} bytes, where at most {self.limit} may come"
                    break
                if body + length > size:
                    break
                start = body + length
                payloads.append(bytes(view[body:start]))
            rest = bytes(view[start:]) if not buffer and self._fault is None else b""
        if self._fault is not None:
            buffer.clear()
            raise ProtocolError(self._fault)
        if buffer:
            del buffer[:start]
        else:
            buffer += rest
        return payloads
