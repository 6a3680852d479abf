"""One connection: messages out, batches of messages in, requests with deadlines in both directions.

Rules. Nothing is unbounded: requests sent, requests worked on and bytes written each have a limit
(`Limits`). Bytes that break the rules end the connection with one log line, and nothing else.
One-way messages keep their order among themselves; requests are worked on side by side, in no
promised order. Messages are never repeated here: what must not be lost is repeated by whoever
needs it. Who may speak, and the first message in each direction, are the affair of an `Owner`
(server, client). Answers are awaited in `calls`, requests worked on in `work`, frames written in
`outgoing`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct

from grampus.errors import (
    GrampusError,
    ProtocolError,
)
from grampus.rpc.address import address
from grampus.rpc.calls import Calls, ConnectionLost
from grampus.rpc.codec import Codec, Failure, OneWay, Request, Response
from grampus.rpc.failures import heard, told
from grampus.rpc.frames import FrameReader
from grampus.rpc.outgoing import Outgoing
from grampus.rpc.ports import Handler, Owner
from grampus.rpc.subject import Subject
from grampus.rpc.tls_faults import tls_fault
from grampus.rpc.work import Work

M = TypeVar("M")

log = logging.getLogger("grampus.rpc")

#: How the first bytes of a TLS connection look. As the header of a frame they would be too long.
_TLS_HELLO = b"\x16\x03"


class Limits(Struct, frozen=True):
    """Bounds of one connection."""

    #: Requests sent and not yet answered; one more is refused with Overloaded.
    requests: int = 1024
    #: Requests of the other side worked on at a time; beyond that nothing more is read.
    work: int = 256
    #: Bytes sent and not yet taken by the other side; one more closes the connection.
    buffer: int = 64 * 1024 * 1024
    #: `drain` waits while more bytes than this are unwritten.
    drain: int = 1024 * 1024


class Connection(asyncio.Protocol, Generic[M]):
    """Made by `Server` and `connect`."""

    def __init__(
        self,
        codec: Codec[M],
        handler: Handler[M],
        owner: Owner[M],
        tasks: asyncio.TaskGroup,
        limits: Limits,
        first_limit: int,
        identify: Callable[[ssl.SSLObject], Subject | None] | None = None,
    ) -> None:
        """`identify` tells of a connection with TLS who the other side is, or raises."""
        self.peer = "?"
        #: Where it comes from, or goes to, without the port.
        self.host = "?"
        #: Who the other side is by its certificate; None without one, and without TLS.
        self.subject: Subject | None = None
        #: The first message of the other side: its Hello, or the answer to ours.
        self.greeting: M | None = None
        self._codec = codec
        self._handler = handler
        self._owner = owner
        self._identify = identify
        self._reader = FrameReader(first_limit)
        self._calls: Calls[M] = Calls(limits.requests)
        #: Of the handler, if it has one.
        self._take: Callable[[Connection[M], int, M], bool] | None = getattr(handler, "take", None)
        self._work: Work[M] = Work(limits.work, tasks, self._answer, self._go_on)
        self._transport: asyncio.Transport | None = None
        self._frame_limit = first_limit
        self._opened = False
        self._reason: str | None = None
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = True
        self._outgoing = Outgoing(limits.buffer, limits.drain, self._abort)

    # ---- for those who use it

    @property
    def closed(self) -> bool:
        """True from the moment that it takes no more messages."""
        return self._reason is not None

    @property
    def opened(self) -> bool:
        """True from the moment that both sides have greeted each other."""
        return self._opened

    @property
    def writable(self) -> bool:
        """False while the other side has not taken most of what was sent (Limits.drain)."""
        return self._outgoing.drained.is_set()

    @property
    def unread(self) -> int:
        """Bytes that came and are not a whole frame yet."""
        return self._reader.pending

    def send(self, message: M) -> None:
        """One-way, no promise. Does nothing once closed: the handler is told of that by `closed`.

        Ends the connection when the other side does not take what was sent (Limits.buffer).
        ProtocolError when the message is longer than a frame may be.
        """
        self._put(self._payload(OneWay(0, message)))

    def flush(self) -> None:
        """What was sent leaves now, and not at the end of the loop's turn: for whoever has sent
        all that he has."""
        self._outgoing.flush()

    async def request(self, message: M, timeout: float) -> M:  # noqa: ASYNC109, part of the port
        """The answer, within `timeout` seconds.

        RequestTimedOut and ConnectionLost leave open whether it was carried out. Overloaded, when
        too many requests wait, and the ProtocolError of a message that is too long say that it
        was not. What the other side's handler raised comes as UsageError, Refused, NotFound,
        ServerUnreachable or RemoteError, by exit code.
        """
        if self._reason is not None:
            raise ConnectionLost(self._lost_text())
        number, answer = self._calls.open(self.peer, timeout)
        try:
            self._put(self._payload(Request(number, message)))
            return await answer
        finally:
            self._calls.drop(number)

    async def drain(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Wait until the other side has taken most of what was sent; bulk senders do so between
        messages.

        ConnectionLost when the connection ends, or when nothing moves for `timeout` seconds: then
        it is closed.
        """
        try:
            while not self._outgoing.drained.is_set():
                async with asyncio.timeout(timeout):
                    await self._outgoing.drained.wait()
        except TimeoutError:
            self._abort(f"it took nothing for {timeout:g} s")
        if self._reason is not None:
            raise ConnectionLost(self._lost_text())

    def close(self, reason: str) -> None:
        """Orderly: what was sent before is still written, for LINGER seconds at most."""
        self._end(reason)

    def fail(self, reason: str) -> None:
        """Close it because the other side broke a rule: as `close`, with one line in the log."""
        self._end(reason, fault=True)

    def drop(self, reason: str, *, told: bool) -> None:
        """Close it at once, whatever the other side has taken; `told`: with one line in the log."""
        self._end(reason, fault=told, abort=True)

    async def wait_closed(self) -> str:
        """The reason, once the socket is closed: at most LINGER seconds after `close`."""
        return await asyncio.shield(self._over)

    # ---- for its owner

    def open(self, frame_limit: int) -> None:
        """From now on messages of up to `frame_limit` bytes go both ways, and in to the handler."""
        self._reader.limit = frame_limit
        self._frame_limit = frame_limit
        self._opened = True

    # ---- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._outgoing.begin(transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.host, self.peer = peer[0], address(peer[0], peer[1])
            _tune(transport.get_extra_info("socket"))
        if self._identify is not None:
            try:
                self.subject = self._identify(transport.get_extra_info("ssl_object"))
            except GrampusError as error:
                self._end(str(error), fault=True)
                return
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        if self._reason is not None:
            # With TLS this may still come after the close.
            return
        try:
            if not self._opened:
                self._receive_first(data)
                data = b""
            if self._opened and self._reason is None:
                self._receive(data)
        except GrampusError as error:
            self._end(str(error), fault=True)
        except Exception:
            log.exception("connection to %s: a bug in what takes its messages", self.peer)
            self._end("internal error")

    def eof_received(self) -> None:
        where = " in the middle of a frame" if self._reader.pending else ""
        self._end(f"closed by the other side{where}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._outgoing.lost()
        if isinstance(exc, ssl.SSLError):
            self._end(tls_fault(exc), fault=True)
        self._end(f"lost: {exc}" if exc is not None else "closed by the other side")
        reason = self._reason or ""
        self._over.set_result(reason)
        self._owner.lost(self, reason)
        if self._opened:
            try:
                self._handler.closed(self, reason)
            except Exception:
                log.exception("connection to %s: a bug in what was told of its end", self.peer)

    def pause_writing(self) -> None:
        self._outgoing.drained.clear()

    def resume_writing(self) -> None:
        self._outgoing.drained.set()

    # ---- in

    def _receive_first(self, data: bytes) -> None:
        if data.startswith(_TLS_HELLO) and self._identify is None:
            raise ProtocolError("it speaks TLS, and here nobody does: this node has no certificate")
        for payload in self._reader.feed(data, most=1):
            envelope = self._codec.decode(payload)
            if not isinstance(envelope, OneWay):
                raise ProtocolError("the first message is not a one-way message")
            self.greeting = envelope.body
            self._owner.first(self, envelope.body)

    def _receive(self, data: bytes) -> None:
        """Everything is decoded before anything is delivered: a read with a fault in it counts for
        nothing.
        """
        decode = self._codec.decode
        batch: list[M] = []
        for envelope in [decode(payload) for payload in self._reader.feed(data)]:
            if isinstance(envelope, OneWay):
                batch.append(envelope.body)
            elif isinstance(envelope, Request):
                self._asked(envelope.id, envelope.body)
            elif isinstance(envelope, Response):
                self._calls.answer(envelope.id, envelope.body)
            else:
                self._calls.answer(envelope.id, heard(envelope.body))
        if batch:
            self._handler.messages(self, batch)
        self._go_on()

    def _asked(self, number: int, message: M) -> None:
        if self._take is not None and not self._work.crowded:
            self._work.begin()
            if self._take(self, number, message):
                return
            self._work.end()
        self._work.add(number, message)

    def respond(self, number: int, answer: M) -> None:
        """To a request that was taken. Does nothing once closed."""
        if self._reason is None:
            try:
                payload = self._payload(Response(number, answer))
            except ProtocolError as error:
                payload = self._failure(number, error)
            self._put(payload)
        self._work.end()
        if not self._reading:
            self._go_on()

    def _go_on(self) -> None:
        """Start what there is room for; read on if there is still room."""
        if self._reason is not None or self._transport is None:
            return
        try:
            self._work.start()
        except GrampusError as error:
            self._end(str(error))
            return
        if self._reading == self._work.full:
            self._reading = not self._reading
            if self._reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    async def _answer(self, number: int, message: M) -> None:
        """Runs in the owner's TaskGroup, so nothing but a cancellation comes out of it."""
        try:
            answer = await self._handler.request(self, message)
            payload = self._payload(Response(number, answer))
        except GrampusError as error:
            payload = self._failure(number, error)
        except Exception:
            log.exception("request of %s: a bug in what answers it", self.peer)
            payload = self._failure(number, GrampusError("internal error"))
        try:
            await self.drain()
        except ConnectionLost:
            return
        self._put(payload)

    # ---- out

    def _payload(self, envelope: OneWay[M] | Request[M] | Response[M]) -> bytes:
        payload = self._codec.encode(envelope)
        if len(payload) > self._frame_limit:
            raise ProtocolError(
                f"a message of {len(payload)} bytes, where at most {self._frame_limit} may go"
            )
        return payload

    def _failure(self, number: int, error: GrampusError) -> bytes:
        return self._codec.encode(Failure(number, told(error, self._frame_limit)))

    def _put(self, payload: bytes) -> None:
        if self._reason is None:
            self._outgoing.put(payload)

    # ---- the end

    def _end(self, reason: str, fault: bool = False, abort: bool = False) -> None:
        """The first reason counts."""
        if self._reason is not None:
            return
        self._reason = reason
        level = logging.WARNING if fault else logging.DEBUG
        log.log(level, "connection to %s closed: %s", self.peer, reason)
        if not abort:
            self._outgoing.flush()
        self._calls.lose(self._lost_text())
        self._work.cancel()
        self._outgoing.end(abort)

    def _abort(self, reason: str) -> None:
        """What was sent and not taken is thrown away."""
        self._end(reason, fault=True, abort=True)

    def _lost_text(self) -> str:
        return f"the connection to {self.peer} ended: {self._reason}"


def _tune(sock: socket.socket) -> None:
    """Small frames leave at once, and a quiet peer that is gone is noticed after 30 s."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
