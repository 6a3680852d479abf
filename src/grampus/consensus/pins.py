"""One process for each server: a second one, on a copy of its folder, is not let in while the first
one answers.

Rule: who has come is asked whether he is still there before anybody is believed: a connection may
outlast its machine. Two that were heard at once could vote twice. Whose folder is older is for
`trail`; this is about two that are of the same age.
"""

from __future__ import annotations

import asyncio

from grampus.errors import GrampusError
from grampus.protocol import Hello, Message, ReadIndex
from grampus.rpc.calls import ConnectionLost, RequestTimedOut
from grampus.rpc.connection import Connection

#: Seconds that the first one has to answer, and for which his answer counts.
PATIENCE, SURE = 1.0, 3.0
#: To the second one.
TWICE = (
    "another process of this server answers: its folder runs twice, or a copy of it does; stop one"
    " of them"
)
_MAYBE = (
    "another process of this server is connected, and is asked whether it still runs: try again"
)
Peer = Connection[Message]


class Pins:
    """Who asks whether somebody lives does so in `tasks`."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        #: By server: its connections, and of which process each is.
        self._open: dict[int, dict[Peer, int]] = {}
        self._asked: set[int] = set()
        #: By server: until when the process that is connected is known to live.
        self._lives: dict[int, float] = {}

    def opened(self, connection: Peer, hello: Hello) -> None:
        if hello.instance:
            self._open.setdefault(hello.id, {})[connection] = hello.instance

    def closed(self, connection: Peer, hello: Hello) -> None:
        there = self._open.get(hello.id, {})
        there.pop(connection, None)
        if not there:
            self._open.pop(hello.id, None)
            self._lives.pop(hello.id, None)

    def refuses(self, hello: Hello) -> str:
        """Why this process has to stay outside, at least for now; "" when it may come in."""
        there = self._open.get(hello.id, {})
        others = [each for each, of in there.items() if of != hello.instance and not each.closed]
        if not others or not hello.instance:
            return ""
        if asyncio.get_running_loop().time() < self._lives.get(hello.id, 0.0):
            return TWICE
        if hello.id not in self._asked:
            asking = self._ask(hello.id, others)
            try:
                self._tasks.create_task(asking)
                self._asked.add(hello.id)
            except RuntimeError:  # the group is closing: this server ends, and lets nobody in
                asking.close()
        return _MAYBE

    async def _ask(self, id: int, connections: list[Peer]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(self._ask_one(id, connection))
        finally:
            self._asked.discard(id)

    async def _ask_one(self, id: int, connection: Peer) -> None:
        """What it answers is a refusal: it is asked over a connection of its own. But it lives."""
        try:
            await connection.request(ReadIndex(), PATIENCE)
        except (RequestTimedOut, ConnectionLost):
            connection.close("it does not answer, and another process of its server has come")
            return
        except GrampusError:
            pass
        self._lives[id] = asyncio.get_running_loop().time() + SURE
