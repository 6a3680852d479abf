"""The side that connects: one attempt, one connection. Trying again is for the caller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from grampus.errors import GrampusError, ServerUnreachable
from grampus.rpc.address import address, resolve
from grampus.rpc.calls import ConnectionLost
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection, Limits
from grampus.rpc.outgoing import LINGER
from grampus.rpc.ports import Handler
from grampus.rpc.tls_faults import tls_fault

if TYPE_CHECKING:
    from grampus.rpc.tls import Tls

M = TypeVar("M")


class Knock(Generic[M]):
    """Says Hello and waits for the answer. The Owner of a client's connection."""

    def __init__(self, hello: M, accept: Callable[[M], int]) -> None:
        self._hello = hello
        self._accept = accept
        #: The answer; or why there is none.
        self.answer: asyncio.Future[M] = asyncio.get_running_loop().create_future()

    def made(self, connection: Connection[M]) -> None:
        try:
            connection.send(self._hello)
        except GrampusError as error:
            self._fail(error)
            connection.close("the Hello cannot be sent")

    def first(self, connection: Connection[M], message: M) -> None:
        if self.answer.done():
            connection.close("nobody waits for it any more")
            return
        try:
            connection.open(self._accept(message))
        except Exception as error:
            self._fail(error)
            connection.close("its answer was not accepted")
        else:
            self.answer.set_result(message)

    def lost(self, connection: Connection[M], reason: str) -> None:
        if not self.answer.done():
            self._fail(ConnectionLost(reason))

    def _fail(self, error: Exception) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # marks it as seen, for when the caller is cancelled just then


async def connect(
    host: str,
    port: int,
    codec: Codec[M],
    handler: Handler[M],
    hello: M,
    accept: Callable[[M], int],
    timeout: float,  # noqa: ASYNC109
    *,
    tasks: asyncio.TaskGroup,
    hello_limit: int = 1024,
    limits: Limits = Limits(),  # noqa: B008, a frozen value
    tls: Tls | None = None,
) -> tuple[Connection[M], M]:
    """A connection that has been greeted, and the answer to `hello`, within `timeout` seconds.

    `accept(answer)` gives the longest frame in bytes that may go over the connection, or raises,
    for example Refused when the server said Goodbye: that error comes out here. Hello and its
    answer have at most `hello_limit` bytes. The handler may get messages before this returns.
    Request handlers run in `tasks`, which has to outlive the connection. ServerUnreachable names
    the address tried. With `tls` the Hello is said only to a server that it trusts; without, only
    to this machine (UsageError).
    """
    where = address(host, port)
    knock: Knock[M] = Knock(hello, accept)
    loop = asyncio.get_running_loop()
    connection: Connection[M] | None = None
    try:
        async with asyncio.timeout(timeout):
            number = (await resolve(host, encrypted=tls is not None))[0]
            identify = tls.callee if tls is not None else None
            _, connection = await loop.create_connection(
                lambda: Connection(codec, handler, knock, tasks, limits, hello_limit, identify),
                number,
                port,
                ssl=tls.client if tls is not None else None,
                ssl_shutdown_timeout=LINGER if tls is not None else None,
            )
            return connection, await knock.answer
    except BaseException as error:
        if connection is not None:
            connection.close("it was not greeted")
        if isinstance(error, TimeoutError):
            why = f"nothing came within {timeout:g} s"
        elif isinstance(error, ConnectionLost):
            hint = "; its log says why" if tls is not None else ""
            why = f"the connection ended before the Hello was answered: {error}{hint}"
        elif isinstance(error, OSError) and tls is not None:
            why = tls_fault(error)
        elif isinstance(error, OSError):
            why = os.strerror(error.errno) if error.errno else str(error)
        else:
            raise
        raise ServerUnreachable(f"no server answers at {where}: {why}") from error
