"""A year of flights from New York, from five tables to one page: what goes wrong, when, and
whether one could have known.

    grampus run start examples/flights/flights.py -p out=$PWD/demo --wait

Rule: a task is a few lines here and a plain function in `steps`. Big tables travel as files below
`out`, and tasks hand each other paths and small values, so `out` is a folder that all workers see.
Each task imports what it needs when it runs: counting lines should not load scikit-learn, and
applying the workflow needs nothing but Grampus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grampus import Retry, context, shell, sql, task, workflow

#: Counts the flights of each airline once more, with other tools than everybody else here.
COUNT = """
set -eu
cd {{ params.out }}/work/months
awk -F, '
  FNR == 1 { for (i = 1; i <= NF; i++) if ($i == "carrier") column = i; next }
  { print $column }
' 2013-*.csv | sort | uniq -c | sort -rn > ../carriers.txt
head -n 3 ../carriers.txt
awk '{ all += $1 } NR == 1 { top = $2 }
  END { print "flights=" all; print "airlines=" NR; print "busiest=" top }
' ../carriers.txt >> "$GRAMPUS_OUTPUT"
"""

DAYS = """
SELECT month, day, count(*) AS flights, sum(disrupted) AS disrupted
FROM flights GROUP BY month, day ORDER BY month, day
"""

#: One slot, one core: threads that outnumber the cores spin, and wait for each other.
THREADS = {"OMP_NUM_THREADS": "1"}


class SimulatedNetworkError(Exception):
    """Nothing is wrong: the example shows what a retry looks like."""


@task(timeout="5m")
def check_tables() -> dict[str, Any]:
    """Reads the five tables and checks keys, ranges, gaps; fails with all problems at once."""
    from steps import tables

    found = tables.read_all()
    problems, remarks = tables.check(found)
    for remark in remarks:
        print("remark:", remark)
    if problems:
        raise tables.BadTables("; ".join(problems))
    return {"rows": {name: len(table) for name, table in found.items()}, "remarks": remarks}


@task(retry=Retry(2, delay="2s", factor=2), timeout="1m", priority=10)
def airlines() -> dict[str, Any]:
    """Names of the airlines. The first try fails on purpose, the second works."""
    from steps import tables

    attempt = context().attempt
    if attempt == 1:
        raise SimulatedNetworkError("simulated: the first try fails on purpose, the retry recovers")
    print(f"try {attempt}: here are the names")
    return {"names": dict(tables.read("airlines").itertuples(index=False)), "attempt": attempt}


@task(timeout="5m")
def month(out: str, number: int) -> dict[str, Any]:
    """One month, cleaned, as a CSV file."""
    from steps import months, tables
    from steps.files import replacing

    rows = months.clean(tables.read("flights"), number)
    path = Path(out) / "work" / "months" / f"2013-{number:02}.csv"
    with replacing(path) as draft:
        rows.to_csv(draft, index=False)
    found = months.describe(rows)
    print(found)
    return {**found, "path": str(path)}


@task(timeout="5m")
def warehouse(out: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All months in one SQLite file."""
    from steps import warehouse

    path = Path(out) / "work" / "warehouse.db"
    rows = warehouse.build([Path(part["path"]) for part in parts], path)
    print(f"{rows:,} flights in {path}")
    return {"path": str(path), "flights": rows}


@task(timeout="5m")
def join_weather(out: str, loaded: dict[str, Any]) -> dict[str, Any]:
    """What is known of each flight before it leaves, the weather of the hour before included."""
    from steps import features, tables, warehouse, weather
    from steps.files import replacing

    flights = warehouse.read(Path(loaded["path"]))
    table = features.build(flights, tables.read("weather"))
    path = Path(out) / "work" / "features.pkl"
    with replacing(path) as draft:
        table.join(flights[["month", "day", "hour", "disrupted"]]).to_pickle(draft)
    print(f"{len(table):,} flights with {len(table.columns)} features each")
    return {"path": str(path), "effects": weather.effects(table, flights.disrupted)}


@task(timeout="10m", env=THREADS)
def train(out: str, joined: dict[str, Any]) -> dict[str, Any]:
    """Learns from January to September: the model and the baseline beside it."""
    import pandas as pd
    from steps import model
    from steps.files import replacing

    table = pd.read_pickle(joined["path"])
    past, _ = model.split(table)
    known = table[past]
    fitted = model.train(known, known.disrupted), model.Habit.fit(known)
    path = Path(out) / "work" / "model.pkl"
    with replacing(path) as draft:
        pd.to_pickle(fitted, draft)
    print(f"learnt from {len(known):,} flights, {known.disrupted.mean():.1%} of them disrupted")
    return {"path": str(path), "flights": len(known)}


@task(timeout="10m", env=THREADS)
def evaluate(joined: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Asks both about October to December."""
    import pandas as pd
    from steps import model

    table = pd.read_pickle(joined["path"])
    fitted, habit = pd.read_pickle(trained["path"])
    _, future = model.split(table)
    result = model.evaluate(fitted, habit, table[future], table[future])
    for name, scores in result["scores"].items():
        print(f"{name:8} AUC {scores['auc']:.3f}, Brier {scores['brier']:.4f}")
    return result


@task(timeout="5m")
def report(
    out: str,
    checked: dict[str, Any],
    named: dict[str, Any],
    counted: dict[str, str],
    loaded: dict[str, Any],
    summary: list[dict[str, Any]],
    days: list[dict[str, Any]],
    carriers: list[dict[str, Any]],
    joined: dict[str, Any],
    judged: dict[str, Any],
) -> str:
    """One page with everything; answers its path. Fails if the ways of counting disagree."""
    from steps import report

    flights = report.reconcile(
        {
            "check": checked["rows"]["flights"],
            "warehouse": loaded["flights"],
            "awk": int(counted["flights"]),
            "summary.sql": sum(row["flights"] for row in summary),
            "airlines.sql": sum(row["flights"] for row in carriers),
        }
    )
    tables = (summary, days, carriers, named["names"], joined["effects"], judged)
    drawn = report.pictures(*tables)
    notes = {
        "remarks": checked["remarks"],
        "counts": f"Five ways of counting the flights (pandas, the warehouse, awk, and two SQL "
        f"queries) all gave {flights:,}.",
        "recovery": f"The task that fetches the airlines' names is made to fail at its first try; "
        f"these names came with try {named['attempt']}.",
        "run": context().run,
    }
    path = report.write(Path(out), report.page(drawn, *tables, notes), drawn)
    print(f"the report: {path}")
    return str(path)


@workflow
def flights(out: str) -> None:
    """`out`: absolute path of the folder for the report, its pictures and the working files."""
    database = "sqlite:///{{ params.out }}/work/warehouse.db"

    checked = check_tables()
    named = airlines()
    months = [
        month.options(name=f"month_{number:02}", after=[checked])(out, number)
        for number in range(1, 13)
    ]
    counted = shell(COUNT, name="count", after=months)
    loaded = warehouse(out, months)

    summary = sql(database, file="summary.sql", name="summary", after=[loaded])
    days = sql(database, statement=DAYS, name="days", after=[loaded])
    carriers = sql(database, file="airlines.sql", name="carriers", after=[loaded])

    joined = join_weather(out, loaded)
    trained = train(out, joined)
    judged = evaluate(joined, trained)
    report(out, checked, named, counted, loaded, summary, days, carriers, joined, judged)
