"""One node that a benchmark starts, talks to and stops; and what it costs in memory and CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grampus import Client

READY_TIMEOUT = 30.0


@dataclass
class Running:
    client: Client
    process: subprocess.Popen[str]
    #: From exec to the ready line, in seconds.
    ready_after: float
    data: Path
    url: str
    token: str


@contextmanager
def running(slots: int = 4, warm: bool = True, folder: Path | None = None) -> Iterator[Running]:
    """A node on free ports, stopped at the end; in a folder of its own, or in one that is kept."""
    with tempfile.TemporaryDirectory(prefix="grampus-bench-") as own:
        folder = folder or Path(own)
        env = {**os.environ, "XDG_STATE_HOME": f"{folder}/state", "GRAMPUS_WARM": str(warm)}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "grampus.cli.main", "up", "--data", f"{folder}/data",
             "--listen", "127.0.0.1:0", "--slots", str(slots)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                raise SystemExit("the node did not become ready")
            ready_after = time.perf_counter() - began
            url = line.split()[1]
            token = Path(folder, "data", "token").read_text().strip()
            with Client(url, token=token) as client:
                yield Running(client, process, ready_after, Path(folder, "data"), url, token)
        finally:
            process.terminate()
            process.wait(30)


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found, stack = [], [pid]
    while stack:
        pid = stack.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                stack.extend(int(child) for child in text.split())
        except OSError:
            pass
    return found


def pss_mib(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
