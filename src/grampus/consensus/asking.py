"""What is proposed and asked on this server, and the way to whoever leads.

Any server takes a proposal or a read barrier: a follower asks the leader over its own connection.
What certainly did not happen is tried again, with the next leader, until the deadline; all else is
an answer, or of unknown outcome. It changes nothing itself: the leader's `Turns` take it in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from grampus.consensus.barriers import Barriers
from grampus.consensus.members import Members
from grampus.consensus.port import Stopped
from grampus.consensus.proposals import Proposals
from grampus.consensus.transport import Transport
from grampus.consensus.turns import TICK, Turns
from grampus.errors import NoQuorum, NotLeader, OutcomeUnknown, Overloaded

#: Seconds that a proposal or a barrier takes at most, and that it waits for a leader to be there:
#: counted from when there was one, so that without a majority it is refused at once.
DEADLINE, LEADERLESS = 10.0, 2.0
#: Seconds after which a round of read index is asked again.
ROUND = 1.0
#: Bytes of commands that a follower passes on at once.
MESSAGE = 4 * 1024 * 1024


class Here(Protocol):
    """How this server stands: of the replica, what is needed for asking."""

    @property
    def id(self) -> int: ...

    @property
    def admit(self) -> Callable[[Sequence[bytes]], None]:
        """Raises Refused for what not every server could carry out yet."""
        ...

    @property
    def leader(self) -> bool: ...

    @property
    def leader_id(self) -> int: ...

    @property
    def members(self) -> Members: ...

    @property
    def changed(self) -> asyncio.Event:
        """Set, and cleared at once, whenever something of that changes."""
        ...

    def check(self) -> None:
        """Raises Stopped once the replica has ended."""
        ...

    def expelled(self) -> str:
        """Why this server is no member any more, as far as it knows; or ""."""
        ...


class Asking:
    """On the event loop."""

    def __init__(
        self,
        here: Here,
        turns: Turns,
        proposals: Proposals,
        barriers: Barriers,
        transport: Transport,
    ) -> None:
        self._here = here
        self._turns = turns
        self._proposals = proposals
        self._barriers = barriers
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        #: Questions to the leader under way.
        self.asked = 0

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        """See `Replica`. Raises NoQuorum when no leader is there, and NotLeader when leaders
        change faster than this can follow: nothing happened then."""
        if not commands:
            return []
        self._here.admit(commands)
        self._proposals.check(commands)
        deadline = self._loop.time() + DEADLINE
        while True:
            leader = await self._some_leader(deadline)
            try:
                if leader == self._here.id:
                    return await self._propose_here(commands, deadline)
                return await self._pass_on(leader, commands, deadline)
            except NotLeader:
                if self._loop.time() >= deadline:
                    raise
            await self._pause()

    async def _pass_on(
        self, leader: int, commands: Sequence[bytes], deadline: float
    ) -> list[object]:
        """In several messages, one after the other, when one would be too large."""
        results: list[object] = []
        index = 0
        for part in _parts(commands):
            try:
                left = deadline - self._loop.time()
                with self._under_way():
                    answers, index = await self._transport.propose(leader, part, left)
            except (NotLeader, Overloaded) as error:
                if not results:
                    raise
                raise OutcomeUnknown(
                    f"a part of it happened, and a part did not: {error}"
                ) from error
            results += answers
        await self._see(index)
        return results

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        """The leader is: what comes of it is waited for here next."""
        self.asked += 1
        try:
            yield
        finally:
            self.asked -= 1

    async def _see(self, index: int) -> None:
        """Who has an answer finds what was done, on this server too; unless it is far behind, or
        ends: the answer stands either way."""
        with contextlib.suppress(TimeoutError, Stopped, NoQuorum):
            async with asyncio.timeout(ROUND):
                await self._until(index)

    async def propose_here(self, commands: Sequence[bytes]) -> list[object]:
        """As `propose`, but only on the leader, and in its log. Raises NotLeader."""
        if not self._here.leader:
            raise NotLeader("this server does not lead")
        return await self._propose_here(commands, self._loop.time() + DEADLINE)

    async def _propose_here(self, commands: Sequence[bytes], deadline: float) -> list[object]:
        self._here.check()
        proposal = self._proposals.admit(commands, deadline)
        self._turns.wake()
        return await proposal.future

    async def read_barrier(self) -> None:
        """See `Replica`. Raises NoQuorum."""
        deadline = self._loop.time() + DEADLINE
        while True:
            leader = await self._some_leader(deadline)
            try:
                async with asyncio.timeout_at(min(deadline, self._loop.time() + ROUND)):
                    if leader == self._here.id:
                        index = await self.confirm()
                    else:
                        with self._under_way():
                            index = await self._transport.read_index(leader, ROUND)
                break
            except (NotLeader, TimeoutError):
                if self._loop.time() >= deadline:
                    raise NoQuorum("no majority has confirmed who leads: try again") from None
            await self._pause()
        try:
            async with asyncio.timeout_at(deadline):
                await self._until(index)
        except TimeoutError:
            raise NoQuorum(
                f"this server has applied {self._turns.applied} of {index} entries: ask another one"
            ) from None

    async def confirm(self) -> int:
        """On the leader: an index, once a majority has said after this call that it leads."""
        self._here.check()
        if not self._here.leader:
            raise NotLeader("this server does not lead")
        future = self._barriers.ask()
        self._turns.wake()
        return await future

    async def _pause(self) -> None:
        """Before the next try: until something changes here, but not for long."""
        self._here.check()
        try:
            async with asyncio.timeout(TICK / 1000):
                await self._here.changed.wait()
        except TimeoutError:
            pass

    async def _some_leader(self, deadline: float) -> int:
        """The id of the leader, once there is one. Raises NoQuorum."""
        while True:
            self._here.check()
            if why := self._here.expelled():
                # It could try until the deadline, and nobody would listen.
                raise NoQuorum(f"{why}; until then, ask another server")
            if leader := self._here.leader_id:
                return leader
            if self._turns.stalled:
                raise NoQuorum("the disk of this server does not answer: ask another server")
            if self._loop.time() >= min(deadline, self._turns.since + LEADERLESS):
                voters = len(self._here.members.voters)
                raise NoQuorum(f"no server leads: a majority of {voters} servers is needed")
            await self._pause()

    async def _until(self, index: int) -> None:
        """It is applied here. Raises NoQuorum where that will never be."""
        if why := self._here.expelled():
            raise NoQuorum(f"{why}; until then, ask another server")
        await self._barriers.until(index)


def _parts(commands: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """In order, each of at most MESSAGE bytes, or of one command."""
    first = size = 0
    for at, command in enumerate(commands):
        if at > first and size + len(command) > MESSAGE:
            yield commands[first:at]
            first, size = at, 0
        size += len(command)
    yield commands[first:]
