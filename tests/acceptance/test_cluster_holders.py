"""Sessions and locks of processes of their own, while SIGSTOP and kill -9 meet those who keep them
and those who hold them; in the clear and over TLS."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_tls import Place, cluster

from grampus.model.run import AttemptState
from tests.acceptance.cluster import site
from tests.acceptance.lock_holder import TTL
from tests.acceptance.node import Ground, Node, until

pytest.importorskip("grampus_raft")
pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Holders:
    """Processes of `lock_holder`, and the file to which they write."""

    def __init__(self, ground: Ground, addresses: list[str]) -> None:
        self._ground = ground
        self._addresses = ",".join(addresses)
        self.store = ground.folder / "store"
        self.store.touch()
        self.running: dict[str, Node] = {}

    def start(self, name: str, token: str | Path) -> None:
        paths = self._ground.env["PYTHONPATH"]
        self._ground.env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [paths])])
        folder = self._ground.folder / name
        command = [
            sys.executable, "-m", "tests.acceptance.lock_holder", str(folder), name, str(token),
            self._addresses, str(self.store),
        ]  # fmt: skip
        self.running[name] = Node(self._ground, command, log=f"{name}.log")
        self.running[name].ready(pattern=r"session \d+\n")

    def signal(self, name: str, number: signal.Signals) -> None:
        self.running[name].process.send_signal(number)

    def writes(self) -> list[tuple[str, int]]:
        lines = self.store.read_text().splitlines()
        return [(name, int(token)) for name, token in map(str.split, lines)]

    def holder(self) -> str:
        """Who has just written; waits until somebody does."""
        before = len(self.writes())
        until(lambda: len(self.writes()) > before)
        return self.writes()[-1][0]

    def sessions(self, name: str) -> int:
        """How many it has begun: one line each, the first was read already."""
        stdout = self.running[name].process.stdout
        assert stdout is not None
        os.set_blocking(stdout.fileno(), False)
        return 1 + (stdout.read() or b"").count(b"session ")

    def check(self) -> None:
        """Never two at once, and whoever comes later has a higher token."""
        tokens = [token for _, token in self.writes()]
        assert tokens == sorted(tokens)
        assert len({*self.writes()}) == len({*tokens})

    def close(self) -> None:
        for node in self.running.values():
            node.process.send_signal(signal.SIGCONT)
            node.kill()


@contextmanager
def two_holders(
    ground: Ground, addresses: list[str], tokens: list[Path | str]
) -> Iterator[Holders]:
    holders = Holders(ground, addresses)
    try:
        for name, token in zip(("h1", "h2"), tokens, strict=True):
            holders.start(name, token)
        yield holders
        holders.check()
    finally:
        holders.close()


def node_address(host: str, port: int) -> str:
    return f"{host}:{port + 1}"


def sleep_over_it(holders: Holders) -> None:
    """Who holds the lock is stopped for longer than its session lives; the other gets it, and keeps
    it when the first goes on."""
    first = holders.holder()
    holders.signal(first, signal.SIGSTOP)
    (second,) = {"h1", "h2"} - {first}
    until(lambda: holders.writes()[-1][0] == second)
    holders.signal(first, signal.SIGCONT)
    until(lambda: holders.sessions(first) > 1)
    count = len(holders.writes())
    until(lambda: len(holders.writes()) > count + 10)
    assert {name for name, _ in holders.writes()[count:]} == {second}


def test_a_lock_goes_on_to_the_next_when_its_holder_stands_still_and_not_with_the_leader(
    tmp_path: Path,
) -> None:
    with site(tmp_path) as ground:
        ground.grow()
        addresses = [node_address("127.0.0.1", port) for port in ground.ports.values()]
        tokens: list[Path | str] = [ground.token("worker"), ground.token("worker")]
        with two_holders(ground, addresses, tokens) as holders:
            before = holders.holder()
            old = ground.leader()
            ground.hold(old)
            new = ground.leader(among=ground.others(old))
            # So long that every session that only the old leader knew to live would be over.
            _after(holders, 2 * TTL / 1000)
            ground.go_on(old)
            _after(holders, TTL / 1000)
            assert new != old
            assert {name for name, _ in holders.writes()} == {before}
            sleep_over_it(holders)


def _after(holders: Holders, seconds: float) -> None:
    """Once so much was written as is in that time."""
    count = len(holders.writes()) + int(seconds / 0.06)
    until(lambda: len(holders.writes()) >= count)


def test_sessions_over_tls_outlive_their_leader(tmp_path: Path) -> None:
    with cluster(Ground(tmp_path)) as place:
        grow(place)
        addresses = [node_address("127.1", port) for port in place.ports.values()]
        tokens: list[Path | str] = [place.token("worker"), place.token("worker")]
        with two_holders(place.ground, addresses, tokens) as holders:
            before = holders.holder()
            (leader,) = place.members("s1", "state", "leads")
            place.kill(leader)
            _after(holders, 2 * TTL / 1000)
            assert {name for name, _ in holders.writes()} == {before}
            sleep_over_it(holders)


def grow(place: Place) -> None:
    place.server("s1", "--init")
    place.ready("s1")
    for name in ("s2", "s3"):
        token = place.token("server")
        place.server(name, "--join", place.address("s1"), "--token-file", str(token))
    place.ready("s2", "s3")
    until(lambda: place.members("s2", "role", "voter") == ["s1", "s2", "s3"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a process another boot id")
def test_after_a_reboot_what_ran_is_lost_at_once_and_starts_again(tmp_path: Path) -> None:
    """A machine that loses its power and is back before anybody has missed it."""
    with site(tmp_path, "a") as ground:
        ground.grow("a")
        ground.worker("w1", prefix=booted(tmp_path / "boot-1", "1"))
        with ground.client() as client:
            flow = "workflow: flow\ntasks: {t: {shell: sleep 600, lease: 60s}}\n"
            client.apply(ground.write("flow.yaml", flow))
            run = client.start("flow").id
            until(lambda: _states(client, run) == [AttemptState.RUNNING])
            ground.kill("w1")
            for pid in ground.wardens():
                os.kill(pid, signal.SIGKILL)
            ground.worker("w1", prefix=booted(tmp_path / "boot-2", "2"))
            wanted = [AttemptState.LOST, AttemptState.RUNNING]
            until(lambda: _states(client, run) == wanted, within=9.0)


def _states(client: object, run: str) -> list[AttemptState]:
    (task,) = client.tasks(run)  # type: ignore[attr-defined]
    return [attempt.state for attempt in task.attempts]


def booted(file: Path, boot: str) -> list[str]:
    """What makes of a command one on a machine that was booted under that id."""
    file.write_text(f"00000000-0000-4000-8000-{boot:>012}\n")
    script = f'mount --bind {file} {BOOT} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]
