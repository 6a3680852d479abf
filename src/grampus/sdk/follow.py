"""Streams of a run that survive a broken connection: events by `Last-Event-ID`, logs by offset.

Rule: what was yielded is not yielded again. A broken stream is opened anew with growing pauses, for
at most RECONNECT_MS without a word from any server; the first connection has to work at once. Who
waits is told after SILENT_MS that nobody answers, and when somebody does again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec

from grampus.clock import SystemClock
from grampus.errors import Compacted, NoQuorum, Overloaded, ProtocolError, ServerUnreachable
from grampus.sdk.answers import KeysChanged, LogPiece, RunEvent
from grampus.sdk.sse import EventParser
from grampus.sdk.transport import Transport

#: A stream without a byte for this many seconds is given up: servers send a comment more often.
SILENCE = 45.0
RECONNECT_MS = 60_000
SILENT_MS = 1_500
NO_SERVER = "no server answers"
#: A server alone ends its streams: it does not hear what the others may do without it.
NO_MAJORITY = "no majority of the servers answers"
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 3.0
LINE_LIMIT = 8 * 1024 * 1024
#: After these nothing more happens to a run.
LAST_EVENTS = frozenset({"run.finished", "run.deleted"})

_CHANGED = msgspec.json.Decoder(KeysChanged)
_EVENT = msgspec.json.Decoder(RunEvent)
_PIECE = msgspec.json.Decoder(LogPiece)


class _Pauses:
    """The pauses between tries, and when to give up."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell`: that nobody answers, or no majority does; "" when all is well again."""
        self._clock = SystemClock()
        self._tell = tell
        self._told = ""
        self.worked = False
        self._pause = FIRST_PAUSE
        self._since: int | None = None

    def news(self) -> None:
        self.worked, self._since, self._pause = True, None, FIRST_PAUSE

    def opened(self) -> None:
        """A server answers; whether it has a word is still to be seen."""
        self.worked = True
        if self._told:
            self._told = ""
            self._tell("")

    def wait(self, error: Exception | None) -> None:
        """Waits for the next try, or raises."""
        now = self._clock.ticks()
        self._since = now if self._since is None else self._since
        if isinstance(error, ServerUnreachable) and not self.worked:
            raise error
        if now - self._since > RECONNECT_MS:
            raise (
                error
                if isinstance(error, ServerUnreachable)
                else ServerUnreachable("the stream of the server breaks off again and again")
            )
        why = NO_MAJORITY if isinstance(error, NoQuorum) else NO_SERVER
        if now - self._since > SILENT_MS and self._told != why:
            self._told = why
            self._tell(why)
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def follow_events(
    transport: Transport, path: str, after: int, final: Callable[[], bool]
) -> Iterator[RunEvent]:
    """The events of a run with a revision above `after`, to its end, which `final` tells."""
    pauses = _Pauses(transport.silent)
    ended = False
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        error: Exception | None = None
        last = ""
        try:
            with transport.stream(path, headers=headers, silence=SILENCE) as answer:
                pauses.opened()
                parser = EventParser()
                for piece in answer.iter_bytes():
                    pauses.news()
                    for event in parser.feed(piece):
                        fact: RunEvent = _read(_EVENT, event.data)
                        if fact.revision > after:
                            after, last = fact.revision, fact.type
                            yield fact
            # A server that stops ends its streams too: only a run that was final before this
            # stream began has told everything.
            if ended or last in LAST_EVENTS:
                return
            ended = final()
            if ended:
                continue
        except (httpx.TransportError, ServerUnreachable, Overloaded) as broken:
            error = broken
        pauses.wait(error)


def follow_logs(
    transport: Transport, path: str, query: dict[str, Any], final: Callable[[], bool] | None
) -> Iterator[LogPiece]:
    """Log pieces: those there are, or with `final` all until it says that no more will come."""
    pauses = _Pauses(transport.silent)
    seen: dict[tuple[str, int, str], int] = {}
    notes: dict[tuple[str, int, str], str] = {}
    ended = final is None
    while True:
        error: Exception | None = None
        try:
            with transport.stream(
                path, query=query, headers={"Accept": "application/x-ndjson"}, silence=SILENCE
            ) as answer:
                pauses.opened()
                for line in _lines(answer):
                    pauses.news()
                    if line.strip():
                        piece = _unseen(_read(_PIECE, line), seen, notes)
                        if piece is not None:
                            yield piece
            if ended or final is None:
                return
            ended = final()
            if ended:
                continue
        except (httpx.TransportError, ServerUnreachable, Overloaded) as broken:
            error = broken
        pauses.wait(error)


def follow_keys(
    transport: Transport, path: str, prefix: str, first: int | None
) -> Iterator[KeysChanged]:
    """What changes under `prefix` from revision `first` on; without end. Raises Compacted."""
    pauses = _Pauses(transport.silent)
    last: int | None = None
    while True:
        query = {"prefix": prefix, "watch": "true", "from": first if last is None else None}
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        error: Exception | None = None
        try:
            with transport.stream(path, query=query, headers=headers, silence=SILENCE) as answer:
                pauses.opened()
                parser = EventParser()
                for piece in answer.iter_bytes():
                    pauses.news()
                    for event in parser.feed(piece):
                        if event.type == "compacted":
                            raise Compacted(
                                "the history is forgotten before it was told: read the keys anew",
                                _read(_FIRST, event.data).first,
                            )
                        changed: KeysChanged = _read(_CHANGED, event.data)
                        if last is None or changed.revision > last:
                            last = changed.revision
                            yield changed
                    # Also of silence: the server tells how far there was nothing.
                    if parser.last_id.isdecimal():
                        last = max(last or 0, int(parser.last_id))
        except (httpx.TransportError, ServerUnreachable, Overloaded) as broken:
            error = broken
        pauses.wait(error)


class _First(msgspec.Struct):
    first: int


_FIRST = msgspec.json.Decoder(_First)


def _unseen(
    piece: LogPiece, seen: dict[tuple[str, int, str], int], notes: dict[tuple[str, int, str], str]
) -> LogPiece | None:
    """What of `piece` is new; pieces may be cut elsewhere the second time."""
    key = (piece.task, piece.attempt, piece.stream)
    if piece.note:
        # A new stream begins with what is wrong now: that may be known.
        known_note, notes[key] = notes.get(key), piece.note
        return None if piece.note == known_note else piece
    known = seen.get(key, 0)
    if piece.next <= known:
        return None
    seen[key] = piece.next
    if piece.offset < known:
        text = piece.text.encode()[known - piece.offset :].decode("utf-8", "replace")
        return msgspec.structs.replace(piece, offset=known, text=text, skipped=0)
    return piece


def _lines(answer: httpx.Response) -> Iterator[str]:
    """Lines that end in a line feed only: other separators are content."""
    rest = b""
    for piece in answer.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise ProtocolError(f"the server sent a line of more than {LINE_LIMIT} bytes")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


def _read(decoder: msgspec.json.Decoder[Any], text: str) -> Any:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the server sent what this client cannot read: {error}") from error
