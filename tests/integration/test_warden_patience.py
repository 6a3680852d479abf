"""Where patience ends: what cannot be killed, who falls silent, and kernels that forbid namespaces.

The warden is the real one, with shorter spans.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from warden_ground import (
    ALL_KINDS,
    Ground,
    insist_on_cgroups,
    insist_on_namespaces,
    interpreter,
    is_alive,
    play,
    until,
)

from grampus.model.run import AttemptState
from grampus.worker.core.attempt import outcome
from grampus.worker.orders import Ended, Stuck, Trouble
from grampus.worker.process_tree import children, descendants
from grampus.worker.warden_client import WardenFailed

each = pytest.mark.parametrize("kind", ALL_KINDS)


@each
def test_what_cannot_be_killed_keeps_its_slot_and_is_told_again_and_again(
    kind: str, tmp_path: Path
) -> None:
    immortal = tmp_path / "immortal"
    python = interpreter(
        tmp_path,
        f"""
import os
import grampus.worker.containment as c, grampus.worker.shim as s, grampus.worker.keeper as k
s.STUCK_AFTER = k.STUCK_AFTER = 200
import grampus.worker.cgroup as g
for kind in (c.PidNamespace, c.Subreaper, g.Cgroup):
    def signal(self, number, real=kind.signal):
        if not os.path.exists({str(immortal)!r}):
            real(self, number)
    kind.signal = signal
""",
    )

    async def story(ground: Ground) -> None:
        immortal.touch()
        ground.sh(1, "sleep 600 & echo up; sleep 600", grace=50)
        ground.sh(2, "echo waits")
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        mine = descendants(children(ground.client.pid)[0])
        ground.end(1)
        first = await ground.wait(Stuck, 1)
        assert sorted(first.pids) == sorted(mine)
        assert len(mine) == 3
        await until(lambda: ground.count(Stuck, 1) >= 3, "it is told again and again")
        assert ground.count(Ended, 1) == ground.count(Ended, 2) == 0
        immortal.unlink()
        end = await ground.ended(1)
        assert (end.cause, end.exit) == ("end", -signal.SIGKILL)
        assert (await ground.ended(2)).stdout == 6

    play(story, tmp_path, kind, slots=1, python=python)


@each
def test_a_shim_that_falls_silent_is_killed_with_its_attempt(kind: str, tmp_path: Path) -> None:
    python = interpreter(
        tmp_path, "import grampus.worker.keeper as k\nk.SILENCE = 300\nk._BEAT = 50"
    )

    async def story(ground: Ground) -> None:
        for n, asked in ((1, True), (2, False)):
            timeout = None if asked else 1_000
            ground.sh(n, "sleep 600 & echo up; sleep 600", timeout=timeout, grace=50)
            await ground.written(ground.live(await ground.slot_of(n)), "up")
            [shim] = children(ground.client.pid)
            os.kill(shim, signal.SIGSTOP)
            below = descendants(shim)
            if asked:
                ground.end(n)
            end = await ground.ended(n)
            assert (end.cause, end.exit) == ("lost", None)
            assert not any(map(is_alive, (shim, *below)))
        ground.sh(3, "exit 3")
        assert (await ground.ended(3)).exit == 3

    async def warm(ground: Ground) -> None:
        ground.sh(0, "true")
        await ground.ended(0)
        await story(ground)

    play(warm, tmp_path, kind, slots=1, python=python)


def without_cgroups(folder: Path) -> str:
    """A Python that sees no cgroup v2."""
    return interpreter(folder, "import grampus.worker.cgroup as c\nc._homes = list")


def without_namespaces(folder: Path, python: str = sys.executable) -> str:
    """A Python that must not make namespaces; skips where that cannot be arranged."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("needs root and setpriv, to take the right to make namespaces away")
    script = folder / "bounded-python"
    drop = "--bounding-set=-sys_admin --inh-caps=-sys_admin"
    script.write_text(f'#!/bin/sh\nexec {setpriv} {drop} "{python}" "$@"\n')
    script.chmod(0o700)
    return str(script)


def test_where_namespaces_are_forbidden_the_subreaper_takes_over_and_says_why(
    tmp_path: Path,
) -> None:
    python = without_namespaces(tmp_path, without_cgroups(tmp_path))
    log = asyncio.run(choice(tmp_path, python, "subreaper"))
    assert "pid-namespace does not work here (clone3: Operation not permitted" in log
    assert "cgroup does not work here (no cgroup v2 is mounted)" in log
    assert "taking subreaper" in log


def test_where_namespaces_are_forbidden_a_cgroup_is_next(tmp_path: Path) -> None:
    python = without_namespaces(tmp_path)
    insist_on_cgroups()
    log = asyncio.run(choice(tmp_path, python, "cgroup"))
    assert "pid-namespace does not work here (clone3: Operation not permitted" in log
    assert "taking subreaper" not in log


async def choice(folder: Path, python: str, kind: str) -> str:
    """What `auto` takes; gives the log."""
    ground = Ground(folder / "worker", "auto", 1, 1 << 20)
    await ground.start(python=python)
    try:
        assert ground.client.containment == kind
        ground.sh(1, "exit 3")
        assert (await ground.ended(1)).exit == 3
    finally:
        await ground.client.stop(0)
    return (ground.folder / "warden.log").read_text()


def test_a_containment_that_was_asked_for_and_does_not_work_is_an_error(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "worker", "pid-namespace", 1, 1 << 20)
    with pytest.raises(WardenFailed, match="Operation not permitted"):
        asyncio.run(ground.start(python=without_namespaces(tmp_path)))


def test_a_cgroup_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "worker", "cgroup", 1, 1 << 20)
    with pytest.raises(WardenFailed, match="no cgroup v2 is mounted"):
        asyncio.run(ground.start(python=without_cgroups(tmp_path)))


def test_auto_takes_the_pid_namespace_where_it_works(tmp_path: Path) -> None:
    insist_on_namespaces()

    async def tell() -> None:
        ground = Ground(tmp_path / "worker", "auto", 1, 1 << 20)
        await ground.start()
        await ground.client.stop(0)
        assert ground.client.containment == "pid-namespace"

    asyncio.run(tell())


def starting_nothing(folder: Path) -> tuple[str, Path]:
    """A Python that can fork no shim, or no attempt, while the file holds the name of the call."""
    broken = folder / "broken"
    broken.write_text("")
    return interpreter(
        folder,
        f"""
import errno, os
import grampus.worker.containment as c, grampus.worker.cgroup as g, grampus.worker.keeper as k
k._BEAT = 1_000
def failing(call, name):
    def tried(*args, **kwargs):
        if open({str(broken)!r}).read() == name:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return call(*args, **kwargs)
    return tried
for kind in (c.PidNamespace, c.Subreaper, g.Cgroup):
    kind.fork = failing(kind.fork, "fork")
os.posix_spawn = failing(os.posix_spawn, "spawn")
""",
    ), broken


@each
@pytest.mark.parametrize("call", ["fork", "spawn"])
def test_what_the_machine_cannot_start_now_is_started_later(
    kind: str, call: str, tmp_path: Path
) -> None:
    python, broken = starting_nothing(tmp_path)

    async def story(ground: Ground) -> None:
        if call == "spawn":  # There is a shim already.
            ground.sh(9, "true")
            await ground.ended(9)
        broken.write_text(call)
        ground.sh(1, "exit 3")
        ground.sh(2, "exit 4")
        ground.sh(3, "exit 5")
        await until(lambda: troubles(ground) or None, "it is told")
        assert "Resource temporarily unavailable" in troubles(ground)[0]
        ground.end(3)
        assert (await ground.ended(3)).cause == "end"
        # A worker that comes meanwhile hears of it, and adopts what waits.
        ground.client.leave()
        ground.said.clear()
        await ground.attach()
        assert [(each.n, each.ended) for each in ground.client.running if each.n < 3] == [
            (1, False), (2, False)
        ]  # fmt: skip
        await until(lambda: troubles(ground) or None, "it is told again")
        assert ground.count(Ended, 1) == ground.count(Ended, 2) == 0
        broken.write_text("")
        assert [(await ground.ended(n)).exit for n in (1, 2)] == [3, 4]
        await until(lambda: troubles(ground)[-1] == "", "it is over", 15)

    play(story, tmp_path, kind, slots=1, python=python)


def test_what_the_machine_cannot_start_for_long_is_given_back_and_charged_to_nobody(
    tmp_path: Path,
) -> None:
    python, broken = starting_nothing(tmp_path)
    prelude = tmp_path / "prelude.py"
    prelude.write_text(
        "import grampus.worker.line as l\nl.PATIENCE, l.AGAIN = 200, 20\n" + prelude.read_text()
    )

    async def story(ground: Ground) -> None:
        for n, call in ((1, "fork"), (2, "spawn")):
            broken.write_text(call)
            ground.sh(n, "exit 3")
            end = await ground.ended(n)
            assert (end.cause, end.exit, end.output) == ("unable", None, False)
            assert outcome(end, None, False)[0] is AttemptState.CANCELLED
            # Its slot is free, and whole.
            broken.write_text("")
            ground.sh(n + 10, "exit 4")
            assert (await ground.ended(n + 10)).exit == 4
        ground.launch(20, "/no/such/program")
        assert (await ground.ended(20)).cause == "spawn"

    play(story, tmp_path, "subreaper", slots=1, python=python)


def troubles(ground: Ground) -> list[str]:
    return [notice.why for notice in ground.said if isinstance(notice, Trouble)]
