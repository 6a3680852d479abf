"""How attempts are ended, and that nothing of them is left when they are reported."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from warden_ground import ALL_KINDS, Ground, is_alive, play, until

from grampus.worker.orders import Ended, Launch, Started
from grampus.worker.process_tree import MARK, descendants, marked

each = pytest.mark.parametrize("kind", ALL_KINDS)

#: 500 processes, each in a session of its own, half of them orphans twice over, half deaf to TERM.
CROWD = """
import os, signal, sys, time
for k in range(500):
    if os.fork() == 0:
        os.setsid()
        if k % 2:
            if os.fork():
                os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.environ.clear()
        time.sleep(600)
        os._exit(0)
print("crowd", flush=True)
"""


def crowd_of(ground: Ground) -> list[int]:
    """All that descends from the warden's shims, by whatever environment."""
    shims = descendants(ground.client.pid)
    return [p for p in shims if _parent(p) != ground.client.pid and is_alive(p)]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@each
def test_term_reaches_everybody_and_the_grace_is_theirs(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(
            1,
            "trap 'echo main >&2; exit 5' TERM;"
            "(trap 'sleep 0.2; echo child saved; exit' TERM; echo up;"
            " while :; do sleep 0.02; done) &"
            "echo up; while :; do sleep 0.02; done",
        )
        await ground.written(ground.live(await ground.slot_of(1)), "up\nup\n")
        ground.end(1)
        end = await ground.ended(1)
        assert (end.cause, end.exit) == ("end", 5)
        # The main process obeyed at once; its child still had the time to save.
        assert "child saved" in ground.file(1, "out").read_text()
        assert "main" in ground.file(1, "err").read_text()

    play(story, tmp_path, kind)


@each
def test_who_ignores_term_is_killed_after_the_grace(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "trap '' TERM; echo up; while :; do sleep 0.05; done", grace=300)
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        begin = time.monotonic()
        ground.end(1)
        end = await ground.ended(1)
        assert (end.cause, end.exit) == ("end", -signal.SIGKILL)
        assert 0.25 < time.monotonic() - begin < 5

    play(story, tmp_path, kind)


@each
def test_a_stopped_process_hears_term(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "echo up; kill -STOP $$; sleep 60", grace=60_000)
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        ground.end(1)
        assert (await ground.ended(1, 5)).exit == -signal.SIGTERM

    play(story, tmp_path, kind)


@each
def test_a_timeout_is_its_own_cause(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "sleep 60", timeout=200)
        ground.sh(2, "trap 'exit 0' TERM; while :; do sleep 0.02; done", timeout=200)
        ground.sh(3, "trap '' TERM; while :; do sleep 0.05; done", timeout=200, grace=200)
        ground.sh(4, "sleep 0.05", timeout=60_000)
        got = [await ground.ended(n) for n in range(1, 5)]
        assert [e.cause for e in got] == ["timeout", "timeout", "timeout", "exit"]
        assert [e.exit for e in got] == [-signal.SIGTERM, 0, -signal.SIGKILL, 0]
        assert got[0].at - (await ground.wait(Started, 1)).at >= 190

    play(story, tmp_path, kind)


@each
def test_end_during_the_grace_of_a_timeout_changes_nothing(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        script = "trap 'echo heard' TERM; echo up; while :; do sleep 0.02; done"
        ground.sh(1, script, timeout=150, grace=400)
        await ground.written(ground.live(await ground.slot_of(1)), "heard")
        ground.end(1)
        ground.end(1)
        end = await ground.ended(1)
        assert (end.cause, end.exit, ground.count(Ended, 1)) == ("timeout", -signal.SIGKILL, 1)
        assert ground.file(1, "out").read_text().count("heard") == 1

    play(story, tmp_path, kind)


@each
@pytest.mark.parametrize("way", ["exits", "is ended", "is killed"])
def test_five_hundred_runaway_children_do_not_outlive_their_attempt(
    kind: str, way: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        last = {"exits": "time.sleep(0.3)", "is ended": "time.sleep(60)"}
        program = CROWD + last.get(way, "time.sleep(0.3); os.kill(os.getpid(), 9)")
        ground.launch(1, sys.executable, "-S", "-c", program, grace=300)
        await ground.written(ground.live(await ground.slot_of(1)), "crowd")
        await until(lambda: len(descendants(ground.client.pid)) > 450, "there is a crowd")
        if way == "is ended":
            ground.end(1)
        end = await ground.ended(1)
        assert crowd_of(ground) == []
        cause, code = {"exits": ("exit", 0), "is ended": ("end", -15), "is killed": ("exit", -9)}[
            way
        ]
        assert (end.cause, end.exit) == (cause, code)
        ground.sh(2, "exit 6")
        assert (await ground.ended(2)).exit == 6

    play(story, tmp_path, kind, slots=1)


@each
def test_a_process_that_keeps_forking_is_caught(kind: str, tmp_path: Path) -> None:
    # Every 2 ms a child takes over and its parent dies: no list of processes is true for long.
    program = (
        "import os, time\n"
        "if os.fork(): os._exit(0)\n"
        "while True:\n"
        "    time.sleep(0.002)\n"
        "    os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "    if os.fork(): os._exit(0)\n"
    )

    async def story(ground: Ground) -> None:
        ground.launch(1, sys.executable, "-S", "-c", program)
        end = await ground.ended(1)
        assert (end.cause, end.exit) == ("exit", 0)
        assert crowd_of(ground) == []
        assert marked(ground.client.instance) == []

    play(story, tmp_path, kind)


#: At TERM it forks six lines, whose living end hands over to a child every millisecond and dies,
#: and deaf processes that sleep, in sessions of their own; all of them without an environment.
STORM = """
import os, signal, time
def storm(*_):
    for k in range(6):
        if os.fork() == 0:
            os.setsid()
            os.environ.clear()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                if os.fork():
                    os._exit(0)
                if os.fork() == 0:
                    time.sleep(0.2)
                    os._exit(0)
                time.sleep(0.001)
signal.signal(signal.SIGTERM, storm)
print("up", flush=True)
while True:
    time.sleep(60)
"""


@each
@pytest.mark.parametrize("way", ["is ended", "runs out of time"])
def test_who_is_born_while_term_is_sent_does_not_outlive_the_grace(
    kind: str, way: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        timeout = 1_500 if way == "runs out of time" else None
        ground.launch(1, sys.executable, "-S", "-c", STORM, timeout=timeout, grace=300)
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        begin = time.monotonic()
        if timeout is None:
            ground.end(1)
        end = await ground.ended(1, 30)
        assert crowd_of(ground) == []
        assert end.cause == ("end" if timeout is None else "timeout")
        # One sweep may miss who is born in it: it is repeated until nobody is left.
        assert time.monotonic() - begin < 8
        ground.sh(2, "exit 6")
        assert (await ground.ended(2)).exit == 6

    play(story, tmp_path, kind, slots=1)


@each
def test_a_daemon_left_behind_without_its_mark_is_killed_before_the_report(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, f"unset {MARK}; (setsid setsid sleep 600 &) ; (sleep 600 &) ; exit 0")
        assert (await ground.ended(1)).exit == 0
        assert crowd_of(ground) == []

    play(story, tmp_path, kind)


@each
def test_ends_race_with_starts_and_ends(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        for n in range(1, 201):
            ground.sh(n, "sleep 0.003" if n % 3 else "sleep 60")
            if n % 2 == 0 or n % 3 == 0:
                ground.end(n)  # In the same write as its launch.
            if n % 5 == 0:
                await asyncio.sleep(0.003)
                ground.end(n)
            ground.end(n + 1000)  # Nobody has this number.
            if n > 3:
                await ground.ended(n - 3)
        for n in range(1, 201):
            end = await ground.ended(n)
            assert end.cause in ("exit", "end")
            assert end.cause == "exit" or end.exit in (None, 0, -signal.SIGTERM)
            assert n % 3 or end.cause == "end"
            assert ground.count(Ended, n) == 1

    play(story, tmp_path, kind)


@each
def test_an_attempt_that_waits_for_a_slot_can_be_ended(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "sleep 60")
        ground.sh(2, "echo never")
        ground.end(2)
        end = await ground.ended(2)
        assert (end.cause, end.exit, end.stdout) == ("end", None, 0)
        assert ground.count(Started, 2) == 0
        ground.end(1)
        assert (await ground.ended(1)).cause == "end"

    play(story, tmp_path, kind, slots=1)


@each
def test_shutdown_ends_all_within_its_grace_and_reports_each(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done"
        ground.sh(1, deaf, grace=60_000)
        ground.sh(2, "echo up; sleep 60", grace=60_000)
        ground.sh(3, deaf, grace=60_000)
        ground.sh(4, "never reached")
        for n in (1, 2, 3):
            await ground.written(ground.live(await ground.slot_of(n)), "up")
        ground.end(3)
        begin = time.monotonic()
        pid = ground.client.pid
        await ground.client.stop(300)
        assert time.monotonic() - begin < 4
        got = {x.n: (x.cause, x.exit) for x in ground.said if isinstance(x, Ended)}
        killed = ("end", -signal.SIGKILL)
        assert got == {1: killed, 2: ("end", -signal.SIGTERM), 3: killed, 4: ("end", None)}
        assert not is_alive(pid)
        assert not ground.gone.is_set()
        assert not (ground.folder / "warden.sock").exists()

    play(story, tmp_path, kind, slots=3)


def test_launches_after_shutdown_do_not_start(tmp_path: Path) -> None:
    from grampus.worker.orders import Shutdown

    async def story(ground: Ground) -> None:
        ground.sh(1, "trap '' TERM; echo up; while :; do sleep 0.05; done", grace=300)
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        ground.client.send(Shutdown(10_000))
        ground.client.send(Launch(2, ["/bin/true"], {}, "/", None, 0, "run/task.2"))
        assert ((await ground.ended(2)).cause, ground.count(Started, 2)) == ("end", 0)
        assert (await ground.ended(1)).exit == -signal.SIGKILL

    play(story, tmp_path, "subreaper")


def test_the_warden_outlives_ctrl_c_at_the_terminal(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        assert os.getpgid(ground.client.pid) == ground.client.pid != os.getpgid(0)
        assert os.getsid(ground.client.pid) != os.getsid(0)

    play(story, tmp_path, "subreaper")
