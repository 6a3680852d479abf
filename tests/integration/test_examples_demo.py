"""The driver of `make demo`, with a stand-in for the `grampus` command: what it starts, it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "flights" / "demo.py"

#: A node that writes its pid and answers `ready`, and a run that does what `$RUN` says.
STANDIN = """#!/bin/sh
echo "$@" >> "$SEEN"
case "$*" in
  *" run start "*) eval "$RUN" ;;
  *" run list "*) echo "${RUNS:-[]}" ;;
  up*) eval "$NODE" ;;
esac
"""
SOUND = 'echo $$ > "$SEEN.pid"; echo ready http://127.0.0.1:9; exec sleep 60'
WRITES = 'for word; do case $word in out=*) echo page > "${word#out=}/report.html" ;; esac; done'


class Stage:
    """A folder with the stand-in beside a Python of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "my demo"
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "python").symlink_to(sys.executable)
        (binaries / "grampus").write_text(STANDIN)
        (binaries / "grampus").chmod(0o755)

    def start(self, node: str = SOUND, run: str = WRITES, *options: str) -> subprocess.Popen[str]:
        env = {**os.environ, "SEEN": str(self.folder / "seen"), "NODE": node, "RUN": run}
        env |= {"GRAMPUS_SERVER": "http://elsewhere", "GRAMPUS_TOKEN": "secret"}
        command = [self.folder / "bin" / "python", DEMO, "--out", self.out, *options]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=self.folder,
            start_new_session=True,
        )

    def go(self, node: str = SOUND, run: str = WRITES, *options: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(node, run, *options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def seen(self) -> list[str]:
        return (self.folder / "seen").read_text().splitlines()

    def pid(self) -> int:
        return int((self.folder / "seen.pid").read_text())

    def node_runs(self) -> bool:
        try:
            os.kill(self.pid(), 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def test_the_demo_starts_a_node_runs_the_workflow_and_stops_the_node(stage):
    code, out, err = stage.go(SOUND, WRITES, "--slots", "3")
    assert code == 0, err
    up, listed, run = stage.seen()
    assert listed.endswith("run list --workflow flights --limit 50 -o json")
    assert re.fullmatch(rf"up --data {stage.out}/node --listen 127\.0\.0\.1:\d+ --slots 3", up), up
    assert run.startswith("--server http://127.0.0.1:9 run start ")
    assert run.endswith(f"flights.py -p out={stage.out} --wait")
    assert not stage.node_runs()
    assert (stage.out / "report.html").as_uri() in out
    for command in ("up --data", "run show last", "run logs last train"):
        assert f"bin/grampus {command}" in out


def test_the_demo_works_again_in_the_same_folder(stage):
    assert stage.go()[0] == 0
    assert stage.go()[0] == 0
    assert not stage.node_runs()


def test_settings_for_other_servers_do_not_reach_the_demo(stage):
    spy = 'echo "[$GRAMPUS_SERVER$GRAMPUS_TOKEN]" >&2; ' + WRITES
    assert "\n[]\n" in stage.go(SOUND, spy)[2]


def test_a_failed_run_is_not_covered_up(stage):
    code, out, _ = stage.go(SOUND, "exit 1")
    assert code == 1
    assert "did not succeed" in out
    assert "The report" not in out
    assert not stage.node_runs()


def test_an_old_report_does_not_pass_for_a_new_one(stage):
    stage.out.mkdir()
    (stage.out / "report.html").write_text("old")
    os.utime(stage.out / "report.html", (1, 1))
    code, _, err = stage.go(SOUND, "exit 0")
    assert code == 1
    assert "was not written" in err


def test_a_node_that_does_not_start_says_why(stage):
    code, _, err = stage.go("echo the folder is in use >&2; exit 4")
    assert code == 1
    assert "the node ended before it was ready:\nthe folder is in use" in err
    assert len(stage.seen()) == 1


def test_runs_that_an_earlier_demo_left_are_cancelled_first(stage, monkeypatch):
    left = '[{"id": "a1", "state": "RUNNING"}, {"id": "b2", "state": "SUCCEEDED"}]'
    monkeypatch.setenv("RUNS", left)
    code, _, err = stage.go()
    assert code == 0
    assert "cancelling run a1" in err
    words = [line.split()[-2:] for line in stage.seen()]
    assert words.index(["cancel", "a1"]) < len(words) - 1
    assert ["cancel", "b2"] not in words


def test_keep_leaves_the_node_and_says_how_to_end_it(stage):
    code, out, err = stage.go(SOUND, WRITES, "--keep")
    try:
        assert code == 0
        assert stage.node_runs()
        assert f"kill {stage.pid()}" in err
        assert "--server http://127.0.0.1:9 run show last" in out
    finally:
        os.kill(stage.pid(), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(stage, number):
    process = stage.start(SOUND, 'echo $$ > "$SEEN.run"; exec sleep 60')
    mark = stage.folder / "seen.run"
    deadline = time.monotonic() + 30
    while not (mark.exists() and mark.read_text().strip()):
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.02)
    if number is signal.SIGINT:
        # A terminal sends it to the whole group in front.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert not stage.node_runs()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def lives(pid: int) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_demo_leaves_nothing_running(stage):
    """Nobody is left who could end them: they have asked to be told."""
    process = stage.start(SOUND, 'echo $$ > "$SEEN.run"; exec sleep 60')
    mark = stage.folder / "seen.run"
    deadline = time.monotonic() + 30
    while not (mark.exists() and mark.read_text().strip()):
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.02)
    process.kill()
    process.wait(30)
    # The pipes are held by whoever is left.
    process.communicate(timeout=30)
    while lives(stage.pid()) or lives(int(mark.read_text())):
        assert time.monotonic() < deadline, "they are left"
        time.sleep(0.02)
