"""Dask: a scheduler and one worker process of 4 threads, in memory; tasks start `sh` themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import time


def shell(*after: object) -> int:
    return subprocess.run(["sh", "-c", "true"], check=True).returncode


def main() -> None:
    from distributed import Client, LocalCluster  # type: ignore[import-not-found]

    chain, fan_out = int(sys.argv[1]), int(sys.argv[2])
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=4, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(shell, range(20), pure=False))
        began = time.perf_counter()
        last = client.submit(shell, pure=False)
        for _ in range(chain - 1):
            last = client.submit(shell, last, pure=False)
        last.result()
        one = (time.perf_counter() - began) / chain * 1e3
        began = time.perf_counter()
        client.gather(client.map(shell, range(fan_out), pure=False))
        print(json.dumps({"chain": one, "fan_out": fan_out / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
