"""Shims, wardens and workers that die: no attempt outlives them, and all of it is told."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warden_ground import (
    ALL_KINDS,
    KINDS,
    Ground,
    insist_on_cgroups,
    interpreter,
    is_alive,
    play,
    until,
)

from grampus.worker import cgroup
from grampus.worker.orders import Ended, Ready, Started, Taken
from grampus.worker.process_tree import MARK, children, descendants, marked
from grampus.worker.warden_client import LOG_LIMIT, WardenClient, WardenFailed

both = pytest.mark.parametrize("kind", KINDS)
each = pytest.mark.parametrize("kind", ALL_KINDS)
#: A main process, a child, and two daemons, one of them without the mark; all deaf to TERM.
FAMILY = (
    "trap '' TERM; setsid sleep 600 & (setsid sleep 600 &);"
    f"(unset {MARK}; setsid sleep 600 &); echo up; sleep 600; exit 0"
)


async def family(ground: Ground, n: int) -> list[int]:
    """Starts one; gives its processes, as this machine numbers them."""
    ground.sh(n, FAMILY, grace=60_000)
    await ground.written(ground.live(await ground.slot_of(n)), "up")
    mine = shim_of(ground, await ground.slot_of(n))

    def grown() -> list[int] | None:
        found = descendants(mine)
        return found if len(found) >= 5 else None

    return await until(grown, "the family is complete")


def shim_of(ground: Ground, slot: int) -> int:
    """The shim of a slot, by the mark of what it started."""
    wanted = f"{MARK}={ground.client.instance}/{slot}\0".encode()
    for shim in children(ground.client.pid):
        for pid in descendants(shim):
            try:
                if wanted in Path(f"/proc/{pid}/environ").read_bytes():
                    return shim
            except OSError:
                continue
    raise AssertionError(f"slot {slot} has no shim with anything in it")


async def all_gone(pids: list[int], within: float = 10) -> None:
    await until(lambda: not any(map(is_alive, pids)), f"{pids} are gone", within)


@each
def test_kill_9_of_a_shim_is_told_when_all_of_its_attempt_is_gone(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        pids = await family(ground, 1)
        other = await family(ground, 2)
        slot = await ground.slot_of(1)
        os.kill(shim_of(ground, slot), signal.SIGKILL)
        end = await ground.ended(1)
        assert [p for p in pids if is_alive(p)] == []
        assert (end.cause, end.exit, end.stdout) == ("lost", None, 3)
        assert ground.file(1, "out").read_text() == "up\n"
        assert all(map(is_alive, other))
        ground.sh(3, "exit 8")
        end = await ground.ended(3)
        assert (end.cause, end.exit) == ("exit", 8)
        assert await ground.slot_of(3) == slot
        assert all(map(is_alive, other))

    play(story, tmp_path, kind, slots=2)


#: Lines whose living end hands over to a child and dies at once, without an environment.
#: All of them hold a lock: the kernel says when the last one is gone.
HOPPERS = """
import fcntl, os, sys, time
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
os.set_inheritable(held.fileno(), True)
end = time.monotonic() + 20
for _ in range(6):
    if os.fork() == 0:
        os.setsid()
        os.environ.clear()
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
        os._exit(0)
print("up", flush=True)
time.sleep(20)
"""


@each
def test_who_hands_over_while_its_shim_is_buried_does_not_stay(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        for n in range(1, 9):
            path = tmp_path / f"held{n}"
            ground.launch(n, sys.executable, "-S", "-c", HOPPERS, str(path))
            await ground.written(ground.live(await ground.slot_of(n)), "up")
            os.kill(shim_of(ground, await ground.slot_of(n)), signal.SIGKILL)
            assert (await ground.ended(n)).cause == "lost"
            with path.open("a") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    play(story, tmp_path, kind)


@each
def test_all_shims_killed_at_once_and_again(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        for turn in range(3):
            numbers = range(10 * turn, 10 * turn + 4)
            pids = [p for n in numbers for p in await family(ground, n)]
            for shim in children(ground.client.pid):
                os.kill(shim, signal.SIGKILL)
            for n in numbers:
                assert (await ground.ended(n)).cause == "lost"
            assert [p for p in pids if is_alive(p)] == []

    play(story, tmp_path, kind)


@each
def test_an_idle_shim_that_dies_is_replaced(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "true")
        await ground.ended(1)
        [shim] = children(ground.client.pid)
        os.kill(shim, signal.SIGKILL)
        await until(lambda: not is_alive(shim), "it is dead")
        ground.sh(2, "exit 4")
        end = await ground.ended(2)
        # Launched before the warden noticed, it may be lost, but it is told.
        assert end.cause == "lost" or end.exit == 4
        ground.sh(3, "exit 5")
        assert (await ground.ended(3)).exit == 5

    play(story, tmp_path, kind, slots=1)


@each
def test_kill_9_of_the_warden_leaves_nothing_and_the_next_one_finds_an_empty_house(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        pids = [p for n in (1, 2, 3) for p in await family(ground, n)]
        shims = children(ground.client.pid)
        instance = ground.client.instance
        os.kill(ground.client.pid, signal.SIGKILL)
        await asyncio.wait_for(ground.gone.wait(), 5)
        await ground.start()
        assert marked(instance) == []
        await all_gone([*pids, *shims])
        assert ground.client.instance != instance
        assert [x.instance for x in ground.said if isinstance(x, Ready)] == [instance]
        await until(lambda: isinstance(ground.said[-1], Ready) or None, "Ready is said")
        ground.sh(1, "exit 3")
        end = await ground.ended(1)
        assert (end.cause, end.exit) == ("exit", 3)
        assert sorted(p.name for p in ground.attempts.glob("slot*.out")) == ["slot0.out"]

    play(story, tmp_path, kind)


@pytest.mark.parametrize(
    ("kind", "forgets"), [("subreaper", "true"), ("cgroup", "true"), ("cgroup", f"unset {MARK}")]
)
def test_kill_9_of_warden_and_shims_together_is_mended_by_the_next_warden(
    kind: str, forgets: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        script = "setsid sleep 600 & (setsid sleep 600 &) ; echo up; sleep 600"
        ground.sh(1, f"{forgets}; {script}")
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        pids = descendants(ground.client.pid)
        shims = children(ground.client.pid)
        for pid in (ground.client.pid, *shims):
            os.kill(pid, signal.SIGSTOP)  # Neither can react to the death of the other.
        for pid in (*shims, ground.client.pid):
            os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(ground.gone.wait(), 5)
        await ground.start()
        await all_gone(pids)
        assert "ending what an earlier warden left" in (ground.folder / "warden.log").read_text()

    play(story, tmp_path, kind, slots=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to leave a cgroup")
def test_who_leaves_its_cgroup_ends_with_its_attempt(tmp_path: Path) -> None:
    insist_on_cgroups()
    outside = Path(cgroup.path("x")).parent / "cgroup.procs"

    async def story(ground: Ground) -> None:
        for n, last in ((1, "exit 0"), (2, "sleep 600")):
            away = f"(echo 0 > {outside}; unset {MARK}; echo up; setsid sleep 600) &"
            ground.sh(n, f"{away} sleep 0.3; {last}", grace=200)
            await ground.written(ground.live(await ground.slot_of(n)), "up")
            below = descendants(ground.client.pid)
            shims = children(ground.client.pid)
            if n == 2:
                ground.end(n)
            await ground.ended(n)
            assert [p for p in below if p not in shims and is_alive(p)] == []

    play(story, tmp_path, "cgroup", slots=1)


def test_folders_that_an_attempt_made_in_its_cgroup_are_ended_and_removed(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        folder = cgroup.path(ground.client.instance) + "/slot0"
        enter = f"mkdir -p {folder}/a/b; echo 0 > {folder}/a/b/cgroup.procs; echo up; sleep 600"
        ground.sh(1, f"({enter}) & sleep 600", grace=60_000)
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        ground.end(1)
        end = await ground.ended(1, 5)
        assert (end.cause, end.exit) == ("end", -signal.SIGTERM)
        assert descendants(ground.client.pid) == children(ground.client.pid)

    play(story, tmp_path, "cgroup", slots=1)


@both
def test_attempts_outlive_their_worker_and_the_next_one_hears_all_of_it(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        go = tmp_path / "go"
        ground.sh(1, f"echo up; while [ ! -e {go} ]; do sleep 0.02; done; echo done; exit 3")
        ground.sh(2, "echo short; exit 4")
        ground.sh(3, "echo up; sleep 600", grace=100)
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        at, slot = (await ground.wait(Started, 1)).at, await ground.slot_of(1)
        assert (await ground.ended(2)).exit == 4
        ground.client.send(Taken([2]))
        ground.sh(4, "exit 5")
        assert (await ground.ended(4)).exit == 5
        instance, pid = ground.client.instance, ground.client.pid
        ground.client.leave()
        ground.said.clear()
        go.touch()
        await ground.written(ground.file(1, "out"), "done")
        await ground.attach()
        assert (ground.client.instance, ground.client.pid) == (instance, pid)
        known = {running.n: running for running in ground.client.running}
        assert sorted(known) == [1, 3, 4]
        assert [known[n].ended for n in (1, 3, 4)] == [True, False, True]
        assert known[3].slot is not None
        assert known[3].started >= at
        assert known[1].slot is None
        assert (await ground.ended(1)).exit == 3
        assert (await ground.ended(4)).exit == 5
        assert ground.file(1, "out").read_text() == "up\ndone\n"
        # What was said is said again, until it is taken.
        ground.client.send(Taken([1]))
        ground.client.leave()
        ground.said.clear()
        await ground.attach()
        assert sorted(running.n for running in ground.client.running) == [3, 4]
        ground.end(3)
        assert (await ground.ended(3)).cause == "end"
        # Its number stays used, whoever asks.
        ground.sh(1, "exit 0")
        assert (await ground.ended(1)).cause == "unable"
        ground.sh(5, "exit 6")
        assert (await ground.ended(5)).exit == 6
        assert slot in range(4)

    play(story, tmp_path, kind)


def test_kill_9_of_the_worker_process_leaves_the_attempt_to_the_next_one(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from grampus.worker.warden_client import WardenClient\n"
        "from grampus.worker.orders import Launch\n"
        "async def main():\n"
        "    c = await WardenClient.start(sys.argv[1], 1, lambda b: None, lambda: None)\n"
        "    c.send(Launch(1, ['/bin/sleep', '600'], {}, '/', None, 100, 'r/t.1'))\n"
        "    print(c.pid, c.instance, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "worker")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid, instance = worker.stdout.readline().split()
        deadline = time.monotonic() + 10
        while not marked(instance) and time.monotonic() < deadline:
            time.sleep(0.01)
        [attempt] = marked(instance)
        worker.kill()

    async def story() -> None:
        ground = Ground(tmp_path / "worker", "auto", 1, 1 << 20)
        await ground.attach()
        assert (ground.client.pid, ground.client.instance) == (int(pid), instance)
        assert is_alive(attempt)
        await ground.client.stop(0)
        assert ground.client._process.is_gone()
        assert not is_alive(attempt)

    asyncio.run(story())


def test_a_warden_alone_with_nothing_to_do_ends_and_with_something_to_tell_it_waits(
    tmp_path: Path,
) -> None:
    python = interpreter(tmp_path, "import grampus.worker.warden_server as s\ns.ALONE = 300")

    async def story() -> None:
        ground = Ground(tmp_path / "worker", "subreaper", 1, 1 << 20)
        await ground.start(python=python)
        pid = ground.client.pid
        ground.sh(1, "sleep 0.5; exit 7")
        await ground.slot_of(1)
        ground.client.leave()
        await asyncio.sleep(1.2)
        await ground.attach()
        assert ground.client.pid == pid
        assert (await ground.ended(1)).exit == 7
        ground.client.send(Taken([1]))
        ground.client.leave()
        await until(lambda: not is_alive(pid), "it has ended")
        assert await WardenClient.attach(ground.folder, lambda _: None, lambda: None) is None

    asyncio.run(story())


def test_a_warden_of_another_language_is_told_to_end(tmp_path: Path) -> None:
    """Its first word cannot be read: it is from before or after an upgrade."""
    folder = tmp_path / "worker"
    folder.mkdir()
    program = (
        "import os, socket, sys, time\n"
        "os.chdir(sys.argv[1])\n"
        "s = socket.socket(socket.AF_UNIX); s.bind('warden.sock'); s.listen()\n"
        "print('up', flush=True)\n"
        "c, _ = s.accept(); c.sendall(b'\\0\\0\\0\\2\\x92\\xa1'); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"up\n"
        attached = WardenClient.attach(folder, lambda _: None, lambda: None)
        assert asyncio.run(attached) is None
        assert stranger.wait(10) == -signal.SIGTERM


@both
def test_a_second_warden_waits_until_the_first_has_ended_its_attempts(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        first = ground.client
        ground.sh(1, "trap '' TERM; echo up; sleep 600 & wait; while :; do sleep 0.05; done")
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        with pytest.raises(WardenFailed, match="another warden still has attempts"):
            await ground.start(ready_timeout=2)
        assert ground.count(Ended, 1) == 0
        below = descendants(first.pid)
        begin = time.monotonic()
        stop = asyncio.ensure_future(first.stop(700))
        await ground.start()
        assert time.monotonic() - begin > 0.6
        assert [p for p in below if is_alive(p)] == []
        assert (await ground.ended(1)).exit == -signal.SIGKILL
        assert not is_alive(first.pid)
        await stop

    play(story, tmp_path, kind)


@each
def test_sigterm_to_the_warden_ends_everything_in_order(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.02; done")
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        os.kill(ground.client.pid, signal.SIGTERM)
        await asyncio.wait_for(ground.gone.wait(), 5)
        end = await ground.ended(1)
        assert (end.cause, end.exit) == ("end", 0)
        assert ground.file(1, "out").read_text() == "up\nsaved\n"

    play(story, tmp_path, kind)


def test_only_one_connection_is_served_and_strangers_words_end_only_their_own(
    tmp_path: Path,
) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "echo up; sleep 600")
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5)
            stranger.connect(str(ground.folder / "warden.sock"))
            assert stranger.recv(100) == b""
        ground.end(1)
        assert (await ground.ended(1)).cause == "end"

    play(story, tmp_path, "subreaper")


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\3\x92\xa1x"])
def test_garbage_from_the_worker_ends_the_connection_and_nothing_else(
    tmp_path: Path, garbage: bytes
) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "echo up; sleep 600")
        await ground.written(ground.live(await ground.slot_of(1)), "up")
        below = descendants(ground.client.pid)
        transport = ground.client._transport
        assert transport is not None
        transport.write(garbage)
        await asyncio.wait_for(ground.gone.wait(), 5)
        ground.client.leave()
        await ground.attach()
        assert [running.n for running in ground.client.running] == [1]
        assert all(map(is_alive, below))

    play(story, tmp_path, "subreaper")


def test_the_folder_may_be_deeper_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a" * 60] * 4)
    deep.mkdir(parents=True)

    async def story(ground: Ground) -> None:
        assert len(str(ground.folder / "warden.sock")) > 240
        ground.sh(1, "exit 2")
        assert (await ground.ended(1)).exit == 2

    play(story, deep, "subreaper")


def test_folder_socket_and_lock_are_private(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        modes = {
            p.name: p.stat().st_mode & 0o777
            for p in (ground.folder, ground.attempts, *ground.folder.iterdir())
        }
        assert modes.pop("worker") == modes.pop("attempts") == 0o700
        assert modes == {"warden.sock": 0o600, "warden.lock": 0o600, "warden.log": 0o600}

    play(story, tmp_path, "subreaper")


def test_a_warden_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    async def fail(python: str) -> None:
        await WardenClient.start(
            tmp_path / "worker", 1, lambda _: None, lambda: None, python=python, ready_timeout=10
        )

    with pytest.raises(WardenFailed, match="did not start"):
        asyncio.run(fail("/bin/false"))
    with pytest.raises(FileNotFoundError):
        asyncio.run(fail("/no/such/python"))
    (tmp_path / "worker" / "attempts").write_text("in the way")
    with pytest.raises(WardenFailed, match="File exists"):
        asyncio.run(fail(sys.executable))


def test_a_long_log_starts_anew_with_the_next_warden(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    log = tmp_path / "worker" / "warden.log"
    log.write_bytes(b"x" * (LOG_LIMIT + 1))

    async def story(ground: Ground) -> None:
        assert log.stat().st_size < 1000

    play(story, tmp_path, "subreaper")


def test_the_warden_and_its_shims_are_small(tmp_path: Path) -> None:
    def anonymous(pid: int) -> int:
        """KiB that are nobody else's, shared pages in proportion."""
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss_Anon:")[2].split()[0])

    async def story(ground: Ground) -> None:
        for n in range(4):
            ground.sh(n, "sleep 0.05")
        for n in range(4):
            await ground.ended(n)
        shims = children(ground.client.pid)
        assert len(shims) == 4
        assert anonymous(ground.client.pid) < 9_000
        assert max(map(anonymous, shims)) < 4_500

    play(story, tmp_path, "subreaper")
