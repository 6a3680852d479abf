"""The door: who gets in, what a stranger can do, and what is said about it."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from rpc_peers import (
    CODEC,
    FRAME_LIMIT,
    PATIENCE,
    TOKEN,
    Come,
    Ear,
    Go,
    Hi,
    Line,
    Number,
    Spoken,
    greet,
    heard,
    hung_up,
    line,
    said,
    someone_else,
    spoken,
)
from tls_nodes import Nodes

from grampus.errors import ProtocolError, Refused, ServerUnreachable, UsageError
from grampus.rpc.calls import ConnectionLost
from grampus.rpc.client import connect
from grampus.rpc.codec import Failure, OneWay, Reason, Request, Response
from grampus.rpc.connection import Connection, Limits
from grampus.rpc.frames import frame
from grampus.rpc.server import CannotListen, Server
from grampus.rpc.subject import Subject
from grampus.rpc.tls import NodeTls
from tests.ports import free_port

pytestmark = pytest.mark.timeout(60)

BAD_FIRST_WORDS = {
    "a wrong token": (spoken(Hi("wrong-horse")), "refused: wrong token"),
    "a frame of 2 GiB": (b"\x80\x00\x00\x00" + b"x" * 5000, "a frame of 2147483648 bytes"),
    "a Hello over the limit": (spoken(Hi("x" * 1024)), "where at most 1024 may come"),
    "another protocol": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "a frame of 1195725856 bytes"),
    "garbage in a frame": (frame(b"\xc1\xff\x00garbage"), "bytes that are no message"),
    "an empty frame": (frame(b""), "bytes that are no message"),
    "a request first": (frame(CODEC.encode(Request(1, Hi(TOKEN)))), "not a one-way message"),
    "something else first": (spoken(Number(1)), "refused: wrong token"),
    "more before the answer": (
        spoken(Hi(TOKEN)) + spoken(Number(1)),
        "it went on before its Hello was answered",
    ),
}


@pytest.mark.parametrize("fault", BAD_FIRST_WORDS)
def test_a_bad_stranger_is_closed_with_one_line_and_disturbs_nobody(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    words, reason = BAD_FIRST_WORDS[fault]
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with line() as here:
            friend = await here.call()
            reader, writer = await here.stranger()
            name = writer.get_extra_info("sockname")
            writer.write(words)
            await hung_up(reader)
            [record] = said(caplog)
            assert record.levelno == logging.WARNING
            assert record.name == "grampus.rpc"
            assert record.getMessage().startswith(f"connection to 127.0.0.1:{name[1]} closed: ")
            assert reason in record.getMessage()
            assert "horse" not in record.getMessage()
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            assert len(here.server.connections) == 1
            assert here.ear.ends == []
            writer.close()

    asyncio.run(scene())
    assert len(said(caplog)) == 1


@pytest.mark.parametrize("words", [b"", b"\x00\x00", spoken(Hi(TOKEN))[:-1]])
def test_a_stranger_who_stalls_is_closed_after_the_hello_timeout(
    words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with line(hello_timeout=0.05) as here:
            friend = await here.call()
            reader, writer = await here.stranger()
            writer.write(words)
            assert await hung_up(reader) == b""
            # The friend has been quiet for longer than that, and stays.
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            writer.close()

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.getMessage().endswith("closed: no Hello within 0.05 s")


def test_a_stranger_who_leaves_again_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with line(most_strangers=1) as here:
            reader, writer = await here.stranger()
            writer.write_eof()
            assert await hung_up(reader) == b""
            writer.close()
            # His place is free again.
            await here.call()

    asyncio.run(scene())
    assert said(caplog) == []


def test_a_refused_client_is_told_why() -> None:
    async def scene() -> None:
        async with line() as here:
            ear = Ear()
            with pytest.raises(Refused, match=r"^wrong token$"):
                await here.call(ear, token="wrong")
            assert (ear.heard, ear.ends) == ([], [])
            reader, writer = await here.stranger()
            writer.write(spoken(Hi("wrong")))
            assert await heard(reader) == OneWay(0, Go("wrong token"))
            assert await hung_up(reader) == b""
            writer.close()

    asyncio.run(scene())


def test_a_hello_may_come_byte_by_byte() -> None:
    async def scene() -> None:
        async with line() as here:
            sock = socket.create_connection(("127.0.0.1", here.server.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader, writer = await asyncio.open_connection(sock=sock)
            for byte in spoken(Hi(TOKEN)):
                writer.write(bytes([byte]))
                await asyncio.sleep(0)  # a turn of the loop, so that the server may read
            assert await heard(reader) == OneWay(0, Come("ear"))
            writer.close()

    asyncio.run(scene())


def test_what_the_server_says_right_after_its_welcome_may_be_long_and_is_not_lost() -> None:
    def opened(connection: Connection[Spoken]) -> None:
        connection.send(Hi("x" * 100_000))
        connection.send(Number(1))

    async def scene() -> None:
        async with line(opened=opened) as here:
            ear = Ear()
            await here.call(ear)
            await ear.until(lambda: ear.heard == [Hi("x" * 100_000), Number(1)])

    asyncio.run(scene())


def test_for_one_stranger_too_many_the_first_goes_and_friends_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with line(most_strangers=2) as here:
            friend = await here.call()
            crowd = [await here.stranger() for _ in range(6)]
            for reader, _ in crowd[:4]:
                assert await hung_up(reader) == b""
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            # Whoever says at once who he is comes in, however many stand at the door.
            await here.call()
            reader, writer = crowd[-1]
            writer.write(spoken(Hi(TOKEN)))
            assert await heard(reader) == OneWay(0, Come("ear"))
            for _, w in crowd:
                w.close()

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.getMessage().endswith("closed: 2 others have not said Hello yet either")


def test_one_connection_too_many_is_turned_away_until_another_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with line(most=2) as here:
            first = await here.call()
            await here.call()
            with pytest.raises(ServerUnreachable, match="ended before the Hello was answered"):
                await here.call()
            first.close("leaving")
            await here.ear.until(lambda: len(here.ear.ends) == 1)
            await here.call()

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.getMessage().endswith("closed: there are 2 connections already")


def test_five_hundred_clients_that_call_at_once_are_all_greeted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with line() as here:
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(here.call()) for _ in range(500)]
            assert len(here.server.connections) == 500
            answers = [await call.result().request(Number(1), PATIENCE) for call in calls]
            assert answers == [Number(1)] * 500

    asyncio.run(scene())
    assert said(caplog) == []


def test_greet_that_fails_closes_that_connection_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def buggy(hello: Spoken, peer: str, subject: Subject | None) -> tuple[Spoken, bool, int]:
        if hello == Hi("bug"):
            raise ValueError("a bug")
        if hello == Hi("rule"):
            raise ProtocolError("version 9 is from the future")
        return greet(hello, peer, subject)

    async def scene() -> None:
        async with line(greet=buggy) as here:
            for token in ("bug", "rule"):
                with pytest.raises(ServerUnreachable):
                    await here.call(token=token)
            await here.call()

    asyncio.run(scene())
    bug, rule = said(caplog)
    assert bug.exc_info
    assert rule.getMessage().endswith("closed: version 9 is from the future")


def test_closing_the_server_ends_everyone_and_frees_the_port() -> None:
    async def scene() -> None:
        async with line() as here:
            ear = Ear()
            await here.call(ear)
            _, writer = await here.stranger()
            await here.server.close()
            assert here.server.connections == []
            assert here.ear.ends == ["the server stops"]
            await ear.until(lambda: ear.ends == ["closed by the other side"])
            with pytest.raises(ServerUnreachable):
                await here.call()
            writer.close()
            again = Server(CODEC, Ear(), greet, here.tasks)
            await again.start("127.0.0.1", here.server.port)
            await again.close()

    asyncio.run(scene())


def test_closing_the_server_in_the_middle_of_requests_cancels_them() -> None:
    async def scene() -> None:
        async with line() as here:

            async def reply(message: Spoken) -> Spoken:
                await asyncio.Event().wait()
                raise AssertionError

            here.ear.reply = reply
            caller = await here.call()
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(_unanswered(caller)) for _ in range(20)]
                await here.ear.until(lambda: bool(here.ear.connections))
                await here.server.close()
            assert all(task.result() for task in asked)

    asyncio.run(scene())


async def _unanswered(caller: Connection[Spoken]) -> bool:
    with pytest.raises(ServerUnreachable):
        await caller.request(Number(1), PATIENCE)
    return True


def test_a_port_in_use_is_one_line_that_says_where_and_what_to_do() -> None:
    async def scene() -> None:
        async with line() as here:
            second = Server(CODEC, Ear(), greet, here.tasks)
            with pytest.raises(CannotListen) as caught:
                await second.start("127.0.0.1", here.server.port)
            text = str(caught.value)
            assert f"127.0.0.1:{here.server.port}" in text
            assert "take another port" in text
            assert "\n" not in text
            assert caught.value.exit_code == 4
            await second.close()

    asyncio.run(scene())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "8.8.8.8"])
def test_nothing_is_said_where_other_machines_can_hear_it(host: str) -> None:
    async def scene() -> None:
        async with line() as here:
            server = Server(CODEC, Ear(), greet, here.tasks)
            with pytest.raises(UsageError, match="not encrypted"):
                await server.start(host, 0)
            with pytest.raises(UsageError, match="not encrypted"):
                await _call(here, host, 1)

    asyncio.run(scene())


def test_the_name_localhost_will_do_on_both_sides() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as tasks:
            server = Server(CODEC, Ear(), greet, tasks)
            await server.start("localhost", 0)
            connection = await _call(Line(tasks, server, Ear()), "localhost", server.port)
            assert await connection.request(Number(1), PATIENCE) == Number(1)
            await server.close()

    asyncio.run(scene())


async def _call(
    here: Line,
    host: str,
    port: int,
    timeout: float = PATIENCE,  # noqa: ASYNC109
    accept: Callable[[Spoken], int] = lambda answer: 1024,
) -> Connection[Spoken]:
    connection, _ = await connect(
        host, port, CODEC, Ear(), Hi(TOKEN), accept, timeout, tasks=here.tasks
    )
    return connection


def test_nobody_at_the_address_is_an_error_that_names_it() -> None:
    async def scene() -> None:
        async with line() as here:
            port = free_port()
            with pytest.raises(ServerUnreachable, match=f"127.0.0.1:{port}: .*refused"):
                await _call(here, "127.0.0.1", port)
            with pytest.raises(ServerUnreachable, match="no address"):
                await _call(here, "no-such-host.invalid", port)

    asyncio.run(scene())


def test_a_listener_that_never_answers_is_given_up_in_time_and_let_go() -> None:
    async def scene() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        # It ends only when both callers have hung up.
        async with line() as here, someone_else(mute, calls=2) as port:
            with pytest.raises(ServerUnreachable, match=f"{port}: nothing came within 0.05 s"):
                await _call(here, "127.0.0.1", port, timeout=0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await _call(here, "127.0.0.1", port)

    asyncio.run(scene())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(b"\xc1"), b"", b"\0"]
)
def test_a_listener_of_another_kind_is_an_error_that_names_it(answer: bytes) -> None:
    async def scene() -> None:
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(4)
            writer.write(answer)

        async with line() as here, someone_else(other, calls=1) as port:
            with pytest.raises(ServerUnreachable, match=f"no server answers at 127.0.0.1:{port}"):
                await _call(here, "127.0.0.1", port)

    asyncio.run(scene())


def test_an_accept_that_fails_ends_the_connection_and_its_error_comes_out() -> None:
    def accept(answer: Spoken) -> int:
        raise ZeroDivisionError

    async def scene() -> None:
        async with line() as here:
            with pytest.raises(ZeroDivisionError):
                await _call(here, "127.0.0.1", here.server.port, accept=accept)
            await here.ear.until(lambda: here.ear.ends == ["closed by the other side"])

    asyncio.run(scene())


def test_a_hello_that_is_too_long_is_an_error_of_the_caller_at_once() -> None:
    async def scene() -> None:
        async with line() as here:
            with pytest.raises(ProtocolError, match="at most 1024 may go"):
                await here.call(token="x" * 2000)

    asyncio.run(scene())


BAD_LATER_WORDS = {
    "a frame over the limit": (b"\xff\xff\xff\xff" + b"x" * 100_000, "4294967295 bytes"),
    "one byte over the limit": ((FRAME_LIMIT + 1).to_bytes(4, "big"), "where at most 1048576"),
    "garbage in a frame": (frame(b"\xc1"), "bytes that are no message"),
    "an unknown message": (frame(b"\x93\x00\x00\x91\xa3who"), "bytes that are no message"),
    "an unknown kind": (frame(b"\x93\x07\x00\x91\xa3who"), "bytes that are no message"),
    "an answer to nothing": (frame(CODEC.encode(Response(1, Number(1)))), "never made"),
    "an error to nothing": (frame(CODEC.encode(Failure(0, Reason(4, "no")))), "never made"),
    "good words and bad ones": (spoken(Number(1)) + frame(b""), "bytes that are no message"),
}


@pytest.mark.parametrize("fault", BAD_LATER_WORDS)
def test_a_friend_who_breaks_a_rule_is_closed_with_one_line_and_disturbs_nobody(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    words, reason = BAD_LATER_WORDS[fault]

    async def scene() -> None:
        async with line() as here:
            friend = await here.call()
            reader, writer = await here.raw_friend()
            writer.write(words)
            assert await hung_up(reader) == b""
            await here.ear.until(lambda: len(here.ear.ends) == 1)
            assert reason in here.ear.ends[0]
            assert here.ear.heard == []
            assert await friend.request(Number(1), PATIENCE) == Number(1)
            writer.close()

    asyncio.run(scene())
    [record] = said(caplog)
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("seed", range(5))
def test_in_a_storm_of_calls_and_hang_ups_every_request_ends_and_nothing_is_left_over(
    seed: int, encrypted: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    server = worker = None
    if encrypted:
        nodes = Nodes(tmp_path)
        server, worker = NodeTls(nodes.server()), NodeTls(nodes.worker())

    async def caller(here: Line) -> int:
        ear = Ear()
        connection = await here.call(ear)
        answered = 0
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(_answer_or_loss(connection, n))
                for n in range(chance.randrange(200))
            ]
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            for task in chance.sample(asked, len(asked) // 10):
                task.cancel()
            match chance.randrange(3):
                case 0:
                    connection.close("enough")
                case 1 if here.server.connections:
                    chance.choice(here.server.connections).close("enough of you")
        answered = sum(task.result() for task in asked if not task.cancelled())
        connection.close("done")
        await connection.wait_closed()
        assert len(ear.ends) == 1
        return answered

    async def scene() -> None:
        async with line(limits=Limits(work=16), tls=server, caller=worker) as here:

            async def reply(message: Spoken) -> Spoken:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                return message

            here.ear.reply = reply
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(caller(here)) for _ in range(30)]
            assert sum(call.result() for call in calls) > 100
            await here.ear.until(lambda: len(here.ear.ends) == 30)
            assert here.server.connections == []

    asyncio.run(scene())
    assert said(caplog) == []


async def _answer_or_loss(connection: Connection[Spoken], n: int) -> bool:
    try:
        assert await connection.request(Number(n), PATIENCE) == Number(n)
    except ConnectionLost:
        return False
    return True
