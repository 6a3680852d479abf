"""kill -9 at any moment of a real process: what it was told to be done, is done, once, in order."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

from consensus_child import Table

from grampus.consensus.solo import SoloLog

CHILD = Path(__file__).with_name("consensus_child.py")


def acknowledged_before_the_kill(path: Path, lines: int) -> list[str]:
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        told = []
        for line in child.stdout:
            told.append(line)
            if len(told) == lines:
                child.kill()
        assert child.wait(10) == -9
    return [line.strip() for line in told if line.endswith("\n")]


def test_a_killed_process_has_done_what_it_acknowledged(tmp_path: Path) -> None:
    path, rng = tmp_path / "data", random.Random(3)
    told: list[str] = []
    for _ in range(12):
        told += acknowledged_before_the_kill(path, rng.choice((1, 2, 30, 150, 400)))
        assert (path / "log").exists()

    async def reopen() -> tuple[int, list[tuple[str, int]]]:
        table = Table(path / "ledger" / "x.db")
        solo = await SoloLog.open(path / "log", table)
        await solo.close()
        rows = table.db.query("SELECT command, entry FROM done ORDER BY rowid")
        table.db.close()
        return solo.term, [(bytes(c).decode().rstrip("."), entry) for c, entry in rows]

    term, rows = asyncio.run(reopen())
    assert term == 13, "every start has a term of its own"
    done = [command for command, _ in rows]
    assert len(set(done)) == len(done), "nothing is applied twice"
    assert set(told) <= set(done), "nothing acknowledged is lost"
    entries = [entry for _, entry in rows]
    assert entries == sorted(entries)
    assert set(entries) == set(range(1, max(entries) + 1)), "no entry is missing"
    for name in range(4):
        for of in range(1, 13):
            numbers = [int(c.split("-")[2]) for c in done if c.startswith(f"{of}-{name}-")]
            assert numbers == list(range(len(numbers))), "each proposer's order is kept"
