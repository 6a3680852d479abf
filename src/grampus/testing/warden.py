"""Models of the machine, its wardens and their attempts.

As in `worker.keeper`: an attempt is over when nothing of it is left, a warden without a worker ends
what it runs, and the next one is ready only when nothing of an earlier one lives.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from grampus.testing.watch import Execution, Watch
from grampus.testing.world import ProcessLoop, World
from grampus.worker import orders
from grampus.worker.warden_client import WardenFailed

Cause = Literal["exit", "timeout", "end", "spawn", "lost"]
#: Grace when the worker is gone, in ms.
LAST_GRACE = 10_000


class Machine:
    """What processes share: the boot, and what runs."""

    def __init__(self, world: World, watch: Watch, folder: Path) -> None:
        self.world = world
        self.watch = watch
        self.folder = folder
        self.boots = 1
        self.wardens: list[Warden] = []
        self._instances = 0

    def boot_id(self) -> str:
        return f"boot{self.boots}"

    def instance(self) -> str:
        self._instances += 1
        return f"warden{self._instances}"

    @property
    def quiet(self) -> bool:
        """Nothing of any warden lives."""
        return not any(warden.alive or warden.attempts for warden in self.wardens)

    def reboot(self) -> None:
        for warden in self.wardens:
            warden.vanish()
        self.wardens.clear()
        self.boots += 1


class Attempt:
    def __init__(self, launch: orders.Launch, slot: int, chance: random.Random) -> None:
        self.launch = launch
        self.slot = slot
        self.name = Execution.of(launch.stem)
        self.over = False
        self.halted: Cause | None = None
        kind = chance.random()
        self.exit = 0 if kind < 0.8 else chance.choice([1, 2, -9])
        long = 60.0 if kind > 0.97 else 3.0
        self.seconds = chance.choice([0.001, chance.uniform(0, 0.2), chance.uniform(0, long)])
        #: How long it takes to obey TERM; longer than its grace is never.
        self.obeys = chance.choice([0.002, chance.uniform(0, 12)])
        self.output = b"size=%d\n" % chance.randrange(9) if chance.random() < 0.5 else b""
        self.stderr = b"no such file\n" if self.exit and chance.random() < 0.5 else b""


class Warden:
    def __init__(self, machine: Machine, slots: int, client: SimWardenClient) -> None:
        self.machine = machine
        self.world = machine.world
        self.instance = machine.instance()
        self.alive = True
        self.stopping = False
        self.attempts: dict[int, Attempt] = {}
        self._slots = slots
        self._queue: list[orders.Launch] = []
        self._seen: set[int] = set()
        self._client: SimWardenClient | None = client
        machine.wardens.append(self)

    # -- its worker -------------------------------------------------------------------------------

    def hear(self, order: orders.Order) -> None:
        if not self.alive:
            return
        match order:
            case orders.Launch(n):
                self._launch(order, n)
            case orders.End(n):
                for launch in [launch for launch in self._queue if launch.n == n]:
                    self._queue.remove(launch)
                    self._refuse(n, "end", "ended before it was started")
                if n in self.attempts:
                    self._halt(self.attempts[n], "end", self.attempts[n].launch.grace)
            case orders.Shutdown(grace):
                self._stop(grace)

    def worker_gone(self) -> None:
        if self.alive:
            self._client = None
            self._stop(LAST_GRACE)

    def _say(self, notice: orders.Notice) -> None:
        if self._client is not None:
            self._client.come(notice)

    def _launch(self, launch: orders.Launch, n: int) -> None:
        if n in self.attempts or any(n == queued.n for queued in self._queue):
            return
        if n in self._seen:
            self._refuse(n, "spawn", f"number {n} was used before")
            return
        self._seen.add(n)
        if self.stopping:
            self._refuse(n, "end", "the warden is ending")
        else:
            self._queue.append(launch)
            self._serve()

    def _serve(self) -> None:
        while self._queue and len(self.attempts) < self._slots:
            launch = self._queue.pop(0)
            chance = random.Random(f"{self.world.seed}/{launch.stem}")
            free = min(set(range(self._slots)) - {a.slot for a in self.attempts.values()})
            attempt = self.attempts[launch.n] = Attempt(launch, free, chance)
            self.world.say(f"{self.instance} starts {launch.stem} as {launch.n}")
            self.machine.watch.begins(attempt.name)
            self._say(orders.Started(launch.n, free, self.world.now()))
            self.world.after(attempt.seconds, partial(self._exits, attempt))
            if launch.timeout is not None:
                self.world.after(
                    launch.timeout / 1000, partial(self._halt, attempt, "timeout", launch.grace)
                )

    def _refuse(self, n: int, cause: Cause, error: str) -> None:
        self._say(orders.Ended(n, self.world.now(), cause, None, error, 0, 0, False))

    def _stop(self, grace: int) -> None:
        self.stopping = True
        for launch in self._queue:
            self._refuse(launch.n, "end", "ended before it was started")
        self._queue.clear()
        for attempt in list(self.attempts.values()):
            self._halt(attempt, "end", min(grace, attempt.launch.grace))
        self._leave()

    def _leave(self) -> None:
        if self.alive and self.stopping and not self.attempts:
            self.alive = False
            if self._client is not None:
                self._client.end()

    # -- attempts ---------------------------------------------------------------------------------

    def _halt(self, attempt: Attempt, cause: Cause, grace: int) -> None:
        if attempt.over or not self.alive:
            return
        attempt.halted = attempt.halted or cause
        self.world.after(min(attempt.obeys, grace / 1000), partial(self._killed, attempt))

    def _exits(self, attempt: Attempt) -> None:
        if not attempt.over and self.alive:
            self._end(attempt, attempt.halted or "exit", attempt.exit)

    def _killed(self, attempt: Attempt) -> None:
        if not attempt.over and self.alive:
            self._end(attempt, attempt.halted or "end", -15)

    def _end(self, attempt: Attempt, cause: Cause, code: int) -> None:
        self._gone(attempt)
        launch = attempt.launch
        self.world.say(f"{launch.stem} is over: {cause} {code}")
        for suffix, data in (("output", attempt.output), ("err", attempt.stderr)):
            if data:
                path = self.machine.folder / "attempts" / f"{launch.stem}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        self._say(
            orders.Ended(
                launch.n, self.world.now(), cause, code, "", 0, len(attempt.stderr),
                bool(attempt.output),
            )
        )  # fmt: skip
        self._serve()
        self._leave()

    def _gone(self, attempt: Attempt) -> None:
        attempt.over = True
        del self.attempts[attempt.launch.n]
        self.machine.watch.ends(attempt.name)

    def kill(self) -> None:
        """kill -9: its attempts die with it, a moment later."""
        if not self.alive:
            return
        self.alive = False
        for attempt in list(self.attempts.values()):
            self.world.after(self.world.rng.uniform(0, 0.1), partial(self._dies, attempt))
        if self._client is not None:
            self._client.end()

    def _dies(self, attempt: Attempt) -> None:
        if not attempt.over:
            self._gone(attempt)

    def vanish(self) -> None:
        """The machine is off."""
        self.alive = False
        for attempt in list(self.attempts.values()):
            self._gone(attempt)


class SimWardenClient:
    """What the worker's driver knows of a warden. Stands for `WardenClient`."""

    containment = "simulated"

    def __init__(
        self,
        loop: ProcessLoop,
        notice: Callable[[list[orders.Notice]], None],
        gone: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.world = loop.world
        self.instance = ""
        self.warden: Warden | None = None
        self.closed = asyncio.Event()
        self._notice = notice
        self._gone = gone
        self._asked = False
        self._order = 0.0

    @classmethod
    async def start(
        cls,
        machine: Machine,
        slots: int,
        notice: Callable[[list[orders.Notice]], None],
        gone: Callable[[], None],
    ) -> SimWardenClient:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        client = cls(loop, notice, gone)
        await asyncio.sleep(loop.world.rng.uniform(0.05, 0.3))
        for _ in range(3_000):
            if machine.quiet:
                break
            await asyncio.sleep(0.01)
        else:
            raise WardenFailed("another warden still has attempts in this folder")
        client.warden = Warden(machine, slots, client)
        client.instance = client.warden.instance
        client.come(orders.Ready(client.instance, cls.containment, []))
        return client

    def send(self, order: orders.Order) -> None:
        warden = self.warden
        if warden is not None and self.loop.alive and not self.closed.is_set():
            self._later(lambda: warden.hear(order))

    def come(self, notice: orders.Notice) -> None:
        self._later(lambda: self._hear(notice))

    def end(self) -> None:
        self._later(self._over)

    def _hear(self, notice: orders.Notice) -> None:
        if self.loop.alive:
            self.loop.call_soon(self._notice, [notice])

    def _over(self) -> None:
        if self.loop.alive:
            self.loop.call_soon(self._closed)

    def _closed(self) -> None:
        self.closed.set()
        if not self._asked:
            self._gone()

    def _later(self, do: Callable[[], None]) -> None:
        """In order, as on a socket; both ways share one order, which is stricter than it is."""
        self._order = max(self._order, self.world.time + self.world.rng.uniform(0.00002, 0.001))
        self.world.after(self._order - self.world.time, do)

    async def stop(self, grace: int) -> None:
        self._asked = True
        self.send(orders.Shutdown(grace))
        try:
            async with asyncio.timeout(grace / 1000 + 5):
                await self.closed.wait()
        except TimeoutError:
            raise WardenFailed("the warden cannot end all its attempts") from None
