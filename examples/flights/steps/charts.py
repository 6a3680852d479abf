"""The pictures, drawn as SVG by hand: small, sharp, readable in the dark and on a phone.

Rule: a chart gets numbers and gives markup; it says nothing in words and knows no colours but the
names of `charts.css`, which is inlined beside it. Widths are in px of a phone: text stays readable.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from html import escape
from pathlib import Path

#: A share of fewer flights than this is not drawn.
FEW = 30
#: Shades of the heat maps.
SHADES = 9
MONTHS = tuple(calendar.month_abbr[1:])

Point = tuple[float, float]


def picture(width: float, height: float, label: str, *parts: str) -> str:
    """The frame; `label` is read aloud by screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'class="chart" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def standalone(svg: str, margin: int = 14) -> str:
    """The picture as a file of its own, with its colours and a margin."""
    style = Path(__file__).with_name("charts.css").read_text(encoding="utf-8")
    start, _, rest = svg.partition('viewBox="')
    size, _, rest = rest.partition('"')
    width, height = (float(part) + 2 * margin for part in size.split()[2:])
    head, _, body = rest.partition(">")
    corner = f"{-margin} {-margin} {width:g} {height:g}"
    ground = f'<rect x="{-margin}" y="{-margin}" width="100%" height="100%" class="paper"/>'
    return f'{start}viewBox="{corner}"{head}><style>{style}</style>{ground}{body}'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
        f'class="{kind}">{title}</rect>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def path(points: Sequence[Point], kind: str) -> str:
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps}" class="{kind}"/>'


def shade(rate: float, greatest: float) -> str:
    """Class of a heat map's cell; the scale ends at `greatest`."""
    return f"heat h{min(int(rate / greatest * SHADES), SHADES - 1)}"


def percent(share: float, digits: int = 0) -> str:
    return f"{share * 100:.{digits}f}%"


def ramp(x: float, y: float, greatest: float, width: float = 108) -> str:
    """The legend of a heat map."""
    step = width / SHADES
    cells = [box(x + i * step, y, step, 8, f"heat h{i}") for i in range(SHADES)]
    ends = (
        text(x - 5, y + 7.5, "0", "small", "end"),
        text(x + width + 5, y + 7.5, f"{percent(greatest)} and more", "small"),
    )
    return "".join([*cells, *ends])


def heat_map(
    cells: dict[tuple[int, int], Point], months: dict[int, float], hours: dict[int, float]
) -> str:
    """Rows are hours, columns months; `cells` is (month, hour) to (share, flights).

    `months` and `hours` are the shares at the margins. Cells of fewer than `FEW` flights stay
    empty.
    """
    left, top, wide, high, gap = 40, 20, 26, 17, 6
    shown = sorted({hour for (_, hour), (_, flights) in cells.items() if flights >= FEW})
    greatest = 0.5
    parts = [
        text(left + (m - 0.5) * wide, top - 7, MONTHS[m - 1], "small", "middle") for m in months
    ]
    parts.append(text(left + 12 * wide + gap + wide / 2, top - 7, "year", "small strong", "middle"))
    for row, hour in enumerate(shown):
        y = top + row * high
        parts.append(text(left - 6, y + 12, f"{hour}:00", "small", "end"))
        for month in months:
            share, flights = cells.get((month, hour), (0.0, 0))
            if flights < FEW:
                continue
            x = left + (month - 1) * wide
            tip = f"{MONTHS[month - 1]}, {hour}:00: {percent(share, 1)} of {flights:,.0f} flights"
            parts.append(_cell(x, y, wide, high, share, greatest, tip))
        x = left + 12 * wide + gap
        tip = f"{hour}:00, the whole year: {percent(hours[hour], 1)}"
        parts.append(_cell(x, y, wide, high, hours[hour], greatest, tip))
    y = top + len(shown) * high + gap
    parts.append(text(left - 6, y + 12, "all day", "small strong", "end"))
    for month, share in months.items():
        tip = f"{MONTHS[month - 1]}, all day: {percent(share, 1)}"
        parts.append(_cell(left + (month - 1) * wide, y, wide, high, share, greatest, tip))
    parts.append(ramp(left + 10, y + high + 14, greatest))
    label = "Share of disrupted flights by hour and month"
    return picture(left + 13 * wide + gap + 2, y + high + 28, label, *parts)


def _cell(x: float, y: float, wide: float, high: float, share: float, end: float, tip: str) -> str:
    kind = shade(share, end)
    number = text(x + wide / 2, y + 12, f"{share * 100:.0f}", f"cell on-{kind[5:]}", "middle")
    return box(x, y, wide - 1.5, high - 1.5, kind, tip) + number


def year(days: dict[tuple[int, int], Point], of: int = 2013) -> str:
    """A calendar: columns are weeks, rows weekdays; `days` is (month, day) to (share, flights)."""
    left, top, side = 30, 18, 13.1
    greatest = 0.6
    first = calendar.weekday(of, 1, 1)
    parts = [
        text(left - 5, top + row * side + 10, name, "small", "end")
        for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun"))
    ]
    passed = first
    for month in range(1, 13):
        length = calendar.monthrange(of, month)[1]
        parts.append(text(left + (passed + 6) // 7 * side, top - 6, MONTHS[month - 1], "small"))
        for day in range(1, length + 1):
            column, row = divmod(passed, 7)
            passed += 1
            if (month, day) not in days:
                continue
            share, flights = days[month, day]
            name = calendar.day_name[row]
            tip = f"{name}, {day} {MONTHS[month - 1]}: {percent(share)} of {flights:,.0f} flights"
            place = left + column * side, top + row * side
            parts.append(box(*place, side - 2, side - 2, shade(share, greatest), tip))
    parts.append(ramp(left + 10, top + 7 * side + 10, greatest))
    label = "Share of disrupted flights on each day of the year"
    return picture(left + 53 * side + 2, top + 7 * side + 24, label, *parts)


def airlines(rows: Sequence[tuple[str, int, float, float]], enough: int) -> str:
    """Bars; a row is (name, flights, share late, share cancelled or diverted).

    Names of airlines with fewer than `enough` flights are grey.
    """
    left, width, high, top = 134, 196, 21, 20
    greatest = max(late + lost for _, _, late, lost in rows)
    parts = [
        *(box(left, 3, 9, 9, "late"), text(left + 13, 11, "late", "small")),
        *(box(left + 46, 3, 9, 9, "lost"), text(left + 59, 11, "cancelled or diverted", "small")),
    ]
    for row, (name, flights, late, lost) in enumerate(rows):
        y = top + row * high
        tip = f"{name}: {flights:,} flights, {percent(late, 1)} late, {percent(lost, 1)} lost"
        first, second = late / greatest * width, lost / greatest * width
        parts += [
            text(left - 8, y + 13, name, "label" if flights >= enough else "label few", "end"),
            box(left, y + 3, first, high - 8, "late", tip),
            box(left + first, y + 3, second, high - 8, "lost", tip),
            text(left + first + second + 5, y + 13, percent(late + lost, 1), "small number"),
        ]
    label = "Share of disrupted flights by airline"
    return picture(left + width + 46, top + len(rows) * high + 2, label, *parts)


def steps(title: str, rows: Sequence[tuple[str, int, float | None]], greatest: float) -> str:
    """Columns, one for each step of a scale: (name, flights, share)."""
    width, high, base = 220.0, 96.0, 132.0
    wide = width / len(rows)
    parts = [text(0, 13, title, "label strong"), line(0, base + 0.5, width, base + 0.5, "axis")]
    for column, (name, flights, share) in enumerate(rows):
        middle = (column + 0.5) * wide
        parts.append(text(middle, base + 14, name, "small", "middle"))
        if share is None or not flights:
            continue
        tall = share / greatest * high
        tip = f"{title}, {name}: {percent(share, 1)} of {flights:,} flights"
        parts.append(box(middle - wide * 0.32, base - tall, wide * 0.64, tall, "late", tip))
        parts.append(text(middle, base - tall - 5, percent(share), "small number", "middle"))
    return picture(width, base + 20, title, *parts)


class Plane:
    """A square from 0 to 1 in both directions, with axes."""

    def __init__(self, across: str, up: str, reach: float = 1.0, marks: int = 4) -> None:
        self.left, self.top, self.width, self.height = 52, 10, 284, 230
        self.reach = reach
        self.parts: list[str] = []
        for mark in range(marks + 1):
            share = reach * mark / marks
            x, y = self.at((share, share))
            self.parts += [
                line(self.left, y, self.left + self.width, y, "axis" if mark == 0 else "grid"),
                text(self.left - 6, y + 4, percent(share), "small", "end"),
                text(x, self.top + self.height + 15, percent(share), "small", "middle"),
            ]
        foot = self.top + self.height + 32
        self.parts.append(text(self.left + self.width / 2, foot, across, "small", "middle"))
        turn = f"translate(9 {self.top + self.height / 2}) rotate(-90)"
        self.parts.append(f'<g transform="{turn}">{text(0, 0, up, "small", "middle")}</g>')

    def at(self, point: Point) -> Point:
        across, up = point
        return (
            self.left + across / self.reach * self.width,
            self.top + (1 - up / self.reach) * self.height,
        )

    def diagonal(self) -> None:
        self.curve([(0, 0), (self.reach, self.reach)], "chance")

    def curve(self, points: Sequence[Point], kind: str) -> None:
        self.parts.append(path([self.at(point) for point in points], f"curve {kind}"))

    def dots(self, points: Sequence[Point], kind: str) -> None:
        for point in points:
            x, y = self.at(point)
            tip = f"expected {percent(point[0], 1)}, observed {percent(point[1], 1)}"
            title = f"<title>{tip}</title>"
            self.parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" class="{kind}">{title}</circle>'
            )

    def note(self, point: Point, words: str, kind: str, anchor: str = "start") -> None:
        self.parts.append(text(*self.at(point), words, f"label {kind}", anchor))

    def svg(self, label: str) -> str:
        width, height = self.left + self.width + 18, self.top + self.height + 40
        return picture(width, height, label, *self.parts)


def hours(lines: dict[str, dict[int, float]]) -> str:
    """One line per airport over the hours of the day: share of disrupted flights."""
    left, top, width, high = 38, 12, 300, 200
    shown = sorted({hour for shares in lines.values() for hour in shares})
    first, last = shown[0], shown[-1]
    greatest = max(share for shares in lines.values() for share in shares.values()) * 1.08

    def at(hour: int, share: float) -> Point:
        return left + (hour - first) / (last - first) * width, top + (1 - share / greatest) * high

    parts = []
    for tenth in range(int(greatest * 10) + 1):
        y = at(first, tenth / 10)[1]
        parts.append(line(left, y, left + width, y, "grid" if tenth else "axis"))
        parts.append(text(left - 6, y + 4, percent(tenth / 10), "small", "end"))
    parts += [
        text(at(hour, 0)[0], top + high + 15, f"{hour}:00", "small", "middle")
        for hour in range(6, last + 1, 3)
    ]
    # Mornings are quiet, so the upper left corner is free for the names, in the order of the lines.
    ranked = sorted(lines, key=lambda name: -sum(lines[name].values()) / len(lines[name]))
    for number, name in enumerate(ranked):
        points = [at(hour, share) for hour, share in sorted(lines[name].items())]
        parts.append(path(points, f"curve s{number}"))
        y = top + 16 + number * 17
        parts.append(line(left + 12, y - 4, left + 28, y - 4, f"curve s{number}"))
        parts.append(text(left + 34, y, name, "label strong"))
    label = "Share of disrupted flights by scheduled hour at each airport"
    return picture(left + width + 8, top + high + 22, label, *parts)


def ranking(rows: Sequence[tuple[str, float]]) -> str:
    """Bars of what a group of features is worth, in AUC."""
    left, width, high = 148, 160, 24
    greatest = max(max(value for _, value in rows), 1e-9)
    parts = []
    for row, (name, value) in enumerate(rows):
        y, long = row * high, max(value, 0) / greatest * width
        parts += [
            text(left - 8, y + 15, name, "label", "end"),
            box(left, y + 4, max(long, 1), high - 9, "model", f"{name}: {value:.3f} AUC"),
            text(left + long + 5, y + 15, f"{value:.3f}", "small number"),
        ]
    return picture(left + width + 42, len(rows) * high + 2, "Worth of the features", *parts)
