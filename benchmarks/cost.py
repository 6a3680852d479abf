"""What a task costs in CPU time, thread by thread: a fan-out, a chain and warm Python on one node.

CPU time does not depend on who else waits for the machine, so that it tells more on a shared one
than any rate does. `xargs -P4 sh -c true` stands beside it, in the same rounds. `sh` and the forks
of warm Python are counted when their parent has reaped them, in steps of 10 ms.

    python -m benchmarks cost
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.node import Running, running, tree
from benchmarks.warm import workflows
from benchmarks.workflows import chain, fan_out, run_to_end, timed, xargs
from grampus.sdk.load import Loaded

ROUNDS = 5
CHAIN, FAN_OUT, WARM_CHAIN, WARM = 100, 1000, 100, 600
_TICK = 1000 / os.sysconf("SC_CLK_TCK")


def role(pid: int, node: Running) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    if pid == node.process.pid:
        return "node"
    parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    if b"grampus.worker.warden" in command:
        return "warden" if parent == node.process.pid else "shims"
    return "prepared and warm shims"


def spent(node: Running) -> dict[str, float]:
    """Milliseconds so far, by role; those of reaped attempts too."""
    found: dict[str, float] = {"attempts": 0.0, "switches": 0.0}
    for pid in tree(node.process.pid):
        name = role(pid, node)
        for thread in os.listdir(f"/proc/{pid}/task"):
            part = name if name != "node" else "loop" if int(thread) == pid else "log"
            folder = f"/proc/{pid}/task/{thread}"
            ran = int(Path(f"{folder}/schedstat").read_text().split()[0]) / 1e6
            found[part] = found.get(part, 0.0) + ran
            for line in Path(f"{folder}/status").read_text().splitlines():
                if "ctxt_switches" in line:
                    found["switches"] += int(line.split()[1])
        if name not in ("node", "warden"):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            found["attempts"] += (int(fields[13]) + int(fields[14])) * _TICK
    return found


def children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1e3


def measure(node: Running, work: Callable[[], None], count: int) -> dict[str, float]:
    """Per task: milliseconds of CPU by role, switches, and `wall`."""
    before = spent(node)
    wall = timed(work) * 1e3
    after = spent(node)
    cost = {name: (after[name] - before.get(name, 0.0)) / count for name in after}
    return {**cost, "wall": wall / count}


def baseline(count: int) -> dict[str, float]:
    before = children()
    wall = timed(lambda: xargs(count)) * 1e3
    return {"attempts": (children() - before) / count, "wall": wall / count}


def main() -> None:
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="grampus-bench-") as folder, running() as node:
        for workflow in (chain(CHAIN), fan_out(FAN_OUT)):
            node.client.apply_loaded(Loaded(workflow, None, Path(__file__)))
        node.client.apply(workflows(Path(folder), "warm", ""))
        jobs = {
            "chain": ("chain", CHAIN),
            "fan-out": ("fan_out", FAN_OUT),
            "warm chain": (f"chain_{WARM_CHAIN}", WARM_CHAIN),
            "warm fan-out": (f"fan_{WARM}", WARM),
        }
        for turn in range(ROUNDS + 1):
            for name, (workflow, count) in jobs.items():
                cost = measure(node, lambda w=workflow: run_to_end(node, w), count)
                if turn:
                    rows.setdefault(name, []).append(cost)
            if turn:
                rows.setdefault("xargs", []).append(baseline(FAN_OUT))
    print(f"CPU per task in ms, 4 slots; medians of {ROUNDS} interleaved rounds")
    for name, costs in rows.items():
        parts = {part: statistics.median(c.get(part, 0.0) for c in costs) for part in costs[-1]}
        total = sum(v for part, v in parts.items() if part not in ("wall", "switches"))
        text = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
        print(f"{name:13} cpu {total:.2f}: {text}")


if __name__ == "__main__":
    main()
