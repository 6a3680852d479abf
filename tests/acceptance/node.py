"""`grampus up` as a user runs it, and the means to hurt it.

A `Ground` is a folder with everything that one node and its user have; `Node` is one life of the
process. Every process that comes from here carries the mark of its ground in its environment, so
that nothing can stay behind unseen.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from grampus.config import load_config
from grampus.sdk.client import Client

COMMAND = [sys.executable, "-m", "grampus.cli.main"]
#: Seconds. Nothing here takes longer on a machine that works.
PATIENCE = 30.0


def until(what: Callable[[], Any], within: float = PATIENCE, every: float = 0.02) -> Any:
    """Asks until the answer is true, and returns it."""
    end = time.monotonic() + within
    while not (answer := what()):
        assert time.monotonic() < end, f"not within {within:g} s"
        time.sleep(every)
    return answer


def says_something(pipe: IO[bytes], within: float) -> bool:
    """Whether something can be read from it within so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(within))


class Ground:
    """Data, state and files below one folder."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.mark = f"GRAMPUS_GROUND={folder}"
        # The white list of tasks has TMPDIR: so the mark reaches them too.
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GRAMPUS_")}
        paths = [os.path.abspath(p) for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p]
        self.env = kept | {
            "PYTHONPATH": os.pathsep.join(paths),
            "GRAMPUS_STATE": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "etc"),
            "GRAMPUS_DATA": str(self.data),
            "TMPDIR": str(self.tmp),
        }

    def processes(self) -> dict[int, str]:
        """What runs of this ground, by process id: the command line. Zombies do not count."""
        wanted = f"TMPDIR={self.tmp}".encode()
        found: dict[int, str] = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    line = Path(f"/proc/{name}/cmdline").read_bytes()
                    found[int(name)] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def wardens(self) -> list[int]:
        """Wardens and their shims; a warden is the parent of its shims."""
        return [pid for pid, line in self.processes().items() if "grampus.worker.warden" in line]

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def client(self, timeout: float = 10.0) -> Client:
        """For the node that is ready now."""
        config = load_config({}, environ=self.env)
        return Client(config=config, timeout=timeout)

    def cli(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=self.env, capture_output=True, text=True, timeout=timeout
        )

    def start(self, *options: str, slots: int = 4, prefix: list[str] | None = None) -> Node:
        """A node that is not ready yet."""
        return Node(self, [*(prefix or []), *COMMAND, "up", "--listen", "127.0.0.1:0",
                           "--slots", str(slots), *options])  # fmt: skip

    @contextmanager
    def up(self, *options: str, slots: int = 4, prefix: list[str] | None = None) -> Iterator[Node]:
        """A node that is ready; it is stopped when the block is left, and nothing stays behind."""
        node = self.start(*options, slots=slots, prefix=prefix)
        try:
            node.ready()
            yield node
            node.stop()
        finally:
            node.kill()
        until(lambda: not self.processes(), 20)


class Node:
    """One process of `grampus up`, or another one that says when it is ready."""

    def __init__(self, ground: Ground, command: list[str], log: str = "node.log") -> None:
        self.ground = ground
        self.url = ""
        self._path = ground.folder / log
        self._log = self._path.open("ab")
        self._from = self._log.tell()
        self.process = subprocess.Popen(
            command, env=ground.env, stdout=subprocess.PIPE, stderr=self._log
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        """What this process wrote to stderr."""
        data = self._path.read_bytes()[self._from :]
        return data.decode(errors="replace")

    def ready(
        self, within: float = PATIENCE, pattern: str = r"ready (http://127\.0\.0\.1:(\d+))\n"
    ) -> Node:
        assert self.process.stdout is not None
        assert says_something(self.process.stdout, within), f"not ready: {self.said()}"
        line = self.process.stdout.readline().decode()
        match = re.fullmatch(pattern, line)
        assert match, f"{line!r}: {self.said()}"
        self.url = match[1] if match.groups() else ""
        return self

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def node_port(self) -> int:
        """Where its worker speaks to it: the other port it listens on."""
        inodes = set()
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
                    inodes.add(found[1])
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = row.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == "0A" and fields[9] in inodes and port != self.port:
                return port
        raise AssertionError("no second port")

    def warden(self) -> int:
        """The process id of its warden: the root of them, for one that was adopted is no child."""
        found = set(self.ground.wardens())
        for pid in found:
            with suppress(OSError):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if parent not in found:
                    return pid
        return 0

    def shims(self) -> list[int]:
        warden = self.warden()
        return [pid for pid in self.ground.wardens() if pid != warden]

    def stop(self, within: float = PATIENCE) -> str:
        """SIGTERM; it ends well, without a traceback. What it said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(within) == 0, self.said()
        said = self.said()
        assert "Traceback" not in said, said
        return said

    def ended(self, within: float = PATIENCE) -> tuple[int, str]:
        """Its exit code, and what it said, when it has ended by itself."""
        return self.process.wait(within), self.said()

    def kill(self) -> None:
        """SIGKILL to this one process; it is safe to do so again."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
