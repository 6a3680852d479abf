"""What the model may look at: nothing that is learnt after the hour of departure has begun.

Rule: `build` takes the timetable, the route and the weather of the hours before. The outcome
columns are dropped before anything is computed, and the weather of a flight scheduled in hour h
is that of hour h - 1 and earlier. The aircraft is left out although it is in the table: cancelled
flights often have no tail number, so its absence is an outcome in disguise. The month is left out
because the test months do not occur in the training months.
"""

from __future__ import annotations

import pandas as pd

from steps.months import ROUTE, SCHEDULE
from steps.tables import FASTEST_WIND

CATEGORIES = ("carrier", "origin", "dest")

#: Features in groups: what a reader would call them, and the columns that belong together.
GROUPS = {
    "time of day": ("departure",),
    "weekday": ("weekday",),
    "airline": ("carrier",),
    "destination": ("dest", "distance"),
    "airport and its timetable": ("origin", "crowd"),
    "weather an hour before": (
        *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"),
        *("precip", "pressure", "visib", "precip_6h", "pressure_change"),
    ),
}
COLUMNS = tuple(column for columns in GROUPS.values() for column in columns)

MEASURED = (
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"),
    *("precip", "pressure", "visib"),
)


def weather_before(weather: pd.DataFrame) -> pd.DataFrame:
    """For each airport and hour, what had been measured there by the end of the hour before.

    One row per (origin, time_hour), hours without a record included; `precip_6h` is the rain of
    the six hours before, in inches, `pressure_change` that of three hours, in millibars.
    """
    rows = weather.copy()
    rows["time_hour"] = pd.to_datetime(rows.time_hour, utc=True)
    rows.loc[rows.wind_speed > FASTEST_WIND, ["wind_speed", "wind_gust"]] = float("nan")
    parts = []
    for origin, local in rows.groupby("origin"):
        local = local.set_index("time_hour").sort_index()
        # One more hour at the end: the hour before it is known.
        last = local.index.max() + pd.Timedelta(hours=1)
        hours = pd.date_range(local.index.min(), last, freq="h", name="time_hour")
        before = local.reindex(hours)[list(MEASURED)].shift(1)
        before["precip_6h"] = before.precip.rolling(6, min_periods=1).sum()
        before["pressure_change"] = before.pressure - before.pressure.shift(3)
        before["origin"] = origin
        parts.append(before.reset_index())
    return pd.concat(parts, ignore_index=True)


def build(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """The features of each flight, columns `COLUMNS`, in the order of `flights`.

    `departure` is the scheduled minute of the day, `crowd` the number of flights that are
    scheduled to leave the same airport in the same hour. Categories are strings; unknown weather is
    NaN. All flights of an hour have to be in the table, or `crowd` is too small.
    """
    rows = flights[[*SCHEDULE, *ROUTE]].reset_index(drop=True)
    rows["time_hour"] = pd.to_datetime(rows.time_hour, utc=True)
    rows["departure"] = rows.hour * 60 + rows.minute
    rows["crowd"] = rows.groupby(["origin", "time_hour"]).flight.transform("size")
    joined = rows.merge(
        weather_before(weather), how="left", on=["origin", "time_hour"], validate="many_to_one"
    )
    return joined[list(COLUMNS)].set_axis(flights.index)
