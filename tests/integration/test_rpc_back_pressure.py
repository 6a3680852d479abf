"""Slow readers and greedy askers: everything that waits is bounded."""

from __future__ import annotations

import asyncio
import logging

import pytest
from rpc_peers import CODEC, PATIENCE, Bytes, Ear, Number, Spoken, heard, hung_up, line, said

from grampus.rpc.calls import ConnectionLost
from grampus.rpc.codec import Request, Response
from grampus.rpc.connection import Limits
from grampus.rpc.frames import frame

pytestmark = pytest.mark.timeout(60)

MIB = 1024 * 1024


def test_a_reader_that_is_too_slow_is_closed_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with line(limits=Limits(buffer=4 * MIB)) as here:
            friend = await here.call()
            reader, writer = await here.raw_friend()
            # It reads a little into its own buffer, then no more.
            slow = here.server.connections[1]
            count = 0
            while not slow.closed:
                slow.send(Bytes(bytes(MIB // 2)))
                count += 1
                assert count < 200
            await here.ear.until(lambda: len(here.ear.ends) == 1)
            assert "reads too slowly" in here.ear.ends[0]
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            writer.close()
            await hung_up(reader)

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.levelno == logging.WARNING
    assert "more than 4194304 bytes wait for it" in record.getMessage()


def test_many_small_messages_to_a_reader_that_does_not_read_are_bounded_too() -> None:
    async def scene() -> None:
        async with line(limits=Limits(buffer=MIB)) as here:
            reader, writer = await here.raw_friend()
            [slow] = here.server.connections
            count = 0
            while not slow.closed:
                for n in range(1000):
                    slow.send(Number(n))
                await asyncio.sleep(0)  # one turn of the loop
                count += 1
                assert count < 10_000
            writer.close()
            await hung_up(reader)

    asyncio.run(scene())


def test_a_bulk_sender_that_drains_is_held_back_and_nothing_is_lost() -> None:
    async def scene() -> None:
        async with line() as here:
            reader, writer = await here.raw_friend()
            [listener] = here.server.connections
            sent = 0

            async def stream() -> None:
                nonlocal sent
                for _ in range(200):
                    listener.send(Bytes(bytes(MIB // 2)))
                    await listener.drain()
                    sent += 1

            async with asyncio.TaskGroup() as group:
                streaming = group.create_task(stream())
                stalled = -1
                while stalled != sent:  # until two looks, 50 turns apart, see the same
                    stalled = sent
                    for _ in range(50):
                        await asyncio.sleep(0)
                assert 0 < sent < 100
                assert not streaming.done()
                for _ in range(200):
                    await heard(reader)
            assert sent == 200
            writer.close()

    asyncio.run(scene())


def test_a_drain_in_which_nothing_moves_closes_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with line() as here:
            reader, writer = await here.raw_friend()
            [listener] = here.server.connections

            async def stream() -> None:
                for _ in range(200):
                    listener.send(Bytes(bytes(MIB // 2)))
                    await listener.drain(0.05)

            with pytest.raises(ConnectionLost, match=r"took nothing for 0\.05 s"):
                await stream()
            await here.ear.until(lambda: len(here.ear.ends) == 1)
            writer.close()
            await hung_up(reader)

    asyncio.run(scene())
    assert len(said(caplog)) == 1


def test_only_so_many_requests_are_worked_on_and_the_rest_waits_in_the_socket() -> None:
    async def scene() -> None:
        async with line(limits=Limits(work=4)) as here:
            gate = asyncio.Event()
            working = most_working = 0
            order: list[Spoken] = []

            async def reply(message: Spoken) -> Spoken:
                nonlocal working, most_working
                working += 1
                most_working = max(most_working, working)
                order.append(message)
                await gate.wait()
                working -= 1
                return message

            here.ear.reply = reply
            caller = await here.call()
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(caller.request(Number(n), PATIENCE)) for n in range(500)]
                await here.ear.until(lambda: working == 4)
                caller.send(Number(-1))
                for _ in range(50):
                    await asyncio.sleep(0)
                assert working == 4
                assert here.ear.heard == []  # it is not even read
                gate.set()
            await here.ear.until(lambda: here.ear.heard == [Number(-1)])
            assert most_working == 4
            assert order == [Number(n) for n in range(500)]
            assert [task.result() for task in asked] == [Number(n) for n in range(500)]

    asyncio.run(scene())


def test_large_answers_to_an_asker_that_does_not_read_wait_and_then_all_arrive() -> None:
    async def scene() -> None:
        async with line(limits=Limits(work=50, buffer=4 * MIB)) as here:

            async def reply(message: Spoken) -> Spoken:
                return Bytes(bytes(MIB // 2))

            here.ear.reply = reply
            reader, writer = await here.raw_friend()
            for n in range(1, 101):
                writer.write(frame(CODEC.encode(Request(n, Number(n)))))
            # 50 MiB of answers for a buffer of 4: they wait with their requests.
            got = [await heard(reader) for _ in range(100)]
            assert sorted(a.id for a in got if isinstance(a, Response)) == list(range(1, 101))
            assert here.ear.ends == []
            writer.close()

    asyncio.run(scene())


def test_a_close_does_not_wait_for_a_reader_that_never_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grampus.rpc.outgoing.LINGER", 0.05)

    async def scene() -> None:
        async with line() as here:
            ear = Ear()
            reader, writer = await here.raw_friend()
            [listener] = here.server.connections
            for _ in range(40):
                listener.send(Bytes(bytes(MIB // 2)))
            listener.close("time to go")
            async with asyncio.timeout(PATIENCE):
                assert await listener.wait_closed() == "time to go"
            assert ear.ends == []
            assert here.ear.ends == ["time to go"]
            writer.close()
            await hung_up(reader)

    asyncio.run(scene())
