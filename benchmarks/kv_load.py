"""The load on a metadata store, in a process of its own: one JSON object of what to do as its
argument, one JSON object of what came out on stdout.

    python -m benchmarks.kv_load '{"store": "etcd", "endpoints": ["127.0.0.1:2379"], "work": "put",
                                   "clients": 64, "seconds": 2}'

A client calls, waits for the answer, and calls again. What happens in the first `WARM` seconds is
not counted. Works: put, get, serializable, cas, watch, failover, first.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from msgspec import Struct, field

from benchmarks.kv_port import Store, store

#: Of 256 bytes, as the design's measures have it.
VALUE = b"v" * 256
#: Keys of each client, written in turn.
KEYS = 100
WARM = 0.5
#: Clients of one connection.
SHARED = 32
#: A client that looks for a server again does not wait longer for one answer.
PATIENCE = 0.2
PAUSE = 0.005
#: Puts that watchers are to see, and the time between two.
SEEN = 200
BETWEEN = 0.01


class Work(Struct):
    store: str
    endpoints: list[str]
    work: str
    clients: int = 1
    seconds: float = 2.0
    #: Of the leader's process, for failover.
    pid: int = 0
    #: How long to go on looking for a server.
    within: float = 30.0


class Found(Struct):
    """What came out. Times are in milliseconds."""

    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    #: The first error, if a call failed.
    error: str = ""
    spans: list[float] = field(default_factory=list)

    def settle(self) -> Found:
        if len(self.spans) > 1:
            hundredths = statistics.quantiles(self.spans, n=100)
            self.p50, self.p99 = hundredths[49], hundredths[98]
        self.spans = self.spans if len(self.spans) == 1 else []
        return self


#: What client number n does, again and again.
Call = Callable[[int], Awaitable[object]]


async def prepare(there: Store, work: Work) -> Call:
    match work.work:
        case "put":
            turns = [0] * work.clients

            def put(n: int) -> Awaitable[object]:
                turns[n] = (turns[n] + 1) % KEYS
                return there.put(b"put/%d/%d" % (n, turns[n]), VALUE)

            return put
        case "get" | "serializable":
            for n in range(work.clients):
                await there.put(b"get/%d" % n, VALUE)
            return lambda n: there.get(b"get/%d" % n, work.work == "get")
        case "cas":
            revisions = [await there.put(b"cas/%d" % n, VALUE) for n in range(work.clients)]

            async def cas(n: int) -> None:
                revision = await there.cas(b"cas/%d" % n, revisions[n], VALUE)
                if revision is None:
                    raise RuntimeError("a key changed that nobody else writes")
                revisions[n] = revision

            return cas
    raise SystemExit(f"no work {work.work!r}")


async def steady(there: Store, work: Work) -> Found:
    call = await prepare(there, work)
    spans: list[float] = []
    begin = perf_counter() + WARM
    end = begin + work.seconds

    async def client(n: int) -> None:
        start = perf_counter()
        while start < end:
            await call(n)
            now = perf_counter()
            if start >= begin:
                spans.append((now - start) * 1e3)
            start = now

    async with asyncio.TaskGroup() as group:
        for n in range(work.clients):
            group.create_task(client(n))
    return Found(rate=len(spans) / (perf_counter() - begin), spans=spans)


async def watch(there: Store, work: Work) -> Found:
    """From the call of each put to the event at each watcher, one put at a time."""
    key, spans, sent = b"watched", list[float](), 0.0
    first = await there.put(key, VALUE) + 1
    ready, left = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def watcher() -> None:
        seen = 0
        async for value in there.watch(key, first):
            if value is None:
                ready.release()
                continue
            spans.append((perf_counter() - sent) * 1e3)
            left.release()
            seen += 1
            if seen == SEEN:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(work.clients):
            group.create_task(watcher())
        for _ in range(work.clients):
            await ready.acquire()
        for _ in range(SEEN):
            await asyncio.sleep(BETWEEN)
            sent = perf_counter()
            await there.put(key, VALUE)
            for _ in range(work.clients):
                await left.acquire()
    return Found(rate=len(spans) / SEEN, spans=spans)


async def failover(there: Store, work: Work) -> Found:
    """From kill -9 of the leader to the first acknowledged put that was sent after it."""
    for _ in range(50):
        await there.put(b"failover", VALUE)
    os.kill(work.pid, signal.SIGKILL)
    return await until_taken(there, perf_counter(), work.within)


async def until_taken(there: Store, since: float, within: float) -> Found:
    """Milliseconds from `since` until a put is acknowledged; it is tried again and again."""
    said = ""
    while perf_counter() < since + within:
        try:
            await there.put(b"failover", VALUE, within=PATIENCE)
            return Found(spans=[(perf_counter() - since) * 1e3])
        except Exception as error:  # of whatever library: it is tried again, and told at the end
            said = f"{type(error).__name__}: {error}"
            await asyncio.sleep(PAUSE)
    return Found(error=f"no put was taken within {within:g} s; at last: {said}")


async def run(work: Work) -> Found:
    there = await store(work.store).open(work.endpoints, -(-work.clients // SHARED))
    try:
        match work.work:
            case "watch":
                return await watch(there, work)
            case "failover":
                return await failover(there, work)
            case "first":
                print("here", flush=True)
                since = float(await asyncio.to_thread(sys.stdin.readline))
                return await until_taken(there, since, work.within)
        return await steady(there, work)
    except Exception as error:  # of whatever library: it is the result
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return Found(error=f"{type(first).__name__}: {first}")
    finally:
        await there.close()


def main() -> None:
    fields: dict[str, Any] = json.loads(sys.argv[1])
    found = asyncio.run(run(Work(**fields))).settle()
    print(json.dumps({name: getattr(found, name) for name in Found.__struct_fields__}), flush=True)


if __name__ == "__main__":
    main()
