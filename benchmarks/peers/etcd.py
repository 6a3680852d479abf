"""etcd, as it is found on PATH: its servers, and a client over gRPC with the few messages that are
needed written out by hand (https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/), so that the
client costs as little as a Python one can.

Unlike the other peers it is a store of `kv_port`, measured by `python -m benchmarks kv`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.kv_port import Processes, free_ports

#: A client that lost its server looks again at once, as that of Grampus does.
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
)
LEADER_WITHIN = 30.0


# -- the messages: (field number << 3 | wire type), then a varint, or a length and bytes ----


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def data(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field, integer or bytes) of a message that has only these two kinds."""
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(message):
        tag = read()
        value = read()
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            yield tag >> 3, value


def one(message: bytes, *path: int) -> Any:
    """The first value at a path of field numbers, or None."""
    found: Any = message
    for field in path:
        found = next((value for name, value in fields(found) if name == field), None)
        if found is None:
            return None
    return found


#: In every answer: header (1) with member (2) and revision (3).
HEADER, MEMBER, REVISION = 1, 2, 3


def put_request(key: bytes, value: bytes) -> bytes:
    return data(1, key) + data(2, value)


def range_request(key: bytes, linearizable: bool) -> bytes:
    return data(1, key) + (b"" if linearizable else number(7, 1))


def cas_request(key: bytes, revision: int, value: bytes) -> bytes:
    """Compare: target MOD (2 = 2), key (3), mod_revision (6); then: request_put (2)."""
    compare = number(2, 2) + data(3, key) + number(6, revision)
    return data(1, compare) + data(2, data(2, put_request(key, value)))


def watch_request(key: bytes, first: int) -> bytes:
    """create_request (1): key (1), start_revision (3)"""
    return data(1, data(1, key) + number(3, first))


class Store:
    def __init__(self, endpoints: list[str], connections: int) -> None:
        import grpc.aio

        targets = [endpoints[n % len(endpoints)] for n in range(max(connections, len(endpoints)))]
        self._channels = [grpc.aio.insecure_channel(target, OPTIONS) for target in targets]
        names = ("KV/Put", "KV/Range", "KV/Txn", "Maintenance/Status")
        self._calls = {
            name: cycle([c.unary_unary(f"/etcdserverpb.{name}") for c in self._channels])
            for name in names
        }
        self._watches = cycle(
            [c.stream_stream("/etcdserverpb.Watch/Watch") for c in self._channels]
        )

    async def _call(self, name: str, request: bytes, within: float = 10.0) -> bytes:
        answer: bytes = await next(self._calls[name])(request, timeout=within)
        return answer

    async def put(self, key: bytes, value: bytes, within: float = 10.0) -> int:
        answer = await self._call("KV/Put", put_request(key, value), within)
        return int(one(answer, HEADER, REVISION))

    async def get(self, key: bytes, linearizable: bool) -> bytes | None:
        answer = await self._call("KV/Range", range_request(key, linearizable))
        found: bytes | None = one(answer, 2, 5)
        return found

    async def cas(self, key: bytes, revision: int, value: bytes) -> int | None:
        answer = await self._call("KV/Txn", cas_request(key, revision, value))
        return int(one(answer, HEADER, REVISION)) if one(answer, 2) else None

    async def watch(self, key: bytes, first: int) -> AsyncIterator[bytes | None]:
        call = next(self._watches)()
        await call.write(watch_request(key, first))
        async for answer in call:
            if one(answer, 3):  # created
                yield None
            for name, event in fields(answer):
                if name == 11:
                    yield one(event, 2, 5) or b""

    async def leader(self) -> tuple[int, int]:
        """(member that answers, member that leads or 0)"""
        answer = await self._call("Maintenance/Status", b"", 1.0)
        return one(answer, HEADER, MEMBER), one(answer, 4) or 0

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close(None)


async def open(endpoints: list[str], connections: int) -> Store:
    return Store(endpoints, connections)


def missing() -> str:
    if shutil.which("etcd") is None:
        return "etcd is not on PATH (Debian and Ubuntu: apt install etcd-server)"
    if importlib.util.find_spec("grpc") is None:
        return "its client needs grpcio (pip install 'grampus[bench]')"
    return ""


class Cluster:
    def __init__(self, folder: Path, servers: int) -> None:
        self.processes = Processes(folder)
        ports = free_ports(2 * servers)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:servers]]
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[servers:]]

    def found(self) -> None:
        self.start()
        self.leader()

    def start(self) -> None:
        for n in range(len(self.endpoints)):
            self.restart(n)

    def restart(self, number: int) -> None:
        clients, peer = f"http://{self.endpoints[number]}", self._peers[number]
        self.processes.start(
            number,
            ["etcd", "--name", f"n{number}", "--data-dir", f"{self.processes.folder}/{number}",
             "--listen-client-urls", clients, "--advertise-client-urls", clients,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", ",".join(f"n{n}={url}" for n, url in enumerate(self._peers)),
             "--initial-cluster-state", "new", "--logger", "zap", "--log-level", "error"],
        )  # fmt: skip

    def leader(self) -> int:
        return asyncio.run(self._leader())

    async def _leader(self) -> int:
        until = time.monotonic() + LEADER_WITHIN
        while time.monotonic() < until:
            for n, endpoint in enumerate(self.endpoints):
                there = await open([endpoint], 1)
                with suppress(Exception):  # one that does not answer does not lead
                    member, leader = await there.leader()
                    if member == leader:
                        return n
                await there.close()
            await asyncio.sleep(0.05)
        raise SystemExit(f"etcd has no leader\n{self.processes.said()}")


def cluster(folder: Path, servers: int) -> Cluster:
    return Cluster(folder, servers)
