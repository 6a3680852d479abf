"""Strangers who only connect: they are few, and for a short time, and the server goes on."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from api_node import Node, play_live

from grampus.api import connections, server
from grampus.descriptors import share, take_all


@contextmanager
def connected(url: httpx.URL, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(socket.create_connection((url.host, url.port)))
            for _ in range(count)
        ]
        for each in made:
            each.setblocking(False)
        yield made


async def ended(stranger: socket.socket) -> float:
    """When the other side has closed it, on the clock of the loop."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10):
            assert await loop.sock_recv(stranger, 1) == b""
    except ConnectionResetError:
        pass
    return loop.time()


def test_connections_beyond_the_bound_are_closed_at_once_and_make_room_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 8)
    monkeypatch.setattr(connections, "HEAD", 1.0)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        begun = asyncio.get_running_loop().time()
        with connected(client.base_url, 20) as strangers:
            ends = sorted([end - begun for end in await asyncio.gather(*map(ended, strangers))])
            # Those that hold the places are sent away when they have said nothing for too long.
            assert ends[11] < connections.HEAD <= ends[12]
            assert (await client.get("/healthz")).status_code == 200

    play_live(tmp_path, scenario)


def test_one_network_leaves_places_for_others() -> None:
    with connections.Listener() as listener, ExitStack() as stack:
        listener.most, listener.most_of_one = 6, 4
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)

        def come(host: str) -> tuple[socket.socket, socket.socket | None]:
            """Both ends; None where it was turned away."""
            caller = stack.enter_context(
                socket.create_connection(listener.getsockname(), source_address=(host, 0))
            )
            try:
                return caller, stack.enter_context(listener.accept()[0])
            except ConnectionAbortedError:
                return caller, None

        first = [come("127.0.0.1")[1] for _ in range(7)]
        assert [each is not None for each in first] == [True] * 4 + [False] * 3
        others = [come("127.0.0.2")[1] for _ in range(3)]
        assert [each is not None for each in others] == [True, True, False]
        assert first[0] is not None
        first[0].close()
        assert come("127.0.0.1")[1] is not None
        assert come("127.0.0.2")[1] is None


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_who_does_not_finish_the_head_of_a_request_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.3)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        with connected(client.base_url, 1) as [stranger]:
            with suppress(ConnectionError):  # Who is slow is sent away before.
                for byte in said:
                    await asyncio.get_running_loop().sock_sendall(stranger, bytes([byte]))
                    await asyncio.sleep(0.002)
            await ended(stranger)

    play_live(tmp_path, scenario)


def test_who_has_asked_may_wait_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.2)

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/api/v1/kv", params={"watch": "true"}) as answer:
            lines = answer.aiter_lines()
            assert "told up to" in await anext(lines)
            await asyncio.sleep(0.6)
            await client.put("/api/v1/kv/a", content=b"1")
            async for line in lines:
                if line.startswith("event: change"):
                    return
        pytest.fail("the watch was closed")

    play_live(tmp_path, scenario)


def test_a_listener_takes_a_part_of_what_the_process_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        assert (share(1024), share(100)) == (256, 100)
        take_all()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1024 or hard == 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
