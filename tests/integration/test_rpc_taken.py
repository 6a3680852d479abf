"""Requests that a handler takes at once, and answers when it pleases, without a task for each."""

from __future__ import annotations

import asyncio

import pytest
from rpc_peers import PATIENCE, Bytes, Ear, Number, Spoken, line

from grampus.errors import ProtocolError
from grampus.rpc.calls import ConnectionLost, RequestTimedOut
from grampus.rpc.connection import Connection, Limits

pytestmark = pytest.mark.timeout(60)


class Taker(Ear):
    """Takes numbers, and keeps them until they are answered."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[Connection[Spoken], int, int]] = []

    def take(self, connection: Connection[Spoken], number: int, message: Spoken) -> bool:
        if not isinstance(message, Number):
            return False
        if message.n < 0:
            raise ProtocolError("a number below zero")
        self.taken.append((connection, number, message.n))
        self._note(connection)
        return True

    def answer(self) -> None:
        taken, self.taken = self.taken, []
        for connection, number, n in taken:
            connection.respond(number, Number(n * 2))


def test_what_is_taken_is_answered_later_and_all_else_as_ever() -> None:
    async def scene() -> None:
        ear = Taker()
        async with line(ear=ear) as here:
            friend = await here.call()
            asked = [asyncio.ensure_future(friend.request(Number(n), PATIENCE)) for n in range(5)]
            await ear.until(lambda: len(ear.taken) == 5)
            assert await friend.request(Bytes(b"x"), PATIENCE) == Bytes(b"x")
            ear.answer()
            assert await asyncio.gather(*asked) == [Number(n * 2) for n in range(5)]

    asyncio.run(scene())


def test_what_is_taken_counts_as_work_and_stops_the_reading() -> None:
    async def scene() -> None:
        ear = Taker()
        async with line(ear=ear, limits=Limits(work=3)) as here:
            friend = await here.call()
            asked = [asyncio.ensure_future(friend.request(Number(n), PATIENCE)) for n in range(10)]
            await ear.until(lambda: len(ear.taken) == 3)
            await asyncio.sleep(0.05)
            assert len(ear.taken) == 3
            assert not any(each.done() for each in asked)
            ear.answer()
            # Those of one read that were too many are worked on in tasks, by `request`.
            answers = await asyncio.gather(*asked)
            assert all(a in (Number(n), Number(n * 2)) for n, a in enumerate(answers))

    asyncio.run(scene())


def test_a_connection_that_ends_takes_no_answer_and_a_fault_ends_it() -> None:
    async def scene() -> None:
        ear = Taker()
        async with line(ear=ear) as here:
            friend = await here.call()
            asked = asyncio.ensure_future(friend.request(Number(1), PATIENCE))
            await ear.until(lambda: bool(ear.taken))
            friend.close("enough")
            with pytest.raises(ConnectionLost):
                await asked
            await ear.until(lambda: bool(ear.ends))
            ear.answer()
            other = await here.call()
            with pytest.raises(ConnectionLost):
                await other.request(Number(-1), PATIENCE)
            for connection in (friend, other):
                await connection.wait_closed()

    asyncio.run(scene())


def test_each_question_has_a_deadline_of_its_own_though_one_timer_looks_at_all() -> None:
    async def scene() -> None:
        ear = Taker()
        async with line(ear=ear) as here:
            friend = await here.call()
            loop, begun = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            late: list[float] = []

            async def ask(within: float) -> None:
                with pytest.raises(RequestTimedOut):
                    await friend.request(Number(1), within)
                late.append(loop.time() - begun)

            await asyncio.gather(ask(0.3), ask(0.1), ask(0.2))
            assert [round(each, 1) >= due for each, due in zip(late, (0.1, 0.2, 0.3), strict=True)]
            assert late == sorted(late)
            assert late[0] >= 0.1
            assert late[1] >= 0.2
            assert late[2] >= 0.3

    asyncio.run(scene())
