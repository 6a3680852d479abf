"""What the benchmark of metadata stores asks of each: a client, and servers to start and kill.

Rule: a store is measured through the same calls by the same load process (`kv_load`), so that its
rates differ by the store and its client library, not by the way of measuring.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, cast

from benchmarks.node import pss_mib, tree

#: Module of each store; it has `open` and `Cluster`.
STORES = {"etcd": "benchmarks.peers.etcd", "grampus": "benchmarks.kv_grampus"}


class Store(Protocol):
    """One client of all servers. A failed call raises; nothing is tried again here."""

    async def put(self, key: bytes, value: bytes, within: float = 10.0) -> int:
        """The revision."""
        ...

    async def get(self, key: bytes, linearizable: bool) -> bytes | None: ...

    async def cas(self, key: bytes, revision: int, value: bytes) -> int | None:
        """The new revision, or None when the key's mod revision is another one."""
        ...

    def watch(self, key: bytes, first: int) -> AsyncIterator[bytes | None]:
        """None once it watches, then the value of each put from that revision on."""
        ...

    async def close(self) -> None: ...


class Cluster(Protocol):
    """Servers in processes of their own, in folders that survive `stop`."""

    #: What `open` is given; known once it is founded.
    endpoints: list[str]
    processes: Processes

    def found(self) -> None:
        """Starts all servers as a new cluster, and waits until it is whole."""
        ...

    def start(self) -> None:
        """All servers, again. Does not wait."""
        ...

    def restart(self, number: int) -> None: ...

    def leader(self) -> int:
        """The number of the server that leads; waits for one."""
        ...


class Opens(Protocol):
    async def open(self, endpoints: list[str], connections: int) -> Store:
        """`connections` to servers in turn, which share the calls."""
        ...

    def missing(self) -> str:
        """Why it cannot be measured here; "" when it can."""
        ...

    def cluster(self, folder: Path, servers: int) -> Cluster: ...


def store(name: str) -> Opens:
    return cast(Opens, importlib.import_module(STORES[name]))


class Processes:
    """Server processes by number. What they say goes to a file beside their data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int, argv: list[str], env: dict[str, str] | None = None) -> None:
        with (self.folder / f"{number}.out").open("ab") as said:
            self._running[number] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env={**os.environ, **(env or {})},
            )  # fmt: skip

    def wait_for(self, number: int, text: str, within: float = 30.0) -> None:
        """Until the server has said it."""
        said, until = self.folder / f"{number}.out", time.monotonic() + within
        while text not in said.read_text(errors="replace"):
            if time.monotonic() > until or self._running[number].poll() is not None:
                raise SystemExit(f"a server does not start\n{self.said()}")
            time.sleep(0.02)

    def pid(self, number: int) -> int:
        return self._running[number].pid

    def gone(self, number: int) -> None:
        """It was killed: waits for its end."""
        self._running.pop(number).wait(10)

    def pss_mib(self) -> list[float]:
        """Memory of each server and what it started."""
        return [pss_mib(tree(process.pid)) for process in self._running.values()]

    def said(self) -> str:
        """The last lines of each, for a person who looks for the reason."""
        files = sorted(self.folder.glob("*.out"))
        return "\n".join(f"{f.name}: {f.read_text(errors='replace')[-500:]}" for f in files)

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._running.clear()


def free_ports(count: int) -> list[int]:
    """Free a moment ago; another process may take one first."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
