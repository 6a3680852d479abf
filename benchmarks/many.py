"""Many runs at once and one run at a time: throughput of short runs, and time from submit to start.

- 500 runs of a three-task chain, submitted one by one and as a batch, until the last has ended.
- One run of one task, again and again on an idle node: from the client's call to the moment at
  which the warden has started the process (on a clock of whole milliseconds).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.node import Running, running
from benchmarks.workflows import chain, spread, xargs
from grampus.database import Database
from grampus.model.workflow import Shell, Task, Workflow
from grampus.sdk.load import Loaded

ROUNDS = 3
RUNS = 500
TASKS = 3
SINGLE = 200


def ended(node: Running, within: float = 60.0) -> None:
    """Waits until no run is left to do."""
    db = Database.open(node.data / "ledger" / "ledger.db", readonly=True)
    until = time.monotonic() + within
    try:
        while db.value("SELECT count(*) FROM run WHERE state IN ('QUEUED', 'RUNNING')"):
            if time.monotonic() > until:
                raise SystemExit("the runs did not end in time")
            time.sleep(0.01)
    finally:
        db.close()


def one_by_one(node: Running) -> None:
    for _ in range(RUNS):
        node.client.submit("many")


def as_a_batch(node: Running) -> None:
    answers = node.client.submit_many([{"workflow": "many"}] * RUNS)
    if any(answer.problem for answer in answers):
        raise SystemExit("a run of the batch was refused")


def rate(node: Running, submit: Callable[[Running], None]) -> float:
    began = time.perf_counter()
    submit(node)
    ended(node)
    return RUNS * TASKS / (time.perf_counter() - began)


def starts(node: Running) -> list[float]:
    """Milliseconds from submit to start, one run after the other."""
    submitted = {}
    for _ in range(SINGLE):
        at = time.time() * 1000
        submitted[node.client.submit("one").id] = at
        ended(node)
        time.sleep(0.005)
    db = Database.open(node.data / "ledger" / "ledger.db", readonly=True)
    found = [
        db.value("SELECT running FROM attempt WHERE run = ?", (run,)) - at
        for run, at in submitted.items()
    ]
    db.close()
    return sorted(found)


def main() -> None:
    one = Workflow("one", (Task("t", Shell("true")),))
    many = Workflow("many", chain(TASKS).tasks)
    with running() as node:
        for workflow in (one, many):
            node.client.apply_loaded(Loaded(workflow, None, Path(__file__)))
        rate(node, one_by_one)
        single, batch, base = [], [], []
        for _ in range(ROUNDS):
            single.append(rate(node, one_by_one))
            batch.append(rate(node, as_a_batch))
            began = time.perf_counter()
            xargs(RUNS)
            base.append(RUNS / (time.perf_counter() - began))
        delays = starts(node)
    ratio = [a / b for a, b in zip(batch, base, strict=True)]
    print(f"{RUNS} runs of {TASKS} shell tasks in a chain; medians of {ROUNDS} rounds [range]")
    print(f"  submitted one by one     {spread(single, 0)} tasks/s")
    print(f"  submitted as a batch     {spread(batch, 0)} tasks/s; of xargs -P4 {spread(ratio)}")
    print(f"submit to start, {SINGLE} runs  p50 {statistics.median(delays):.1f} ms,"
          f" p99 {delays[int(SINGLE * 0.99)]:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
