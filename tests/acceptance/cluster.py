"""A cluster of real servers and workers on loopback, and the means to hurt it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from grampus.config import load_config
from grampus.errors import GrampusError
from grampus.sdk.answers import ClusterInfo
from grampus.sdk.client import Client
from tests.acceptance.node import COMMAND, PATIENCE, Ground, Node, until
from tests.ports import free_ports


class Site(Ground):
    """Everything below one folder; servers are known by name."""

    def __init__(self, folder: Path, names: str = "abc") -> None:
        super().__init__(folder)
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.servers: dict[str, Node] = {}
        self.workers: dict[str, Node] = {}

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def folder_of(self, name: str) -> Path:
        return self.folder / name

    def client(self, timeout: float = 10.0, *, servers: str = "", stale: bool = False) -> Client:
        """For the servers that are named by their letters, or for all."""
        names = servers or "".join(self.ports)
        urls = ",".join(f"http://{self.address(name)}" for name in names)
        token = next(
            path for name in self.ports if (path := self.folder_of(name) / "token").exists()
        )
        flags = {"server": urls, "token_file": str(token)}
        return Client(config=load_config(flags, environ=self.env), timeout=timeout, stale=stale)

    # -- processes

    def program(self, name: str) -> list[str]:
        """What runs that server."""
        return COMMAND

    def launch(self, name: str, *options: str, folder: Path | None = None, log: str = "") -> Node:
        """A process of `grampus server`, not ready yet. What was there of that name is over."""
        if name in self.servers:
            self.servers[name].kill()
        command = [
            *self.program(name), "server", "start", "--data", str(folder or self.folder_of(name)),
            "--name", name, "--listen", self.address(name), *options,
        ]  # fmt: skip
        node = self.servers[name] = Node(self, command, log=log or f"{name}.log")
        return node

    def found(self, name: str = "a") -> Node:
        return self.launch(name, "--init").ready()

    def token(self, role: str = "server") -> str:
        """The path of a file with a new join token."""
        with self.client() as client:
            made = client.join_token(role)
        path = self.folder / f"join-{made.token.split('.')[2]}"
        path.write_text(made.token)
        path.chmod(0o600)
        return str(path)

    def join(self, name: str, by: str = "a") -> Node:
        return self.launch(name, "--join", self.address(by), "--token-file", self.token())

    def grow(self, names: str = "abc") -> None:
        """Founds a cluster of these, all of them voters."""
        self.found(names[0])
        for name in names[1:]:
            self.join(name, names[0]).ready()
        self.settled(len(names))

    def settled(self, voters: int) -> ClusterInfo:
        """Once so many voters follow one leader."""

        def look() -> ClusterInfo | None:
            with suppress(GrampusError), self.client() as client:
                found = client.cluster()
                good = [m for m in found.members if m.state in ("leads", "follows")]
                if len([m for m in good if m.role == "voter"]) == voters == len(found.members):
                    return found
            return None

        answer = until(look, PATIENCE, 0.05)
        assert isinstance(answer, ClusterInfo)
        return answer

    def leader(self, among: str = "") -> str:
        """Its name, once there is one."""

        def look() -> str | None:
            with suppress(GrampusError), self.client(servers=among) as client:
                leader = client.cluster().leader
                return leader if not among or (leader or "?") in among else None
            return None

        answer = until(look, PATIENCE, 0.05)
        assert isinstance(answer, str)
        return answer

    def others(self, *names: str) -> str:
        return "".join(name for name in self.servers if name not in names)

    def worker(self, name: str, *options: str, prefix: Sequence[str] = ()) -> Node:
        """A process of `grampus worker`, ready; `prefix` is a command that runs it."""
        return self.launch_worker(name, *options, prefix=prefix).ready(pattern=rf"ready {name}\n")

    def launch_worker(self, name: str, *options: str, prefix: Sequence[str] = ()) -> Node:
        """Not ready yet."""
        addresses = ",".join(self.address(server) for server in self.ports)
        fresh = [] if self.folder_of(name).exists() else ["--token-file", self.token("worker")]
        command = [
            *prefix, *COMMAND, "worker", "start", "--data", str(self.folder_of(name)),
            "--name", name, "--join", addresses, "--slots", "4", *fresh, *options,
        ]  # fmt: skip
        node = self.workers[name] = Node(self, command, log=f"{name}.log")
        return node

    def hold(self, name: str) -> None:
        self.servers[name].process.send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        self.servers[name].process.send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        (self.servers.get(name) or self.workers[name]).kill()

    def end(self) -> None:
        for node in (*self.workers.values(), *self.servers.values()):
            with suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGCONT)
            node.kill()
        for pid in self.wardens():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.processes(), 20)


@contextmanager
def site(folder: Path, names: str = "abc") -> Iterator[Site]:
    made = Site(folder, names)
    try:
        yield made
    finally:
        made.end()
