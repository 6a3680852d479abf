"""The months in one SQLite file, for SQL.

Rule: the file is built beside its place and moved there, so that a second try starts afresh and a
reader never sees half a year.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pandas as pd

from steps.files import replacing
from steps.months import COLUMNS


def build(files: Iterable[Path], target: Path) -> int:
    """Loads the CSV files of the months into `target`; answers the number of flights."""
    with replacing(target) as draft, closing(sqlite3.connect(draft)) as database:
        for file in files:
            pd.read_csv(file).to_sql("flights", database, if_exists="append", index=False)
        database.execute("CREATE INDEX flights_by_hour ON flights (month, hour, origin)")
        database.commit()
        (rows,) = database.execute("SELECT count(*) FROM flights").fetchone()
    return int(rows)


def read(source: Path) -> pd.DataFrame:
    """All flights, in order of schedule."""
    with closing(sqlite3.connect(source)) as database:
        order = "ORDER BY time_hour, origin, carrier, flight"
        return pd.read_sql_query(f"SELECT {', '.join(COLUMNS)} FROM flights {order}", database)
