"""Chains and fan-outs of `true` on one node, beside what this machine can do at best.

Every round does, one after the other: a chain and a fan-out on the node, `xargs -P4 sh -c true`,
bare serial spawns, bare fdatasync on a preallocated file. Ratios are of the same round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.node import Running, cpu_seconds, pss_mib, running, tree
from grampus.model.workflow import Shell, Task, Workflow
from grampus.sdk.load import Loaded

ROUNDS = 5
CHAIN = 100
FAN_OUT = 1000
SPAWNS = 200
SYNCS = 500
IDLE_SECONDS = 10.0


def chain(count: int) -> Workflow:
    tasks = [Task("t0", Shell("true"))]
    tasks += [Task(f"t{i}", Shell("true"), after=(f"t{i - 1}",)) for i in range(1, count)]
    return Workflow("chain", tuple(tasks))


def fan_out(count: int) -> Workflow:
    return Workflow("fan_out", tuple(Task(f"t{i}", Shell("true")) for i in range(count)))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run_to_end(node: Running, workflow: str) -> None:
    """Submit, then wait for the end: what a person at a terminal would measure."""
    run = node.client.start(workflow)
    ended = node.client.wait(run.id, timeout=120)
    if ended.state != "SUCCEEDED":
        raise SystemExit(f"{workflow}: {ended.state}")


def xargs(count: int) -> None:
    lines = "\n".join(map(str, range(count)))
    subprocess.run(["xargs", "-P4", "-n1", "sh", "-c", "true"], input=lines, text=True, check=True)


def spawns(count: int) -> None:
    for _ in range(count):
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", "true"], os.environ)
        os.waitpid(pid, 0)


def syncs(count: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        for i in range(count):
            os.pwrite(file.fileno(), bytes(200), i * 200)
            os.fdatasync(file.fileno())


def play_round(node: Running) -> dict[str, float]:
    """Milliseconds per task, spawn and sync; tasks per second of the others."""
    return {
        "chain": timed(lambda: run_to_end(node, "chain")) / CHAIN * 1e3,
        "fan_out": FAN_OUT / timed(lambda: run_to_end(node, "fan_out")),
        "xargs": FAN_OUT / timed(lambda: xargs(FAN_OUT)),
        "spawn": timed(lambda: spawns(SPAWNS)) / SPAWNS * 1e3,
        "sync": timed(lambda: syncs(SYNCS)) / SYNCS * 1e3,
    }


def spread(values: list[float], digits: int = 2) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f} to {high:.{digits}f}]"


def main() -> None:
    with running() as node:
        for workflow in (chain(CHAIN), fan_out(FAN_OUT)):
            node.client.apply_loaded(Loaded(workflow, None, Path(__file__)))
        run_to_end(node, "chain")
        rows = [play_round(node) for _ in range(ROUNDS)]
        pids = tree(node.process.pid)
        time.sleep(2)
        cpu, began = cpu_seconds(pids), time.perf_counter()
        time.sleep(IDLE_SECONDS)
        share = (cpu_seconds(pids) - cpu) / (time.perf_counter() - began) * 100
        memory = pss_mib(pids)
        ready = node.ready_after
    column = {key: [row[key] for row in rows] for key in rows[0]}
    ratio = [row["fan_out"] / row["xargs"] for row in rows]
    over = [row["chain"] / row["spawn"] for row in rows]
    print(f"one node, 4 slots; medians of {ROUNDS} interleaved rounds [least to most]")
    print(f"chain of {CHAIN} shell tasks   {spread(column['chain'])} ms per task")
    print(f"  bare spawn of the same   {spread(column['spawn'])} ms; ratio {spread(over)}")
    print(f"  bare fdatasync           {spread(column['sync'])} ms")
    print(f"fan-out of {FAN_OUT}          {spread(column['fan_out'], 0)} tasks/s")
    print(f"  xargs -P4 sh -c true     {spread(column['xargs'], 0)} tasks/s; ratio {spread(ratio)}")
    print(f"start to ready             {ready:.2f} s")
    print(f"idle                       {memory:.0f} MiB PSS in {len(pids)} processes;"
          f" {share:.1f} % of a core")  # fmt: skip


if __name__ == "__main__":
    main()
