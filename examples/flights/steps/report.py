"""One page that needs nothing else: pictures and style are inside.

Rule: the page is put together here and worded in `findings`; it is written whole or not at all, and
each picture also as a file of its own.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from steps import charts, features, findings
from steps.files import replacing
from steps.months import LATE

HERE = Path(__file__).parent
Row = Mapping[str, Any]


class Disagreement(Exception):
    """Two ways of counting the same flights differ."""


def reconcile(counts: Mapping[str, int]) -> int:
    """The one number that all ways of counting gave."""
    if len(set(counts.values())) != 1:
        raise Disagreement(", ".join(f"{way}: {count:,}" for way, count in counts.items()))
    return next(iter(counts.values()))


def pictures(
    summary: Sequence[Row],
    days: Sequence[Row],
    carriers: Sequence[Row],
    names: Mapping[str, str],
    effects: Sequence[Row],
    result: Row,
) -> dict[str, str]:
    """All pictures, by name."""
    by = findings.shares
    months = {key: share for key, (share, _) in by(summary, lambda row: row["month"]).items()}
    hours = {key: share for key, (share, _) in by(summary, lambda row: row["hour"]).items()}
    drawn = {
        "hours": charts.heat_map(
            by(summary, lambda row: (row["month"], row["hour"])), months, hours
        ),
        "days": charts.year(by(days, lambda row: (row["month"], row["day"]))),
        "airlines": charts.airlines([_bar(row, names) for row in carriers], findings.ENOUGH),
        "airports": charts.hours(_airports(summary)),
        "roc": _roc(result),
        "calibration": _calibration(result),
        "avoid": _avoid(result),
        "importance": charts.ranking([(row["group"], row["loss"]) for row in result["importance"]]),
    }
    greatest = max(step["rate"] or 0 for effect in effects for step in effect["steps"])
    for effect in effects:
        rows = [(step["name"], step["flights"], step["rate"]) for step in effect["steps"]]
        drawn[f"weather-{effect['column']}"] = charts.steps(effect["title"], rows, greatest)
    return drawn


def _bar(row: Row, names: Mapping[str, str]) -> tuple[str, int, float, float]:
    lost = row["cancelled"] + row["diverted"]
    name = findings.short(names[row["carrier"]])
    return name, row["flights"], row["late"] / row["flights"], lost / row["flights"]


def _airports(summary: Sequence[Row]) -> dict[str, dict[int, float]]:
    lines: dict[str, dict[int, float]] = {}
    for (origin, hour), (share, flights) in findings.shares(
        summary, lambda row: (row["origin"], row["hour"])
    ).items():
        if flights >= 200:
            lines.setdefault(findings.AIRPORTS.get(origin, origin), {})[hour] = share
    return lines


def _roc(result: Row) -> str:
    plane = charts.Plane("false alarms", "disruptions found")
    plane.diagonal()
    plane.curve(result["roc"]["habit"], "other")
    plane.curve(result["roc"]["model"], "model")
    scores = result["scores"]
    plane.note((0.40, 0.21), f"model, AUC {scores['model']['auc']:.3f}", "strong is-model")
    plane.note((0.40, 0.13), f"airline and hour, {scores['habit']['auc']:.3f}", "is-other")
    plane.note((0.40, 0.05), "chance, 0.500", "is-other")
    return plane.svg("ROC curves of the model and of the baseline")


def _calibration(result: Row) -> str:
    parts = {
        name: [(part["expected"], part["observed"]) for part in rows]
        for name, rows in result["calibration"].items()
    }
    top = max(value for points in parts.values() for point in points for value in point)
    plane = charts.Plane("expected share", "observed share", reach=(int(top * 10) + 1) / 10)
    plane.diagonal()
    for name, kind in (("habit", "other"), ("model", "model")):
        plane.curve(parts[name], kind)
        plane.dots(parts[name], f"dot-{kind}")
    reach = plane.reach
    plane.note((0.04 * reach, 0.93 * reach), "model", "strong is-model")
    plane.note((0.04 * reach, 0.85 * reach), "airline and hour", "is-other")
    return plane.svg("Expected and observed share of disruptions, by tenths of the flights")


def _avoid(result: Row) -> str:
    plane = charts.Plane("flights avoided, riskiest first", "disruptions avoided")
    plane.diagonal()
    plane.curve(result["capture"]["habit"], "other")
    plane.curve(result["capture"]["model"], "model")
    best = result["avoid"]["model"]
    point = (best["share"], best["caught"])
    plane.dots([point], "dot-model")
    few, much = charts.percent(best["share"]), charts.percent(best["caught"])
    plane.note((0.36, 0.21), f"avoid {few} of the flights,", "strong is-model")
    plane.note((0.36, 0.13), f"miss {much} of the trouble", "strong is-model")
    plane.note((0.36, 0.05), "airline and hour", "is-other")
    return plane.svg("Share of disruptions avoided, by share of flights avoided")


def page(
    drawn: Mapping[str, str],
    summary: Sequence[Row],
    days: Sequence[Row],
    carriers: Sequence[Row],
    names: Mapping[str, str],
    effects: Sequence[Row],
    result: Row,
    notes: Row,
) -> str:
    """The page as HTML. `notes`: `remarks` of the check, `counts`, `recovery`, `run`."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": charts.percent, "month": lambda m: calendar.month_name[m]}
    return environment.get_template("report.html.j2").render(
        style=Markup((HERE / "charts.css").read_text() + (HERE / "report.css").read_text()),
        pictures={name: Markup(svg) for name, svg in drawn.items()},
        scales=[f"weather-{effect['column']}" for effect in effects],
        totals=findings.total(summary),
        opening=findings.opening(summary),
        enough=findings.ENOUGH,
        few=charts.FEW,
        when_title=findings.when_title(summary),
        when=findings.when(summary),
        worst_days=findings.worst_days(days),
        who=findings.who(carriers, names),
        where=findings.where(summary),
        weather=findings.weather(effects),
        judgement=findings.judgement(result),
        honesty=findings.honesty(result),
        features=list(features.GROUPS),
        result=result,
        late=LATE,
        **notes,
    )


def write(out: Path, html: str, drawn: Mapping[str, str]) -> Path:
    """`report.html` and `pictures/*.svg` in `out`; answers the path of the page."""
    for name, svg in drawn.items():
        with replacing(out / "pictures" / f"{name}.svg") as draft:
            draft.write_text(charts.standalone(svg), encoding="utf-8")
    with replacing(out / "report.html") as draft:
        draft.write_text(html, encoding="utf-8")
    return out / "report.html"
