"""Messages and requests between two greeted peers over a real socket."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from rpc_peers import (
    CODEC,
    FRAME_LIMIT,
    PATIENCE,
    TOKEN,
    Bytes,
    Ear,
    Hi,
    Number,
    Spoken,
    heard,
    hung_up,
    line,
    said,
    spoken,
)

from grampus.errors import (
    GrampusError,
    NotFound,
    Overloaded,
    ProtocolError,
    Refused,
    ServerUnreachable,
    UsageError,
)
from grampus.rpc.calls import ConnectionLost, RequestTimedOut
from grampus.rpc.codec import Failure, Request, Response
from grampus.rpc.connection import Connection, Limits
from grampus.rpc.failures import RemoteError
from grampus.rpc.frames import frame

pytestmark = pytest.mark.timeout(60)


def test_one_way_messages_arrive_in_order_and_in_batches() -> None:
    async def scene() -> None:
        async with line() as here:
            caller = await here.call()
            numbers: list[Spoken] = [Number(n) for n in range(5000)]
            for number in numbers:
                caller.send(number)
            await here.ear.until(lambda: len(here.ear.heard) == 5000)
            assert here.ear.heard == numbers
            assert len(here.ear.batches) < 500

    asyncio.run(scene())


def test_both_sides_ask_and_answer() -> None:
    async def scene() -> None:
        async with line() as here:
            ear = Ear()
            caller = await here.call(ear)
            assert await caller.request(Number(1), PATIENCE) == Number(1)
            [listener] = here.server.connections
            assert await listener.request(Number(2), PATIENCE) == Number(2)
            assert listener.greeting == Hi(TOKEN)
            assert listener.peer.startswith("127.0.0.1:")

    asyncio.run(scene())


def test_a_thousand_requests_at_once_get_each_its_own_answer() -> None:
    async def scene() -> None:
        async with line() as here:
            turns: list[asyncio.Event] = [asyncio.Event() for _ in range(8)]

            async def reply(message: Spoken) -> Spoken:
                assert isinstance(message, Number)
                # Answers leave in another order than the requests came.
                turn = message.n % 8
                if message.n >= 1000 - 8:
                    turns[7 - turn].set()
                await turns[turn].wait()
                return Number(message.n * 2)

            here.ear.reply = reply
            caller = await here.call()
            limits_of_work = [t.set for t in turns]
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(caller.request(Number(n), PATIENCE)) for n in range(1000)
                ]
                await here.ear.until(lambda: bool(here.ear.connections))
                for let in limits_of_work:
                    let()
            assert [task.result() for task in asked] == [Number(n * 2) for n in range(1000)]

    asyncio.run(scene())


def test_one_request_too_many_is_refused_at_once_and_the_others_go_on() -> None:
    async def scene() -> None:
        async with line() as here:
            gate = asyncio.Event()

            async def reply(message: Spoken) -> Spoken:
                await gate.wait()
                return message

            here.ear.reply = reply
            caller = await here.call(limits=Limits(requests=3))
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(caller.request(Number(n), PATIENCE)) for n in range(3)]
                await here.ear.until(lambda: bool(here.ear.connections))
                with pytest.raises(Overloaded, match="3 requests"):
                    await caller.request(Number(3), PATIENCE)
                gate.set()
            assert [task.result() for task in asked] == [Number(n) for n in range(3)]
            assert await caller.request(Number(4), PATIENCE) == Number(4)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (UsageError("senseless"), UsageError),
        (Refused("not now"), Refused),
        (NotFound("no such run"), NotFound),
        (ServerUnreachable("nobody there"), ServerUnreachable),
        (Overloaded("later"), Refused),
        (ProtocolError("you may not ask that"), RemoteError),
    ],
)
def test_a_handlers_own_error_is_told_to_the_asker(
    raised: GrampusError, told: type[GrampusError], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with line() as here:

            async def reply(message: Spoken) -> Spoken:
                raise raised

            here.ear.reply = reply
            caller = await here.call()
            with pytest.raises(told) as caught:
                await caller.request(Number(1), PATIENCE)
            assert type(caught.value) is told
            assert str(caught.value) == str(raised)
            assert caught.value.exit_code == raised.exit_code
            assert not caller.closed

    asyncio.run(scene())
    assert not said(caplog)


def test_a_handlers_bug_is_logged_with_its_traceback_and_told_as_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with line() as here:

            async def reply(message: Spoken) -> Spoken:
                if message == Number(1):
                    raise KeyError("a secret of the server")
                return message

            here.ear.reply = reply
            caller = await here.call()
            with pytest.raises(RemoteError) as caught:
                await caller.request(Number(1), PATIENCE)
            assert str(caught.value) == "internal error"
            assert await caller.request(Number(2), PATIENCE) == Number(2)

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.exc_info
    assert record.exc_info[0] is KeyError


def test_answers_that_cannot_be_encoded_or_are_too_long_are_errors_of_that_request_only() -> None:
    async def scene() -> None:
        async with line() as here:

            async def reply(message: Spoken) -> Spoken:
                if message == Number(1):
                    return object()  # type: ignore[return-value]
                if message == Number(2):
                    return Bytes(bytes(FRAME_LIMIT))
                raise Refused("\udcff" + "é" * 1_000_000)

            here.ear.reply = reply
            caller = await here.call()
            with pytest.raises(RemoteError, match="internal error"):
                await caller.request(Number(1), PATIENCE)
            with pytest.raises(RemoteError, match="at most 1048576"):
                await caller.request(Number(2), PATIENCE)
            with pytest.raises(Refused, match=r"^\?é{4000,}$"):
                await caller.request(Number(3), PATIENCE)
            assert not caller.closed

    asyncio.run(scene())


def test_a_message_that_is_too_long_is_refused_before_it_is_sent() -> None:
    async def scene() -> None:
        async with line() as here:
            caller = await here.call()
            with pytest.raises(ProtocolError, match="at most 1048576"):
                caller.send(Bytes(bytes(FRAME_LIMIT)))
            with pytest.raises(ProtocolError, match="at most 1048576"):
                await caller.request(Bytes(bytes(FRAME_LIMIT)), PATIENCE)
            largest = Bytes(bytes(FRAME_LIMIT - 32))
            assert await caller.request(largest, PATIENCE) == largest

    asyncio.run(scene())


def test_a_request_times_out_and_its_late_answer_is_ignored() -> None:
    async def scene() -> None:
        async with line() as here:
            gate = asyncio.Event()

            async def reply(message: Spoken) -> Spoken:
                if message == Number(1):
                    await gate.wait()
                return message

            here.ear.reply = reply
            caller = await here.call()
            with pytest.raises(RequestTimedOut, match=r"did not answer within 0\.01 s"):
                await caller.request(Number(1), 0.01)
            with pytest.raises(TimeoutError):
                await caller.request(Number(1), 0.01)
            gate.set()
            # These answers come after the late ones, on the same connection.
            assert await caller.request(Number(2), PATIENCE) == Number(2)
            assert await caller.request(Number(3), PATIENCE) == Number(3)
            assert not caller.closed

    asyncio.run(scene())


def test_an_answer_to_a_request_never_made_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with line() as here:
            reader, writer = await here.raw_friend()
            writer.write(frame(CODEC.encode(Response(5, Number(1)))))
            assert await hung_up(reader) == b""
            writer.close()

    asyncio.run(scene())
    [record] = said(caplog)
    assert "an answer to request 5, which was never made" in record.getMessage()


def test_a_cancelled_request_frees_its_place() -> None:
    async def scene() -> None:
        async with line() as here:
            gate = asyncio.Event()

            async def reply(message: Spoken) -> Spoken:
                if message == Number(1):
                    await gate.wait()
                return message

            here.ear.reply = reply
            caller = await here.call(limits=Limits(requests=1))
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(caller.request(Number(1), PATIENCE))
                await here.ear.until(lambda: bool(here.ear.connections))
                asked.cancel()
            assert await caller.request(Number(2), PATIENCE) == Number(2)
            gate.set()
            assert await caller.request(Number(3), PATIENCE) == Number(3)

    asyncio.run(scene())


def test_a_peer_that_closes_in_the_middle_of_a_request_fails_it_and_cancels_the_work() -> None:
    async def scene() -> None:
        async with line() as here:
            cancelled = asyncio.Event()

            async def reply(message: Spoken) -> Spoken:
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()
                raise AssertionError

            here.ear.reply = reply
            ear = Ear()
            caller = await here.call(ear)
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(_lost(caller))
                await here.ear.until(lambda: bool(here.ear.connections))
                caller.close("enough")
                assert "enough" in await asked
            async with asyncio.timeout(PATIENCE):
                await cancelled.wait()
                assert await caller.wait_closed() == "enough"
            await here.ear.until(lambda: here.ear.ends == ["closed by the other side"])
            assert ear.ends == ["enough"]
            with pytest.raises(ConnectionLost, match="enough"):
                await caller.request(Number(1), PATIENCE)
            with pytest.raises(ConnectionLost, match="enough"):
                await caller.drain()
            caller.send(Number(1))
            assert here.server.connections == []

    asyncio.run(scene())


async def _lost(caller: Connection[Spoken]) -> str:
    with pytest.raises(ConnectionLost) as caught:
        await caller.request(Number(1), PATIENCE)
    return str(caught.value)


def test_a_peer_killed_in_the_middle_of_a_frame_is_noticed_and_nothing_of_it_is_delivered() -> None:
    async def scene() -> None:
        async with line() as here:
            _, writer = await here.raw_friend()
            writer.write(spoken(Number(1)) + spoken(Number(2))[:-1])
            writer.close()
            await here.ear.until(lambda: bool(here.ear.ends))
            assert here.ear.ends == ["closed by the other side in the middle of a frame"]
            assert here.ear.heard == [Number(1)]

    asyncio.run(scene())


def test_what_was_sent_before_a_close_still_arrives() -> None:
    async def scene() -> None:
        async with line() as here:
            caller = await here.call()
            for n in range(100):
                caller.send(Number(n))
            caller.close("done")
            await here.ear.until(lambda: bool(here.ear.ends))
            assert here.ear.heard == [Number(n) for n in range(100)]

    asyncio.run(scene())


def test_a_handler_may_close_the_connection_from_inside_a_batch_or_a_request() -> None:
    async def scene() -> None:
        async with line() as here:

            async def reply(message: Spoken) -> Spoken:
                [listener] = here.server.connections
                listener.send(Number(99))
                listener.close("one question too many")
                return message

            here.ear.reply = reply
            ear = Ear()
            caller = await here.call(ear)
            assert "closed by the other side" in await _lost(caller)
            assert ear.heard == [Number(99)]
            await here.ear.until(lambda: here.ear.ends == ["one question too many"])

    asyncio.run(scene())


def test_a_bug_in_a_batch_is_logged_once_and_ends_that_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Clumsy(Ear):
        def messages(self, connection: Connection[Spoken], batch: list[Spoken]) -> None:
            if Number(13) in batch:
                raise ZeroDivisionError
            super().messages(connection, batch)

    async def scene() -> None:
        async with line() as here:
            clumsy = Clumsy()
            await here.call(clumsy)
            first = here.server.connections[0]
            await here.call(ear := Ear())
            second = here.server.connections[1]
            first.send(Number(13))
            await clumsy.until(lambda: clumsy.ends == ["internal error"])
            second.send(Number(1))
            await ear.until(lambda: ear.heard == [Number(1)])

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_a_handler_refuses_a_message_with_a_protocol_error_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Strict(Ear):
        def messages(self, connection: Connection[Spoken], batch: list[Spoken]) -> None:
            raise ProtocolError("a number before its name")

    async def scene() -> None:
        async with line() as here:
            strict = Strict()
            await here.call(strict)
            here.server.connections[0].send(Number(1))
            await strict.until(lambda: strict.ends == ["a number before its name"])

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("closed: a number before its name")


def test_a_peer_in_another_language_needs_no_more_than_sockets_and_msgpack() -> None:
    async def scene() -> None:
        async with line() as here:
            reader, writer = await here.raw_friend()
            writer.write(frame(CODEC.encode(Request(77, Number(5)))))
            assert await heard(reader) == Response(77, Number(5))

            async def reply(message: Spoken) -> Spoken:
                raise NotFound("no number")

            here.ear.reply = reply
            writer.write(frame(CODEC.encode(Request(78, Number(5)))))
            answer = await heard(reader)
            assert isinstance(answer, Failure)
            assert (answer.id, answer.body.exit_code, answer.body.text) == (78, 6, "no number")
            writer.close()

    asyncio.run(scene())


def test_requests_that_come_when_the_owner_is_closing_end_the_connection_without_a_trace() -> None:
    async def scene() -> None:
        async with line() as here:
            caller_end = None
            async with asyncio.TaskGroup() as short_lived:
                here.tasks, kept = short_lived, here.tasks
                ear = Ear()
                caller_end = await here.call(ear)
                here.tasks = kept
            [listener] = here.server.connections
            with pytest.raises(ConnectionLost):
                await listener.request(Number(1), PATIENCE)
            assert await caller_end.wait_closed() == "this side is closing"

    asyncio.run(scene())
    gc.collect()
