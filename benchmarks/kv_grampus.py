"""Grampus as a store of `kv_port`: servers by its own commands, and its own client.

An endpoint is `FOLDER@HOST:PORT`: where the cluster knows a worker of that name from, which is who
the client says it is, and the API of the server, whose node port is the next one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.kv_port import Processes
from grampus.clock import SystemClock
from grampus.cluster.client import ClusterClient
from grampus.cluster.commands import Compare, PutOp
from grampus.cluster.credentials import read_credentials
from grampus.cluster.desk import KEYS
from grampus.cluster.join_token import parse
from grampus.cluster.joining import Newcomer, join
from grampus.protocol import PROTOCOL_VERSION, Hello
from grampus.rpc.subject import WORKER

NAME = "bench"
WHOLE_WITHIN = 60.0
#: Below the range of ephemeral ports, on Linux as it comes.
PORTS = 20_000, 32_000


class Store:
    """Clients that begin with one server each, in turn."""

    def __init__(self, endpoints: list[str], connections: int, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        folder, addresses = "", []
        for endpoint in endpoints:
            folder, _, address = endpoint.rpartition("@")
            host, _, port = address.partition(":")
            addresses.append((host, int(port) + 1))
        secret = read_credentials(Path(folder)).worker
        hello = Hello(PROTOCOL_VERSION, KEYS, WORKER, NAME, "", secret)
        self._clients = [
            ClusterClient(
                addresses[n % len(addresses) :] + addresses[: n % len(addresses)],
                lambda: hello, SystemClock(), os.urandom, tasks,
            )
            for n in range(connections)
        ]  # fmt: skip
        self._turn = cycle(self._clients)

    async def put(self, key: bytes, value: bytes, within: float = 10.0) -> int:
        return (await next(self._turn).put(key, value, within=within)).revision

    async def get(self, key: bytes, linearizable: bool) -> bytes | None:
        got = await next(self._turn).get(key, stale=not linearizable)
        return None if got.item is None else got.item.value

    async def cas(self, key: bytes, revision: int, value: bytes) -> int | None:
        compare = (Compare(key, "modified", "=", revision),)
        done = await next(self._turn).txn(compare, (PutOp(key, value),))
        return done.revision if done.succeeded else None

    async def watch(self, key: bytes, first: int) -> AsyncIterator[bytes | None]:
        yield None
        async for piece in next(self._turn).watch(key, first):
            for fact in piece.facts:
                for change in fact.changes:
                    yield change.value

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        await self._tasks.__aexit__(None, None, None)


async def open(endpoints: list[str], connections: int) -> Store:
    tasks = await asyncio.TaskGroup().__aenter__()
    return Store(endpoints, connections, tasks)


def missing() -> str:
    return ""


class Cluster:
    def __init__(self, folder: Path, servers: int) -> None:
        self.processes = Processes(folder)
        self._addresses = [f"127.0.0.1:{port}" for port in port_pairs(servers)]

    @property
    def endpoints(self) -> list[str]:
        return [f"{self.processes.folder}/{NAME}@{address}" for address in self._addresses]

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
        self._admit_client()

    def _admit_client(self) -> None:
        folder = self.processes.folder / NAME
        folder.mkdir()
        token = parse(self._command("cluster", "token", "--role", WORKER).strip())
        host, _, port = self._addresses[0].partition(":")
        newcomer = Newcomer(folder, WORKER, NAME)
        asyncio.run(join([(host, int(port) + 1)], token, newcomer, os.urandom(32)))

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
        token = (self.processes.folder / "0" / "token").read_text().strip()
        for address in self._addresses:
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
    """Free ports whose successors are free too: a node listens on both. Not of those that the
    kernel gives to connections: a server that starts again must find its own."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(*PORTS, 2)
        if _is_free(port) and _is_free(port + 1):
            found.add(port)
    return sorted(found)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
