"""The listening side: addresses, ports in use, signals, half-open clients, stopping."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
from pathlib import Path

import httpx
import pytest
from api_node import PATIENCE, TOKEN, Node, a_node, play_live, shell

from grampus.api.server import ApiServer
from grampus.errors import Refused, UsageError


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    async def go() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            async with a_node(tmp_path) as node:
                server = ApiServer(node.app, "127.0.0.1", port)
                with pytest.raises(Refused) as caught:
                    await server.start()
                assert f"127.0.0.1:{port}" in str(caught.value)
                assert "--listen" in str(caught.value)
                assert "\n" not in str(caught.value)
                await server.stop()

    asyncio.run(go())


def test_an_address_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    async def go() -> None:
        async with a_node(tmp_path) as node:
            with pytest.raises(Refused, match="--listen"):
                await ApiServer(node.app, "192.0.2.1", 0).start()
            with pytest.raises(UsageError, match="no address"):
                await ApiServer(node.app, "no such host!", 0).start()

    asyncio.run(go())


def test_signals_stay_with_whoever_had_them(tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    during: list[object] = []

    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200
        during.extend(signal.getsignal(s) for s in (signal.SIGTERM,))

    play_live(tmp_path, scenario)
    assert during == before[1:]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_stopping_frees_the_port_and_says_nothing_of_itself(tmp_path: Path) -> None:
    async def go() -> None:
        async with a_node(tmp_path) as node:
            port = 0
            for _ in range(2):
                async with asyncio.TaskGroup() as tasks:
                    server = ApiServer(node.app, "127.0.0.1", port)
                    await server.start()
                    port = server.port
                    tasks.create_task(server.run())
                    async with httpx.AsyncClient(base_url=server.url) as client:
                        answer = await client.get("/healthz")
                    assert "server" not in answer.headers
                    await asyncio.wait_for(server.stop(), PATIENCE)
                await server.stop()

    asyncio.run(go())


def test_a_server_that_is_stopped_before_it_runs_does_not_run(tmp_path: Path) -> None:
    async def go() -> None:
        async with a_node(tmp_path) as node:
            server = ApiServer(node.app, "127.0.0.1", 0)
            await server.start()
            await asyncio.wait_for(server.stop(), PATIENCE)
            await asyncio.wait_for(server.run(), PATIENCE)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", server.port)

    asyncio.run(go())


def test_a_cancelled_server_closes_its_port_and_its_requests(tmp_path: Path) -> None:
    async def go() -> None:
        async with a_node(tmp_path) as node:
            await node.apply(shell("w"))
            run = await node.start("w")
            server = ApiServer(node.app, "127.0.0.1", 0)
            await server.start()
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(server.run())
                async with httpx.AsyncClient(base_url=server.url, headers=node.client.headers) as c:
                    async with c.stream("GET", f"/api/v1/runs/{run}/events") as answer:
                        assert answer.status_code == 200
                        serving.cancel()
                        with pytest.raises(httpx.RemoteProtocolError):
                            async for _ in answer.aiter_raw():
                                pass
            assert node.wakes.streams == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", server.port)

    asyncio.run(go())


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        hash = hashlib.sha256(b"whole").hexdigest()
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(
            f"PUT /api/v1/bundles/{hash} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: 4000000\r\n\r\n".encode()
        )
        writer.write(b"x" * 3_000_000)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.head(f"/api/v1/bundles/{hash}")).status_code == 404
        assert [p for p in (node.folder / "blobs").rglob("*") if p.is_file()] == []

    play_live(tmp_path, scenario)


def test_a_large_bundle_and_a_large_result_go_through_a_real_socket(tmp_path: Path) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        data = bytes(range(256)) * (16 << 12)
        hash = hashlib.sha256(data).hexdigest()
        assert (await client.put(f"/api/v1/bundles/{hash}", content=data)).status_code == 204
        assert node.blobs.size(hash) == len(data) == 16 << 20
        over = await client.put(f"/api/v1/bundles/{hash}", content=data + b"x")
        assert over.status_code == 413

    play_live(tmp_path, scenario)


@pytest.mark.parametrize(
    "raw",
    [b"garbage\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
     b"GET /" + b"x" * 200_000, b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)  # fmt: skip
def test_garbage_ends_its_connection_only(tmp_path: Path, raw: bytes) -> None:
    async def scenario(node: Node, client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(raw)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or answer.split(b" ")[1][:1] == b"4"
        writer.close()
        assert (await client.get("/api/v1/runs")).status_code == 200

    play_live(tmp_path, scenario)
