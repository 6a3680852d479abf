"""What the numbers say, in sentences.

Rule: every number and every name in a sentence is computed from the tables; a sentence that the
numbers do not support is not written. Pictures are in `charts`, the page is `report`.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from steps.charts import percent

K = TypeVar("K", bound=Hashable)
Row = Mapping[str, Any]

#: Airlines with fewer flights are shown, but no finding rests on them.
ENOUGH = 1_000
AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}
MORNING, EVENING = range(5, 9), range(17, 21)


def shares(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, tuple[float, int]]:
    """(share of disrupted flights, flights) for each value of `key`, in its order."""
    counts: dict[K, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        count = counts[key(row)]
        count[0] += row["disrupted"]
        count[1] += row["flights"]
    ordered = sorted(counts.items(), key=lambda entry: repr(entry[0]).zfill(12))
    return {at: (bad / flights, flights) for at, (bad, flights) in ordered if flights}


def total(rows: Sequence[Row]) -> dict[str, int]:
    """Sums of all counts."""
    names = ("flights", "disrupted", "cancelled", "diverted", "late")
    return {name: sum(row[name] for row in rows) for name in names}


def spoken(number: int) -> str:
    """Small numbers as words."""
    words = "zero one two three four five six seven eight nine ten eleven twelve".split()
    return words[number] if number < len(words) else f"{number:,}"


def clock(hour: int) -> str:
    return f"{hour}:00"


def times(one: float, other: float) -> str:
    """`one` against `other`, as people say it."""
    ratio = one / other
    if ratio < 1.15:
        return "about as often"
    return f"{ratio:.1f} times as often"


def opening(rows: Sequence[Row]) -> str:
    sums = total(rows)
    one_in = sums["flights"] / max(sums["disrupted"], 1)
    return (
        f"Of {sums['flights']:,} departures in 2013, about one in {spoken(round(one_in))} went "
        "wrong: it landed half an hour late or more, was cancelled, or came down somewhere else."
    )


def short(name: str) -> str:
    """The name of an airline as people say it."""
    for ending in (" Inc.", " Co.", " Corporation", " Air Lines", " Airlines"):
        name = name.removesuffix(ending)
    return name


def when_title(rows: Sequence[Row]) -> str:
    early, late = _parts_of_day(rows)
    return "The day wears on, and the delays add up" if late > 1.5 * early else "Hours and months"


def when(rows: Sequence[Row]) -> list[str]:
    hours = shares(rows, lambda row: row["hour"])
    months = shares(rows, lambda row: row["month"])
    early, late = _parts_of_day(rows)
    worst = sorted(months, key=lambda month: -months[month][0])[:3]
    best = min(months, key=lambda month: months[month][0])
    known = {hour: share for hour, (share, flights) in hours.items() if flights >= ENOUGH}
    peak = max(known, key=lambda hour: known[hour])
    return [
        f"Flights planned between {clock(EVENING[0])} and "
        f"{clock(EVENING[-1] + 1)} go wrong {times(late, early)} as those before "
        f"{clock(MORNING[-1] + 1)}: {percent(late)} against {percent(early)}. The worst hour is "
        f"{clock(peak)}, with {percent(known[peak])}.",
        f"{_list(calendar.month_name[month] for month in worst)} are the hardest months "
        f"({_list(percent(months[month][0]) for month in worst)}); "
        f"{calendar.month_name[best]} is the easiest, with {percent(months[best][0])}.",
    ]


def worst_days(days: Sequence[Row], count: int = 3) -> str:
    ranked = sorted(days, key=lambda row: -row["disrupted"] / row["flights"])
    named = _list(
        f"{row['day']} {calendar.month_name[row['month']]} "
        f"({percent(row['disrupted'] / row['flights'])})"
        for row in ranked[:count]
    )
    flights = sum(row["flights"] for row in days)
    bad = sum(row["disrupted"] for row in days)
    tenth = ranked[: max(round(len(ranked) / 10), 1)]
    part = sum(row["disrupted"] for row in tenth) / max(bad, 1)
    weight = sum(row["flights"] for row in tenth) / max(flights, 1)
    return (
        f"Trouble comes in days. The worst were {named}. The {len(tenth)} worst days carry "
        f"{percent(weight)} of the flights and {percent(part)} of the disruptions."
    )


def who(airlines: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    large = [row for row in airlines if row["flights"] >= ENOUGH]
    if len(large) < 2:
        return []
    ranked = sorted(large, key=lambda row: row["disrupted"] / row["flights"])
    best, worst = ranked[0], ranked[-1]
    busiest = max(large, key=lambda row: row["flights"])

    def name(row: Row) -> str:
        return short(names[row["carrier"]])

    def rate(row: Row) -> str:
        return percent(row["disrupted"] / row["flights"], 1)

    small = len(airlines) - len(large)
    sentences = [
        f"Among airlines with at least {ENOUGH:,} flights, {name(best)} was disrupted least "
        f"({rate(best)}) and {name(worst)} most ({rate(worst)}).",
        f"The busiest, {name(busiest)} with {busiest['flights']:,} flights, is at {rate(busiest)}.",
    ]
    if small:
        few = "One airline has" if small == 1 else f"{spoken(small).capitalize()} airlines have"
        sentences.append(f"{few} fewer flights, too few for a finding.")
    sentences.append(
        "Airlines fly different routes at different hours: this is what their passengers met, "
        "not how well an airline is run."
    )
    return sentences


def where(rows: Sequence[Row]) -> str:
    airports = shares(rows, lambda row: row["origin"])
    ranked = sorted(airports, key=lambda origin: airports[origin][0])
    best, worst = (
        f"{AIRPORTS.get(origin, origin)} ({percent(airports[origin][0], 1)})"
        for origin in (ranked[0], ranked[-1])
    )
    sentence = f"{worst} is the hardest place to leave, {best} the easiest."
    if _spread(shares(rows, lambda row: row["hour"])) > 2 * _spread(airports):
        sentence += " The hour of the day moves the figure far more than the airport."
    return sentence


def weather(effects: Sequence[Row]) -> list[str]:
    by_column = {effect["column"]: effect["steps"] for effect in effects}
    rain, sight = by_column["precip"], by_column["visib"]
    dry, wet = rain[0], rain[-1]
    dim, clear = sight[0], sight[-1]
    counted = sum(step["flights"] for step in rain)
    sentences = []
    if dry["rate"] and wet["rate"]:
        sentences.append(
            f"An hour after heavy rain or snow ({wet['name']} 0.15 inches), "
            f"{percent(wet['rate'])} of flights are disrupted, against {percent(dry['rate'])} in "
            f"dry weather. It is rare: {percent(wet['flights'] / counted, 1)} of all flights."
        )
    if dim["rate"] and clear["rate"]:
        sentences.append(
            f"With less than a mile of sight it is {percent(dim['rate'])}, "
            f"with ten miles {percent(clear['rate'])}."
        )
    return sentences


def judgement(result: Row) -> list[str]:
    model, habit = result["scores"]["model"], result["scores"]["habit"]
    gain, avoid = result["gain"], result["avoid"]["model"]
    by_habit = result["avoid"]["habit"]["caught"]
    if gain["low"] > 0:
        verdict = (
            f"The gain of {gain['auc']:.3f} AUC is not the luck of a few days: with the days drawn "
            f"anew it stays between {gain['low']:.3f} and {gain['high']:.3f} in 95 of 100 cases."
        )
    else:
        verdict = (
            f"The gain of {gain['auc']:.3f} AUC may be chance: with the days drawn anew it goes "
            f"from {gain['low']:.3f} to {gain['high']:.3f}."
        )
    return [
        "Shown one flight that will be disrupted and one that will not, the model names the right "
        f"one {percent(model['auc'])} of the time; the record of the airline at that hour alone, "
        f"{percent(habit['auc'])}; a coin, {percent(0.5)}. {verdict}",
        f"Whoever avoids the {percent(avoid['share'])} of flights that look riskiest avoids "
        f"{percent(avoid['caught'])} of all disruptions (by the airline's record: "
        f"{percent(by_habit)}). Of the flights avoided {percent(avoid['worst_rate'])} "
        f"went wrong; of those that are left, {percent(avoid['rest_rate'], 1)}.",
    ]


def honesty(result: Row) -> list[str]:
    """Where the model is wrong."""
    months = result["by_month"]
    expected = sum(part["expected"] * part["flights"] for part in result["calibration"]["model"])
    expected /= result["flights"]
    over = "more" if expected > result["rate"] else "fewer"
    off = max(months, key=lambda row: abs(row["expected"] - row["rate"]))
    sense = "too gloomy" if off["expected"] > off["rate"] else "too hopeful"
    return [
        f"It expects {over} disruptions than there were: {percent(expected, 1)} against "
        f"{percent(result['rate'], 1)}. In the months it learnt from there were "
        f"{percent(result['past_rate'], 1)}, and it cannot know what kind of season follows.",
        f"It was furthest off in {calendar.month_name[off['month']]}, {sense}: expected "
        f"{percent(off['expected'], 1)}, observed {percent(off['rate'], 1)}.",
    ]


def _parts_of_day(rows: Sequence[Row]) -> tuple[float, float]:
    """Share of disrupted flights in the (morning, evening)."""
    hours = shares(rows, lambda row: row["hour"])
    early, late = (
        _mean(hours[hour] for hour in part if hour in hours) for part in (MORNING, EVENING)
    )
    return early, late


def _mean(parts: Iterable[tuple[float, int]]) -> float:
    pairs = list(parts)
    return sum(share * flights for share, flights in pairs) / max(sum(n for _, n in pairs), 1)


def _spread(parts: Mapping[Any, tuple[float, int]]) -> float:
    known = [share for share, flights in parts.values() if flights >= ENOUGH]
    return max(known) - min(known) if known else 0.0


def _list(words: Iterable[str]) -> str:
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last
