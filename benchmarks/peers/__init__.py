"""Other systems on the same work in the same run: each in a venv of its own, from PyPI.

A peer is a file here that runs under its own Python and prints one JSON object:
`{"chain": milliseconds per task, "fan_out": tasks per second}`, for `sh -c true`, 4 at once, and
perhaps a `note`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from benchmarks.workflows import CHAIN, FAN_OUT, ROUNDS, chain, fan_out, run_to_end, spread, timed

#: What pip installs for each.
PEERS = {
    "celery": ("celery[redis]",),
    "dask": ("distributed",),
    "hyperqueue": ("hyperqueue",),
    "luigi": ("luigi",),
}
INSTALL_TIMEOUT = 180.0
ROUND_TIMEOUT = 120.0


def prepare(name: str, folder: Path) -> str | None:
    """The peer's Python, or None, with a line that says why."""
    if name not in PEERS:
        print(f"{name:10} skipped: there are {', '.join(PEERS)}")
        return None
    try:
        venv.create(folder, with_pip=True)
        python = str(folder / "bin" / "python")
        install = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        subprocess.run(
            [*install, *PEERS[name]], check=True, timeout=INSTALL_TIMEOUT, capture_output=True,
            text=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{name:10} skipped: it cannot be installed here: {last_line(error)}")
        return None
    return python


def last_line(error: Exception) -> str:
    """What the process said at last, or else the error itself."""
    lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
    return str(lines[-1])


def play_round(name: str, python: str, folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name(f"{name}.py")
    done = subprocess.run(
        # -P: a file here is named like the package that it measures.
        [python, "-P", str(script), str(CHAIN), str(FAN_OUT)], cwd=folder, check=True,
        timeout=ROUND_TIMEOUT, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(names: list[str]) -> None:
    from benchmarks.node import running
    from grampus.sdk.load import Loaded

    with tempfile.TemporaryDirectory(prefix="grampus-peers-") as text, running() as node:
        folder = Path(text)
        pythons = {n: p for n in names if (p := prepare(n, folder / n)) is not None}
        for workflow in (chain(CHAIN), fan_out(FAN_OUT)):
            node.client.apply_loaded(Loaded(workflow, None, Path(__file__)))
        run_to_end(node, "chain")
        rows: dict[str, list[dict[str, Any]]] = {n: [] for n in ("grampus", *pythons)}
        for _ in range(min(ROUNDS, 3)):
            rows["grampus"].append(
                {
                    "chain": timed(lambda: run_to_end(node, "chain")) / CHAIN * 1e3,
                    "fan_out": FAN_OUT / timed(lambda: run_to_end(node, "fan_out")),
                }
            )
            for name, python in list(pythons.items()):
                try:
                    rows[name].append(play_round(name, python, folder))
                except subprocess.SubprocessError as error:
                    print(f"{name:10} skipped: it does not run here: {last_line(error)}")
                    del pythons[name], rows[name]
    print(f"{'':10} {'chain, ms per task':>28} {'fan-out, tasks/s':>28}")
    for name, found in rows.items():
        chains, fans = ([row[key] for row in found] for key in ("chain", "fan_out"))
        note = found[0].get("note", "")
        print(f"{name:10} {spread(chains):>28} {spread(fans, 0):>28}  {note}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PEERS))
