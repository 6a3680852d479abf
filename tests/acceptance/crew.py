"""Workers as processes of their own, beside a node."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.node import COMMAND, PATIENCE, Ground, Node, says_something


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
        found = says_something(self.process.stdout, within)
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
