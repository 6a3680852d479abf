"""docs/cluster.md, word by word: every command is run as it stands there, on other ports."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.node import COMMAND, PATIENCE, Ground
from tests.pages import comes_out, commands_of
from tests.ports import free_ports

pytestmark = [pytest.mark.raft, pytest.mark.timeout(300)]
PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
#: They go on until they are told to stop.
STAYS = re.compile(r"grampus (server|worker) start .*--name (\w+)")
#: They change nothing, or are refused: they may be said again until the answer is as on the page.
AGAIN = re.compile(r"grampus (--stale )?(cluster (status|members|recover|restore)|kv)")


class Shell:
    """Several terminals in one folder."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        here = ground.folder / "bin"
        here.mkdir()
        grampus = here / "grampus"
        grampus.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        grampus.chmod(0o755)
        self.env = ground.env | {"PATH": f"{here}:{os.environ['PATH']}"}
        self.env.pop("GRAMPUS_DATA")
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], env=self.env, cwd=self.ground.folder, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.stdout

    def start(self, command: str, name: str) -> str:
        """What it says until it is ready."""
        path = self.ground.folder / f"{name}.{len(self.running)}.said"
        with path.open("wb") as out:
            argv = ["bash", "-c", f"exec {command}"]
            self.running.append(
                subprocess.Popen(argv, env=self.env, cwd=self.ground.folder, stdout=out, stderr=out)
            )
        end = time.monotonic() + PATIENCE
        while "\nready " not in path.read_text():
            assert self.running[-1].poll() is None, path.read_text()
            assert time.monotonic() < end, path.read_text()
            time.sleep(0.05)
        return path.read_text()

    def close(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
        for pid in self.ground.processes():
            os.kill(pid, 9)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(Ground(tmp_path))
    try:
        yield made
    finally:
        made.close()


def test_the_page_about_clusters_is_true(shell: Shell) -> None:
    page = PAGE.read_text()
    for port, free in zip((8470, 8480, 8490), free_ports(3), strict=True):
        page = page.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
    commands = commands_of(page)
    assert len(commands) > 20
    for command, wanted in commands:
        end = time.monotonic() + PATIENCE
        while not comes_out(wanted, out := _said(shell, command)):
            assert AGAIN.match(command), (command, out, wanted)
            assert time.monotonic() < end, (command, out, wanted)
            time.sleep(0.2)


def _said(shell: Shell, command: str) -> str:
    stays = STAYS.match(command)
    said = shell.start(command, stays[2]) if stays else shell.run(command)
    return said.strip()
