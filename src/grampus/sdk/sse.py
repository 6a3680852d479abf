"""Server-sent events, without I/O: bytes in, events out.

Rule: an event counts only when its empty line has come; what is cut off is lost, and comes again
from where `last_id` says. Comments are how a server shows that it is alive: they give no event.
"""

from __future__ import annotations

import re

from msgspec import Struct

from grampus.errors import ProtocolError

EVENT_LIMIT = 4 * 1024 * 1024
_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(Struct, frozen=True):
    id: str
    type: str
    data: str


class EventParser:
    """Feed it the body as it comes."""

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._data: list[str] = []
        self._type = ""
        self._id = ""
        #: Of the newest event that is complete, or of an empty one that only moves it on.
        self.last_id = ""
        self._first = True

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events that `piece` completes. Raises ProtocolError for one of over EVENT_LIMIT."""
        self._rest += piece
        if self._first and len(self._rest) >= 3:
            self._first = False
            if self._rest.startswith(b"\xef\xbb\xbf"):
                self._rest = self._rest[3:]
        events = []
        at = 0
        for end in _END.finditer(self._rest):
            if end.end() == len(self._rest) and end[0] == b"\r":
                # Its line feed may come with the next piece.
                break
            event = self._line(self._rest[at : end.start()].decode("utf-8", "replace"))
            if event is not None:
                events.append(event)
            at = end.end()
        self._rest = self._rest[at:]
        if self._size + len(self._rest) > EVENT_LIMIT:
            raise ProtocolError(f"the server sent an event of more than {EVENT_LIMIT} bytes")
        return events

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            self.last_id = self._id
            event = ServerEvent(self._id, self._type or "message", "\n".join(self._data))
            found = event if self._data else None
            self._data, self._type, self._size = [], "", 0
            return found
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self._size += len(line)
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
