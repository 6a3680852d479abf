"""A schedule of a second on a real node that is killed: every tick once, every run once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from grampus.sdk.client import Client

PROGRAM = [sys.executable, "-m", "grampus.cli.main"]
WORKFLOW = """
workflow: beat
schedule: {every: 1s, overlap: allow}
params: {moment: {default: "{{ tick.timestamp }}"}}
tasks:
  note: {shell: "echo {{ params.moment }} >> FILE", retry: {max: 0}}
"""
#: Nothing here takes longer, in seconds.
PATIENCE = 20.0


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    own = {
        "GRAMPUS_STATE": str(tmp_path / "state"),
        "GRAMPUS_DATA": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "etc"),
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GRAMPUS_")} | own
    for name in [k for k in os.environ if k.startswith("GRAMPUS_")]:
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return kept


@contextmanager
def up(env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [*PROGRAM, "up", "--listen", "127.0.0.1:0", "--slots", "2"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready ")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def test_each_tick_of_a_killed_node_is_one_row_and_one_run(
    env: dict[str, str], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    file = tmp_path / "beat.yaml"
    file.write_text(WORKFLOW.replace("FILE", str(notes)))

    def rows() -> list[Any]:
        with Client() as client:
            return list(client.ticks("beat"))

    with up(env) as first:
        with Client() as client:
            client.apply(file)
        until(lambda: len(rows()) >= 3)
        first.send_signal(signal.SIGKILL)
        first.wait(PATIENCE)
    fired = len(notes.read_text().split())
    time.sleep(2)
    with up(env):
        until(lambda: len(rows()) >= fired + 5)
        with Client() as client:
            client.pause_schedule("beat")
            ticks = list(client.ticks("beat"))[::-1]
            until(lambda: all(run.final for run in client.runs("beat")))
            runs = {run.id: run for run in client.runs("beat")}
    made = [tick for tick in ticks if tick.outcome == "run"]
    begin = ms(made[0].tick)
    # No second is left out, and none is there twice.
    assert [ms(tick.tick) for tick in made] == [begin + n * 1000 for n in range(len(made))]
    assert all(tick.count == 1 for tick in made)
    assert len({tick.run for tick in made}) == len(made) == len(runs)
    assert {(run.id, ms(run.tick)) for run in runs.values()} == {
        (tick.run, ms(tick.tick)) for tick in made
    }
    # The params are those of the tick, however late it was.
    assert all(run.params == {"moment": str(ms(run.tick) // 1000)} for run in runs.values())
    seconds = sorted(int(line) for line in notes.read_text().split())
    assert set(seconds) == {ms(tick.tick) // 1000 for tick in made}
