"""Workers as processes of their own, beside a node."""

from __future__ import annotations

import select
import socket
from pathlib import Path

from tests.acceptance.node import COMMAND, PATIENCE, Ground, Node


def free_pair() -> int:
    """A port that is free, and whose next one is too."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as next:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                next.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two ports are free")


class WorkerProcess(Node):
    """One process of `grampus worker start`."""

    def __init__(self, ground: Ground, name: str, port: int, *options: str) -> None:
        self.name = name
        self.data = ground.folder / name
        super().__init__(
            ground,
            [*COMMAND, "worker", "start", "--data", str(self.data), "--name", name,
             "--join", f"127.0.0.1:{port}", *options],
        )  # fmt: skip

    def ready(self, within: float = PATIENCE) -> WorkerProcess:
        assert self.process.stdout is not None
        found, _, _ = select.select([self.process.stdout], [], [], within)
        assert found, f"not ready: {self.said()}"
        assert self.process.stdout.readline().decode() == f"ready {self.name}\n", self.said()
        return self


def node_at(ground: Ground, port: int, slots: int = 1) -> Node:
    """A node at a port that stays the same over its lives."""
    return Node(
        ground,
        [*COMMAND, "up", "--listen", f"127.0.0.1:{port}", "--slots", str(slots), "--name", "n1"],
    )


def credential(ground: Ground) -> Path:
    return ground.data / "worker-credential"
