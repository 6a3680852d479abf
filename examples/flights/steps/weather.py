"""How disruptions rise with the weather.

Rule: the weather is that of the hour before the scheduled one, the same that the model sees.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

#: What was measured, the edges of its steps, and their names. The last step has no upper edge.
SCALES: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "precip": (
        "Rain or snow, inches an hour",
        (0, 0.005, 0.05, 0.15),
        ("none", "trace", "to 0.15", "above"),
    ),
    "visib": (
        "Visibility, miles",
        (0, 1, 3, 6, 9.99),
        ("under 1", "1 to 3", "3 to 6", "6 to 10", "10"),
    ),
    "wind_speed": (
        "Wind, miles an hour",
        (0, 6, 12, 18, 24),
        ("under 6", "to 12", "to 18", "to 24", "above"),
    ),
}


def effects(table: pd.DataFrame, disrupted: pd.Series) -> list[dict[str, Any]]:
    """For each scale, its steps with the flights in them and the share that was disrupted."""
    return [
        {"column": column, "title": title, "steps": _steps(table[column], disrupted, edges, names)}
        for column, (title, edges, names) in SCALES.items()
    ]


def _steps(
    values: pd.Series, disrupted: pd.Series, edges: tuple[float, ...], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    step = pd.cut(values, [*edges, float("inf")], right=False, labels=list(names))
    counts = disrupted.groupby(step, observed=False).agg(["size", "mean"])
    return [
        {"name": str(name), "flights": int(size), "rate": float(mean) if size else None}
        for name, size, mean in counts.itertuples()
    ]
