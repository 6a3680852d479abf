"""`grampus up` as a process: its line on stdout, its file, its end; and what the manual shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "docs/cli.md"
COMMAND = [sys.executable, "-m", "grampus.cli.main"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GRAMPUS_")}
    # Commands run in other folders here.
    paths = [os.path.abspath(p) for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "GRAMPUS_STATE": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "etc"),
        "GRAMPUS_DATA": str(tmp_path / "data"),
    }


@contextmanager
def up(env: dict[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A node that is ready, and its URL. It is ended when the block is left."""
    with subprocess.Popen(
        [*COMMAND, "up", "--listen", "127.0.0.1:0", *options],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", line)
            assert found, process.communicate(timeout=10)[1]
            yield process, found[1]
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()


def grampus(
    env: dict[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_is_found_while_it_runs_and_leaves_nothing(
    env: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with up(env, "--name", "n1", "--slots", "3") as (process, url):
        (file,) = (tmp_path / "state/nodes").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text())["url"] == url
        (worker,) = json.loads(grampus(env, "worker", "list", "-o", "json").stdout)
        assert (worker["name"], worker["slots"], worker["state"]) == ("n1", 3, "LIVE")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert f"data in {tmp_path / 'data'}" in err
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    assert list((tmp_path / "state/nodes").iterdir()) == []
    assert grampus(env, "worker", "list", "--server", url).returncode == 3


def test_a_port_or_a_folder_in_use_is_one_line(env: dict[str, str], tmp_path: Path) -> None:
    with up(env) as (_, url):
        taken = grampus(env, "up", "--data", str(tmp_path / "other"), "--listen", url[7:])
        assert (taken.returncode, taken.stdout) == (4, "")
        assert "in use" in taken.stderr
        again = grampus(env, "up", "--listen", "127.0.0.1:0")
        assert (again.returncode, again.stdout) == (4, "")
        assert "Traceback" not in taken.stderr + again.stderr


def test_a_state_folder_that_cannot_be_used_is_one_line(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    unusable = env | {"GRAMPUS_STATE": str(tmp_path / "file/state")}
    done = grampus(unusable, "up", "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (4, "")
    starting, error = done.stderr.splitlines()
    assert starting.startswith("starting node")
    assert error.startswith(f"error: the state folder {tmp_path}/file/state cannot be used")


def test_a_node_stops_though_nobody_reads_its_messages(env: dict[str, str]) -> None:
    with up(env) as (process, _):
        assert process.stderr is not None
        process.stderr.close()
        process.terminate()
        assert process.wait(20) == 0


def test_a_running_task_is_ended_when_its_node_stops(env: dict[str, str], tmp_path: Path) -> None:
    sleep = f"sleep 60.{os.getpid()}"
    (tmp_path / "w.yaml").write_text(
        "workflow: long\ntasks:\n  nap: {shell: 'echo $$ > $PIDFILE; exec "
        f"{sleep}',"
        f" env: {{PIDFILE: '{tmp_path / 'pid'}'}}}}\n"
    )
    with up(env) as (process, _):
        run = grampus(env, "run", "start", str(tmp_path / "w.yaml")).stdout.strip()
        log = grampus(env, "run", "wait", run, "--timeout", "1.5")
        assert log.returncode == 130
        assert (tmp_path / "pid").read_text().strip()
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert sleep not in running.splitlines()


def test_what_the_manual_shows_works(env: dict[str, str], tmp_path: Path) -> None:
    manual = MANUAL.read_text()
    (python,) = re.findall(r"```python\n(.*?)```", manual, re.S)
    (tmp_path / "hello.py").write_text(python)
    commands = re.findall(r"^\$ grampus (.*)$", manual, re.M)
    assert len(commands) > 15
    outs: dict[str, str] = {}
    with up(env):
        for command in commands:
            done = grampus(env, *shlex.split(command), cwd=tmp_path)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            outs[command] = done.stdout
    assert "greet | hello Ada" in outs["run logs last"]
    assert "hello.py: hello, 2 tasks, is valid" in outs["workflow validate hello.py"]
    assert "SUCCEEDED" in outs["run wait last --timeout 60"]
    for line in outs["run logs last -o json"].splitlines():
        assert json.loads(line)["task"] in ("greet", "close")


def test_a_user_module_that_prints_does_not_disturb_the_data(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "loud.py").write_text(
        "from grampus import shell, workflow\nprint('noise')\n"
        "@workflow\ndef loud():\n    shell('true', name='a')\n"
    )
    done = grampus(env, "workflow", "validate", "loud.py", "-o", "json", cwd=tmp_path)
    assert json.loads(done.stdout) == [{"source": "loud.py", "name": "loud", "tasks": 1}]
    assert "noise" in done.stderr


def test_nothing_is_applied_when_one_of_the_files_is_wrong(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text("workflow: good\ntasks: {a: {shell: 'true'}}\n")
    (tmp_path / "bad.yaml").write_text("workflow: bad\ntasks:\n  a: {shel: x}\n  b: {after: [c]}\n")
    with up(env):
        done = grampus(env, "workflow", "apply", "good.yaml", "bad.yaml", "none.py", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "bad.yaml:3" in done.stderr
        assert "bad.yaml:4" in done.stderr
        assert "none.py: there is no such file" in done.stderr
        assert json.loads(grampus(env, "workflow", "list", "-o", "json").stdout) == []
        done = grampus(env, "workflow", "apply", "good.yaml", "-o", "json", cwd=tmp_path)
        assert json.loads(done.stdout)[0]["created"] is True
        again = grampus(env, "workflow", "apply", "good.yaml", cwd=tmp_path)
        assert again.stdout == "good 1\n"
        assert "good is unchanged (version 1)" in again.stderr
