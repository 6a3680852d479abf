"""Grampus as a store of `kv_port`: servers by its own commands, and a client over its HTTP API that
does no more than it must: a library for HTTP would cost more than the server.

An endpoint is `TOKEN@HOST:PORT`. A call has a connection for itself; connections are kept.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.kv_port import Processes, free_ports

WHOLE_WITHIN = 60.0


class Line:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body; `head` is everything before the length."""
        self._writer.write(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
        status, headers = await self._answer()
        length = headers.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        return status, await self._reader.readexactly(int(length))

    async def begin(self, head: bytes) -> None:
        """Of a request whose answer does not end: `lines` has it."""
        self._writer.write(head + b"\r\n")
        status, headers = await self._answer()
        if status != 200:
            raise RuntimeError(headers.decode())

    async def _answer(self) -> tuple[int, bytes]:
        headers = await self._reader.readuntil(b"\r\n\r\n")
        return int(headers.split(b" ", 2)[1]), headers

    async def lines(self) -> AsyncIterator[bytes]:
        """Of a body that does not end."""
        while line := await self._reader.readline():
            yield line

    def close(self) -> None:
        self._writer.close()


class Server:
    """Its connections that are free."""

    def __init__(self, endpoint: str) -> None:
        token, _, address = endpoint.partition("@")
        self.host, _, self.port = address.partition(":")
        self.common = f"Host: {address}\r\nAuthorization: Bearer {token}\r\n"
        self.free: list[Line] = []

    async def line(self) -> Line:
        if self.free:
            return self.free.pop()
        return Line(*await asyncio.open_connection(self.host, int(self.port)))

    def head(self, method: str, path: str, more: str = "") -> bytes:
        return f"{method} /api/v1/kv{path} HTTP/1.1\r\n{self.common}{more}".encode()


class Store:
    def __init__(self, endpoints: list[str]) -> None:
        self._servers = [Server(endpoint) for endpoint in endpoints]
        self._turn = cycle(self._servers)

    async def _ask(
        self, method: str, path: str, more: str, body: bytes, within: float = 10.0
    ) -> tuple[int, bytes]:
        server = next(self._turn)
        async with asyncio.timeout(within):
            line = await server.line()
            try:
                answer = await line.ask(server.head(method, path, more), body)
            except BaseException:
                line.close()
                raise
        server.free.append(line)
        if answer[0] not in (200, 201, 412):
            raise RuntimeError(answer[1].decode())
        return answer

    async def put(self, key: bytes, value: bytes, within: float = 10.0) -> int:
        _, body = await self._ask("PUT", _path(key), "", value, within)
        return int(json.loads(body)["revision"])

    async def get(self, key: bytes, linearizable: bool) -> bytes | None:
        path = _path(key) if linearizable else f"{_path(key)}?stale=true"
        _, body = await self._ask("GET", path, "Accept: application/octet-stream\r\n", b"")
        return body

    async def cas(self, key: bytes, revision: int, value: bytes) -> int | None:
        more = f'If-Match: "{revision}"\r\n'
        status, body = await self._ask("PUT", _path(key), more, value)
        return None if status == 412 else int(json.loads(body)["revision"])

    async def watch(self, key: bytes, first: int) -> AsyncIterator[bytes | None]:
        server = next(self._turn)
        line = await server.line()
        path = f"?watch=true&from={first}&prefix={quote(key, safe='')}"
        await line.begin(server.head("GET", path))
        yield None
        async for text in line.lines():
            if text.startswith(b"data:"):
                for change in json.loads(text[5:])["changes"]:
                    yield base64.b64decode(change.get("value") or "")

    async def close(self) -> None:
        for server in self._servers:
            for line in server.free:
                line.close()


def _path(key: bytes) -> str:
    return "/" + quote(key, safe="")


async def open(endpoints: list[str], connections: int) -> Store:
    return Store(endpoints)


def missing() -> str:
    return ""


class Cluster:
    def __init__(self, folder: Path, servers: int) -> None:
        self.processes = Processes(folder)
        self._addresses = [f"127.0.0.1:{port}" for port in port_pairs(servers)]

    @property
    def endpoints(self) -> list[str]:
        token = (self.processes.folder / "0" / "token").read_text().strip()
        return [f"{token}@{address}" for address in self._addresses]

    def found(self) -> None:
        self.restart(0, "--init")
        self.processes.wait_for(0, "ready http")
        for n in range(1, len(self._addresses)):
            token = self.processes.folder / f"{n}.join"
            token.write_text(self._command("cluster", "token"))
            self.restart(n, "--join", self._addresses[0], "--token-file", str(token))
            self.processes.wait_for(n, "ready http")
        until = time.monotonic() + WHOLE_WITHIN
        while sum(m["role"] == "voter" for m in self._status()["members"]) < len(self._addresses):
            if time.monotonic() > until:
                raise SystemExit(f"the cluster does not become whole\n{self.processes.said()}")
            time.sleep(0.05)

    def start(self) -> None:
        for n in range(len(self._addresses)):
            self.restart(n)

    def restart(self, number: int, *more: str) -> None:
        folder = self.processes.folder
        self.processes.start(
            number,
            [sys.executable, "-m", "grampus.cli.main", "server", "start",
             "--data", f"{folder}/{number}", "--listen", self._addresses[number],
             "--name", f"n{number}", *more],
            {"XDG_STATE_HOME": f"{folder}/state"},
        )  # fmt: skip

    def leader(self) -> int:
        until = time.monotonic() + WHOLE_WITHIN
        while time.monotonic() < until:
            leader = self._status()["leader"]
            if leader:
                return int(leader[1:])
            time.sleep(0.05)
        raise SystemExit(f"Grampus has no leader\n{self.processes.said()}")

    def _status(self) -> dict[str, Any]:
        """As the first server sees it that answers."""
        for endpoint in self.endpoints:
            token, _, address = endpoint.partition("@")
            request = urllib.request.Request(
                f"http://{address}/api/v1/cluster", headers={"Authorization": f"Bearer {token}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=2) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except OSError:
                continue
        return {"leader": None, "members": []}

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "grampus.cli.main", *words,
             "--server", f"http://{self._addresses[0]}",
             "--token-file", f"{self.processes.folder}/0/token"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True, timeout=30,
        )  # fmt: skip
        return done.stdout


def cluster(folder: Path, servers: int) -> Cluster:
    return Cluster(folder, servers)


def port_pairs(count: int) -> list[int]:
    """Free ports whose successors are free too: a node listens on both."""
    found: list[int] = []
    while len(found) < count:
        (port,) = free_ports(1)
        if port < 65_000 and not {port - 1, port, port + 1} & set(found) and _is_free(port + 1):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
