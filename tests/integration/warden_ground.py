"""Ground for tests of the warden: a real one in a folder of the test, and what it said so far."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from grampus.cli.checkup import probe_cgroup
from grampus.worker import cgroup
from grampus.worker.orders import End, Ended, Launch, Notice, Started, Stuck
from grampus.worker.process_tree import marked
from grampus.worker.warden_client import WardenClient

KINDS = ("pid-namespace", "subreaper")
#: For the tests in which it could make a difference.
ALL_KINDS = ("pid-namespace", "cgroup", "subreaper")
Said = TypeVar("Said", Started, Ended, Stuck)


class Ground:
    """Notices are waited for, each wait with a deadline."""

    def __init__(self, folder: Path, kind: str, slots: int, cap: int) -> None:
        self.folder = folder
        self.kind = kind
        self.slots = slots
        self.cap = cap
        self.attempts = folder / "attempts"
        self.said: list[Notice] = []
        self.gone = asyncio.Event()
        self._news = asyncio.Event()
        self._client: WardenClient | None = None

    @property
    def client(self) -> WardenClient:
        assert self._client is not None
        return self._client

    async def start(self, ready_timeout: float = 20, python: str = sys.executable) -> None:
        self._client = await WardenClient.start(
            self.folder,
            self.slots,
            self._heard,
            self.gone.set,
            python=python,
            containment=self.kind,
            output_cap=self.cap,
            ready_timeout=ready_timeout,
        )

    async def attach(self) -> None:
        self.gone.clear()
        self._client = await WardenClient.attach(self.folder, self._heard, self.gone.set)
        assert self._client is not None

    def launch(
        self,
        n: int,
        *argv: str,
        env: dict[str, str] | None = None,
        cwd: str = "/",
        timeout: int | None = None,
        grace: int = 5_000,
        slots: int = 1,
        lease: int | None = None,
    ) -> None:
        full = {"PATH": "/usr/local/bin:/usr/bin:/bin", **(env or {})}
        stem = f"run/task.{n}"
        launch = Launch(n, list(argv), full, cwd, timeout, grace, stem, None, slots, None, lease)
        self.client.send(launch)

    def sh(
        self,
        n: int,
        script: str,
        timeout: int | None = None,
        grace: int = 5_000,
        lease: int | None = None,
    ) -> None:
        self.launch(n, "/bin/sh", "-c", script, timeout=timeout, grace=grace, lease=lease)

    def end(self, n: int) -> None:
        self.client.send(End(n))

    async def wait(self, kind: type[Said], n: int, within: float = 15) -> Said:
        async with asyncio.timeout(within):
            while True:
                for notice in self.said:
                    if isinstance(notice, kind) and notice.n == n:
                        return notice
                self._news.clear()
                await self._news.wait()

    async def ended(self, n: int, within: float = 15) -> Ended:
        return await self.wait(Ended, n, within)

    def count(self, kind: type[Notice], n: int) -> int:
        return sum(isinstance(x, kind) and x.n == n for x in self.said)

    def file(self, n: int, suffix: str) -> Path:
        return self.attempts / "run" / f"task.{n}.{suffix}"

    async def written(self, path: Path, text: str = "", within: float = 15) -> str:
        """Waits until a file has (at least) this in it."""
        return await until(lambda: _content(path, text), f"{text!r} in {path}", within)

    async def slot_of(self, n: int) -> int:
        return (await self.wait(Started, n)).slot

    def live(self, slot: int, suffix: str = "out") -> Path:
        return self.attempts / f"slot{slot}.{suffix}"

    def _heard(self, batch: list[Notice]) -> None:
        self.said += batch
        self._news.set()


Something = TypeVar("Something")


async def until(ask: Callable[[], Something | None], what: str, within: float = 15) -> Something:
    """Asks again until the answer is true."""
    deadline = time.monotonic() + within
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"after {within} s still not: {what}")
        await asyncio.sleep(0.005)


def play(
    story: Callable[[Ground], Awaitable[None]],
    folder: Path,
    kind: str,
    slots: int = 4,
    cap: int = 1 << 20,
    python: str = sys.executable,
) -> None:
    """Tells a story on a fresh warden, ends it, and insists that nothing of it is left."""
    if kind == "pid-namespace":
        insist_on_namespaces()
    if kind == "cgroup":
        insist_on_cgroups()

    async def tell() -> None:
        ground = Ground(folder / "worker", kind, slots, cap)
        await ground.start(python=python)
        instance = ground.client.instance
        try:
            assert ground.client.containment == kind
            await story(ground)
        finally:
            await ground.client.stop(0)
            left = marked(instance)
            await until(lambda: not marked(instance), f"nothing is left of {left}")
        print(f"contained by {kind}")
        if kind == "cgroup":
            folders = [cgroup.path(each) for each in (instance, ground.client.instance)]
            assert not any(map(os.path.exists, folders))

    asyncio.run(tell())


def interpreter(folder: Path, prelude: str) -> str:
    """A Python that runs `prelude` before it becomes the warden."""
    program = f"import sys\n{prelude}\nfrom grampus.worker.warden import main\nsys.exit(main())\n"
    (folder / "prelude.py").write_text(program)
    script = folder / "python"
    # The client's own `-X utf8 -m grampus.worker.warden` makes room for the program.
    script.write_text(
        f'#!/bin/sh\nshift 4\nexec "{sys.executable}" -X utf8 "{folder}/prelude.py" "$@"\n'
    )
    script.chmod(0o700)
    return str(script)


_namespaces: str | None = None


def insist_on_namespaces() -> None:
    """Skips, with the reason, where the kernel does not let this user have PID namespaces."""
    global _namespaces
    if _namespaces is None:
        from grampus.worker.containment import PidNamespace

        containment = PidNamespace()
        _namespaces = ""
        try:
            pid = containment.fork(0)
            if pid == 0:
                try:
                    containment.enter()
                    os._exit(0)
                finally:
                    os._exit(1)
            if os.waitpid(pid, 0)[1]:
                _namespaces = "a PID namespace of one's own cannot be set up here"
        except OSError as error:
            _namespaces = f"no PID namespaces here: {error}"
    if _namespaces:
        pytest.skip(_namespaces)


_cgroups: str | None = None


def insist_on_cgroups() -> None:
    """Skips, with the reason, where this user has no cgroup v2 to make folders in."""
    global _cgroups
    if _cgroups is None:
        reason = probe_cgroup()
        _cgroups = f"no cgroup v2 for containment here: {reason}" if reason else ""
    if _cgroups:
        pytest.skip(_cgroups)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _content(path: Path, text: str) -> str | None:
    try:
        found = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    return found if found and text in found else None
