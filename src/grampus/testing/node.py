"""The processes of one node, made of the real parts: a server and a worker, together or apart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from grampus.blobs import Blobs
from grampus.master import driver as master_driver
from grampus.master import retention as master_retention
from grampus.master.blob_desk import BlobDesk
from grampus.master.core import triggers
from grampus.master.intake import Intake
from grampus.master.roster import Directory
from grampus.protocol import HELLO_FRAME, HELLO_TIMEOUT, Message
from grampus.rpc import server as rpc_server
from grampus.rpc.codec import Codec
from grampus.rpc.server import Server
from grampus.runs.proposer import Proposer
from grampus.testing.checked import CheckedCore, CheckedScheduler, NoisyLink, NoisyRoster
from grampus.testing.log import Disk, SimLog
from grampus.testing.machine import Machine
from grampus.testing.office import make_office
from grampus.testing.warden_client import SimWardenClient
from grampus.testing.watch import Watch
from grampus.testing.wire import Port
from grampus.testing.world import ProcessLoop, World
from grampus.worker import condition as worker_condition
from grampus.worker import driver as worker_driver
from grampus.worker import link as worker_link
from grampus.worker import registration, supervisor
from grampus.worker.driver import Worker

SLOTS = 3
NODE_PORT = 8471
#: How often retention looks, in seconds, and how many ticks are made up for: a day has many.
RETAIN_EVERY, CATCH_UP = 3.0, 4


class _NoLoad:
    def sample(self) -> None:
        return

    def average(self) -> tuple[int, int]:
        return 0, 0


Finder = Callable[[], Machine]


@contextlib.contextmanager
def simulated(world: World, machine: Finder, watch: Watch) -> Iterator[None]:
    """The drivers find the simulated world in the place of the real one. `machine` is the one on
    which the process runs that asks."""

    class Clock:
        def __init__(self) -> None:
            self.now, self.ticks = world.now, world.ticks

    class Client(SimWardenClient):
        @classmethod
        async def attach(cls, _: Any, *args: Any) -> SimWardenClient | None:
            return await SimWardenClient.attach(machine(), *args)

        @classmethod
        async def start(cls, _: Any, *args: Any) -> SimWardenClient:
            return await SimWardenClient.start(machine(), *args)

    class Core(CheckedCore):
        told = watch

    class Noise(NoisyLink):
        over = world

    swaps: list[tuple[Any, str, Any]] = [
        (worker_driver, "SystemClock", Clock),
        (supervisor, "WardenClient", Client),
        (worker_driver, "WorkerCore", Core),
        (worker_driver, "Link", Noise),
        (worker_condition, "LoadAverage", _NoLoad),
        (registration, "boot_id", lambda: machine().boot_id()),
        (registration, "machine_id", lambda: f"machine of {machine().folder}"),
        (worker_link, "random", world.rng),
        (rpc_server, "_listen", lambda _, port: Port(port)),
        (master_driver, "Scheduler", CheckedScheduler),
        (master_retention, "EVERY", RETAIN_EVERY),
        (triggers, "CATCH_UP", CATCH_UP),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in swaps]
    try:
        for module, name, value in swaps:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class SimServer:
    """Log, master, intake and node port in one process."""

    def __init__(
        self,
        loop: ProcessLoop,
        disk: Disk,
        folder: Path,
        boot: str,
        *,
        log: SimLog | None = None,
        port: int = NODE_PORT,
        directory: Directory | None = None,
    ) -> None:
        self.loop = loop
        self.port = port
        world = loop.world
        self._log = SimLog(loop, disk) if log is None else log
        self.proposer = Proposer(self._log)
        blobs = Blobs(folder / "blobs")
        self._intake = Intake(self.proposer, world)
        roster = self._roster = NoisyRoster(
            world, "n1", "sim", lambda hello: hello.credential == "secret", self.proposer,
            self._intake, BlobDesk(blobs), world, directory,
        )  # fmt: skip
        self._office = self._roster.office = make_office(
            world, self._log, self.proposer, roster, disk.ledger.database, folder, boot
        )
        self.in_office = self._office.held
        self._stop = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            listener: Server[Message] = Server(
                Codec(Message), self._roster, self._roster.greet, group,
                opened=self._roster.opened, hello_limit=HELLO_FRAME, hello_timeout=HELLO_TIMEOUT,
            )  # fmt: skip
            await listener.start("127.0.0.1", self.port)
            tasks = [
                group.create_task(self._intake.run()),
                group.create_task(self._office.run()),
            ]
            await self._stop.wait()
            await listener.close()
            for task in tasks:
                task.cancel()
        await self._log.close()

    def overload(self, seconds: float) -> None:
        self._log.refuse_until = self.loop.world.time + seconds

    def depose(self, seconds: float) -> None:
        self._log.depose(seconds)

    def admit_no_more(self) -> None:
        self._office.stop()

    def stop(self) -> None:
        self._stop.set()


class SimWorker:
    """The worker's driver in a process; its warden is a model."""

    def __init__(
        self,
        loop: ProcessLoop,
        folder: Path,
        name: str = "w1",
        ports: Sequence[int] = (NODE_PORT,),
        leased: bool = False,
    ) -> None:
        self.loop = loop
        self._worker = Worker(
            folder / "worker", name=name, slots=SLOTS,
            addresses=[("127.0.0.1", port) for port in ports],
            blobs=Blobs(folder / "blobs"), credential="secret", cluster="sim",
            leased=leased,
        )  # fmt: skip

    async def run(self) -> None:
        await self._worker.run()

    async def stop(self, grace: int) -> None:
        await self._worker.stop(grace)

    def leave(self) -> None:
        self._worker.leave()
