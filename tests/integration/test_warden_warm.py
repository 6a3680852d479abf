"""Python attempts in forks of a prepared process: as contained, fresh and mortal as others."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from warden_ground import Ground, is_alive, play, until

from grampus.model.workflow import Python, Task
from grampus.protocol import Invocation
from grampus.tasks.launch import Place, Process, prepare
from grampus.tasks.output import Found, FoundError, find
from grampus.worker.orders import Ended, Launch, Started, Warm
from grampus.worker.process_tree import children, descendants

KIND = "pid-namespace"
SLOTS = 2


class House:
    """A ground with a bundle of one module, and attempts of its functions."""

    def __init__(self, ground: Ground, source: str) -> None:
        self.ground = ground
        self.bundle = ground.folder / "bundle"
        self.bundle.mkdir(exist_ok=True)
        (self.bundle / "mod.py").write_text(source)
        self._next = 0

    def process(self, n: int, call: str, args: dict[str, object], **task: object) -> Process:
        spec = msgspec.json.encode(Task("t", Python(f"mod:{call}", args), **task))  # type: ignore[arg-type]
        work = Invocation(
            run="run",
            workflow="flow",
            version=1,
            task="t",
            attempt=n,
            fencing_token=1000 + n,
            spec=spec,
            params=b"{}",
            tick=0,
            tz="UTC",
            inputs={},
            bundle=None,
        )
        path = "/usr/local/bin:/usr/bin:/bin"
        env = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        if "PYTHONPATH" in os.environ:  # The packages of an interpreter without them.
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        place = Place(env, "/")
        return prepare(work, place, str(self.bundle), str)

    def start(
        self, call: str, timeout: int | None = None, grace: int = 5_000, **args: object
    ) -> int:
        self._next += 1
        n = self._next
        process = self.process(n, call, args)
        assert process.warm is not None
        warm = Warm(*process.warm)
        launch = Launch(
            n, process.argv, process.env, process.cwd, timeout, grace, f"run/task.{n}", warm, 1,
            process.spec,
        )  # fmt: skip
        self.ground.client.send(launch)
        return n

    async def run(self, call: str, **args: object) -> tuple[Ended, object]:
        n = self.start(call, **args)  # type: ignore[arg-type]
        return await self.ground.ended(n), self.result(n)

    def result(self, n: int) -> object:
        (end,) = [e for e in self.ground.said if isinstance(e, Ended) and e.n == n]
        if not end.output:
            return None
        data = end.small if end.small is not None else self.ground.file(n, "output").read_bytes()
        found = find(io.BytesIO(data), shell=False)
        if isinstance(found, FoundError):
            return found.error
        assert isinstance(found, Found)
        return msgspec.json.decode(data[found.offset :])

    async def is_warm(self, n: int) -> bool:
        return await self.ground.slot_of(n) >= SLOTS

    async def warm_up(self, slots: int = 1, call: str = "nothing") -> None:
        """Until so many attempts at a time start warm."""
        async with asyncio.timeout(20):
            while True:
                numbers = [self.start(call) for _ in range(slots)]
                for n in numbers:
                    await self.ground.ended(n)
                if all([await self.is_warm(n) for n in numbers]):
                    return

    def log(self) -> str:
        return (self.ground.folder / "warden.log").read_text()

    def outer(self) -> int:
        """The shim around the prepared process."""
        for shim in children(self.ground.client.pid):
            for pid in children(shim):
                if b"grampus.worker.prepared" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return shim
        raise AssertionError("nothing is prepared")

    def spares(self) -> list[int]:
        """Below the warm shims, while no attempt runs."""
        return [pid for shim in children(self.outer()) for pid in children(shim)]

    async def rested(self) -> set[int]:
        """What is below the outer shim once no spare waits there any more."""

        def look() -> set[int]:
            outer = self.outer()
            before, found, after = self.spares(), descendants(outer), self.spares()
            return set() if before or after else set(found)

        return await until(look, "no spare waits")


NOTHING = "def nothing(): return None\n"


def tell(
    folder: Path, source: str, story: Callable[[House], Awaitable[None]], cap: int = 1 << 20
) -> None:
    async def begin(ground: Ground) -> None:
        await story(House(ground, NOTHING + source))

    play(begin, folder, KIND, SLOTS, cap)


def test_the_third_attempt_starts_warm_and_says_the_same(tmp_path: Path) -> None:
    source = """
import os, sys, atexit, random
from grampus.sdk.context import context
atexit.register(lambda: print("at exit"))
print("imported")
def look():
    print("out"); print("err", file=sys.stderr)
    here = context()
    return [here.run, here.task, here.attempt, here.fencing_token, os.getcwd(), sys.argv,
            os.environ["GRAMPUS_ATTEMPT"], sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
            os.getsid(0) == os.getpid(), os.read(0, 1).decode(), sys.stdout.line_buffering]
def chance(): return random.random()
def fail(): raise ValueError("bad month")
def leave(): sys.exit(7)
"""

    async def story(house: House) -> None:
        cold, first = await house.run("look")
        await house.warm_up()
        n = house.start("look")
        warm, second = await house.ground.ended(n), house.result(n)
        assert await house.is_warm(n)
        assert (warm.cause, warm.exit) == (cold.cause, cold.exit) == ("exit", 0)
        assert isinstance(first, list)
        assert isinstance(second, list)
        assert second[2:4] == [n, 1000 + n]
        assert second[6] == str(n)
        for i in (2, 3, 6):
            first[i] = second[i]
        assert first == second
        assert house.ground.file(1, "out").read_text() == "imported\nout\nat exit\n"
        assert house.ground.file(n, "out").read_text() == "out\nat exit\n"
        assert house.ground.file(n, "err").read_text() == "err\n"
        drawn = {(await house.run("chance"))[1] for _ in range(3)}
        assert len(drawn) == 3
        n = house.start("fail")
        end = await house.ground.ended(n)
        assert (end.exit, house.result(n)) == (1, "ValueError: bad month")
        text = house.ground.file(n, "err").read_text()
        assert text.startswith("Traceback")
        assert "grampus" not in text.replace(str(house.bundle), "")
        assert (await house.run("leave"))[0].exit == 7

    tell(tmp_path, source, story)


def test_attempts_do_not_see_each_other(tmp_path: Path) -> None:
    source = """
import os
seen = []
def remember(word):
    seen.append(word); os.environ["LEFT"] = word; os.umask(0); os.chdir("/")
    return seen
def recall(): return [seen, os.environ.get("LEFT"), os.umask(0o22) == 0, os.getcwd()]
"""

    async def story(house: House) -> None:
        await house.warm_up()
        assert (await house.run("remember", word="a"))[1] == ["a"]
        assert (await house.run("remember", word="b"))[1] == ["b"]
        assert (await house.run("recall"))[1] == [[], None, False, str(house.bundle)]

    tell(tmp_path, source, story)


FAMILY = """
import os, subprocess, sys, time, signal
def family():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: time.sleep(600)
            time.sleep(600)
    subprocess.Popen(["setsid", "sleep", "600"], env={})
    print("up"); time.sleep(600)
def leave_behind():
    subprocess.Popen(["setsid", "sleep", "600"], env={}, start_new_session=True)
def polite():
    def leave(*_): print("saved"); sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
    print("up"); time.sleep(600)
def plain(): print("up"); time.sleep(600)
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
"""


async def family(house: House, call: str = "family", **more: int) -> tuple[int, list[int]]:
    n = house.start(call, **more)
    await house.ground.written(house.ground.live(await house.ground.slot_of(n)), "up")
    assert await house.is_warm(n)
    return n, descendants(house.outer())


def test_whatever_ends_a_warm_attempt_nothing_of_it_is_left(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.warm_up()
        base = await house.rested()
        n, _ = await family(house, "polite")
        house.ground.end(n)
        end = await house.ground.ended(n)
        assert (end.cause, end.exit) == ("end", 0)
        assert house.ground.file(n, "out").read_text() == "up\nsaved\n"
        n, _ = await family(house, "plain")
        house.ground.end(n)
        assert (await house.ground.ended(n)).exit == -signal.SIGTERM
        n, pids = await family(house, timeout=300, grace=50)
        end = await house.ground.ended(n)
        assert (end.cause, end.exit) == ("timeout", -signal.SIGKILL)
        assert [p for p in pids if is_alive(p) and p not in base] == []
        assert (await house.run("leave_behind"))[0].exit == 0
        assert await house.rested() == base
        n = house.start("nothing")
        assert (await house.ground.ended(n)).exit == 0
        assert await house.is_warm(n)

    tell(tmp_path, FAMILY, story)


SPARE = """
import os, random
from grampus.sdk.context import context
seen = []
def look():
    with open("/proc/self/status") as file: status = file.read()
    seen.append(1)
    return [status.partition("NSpid:")[2].split()[:3], context().attempt, os.getcwd(), len(seen),
            sorted(map(int, os.listdir("/proc/self/fd")))[:-1], os.getsid(0) == os.getpid()]
def draw(): return random.random()
"""


def number_within(pid: int) -> str:
    """As its own namespace numbers it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return status.partition("NSpid:")[2].split("\n")[0].split()[-1]


def test_a_spare_that_waits_becomes_the_next_attempt(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.warm_up()
        for _ in range(3):
            (spare,) = await until(house.spares, "a spare waits")
            number = number_within(spare)
            n = house.start("look")
            assert (await house.ground.ended(n)).exit == 0
            found = house.result(n)
            assert isinstance(found, list)
            assert number in found[0]
            assert found[1:] == [n, str(house.bundle), 1, [0, 1, 2], True]
        drawn = {(await house.run("draw"))[1] for _ in range(3)}
        assert len(drawn) == 3

    tell(tmp_path, SPARE, story)


def test_a_spare_that_nobody_wants_goes_and_one_that_is_killed_is_not_missed(
    tmp_path: Path,
) -> None:
    async def story(house: House) -> None:
        await house.warm_up()
        (spare,) = await until(house.spares, "a spare waits")
        os.kill(spare, signal.SIGKILL)
        await until(lambda: not is_alive(spare), "it is gone")
        assert (await house.run("draw"))[0].exit == 0
        await until(lambda: house.spares() not in ([], [spare]), "another spare waits")
        await house.rested()
        n = house.start("draw")
        assert (await house.ground.ended(n)).exit == 0
        assert await house.is_warm(n)

    tell(tmp_path, SPARE, story)


@pytest.mark.parametrize("victim", ["warm shim", "prepared process", "outer shim"])
def test_kill_9_is_told_when_all_is_gone(tmp_path: Path, victim: str) -> None:
    async def story(house: House) -> None:
        await house.warm_up()
        outer = house.outer()
        prepared = min(children(outer))
        n, pids = await family(house)
        inner = [pid for pid in children(outer) if pid != prepared]
        target = {"warm shim": inner[0], "prepared process": prepared, "outer shim": outer}[victim]
        os.kill(target, signal.SIGKILL)
        end = await house.ground.ended(n)
        assert (end.cause, end.exit, end.stdout) == ("lost", None, 3)
        assert [p for p in pids if is_alive(p) and p != prepared] == []
        if victim != "warm shim":  # It is no part of the attempt, and may take a moment longer.
            await until(lambda: not is_alive(prepared), "the prepared process is gone")
        assert (await house.run("nothing"))[0].exit == 0
        if victim == "warm shim":
            await house.warm_up()
            assert house.outer() == outer

    tell(tmp_path, FAMILY, story)


def test_kill_9_of_the_warden_takes_all_of_it_along(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.warm_up()
        _, pids = await family(house)
        os.kill(house.ground.client.pid, signal.SIGKILL)
        await asyncio.wait_for(house.ground.gone.wait(), 5)
        await until(lambda: not any(map(is_alive, pids)), "all of it is gone")
        await house.ground.start()

    tell(tmp_path, FAMILY, story)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("GRAMPUS_WARM = False", "GRAMPUS_WARM = False"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
         "starts threads"),
        ("import socket; left = socket.socket()", "files or sockets open"),
        ("import os\nif 'GRAMPUS_TASK' not in os.environ: raise RuntimeError('no')", "no"),
        ("import os\nif 'GRAMPUS_TASK' not in os.environ: os._exit(3)", "it died"),
    ],
    ids=["asked", "threads", "socket", "raises", "exits"],
)  # fmt: skip
def test_what_cannot_be_shared_starts_cold(tmp_path: Path, source: str, reason: str) -> None:
    async def story(house: House) -> None:
        for _ in range(2):
            assert (await house.run("nothing"))[0].exit == 0
        await until(lambda: reason in house.log() or None, f"declined: {reason}")
        for _ in range(2):
            n = house.start("nothing")
            assert (await house.ground.ended(n)).exit == 0
            assert not await house.is_warm(n)

    tell(tmp_path, source, story)


def test_attempts_that_crash_again_start_cold(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.warm_up()
        for _ in range(2):
            n = house.start("crash")
            assert (await house.ground.ended(n)).exit == -signal.SIGSEGV
            assert await house.is_warm(n)
        n = house.start("crash")
        assert (await house.ground.ended(n)).exit == -signal.SIGSEGV
        assert not await house.is_warm(n)
        assert "its attempts crash" in house.log()

    tell(tmp_path, FAMILY, story)


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs numpy")
def test_a_module_whose_import_starts_the_threads_of_blas(tmp_path: Path) -> None:
    source = """
import os, numpy as np
a = np.ones((600, 600))
b = a @ a  # Its threads are there.
threads = len(os.listdir("/proc/self/task"))
def matmul(): return [float((a @ a).sum()), threads, float(np.random.rand())]
"""

    async def story(house: House) -> None:
        await house.warm_up(call="matmul")
        drawn = set()
        for _ in range(5):
            n = house.start("matmul")
            assert (await house.ground.ended(n, 5)).exit == 0
            assert await house.is_warm(n)
            total, threads, chance = house.result(n)  # type: ignore[misc]
            assert total == 600.0**3
            assert threads > 1 or os.cpu_count() == 1
            drawn.add(chance)
        assert len(drawn) == 5

    tell(tmp_path, source, story)


def test_both_slots_are_warm_at_once_and_no_more_run_than_there_are(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.warm_up(slots=2)
        first, second = await family(house, "plain"), await family(house, "plain")
        third = house.start("nothing")
        await asyncio.sleep(0.1)
        assert house.ground.count(Started, third) == 0
        house.ground.end(first[0])
        assert (await house.ground.ended(third)).exit == 0
        house.ground.end(second[0])
        await house.ground.ended(second[0])

    tell(tmp_path, FAMILY, story)
