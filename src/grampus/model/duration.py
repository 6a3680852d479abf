"""Durations as people write them (`90s`, `1h30m`, `500ms`) and as the code holds them:
milliseconds."""

from __future__ import annotations

import re

UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
ALLOWED = "a number of seconds, or text such as 500ms, 10s, 20m, 1h30m, 2d, 1w"
#: No duration is longer than ten years: a typing error must not become a wait for ever.
LONGEST = 10 * 366 * UNITS["d"]
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|s|m|h|d|w)\s*")


def parse_duration(value: object) -> int:
    """Milliseconds of `value`: an int or float is seconds, text is read as above.

    Raises ValueError, with what is allowed, for anything else, for negatives and past ten years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no duration: {ALLOWED}")
    if isinstance(value, str):
        total, at, text = 0.0, 0, value.strip()
        while match := _PART.match(text, at):
            total += float(match[1]) * UNITS[match[2]]
            at = match.end()
        if not text or at != len(text):
            raise ValueError(f"{value!r} is no duration: {ALLOWED}")
    else:
        total = value * 1000.0
    if not 0 <= total <= LONGEST:
        raise ValueError(f"{value!r} is out of range: 0 to ten years")
    return round(total)


def format_duration(ms: int) -> str:
    """The shortest spelling that `parse_duration` reads back: 90_000 → `1m30s`."""
    if ms == 0:
        return "0s"
    parts, rest = [], ms
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
