"""Python tasks that do nothing, cold and warm, on one node: a chain, a fan-out, and their memory.

Each round runs all four, one after the other, on two nodes of which one has `warm = false`. Beside
them: what a fork of a Python costs here, and a `python -c pass`, which no cold start can beat.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.node import Running, pss_mib, running, tree
from benchmarks.workflows import run_to_end, spread, timed

ROUNDS = 3
CHAIN = {"cold": 10, "warm": 100}
FAN_OUT = {"cold": 24, "warm": 600}
SOURCE = """\
from grampus import task, workflow
{imports}

@task
def nothing(before=None):
    return None

@workflow
def chain_{count}():
    last = nothing()
    for _ in range({count} - 1):
        last = nothing(last)

@workflow
def fan_{wide}():
    for _ in range({wide}):
        nothing()
"""


def workflows(folder: Path, kind: str, imports: str) -> Path:
    path = folder / f"{kind}.py"
    path.write_text(SOURCE.format(imports=imports, count=CHAIN[kind], wide=FAN_OUT[kind]))
    return path


def play_round(node: Running, kind: str) -> tuple[float, float]:
    """Milliseconds per task in the chain, tasks per second of the fan-out."""
    chain = timed(lambda: run_to_end(node, f"chain_{CHAIN[kind]}")) / CHAIN[kind] * 1e3
    return chain, FAN_OUT[kind] / timed(lambda: run_to_end(node, f"fan_{FAN_OUT[kind]}"))


def forks(count: int) -> None:
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def pythons(count: int) -> None:
    for _ in range(count):
        subprocess.run([sys.executable, "-c", "pass"], check=True)


def main() -> None:
    for imports in ("", "import numpy, pandas"):
        print(f"one node, 4 slots, no-op Python tasks; module imports {imports[7:] or 'nothing'}")
        with tempfile.TemporaryDirectory(prefix="grampus-bench-") as folder:
            results = {}
            for kind in ("cold", "warm"):
                with running(warm=kind == "warm") as node:
                    before = pss_mib(tree(node.process.pid))
                    node.client.apply(workflows(Path(folder), kind, imports))
                    run_to_end(node, f"fan_{FAN_OUT[kind]}")
                    time.sleep(1)
                    rounds = [play_round(node, kind) for _ in range(ROUNDS)]
                    results[kind] = rounds, pss_mib(tree(node.process.pid)) - before
        for kind, (rounds, memory) in results.items():
            print(
                f"  {kind}: chain {spread([r[0] for r in rounds])} ms per task; fan-out "
                f"{spread([r[1] for r in rounds], 0)} tasks/s; afterwards {memory:+.0f} MiB PSS"
            )
    print(f"fork of this process       {timed(lambda: forks(200)) / 200 * 1e3:.2f} ms")
    print(f"python -c pass             {timed(lambda: pythons(20)) / 20 * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
