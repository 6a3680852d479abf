"""HyperQueue: a server and one worker of 4 cores, in memory, by its own Python interface.

Its `wait_for_jobs` looks once a second; so a last task, after all others, says when it is done.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

SHELL = ["sh", "-c", "true"]
TIMEOUT = 60.0


def main() -> None:
    from hyperqueue import Job, LocalCluster  # type: ignore[import-not-found]
    from hyperqueue.cluster import WorkerConfig  # type: ignore[import-not-found]

    chain, fan_out = int(sys.argv[1]), int(sys.argv[2])

    def took(count: int, chained: bool) -> float:
        job, done = Job(max_fails=0), Path(folder, f"done-{count}-{chained}")
        tasks: list[object] = []
        for _ in range(count):
            after = tasks[-1:] if chained else []
            tasks.append(job.program(SHELL, stdout=None, stderr=None, deps=after))
        last = tasks[-1:] if chained else tasks
        job.program(["touch", str(done)], stdout=None, stderr=None, deps=last)
        began = time.perf_counter()
        client.submit(job)
        while not done.exists():
            if time.perf_counter() > began + TIMEOUT:
                raise SystemExit("the job did not end in time")
            time.sleep(0.001)
        return time.perf_counter() - began

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(folder, WorkerConfig(cores=4)) as cluster,
    ):
        client = cluster.client()
        took(20, chained=False)
        line = took(chain, chained=True) / chain * 1e3
        wide = fan_out / took(fan_out, chained=False)
    print(json.dumps({"chain": line, "fan_out": wide}))


if __name__ == "__main__":
    main()
