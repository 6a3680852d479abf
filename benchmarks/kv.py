"""The metadata center beside etcd, in the same rounds, and what the machine can do without either.

- put, compare-and-set, linearizable and serializable get: calls a second, p50 and p99, at several
  numbers of clients, with values of 256 bytes, on one server and on three;
- watch: from the call of a put to its event, at 1 and 50 watchers;
- failover: kill -9 of the leader to the first acknowledged put of a client that tries again;
- start of stopped servers to the first acknowledged put; memory of an idle server.

Each server is a process, and so is the load; all share this machine and its loopback. Rounds take
turns: a disk or a neighbour that slows down slows all of them. Only ratios mean something.

    python -m benchmarks.kv [--stores grampus,etcd] [--rounds 3] [--seconds 2] [--servers 1,3]
                            [--works put,get,...] [--failovers 10] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import log, rpc
from benchmarks.kv_port import STORES, Cluster, store
from benchmarks.workflows import spread

#: Work, and at how many clients.
CELLS = {
    "put": (1, 16, 64, 256),
    "cas": (1, 64),
    "get": (1, 64),
    "serializable": (1, 64),
    "watch": (1, 50),
}
ONCE = ("memory", "failover", "start")
LOAD_TIMEOUT = 90.0
#: Seconds after a start or a failover, and before memory is read.
SETTLE = 2.0
IDLE = 5.0
#: (work, servers, clients)
Cell = tuple[str, int, int]
Rounds = dict[str, dict[Cell, list[dict[str, Any]]]]


def load(name: str, cluster: Cluster, work: str, **more: object) -> dict[str, Any]:
    """One run of the load process."""
    what = {"store": name, "endpoints": cluster.endpoints, "work": work, **more}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kv_load", json.dumps(what)],
        stdout=subprocess.PIPE, timeout=LOAD_TIMEOUT, check=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["error"]:
        print(f"{name}: {work} {more}: {found['error']}", flush=True)
    return found


def first_put(name: str, cluster: Cluster, begin: Callable[[], None]) -> float:
    """Milliseconds from `begin` to the first acknowledged put, by a client that is there before."""
    what = {"store": name, "endpoints": cluster.endpoints, "work": "first"}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kv_load", json.dumps(what)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdout.readline()
        since = perf_counter()
        begin()
        print(since, file=client.stdin, flush=True)
        found = json.loads(client.stdout.readline())
    if found["error"]:
        raise SystemExit(f"{name}: {found['error']}\n{cluster.processes.said()}")
    return float(found["spans"][0])


@contextmanager
def running(name: str, servers: int, data: str | None) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="grampus-bench-", dir=data) as folder:
        cluster = store(name).cluster(Path(folder), servers)
        try:
            cluster.found()
            time.sleep(SETTLE)
            yield cluster
        finally:
            cluster.processes.stop()


def play(
    clusters: dict[str, Cluster], servers: int, works: list[str], options: argparse.Namespace
) -> Rounds:
    """All stores are up, and one of them is under load: the others only beat their hearts."""
    rounds: Rounds = {name: {} for name in clusters}
    for turn in range(options.rounds):
        for work in works:
            for clients in CELLS[work]:
                # Whoever is second may find the disk busy with what the first left.
                for name in sorted(clusters, reverse=bool(turn % 2)):
                    found = load(
                        name, clusters[name], work, clients=clients, seconds=options.seconds
                    )
                    rounds[name].setdefault((work, servers, clients), []).append(found)
    return rounds


def show(rounds: Rounds) -> None:
    first, *others = rounds
    for cell in rounds[first]:
        work, servers, clients = cell
        timed = work == "watch"
        who = plural(clients, "watcher" if timed else "client")
        print(f"{work}, {plural(servers, 'server')}, {who}")
        for name in rounds:
            found = rounds[name][cell]
            rate = "" if timed else f"{spread([f['rate'] for f in found], 0):>26} a second "
            print(
                f"  {name:8} {rate} p50 {spread([f['p50'] for f in found]):>22}"
                f"  p99 {spread([f['p99'] for f in found]):>22} ms",
                flush=True,
            )
        for name in others:
            ratios = [
                (b["p50"] / a["p50"] if timed else a["rate"] / b["rate"])
                for a, b in zip(rounds[first][cell], rounds[name][cell], strict=True)
                if a["p50"] and b["rate"]
            ]
            if ratios:
                print(f"  {first} is {spread(ratios)} times as fast as {name}")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count > 1)}"


def fail_over(clusters: dict[str, Cluster], times: int) -> None:
    spans: dict[str, list[float]] = {name: [] for name in clusters}
    for _ in range(times):
        for name, cluster in clusters.items():
            leader = cluster.leader()
            found = load(name, cluster, "failover", pid=cluster.processes.pid(leader))
            cluster.processes.gone(leader)
            spans[name] += found["spans"]
            cluster.restart(leader)
            time.sleep(SETTLE)
    print(f"failover, {len(next(iter(clusters.values())).endpoints)} servers, {times} times")
    tell(spans, "ms from kill -9 of the leader to the next acknowledged put")


def restart(clusters: dict[str, Cluster], times: int) -> None:
    spans: dict[str, list[float]] = {name: [] for name in clusters}
    for _ in range(times):
        for name, cluster in clusters.items():
            cluster.processes.stop()
            spans[name].append(first_put(name, cluster, cluster.start))
    tell(spans, "ms from the start of all servers to the first acknowledged put")


def idle(clusters: dict[str, Cluster]) -> None:
    """Before anything was written."""
    time.sleep(IDLE)
    for name, cluster in clusters.items():
        each = spread(cluster.processes.pss_mib(), 0)
        print(f"  {name:8} {each:>22} MiB (PSS) of each new, idle server", flush=True)


def tell(values: dict[str, list[float]], what: str) -> None:
    for name, found in values.items():
        if found:
            print(f"  {name:8} {spread(found, 0):>22} {what}", flush=True)


def limits(options: argparse.Namespace) -> None:
    """A sync of a small write into a filled file, and a bare echo over TCP, a second."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=rpc.serve, args=(there,), daemon=True)
    server.start()
    if not here.poll(10):
        raise SystemExit("the echo did not start within 10 s")
    _, port = here.recv()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="grampus-bench-", dir=options.data) as folder:
        for _ in range(options.rounds):
            rates.setdefault("fdatasync", []).append(log.sync(Path(folder, "bare"), 1 << 22)[0])
            for many in (1, 64):
                rate = asyncio.run(echo(port, many, log.SECONDS))
                rates.setdefault(f"echo, {many} at a time", []).append(rate)
    here.send(None)
    server.join(10)
    print("limits of this machine: into a filled file, and over TCP")
    for name, found in rates.items():
        print(f"  {name:20} {spread(found, 0):>26} a second", flush=True)


async def echo(port: int, many: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    _, bare = await loop.create_connection(rpc.BareCall, "127.0.0.1", port)
    rate, _ = await rpc.measure(bare.call, many, seconds)
    bare.close()
    return rate


def chosen(text: str) -> list[str]:
    """Stores that can be measured here; says why others are not."""
    names = []
    for name in text.split(","):
        if name not in STORES:
            raise SystemExit(f"no store {name}; there are {', '.join(STORES)}")
        why = store(name).missing()
        if why:
            print(f"{name} is left out: {why}", flush=True)
        else:
            names.append(name)
    return names


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The metadata center beside etcd.")
    parser.add_argument("--stores", default="grampus,etcd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--servers", default="1,3", help="sizes of the clusters")
    parser.add_argument("--works", default=",".join((*CELLS, *ONCE)))
    parser.add_argument("--failovers", type=int, default=10)
    parser.add_argument("--data", help="folder for the data of all servers")
    found = parser.parse_args(argv)
    found.works = found.works.split(",")
    if unknown := set(found.works) - {*CELLS, *ONCE}:
        raise SystemExit(f"no work {', '.join(sorted(unknown))}")
    return found


def main(argv: Sequence[str] = ()) -> None:
    asked = options(argv)
    names = chosen(asked.stores)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    limits(asked)
    if not names:
        return
    for servers in map(int, asked.servers.split(",")):
        with ExitStack() as stack:
            clusters = {
                name: stack.enter_context(running(name, servers, asked.data)) for name in names
            }
            print(plural(servers, "server"))
            if "memory" in asked.works:
                idle(clusters)
            works = [work for work in asked.works if work in CELLS]
            show(play(clusters, servers, works, asked))
            if "failover" in asked.works and servers > 2:
                fail_over(clusters, asked.failovers)
            if "start" in asked.works:
                print(f"start, {plural(servers, 'server')}, {asked.rounds} times")
                restart(clusters, asked.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
