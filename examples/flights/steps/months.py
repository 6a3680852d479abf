"""One month of flights, cleaned: what became of each flight, in words a traveller would use.

Rule: a flight is `disrupted` if it landed `LATE` minutes late or more, or did not land where it
should (cancelled or diverted). One definition, for the tables, the pictures and the model: a model
that is trained only on flights that arrived has been told something about the future.
"""

from __future__ import annotations

import pandas as pd

#: Minutes.
LATE = 30

#: What is known when the timetable is printed.
SCHEDULE = ("month", "day", "weekday", "hour", "minute", "time_hour")
ROUTE = ("carrier", "flight", "origin", "dest", "distance")
#: What is known only afterwards.
OUTCOME = ("dep_delay", "arr_delay", "cancelled", "diverted", "disrupted")
COLUMNS = (*SCHEDULE, *ROUTE, *OUTCOME)


def clean(flights: pd.DataFrame, month: int) -> pd.DataFrame:
    """The month's flights in order of schedule, with the columns `COLUMNS`.

    `weekday` is 0 for Monday; `time_hour` is the scheduled hour in UTC; delays are minutes, empty
    where there was no departure or arrival; the last three are 0 or 1.
    """
    rows = flights[flights.month == month].copy()
    rows["weekday"] = pd.to_datetime(rows[["year", "month", "day"]]).dt.day_of_week
    rows["cancelled"] = rows.dep_time.isna().astype(int)
    # It left, and no arrival delay was recorded: it landed elsewhere, or turned back.
    rows["diverted"] = (rows.dep_time.notna() & rows.arr_delay.isna()).astype(int)
    late = rows.arr_delay >= LATE
    rows["disrupted"] = (late | (rows.cancelled == 1) | (rows.diverted == 1)).astype(int)
    return rows.sort_values(["time_hour", "origin", "carrier", "flight"])[list(COLUMNS)]


def describe(rows: pd.DataFrame) -> dict[str, float | int]:
    """The month in a few numbers."""
    return {
        "month": int(rows.month.iloc[0]),
        "flights": len(rows),
        "cancelled": int(rows.cancelled.sum()),
        "diverted": int(rows.diverted.sum()),
        "disrupted": int(rows.disrupted.sum()),
        "median_delay": float(rows.arr_delay.median()),
    }
