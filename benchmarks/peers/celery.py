"""Celery: a worker of 4 processes, and Redis where `redis-server` is on the PATH; else its broker
is a folder of files, polled every 10 ms. Tasks start `sh` themselves.

Results are not kept: a task that is done adds a byte to a file, whose size is watched.

Redis writes nothing to a disk here (`--save "" --appendonly no`): it is as fast as it can be, and
forgets everything when it is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

APP = """
import json, os, subprocess
from pathlib import Path
from celery import Celery
app = Celery("tasks")
app.config_from_object(json.loads(Path(__file__).with_name("settings.json").read_text()))
done = os.open(Path(__file__).with_name("done"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
@app.task
def shell():
    subprocess.run(["sh", "-c", "true"], check=True)
    os.write(done, b".")
"""
#: Seconds.
READY, WITHIN = 30.0, 100.0


def settings(folder: Path, port: int | None) -> dict[str, Any]:
    always = {"broker_connection_retry_on_startup": True, "task_ignore_result": True}
    if port is not None:
        url = f"redis://127.0.0.1:{port}/0"
        return always | {"broker_url": url}
    places = {}
    for name in ("queue", "control"):
        (folder / name).mkdir()
        places[name] = str(folder / name)
    return always | {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": places["queue"],
            "data_folder_out": places["queue"],
            "control_folder": places["control"],
            "polling_interval": 0.01,
        },
    }


@contextmanager
def redis(folder: Path) -> Iterator[int | None]:
    """Its port, or None where there is no Redis."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    ) as server:
        try:
            until = time.monotonic() + READY
            while time.monotonic() < until:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield port
        finally:
            server.terminate()


@contextmanager
def worker(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "4"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    env = os.environ | {"C_FORCE_ROOT": "1"}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def wait_for(done: Path, count: int) -> None:
    until = time.monotonic() + WITHIN
    while done.stat().st_size < count:
        if time.monotonic() > until:
            raise SystemExit(f"{done.stat().st_size} of {count} tasks after {WITHIN:g} s")
        time.sleep(0.002)


def main() -> None:
    length, width = int(sys.argv[1]), int(sys.argv[2])
    folder = Path.cwd() / f"celery-{os.getpid()}"
    folder.mkdir()
    (folder / "tasks.py").write_text(APP)
    done = folder / "done"
    done.touch()
    with redis(folder) as port:
        (folder / "settings.json").write_text(json.dumps(settings(folder, port)))
        sys.path.insert(0, str(folder))
        from celery import chain, group  # type: ignore[import-not-found, attr-defined]
        from tasks import shell  # type: ignore[import-not-found]

        with worker(folder):
            group(shell.si() for _ in range(20))()
            wait_for(done, 20)
            began = time.perf_counter()
            chain(*[shell.si() for _ in range(length)])()
            wait_for(done, 20 + length)
            line = (time.perf_counter() - began) / length * 1e3
            began = time.perf_counter()
            group(shell.si() for _ in range(width))()
            wait_for(done, 20 + length + width)
            wide = width / (time.perf_counter() - began)
    note = "broker: Redis, which syncs nothing" if port else "broker: files; there is no Redis here"
    print(json.dumps({"chain": line, "fan_out": wide, "note": note}))


if __name__ == "__main__":
    main()
