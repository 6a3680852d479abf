"""Round trips of a small request over loopback, beside a bare asyncio TCP echo of as many bytes.

Both servers run in a process of their own. Rounds of the two take turns, so that whatever else
the machine does hits both; printed are medians with their range over the rounds, and ratios.

    python benchmarks/rpc.py [--rounds 5] [--seconds 0.6]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from msgspec import Struct

from grampus.rpc.client import connect
from grampus.rpc.codec import Codec, Request
from grampus.rpc.connection import Connection
from grampus.rpc.frames import frame
from grampus.rpc.server import Server

#: Requests under way at once in the second measurement.
SIDE_BY_SIDE = 64


class Ping(Struct, frozen=True, array_like=True, tag="ping"):
    session: int
    n: int
    text: str


CODEC = Codec[Ping](Ping)
PING = Ping(17, 123_456, "a short line of text")
FRAME = frame(CODEC.encode(Request(1, PING)))


class Echo:
    def messages(self, connection: Connection[Ping], batch: list[Ping]) -> None:
        raise AssertionError("nobody sends one-way messages here")

    async def request(self, connection: Connection[Ping], message: Ping) -> Ping:
        return message

    def closed(self, connection: Connection[Ping], reason: str) -> None:
        pass


class BareEcho(asyncio.Protocol):
    """Gives back what it gets: the least that asyncio can do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class BareCall(asyncio.Protocol):
    """Counts bytes: an answer is as long as a question, and they come back in order."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        whole, self._got = divmod(self._got + len(data), len(FRAME))
        for future in self._waiting[:whole]:
            future.set_result(None)
        del self._waiting[:whole]

    async def call(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._transport.write(FRAME)
        await future

    def close(self) -> None:
        self._transport.close()


def serve(ports: multiprocessing.connection.Connection) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            server = Server(
                CODEC, Echo(), lambda hello, peer, subject: (PING, True, 1 << 17), tasks
            )
            await server.start("127.0.0.1", 0)
            bare = await asyncio.get_running_loop().create_server(BareEcho, "127.0.0.1", 0)
            ports.send((server.port, bare.sockets[0].getsockname()[1]))
            await asyncio.to_thread(ports.poll, None)
            bare.close()
            await server.close()

    asyncio.run(main())


async def measure(
    call: Callable[[], Awaitable[object]], side_by_side: int, seconds: float
) -> tuple[float, list[float]]:
    """Round trips per second, and the microseconds that each took."""
    spans: list[float] = []
    begin = perf_counter()

    async def caller() -> None:
        start = perf_counter()
        while start < begin + seconds:
            await call()
            end = perf_counter()
            spans.append((end - start) * 1e6)
            start = end

    async with asyncio.TaskGroup() as group:
        for _ in range(side_by_side):
            group.create_task(caller())
    return len(spans) / (perf_counter() - begin), spans


async def compare(rpc_port: int, bare_port: int, rounds: int, seconds: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        connection, _ = await connect(
            "127.0.0.1", rpc_port, CODEC, Echo(), PING, lambda answer: 1 << 17, 5.0, tasks=tasks
        )
        _, bare = await asyncio.get_running_loop().create_connection(
            BareCall, "127.0.0.1", bare_port
        )
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "rpc": lambda: connection.request(PING, 5.0),
            "bare": bare.call,
        }
        for call in calls.values():
            await measure(call, 1, 0.1)
        for side_by_side in (1, SIDE_BY_SIDE):
            rates: dict[str, list[float]] = {name: [] for name in calls}
            middle: dict[str, list[float]] = {name: [] for name in calls}
            worst: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    rate, spans = await measure(call, side_by_side, seconds)
                    hundredths = statistics.quantiles(spans, n=100)
                    rates[name].append(rate)
                    middle[name].append(hundredths[49])
                    worst[name].append(hundredths[98])
            print(f"{side_by_side} at a time, {len(FRAME)} bytes each way, {rounds} rounds")
            for what, found in (("calls/s", rates), ("p50 µs", middle), ("p99 µs", worst)):
                show(what, found["rpc"], found["bare"])
        connection.close("done")
        bare.close()


def show(what: str, rpc: list[float], bare: list[float]) -> None:
    ratios = [a / b for a, b in zip(rpc, bare, strict=True)]

    def text(values: list[float], digits: int = 0) -> str:
        low, mid, high = min(values), statistics.median(values), max(values)
        return f"{mid:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"

    print(f"  {what:8} rpc {text(rpc):28} bare {text(bare):28} ratio {text(ratios, 2)}")


def main(argv: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description="Round trips of rpc beside a bare TCP echo.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6, help="length of one measurement")
    args = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        if not here.poll(10):
            raise SystemExit("the servers did not start within 10 s")
        rpc_port, bare_port = here.recv()
        asyncio.run(compare(rpc_port, bare_port, args.rounds, args.seconds))
    finally:
        here.send(None)
        server.join(10)


if __name__ == "__main__":
    main(sys.argv[1:])
