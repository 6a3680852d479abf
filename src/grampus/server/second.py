"""Whether a cluster is there already, before another one is founded beside it.

Rule: as long as one of the servers that grampus.toml names answers, an empty folder founds nothing,
whatever the command line says: its own may have been lost, and with it the place in that cluster.
Nothing is told to whoever answers, and nothing that it says is trusted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from grampus.cluster.admission import JOIN
from grampus.config import Listen
from grampus.errors import GrampusError, ProtocolError, Refused
from grampus.loopback import is_own
from grampus.protocol import HELLO_FRAME, PROTOCOL_VERSION, Hello, Message, Welcome
from grampus.rpc.client import connect
from grampus.rpc.codec import Codec
from grampus.rpc.connection import Connection
from grampus.rpc.tls import Tls, unverified_tls

log = logging.getLogger("grampus.server")

#: Seconds for an answer.
PATIENCE = 2.0


async def refuse_second(others: Sequence[Listen], name: str) -> None:
    """Raises Refused when a server of a cluster answers at one of these addresses."""
    async with asyncio.TaskGroup() as tasks:
        looks = [tasks.create_task(_cluster_at(at, name)) for at in others]
    for at, look in zip(others, looks, strict=True):
        if cluster := look.result():
            raise Refused(
                f"a server of cluster {cluster} answers at {at}, which [cluster] servers names: a"
                " second cluster is not founded beside it. If this server has lost its folder, say"
                f" on that one: grampus cluster replace {name}, and join with --join {at}"
                " --token-file FILE"
            )


async def _cluster_at(at: Listen, name: str) -> str:
    """Its id; "" when no server of a cluster answers there."""
    found = ""
    for tls in [None, unverified_tls()] if is_own(at.host) else [unverified_tls()]:
        try:
            async with asyncio.TaskGroup() as tasks:
                found = found or await _greet(at, name, tls, tasks)
        except* GrampusError as errors:
            log.debug("no cluster at %s: %s", at, errors.exceptions[0])
    return found


async def _greet(at: Listen, name: str, tls: Tls | None, tasks: asyncio.TaskGroup) -> str:
    hello = Hello(PROTOCOL_VERSION, "control", JOIN, name, "", "")
    connection, answer = await connect(
        at.host, at.node_port, Codec[Message](Message), _Deaf(), hello, _accept, PATIENCE,
        tasks=tasks, tls=tls,
    )  # fmt: skip
    connection.close("this was all")
    await connection.wait_closed()
    assert isinstance(answer, Welcome)
    return answer.cluster


def _accept(answer: Message) -> int:
    if not isinstance(answer, Welcome):
        raise Refused("nobody joins there")
    return HELLO_FRAME


class _Deaf:
    """The Handler of one who only looks."""

    def messages(self, connection: Connection[Message], batch: list[Message]) -> None:
        raise ProtocolError("nothing was asked")

    async def request(self, connection: Connection[Message], message: Message) -> Message:
        raise ProtocolError("nothing was asked")

    def closed(self, connection: Connection[Message], reason: str) -> None:
        return
