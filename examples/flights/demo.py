"""`make demo`: starts a node, runs the flights workflow on it with live progress, stops the node.

    python examples/flights/demo.py [--out DIR] [--slots N] [--keep]

Rule: whatever happens, nothing is left running but what `--keep` asks for, and every wait ends. The
exit code is that of `grampus run start --wait`; 130 after Ctrl-C. The results, the node's data and
its log are below `--out` (default: `demo/` of the project): a second demo adds a run to the first.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
GRAMPUS = Path(sys.executable).parent / "grampus"

PR_SET_PDEATHSIG = 1
#: Seconds until a node has to be ready, and until it has to be gone.
READY, GONE = 60, 45


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM to the demo alone."""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and where to look."""


def written(file: Path) -> tuple[int, int] | None:
    """Which writing of the file is there. (Its time is no measure: the kernel's is coarse.)"""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def main() -> int:
    options = arguments()
    out: Path = options.out.resolve()
    if not GRAMPUS.exists():
        raise DemoFailed(f"{GRAMPUS} is not there: run `make demo`, which sets everything up")
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.html"
    before = written(report)
    with node(out, options.slots, options.keep) as server:
        say(f"a node is ready at {server}; its log is {shown(out / 'node.log')}")
        code = run(server, out)
    if code == 0 and written(report) in (None, before):
        raise DemoFailed(f"the run succeeded, but {report} was not written")
    farewell(out, code, server if options.keep else None)
    return code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "demo", help="folder for all files")
    parser.add_argument("--slots", type=int, default=max(2, os.cpu_count() or 2))
    parser.add_argument("--keep", action="store_true", help="leave the node running")
    return parser.parse_args()


@contextlib.contextmanager
def node(out: Path, slots: int, keep: bool) -> Iterator[str]:
    """A node that runs while the block does; gives its URL."""
    command = [GRAMPUS, "up", "--data", out / "node", "--listen", f"127.0.0.1:{free_port()}"]
    command += ["--slots", str(slots)]
    with (out / "node.log").open("w") as log:
        # In a session of its own: Ctrl-C comes here first, and the node is then told in order.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(),
            start_new_session=True,
            preexec_fn=None if keep else end_with(os.getpid()),
        )
    done = False
    try:
        yield wait_ready(process, out / "node.log")
        done = True
    finally:
        if keep and done:
            say(f"the node stays: stop it with `kill {process.pid}`")
        else:
            stop(process)


def end_with(driver: int) -> Callable[[], None]:
    """What a child does before it becomes a program: it asks for a SIGTERM at the end of the demo,
    however that ends. A node then stops in order."""
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != driver:
            os._exit(1)  # It has ended already.

    return ask


def wait_ready(process: subprocess.Popen[str], log: Path) -> str:
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    deadline = time.monotonic() + READY
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            break
        if line.startswith("ready "):
            return line.split()[1]
        if not line:
            raise DemoFailed(f"the node ended before it was ready:\n{tail(log)}")
    raise DemoFailed(f"the node was not ready after {READY} s:\n{tail(log)}")


def run(server: str, out: Path) -> int:
    """Runs the workflow, in this terminal; answers the exit code."""
    command = [GRAMPUS, "--server", server, "run", "start", HERE / "flights.py"]
    command += ["-p", f"out={out}", "--wait"]
    cancel_runs(server)
    say("running examples/flights/flights.py: 336,776 flights, month by month")
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=environment(),
        preexec_fn=end_with(os.getpid()),
    )
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:
        # After a Ctrl-C the command says goodbye by itself: the terminal told it, too.
        if isinstance(interrupt, Terminated):
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        cancel_runs(server)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    say(f"the run ended after {time.monotonic() - started:.0f} s")
    return code


def cancel_runs(server: str) -> None:
    """Ends runs of a demo that was cut off: the next node would go on with them."""
    grampus = [GRAMPUS, "--server", server, "run"]
    asked = [*grampus, "list", "--workflow", "flights", "--limit", "50", "-o", "json"]
    try:
        listed = subprocess.run(
            asked, capture_output=True, env=environment(), timeout=20, check=True
        )
        for found in json.loads(listed.stdout or b"[]"):
            if found["state"] not in ("SUCCEEDED", "FAILED", "CANCELLED"):
                say(f"cancelling run {found['id']}, which was cut off")
                cancel = [*grampus, "cancel", found["id"]]
                subprocess.run(
                    cancel, capture_output=True, env=environment(), timeout=20, check=True
                )
    except (subprocess.SubprocessError, ValueError, KeyError) as error:
        say(f"runs that were cut off could not be cancelled: {error}")


def stop(process: subprocess.Popen[str]) -> None:
    """Asks the node to end and, if it does not in time, ends it."""
    if process.poll() is not None:
        return
    say("stopping the node")
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=GONE)
    except subprocess.TimeoutExpired:
        say(f"it did not end in {GONE} s: killed")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def farewell(out: Path, code: int, server: str | None) -> None:
    grampus = shown(GRAMPUS)
    print()
    if code == 0:
        print(f"  The report    {(out / 'report.html').as_uri()}")
        print(f"  Its pictures  {shown(out / 'pictures')}/")
    else:
        print(f"  The run did not succeed (exit code {code}). What follows shows why.")
    print()
    if server is None:
        print("  The node has been stopped, nothing is left running. Start it again")
        print(f"    {grampus} up --data {shown(out / 'node')}")
        print("  and look around in another terminal")
    else:
        print(f"  The node is still running at {server}. Look around")
        grampus += f" --server {server}"
    print(f"    {grampus} run show last")
    print(f"    {grampus} run logs last train")
    print(flush=True)


def free_port() -> int:
    """A port that is free together with the next one, which the node takes as well."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
    raise DemoFailed("no two free ports side by side on 127.0.0.1")


def environment() -> dict[str, str]:
    """Without what was set for other servers."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("GRAMPUS_SERVER", "GRAMPUS_TOKEN")
    }


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def shown(path: Path) -> str:
    """As short as it can be typed here."""
    return min(str(path), os.path.relpath(path), key=len)


def say(words: str) -> None:
    print(f"demo: {words}", file=sys.stderr, flush=True)


def interrupted(_number: int, _frame: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(main())
    except DemoFailed as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
