"""A ledger with a million task runs beside an empty one: does anything become slow?

The rows are made from those of one real run, copied in bulk, in under a minute. Then a node is
started on each folder, in turn, and asked the same things; medians, in milliseconds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.node import Running, running
from benchmarks.workflows import chain, run_to_end, timed
from grampus.database import Database
from grampus.ids import run_id
from grampus.sdk.load import Loaded

TASKS = 10
MILLION = 1_000_000
ASKED = 15


def prepare(folder: Path) -> None:
    """One real run of the workflow that is copied."""
    with running(folder=folder) as node:
        node.client.apply_loaded(Loaded(chain(TASKS), None, Path(__file__)))
        run_to_end(node, "chain")


def grow(folder: Path, rows: int) -> float:
    """Copies the run until there are so many task runs; bytes of the ledger per task run."""
    db = Database.open(folder / "data" / "ledger" / "ledger.db", synchronous="NORMAL")
    (model,) = db.query("SELECT id FROM run ORDER BY seq LIMIT 1")[0]
    runs = rows // TASKS
    first = db.value("SELECT value FROM meta WHERE key = 'run_seq'")
    step = db.value("SELECT max(revision) + 1000 FROM event")
    with db.transaction():
        db.execute("CREATE TEMP TABLE copy (k INTEGER PRIMARY KEY, id TEXT)")
        db.executemany(
            "INSERT INTO copy VALUES (?, ?)",
            ((k, str(run_id(os.urandom(8)))) for k in range(1, runs + 1)),
        )
        _copy(db, "run", model, {
            "id": "copy.id", "seq": f"{first} + copy.k",
            "request": "copy.id",
            "created": "created - copy.k", "ended": "ended - copy.k",
            "state": "CASE WHEN copy.k % 50 THEN 'SUCCEEDED' ELSE 'FAILED' END",
        })  # fmt: skip
        _copy(db, "task_run", model, {"run": "copy.id"})
        _copy(db, "attempt", model, {"run": "copy.id", "n": f"n + {step} * copy.k"})
        _copy(db, "event", model, {"run": "copy.id", "revision": f"revision + {step} * copy.k"})
        db.execute(f"UPDATE meta SET value = value + {runs} WHERE key = 'run_seq'")
        db.execute(f"UPDATE meta SET value = {step} * ({runs} + 1) WHERE key = 'revision'")
        db.execute("UPDATE session SET next_n = (SELECT max(n) + 1 FROM attempt)")
    for _ in range(10):
        if db.checkpoint():
            break
    size = db.value("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    db.close()
    return float(size) / rows


def _copy(db: Database, table: str, model: str, changed: dict[str, str]) -> None:
    columns = [row[1] for row in db.query(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, f"{table}.{name}") for name in columns)
    key = "id" if table == "run" else "run"
    order = "copy.id" if table != "run" else "copy.k"
    db.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM copy, {table}"
        f" WHERE {table}.{key} = ? ORDER BY {order}",
        (model,),
    )


def ask(node: Running) -> dict[str, float]:
    client = node.client
    (newest,) = client.runs(limit=1)
    run = newest.id
    asked: dict[str, Callable[[], object]] = {
        "run list": lambda: list(client.runs(limit=50)),
        "run list --workflow": lambda: list(client.runs("chain", limit=50)),
        "run list --state FAILED": lambda: list(client.runs(state="FAILED", limit=50)),
        "run list of another": lambda: list(client.runs("nothing", limit=50)),
        "run show": lambda: (client.run(run), client.tasks(run)),
        "submit": lambda: client.submit("chain"),
    }
    found = {"start to ready": node.ready_after * 1e3}
    for name, question in asked.items():
        found[name] = statistics.median(timed(question) * 1e3 for _ in range(ASKED))
    time.sleep(1)
    found["chain, per task"] = statistics.median(
        timed(lambda: run_to_end(node, "chain")) / TASKS * 1e3 for _ in range(ASKED)
    )
    return found


def main() -> None:
    rows = int(os.environ.get("ROWS", MILLION))
    with tempfile.TemporaryDirectory(prefix="grampus-bench-") as name:
        empty, big = Path(name, "empty"), Path(name, "big")
        for folder in (empty, big):
            folder.mkdir()
            prepare(folder)
        began = time.perf_counter()
        each = grow(big, rows)
        took = time.perf_counter() - began
        found = {}
        for folder in (empty, big):
            with running(folder=folder) as node:
                found[folder] = ask(node)
    print(f"{rows:,} task runs (made in {took:.0f} s), {each:,.0f} bytes of ledger per task run")
    print(f"{'median ms':28} {'empty':>8} {'big':>8}  ratio")
    for what, small in found[empty].items():
        large = found[big][what]
        print(f"  {what:26} {small:8.2f} {large:8.2f}  {large / small:5.2f}")


if __name__ == "__main__":
    main()
