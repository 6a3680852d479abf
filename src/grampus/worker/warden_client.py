"""The worker's end of the connection to its warden, and the start of that process.

Rule: the warden is ready, or `start` fails within its deadline and leaves no process behind. A
warden that is gone is an event, never a silence. What the notices mean is left to the caller.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Self

import msgspec

from grampus.errors import GrampusError, ProtocolError
from grampus.rpc.frames import FrameReader, frame
from grampus.worker.capture import DEFAULT_CAP
from grampus.worker.channel import FRAME_LIMIT
from grampus.worker.orders import Notice, Order, Ready, Shutdown
from grampus.worker.warden import SOCKET

#: The log starts anew with a new warden once it is longer than this.
LOG_LIMIT = 1 << 20
LOG = "warden.log"
#: What the warden may take beyond the grace of its attempts: KILL, reaping, goodbye.
_MARGIN = 5.0


class WardenFailed(GrampusError):
    """The warden did not start, or does not end."""


class WardenClient(asyncio.Protocol):
    """Made by `start`. All calls on the loop of the start."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        notice: Callable[[list[Notice]], None],
        gone: Callable[[], None],
    ) -> None:
        self._process = process
        self._notice = notice
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(FRAME_LIMIT)
        self._decode = msgspec.msgpack.Decoder(Notice).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._outgoing: list[bytes] = []
        #: What came before `start` returned.
        self._early: list[Notice] | None = []
        self._first: asyncio.Future[Ready] = self._loop.create_future()
        self._stopping = False
        #: From Ready: the incarnation of the warden, and how it contains attempts.
        self.instance = ""
        self.containment = ""
        #: Set when the connection is over: nothing is sent or heard any more.
        self.closed = asyncio.Event()

    @classmethod
    async def start(
        cls,
        folder: str | os.PathLike[str],
        slots: int,
        notice: Callable[[list[Notice]], None],
        gone: Callable[[], None],
        *,
        python: str = sys.executable,
        containment: str = "auto",
        output_cap: int = DEFAULT_CAP,
        ready_timeout: float = 30.0,
    ) -> Self:
        """Starts a warden on the folder of the worker and waits for it, `ready_timeout` s at most.

        While an earlier warden still ends its attempts, this waits for it. WardenFailed says why
        there is none. After this has returned, `notice` gets all that the warden says, in order and
        in batches, beginning with Ready; `gone` is called once when the warden is gone without
        having been asked to stop.
        """
        path = os.fspath(folder)
        command = [python, "-X", "utf8", "-m", "grampus.worker.warden", "--dir", path]
        command += ["--slots", str(slots), "--containment", containment]
        command += ["--output-cap", str(output_cap)]
        client = cls(_spawn(command, path), notice, gone)
        try:
            async with asyncio.timeout(ready_timeout):
                await client._connect(path)
                ready = await client._first
        except TimeoutError:
            client._kill()
            reason = f"no warden after {ready_timeout:g} s: {_last_line(path)}"
            raise WardenFailed(reason) from None
        except BaseException:
            client._kill()
            raise
        client.instance, client.containment = ready.instance, ready.containment
        client._loop.call_soon(client._catch_up)
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: Order) -> None:
        """Sends at the end of this turn of the loop. Lost when the warden is gone."""
        if self.closed.is_set():
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(frame(self._encode(order)))

    async def stop(self, grace: int) -> None:
        """Ends all attempts, within `grace` ms each, and the warden. Notices come until the end.

        WardenFailed if it does not end in time, because something cannot be killed: it stays, keeps
        its lock, and goes on trying. Asked again, the shorter grace counts.
        """
        self._stopping = True
        self.send(Shutdown(grace))
        try:
            async with asyncio.timeout(grace / 1000 + _MARGIN):
                await self.closed.wait()
                wait = 0.001
                while not self._reaped():
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, 0.05)
        except TimeoutError:
            reason = f"warden {self.pid} cannot end all its attempts and stays behind"
            raise WardenFailed(reason) from None
        finally:
            if self._transport is not None:
                self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            batch = [self._decode(payload) for payload in self._reader.feed(data)]
        except (ProtocolError, msgspec.DecodeError):
            # Not our warden's language: without a connection it ends everything.
            assert self._transport is not None
            self._transport.abort()
            return
        if batch and not self._first.done():
            if isinstance(batch[0], Ready):
                self._first.set_result(batch[0])
            else:
                self._first.set_exception(WardenFailed("its first word was not Ready"))
        if self._early is not None:
            self._early += batch
        elif batch:
            self._notice(batch)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        if not self._first.done():
            self._first.set_exception(WardenFailed("the warden closed the connection at once"))
        elif self._early is None:
            self._tell_gone()

    def _catch_up(self) -> None:
        early, self._early = self._early, None
        if early:
            self._notice(early)
        if self.closed.is_set():
            self._tell_gone()

    def _tell_gone(self) -> None:
        self._reap(0.001)
        if not self._stopping:
            self._gone()

    def _reap(self, wait: float) -> None:
        """The connection ends a moment before the process does."""
        if not self._reaped():
            self._loop.call_later(wait, self._reap, min(2 * wait, 1.0))

    def _reaped(self) -> bool:
        return self._process.poll() is not None

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def _connect(self, path: str) -> None:
        """Connects to the process that was started, and to no other that may still listen there."""
        while True:
            sock = _dial(path, self.pid)
            if sock is not None:
                await self._loop.create_unix_connection(lambda: self, sock=sock)
                return
            if self._reaped():
                raise WardenFailed(f"the warden did not start: {_last_line(path)}")
            await asyncio.sleep(0.005)

    def _kill(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        # TERM ends its attempts first, should it have any; before Ready it ends at once.
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _spawn(command: list[str], path: str) -> subprocess.Popen[bytes]:
    os.makedirs(path, 0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(os.path.join(path, LOG), flags, 0o600)
    try:
        if os.fstat(fd).st_size > LOG_LIMIT:
            os.ftruncate(fd, 0)
        # What a task must never learn is not lent to its parents either.
        env = {key: value for key, value in os.environ.items() if key != "GRAMPUS_TOKEN"}
        # A session of its own: Ctrl-C in a terminal is for the worker, which says Shutdown.
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, start_new_session=True
        )
    finally:
        os.close(fd)


def _dial(path: str, pid: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    # By way of the folder's descriptor: a path in an address may have 107 bytes at most.
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{handle}/{SOCKET}")
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[0] == pid:
            return sock
    except (FileNotFoundError, ConnectionError, BlockingIOError):
        pass
    finally:
        os.close(handle)
    sock.close()
    return None


def _last_line(path: str) -> str:
    try:
        with open(os.path.join(path, LOG), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return str(error)
    return next((line for line in reversed(lines) if line), "it said nothing")
