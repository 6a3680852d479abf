"""The worker's end of the connection to its warden: to one that runs already, or to a new one.

Rule: the warden is ready, or `start` fails within its deadline and leaves no process behind. A
warden that is gone is an event, never a silence. What the notices mean is left to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol, Self

import msgspec

from grampus.errors import GrampusError, ProtocolError
from grampus.rpc.frames import FrameReader, frame
from grampus.worker.capture import DEFAULT_CAP
from grampus.worker.channel import FRAME_LIMIT
from grampus.worker.orders import Notice, Order, Ready, Running, Shutdown
from grampus.worker.warden_server import SOCKET

#: The log starts anew with a new warden once it is longer than this.
LOG_LIMIT = 1 << 20
LOG = "warden.log"
#: What the warden may take beyond the grace of its attempts: KILL, reaping, goodbye.
_MARGIN = 5.0
#: A warden that runs answers within so many seconds, or it is none of ours.
_ANSWER = 5.0


class WardenFailed(GrampusError):
    """The warden did not start, or does not end."""


class WardenClient(asyncio.Protocol):
    """Made by `start` or `attach`. All calls on one loop."""

    def __init__(
        self,
        process: _Process,
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
        self.slots = 0
        #: What it had already.
        self.running: list[Running] = []
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
        client = cls(_Child(_spawn(command, path)), notice, gone)
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
        client._begin(ready)
        return client

    @classmethod
    async def attach(
        cls,
        folder: str | os.PathLike[str],
        notice: Callable[[list[Notice]], None],
        gone: Callable[[], None],
    ) -> Self | None:
        """Connects to the warden that runs in this folder; None when there is none that answers.

        One that does not answer in our language is told to end, by a signal. `notice` and `gone`
        are as for `start`; what has ended and was never taken is said right after Ready."""
        path = os.fspath(folder)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ANSWER
        while loop.time() < deadline and (found := _dial(path)) is not None:
            sock, pid = found
            try:
                process = _Other(pid)
            except OSError:
                sock.close()
                continue
            client = cls(process, notice, gone)
            try:
                async with asyncio.timeout(deadline - loop.time()):
                    await loop.create_unix_connection(lambda: client, sock=sock)  # noqa: B023
                    client._begin(await client._first)
                    return client
            except WardenFailed:
                # It has not yet seen that the worker before us is gone.
                client.leave()
                await asyncio.sleep(0.05)
            except (TimeoutError, _Babel):
                client.leave()
                process.end()
                return None
        return None

    def _begin(self, ready: Ready) -> None:
        self.instance, self.containment = ready.instance, ready.containment
        self.slots, self.running = ready.slots, ready.running
        self._loop.call_soon(self._catch_up)

    @property
    def pid(self) -> int:
        return self._process.pid

    def leave(self) -> None:
        """Ends the connection. The warden goes on with what it has; no notice comes any more."""
        self._stopping = True
        self._flush()
        if self._transport is not None:
            self._transport.close()
        self.closed.set()
        self._process.release()

    def retire(self) -> None:
        """The warden ends all it has, without grace, and itself; then `gone` is called."""
        self.send(Shutdown(0))

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
            # Not our warden's language.
            assert self._transport is not None
            if not self._first.done():
                self._first.set_exception(_Babel("the warden speaks another language"))
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
        return self._process.is_gone()

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def _connect(self, path: str) -> None:
        """Connects to the process that was started, and to no other that may still listen there."""
        while True:
            found = _dial(path)
            if found is not None and found[1] != self.pid:
                found[0].close()
            elif found is not None:
                sock, _ = found
                await self._loop.create_unix_connection(lambda: self, sock=sock)
                return
            if self._reaped():
                raise WardenFailed(f"the warden did not start: {_last_line(path)}")
            await asyncio.sleep(0.005)

    def _kill(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._process.end()


class _Babel(GrampusError):
    """Who listens in the folder speaks another language: a warden of another version."""


class _Process(Protocol):
    pid: int

    def is_gone(self) -> bool: ...
    def end(self) -> None: ...
    def release(self) -> None: ...


class _Child:
    """A warden that this process has started."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pid = popen.pid

    def is_gone(self) -> bool:
        return self._popen.poll() is not None

    def end(self) -> None:
        # TERM ends its attempts first, should it have any; before Ready it ends at once.
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(2)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def release(self) -> None:
        # It outlives this process: without a return code that would be warned of.
        if self._popen.poll() is None:
            self._popen.returncode = 0


class _Other:
    """A warden that an earlier process has started. OSError when it is gone already."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def is_gone(self) -> bool:
        """Also when nobody has reaped it."""
        return bool(self._poll.poll(0))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)

    def release(self) -> None:
        pass

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)


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


def _dial(path: str) -> tuple[socket.socket, int] | None:
    """A connection to whoever listens in the folder, and its pid; None when nobody of ours does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    # By way of the folder's descriptor: a path in an address may have 107 bytes at most.
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{handle}/{SOCKET}")
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", peer)
        if uid == os.geteuid():
            return sock, pid
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
