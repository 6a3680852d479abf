"""Workers on machines of their own under faults, from a seed: who is not heard is fenced, and its
attempts start elsewhere, never beside themselves: `python -m grampus.testing.crew --seed N`.

There are two servers, of which one leads; which one changes, and it may not know. `Watch` looks at
every start and every end: two executions of one task never overlap, unless a person has declared
one of them lost, or its machine stood still. Then nothing fails any more, and within a bound of
virtual time every run must be final.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from grampus.errors import GrampusError
from grampus.model.lease import KEEP
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.runs.commands import ApplyWorkflow, Command, SubmitRun, pack_definition
from grampus.testing.log import Disk
from grampus.testing.machine import Machine
from grampus.testing.node import NODE_PORT, SimServer, SimWorker, simulated
from grampus.testing.rivals import Court, RivalLog, Signpost
from grampus.testing.seeds import Outcome, play, report
from grampus.testing.watch import Watch, at_rest, check_end, equal_to_replay
from grampus.testing.world import World, current

MODULE = "grampus.testing.crew"
#: Virtual seconds of faults, and after which everything must be over.
FAULTS, PATIENCE = 120.0, 900.0
SERVERS, WORKERS = ("s1", "s2"), ("w1", "w2", "w3")
FAULT_KINDS = (
    "cut", "oneway", "stop", "sleep", "worker", "warden", "both", "machine", "server-stop",
    "usurp", "usurp-stop", "split", "split", "break", "clock",
)  # fmt: skip
RUNS = 12
#: How long attempts take, in seconds, by seed: many outlast a fault; or most are so short that
#: others are given ahead, and wait behind a long one.
LASTS = ((0.2, 15.0, 60.0), (0.002, 0.01, 0.01, 40.0))


class Crew:
    def __init__(self, seed: int, folder: Path) -> None:
        self.world = World(seed)
        self.watch = Watch(self.world)
        self.disk = Disk(self.world, self.watch)
        self.court = Court(self.disk)
        self.folder = folder
        lasts = self.world.rng.choice(LASTS)
        self.machines = {
            name: Machine(self.world, self.watch, folder / name / "worker", lasts)
            for name in WORKERS
        }
        self.servers: dict[str, SimServer] = {}
        self.workers: dict[str, SimWorker] = {}
        self._runs = 0

    def run(self) -> None:
        world = self.world
        with simulated(world, lambda: self.machines[current().name], self.watch):
            try:
                for number, name in enumerate(SERVERS):
                    self._start_server(name, NODE_PORT + number)
                for name in WORKERS:
                    self._start_worker(name)
                world.after(1.0, self._apply)
                self._plan()
                world.run(FAULTS)
                world.say("no more faults")
                self._mend()
                world.run(FAULTS + PATIENCE, lambda: not self._restless())
                left = self._restless()
                assert not left, f"after {PATIENCE:g} s without faults: {left}"
                check_end(self.disk.ledger)
                equal_to_replay(self.disk.ledger, self.disk.entries)
            finally:
                world.close()

    # -- processes --------------------------------------------------------------------------------

    def _start_server(self, name: str, port: int) -> None:
        loop = self.world.process(name)
        log = RivalLog(loop, self.disk, self.court, f"127.0.0.1:{port}")
        server = self.servers[name] = SimServer(
            loop, self.disk, self.folder / name, name,
            log=log, port=port, directory=Signpost(self.court),
        )  # fmt: skip
        loop.begin(server.run())

    def _start_worker(self, name: str) -> None:
        if name in self.workers:
            return
        self.world.say(f"{name} starts")
        loop = self.world.process(name)
        ports = [server.port for server in self.servers.values()]
        worker = self.workers[name] = SimWorker(loop, self.folder / name, name, ports, leased=True)
        loop.begin(worker.run())

    def _kill(self, name: str, again: float) -> None:
        if worker := self.workers.pop(name, None):
            self.world.kill(worker.loop)
        self.world.after(again, lambda: self._start_worker(name))

    # -- what is asked ----------------------------------------------------------------------------

    def _apply(self) -> None:
        rng = self.world.rng
        tasks = tuple(
            Task(
                name=f"t{i}", action=Shell("true"),
                after=(f"t{i - 1}",) if i and rng.random() < 0.5 else (),
                retry=Retry(max=1), slots=rng.choice([1, 1, 2, 3]), max_lost=100,
                lease=rng.choice([10_000, 10_000, 15_000, None, KEEP]),
                grace=rng.choice([0, 10_000, 60_000]),
            )
            for i in range(rng.randint(2, 5))
        )  # fmt: skip
        packed = pack_definition(Workflow("w", tasks).content())
        self._ask(lambda: ApplyWorkflow(self.world.now(), "w", packed), self._submit)

    def _submit(self) -> None:
        self._runs += 1
        run = f"run{self._runs}"
        self._ask(
            lambda: SubmitRun(self.world.now(), run, "w", 1, b"{}", "r", 0, self.world.now()),
            lambda: None,
        )
        if self._runs < RUNS:
            self.world.after(self.world.rng.uniform(0, 12), self._submit)

    def _ask(self, command: Callable[[], Command], then: Callable[[], None]) -> None:
        """Of whoever leads, until it answers."""
        answered: list[bool] = []

        async def ask(server: SimServer) -> None:
            try:
                await server.proposer.propose(command())
            except GrampusError:
                return
            if not answered:
                answered.append(True)
                then()

        def attempt() -> None:
            if answered:
                return
            self.world.after(3.0, attempt)
            for server in self.servers.values():
                if server.in_office.is_set():
                    server.loop.begin(ask(server))

        attempt()

    # -- faults -----------------------------------------------------------------------------------

    def _plan(self) -> None:
        world = self.world
        rng = random.Random(f"plan {world.seed}")
        chosen = rng.sample(FAULT_KINDS, rng.randint(1, 3))
        at = rng.uniform(3, 15)
        while at < FAULTS:
            kind = rng.choice(chosen)
            world.after(at, lambda kind=kind: self.fault(kind))  # type: ignore[misc]
            at += rng.uniform(0, rng.choice([0.5, 10.0, 40.0]))

    def fault(self, kind: str) -> None:
        world, rng = self.world, self.world.rng
        name = rng.choice(WORKERS)
        machine = self.machines[name]
        lasts = rng.choice([0.5, 4.0, 9.0, 12.0, 20.0, 35.0, 60.0])
        world.say(f"fault: {kind} {name} {lasts}")
        self.watch.seen[f"fault {kind}"] += 1
        match kind:
            case "cut":
                pairs = {frozenset((name, server)) for server in SERVERS}
                world.partition |= pairs
                world.after(lasts, lambda: world.partition.difference_update(pairs))
            case "oneway":
                ways = {(name, s) if rng.random() < 0.5 else (s, name) for s in SERVERS}
                world.oneway |= ways
                world.after(lasts, lambda: world.oneway.difference_update(ways))
            case "stop":
                self._hold(name, lasts)
            case "sleep":
                self._hold(name, lasts)
                machine.asleep_until = world.time + lasts
            case "worker":
                self._kill(name, lasts)
            case "warden":
                self._kill_warden(machine)
            case "both":
                self._kill_warden(machine)
                self._kill(name, lasts)
            case "machine":
                machine.reboot()
                self._kill(name, lasts)
            case "break":
                if world.wires:
                    rng.choice(world.wires).break_()
            case "clock":
                world.off = rng.choice([-60_000, 0, 60_000])
            case "split":
                self._split(name, lasts)
            case _:
                self._disturb_servers(kind, min(lasts, 20.0))

    def _disturb_servers(self, kind: str, lasts: float) -> None:
        chief = self.court.chief
        if chief is not None and kind != "usurp":
            chief.process.held_until = self.world.time + lasts
        if kind != "server-stop":
            self.court.usurp()

    def _split(self, name: str, lasts: float) -> None:
        """The leader and a worker are away from all others, and the leader is slow to notice."""
        world, chief = self.world, self.court.chief
        if chief is None:
            return
        pairs = {frozenset((name, s)) for s in SERVERS if s != chief.process.name}
        world.partition |= pairs
        world.after(lasts, lambda: world.partition.difference_update(pairs))
        self.court.usurp(unaware=world.rng.uniform(2.0, 9.0))

    def _hold(self, name: str, lasts: float) -> None:
        if worker := self.workers.get(name):
            worker.loop.held_until = self.world.time + lasts

    def _kill_warden(self, machine: Machine) -> None:
        for warden in machine.wardens:
            warden.kill()

    # -- the end ----------------------------------------------------------------------------------

    def _mend(self) -> None:
        world = self.world
        world.off = 0
        world.partition.clear()
        world.oneway.clear()
        for loop in world.loops:
            loop.held_until = 0.0

    def _restless(self) -> str:
        if self._runs < RUNS or len(self.workers) < len(WORKERS):
            return "not everything was asked for, or not everybody is there"
        if self.watch.running:
            return f"processes of {sorted(self.watch.running)} live"
        ledger = self.disk.ledger
        if ledger.applied_index < len(self.disk.entries):
            return "an entry of the log is not applied"
        count = ledger.database.value("SELECT count(*) FROM run")
        return at_rest(ledger) or ("" if count == RUNS else f"{count} runs of {RUNS}")


def run_seed(seed: int) -> Outcome:
    """Plays one seed to its end or to what is wrong."""
    return play(Crew, seed)


if __name__ == "__main__":
    raise SystemExit(report(MODULE, __doc__, run_seed))
