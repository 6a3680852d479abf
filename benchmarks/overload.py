"""Far too much at once: 10,000 runs of many clients, one run of 10,000 tasks, 1,000 schedules.

Each submit is accepted, or refused with 429 and Retry-After and sent again. All is worked off.
Printed: what was refused, how long, how much memory, and how late the event loop was meanwhile,
as the node itself reports it in `/metrics`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.many import ended
from benchmarks.node import Running, running
from benchmarks.workflows import fan_out, timed
from grampus import Client
from grampus.database import Database
from grampus.errors import Overloaded
from grampus.model.workflow import Schedule, Shell, Task, Workflow
from grampus.sdk.load import Loaded

RUNS = int(os.environ.get("RUNS", 10_000))
#: Of these submit singly, each in a thread of its own; the rest of the runs come as batches.
SINGLE, THREADS, BATCH = RUNS // 5, 16, 500
WITHIN = 120.0
#: Of these are due in one minute, which is so many seconds away at least when they are applied.
SCHEDULES = int(os.environ.get("SCHEDULES", 1_000))
AHEAD = 15


class Flood:
    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token
        self.refused = 0
        self._lock = threading.Lock()

    def send(self) -> None:
        batches = [BATCH] * ((RUNS - SINGLE) // BATCH)
        work = [[SINGLE // THREADS, *batches[i::THREADS]] for i in range(THREADS)]
        threads = [threading.Thread(target=self._client, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, work: list[int]) -> None:
        with Client(self._url, token=self._token) as client:
            for _ in range(work[0]):
                self._until_taken(lambda: client.submit("one"))
            for size in work[1:]:
                self._until_taken(lambda n=size: client.submit_many([{"workflow": "one"}] * n))

    def _until_taken(self, submit: Callable[[], object]) -> None:
        while True:
            try:
                submit()
                return
            except Overloaded:
                with self._lock:
                    self.refused += 1
                time.sleep(0.2)


def stalls(node: Running) -> tuple[float, float, float]:
    """Upper bounds of the bucket in which the 99th of 100 looks is, looks, and the longest."""
    answer = httpx.get(node.url + "/metrics", headers={"Authorization": f"Bearer {node.token}"})
    text = answer.text
    buckets = [
        (float(bound), float(count))
        for bound, count in re.findall(
            r'grampus_event_loop_stall_seconds_bucket\{le="([\d.e+-]+|\+Inf)"\} ([\d.e+]+)', text
        )
    ]
    total = buckets[-1][1]
    p99 = next(bound for bound, count in buckets if count >= 0.99 * total)
    longest = re.search(r"grampus_event_loop_stall_max_seconds ([\d.e+-]+)", text)
    assert longest is not None
    return p99, total, float(longest[1])


def peak_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", text)
    assert found is not None
    return int(found[1]) / 1024


def show(node: Running) -> str:
    p99, looks, longest = stalls(node)
    return (
        f"stalls p99 <= {p99 * 1e3:.0f} ms, longest {longest * 1e3:.0f} ms ({looks:.0f} looks);"
        f" peak memory of the node {peak_mib(node.process.pid):.0f} MiB"
    )


def flood() -> None:
    with running() as node:
        one = Workflow("one", (Task("t", Shell("true")),), max_active_runs=200)
        node.client.apply_loaded(Loaded(one, None, Path(__file__)))
        send = Flood(node.url, node.token)
        took = timed(send.send)
        print(f"{RUNS:,} runs from {THREADS} clients: taken after {took:.1f} s, 429 {send.refused}"
              " times")  # fmt: skip
        done = timed(lambda: ended(node, WITHIN))
        print(f"  worked off {done:.1f} s later; {show(node)}")


def wide() -> None:
    with running() as node:
        workflow = fan_out(RUNS)
        applied = timed(lambda: node.client.apply_loaded(Loaded(workflow, None, Path(__file__))))
        submitted = timed(lambda: node.client.submit("fan_out"))
        (run,) = node.client.runs(limit=1)
        shown = timed(lambda: node.client.tasks(run.id))
        done = timed(lambda: ended(node, WITHIN))
        print(f"one run of {RUNS:,} tasks: applied in {applied:.2f} s, submitted in"
              f" {submitted:.2f} s, shown in {shown:.2f} s")  # fmt: skip
        print(f"  worked off {done:.1f} s later; {show(node)}")


def schedules() -> None:
    with running() as node:
        minute = (int(time.time()) + AHEAD) // 60 * 60 + 60
        when = time.gmtime(minute)
        schedule = Schedule(cron=f"{when.tm_min} {when.tm_hour} * * *")
        for number in range(SCHEDULES):
            one = Workflow(f"s{number}", (Task("t", Shell("true")),), schedule=schedule)
            node.client.apply_loaded(Loaded(one, None, Path(__file__)))
        if time.time() > minute - 1:
            raise SystemExit("the schedules were not applied before their minute")
        db = Database.open(node.data / "ledger" / "ledger.db", readonly=True)
        while db.value("SELECT count(*) FROM tick") < SCHEDULES:
            if time.time() > minute + WITHIN:
                raise SystemExit("not every tick was decided in time")
            time.sleep(0.01)
        ended(node, WITHIN)
        done = time.time() - minute
        fired = "SELECT count(*) FROM tick WHERE outcome = 'run' AND tick = ?"
        decided = db.value(fired, (minute * 1000,))
        late = db.value("SELECT max(at) FROM tick") / 1000 - minute
        worked = db.value("SELECT count(*) FROM run WHERE state = 'SUCCEEDED'")
        db.close()
        print(f"{SCHEDULES:,} schedules on one minute: {decided:,} ticks fired, the last"
              f" {late:.2f} s after it; {worked:,} runs succeeded")  # fmt: skip
        print(f"  worked off {done:.1f} s after it; {show(node)}")


def main() -> None:
    flood()
    wide()
    schedules()


if __name__ == "__main__":
    main()
