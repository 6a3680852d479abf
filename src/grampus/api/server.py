"""Listens for HTTP: uvicorn inside our own event loop, without its signal handlers.

Rule: `start` binds, so that a port in use is one clear line before anything else begins; `run`
serves until `stop`, which ends the streams, gives requests under way `GRACE` seconds, and closes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from contextlib import nullcontext

import uvicorn
from fastapi import FastAPI

from grampus.api.connections import Guest, Listener
from grampus.api.state import Shared
from grampus.descriptors import share
from grampus.errors import Refused, UsageError
from grampus.loopback import is_own

#: Connections at most, and fewer where the process may have few files open; uvicorn answers 503 to
#: requests beyond. The gate's own bound is lower.
MOST_CONNECTIONS = 1024
BACKLOG = 512
#: Seconds that an idle connection is kept.
KEEP_ALIVE = 30
#: Seconds that `stop` gives to requests under way.
GRACE = 3
#: Largest head of a request, in bytes.
HEAD_LIMIT = 64 * 1024


def _our_fault(record: logging.LogRecord) -> bool:
    """False for the traceback of an answer to a request that broke off in garbage: that the request
    was invalid is said in a line of its own."""
    return not record.exc_info or type(record.exc_info[1]).__name__ != "LocalProtocolError"


class ApiServer:
    """One listening address of `app` (of `create_app`); HTTPS with `tls`, HTTP without."""

    def __init__(
        self, app: FastAPI, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        """`port` 0 takes a free one; `port` says which after `start`."""
        self.host = host
        self.port = port
        self._shared: Shared = app.state.shared
        self._socket: socket.socket | None = None
        self._over = asyncio.Event()
        self._over.set()
        self._scheme = "http" if tls is None else "https"
        config = uvicorn.Config(
            app,
            http=Guest,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
            h11_max_incomplete_event_size=HEAD_LIMIT,
        )
        config.load()
        # A context of our own: it can be given a new certificate while it is in use.
        config.ssl = tls
        self._server = uvicorn.Server(config)
        logging.getLogger("uvicorn.error").addFilter(_our_fault)
        # Signals belong to the node.
        self._server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    async def start(self) -> None:
        """Binds. Raises Refused, in one line, when the address cannot be had."""
        loop = asyncio.get_running_loop()
        where = f"{self.host}:{self.port}"
        try:
            found = await loop.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise UsageError(f"{self.host} is no address to listen at: {error.strerror}") from error
        family, kind, proto, _, address = found[0]
        listener = Listener(family, kind, proto)
        listener.most = listener.most_of_one = share(MOST_CONNECTIONS)
        if not is_own(self.host):
            # Where all come from this machine, there is nobody else to leave places for.
            listener.most_of_one = listener.most * 3 // 4
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise Refused(
                    f"{where} is in use by another process: choose another with --listen"
                ) from error
            raise Refused(
                f"cannot listen at {where} ({error.strerror}): choose another with --listen"
            ) from error
        self._socket = listener
        self.port = listener.getsockname()[1]

    async def run(self) -> None:
        """Serves until `stop`; cancelled, it closes at once. `start` comes first."""
        assert self._socket is not None
        if self._server.should_exit:
            return
        self._over.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                ports = self._shared.ports
                metrics = self._shared.metrics.watch_loop(ports.clock, ports.status.applied_index)
                watching = tasks.create_task(metrics)
                await self._server.serve(sockets=[self._socket])
                watching.cancel()
        finally:
            self._close(self._socket)
            self._over.set()

    async def stop(self) -> None:
        """Ends the streams and waits until `run` is over."""
        self._shared.wakes.close()
        self._shared.ports.keys.close()
        if self._socket is None:
            return
        self._server.should_exit = True
        await self._over.wait()
        self._socket.close()

    def _close(self, listener: socket.socket) -> None:
        """What uvicorn leaves behind when it is cancelled; nothing after an orderly end."""
        for server in getattr(self._server, "servers", ()):
            server.close()
        for task in self._server.server_state.tasks:
            task.cancel()
        listener.close()
